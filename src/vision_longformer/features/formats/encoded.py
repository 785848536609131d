"""What is to be written: the features of one image, whether its maps are in memory or in files.

H×W map or image, n rows, C channels, G global tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor
from torch.nn import functional as F

from vision_longformer.features.encoder import Features
from vision_longformer.images import Reader, unit_rows
from vision_longformer.streaming.result import StreamedFeatures


class MapRows(Protocol):
    """A map that gives its rows; `streaming.StageMap` is one.

    Attributes:
        shape: (H, W, C).
        valid: (H, W) boolean, true where a token is real; None where all are.
    """

    shape: tuple[int, int, int]
    valid: Tensor | None

    def read(self, top: int, bottom: int) -> Tensor:
        """Return rows as (n, W, C)."""
        ...


class ValidRows(Protocol):
    """A mask of pixels that gives its rows."""

    def read(self, top: int, bottom: int) -> Tensor:
        """Return rows as (n, W) boolean."""
        ...


@dataclass(frozen=True)
class Encoded:
    """The features of one image.

    Attributes:
        size: (height, width) of the image as encoded, in pixels.
        stages: Whose maps there are, counted from 1.
        strides: Pixels per token of each.
        maps: Of each.
        global_tokens: (G, C) of each; G is 0 where a stage has none.
        embedding: (C,).
        valid: Which pixels were encoded.
        georeference: Where on earth the encoded image lies (see `images.geotiff`); empty if unknown.
    """

    size: tuple[int, int]
    stages: tuple[int, ...]
    strides: tuple[int, ...]
    maps: tuple[MapRows, ...]
    global_tokens: tuple[Tensor, ...]
    embedding: Tensor
    valid: ValidRows
    georeference: dict[str, Any] = field(default_factory=dict)


def encoded_from_features(
    features: Features,
    *,
    stages: Sequence[int],
    strides: Sequence[int],
    georeference: dict[str, Any] | None = None,
) -> Encoded:
    """Prepare what a pass over the whole image gave.

    Args:
        features: From `Encoder.encode`.
        stages: Whose maps they are.
        strides: Pixels per token of each of these.
        georeference: Of the image as encoded.
    """
    maps = [
        TensorRows(x, _token_mask(features.valid, x, stride)) for x, stride in zip(features.maps, strides, strict=True)
    ]
    height, width = features.valid.shape
    return Encoded(
        size=(height, width),
        stages=tuple(stages),
        strides=tuple(strides),
        maps=tuple(maps),
        global_tokens=features.global_tokens,
        embedding=features.embedding,
        valid=TensorMask(features.valid),
        georeference=georeference or {},
    )


def encoded_from_stream(
    features: StreamedFeatures,
    reader: Reader,
    *,
    strides: Sequence[int],
    channels: int = 3,
) -> Encoded:
    """Prepare what streaming gave.

    Args:
        features: From `streaming.stream`.
        reader: The image, which is read once more for which of its pixels are there.
        strides: Pixels per token of each stage that was kept.
        channels: That the model takes.
    """
    return Encoded(
        size=(features.image.height, features.image.width),
        stages=features.stages,
        strides=tuple(strides),
        maps=features.maps,
        global_tokens=features.global_tokens,
        embedding=features.embedding,
        valid=ReaderMask(reader, channels),
        georeference=features.image.georeference,
    )


class TensorRows:
    """A (C, H, W) map in memory."""

    def __init__(self, features: Tensor, valid: Tensor | None) -> None:
        self._tokens = features.permute(1, 2, 0)  # (H, W, C)
        self.shape = (features.shape[1], features.shape[2], features.shape[0])
        self.valid = valid

    def read(self, top: int, bottom: int) -> Tensor:
        """Return a view of rows, (n, W, C)."""
        return self._tokens[top:bottom]


class TensorMask:
    """An (H, W) mask in memory."""

    def __init__(self, valid: Tensor) -> None:
        self._valid = valid

    def read(self, top: int, bottom: int) -> Tensor:
        """Return a view of rows, (n, W)."""
        return self._valid[top:bottom]


class ReaderMask:
    """The mask of an image that is read again."""

    def __init__(self, reader: Reader, channels: int) -> None:
        self._reader, self._channels = reader, channels

    def read(self, top: int, bottom: int) -> Tensor:
        """Return rows, (n, W).

        Raises:
            ImageError: The image is damaged.
        """
        _, valid = unit_rows(self._reader, top, bottom, self._channels)
        return valid


def _token_mask(valid: Tensor, features: Tensor, stride: int) -> Tensor | None:
    """Return (h, w): which tokens of a (C, h, w) map hold a valid pixel; None where all do."""
    if bool(valid.all()):
        return None
    height, width = features.shape[1:]
    whole = F.pad(valid, (0, width * stride - valid.shape[1], 0, height * stride - valid.shape[0]))
    return whole.view(height, stride, width, stride).any(dim=3).any(dim=1)
