"""Group normalisation of maps with padding."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from detection.cases import batch_of
from model_helpers import fill, noise, relative_error
from vision_longformer.padding import find_level_paddings
from vision_longformer.segmentation.norm import RealGroupNorm


def test_each_image_is_normalised_by_itself() -> None:
    sizes = [(5, 7), (3, 2), (1, 1)]
    (level,) = find_level_paddings(sizes, [1], batch_size=(6, 7), device=torch.device("cpu"))
    norm = RealGroupNorm(2, 6).double()
    fill(norm)
    maps = [noise(6, *size, seed=number) * 3 + 1 for number, size in enumerate(sizes)]
    together = norm(F.pad(batch_of(maps), (0, 0, 0, 1), value=float("nan")), level)
    for number, own in enumerate(maps):
        expected = F.group_norm(own[None], 2, norm.weight, norm.bias)[0]
        height, width = own.shape[1:]
        assert relative_error(together[number, :, :height, :width], expected) <= 1e-12
