"""Looking at one image of any size with a head that was fitted to strokes: encode as `vil encode` does, then classify.

H×W map, C channels
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from vision_longformer.features.encoder import Encoder
from vision_longformer.features.formats.encoded import Encoded, MapRows, encoded_from_features
from vision_longformer.features.strategies import Limits, encoded_image
from vision_longformer.images import Reader
from vision_longformer.images.pixel_size import read_pixel_size
from vision_longformer.prediction.dense import OnProgress, Seen
from vision_longformer.segmentation.token_grid import TokenGrid
from vision_longformer.segmentation.token_head import NO_DATA, label_tokens, tokens_to_pixels
from vision_longformer.training.tasks.strokes import DTYPES, StrokeModel, StrokeSegmenter

BAND = 64  # rows of tokens that are kept
MASK_ROWS = 1024
OTHER_SCALE = 1.25  # of pixel sizes, beyond which images do not look alike


class BandMap:
    """A map that gives its rows, as (C, H, W), rounded as stored features are; it keeps the rows that it read last."""

    def __init__(self, rows: MapRows, dtype: torch.dtype) -> None:
        height, width, channels = rows.shape
        self.shape = (channels, height, width)
        self._rows, self._dtype = rows, dtype
        self._kept: tuple[int, int, NDArray[np.float32]] | None = None

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        channels, rows, columns = index
        top, bottom, _ = rows.indices(self.shape[1])
        if self._kept is None or self._kept[:2] != (top, bottom):
            read = self._rows.read(top, bottom).to(self._dtype).float().cpu().numpy()
            self._kept = (top, bottom, np.moveaxis(read, -1, 0))
        return self._kept[2][channels, :, columns]


def look_by_strokes(
    trained: StrokeModel,
    reader: Reader,
    path: Path | None,
    *,
    memory: int | None,
    work_folder: Path | None,
    device: torch.device,
    progress: OnProgress,
) -> Seen:
    """Return the class of every pixel of an image: whole where that fits into memory, else streamed.

    Args:
        trained: Backbone and head.
        reader: The image, open.
        path: Of its file; None of an image that is none, which is looked at whole.
        memory: Bytes that the process may hold; None for what it holds and 60% of what is free.
        work_folder: Where maps go that do not fit into memory; by default the system's place for temporary files.
        device: Where to compute.
        progress: Who is told how far it is.

    Raises:
        ImageError: The image cannot be read.
        PlanError: It does not fit.
        WorkFolderError: Maps cannot be kept in the work folder.
    """
    model = cast(StrokeSegmenter, trained.model)
    progress.begin(reader.info.size)
    if path is not None:
        _warn_of_other_scale(model, path)
    encoder = Encoder(model.backbone, stages=model.facts.stages, device=device)
    encoder.mean, encoder.std = tuple(trained.preprocessing["mean"]), tuple(trained.preprocessing["std"])
    with _encoded(encoder, trained, reader, path, memory, work_folder, progress) as (encoded, streamed):
        maps = [BandMap(rows, DTYPES[model.facts.dtype]) for rows in encoded.maps]
        grid = TokenGrid(maps, encoded.strides)
        tokens = label_tokens(model.head.on(grid))
        labels = np.asarray(tokens_to_pixels(tokens, stride=grid.stride, size=encoded.size))
        valid = _valid(encoded)
    if valid is not None:
        labels[~valid] = NO_DATA
    return Seen(1, streamed=streamed, labels=labels, valid=valid)


@contextlib.contextmanager
def _encoded(
    encoder: Encoder,
    trained: StrokeModel,
    reader: Reader,
    path: Path | None,
    memory: int | None,
    work_folder: Path | None,
    progress: OnProgress,
) -> Iterator[tuple[Encoded, bool]]:
    if path is None:
        strides = cast(StrokeSegmenter, trained.model).strides
        yield encoded_from_features(encoder.encode(reader), stages=encoder.stages, strides=strides), False
        return
    with tempfile.TemporaryDirectory(dir=work_folder) as folder:
        image = encoded_image(
            encoder,
            path,
            limits=Limits(memory=memory),
            work_folder=Path(folder) / "maps",
            reading=trained.reading,
            on_band=lambda share, pixels: progress.band(share),
        )
        with image as found:
            yield found.encoded, found.plan.chosen.strategy != "whole"


def _valid(encoded: Encoded) -> NDArray[np.bool_] | None:
    """Return which pixels the image has; None where it has all."""
    height = encoded.size[0]
    bands = [encoded.valid.read(top, min(top + MASK_ROWS, height)).cpu().numpy() for top in range(0, height, MASK_ROWS)]
    valid: NDArray[np.bool_] = np.concatenate(bands)
    return None if valid.all() else valid


def _warn_of_other_scale(model: StrokeSegmenter, path: Path) -> None:
    expected, found = model.facts.pixel_size, read_pixel_size(path)
    if expected is None or found is None:
        return
    ratio = found[0] / expected[0]
    if max(ratio, 1 / ratio) > OTHER_SCALE:
        warnings.warn(
            f"{path}: its pixels are of {found[0]:g} µm, and the head was fitted to pixels of {expected[0]:g} µm: "
            "things look different to it",
            RuntimeWarning,
            stacklevel=2,
        )
