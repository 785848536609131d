"""Which labels are taken where nobody says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datasets.coco_cases import random_content, write_images
from datasets.label_cases import make_instances
from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.labels import Split, Wanted, class_counts, class_names, read_labels
from vision_longformer.datasets.semantic import SemanticSplit
from vision_longformer.utils.steps import finish


def read(data: Path, what: Any, **options: Any) -> Split:
    return finish(read_labels(data, "train", Wanted(what, **options)))


def make_coco(data: Path) -> Path:
    content = random_content()
    write_images(data / "train", content)
    (data / "train.json").write_text(json.dumps(content))
    return data


@pytest.mark.parametrize("what", ["boxes", "masks", "classes"])
def test_an_annotation_file_comes_first(what: str, tmp_path: Path) -> None:
    split = read(make_coco(tmp_path), what)
    assert class_counts(split) == {"cell": 4, "leaf": 2, "unused": 0}  # crowds are not learned
    names = ("cell", "leaf", "unused")
    assert class_names(split, what) == (("background", *names) if what == "classes" else names)
    known = read(tmp_path, what, classes=class_names(split, what))
    assert known.classes == names


def test_label_images_hold_objects_where_objects_are_wanted(tmp_path: Path) -> None:
    split = read(make_instances(tmp_path), "masks")
    assert isinstance(split, CocoSplit)
    assert split.classes == ("object",)
    assert read(tmp_path, "boxes", class_name="cell").classes == ("cell",)
    assert read(tmp_path, "boxes", classes=("nucleus",)).classes == ("nucleus",)


def test_where_classes_of_pixels_are_wanted_somebody_must_say_what_numbers_are(tmp_path: Path) -> None:
    make_instances(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no labels of train\. Expected: train\.json .*; or classes\.txt"):
        read(tmp_path, "classes")
    assert class_names(read(tmp_path, "classes", source="instances"), "classes") == ("background", "object")
    # weights of a background and one class have said it
    assert isinstance(read(tmp_path, "classes", classes=("background", "cell")), CocoSplit)
    (tmp_path / "classes.txt").write_text("\n".join(map(str, range(400))))
    split = read(tmp_path, "classes")
    assert isinstance(split, SemanticSplit)
    assert sum(class_counts(split).values()) == 4 * 37 * 53  # type: ignore[union-attr]


def test_numbers_that_are_classes_are_not_taken_for_objects(tmp_path: Path) -> None:
    make_instances(tmp_path)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(FileNotFoundError, match=r"classes\.txt says that label images hold classes; dense\.labels="):
        read(tmp_path, "boxes")
    assert len(read(tmp_path, "boxes", source="instances")) == 4
    with pytest.raises(ValueError, match=r"dense\.labels='index': tells classes of pixels, and no objects"):
        read(tmp_path, "boxes", source="index")


def test_a_folder_without_labels_is_told_where_they_may_lie(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing: no such folder"):
        read(tmp_path / "nothing", "boxes")
    with pytest.raises(FileNotFoundError, match=r"train\.json \(COCO's\) and its images in train/; or .*train_masks/"):
        read(tmp_path, "boxes")
