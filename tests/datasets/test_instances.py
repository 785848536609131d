"""Objects from label images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.label_cases import SIZE, label_image, make_instances, numbered, photograph
from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.instances import reading_instances
from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.evaluation.coco import coco_results, evaluate
from vision_longformer.masks.rle import segmentation_to_mask, segmentation_to_rle
from vision_longformer.utils.steps import finish


def read(data: Path, split: str = "train", **options: Any) -> CocoSplit:
    defaults: dict[str, Any] = {"classes": ("nucleus",), "with_masks": True, "skip_invalid": False}
    return finish(reading_instances(data, split, **(defaults | options)))


def test_every_number_is_an_object_of_the_one_class(tmp_path: Path) -> None:
    split = read(make_instances(tmp_path))
    assert split.classes == ("nucleus",)
    assert [split.path(image).name for image in range(4)] == ["0.png", "1.png", "2.png", "3.png"]
    assert split.segmentations is not None
    for image in range(4):
        labels = numbered(10 * image)
        numbers = [number for number in np.unique(labels) if number]
        places = split.annotations(image)
        assert len(places) == len(numbers) > 1
        for place, number in zip(places, numbers, strict=True):
            mask = labels == number
            np.testing.assert_array_equal(segmentation_to_mask(split.segmentations, place, SIZE), mask)
            rows, columns = np.nonzero(mask)
            assert split.boxes[place].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert split.areas[place] == mask.sum()
    assert not split.is_crowd.any()
    assert read(tmp_path, with_masks=False).segmentations is None


def test_finding_all_of_them_is_an_average_precision_of_one(tmp_path: Path) -> None:
    split = read(make_instances(tmp_path))
    assert split.segmentations is not None
    found = {}
    for image in range(4):
        places = split.annotations(image)
        masks = [segmentation_to_rle(split.segmentations, place, SIZE) for place in places]
        found[image] = FoundObjects(split.boxes[places], np.ones(len(places)), split.labels[places], masks)
    scores = evaluate(split, coco_results(split, found), masks=True)
    assert scores.box.ap == scores.mask.ap == 1.0  # type: ignore[union-attr]


def test_an_image_may_have_no_object(tmp_path: Path) -> None:
    make_instances(tmp_path)
    label_image(tmp_path / "train/masks/1.png", np.zeros(SIZE, np.uint8))
    split = read(tmp_path)
    assert len(split.annotations(1)) == 0
    assert len(split.annotations(2)) > 0
    for number in range(3):
        label_image(tmp_path / f"val/masks/{number}.png", np.zeros(SIZE, np.uint8))
    assert read(tmp_path, "val").boxes.shape == (0, 4)


def test_masks_of_0_and_255_are_not_taken_for_one_object_an_image(tmp_path: Path) -> None:
    make_instances(tmp_path)
    for number in range(4):
        label_image(tmp_path / f"train/masks/{number}.png", np.where(numbered(number) > 0, 255, 0).astype(np.uint8))
    with pytest.raises(ValueError, match=r"0\.png: this and all other label images hold 0 and 255 alone, so each"):
        read(tmp_path)


def test_labels_that_cannot_be_used_are_named_or_left_out(tmp_path: Path) -> None:
    make_instances(tmp_path, train=5)
    (tmp_path / "train/masks/0.png").unlink()
    label_image(tmp_path / "train/masks/0.tif", np.full(SIZE, -1, np.int16))
    (tmp_path / "train/masks/1.png").write_text("no image")
    photograph(tmp_path / "train/masks/2.png")
    label_image(tmp_path / "train/masks/3.png", np.ones((5, 7), np.uint8))
    with pytest.raises(ValueError, match="4 problems") as error:
        read(tmp_path)
    for text in (
        "0.tif: has the value -1; objects have numbers from 1 on, and 0 is none",
        "1.png: it is not an image that can be read",
        "2.png: has several channels or fractions (RGB)",
        "3.png: has 53×37 pixels, and its label",
    ):
        assert text in str(error.value)
    split = read(tmp_path, skip_invalid=True)
    assert list(split.file_names) == ["train/images/4.png"]
    assert split.skipped == {"image without a label that fits": 4}


def test_labels_of_a_turned_photograph_refer_to_the_pixels_that_they_fit(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "train/a.jpg", exif=exif)
    label_image(tmp_path / "train/a.png", np.ones((30, 20), np.uint8))
    split = read(tmp_path)
    assert split.upright.tolist() == [True]
    assert split.read(0).size == (20, 30)


def test_a_model_of_several_classes_needs_labels_that_tell_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="label images hold objects of one class, and the model has 2"):
        read(make_instances(tmp_path), classes=("a", "b"))
