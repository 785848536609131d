"""Where label images lie, and how their numbers are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from datasets.label_cases import label_image, numbered, photograph
from vision_longformer.datasets.label_files import find_pairs, fitted, read_whole_numbers
from vision_longformer.images import ImageError

LAYOUTS = {
    "folders in the split": ("train/images/a.png", "train/masks/a.png"),
    "a folder in the split": ("train/a.png", "train/labels/a.tif"),
    "folders beside the split": ("train/a.tif", "train_masks/a.png"),
    "the labels' folder, with an ending": ("train/a.jpg", "train_labels/a_cp_masks.png"),
    "subfolders": ("train/images/x/a.jpg", "train/masks/x/a.png"),
    "Cellpose's masks": ("train/a.png", "train/a_cp_masks.png"),
    "Cellpose's training": ("train/a_img.tif", "train/a_masks.tif"),
    "an ending": ("train/a.png", "train/a_mask.png"),
    "another ending": ("train/x/a.jpg", "train/x/a_label.tif"),
    "a PNG beside a photograph": ("train/a.jpg", "train/a.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_people_have(layout: str, tmp_path: Path) -> None:
    image, label = (tmp_path / name for name in LAYOUTS[layout])
    for path in (image, label):
        for name in ("a", "b"):
            other = path.with_name(path.name.replace("a", name, 1))
            photograph(other) if path == image else label_image(other, numbered(1))
    pairs, _ = find_pairs(tmp_path, "train")
    assert next((pair.image, pair.labels) for pair in pairs) == (image, (label,))
    assert [fitted(pair) for pair in pairs] == [((37, 53), False)] * 2


def test_hidden_files_and_what_cellpose_leaves_are_no_images(tmp_path: Path) -> None:
    photograph(tmp_path / "train/a.png")
    label_image(tmp_path / "train/a_masks.png", numbered(1))
    for name in ("._a.png", ".ipynb_checkpoints/a.png", "a_flows.tif"):
        photograph(tmp_path / "train" / name)
    pairs, remarks = find_pairs(tmp_path, "train")
    assert [pair.image.name for pair in pairs] == ["a.png"]
    assert remarks == (f"{tmp_path}/train: passed over 2 hidden",)


@pytest.mark.parametrize(("folder", "label"), [("train/masks", "{}.png"), ("train_labels", "x/{}_cp_masks.tif")])
def test_labels_without_an_image_are_named(folder: str, label: str, tmp_path: Path) -> None:
    photograph(tmp_path / "train" / Path(label).with_name("a.jpg"))
    for name in ("a", "b", "c"):
        label_image(tmp_path / folder / label.format(name), numbered(1))
    pairs, remarks = find_pairs(tmp_path, "train")
    assert [len(pair.labels) for pair in pairs] == [1]
    there = f"{label.format('b')}, {label.format('c')}"
    assert remarks == (f"{tmp_path / folder}: 2 labels without an image: {there}",)


def test_an_image_has_one_label(tmp_path: Path) -> None:
    photograph(tmp_path / "train/a.png")
    ((pair,), _) = find_pairs(tmp_path, "train")
    with pytest.raises(ImageError, match=r"train/a\.png: its label .*train/a_masks\.png is missing"):
        fitted(pair)
    for name in ("a_masks.tif", "a_cp_masks.png"):
        label_image(tmp_path / "train" / name, numbered(1))
    ((pair,), _) = find_pairs(tmp_path, "train")
    with pytest.raises(ImageError, match=r"a\.png: has several labels, .*a_cp_masks\.png, .*a_masks\.tif; keep one"):
        fitted(pair)
    for name in ("masks", "labels"):
        (tmp_path / "train" / name).mkdir()
    with pytest.raises(ValueError, match=r"train: has several folders of labels, .*masks, .*labels; keep one"):
        find_pairs(tmp_path, "train")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int16, np.int32, np.uint32])
def test_numbers_of_8_to_32_bits_are_read_as_they_are_stored(suffix: str, dtype: type, tmp_path: Path) -> None:
    if suffix == ".png" and np.dtype(dtype) in (np.int16, np.int32, np.uint32):
        pytest.skip("PNG has no such numbers")
    largest = 1 if dtype is bool else min(np.iinfo(dtype).max, 2**31 - 1)
    labels: NDArray[Any] = np.array([[0, 1, largest], [largest - 1, 0, 1]]).astype(dtype)
    label_image(tmp_path / f"a{suffix}", labels)
    read = read_whole_numbers(tmp_path / f"a{suffix}").astype(np.int64)
    if suffix == ".png" and dtype is bool:
        read = (read > 0).astype(np.int64)  # Pillow's one bit
    np.testing.assert_array_equal(read, labels.astype(np.int64))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_palettes_give_indices(suffix: str, tmp_path: Path) -> None:
    indexed = Image.fromarray(np.array([[0, 1], [2, 250]], np.uint8))
    indexed.putpalette([7, 8, 9] * 256)
    indexed.save(tmp_path / f"a{suffix}")
    assert read_whole_numbers(tmp_path / f"a{suffix}").tolist() == [[0, 1], [2, 250]]


def test_colours_and_fractions_are_no_numbers(tmp_path: Path) -> None:
    photograph(tmp_path / "a.tif")
    label_image(tmp_path / "b.tif", np.zeros((4, 5), np.float32))
    for name, found in (("a.tif", r"\(37, 53, 3\) and the type uint8"), ("b.tif", r"\(4, 5\) and the type float32")):
        with pytest.raises(ImageError, match=rf"{name}: has the shape {found}, expected one channel of whole numbers"):
            read_whole_numbers(tmp_path / name)
    photograph(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: has several channels or fractions \(RGB\)"):
        read_whole_numbers(tmp_path / "a.png")
    label_image(tmp_path / "c.tif", np.zeros((40, 50), np.uint16))
    with pytest.raises(ImageError, match=r"c\.tif: it has 50×40 pixels by its header, more than the limit of 1,000"):
        read_whole_numbers(tmp_path / "c.tif", max_pixels=1000)
