"""Features to write: of a small model and an image that has holes."""

from __future__ import annotations

from typing import Any

import torch

from vision_longformer.features.encoder import Features
from vision_longformer.features.formats import Encoded, encoded_from_features

HEIGHT, WIDTH = 301, 523  # pixels; neither is a multiple of a stride
STRIDES = (4, 16)
STAGES = (1, 3)
CHANNELS = (5, 7)
PLACE: dict[str, Any] = {"crs": "EPSG:32633", "transform": [10.0, 0.0, 500_000.0, 0.0, -10.0, 5_400_000.0]}
METADATA = {"content": "features", "format_version": 1, "stages": list(STAGES), "model": "nano"} | {
    "encoded_size": [HEIGHT, WIDTH]
}


def valid_pixels() -> torch.Tensor:
    """Return a mask in which whole tokens of both stages are missing, and parts of some."""
    valid = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    valid[:37, :90] = False
    valid[200:203, 200:] = False
    return valid


def features(valid: torch.Tensor | None = None, *, seed: int = 0) -> Features:
    """Return random features, zero where a token holds no valid pixel."""
    valid = valid_pixels() if valid is None else valid
    generator = torch.Generator().manual_seed(seed)
    maps = []
    for stride, channels in zip(STRIDES, CHANNELS, strict=True):
        height, width = -(-HEIGHT // stride), -(-WIDTH // stride)
        tokens = torch.randn(channels, height, width, generator=generator)
        tokens += torch.linspace(-3, 3, height)[:, None] * torch.arange(channels)[:, None, None]
        maps.append(tokens.masked_fill(~token_mask(valid, stride), 0))
    return Features(
        maps=tuple(maps),
        global_tokens=(torch.randn(1, CHANNELS[0], generator=generator), torch.zeros(0, CHANNELS[1])),
        embedding=torch.randn(CHANNELS[1], generator=generator),
        valid=valid,
    )


def token_mask(valid: torch.Tensor, stride: int) -> torch.Tensor:
    """Return which tokens hold a valid pixel, one token after the other."""
    rows, columns = (range(0, side, stride) for side in valid.shape)
    return torch.tensor([[bool(valid[y : y + stride, x : x + stride].any()) for x in columns] for y in rows])


def encoded(found: Features | None = None, *, place: dict[str, Any] | None = None) -> Encoded:
    """Prepare features for writing."""
    return encoded_from_features(found or features(), stages=STAGES, strides=STRIDES, georeference=place)
