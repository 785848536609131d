"""What is found out about data before they are learned from."""

from __future__ import annotations

from vision_longformer.datasets.checks import absent_classes, only_class


def test_classes_that_do_not_occur_are_told_once_each() -> None:
    train = {"a": 3, "b": 0, "c": 5, "d": 0}
    assert absent_classes({"train": train, "val": {"a": 1, "b": 0, "c": 0, "d": 2}}, "image") == [
        "train has no image of b, d: each cannot be learned",
        "val has no image of c: it is learned, and not measured",
    ]
    assert absent_classes({"train": {"a": 3}, "val": {"a": 1}}, "image") == []


def test_a_single_class_means_nothing() -> None:
    assert only_class(("cat", "dog")) == []
    assert only_class(("cat",)) == ["there is one class alone, cat: every answer will be right, and mean nothing"]
