"""Normalisation after the images of a batch have come to their device: what timm's transform gives, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch import Tensor

from training.dense_cases import dense_recipe, make_coco
from vision_longformer.datasets.classification import Samples
from vision_longformer.datasets.coco import read_coco
from vision_longformer.datasets.dense_loaders import DenseImages
from vision_longformer.datasets.loaders import Batch, Images, Key, batches, evaluation_transform, training_transform
from vision_longformer.datasets.normalising import images_of
from vision_longformer.datasets.options import AugmentationOptions, InputOptions
from vision_longformer.images import Reading, read_raster
from vision_longformer.training.dense_models import preprocessing_of
from vision_longformer.utils.seeding import seed_sample

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406, 0.3), (0.229, 0.224, 0.225, 0.1)
COUNT = 12


@pytest.fixture(params=[3, 4], ids=["photographs", "four channels"])
def samples(request: pytest.FixtureRequest, tmp_path: Path) -> Samples:
    generator, channels = np.random.default_rng(0), request.param
    paths = tuple(tmp_path / f"{number}.tif" for number in range(COUNT))
    for path in paths:
        pixels = generator.integers(0, 256, (30, 41, channels)).astype(np.uint8)
        tifffile.imwrite(path, pixels, photometric="rgb" if channels == 3 else "minisblack", planarconfig="contig")
    return Samples(paths, (0,) * COUNT, ("only",), reading=Reading(channels=tuple(range(4)) if channels == 4 else None))


def whole_transform(channels: int, *, erasing: float) -> object:
    augmentation = AugmentationOptions(erasing=erasing)
    return training_transform(InputOptions(size=24), augmentation, mean=MEAN[:channels], std=STD[:channels])


@pytest.mark.parametrize("erasing", [0.0, 0.5, 1.0])
def test_batches_are_those_of_the_whole_transform(samples: Samples, erasing: float) -> None:
    channels = samples.reading.model_channels
    transform = whole_transform(channels, erasing=erasing)
    images = Images(samples, transform, seed=3, max_pixels=10**6)
    (batch,) = batches(images, [[Key(2, number, 0) for number in range(COUNT)]], workers=0, pin=False)
    expected = list[Tensor]()
    for number, path in enumerate(samples.paths):
        image = read_raster(path, reading=samples.reading)
        seed_sample(3, epoch=2, image=number, repeat=0)
        expected.append(transform(image))  # type: ignore[operator]
    assert batch.images.dtype == (torch.uint8 if channels == 3 else torch.float32)
    assert (len(batch.erased) > 0) == (erasing > 0)
    assert torch.equal(images_of(batch, CPU), torch.stack(expected))


def test_evaluation_sees_those_of_its_transform(samples: Samples) -> None:
    channels = samples.reading.model_channels
    colours = {"mean": MEAN[:channels], "std": STD[:channels]}
    transform = evaluation_transform(size=24, crop_share=0.9, interpolation="bicubic", **colours)
    images = Images(samples, transform, seed=0, max_pixels=10**6)
    (batch,) = batches(images, [list(range(COUNT))], workers=0, pin=False)
    expected = torch.stack([transform(read_raster(path, reading=samples.reading)) for path in samples.paths])
    assert torch.equal(images_of(batch, CPU), expected)


def test_what_follows_an_erased_part_is_drawn_as_before(samples: Samples) -> None:
    """The random numbers that erasing takes are as many as timm's, so that nothing else changes."""
    transform = whole_transform(samples.reading.model_channels, erasing=0.5)
    image = read_raster(samples.paths[0], reading=samples.reading)
    states = []
    for apply in (transform, Images(samples, transform, seed=0, max_pixels=10**6).transform):
        seed_sample(3, epoch=0, image=0, repeat=0)
        apply(image)  # type: ignore[operator]
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_padding_stays_zero(tmp_path: Path) -> None:
    folder = make_coco(tmp_path, train=7)
    split = read_coco(folder / "train.json", folder / "train", with_masks=False)
    preprocessing = preprocessing_of(dense_recipe("detection"))
    images = DenseImages(split, None, preprocessing, max_pixels=10**6)
    (batch,) = batches(images, [[0, 1, 2]], workers=0, pin=False)
    assert len(set(batch.sizes)) > 1
    seen = images_of(batch, CPU)
    mean, std = (torch.tensor(preprocessing[name])[:, None, None] for name in ("mean", "std"))
    for image, stored, (height, width) in zip(seen, batch.images, batch.sizes, strict=True):
        assert torch.equal(image[:, :height, :width], ((stored.float() / 255 - mean) / std)[:, :height, :width])
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()


def test_images_without_colours_are_a_models() -> None:
    images = torch.rand(2, 3, 4, 4, dtype=torch.float32)
    assert images_of(Batch(images, torch.zeros(2), [0, 1]), CPU) is images
