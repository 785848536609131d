"""A file is refused by its header before it takes the memory of its promises, and whatever a decoder raises."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from vision_longformer.images import (
    ImageError,
    describe_image,
    open_reader,
    read_array,
    read_georeference,
    read_indices,
    read_pixels,
)
from vision_longformer.images.tiff import TiffReader

DOORS: list[Callable[..., Any]] = [open_reader, describe_image, read_pixels, read_array]


def tiff(path: Path, *, width: int, height: int, body: bytes = b"", **tags: int) -> None:
    """Write the header of a gray TIFF, whose further tags are called t with their number, and what follows it."""
    values = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1} | {int(tag[1:]): tags[tag] for tag in tags}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, values[tag]) for tag in sorted(values))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4) + body)


def place(tags: int) -> int:
    """Where the body of such a file begins."""
    return 8 + 2 + 12 * (6 + tags) + 4


@pytest.mark.parametrize("read", DOORS)
@pytest.mark.parametrize("georeferenced", [False, True])
def test_a_tile_or_strip_is_no_larger_than_an_image_that_is_decoded_as_a_whole(
    tmp_path: Path, read: Callable[..., Any], georeferenced: bool
) -> None:
    data = zlib.compress(bytes(9))
    at = place(5 if georeferenced else 4)
    geo: dict[str, Any] = {"t34735": 1} if georeferenced else {}
    tiff(tmp_path / "a.tif", width=400, height=400, body=data, t322=60000, t323=60000, t324=at, t325=len(data), **geo)
    with pytest.raises(ImageError, match=r"a\.tif: .*pieces of 60000×60000.* the limit of 500,000,000 pixels \(max"):
        read(tmp_path / "a.tif")


def test_an_image_of_any_size_is_opened_if_its_pieces_are_small(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"t259": 1, "t273": 150, "t278": 60000, "t279": 60000 * 60000 % 2**32}
    tiff(tmp_path / "a.tif", width=60000, height=60000, **plain)
    assert describe_image(tmp_path / "a.tif").size == (60000, 60000)  # rows of an uncompressed strip are read alone
    tiff(tmp_path / "b.tif", width=60000, height=60000, t322=512, t323=512, t324=0, t325=9)
    assert describe_image(tmp_path / "b.tif", max_pixels=512 * 512).size == (60000, 60000)
    with pytest.raises(ImageError, match="pieces of 512×512×1"):
        describe_image(tmp_path / "b.tif", max_pixels=512 * 511)


@pytest.mark.parametrize("geo", [{}, {"t34735": 1}])
@pytest.mark.parametrize("read", DOORS)
def test_a_file_without_any_pixel_is_refused(tmp_path: Path, read: Callable[..., Any], geo: dict[str, int]) -> None:
    tiff(tmp_path / "a.tif", width=7, height=5, body=bytes(99), t259=1, t273=0, t278=5, t279=0, **geo)
    with pytest.raises(ImageError, match=r"a\.tif: it is empty: none of its strips or tiles is in the file"):
        read(tmp_path / "a.tif")


def write_zarr(path: Path, **changes: Any) -> Path:
    path.mkdir()
    header = {
        "zarr_format": 2, "shape": [64, 48], "chunks": [64, 48], "dtype": "|u1", "compressor": None, "fill_value": 0,
        "order": "C", "filters": None,
    }  # fmt: skip
    (path / ".zarray").write_text(json.dumps(header | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunks": [10**6, 10**6]}, r"pieces of 1000000×1000000×1, .* more than the limit of 500,000,000 pixels"),
        ({"shape": [4, 4, 10**10], "chunks": [4, 4, 10**10]}, "pieces of 4×4×10000000000"),
        ({"chunks": [0, 0]}, "(hold nothing|is no Zarr array)"),
        ({"shape": [-64, 48]}, "no Zarr array"),
        ({"dtype": "|O", "filters": [{"id": "pickle"}]}, "no Zarr array"),
    ],
)
@pytest.mark.parametrize("read", DOORS)
def test_what_a_zarr_header_promises_is_bounded(
    tmp_path: Path, read: Callable[..., Any], changes: dict[str, Any], message: str
) -> None:
    pytest.importorskip("zarr")
    with pytest.raises(ImageError, match=rf"a\.zarr: .*{message}"):
        read(write_zarr(tmp_path / "a.zarr", **changes))


def test_a_zarr_chunk_that_is_larger_than_its_values_is_not_inflated(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    path = write_zarr(tmp_path / "a.zarr", compressor={"id": "zlib", "level": 9})
    stored = zlib.compress(bytes(200_000_000))
    assert len(stored) > 150_000
    (path / "0.0").write_bytes(stored)
    with pytest.raises(ImageError, match=r"a\.zarr: .*0\.0 has 1\d\d,\d+ bytes, more than its values can take"):
        read_pixels(path)


def test_metadata_nested_too_deeply_is_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    path = write_zarr(tmp_path / "a.zarr")
    (path / ".zarray").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ImageError, match=r"a\.zarr: it is no Zarr array, or a damaged one \("):
        read_pixels(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "a.svs", "a.zarr.zip"])
@pytest.mark.parametrize("read", [*DOORS, read_indices, read_georeference])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, read: Callable[..., Any], name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ImageError, match=rf"{name}: it is no ordinary file, but a pipe or device"):
        read(tmp_path / name)


@pytest.mark.parametrize("header", [b"{'descr': '|u1', 'shape': (4, 4", b"'''", b"[" * 9000, b"\xff\xfe"])
def test_a_numpy_header_that_is_no_python_is_a_sentence(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header) + 1) + header + b"\n")
    with pytest.raises(ImageError, match=r"a\.npy: it is no NumPy file, or a damaged one \("):
        read_pixels(tmp_path / "a.npy")


class OddError(Exception):
    """None that a library is known to raise."""


@pytest.mark.parametrize("error", [OddError("odd\n  thing"), RecursionError("odd thing"), AssertionError("odd thing")])
def test_whatever_a_decoder_raises_is_a_sentence_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 48), np.uint8), compression="zlib")

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    with closing(open_reader(tmp_path / "a.tif")) as reader, monkeypatch.context() as patch:
        patch.setattr(TiffReader, "read_rows", fail)
        with pytest.raises(ImageError, match=r"a\.tif: it is damaged \(odd thing\)$") as caught:
            reader.read_rows(0, 64)
        assert caught.value.__cause__ is error
    monkeypatch.setattr(TiffReader, "_choose", fail)
    with pytest.raises(ImageError, match=r"a\.tif: it is no TIFF, or a damaged one \(odd thing\)$"):
        open_reader(tmp_path / "a.tif")
    monkeypatch.setattr(TiffReader, "__init__", fail)
    for read in DOORS:
        with pytest.raises(ImageError, match=r"a\.tif: it is damaged \(odd thing\)$"):
            read(tmp_path / "a.tif")
