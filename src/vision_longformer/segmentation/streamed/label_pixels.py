"""The class of every pixel of an image that does not fit into memory as a whole, but band by band."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vision_longformer.detection.tiled import memory_errors
from vision_longformer.fpn.streamed.backbone import folder_of_maps
from vision_longformer.fpn.streamed.memory import Streaming
from vision_longformer.images import Reader
from vision_longformer.segmentation.semantic import SemanticFPN
from vision_longformer.segmentation.streamed.label_file import LabelFile
from vision_longformer.segmentation.streamed.run import stream_logits
from vision_longformer.tiling.tiles import Tile


def label_pixels_streamed(
    model: SemanticFPN,
    reader: Reader,
    strategy: Streaming,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    work_folder: Path | None = None,
    on_band: Callable[[float], None] | None = None,
) -> tuple[LabelFile, LabelFile | None]:
    """Return what `segmentation.tiled.label_pixels` would say if it looked at the whole image, as a file.

    Args:
        model: In evaluation mode.
        reader: The image.
        strategy: How.
        mean: Of the channels, whose values are from 0 to 1.
        std: Standard deviation, likewise.
        work_folder: On whose disk the result is, and in which a folder for maps is made and removed, if they do not
            fit into memory; None takes the system's place for temporary files.
        on_band: Called after each band with the share of all work that is done.

    Returns:
        The (H, W) most probable classes: uint8, or uint16 if there are more than 255; the largest value of the type
        where a pixel is missing. And (H, W) booleans, false there; None where no pixel is missing.

    Raises:
        ImageError: The image cannot be read.
        MemoryError: There was less memory than was free before.
        WorkFolderError: Maps, or the result, cannot be kept in the work folder.
    """
    few = model.config.num_classes <= np.iinfo(np.uint8).max
    dtype, no_label = (np.dtype(np.uint8), 2**8 - 1) if few else (np.dtype(np.uint16), 2**16 - 1)
    labels, valid = LabelFile(reader.info.size, dtype, folder=work_folder), None
    whole = Tile(0, 0, *reader.info.size)
    with folder_of_maps(work_folder, spilled=strategy.spilled) as folder, memory_errors(whole):
        for top, logits, real in stream_logits(
            model,
            reader,
            mean=mean,
            std=std,
            work_folder=folder,
            band_bytes=strategy.band_bytes,
            progress=on_band,
        ):
            rows = logits.argmax(dim=0).cpu().numpy()  # (n, W)
            there = np.ones(rows.shape, bool) if real is None else real.numpy()
            if real is not None and valid is None:
                valid = LabelFile(reader.info.size, np.dtype(bool), folder=work_folder)
                for _ in range(top):
                    valid.append(np.ones((1, rows.shape[1]), bool))
            if valid is not None:
                valid.append(there)
            labels.append(np.where(there, rows, no_label))
    return labels, valid
