"""OME-Zarr images of any order of axes are read by rows, if they hold a single picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from images.test_tiff import HEIGHT, WIDTH, assert_rows, values
from vision_longformer.images import ImageError, open_reader

zarr = pytest.importorskip("zarr")


def write(path: Path, array: np.ndarray[Any, Any], axes: list[Any] | None, *, version: str = "0.4") -> None:
    """Write an image of two levels, the second one upside down."""
    group = zarr.open_group(str(path), mode="w", zarr_format=3 if version == "0.5" else 2)
    chunks = tuple(min(size, 30) for size in array.shape)
    for name, level in (("full", array), ("half", np.flip(array))):
        group.create_array(name, shape=array.shape, dtype=array.dtype, chunks=chunks)[:] = level
    image: dict[str, Any] = {"datasets": [{"path": "full"}, {"path": "half"}]}
    if axes is not None:
        image["axes"] = axes
    group.attrs.update({"ome": {"multiscales": [image]}} if version == "0.5" else {"multiscales": [image]})


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["cyx", "yxc", "tczyx", "xcy", "zyx", "yx"])
def test_rows_of_any_axes(tmp_path: Path, axes: str, version: str) -> None:
    channels = 5 if "c" in axes else 1
    array = values(channels, "uint16")
    sizes = {"y": HEIGHT, "x": WIDTH, "c": channels}
    stored = array.transpose(["yxc".index(axis) for axis in axes if axis in "yxc"] + ([] if "c" in axes else [2]))
    stored = stored.reshape([sizes.get(axis, 1) for axis in axes])
    write(tmp_path / "a.zarr", stored, [{"name": axis} for axis in axes], version=version)
    reader = open_reader(tmp_path / "a.zarr")
    assert_rows(reader, array)
    assert reader.info.preferred_rows == 30
    assert not reader.info.opacity
    assert_rows(open_reader(tmp_path / "a.zarr", array="half"), array[::-1, ::-1, ::-1])


@pytest.mark.parametrize("axes", [None, list("tczyx")])
def test_older_versions(tmp_path: Path, axes: list[str] | None) -> None:
    array = values(3, "uint8")
    write(tmp_path / "a.zarr", np.moveaxis(array, 2, 0)[None, :, None], axes)
    assert_rows(open_reader(tmp_path / "a.zarr"), array)


@pytest.mark.parametrize(
    ("axes", "shape", "found"),
    [("tyx", (4, 8, 9), "t=4, y=8, x=9"), ("czyx", (3, 2, 8, 9), "c=3, z=2, y=8, x=9"), ("cx", (3, 9), "c=3, x=9")],
)
def test_stacks_are_refused_by_name(tmp_path: Path, axes: str, shape: tuple[int, ...], found: str) -> None:
    write(tmp_path / "a.zarr", np.zeros(shape, np.uint8), list(axes))
    with pytest.raises(ImageError, match=rf"a\.zarr: it is no single picture .*\(its axes: {found}\)"):
        open_reader(tmp_path / "a.zarr")


@pytest.mark.parametrize("axes", [[{"type": "space"}], 5, ["y", "x"]])
def test_damaged_metadata_is_a_sentence(tmp_path: Path, axes: Any) -> None:
    write(tmp_path / "a.zarr", np.zeros((3, 8, 9), np.uint8), axes)
    with pytest.raises(ImageError, match=r"a\.zarr: it"):
        open_reader(tmp_path / "a.zarr")
