"""Images on their way to the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from timm.data import auto_augment

from vision_longformer.datasets.classification import Samples
from vision_longformer.datasets.loaders import Images, Key, evaluation_transform, training_transform
from vision_longformer.datasets.options import AugmentationOptions, InputOptions

COLOURS = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    values = np.arange(30 * 41 * 3, dtype=np.uint8).reshape(30, 41, 3)
    PIL.Image.fromarray(values).save(tmp_path / "image.png")
    return Samples(paths=(tmp_path / "image.png",), labels=(0,), classes=("only",))


def images(samples: Samples, *, size: int, **augmentation: object) -> Images:
    options = AugmentationOptions(**augmentation)  # type: ignore[arg-type]
    transform = training_transform(InputOptions(size=size), options, **COLOURS)
    return Images(samples, transform, seed=3, max_pixels=10**6)


def test_a_plain_crop_keeps_the_scale(samples: Samples) -> None:
    """At a crop share of 0.875, a 30-pixel side becomes 32 for crops of 28: neighbours stay about as far apart."""
    plain = images(samples, size=28, crop="plain", rand_augment=None, erasing=0.0, horizontal_flip=0.0)
    crops = torch.stack([plain[Key(epoch, 0, 0)].image for epoch in range(30)])  # type: ignore[union-attr]
    whole = evaluation_transform(size=32, crop_share=1.0, interpolation="bicubic", **COLOURS)
    resized = whole(PIL.Image.open(samples.paths[0]))
    assert resized.shape == (3, 32, 32)
    assert crops.shape == (30, 3, 28, 28)
    assert len({crop.sum().item() for crop in crops}) > 5  # crops differ in place alone
    assert all(torch.equal(crops[0], plain[Key(0, 0, 0)].image) for _ in range(2))  # type: ignore[union-attr]


def test_posterize_at_full_strength_is_black(samples: Samples) -> None:
    transform = training_transform(InputOptions(size=16), AugmentationOptions(), **COLOURS)
    operations = [op for step in transform.transforms for op in getattr(step, "ops", ())]
    posterize = [op.aug_fn for op in operations if op.name.startswith("Posterize")]
    assert posterize
    image = PIL.Image.open(samples.paths[0])
    assert not np.asarray(posterize[0](image, 0)).any()
    assert np.array_equal(np.asarray(posterize[0](image, 3)), np.asarray(auto_augment.posterize(image, 3)))
