"""Images by URL: the pixels of the same file on disk, and no more bytes than they take."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import tifffile
import zarr
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile
from PIL import Image

from vision_longformer.images import ImageError, open_reader
from vision_longformer.images.reader import Window, read_window

fetched: list[int] = []  # bytes of each request


class CountedFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file that is fetched in ranges, as from an object store."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(start)
            fetched.append(end - start)
            return file.read(end - start)


class CountedFiles(LocalFileSystem):  # type: ignore[misc]
    """The files of this machine, counting what is fetched."""

    protocol = "counted"

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> Any:
        return CountedFile(self, path, mode, block_size, **options)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_options: Any) -> bytes:
        found = Path(path).read_bytes()[start:end]
        fetched.append(len(found))
        return found

    def get_file(self, path: str, target: str, **_options: Any) -> None:
        Path(target).write_bytes(self.cat_file(path))


@pytest.fixture(autouse=True)
def _counted() -> None:
    fsspec.register_implementation("counted", CountedFiles, clobber=True)
    fetched.clear()


def pixels(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def pyramid(path: Path) -> Path:
    with tifffile.TiffWriter(path) as file:
        options: dict[str, Any] = {"tile": (64, 64), "compression": "deflate", "photometric": "rgb"}
        file.write(pixels(768, 1024, 3), subifds=2, **options)
        for shape in ((384, 512, 3), (192, 256, 3)):
            file.write(pixels(*shape), subfiletype=1, **options)
    return path


def same(path: Path, *, level: int = 0, window: Window | None = None) -> int:
    """Compare an image by URL with its file, and return how many bytes were fetched."""
    parts = []
    for place in (f"counted://{path}", path):
        with contextlib.closing(open_reader(place, level=level)) as reader:
            assert reader.info.name == str(place)
            wanted = window or Window(0, 0, *reader.info.size)
            parts.append((read_window(reader, wanted).values, reader.info.size, reader.info.dtype))
    (found, *about), (expected, *others) = parts
    np.testing.assert_array_equal(found, expected)
    assert about == others
    return sum(fetched)


def test_of_a_tiff_a_level_or_a_window_is_fetched(tmp_path: Path) -> None:
    size = pyramid(tmp_path / "x.tif").stat().st_size
    most = size / 5  # what is read ahead included
    assert same(tmp_path / "x.tif", level=2) < most
    fetched.clear()
    assert same(tmp_path / "x.tif", window=Window(130, 200, 20, 20)) < most
    fetched.clear()
    assert size / 2 < same(tmp_path / "x.tif") < 2 * size


def test_of_an_array_in_zarr_a_window_is_fetched(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "x.zarr", shape=(512, 512, 3), chunks=(64, 64, 3), dtype="uint8")
    array[:] = pixels(512, 512, 3)
    size = sum(file.stat().st_size for file in (tmp_path / "x.zarr").rglob("*") if file.is_file())
    assert same(tmp_path / "x.zarr", window=Window(64, 128, 64, 64)) < size / 16


def test_other_files_are_fetched_whole_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    Image.fromarray(pixels(40, 50, 3)).save(tmp_path / "x.png")
    assert same(tmp_path / "x.png") == (tmp_path / "x.png").stat().st_size + 4
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.png", b"no image", "it is not an image that can be read"),
        ("bad.tif", b"II*\0" + bytes(20), "it is no TIFF, or a damaged one"),
        ("gone.png", None, "gone.png"),
    ],
)
def test_what_cannot_be_read_is_said_of_the_url(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=message) as found:
        open_reader(f"counted://{tmp_path / name}")
    assert str(found.value).startswith(f"counted://{tmp_path / name}: ")
    assert str(found.value).count(name) <= 2


def test_a_scale_takes_a_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="mpp and magnification are for files"):
        open_reader(f"counted://{tmp_path}/x.tif", mpp=0.5)
