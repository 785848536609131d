from __future__ import annotations

from pathlib import Path

import pytest

from training.cases import CLASSES, make_csv, make_images
from vision_longformer.datasets.checks import check_images
from vision_longformer.datasets.classification import read_split


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_images(tmp_path / "data", train=2, val=1)


def test_class_folders_are_read_in_the_order_of_their_names(data: Path) -> None:
    (data / "train" / "red" / "notes.txt").write_text("no image")
    (data / "train" / ".hidden").mkdir()
    train = read_split(data, "train")
    assert train.classes == CLASSES
    assert train.labels == (0, 0, 1, 1, 2, 2)
    expected = [f"{name}/{number}.png" for name in CLASSES for number in range(2)]
    assert [path.relative_to(data / "train").as_posix() for path in train.paths] == expected
    assert len(train) == 6


def test_a_csv_gives_paths_relative_to_itself_and_labels_by_name(data: Path) -> None:
    rows = [
        ("train/red/0.png", "rot", "train"),
        ("val/blue/0.png", "blau", "val"),
        ("train/blue/1.png", "blau", "train"),
    ]
    path = make_csv(data / "list.csv", rows)
    train = read_split(path, "train")
    assert train.classes == ("blau", "rot")
    assert train.labels == (1, 0)
    assert train.paths == (data / "train/red/0.png", data / "train/blue/1.png")
    assert read_split(path, "val", classes=train.classes).labels == (0,)


def test_classes_of_a_model_keep_their_numbers(data: Path) -> None:
    known = ("red", "violet", "green", "blue")
    val = read_split(data, "val", classes=known)
    assert val.classes == known
    assert val.labels == (3, 2, 0)


def refused(data: Path, split: str = "train", **options: object) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        read_split(data, split, **options)  # type: ignore[arg-type]
    return str(error.value)


def test_folders_that_do_not_fit_are_refused_by_name(data: Path, tmp_path: Path) -> None:
    assert f"{data}/test: no such folder" in refused(data, "test")
    assert f"{data} has train, val" in refused(data, "test")
    assert f"{tmp_path}/other: no such folder or CSV file" in refused(tmp_path / "other")
    (data / "train" / "violet").mkdir()
    assert refused(data) == f"{data}/train/violet: no image in this class folder"
    (data / "empty").mkdir()
    assert "has no class folder in it" in refused(data, "empty")
    assert "split 'val' has blue, green, which the model's 1 classes do not include (red)" in refused(
        data, "val", classes=["red"]
    )


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (("path", "label"), [("a", "b")], "lacks the column split; it must have path, label, split"),
        (
            ("path", "label", "split"),
            [("a.png", "x", "train"), ("b.png", "", "train")],
            "line 3: path, label and split",
        ),
        (("path", "label", "split"), [("a.png", "x")], "line 2: path, label and split must all be given"),
        (("path", "label", "split"), [("a.png", "x", "val")], "no row has split 'train'; it has val"),
        (("path", "label", "split"), [], "no row has split 'train'; it has no rows"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused_with_its_line(
    header: tuple[str, ...], rows: list[tuple[str, str, str]], message: str, tmp_path: Path
) -> None:
    path = make_csv(tmp_path / "list.csv", rows, header)
    assert message in refused(path)
    assert refused(path).startswith(str(path))


def test_a_csv_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("path,label,split\nä.png,ö,train\n".encode("latin-1"))
    assert "is not a CSV file in UTF-8" in refused(tmp_path / "list.csv")


def test_images_that_cannot_be_read_are_named_and_counted(data: Path) -> None:
    samples = read_split(data, "train")
    check_images(samples.paths)
    samples.paths[1].write_bytes(samples.paths[1].read_bytes()[:-60])
    samples.paths[3].write_text("no image")
    with pytest.raises(ValueError, match=r"blue/1.png: .* \(and 1 more\); mend or remove it"):
        check_images(samples.paths)
    check_images(samples.paths, decode=False)
    samples.paths[4].unlink()
    with pytest.raises(ValueError, match=r"red/0.png: no such file"):
        check_images(samples.paths, decode=False)


def test_images_above_the_limit_of_pixels_are_named(data: Path) -> None:
    with pytest.raises(ValueError, match=r"blue/0.png: .*20 pixels.* more than the limit of 400"):
        check_images(read_split(data, "train").paths, max_pixels=400)


def test_spaces_around_the_fields_of_a_csv_are_no_part_of_them(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text('path, label, split\n1.jpg, cat, train\n2.jpg,cat ,train\n3.jpg, "dog", val\n')
    train = read_split(tmp_path / "list.csv", "train")
    assert (train.classes, train.paths) == (("cat",), (tmp_path / "1.jpg", tmp_path / "2.jpg"))
    assert read_split(tmp_path / "list.csv", "val").classes == ("dog",)


def test_hidden_names_and_other_files_are_no_images_of_a_class_and_are_counted(data: Path) -> None:
    folder = data / "train" / "red"
    (folder / ".ipynb_checkpoints").mkdir()
    for name in (".ipynb_checkpoints/0-checkpoint.png", "._0.png", "notes.txt"):
        (folder / name).touch()
    train = read_split(data, "train")
    assert len(train) == 6
    assert train.remarks == (f"{folder}: passed over 2 hidden, 1 .txt",)


def test_a_class_without_images_says_what_it_has_instead(data: Path) -> None:
    (data / "train" / "violet").mkdir()
    (data / "train" / "violet" / "a.h5").touch()
    assert refused(data) == f"{data}/train/violet: no image in this class folder; it has 1 .h5"


def test_class_folders_may_be_links(data: Path, tmp_path: Path) -> None:
    (data / "train" / "red").rename(tmp_path / "elsewhere")
    (data / "train" / "red").symlink_to(tmp_path / "elsewhere")
    assert read_split(data, "train").labels == (0, 0, 1, 1, 2, 2)
