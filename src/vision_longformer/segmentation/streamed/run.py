"""Semantic segmentation of an image of any size, band by band.

The backbone is streamed first, and its maps are kept. Then the head goes over bands of rows: once for the statistics of
each norm, and once for the logits. The logits are those of a pass over the whole image; there is no seam.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from vision_longformer.fpn.streamed.backbone import features_of, streamed_maps, work_of_backbone
from vision_longformer.fpn.streamed.pyramid import StreamedPyramid
from vision_longformer.images import Reader, unit_rows
from vision_longformer.segmentation.semantic import SemanticFPN
from vision_longformer.segmentation.streamed.bands import HeadBands
from vision_longformer.segmentation.streamed.head import StreamedHead
from vision_longformer.streaming.bands import BAND_BYTES


@torch.no_grad()
def stream_logits(
    model: SemanticFPN,
    reader: Reader,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    work_folder: str | os.PathLike[str] | None = None,
    band_bytes: int = BAND_BYTES,
    band_rows: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """Classify every pixel of an image of any size. The logits are those of `model.logits` on the whole image.

    Missing and fully transparent pixels are padding: nothing sees them.

    Args:
        model: In evaluation mode, with a backbone of this library that can be streamed.
        reader: The image, from `open_reader` or of your own. Nothing is resized.
        mean: Of each channel, in [0, 1], as in training.
        std: Standard deviation of each channel, likewise.
        work_folder: Where the backbone's maps are kept, in files that are removed at the end; by default they are in
            memory.
        band_bytes: What the bands of one block may hold, in bytes, and those of the head four times as much; a single
            (chunk) row may be more.
        band_rows: Chunk rows in a band of the backbone, and rows in a band of a level, in place of `band_bytes`.
        progress: Called after each band with the share of all arithmetic that is done, from 0 to 1.

    Yields:
        From the top to the bottom of the image: the number of a band's first row, its (K, n, W) logits, zero where a
        pixel is missing, and (n, W) booleans, false there; None where none of them is. For that, the image is
        read once more.

    Raises:
        ValueError: The model cannot be streamed or is in training mode, or a number is out of range.
        ImageError: The image cannot be read.
        WorkFolderError: The work folder cannot be written.
    """
    features_of(model.backbone)
    size = reader.info.size
    bands = HeadBands(model, size, band_bytes=band_bytes, band_rows=band_rows)
    done = _Done(progress, work_of_backbone(model.backbone, size), bands)
    with streamed_maps(
        model.backbone,
        reader,
        mean=mean,
        std=std,
        work_folder=work_folder,
        band_bytes=band_bytes,
        band_rows=band_rows,
        progress=done.of_backbone,
    ) as maps:
        pyramid = StreamedPyramid(model.backbone, maps, size, device=next(model.parameters()).device)
        head = StreamedHead(model, pyramid, size)
        head.gather(bands.of_level, on_band=done.of_step)
        for top, bottom in bands.of_pixels():
            logits = head.logits(top, bottom)
            real = unit_rows(reader, top, bottom, len(mean))[1]
            if bool(real.all()):
                yield top, logits, None
            else:
                yield top, torch.where(real.to(logits.device), logits, 0), real
            del logits
            done.of_logits(bottom / size[0])


class _Done:
    """Turns what is done into a share of all work."""

    def __init__(self, report: Callable[[float], None] | None, backbone: float, bands: HeadBands) -> None:
        self._report, self._bands = report, bands
        self._backbone = backbone
        self._total = backbone + sum(bands.work.values()) + bands.work_of_logits

    def of_backbone(self, done: float) -> None:
        self._tell(done)

    def of_step(self, level: int, step: int, bottom: int) -> None:
        share = bottom / self._bands.sizes[level - step][0]
        before = sum(work for key, work in self._bands.work.items() if key < (level, step))
        self._tell(self._backbone + before + share * self._bands.work[level, step])

    def of_logits(self, share: float) -> None:
        self._tell(self._total - (1 - share) * self._bands.work_of_logits)

    def _tell(self, done: float) -> None:
        if self._report is not None:
            self._report(min(done / self._total, 1.0))
