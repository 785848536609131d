"""The script that writes images of any size, benchmarks/mosaic.py."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "mosaic.py"
SIZE = 101, 230  # more than two photographs high, and more than two pairs wide


@pytest.fixture
def photo() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (41, 53, 3), dtype=np.uint8)


@pytest.fixture
def mosaic(photo: np.ndarray[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the script as a module, with a small photograph."""
    spec = importlib.util.spec_from_file_location("mosaic_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    monkeypatch.setattr(module, "PHOTO", tmp_path / "photo.png")
    return module


@pytest.mark.parametrize("compression", ["none", "deflate"])
def test_a_mosaic_is_a_tiled_bigtiff_of_mirrored_copies(
    mosaic: Any, photo: np.ndarray[Any, Any], tmp_path: Path, compression: str
) -> None:
    mosaic.write_mosaic(tmp_path / "out" / "x.tif", *SIZE, side=32, compression=compression)
    with tifffile.TiffFile(tmp_path / "out" / "x.tif") as file:
        assert file.is_bigtiff
        assert file.pages.first.tile == (32, 32)
        assert file.pages.first.compression.name == {"none": "NONE", "deflate": "ADOBE_DEFLATE"}[compression]
        pixels = file.asarray()
    pair = np.concatenate([photo, photo[:, ::-1]], axis=1)
    copies = [np.roll(rows, -mosaic.SHIFT * number, axis=1) for number, rows in enumerate((pair, pair[::-1], pair))]
    assert np.array_equal(pixels, np.tile(np.concatenate(copies), (1, 3, 1))[: SIZE[0], : SIZE[1]])
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["x.tif"]


@pytest.mark.parametrize("before", ["absent", "old"])
def test_an_error_leaves_nothing_half_written(
    mosaic: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    def some(*arguments: Any) -> Iterator[np.ndarray[Any, Any]]:
        yield from list(plain(*arguments))[:3]
        raise OSError("No space left on device")

    target = tmp_path / "out" / "x.tif"
    target.parent.mkdir()
    if before == "old":
        target.write_text("old")
    plain = mosaic.tiles
    monkeypatch.setattr(mosaic, "tiles", some)
    with pytest.raises(OSError, match="No space left"):
        mosaic.write_mosaic(target, *SIZE, side=32)
    assert [entry.read_text() for entry in target.parent.iterdir()] == (["old"] if before == "old" else [])


def test_sizes_are_height_and_width(mosaic: Any) -> None:
    assert mosaic.parse_size("101x230") == mosaic.parse_size("101×230") == SIZE
    for text in ("101", "0x230", "101x-2", "101x230x3"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"{text}: write height and width in pixels"):
            mosaic.parse_size(text)
