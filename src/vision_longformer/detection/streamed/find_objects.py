"""Objects in an image that does not fit into memory as a whole, but band by band."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from vision_longformer.detection.boxes import FoundObjects, wanted
from vision_longformer.detection.retinanet import RetinaNet
from vision_longformer.detection.streamed.retinanet import detect_streamed
from vision_longformer.detection.tiled import memory_errors
from vision_longformer.fpn.streamed.backbone import folder_of_maps
from vision_longformer.fpn.streamed.memory import Streaming
from vision_longformer.images import Reader
from vision_longformer.tiling.tiles import Tile


def find_objects_streamed(
    model: RetinaNet,
    reader: Reader,
    strategy: Streaming,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    work_folder: Path | None = None,
    min_score: float = 0.0,
    classes: Collection[int] | None = None,
    on_band: Callable[[float], None] | None = None,
) -> FoundObjects:
    """Find what `detection.tiled.find_objects` would find if it looked at the whole image.

    Args:
        model: In evaluation mode.
        reader: The image.
        strategy: How.
        mean: Of the three channels, whose values are from 0 to 1.
        std: Standard deviation, likewise.
        work_folder: Where a folder for maps is made and removed, if they do not fit into memory; None takes the
            system's place for temporary files.
        min_score: Drop what is less certain.
        classes: Keep these class numbers only; None keeps all.
        on_band: Called after each band with the share of all work that is done.

    Returns:
        Objects, best first.

    Raises:
        ImageError: The image cannot be read.
        MemoryError: There was less memory than was free before.
        WorkFolderError: Maps cannot be kept in the work folder.
    """
    whole = Tile(0, 0, *reader.info.size)
    with folder_of_maps(work_folder, spilled=strategy.spilled) as folder, memory_errors(whole):
        found = detect_streamed(
            model,
            reader,
            mean=mean,
            std=std,
            work_folder=folder,
            band_bytes=strategy.band_bytes,
            progress=on_band,
        )
    chosen = wanted(found.scores, found.labels, min_score=min_score, classes=classes)
    boxes, scores, labels = (x[chosen].cpu() for x in (found.boxes, found.scores, found.labels))
    left_out = 0 if found.left_out is None else found.left_out.count(min_score=min_score, classes=classes)
    return FoundObjects(boxes.double().numpy(), scores.double().numpy(), labels.long().numpy(), left_out=left_out)
