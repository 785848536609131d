"""Whole slides, as OpenSlide reads them: here a tiled TIFF, which it takes for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from images.test_tiff import values
from vision_longformer.images import ImageError, open_reader

pytest.importorskip("openslide")


def write(path: Path, *, side: int = 640) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    array = np.random.default_rng(0).integers(0, 256, (side, side - 100, 3), dtype=np.uint8)
    with tifffile.TiffWriter(path) as file:
        options: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "metadata": None}
        file.write(array, **options)
        file.write(np.ascontiguousarray(array[::2, ::2]), subfiletype=1, **options)
    return array


@pytest.mark.parametrize("level", [0, 1])
def test_rows_of_a_level(tmp_path: Path, level: int) -> None:
    array = write(tmp_path / "a.svs")[:: 2**level, :: 2**level]
    reader = open_reader(tmp_path / "a.svs", level=level)
    assert (reader.info.height, reader.info.width) == array.shape[:2]
    for step in (100, 256, 300):
        bands = [reader.read_rows(top, min(top + step, len(array))) for top in range(0, len(array), step)]
        assert np.array_equal(np.concatenate([band.values for band in bands]), array)
        assert all(band.valid is None for band in bands)


def test_a_slide_may_be_closed_twice(tmp_path: Path) -> None:
    write(tmp_path / "a.svs")
    reader = open_reader(tmp_path / "a.svs")
    reader.close()
    reader.close()


def test_what_is_missing_is_a_sentence(tmp_path: Path) -> None:
    write(tmp_path / "a.svs")
    with pytest.raises(ImageError, match=r"a\.svs: it has 2 levels of resolution, and no number 2"):
        open_reader(tmp_path / "a.svs", level=2)
    tifffile.imwrite(tmp_path / "b.svs", values(3, "uint8")[:5], photometric="rgb")
    (tmp_path / "c.svs").write_bytes(b"nothing")
    for name in ("b.svs", "c.svs"):
        with pytest.raises(ImageError, match=rf"{name}: it is missing, no slide, or a damaged one"):
            open_reader(tmp_path / name)
