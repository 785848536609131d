"""A CSV file that lists images, and says how each is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.test_find import make
from vision_longformer.images import Reading
from vision_longformer.images.find import by_reading, find_images


def write(folder: Path, text: str, *images: str) -> str:
    make(folder, *images)
    (folder / "list.csv").write_text(text, encoding="utf-8")
    return str(folder / "list.csv")


def test_images_and_how_they_are_read(tmp_path: Path) -> None:
    text = (
        "\ufeffpath, mpp,magnification,tissue,level,patient\n"
        "a/1.svs,0.5,,yes,,Ann\n"
        "b/1.svs,,20,no,,Bob\n"
        f"{tmp_path}/c/2.tif,,,,1,\n"
        "a/3.tif,,,,,\n"
    )
    remarks: list[str] = []
    listed = write(tmp_path, text, "a/1.svs", "b/1.svs", "c/2.tif", "a/3.tif")
    sources = find_images([listed], remark=remarks.append)
    assert [source.name for source in sources] == ["a/1.svs", "b/1.svs", "c/2.tif", "a/3.tif"]
    default = Reading(mpp=1.0, channels=(2, 1, 0), tissue=True)
    assert [source.asked.on(default) for source in sources] == [
        Reading(mpp=0.5, channels=(2, 1, 0), tissue=True),
        Reading(magnification=20, channels=(2, 1, 0)),
        Reading(level=1, channels=(2, 1, 0), tissue=True),
        default,
    ]
    assert remarks == [
        f"{listed}: passed over the columns patient; those of a list are path, level, mpp, magnification, tissue"
    ]
    assert [[source.name for source in group] for group in by_reading(sources, default).values()] == [
        ["a/1.svs"], ["b/1.svs"], ["c/2.tif"], ["a/3.tif"],
    ]  # fmt: skip
    assert list(by_reading(find_images([str(tmp_path / "a")]), default)) == [default]


def test_a_list_beside_other_images(tmp_path: Path) -> None:
    listed = write(tmp_path, "path;level\n1.tif;2\n", "1.tif", "2.tif")
    sources = find_images([str(tmp_path / "*.tif"), listed])
    assert [(source.name, source.asked.level) for source in sources] == [("1.tif", 2), ("2.tif", None)]
    assert [source.asked.level for source in find_images([listed, str(tmp_path / "*.tif")])] == [2, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "slide,mpp\nx.tif,1\n",
            r"list\.csv: a list of images has a column path, and may have level, .*; this",
        ),
        ("", "a list of images has a column path"),
        ("path\n", r"list\.csv: lists no image"),
        ("path,mpp\nx.tif,fine\n", r"list\.csv, line 2: mpp=fine: must be a number"),
        ("path,mpp\nx.tif,-1\n", r"list\.csv, line 2: mpp=-1\.0: must be above 0"),
        ("path,level\nx.tif,1.5\n", "line 2: level=1.5: must be a whole number"),
        ("path,tissue\nx.tif,maybe\n", "line 2: tissue=maybe: must be yes or no"),
        ("path,mpp,level\nx.tif,0.5,1\n", "line 2: level, mpp and magnification: give one of them"),
        ("path,mpp\nx.tif,1\ny.tif,1\n", r"line 3: there is no image .*y\.tif"),
        ("path,mpp\nx.tif,1\nx.tif,2\n", r"line 3: .*x\.tif is in the list twice"),
        ("path,mpp\n,1\n", "line 2: it names no image in the column path"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_images([write(tmp_path, text, "x.tif")])


def test_what_is_no_text_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(ValueError, match="is no text in UTF-8, as a list of images is"):
        find_images([str(tmp_path / "list.csv")])
