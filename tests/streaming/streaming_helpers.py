"""What a streamed image is held to: a pass over the whole of it."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from model_helpers import relative_error
from vision_longformer import VisionLongformer
from vision_longformer.features.batches import PaddedBatch
from vision_longformer.features.encoder import Encoder
from vision_longformer.images import ArrayReader
from vision_longformer.images.reader import Array, Mask
from vision_longformer.images.values import unit_range
from vision_longformer.streaming import StreamedFeatures
from vision_longformer.timm_interface import normalisation

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def picture(height: int, width: int, channels: int = 3, *, seed: int = 0) -> Array:
    """Return (height, width, channels) noise of 8 bits."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def holes(height: int, width: int, *, seed: int = 0) -> Mask:
    """Return a mask with scattered holes, and with whole patches, chunks and bands missing."""
    generator = np.random.default_rng(seed)
    valid = generator.random((height, width)) > 0.3
    valid[height // 3 : height // 2] = False
    valid[: height // 4, : width // 2] = False
    valid[-1, -1] = True
    return valid


@torch.no_grad()
def whole(model: VisionLongformer, array: Array, valid: Mask | None = None) -> dict[str, Tensor]:
    """Return the embedding, maps and global tokens of a pass over the whole image."""
    values, seen = unit_range(array, model.in_chans)
    mean, std = normalisation(model)
    images = values.sub_(torch.tensor(mean)).div_(torch.tensor(std)).permute(2, 0, 1)[None]
    images = images.to(next(model.parameters()).dtype)
    mask = (seen if valid is None else seen & torch.from_numpy(valid))[None]
    mask_or_none = None if bool(mask.all()) else mask
    final, pairs = model.forward_intermediates(images, return_prefix_tokens=True, valid=mask_or_none)
    pool = cast(Any, Encoder._pool)
    door = Encoder.__new__(Encoder)  # an encoder would turn the model to float32
    door.model = model
    batch = PaddedBatch(images, ((images.shape[2], images.shape[3]),), mask_or_none)
    expected = {"embedding": pool(door, final, model.norm(pairs[-1][1]), batch)[0]}
    for number, (stage_map, tokens) in enumerate(pairs, start=1):
        expected |= {f"map{number}": stage_map[0], f"tokens{number}": tokens[0]}
    return expected


def streamed_tensors(features: StreamedFeatures) -> dict[str, Tensor]:
    """Name a result as `whole` does."""
    found = {"embedding": features.embedding}
    for number, stage_map, tokens in zip(features.stages, features.maps, features.global_tokens, strict=True):
        found |= {f"map{number}": stage_map.tensor(), f"tokens{number}": tokens}
    return found


def assert_same(features: StreamedFeatures, expected: dict[str, Tensor]) -> None:
    """Hold all that was streamed to the whole image's result."""
    for name, tensor in streamed_tensors(features).items():
        assert tensor.shape == expected[name].shape, name
        if tensor.numel():
            error = relative_error(tensor, expected[name])
            assert error <= TOLERANCE[tensor.dtype], f"{name}: {error}"


def reader(array: Array, valid: Mask | None = None) -> ArrayReader:
    """Return a reader of an array and a mask."""
    return ArrayReader(array, valid=valid)
