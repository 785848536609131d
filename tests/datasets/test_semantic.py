from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.coco_cases import random_content, write_content, write_images
from vision_longformer.datasets.coco import read_coco
from vision_longformer.datasets.semantic import coco_classes, coco_label, read_semantic
from vision_longformer.images import ImageError
from vision_longformer.masks.rle import segmentation_to_mask

SIZE = (13, 17)


def label(seed: int, *, size: tuple[int, int] = SIZE) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 3, size).astype(np.uint8)
    values[0, 0] = 255
    return values


def make(data: Path, *, suffix: str, labels: str, names: tuple[str, ...] = ("b", "a", "sub/c")) -> Path:
    """Write images of noise and their labels into two folders, or into one."""
    for number, name in enumerate(names):
        for folder in ("train", labels):
            (data / folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(data / "train" / f"{name}{suffix}")
        Image.fromarray(label(number)).save(data / labels / f"{name}.png")
    (data / "classes.txt").write_text("road\ntree\nroof\n")
    return data


@pytest.mark.parametrize(("suffix", "labels"), [(".png", "train_labels"), (".jpg", "train_labels"), (".jpg", "train")])
def test_labels_lie_in_a_folder_of_their_own_or_beside_photographs(tmp_path: Path, suffix: str, labels: str) -> None:
    split = read_semantic(make(tmp_path, suffix=suffix, labels=labels), "train")
    assert split.classes == ("road", "tree", "roof")
    assert list(split.images) == [f"train/{name}{suffix}" for name in ("a", "b", "sub/c")]
    assert split.sizes.tolist() == [list(SIZE)] * 3
    assert len(split) == 3
    for image, seed in enumerate((1, 0, 2)):
        np.testing.assert_array_equal(split.read_label(image), label(seed))
        assert split.read(image).size == SIZE[::-1]


def palette_png(path: Path, values: np.ndarray) -> None:
    indexed = Image.new("P", values.shape[::-1])
    indexed.putdata(values.ravel().tolist())
    indexed.putpalette([200, 30, 40, 1, 2, 3] + [9] * 762)
    indexed.save(path)


def test_palettes_give_indices_and_16_bits_more_classes(tmp_path: Path) -> None:
    data = make(tmp_path, suffix=".jpg", labels="train")
    palette_png(data / "train" / "a.png", label(8))
    wide = label(9).astype(np.uint16) + 300
    Image.fromarray(wide).save(data / "train" / "b.png")
    (data / "classes.txt").unlink()
    split = read_semantic(data, "train", classes=[str(number) for number in range(700)], ignore_index=-1)
    np.testing.assert_array_equal(split.read_label(0), label(8))
    np.testing.assert_array_equal(split.read_label(1), wide)


def test_values_that_are_no_class_are_named_with_their_place(tmp_path: Path) -> None:
    data = make(tmp_path, suffix=".jpg", labels="train")
    values = label(0)
    values[4, 7] = 3
    Image.fromarray(values).save(data / "train" / "a.png")
    with pytest.raises(ValueError, match=r"train/a\.png: has the value 3 at row 4, column 7; the 3 classes are 0 to 2"):
        read_semantic(data, "train")
    with pytest.raises(ValueError, match=r"train/a\.png: has the value 255 at row 0, column 0; .* and 9 is ignored"):
        read_semantic(data, "train", ignore_index=9)
    assert read_semantic(data, "train", skip_invalid=True).skipped == {"image without a label that fits": 1}
    Image.new("RGB", SIZE[::-1]).save(data / "train" / "a.png")
    with pytest.raises(ValueError, match=r"train/a\.png: has several channels or fractions \(RGB\)"):
        read_semantic(data, "train")
    with pytest.raises(ImageError, match=r"train/a\.png: has several channels or fractions \(RGB\)"):
        read_semantic(data, "train", read_labels=False).read_label(0)


def test_labels_that_are_missing_broken_or_of_another_size_are_named_or_left_out(tmp_path: Path) -> None:
    data = make(tmp_path, suffix=".jpg", labels="train_labels")
    (data / "train_labels" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"train/a\.jpg: its label .*train_labels/a\.png is missing; mend it"):
        read_semantic(data, "train")
    (data / "train_labels" / "b.png").write_text("no image")
    Image.fromarray(label(0, size=(17, 13))).save(data / "train_labels" / "sub" / "c.png")
    with pytest.raises(ValueError, match="3 problems") as error:
        read_semantic(data, "train")
    assert f"{data}/train_labels/b.png: it is not an image that can be read" in str(error.value)
    assert f"{data}/train/sub/c.jpg: has 17×13 pixels, and its label" in str(error.value)
    with pytest.raises(ValueError, match="has no image with a label"):
        read_semantic(data, "train", skip_invalid=True)
    Image.fromarray(label(0)).save(data / "train_labels" / "b.png")
    split = read_semantic(data, "train", skip_invalid=True)
    assert list(split.images) == ["train/b.jpg"]
    assert split.skipped == {"image without a label that fits": 2}


def test_photographs_are_turned_where_only_that_fits_their_label(tmp_path: Path) -> None:
    data = make(tmp_path, suffix=".jpg", labels="train", names=("a",))
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", SIZE[::-1]).save(data / "train" / "a.jpg", exif=exif)
    assert read_semantic(data, "train").read(0).size == (17, 13)
    Image.fromarray(label(0, size=(17, 13))).save(data / "train" / "a.png")
    split = read_semantic(data, "train")
    assert split.read(0).size == (13, 17)
    assert split.sizes.tolist() == [[17, 13]]


def test_classes_must_be_named_once_each(tmp_path: Path) -> None:
    data = make(tmp_path, suffix=".jpg", labels="train")
    for text in ("", "road\nroad\n", "road\n\nroof\n"):
        (data / "classes.txt").write_text(text)
        with pytest.raises(ValueError, match=r"classes\.txt: must name each class once, one a line"):
            read_semantic(data, "train")
    (data / "classes.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"classes\.txt: no such file; it names the classes"):
        read_semantic(data, "train")
    with pytest.raises(FileNotFoundError, match="val: no such folder of images"):
        read_semantic(data, "val", classes=("x",))


def test_coco_masks_become_classes_with_the_smaller_object_on_top(tmp_path: Path) -> None:
    content: dict[str, Any] = random_content(per_image=8)
    write_images(tmp_path, content)
    split = read_coco(write_content(tmp_path / "a.json", content), tmp_path, with_masks=True)
    assert split.segmentations is not None
    assert coco_classes(split) == ("background", "cell", "leaf", "unused")
    overlaps = 0
    for image in range(3):
        size = split.size(image)
        places = list(split.annotations(image))
        masks = {place: segmentation_to_mask(split.segmentations, place, size) for place in places}
        result = coco_label(split, image)
        for row in range(size[0]):
            for column in range(size[1]):
                there = [place for place in places if masks[place][row, column]]
                overlaps += len({split.labels[place] for place in there}) > 1
                expected = split.labels[min(there, key=lambda place: split.areas[place])] + 1 if there else 0
                assert result[row, column] == expected
    assert overlaps > 20
    without = read_coco(tmp_path / "a.json", tmp_path, with_masks=False)
    with pytest.raises(ValueError, match="was read without masks"):
        coco_label(without, 0)


def test_labels_of_a_model_must_mean_its_classes(tmp_path: Path) -> None:
    data = make(tmp_path, suffix=".jpg", labels="train")
    assert read_semantic(data, "train", classes=("road", "tree", "roof", "more")).classes[3] == "more"
    for classes, told in (
        (("road", "roof", "tree"), "class 1 is tree in the labels, and roof for the model"),
        (("road", "tree"), "class 2 is roof in the labels, and nothing for the model"),
    ):
        with pytest.raises(ValueError, match=told):
            read_semantic(data, "train", classes=classes)


def test_no_category_may_be_named_as_the_background(tmp_path: Path) -> None:
    content: dict[str, Any] = random_content()
    content["categories"][0]["name"] = "background"
    write_images(tmp_path, content)
    split = read_coco(write_content(tmp_path / "a.json", content), tmp_path, with_masks=True)
    with pytest.raises(ValueError, match=r"a\.json: has a category named background, as class 0 is named"):
        coco_classes(split)
