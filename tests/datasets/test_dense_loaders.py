from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from training.dense_cases import dense_recipe, make_coco
from vision_longformer.datasets.coco import CocoSplit, read_coco
from vision_longformer.datasets.dense_loaders import MIN_SIDE, DenseBatch, DenseImages, evaluation_size, read_label
from vision_longformer.datasets.labels import What
from vision_longformer.datasets.loaders import Key, batches
from vision_longformer.datasets.options import DenseOptions
from vision_longformer.datasets.semantic import IGNORE_INDEX, coco_label, read_semantic
from vision_longformer.masks.rle import mask_to_box, segmentation_to_mask
from vision_longformer.segmentation.config import UNLABELLED
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.dense_models import preprocessing_of

PLAIN = {"vertical_flip": 0.0, "horizontal_flip": 0.0, "color_jitter": 0.0}


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> CocoSplit:
    folder = make_coco(tmp_path_factory.mktemp("coco"), train=7)
    return read_coco(folder / "train.json", folder / "train", with_masks=True)


def images(split: CocoSplit, config: TrainConfig, learned: What) -> DenseImages:
    return DenseImages(split, config, preprocessing_of(config), learned=learned, max_pixels=10**6)


def taken(split: CocoSplit, config: TrainConfig, learned: What, keys: list[Key]) -> DenseBatch:
    (batch,) = batches(images(split, config, learned), [keys], workers=0, pin=False)
    assert isinstance(batch, DenseBatch)
    return batch


def unchanged(task: str) -> TrainConfig:
    dense = {"sides": None, "scale": [1.0, 1.0], "crop": None}
    return dense_recipe(task, dense=dense, augmentation=PLAIN)


def test_without_augmentation_objects_are_those_of_the_file(split: CocoSplit) -> None:
    batch = taken(split, unchanged("instance_segmentation"), "masks", [Key(0, image, 0) for image in range(7)])
    assert batch.indices == list(range(7))
    assert split.segmentations is not None
    for image, (size, target) in enumerate(zip(batch.sizes, batch.targets, strict=True)):
        assert size == split.size(image)
        places = [place for place in split.annotations(image) if not split.is_crowd[place]]
        assert target.boxes.tolist() == split.boxes[places].tolist()
        assert target.labels.tolist() == split.labels[places].tolist()
        assert target.masks is not None
        expected = [segmentation_to_mask(split.segmentations, place, size) for place in places]
        assert [mask.tolist() for mask in target.masks.numpy()] == [mask.tolist() for mask in expected]
    assert len(batch.targets[6].boxes) == 0  # an image without objects


def test_pixels_without_data_have_no_class(tmp_path: Path) -> None:
    """Whatever is drawn there, in training and in evaluation, in an image that is mirrored and cut."""
    generator = np.random.default_rng(0)
    pixels, drawn = generator.random((30, 40, 3), np.float32), generator.integers(0, 2, (30, 40), np.uint8)
    pixels[4:20, 12:] = np.nan
    drawn[0, 0] = IGNORE_INDEX
    for folder in ("train", "train_labels"):
        (tmp_path / folder).mkdir(parents=True)
    tifffile.imwrite(tmp_path / "train/a.tif", pixels, photometric="rgb")
    Image.fromarray(drawn).save(tmp_path / "train_labels/a.png")
    (tmp_path / "classes.txt").write_text("none\nsome\n")
    data = read_semantic(tmp_path, "train")
    expected = drawn.astype(int)
    expected[0, 0] = UNLABELLED
    expected[4:20, 12:] = UNLABELLED

    flipped = {"sides": None, "scale": [1.0, 1.0], "crop": 22}
    config = dense_recipe("semantic_segmentation", dense=flipped, augmentation=PLAIN | {"horizontal_flip": 1.0})
    loader = DenseImages(data, config, preprocessing_of(config), learned="classes", max_pixels=10**6)
    (batch,) = batches(loader, [[Key(0, 0, 0)]], workers=0, pin=False)
    windows = np.lib.stride_tricks.sliding_window_view(expected[:, ::-1], (22, 22)).reshape(-1, 22, 22)
    assert (windows == batch.semantic.numpy()[0]).all(axis=(1, 2)).any()
    assert (batch.semantic == UNLABELLED).any()

    (batch,) = batches(loader, [[0]], workers=0, pin=False)
    np.testing.assert_array_equal(read_label(data, 0, valid=batch.valid[0], max_pixels=10**6), expected)


def test_labels_stay_with_their_objects_where_some_are_cut_away(split: CocoSplit) -> None:
    """Every object keeps its class: by the annotation whose mask it is, found at the same place of the image."""
    cut = {"sides": None, "scale": [1.0, 1.0], "crop": 22}
    config = dense_recipe("instance_segmentation", dense=cut, augmentation=PLAIN)
    assert split.segmentations is not None
    dropped = 0
    for epoch in range(10):
        for image in range(6):
            batch = taken(split, config, "masks", [Key(epoch, image, 0)])
            whole = taken(split, unchanged("instance_segmentation"), "masks", [Key(epoch, image, 0)])
            (top, left) = place_of(batch.images[0].numpy(), whole.images[0].numpy())
            height, width = batch.sizes[0]
            objects, everything = batch.targets[0], whole.targets[0]
            assert everything.masks is not None
            assert objects.masks is not None
            windows = everything.masks[:, top : top + height, left : left + width]
            corner, end = torch.tensor([left, top] * 2), torch.tensor([width, height] * 2)
            cut_boxes = (everything.boxes - corner).clamp(min=0).minimum(end)
            stays = (cut_boxes[:, 2:] - cut_boxes[:, :2] >= MIN_SIDE).all(dim=1) & windows.flatten(1).any(dim=1)
            expected = list(zip(everything.labels[stays].tolist(), windows[stays].tolist(), strict=True))
            assert list(zip(objects.labels.tolist(), objects.masks.tolist(), strict=True)) == expected
            dropped += len(everything.labels) - len(expected)
            for box, mask in zip(objects.boxes.tolist(), objects.masks.numpy(), strict=True):
                assert tuple(box) == mask_to_box(mask)
    assert dropped > 20


def place_of(part: np.ndarray, whole: np.ndarray) -> tuple[int, int]:
    """Return the (row, column) at which an image of noise was cut out of another."""
    rows, columns = whole.shape[1] - part.shape[1] + 1, whole.shape[2] - part.shape[2] + 1
    for row in range(rows):
        for column in range(columns):
            if np.array_equal(whole[:, row : row + part.shape[1], column : column + part.shape[2]], part):
                return row, column
    raise AssertionError("the part is not in the image")


def test_batches_are_padded_below_and_to_the_right(split: CocoSplit) -> None:
    keys = [Key(0, image, 0) for image in (0, 1, 2)]
    config = unchanged("detection")
    batch = taken(split, config, "boxes", keys)
    assert tuple(batch.images.shape) == (3, 3, max(h for h, _ in batch.sizes), max(w for _, w in batch.sizes))
    for image, (height, width) in zip(batch.images, batch.sizes, strict=True):
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()
        assert image[:, :height, :width].any(dim=0).float().mean() > 0.9
    assert all(target.masks is None for target in batch.targets)


def test_classes_of_pixels_are_those_of_the_label_and_padding_is_ignored(split: CocoSplit) -> None:
    batch = taken(split, unchanged("semantic_segmentation"), "classes", [Key(0, image, 0) for image in (0, 1, 2)])
    assert batch.semantic is not None
    for image, (label, (height, width)) in enumerate(zip(batch.semantic, batch.sizes, strict=True)):
        np.testing.assert_array_equal(label[:height, :width].numpy(), coco_label(split, image))
        outside = torch.ones_like(label, dtype=torch.bool)
        outside[:height, :width] = False
        assert (label[outside] == IGNORE_INDEX).all()


def test_an_image_is_augmented_as_its_key_says_whatever_came_before(split: CocoSplit) -> None:
    config = dense_recipe("instance_segmentation")
    keys = [Key(epoch, image, 0) for epoch in range(3) for image in range(4)]
    first = [taken(split, config, "masks", [key]) for key in keys]
    torch.manual_seed(99)
    again = [taken(split, config, "masks", [key]) for key in reversed(keys)][::-1]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets[0].boxes, other.targets[0].boxes)
    assert not torch.equal(first[0].images, first[4].images[..., : first[0].images.shape[-1]])  # another epoch


def test_evaluation_takes_the_last_side_and_needs_no_annotations(split: CocoSplit) -> None:
    config = dense_recipe("detection")
    how = preprocessing_of(config)
    assert how["side"] == 32
    assert evaluation_size((64, 100), how) == (32, 50)
    assert evaluation_size((64, 100), how | {"side": None}) == (64, 100)
    evaluated = DenseImages(split, None, how, max_pixels=10**6)
    (batch,) = batches(evaluated, [[0, 1]], workers=0, pin=False)
    assert [min(size) for size in batch.sizes] == [32, 32]


def test_what_is_wrong_with_an_image_is_a_sentence(split: CocoSplit, tmp_path: Path) -> None:
    config = dense_recipe("detection")
    Image.new("RGB", (5, 5)).save(tmp_path / "0.png")
    moved = dataclasses.replace(split, folder=tmp_path)
    with pytest.raises(ValueError, match=r"0.png: has 5×5 pixels, not 53×37"):
        taken(moved, config, "boxes", [Key(0, 0, 0)])
    with pytest.raises(ValueError, match=r"1.png"):
        taken(moved, config, "boxes", [Key(0, 1, 0)])


def test_options_have_the_defaults_of_coco() -> None:
    assert DenseOptions().sides == (800,)
    assert DenseOptions().max_side == 1333
