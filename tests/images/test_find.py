"""Which files of a folder are images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision_longformer.images import open_reader
from vision_longformer.images.find import find_images, images_below, suffixes


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in images_below(folder).images]


def test_suffixes_are_those_that_the_readers_read() -> None:
    photographs = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".jp2", ".ppm", ".avif"}
    microscopes_and_satellites = {".tif", ".tiff", ".svs", ".ndpi", ".qptiff", ".mrxs", ".czi", ".npy", ".zarr.zip"}
    assert photographs | microscopes_and_satellites <= suffixes()
    assert not {".h5", ".mpg", ".pdf", ".eps", ".txt", ".json", ".safetensors", ".zip"} & suffixes()


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".jfif", ".jp2", ".ppm", ".tga", ".pcx", ".ico", ".dds"])
def test_what_has_such_a_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (16, 16), (9, 99, 199)).save(path)
    reader = open_reader(images_below(tmp_path).images[0])
    assert reader.read_rows(0, 16).values.shape[:2] == (16, 16)
    reader.close()


def test_capitals_make_no_difference(tmp_path: Path) -> None:
    make(tmp_path, "a.JPG", "b.Jpeg", "c.PNG", "d.TIFF", "e.Zarr.Zip", "F.NDPI")
    assert len(names(tmp_path)) == 6


def test_hidden_names_are_passed_over_and_counted(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "._a.jpg", ".DS_Store", ".ipynb_checkpoints/a-checkpoint.jpg", "b/.ipynb_checkpoints/c.jpg")
    assert names(tmp_path) == ["a.jpg"]
    assert images_below(tmp_path).others == {"hidden": 4}


def test_a_folder_that_is_hidden_itself_is_searched(tmp_path: Path) -> None:
    assert names(make(tmp_path / ".cache", "a.jpg")) == ["a.jpg"]


def test_what_is_not_taken_is_counted_by_kind(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b/notes.txt", "b/more.TXT", "labels.csv", "README", "x.tif.geotiff/stage4.tif")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    told: list[str] = []
    assert [source.name for source in find_images([str(tmp_path)], remark=told.append)] == ["a.jpg"]
    counted = "2 .txt, 1 .csv, 1 of features, 1 that are no files, or links to nothing, 1 without a suffix"
    assert told == [f"{tmp_path}: passed over {counted}"]


def test_a_folder_without_images_says_what_it_has_instead(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "b.txt", "c.h5")
    with pytest.raises(FileNotFoundError, match=r"this folder holds no image that can be read; it has 2 \.txt, 1 \.h5"):
        find_images([str(tmp_path)])


def test_links_to_folders_are_followed_and_keep_their_names(tmp_path: Path) -> None:
    make(tmp_path, "store/1.jpg", "train/cat/2.jpg", "train/dog/3.jpg")
    (tmp_path / "train/cat/more").symlink_to(tmp_path / "store")
    (tmp_path / "train/fox").symlink_to(tmp_path / "store")
    assert names(tmp_path / "train") == ["cat/2.jpg", "cat/more/1.jpg", "dog/3.jpg", "fox/1.jpg"]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "a/b").symlink_to(tmp_path / "b")
    (tmp_path / "b/a").symlink_to(tmp_path / "a")
    assert names(tmp_path) == ["a/1.jpg", "a/b/2.jpg", "b/2.jpg", "b/a/1.jpg"]
    assert images_below(tmp_path).others == {"link to a folder above it": 4}


def test_links_that_lead_nowhere_are_counted(tmp_path: Path) -> None:
    make(tmp_path, "1.jpg")
    (tmp_path / "itself.jpg").symlink_to(tmp_path / "itself.jpg")
    (tmp_path / "nothing.jpg").symlink_to(tmp_path / "gone")
    (tmp_path / "2.jpg").symlink_to(tmp_path / "1.jpg")
    assert names(tmp_path) == ["1.jpg", "2.jpg"]
    assert images_below(tmp_path).others == {"that are no files, or links to nothing": 2}


def test_arrays_in_zarr_are_images_and_features_in_zarr_are_not(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    pixels = np.zeros((20, 30, 3), np.uint8)
    zarr.save_array(str(tmp_path / "a.zarr"), pixels)
    zarr.save_array(str(tmp_path / "plate"), pixels)
    zarr.open_group(str(tmp_path / "b.zarr"), mode="w").attrs["vision_longformer"] = {}
    make(tmp_path, "c.zarr/begun")
    assert names(tmp_path) == ["a.zarr", "plate"]
    assert images_below(tmp_path).others == {"of features": 2}
    pattern = find_images([str(tmp_path / "*.zarr")])
    assert [source.name for source in pattern] == ["a.zarr"]


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_no_text_are_found(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(raw, "wb"):
        pass
    assert [os.fsencode(source.path) for source in find_images([str(tmp_path)])] == [raw]


def test_names_may_hold_the_characters_of_patterns(tmp_path: Path) -> None:
    folder = make(tmp_path / "x [v1] *", "a[1].jpg", "a1.jpg", "q?*.jpg", "x y.jpg", "new\nline.jpg")
    assert len(find_images([str(folder)])) == 5
    assert [source.name for source in find_images([str(folder / "a[1].jpg")])] == ["a[1].jpg"]
