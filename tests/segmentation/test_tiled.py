from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision_longformer.segmentation import build_semantic_fpn
from vision_longformer.segmentation.tiled import label_pixels
from vision_longformer.tiling.choosing import Tiling

PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
WRONG, RIM = 7, 5


class StandIn:
    """Takes the red channel for the class, and is wrong within 5 pixels of the edges of what it is given."""

    def __init__(self, num_classes: int = 8) -> None:
        self.config = SimpleNamespace(num_classes=num_classes)
        self.backbone = SimpleNamespace(strides=(4, 8))

    def parameters(self) -> list[Tensor]:
        return []

    def logits(self, images: Tensor) -> Tensor:
        classes = torch.full(images.shape[2:], WRONG)
        classes[RIM:-RIM, RIM:-RIM] = (images[0, 0, RIM:-RIM, RIM:-RIM] * 255).round().long()
        return torch.nn.functional.one_hot(classes, self.config.num_classes).permute(2, 0, 1)[None].float()


def label(model: Any, pixels: Any, *, tile: int, overlap: int) -> Any:
    return label_pixels(model, pixels, tiling=Tiling(model, tile=tile, overlap=overlap), **PLAIN)


def test_pixels_come_from_the_tile_in_which_they_lie_deepest() -> None:
    pixels = np.random.default_rng(2).integers(0, 7, (203, 267, 3), dtype=np.uint8)
    labels = label(StandIn(), pixels, tile=96, overlap=2 * RIM)
    assert labels.dtype == np.uint8
    assert (labels[RIM:-RIM, RIM:-RIM] == pixels[RIM:-RIM, RIM:-RIM, 0]).all()
    assert (labels[:RIM] == WRONG).all()
    assert (labels[:, -RIM:] == WRONG).all()


def test_many_classes_need_wider_numbers() -> None:
    pixels = np.full((40, 60, 3), 6, np.uint8)
    assert label(StandIn(256), pixels, tile=64, overlap=8).dtype == np.uint8
    assert label(StandIn(257), pixels, tile=64, overlap=8).dtype == np.uint16


def test_a_whole_image_is_what_the_model_itself_says() -> None:
    model = build_semantic_fpn("vision_longformer_nano", num_classes=5, pyramid_width=16, head_width=8, norm_groups=4)
    pixels = np.random.default_rng(3).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = model.eval().logits(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)[0].argmax(dim=0)
    assert (label(model, pixels, tile=96, overlap=8) == expected.numpy()).mean() > 0.999
