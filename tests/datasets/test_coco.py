from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.coco_cases import CATEGORY_IDS, CLASSES, SIZES, random_content, write_content, write_images
from vision_longformer.datasets.coco import CocoSplit, read_coco
from vision_longformer.images import ImageError

Content = dict[str, Any]


@pytest.fixture
def content() -> Content:
    return random_content()


@pytest.fixture
def folder(tmp_path: Path, content: Content) -> Path:
    return write_images(tmp_path / "images", content)


def read(folder: Path, content: Any, **options: Any) -> CocoSplit:
    return read_coco(write_content(folder.parent / "a.json", content), folder, **({"with_masks": True} | options))


def refused(folder: Path, content: Any, **options: Any) -> str:
    with pytest.raises(ValueError, match=r"a\.json: ") as error:
        read(folder, content, **options)
    return str(error.value).removeprefix(f"{folder.parent}/a.json: ")


def test_annotations_stand_image_by_image_with_labels_without_gaps(folder: Path, content: Content) -> None:
    split = read(folder, content)
    assert split.classes == CLASSES
    assert split.category_ids.tolist() == list(CATEGORY_IDS)
    assert split.image_ids.tolist() == [5, 8, 11]
    assert split.sizes.tolist() == [list(size) for size in SIZES]
    assert [split.path(image) for image in range(3)] == [folder / f"{number}.png" for number in range(3)]
    assert split.skipped == {}
    for image, entry in enumerate(content["images"]):
        own = [annotation for annotation in content["annotations"] if annotation["image_id"] == entry["id"]]
        places = split.annotations(image)
        assert split.annotation_ids[places].tolist() == [annotation["id"] for annotation in own]
        assert split.boxes_xywh[places].tolist() == [annotation["bbox"] for annotation in own]
        corners = [(x, y, x + w, y + h) for x, y, w, h in (annotation["bbox"] for annotation in own)]
        np.testing.assert_allclose(split.boxes[places], np.array(corners).reshape(-1, 4), rtol=1e-6)
        assert split.areas[places].tolist() == [annotation["area"] for annotation in own]
        assert split.is_crowd[places].tolist() == [annotation["iscrowd"] == 1 for annotation in own]
        assert [CATEGORY_IDS[label] for label in split.labels[places]] == [entry["category_id"] for entry in own]
    assert list(split.annotations(2)) == []


def test_classes_stand_in_the_order_of_their_ids_wherever_they_stand_in_the_file(
    folder: Path, content: Content
) -> None:
    expected = read(folder, content)
    content["categories"].reverse()
    split = read(folder, content)
    assert split.classes == CLASSES
    assert split.labels.tolist() == expected.labels.tolist()


def test_segmentations_are_kept_as_the_file_has_them(folder: Path, content: Content) -> None:
    split = read(folder, content)
    assert split.segmentations is not None
    entries = {entry["id"]: entry["segmentation"] for entry in content["annotations"]}
    kinds = set()
    for place, annotation_id in enumerate(split.annotation_ids.tolist()):
        expected = entries[annotation_id]
        if isinstance(expected, list):
            assert [polygon.tolist() for polygon in split.segmentations.polygons(place)] == expected
            assert split.segmentations.run_lengths(place).size == 0
            kinds.add("polygons")
        elif isinstance(expected["counts"], list):
            assert split.segmentations.run_lengths(place).tolist() == expected["counts"]
            assert split.segmentations.polygons(place) == []
            kinds.add("runs")
        else:
            kinds.add("compressed")
    assert kinds == {"polygons", "runs", "compressed"}
    assert read(folder, content, with_masks=False).segmentations is None


def test_a_split_holds_few_objects_whatever_the_number_of_annotations(folder: Path, content: Content) -> None:
    """Workers of a loader share arrays; Python objects they would copy."""
    split = read(folder, content)
    many = read(folder, random_content(per_image=40))
    assert len(many.labels) == 10 * len(split.labels)
    for value in vars(many).values():
        assert not isinstance(value, list | dict) or len(value) == 0
    assert pickle.loads(pickle.dumps(many)).path(1) == many.path(1)


def test_images_are_counted_and_indexed_as_sequences_are(folder: Path, content: Content) -> None:
    split = read(folder, content)
    assert len(split) == 3
    assert list(split.file_names) == ["0.png", "1.png", "2.png"]
    assert split.file_names[-1] == "2.png"
    with pytest.raises(IndexError):
        split.file_names[3]


def test_classes_of_a_model_keep_their_numbers(folder: Path, content: Content) -> None:
    split = read(folder, content, classes=("other", "unused", "leaf", "cell"))
    assert split.category_ids.tolist() == [-1, 90, 7, 2]
    plain = read(folder, content)
    assert [split.classes[label] for label in split.labels] == [plain.classes[label] for label in plain.labels]
    with pytest.raises(ValueError, match=r"has the categories unused, which the model's 2 classes do not include"):
        read(folder, content, classes=("cell", "leaf"))


def test_what_a_file_may_leave_out(folder: Path, content: Content) -> None:
    """Area and iscrowd are optional; ids start anywhere; there may be no annotation."""
    for annotation in content["annotations"]:
        del annotation["area"], annotation["iscrowd"]
    content["annotations"][0]["id"] = 0
    split = read(folder, content)
    np.testing.assert_allclose(split.areas, split.boxes_xywh[:, 2] * split.boxes_xywh[:, 3])
    assert not split.is_crowd.any()
    assert split.annotation_ids[0] == 0
    empty = read(folder, content | {"annotations": []})
    assert empty.boxes.shape == (0, 4)
    assert [list(empty.annotations(image)) for image in range(3)] == [[], [], []]


def test_boxes_up_to_a_pixel_beyond_the_edge_are_clipped(folder: Path, content: Content) -> None:
    height, width = SIZES[0]
    content["annotations"] = content["annotations"][:1]
    content["annotations"][0]["bbox"] = [-1, -0.5, width + 2, height + 1]
    split = read(folder, content)
    assert split.boxes.tolist() == [[0, 0, width, height]]
    assert split.boxes_xywh.tolist() == [[-1, -0.5, width + 2, height + 1]]  # evaluation compares what was drawn
    for box in (
        [-1.01, 0, 5, 5],
        [0, -1.01, 5, 5],
        [0, 0, width + 1.01, 5],
        [0, 0, 5, height + 1.01],
        [width, 0, 1, 1],
    ):
        content["annotations"][0]["bbox"] = box
        assert "which reaches out of its image of 53×37 pixels" in refused(folder, content)


# --- orientation ------------------------------------------------------------------------------------------------


def turned_photograph(folder: Path, orientation: int, *, suffix: str) -> np.ndarray:
    """Write an image of 37×53 stored pixels (height, width), red where its stored top left is."""
    pixels = np.zeros((37, 53, 3), np.uint8)
    pixels[:8, :8, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(folder / f"0{suffix}", exif=exif, quality=100)
    return pixels


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_sizes_tell_whether_boxes_refer_to_stored_or_to_upright_pixels(
    folder: Path, content: Content, suffix: str
) -> None:
    stored = turned_photograph(folder, 6, suffix=suffix)  # to be turned clockwise by a quarter
    content["images"][0]["file_name"] = f"0{suffix}"
    content["annotations"] = []
    as_stored = read(folder, content)
    assert not as_stored.upright[0]
    assert np.abs(np.asarray(as_stored.read(0)).astype(int) - stored).max() < 100
    content["images"][0] |= {"height": 53, "width": 37}
    as_upright = read(folder, content)
    assert as_upright.upright[0]
    assert as_upright.size(0) == (53, 37)
    assert np.abs(np.asarray(as_upright.read(0)).astype(int) - np.rot90(stored, -1)).max() < 100


def test_a_size_that_no_orientation_explains_is_refused(folder: Path, content: Content) -> None:
    content["images"][0] |= {"height": 53, "width": 37}  # and the file has no EXIF
    content["annotations"] = []
    expected = "image 5 (0.png) has 53×37 pixels, and the annotations say 37×53"
    assert refused(folder, content).startswith(expected)
    turned_photograph(folder, 3, suffix=".png")  # upside down keeps its size
    assert refused(folder, content).startswith(expected)


def test_an_image_that_changes_after_it_was_checked_is_named(folder: Path, content: Content) -> None:
    split = read(folder, content)
    Image.new("RGB", (20, 10)).save(folder / "0.png")
    with pytest.raises(ImageError, match=r"images/0\.png: has 20×10 pixels, not 53×37"):
        split.read(0)


# --- what is wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "holds list, not a mapping with images, annotations, categories"),
        (None, "holds NoneType, not a mapping"),
        ({"images": [], "annotations": []}, "the list 'categories' is missing; a COCO file has images, annotations"),
        ({"images": {}, "annotations": [], "categories": []}, "the list 'images' is {}"),
        ({"images": [], "annotations": [], "categories": [{"id": 1, "name": "x"}]}, "has no image that can be used"),
    ],
)
def test_files_of_another_kind_are_refused(folder: Path, value: Any, message: str) -> None:
    assert refused(folder, value).startswith(message)
    assert refused(folder, value, skip_invalid=True).startswith(message)


def test_files_that_are_no_json_are_refused(folder: Path) -> None:
    file = folder.parent / "a.json"
    for data in (b'{"images": [', b"", b"\xff\xfe\x00", b"[" * 100_000, json.dumps({"a": 1}).encode()[:-1]):
        file.write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.json: is not JSON"):
            read_coco(file, folder, with_masks=True)
    with pytest.raises(FileNotFoundError, match=r"b\.json: no such annotation file"):
        read_coco(folder.parent / "b.json", folder, with_masks=True)
    with pytest.raises(FileNotFoundError, match="other: no such folder of images"):
        read_coco(file, folder.parent / "other", with_masks=True)


def test_numbers_of_thousands_of_digits_are_named_as_others_are(folder: Path, content: Content) -> None:
    file = write_content(folder.parent / "a.json", content)
    box = json.dumps(content["annotations"][0]["bbox"])
    file.write_text(file.read_text().replace(box, f"[1, 2, 3, {'7' * 5000}]", 1))
    with pytest.raises(ValueError, match=r"annotation 100 of image 5 \(0\.png\) has the bbox \[1, 2, 3, inf\]"):
        read_coco(file, folder, with_masks=True)


def entry(path: str, value: Any) -> Callable[[Content], None]:
    """Return what sets one value: "annotations.0.bbox" for example. Ellipsis deletes it."""

    def change(content: Content) -> None:
        *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        place: Any = content
        for step in parents:
            place = place[step]
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return change


FIRST = "annotation 100 of image 5 (0.png)"
THIRD = "annotation 102 of image 5 (0.png)"  # with compressed run lengths
SECOND = "annotation 101 of image 8 (1.png)"  # with plain run lengths
PROBLEMS: list[tuple[str, Any, str, str]] = [
    ("annotations.0", 7, "unusable annotation entry", "an annotation is 7, not a mapping"),
    ("annotations.0.id", ..., "unusable annotation entry", "an annotation of image 5 has the id None, not a whole"),
    ("annotations.0.id", True, "unusable annotation entry", "an annotation of image 5 has the id True, not a whole"),
    ("annotations.0.id", -3, "unusable annotation entry", "an annotation of image 5 has the id -3, not a whole number"),
    ("annotations.0.id", 10**30, "unusable annotation entry", "an annotation of image 5 has the id 1000000000000"),
    ("annotations.0.id", 103, "annotation with the id of another", "annotation 103 of image 8: its id is not unique"),
    ("annotations.0.image_id", "5", "unusable annotation entry", "annotation 100 has the image_id '5', not a whole"),
    (
        "annotations.0.image_id",
        99,
        "annotation of no image",
        "annotation 100 of image 99 points to image 99, which the file does not have",
    ),
    (
        "annotations.0.category_id",
        1,
        "annotation of no category",
        "annotation 100 of image 5 points to category 1, which the file does not have",
    ),
    ("annotations.0.bbox", ..., "no box", f"{FIRST} has no bbox"),
    ("annotations.0.bbox", [1, 2, 3], "unusable box", f"{FIRST} has the bbox [1, 2, 3], not four numbers"),
    ("annotations.0.bbox", [1, 2, "3", 4], "unusable box", f"{FIRST} has the bbox [1, 2, '3', 4], not four numbers"),
    ("annotations.0.bbox", [1, math.nan, 3, 4], "unusable box", f"{FIRST} has the bbox [1, nan, 3, 4], not four"),
    ("annotations.0.bbox", [1, 2, 3, math.inf], "unusable box", f"{FIRST} has the bbox [1, 2, 3, inf], not four"),
    ("annotations.0.bbox", [10**400, 2, 3, 4], "unusable box", f"{FIRST} has the bbox [1000000000"),
    ("annotations.0.bbox", [1, 2, 0, 4], "box without area", f"{FIRST} has the bbox [1, 2, 0, 4], which has no area"),
    ("annotations.0.bbox", [9, 2, -3, 4], "box without area", f"{FIRST} has the bbox [9, 2, -3, 4], which has no area"),
    ("annotations.0.bbox", [1, 2, 1e300, 4], "box outside of its image", f"{FIRST} has the bbox [1, 2, 1e+300, 4]"),
    ("annotations.0.area", -1, "unusable area", f"{FIRST} has the area -1, not a number from 0 on"),
    ("annotations.0.area", "big", "unusable area", f"{FIRST} has the area 'big', not a number from 0 on"),
    ("annotations.0.iscrowd", 2, "unusable iscrowd", f"{FIRST} has iscrowd 2, neither 0 nor 1"),
    ("annotations.0.iscrowd", None, "unusable iscrowd", f"{FIRST} has iscrowd null, neither 0 nor 1; 0 is an object"),
    ("annotations.0.iscrowd", "1", "unusable iscrowd", f"{FIRST} has iscrowd '1', neither 0 nor 1"),
    ("annotations.0.iscrowd", [1], "unusable iscrowd", f"{FIRST} has iscrowd [1], neither 0 nor 1"),
    ("annotations.0.segmentation", ..., "no segmentation", f"{FIRST} has no segmentation"),
    ("annotations.0.segmentation", [], "no segmentation", f"{FIRST} has no segmentation"),
    ("annotations.0.segmentation", "x", "unusable segmentation", f"{FIRST} has the segmentation 'x', neither polygons"),
    ("annotations.0.segmentation.1", 5, "unusable polygon", f"{FIRST} has the polygon 5, not a list of numbers"),
    ("annotations.0.segmentation.0.3", "5", "unusable polygon", f"{FIRST} has the polygon ["),
    ("annotations.0.segmentation.0.3", ..., "unusable polygon", f"{FIRST} has a polygon of 7 numbers, which"),
    ("annotations.0.segmentation.1", [1, 2, 3, 4], "unusable polygon", f"{FIRST} has a polygon of 2 points"),
    ("annotations.0.segmentation.0.3", math.nan, "unusable polygon", f"{FIRST} has a polygon with a point whose y is"),
    ("annotations.0.segmentation.0.2", math.inf, "unusable polygon", f"{FIRST} has a polygon with x from"),
    ("annotations.0.segmentation.0.2", 107, "unusable polygon", "to 107, far outside of 53×37 pixels"),
    ("annotations.0.segmentation.0.3", -38, "unusable polygon", "with y from -38 to"),
    ("annotations.0.segmentation.0.3", 10**400, "unusable polygon", f"{FIRST} has a polygon with a number that is too"),
    (
        "annotations.0.segmentation.1",
        [54, 1, 60, 1, 60, 9],
        "unusable polygon",
        f"{FIRST} has a polygon that lies outside of its image of 53×37 pixels",
    ),
    (
        "annotations.1.segmentation.size",
        [29, 41],
        "unusable run lengths",
        f"{SECOND} has run lengths of size [29, 41] (height, width), and its image has [41, 29]",
    ),
    ("annotations.1.segmentation.size", ..., "unusable run lengths", f"{SECOND} has run lengths of size None"),
    ("annotations.1.segmentation.counts.0", 1.5, "unusable run lengths", f"{SECOND} has the counts [1.5"),
    ("annotations.1.segmentation.counts.0", -1, "unusable run lengths", "its counts hold a negative number (-1)"),
    ("annotations.1.segmentation.counts.0", 10**9, "unusable run lengths", f"{SECOND} has unusable run lengths"),
    ("annotations.1.segmentation.counts", None, "unusable run lengths", f"{SECOND} has the counts None, neither"),
    ("annotations.2.segmentation.counts", "5~", "unusable run lengths", f"{THIRD} has unusable run lengths"),
    ("annotations.2.segmentation.counts", "52", "unusable run lengths", "its counts add up to 7 pixels, and"),
    ("annotations.2.segmentation.counts", "", "unusable run lengths", "its compressed counts are empty"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "reason", "message"), PROBLEMS)
def test_annotations_that_cannot_be_used_are_named_or_left_out(
    folder: Path, content: Content, path: str, value: Any, reason: str, message: str
) -> None:
    entry(path, value)(content)
    text = refused(folder, content)
    assert message in text
    assert text.endswith("; mend it, or leave it out with skip_invalid")
    split = read(folder, content, skip_invalid=True)
    assert split.skipped == {reason: 1}
    assert len(split.labels) == 7
    assert len(split) == 3


IMAGE_PROBLEMS: list[tuple[str, Any, str, str]] = [
    ("images.0", "0.png", "unusable image entry", "an image is '0.png', not a mapping"),
    ("images.0.id", 1.5, "unusable image entry", "image 0.png has the id 1.5, not a whole number"),
    ("images.0.id", 8, "image with the id of another", "image 8 (1.png): its id is not unique"),
    ("images.0.file_name", 3, "unusable image entry", "image 5 has the file_name 3, not a text"),
    ("images.0.file_name", "a\0b", "unusable image entry", r"image 5 has the file_name 'a\x00b', not a text"),
    ("images.0.file_name", "\ud800", "unusable image entry", r"image 5 has the file_name '\ud800', not a text"),
    ("images.0.file_name", "x.png", "image file missing", "image 5 (x.png): there is no file"),
    ("images.0.file_name", "x" * 5000, "image file missing", "image 5 (xxxxx"),
    ("images.0.file_name", "../a.json", "image cannot be read", "image 5 (../a.json) cannot be read: "),
    ("images.0.height", ..., "unusable image entry", "image 5 (0.png) has the height None, not a whole number from 1"),
    ("images.0.height", 37.5, "unusable image entry", "image 5 (0.png) has the height 37.5, not a whole number"),
    ("images.0.file_name", "", "unusable image entry", "image 5 has the file_name '', not a text"),
    ("images.0.width", "70", "unusable image entry", "image 5 (0.png) has the width '70', not a whole number"),
    ("images.0.width", 0, "unusable image entry", "image 5 (0.png) has the width 0, not a whole number from 1"),
    ("images.0.width", 10**400, "unusable image entry", "image 5 (0.png) has the width 1000"),
    ("images.0.width", math.nan, "unusable image entry", "image 5 (0.png) has the width nan, not a whole number"),
    ("images.0.width", 54, "image of another size", "image 5 (0.png) has 53×37 pixels, and the annotations say 54×37"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "reason", "message"), IMAGE_PROBLEMS)
def test_images_that_cannot_be_used_are_named_or_left_out_with_their_annotations(
    folder: Path, content: Content, path: str, value: Any, reason: str, message: str
) -> None:
    entry(path, value)(content)
    assert message in refused(folder, content)
    split = read(folder, content, skip_invalid=True)
    assert split.skipped[reason] == 1
    assert split.image_ids.tolist() == [8, 11]
    others = sum(count for name, count in split.skipped.items() if name != reason)
    assert others + len(split.labels) == 8
    if reason != "image with the id of another":
        assert len(split.labels) == 4


def test_entries_that_share_a_file_are_all_refused_as_none_has_all_of_its_objects(
    folder: Path, content: Content
) -> None:
    content["images"][1] |= {"file_name": "./0.png", "height": SIZES[0][0], "width": SIZES[0][1]}
    text = refused(folder, content)
    assert "image file with several entries: 2" in text
    assert "image 5 has the file 0.png, as image 8; join them into one entry with the annotations of all" in text
    assert "image 8 has the file ./0.png, as image 5" in text
    split = read(folder, content, skip_invalid=True)
    assert split.image_ids.tolist() == [11]
    assert split.skipped == {"image file with several entries": 2, "annotation of an image left out": 8}


CATEGORY_PROBLEMS: list[tuple[str, Any, str, str]] = [
    ("categories.0", [], "unusable category", "a category is [], not a mapping"),
    ("categories.0.id", "2", "unusable category", "a category (cell) has the id '2', not a whole number"),
    ("categories.0.name", 2, "unusable category", "category 2 has the name 2, not a text"),
    ("categories.0.id", 7, "category with the id of another", "category 7 (leaf): its id is not unique"),
    ("categories.1.name", "cell", "category of the same name", "category 7 has the name cell, as category 2"),
]


@pytest.mark.parametrize(("path", "value", "reason", "message"), CATEGORY_PROBLEMS)
def test_categories_that_cannot_be_used_are_named_or_left_out_with_their_annotations(
    folder: Path, content: Content, path: str, value: Any, reason: str, message: str
) -> None:
    entry(path, value)(content)
    assert message in refused(folder, content)
    split = read(folder, content, skip_invalid=True)
    assert split.skipped[reason] == 1
    assert len(split.classes) == 2
    assert 0 < len(split.labels) <= 8


def test_problems_are_collected_counted_and_the_first_few_shown(folder: Path, content: Content) -> None:
    broken = copy.deepcopy(content)
    for annotation in broken["annotations"]:
        annotation["bbox"][2] = 0
    broken["annotations"][1]["bbox"] = None
    text = refused(folder, broken)
    assert text.startswith("8 problems (box without area: 7, unusable box: 1); mend them, or leave them out")
    assert text.count("\n") == 6
    assert text.endswith("\n  and 3 more")
    assert "\n  annotation 100 of image 5 (0.png) has the bbox [" in text


def test_annotations_of_an_unusable_image_are_no_problem_of_their_own(folder: Path, content: Content) -> None:
    (folder / "0.png").unlink()
    assert refused(folder, content).startswith("image 5 (0.png): there is no file")
    split = read(folder, content, skip_invalid=True)
    assert split.skipped == {"image file missing": 1, "annotation of an image left out": 4}
