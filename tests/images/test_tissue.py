"""Glass is missing, tissue is not, at whatever scale and however it is read."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from images.slide_cases import slide_pixels, write_slide
from vision_longformer.images import ImageError, Reading, open_reader, tissue
from vision_longformer.images.rasters import read_raster_and_valid
from vision_longformer.images.reader import Window


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    write_slide(tmp_path / "a.ome.tif", slide_pixels()[0])
    return tmp_path / "a.ome.tif"


def seen(path: Path, **options: Any) -> NDArray[np.bool_]:
    with closing(open_reader(path, tissue=True, **options)) as reader:
        rows = reader.read_rows(0, reader.info.height)
        assert rows.seen is not None
        return np.asarray(rows.seen)


@pytest.mark.parametrize(("options", "step"), [({}, 1), ({"level": 1}, 2), ({"mpp": 0.5}, 2), ({"mpp": 1.0}, 4)])
def test_tissue_is_there_and_glass_is_not(options: dict[str, Any], step: int, slide: Path) -> None:
    found, expected = seen(slide, **options), slide_pixels()[1][::step, ::step]
    around = 4 // step + 1  # pixels around the outline may belong to either
    assert found[binary_erosion(expected, iterations=around)].all()
    assert not found[~binary_dilation(expected, iterations=around)].any()


def test_windows_and_bands_are_of_one_mask(slide: Path) -> None:
    whole = seen(slide)
    with closing(open_reader(slide, tissue=True)) as reader:
        for top in range(0, 96, 7):
            rows = reader.read_rows(top, min(top + 7, 96)).seen
            np.testing.assert_array_equal(np.ones((1, 1), bool) if rows is None else rows, whole[top : top + 7])
        part = reader.read_window(Window(20, 30, 40, 50)).seen
    np.testing.assert_array_equal(part, whole[20:60, 30:80])


def test_what_was_missing_before_stays_missing(tmp_path: Path) -> None:
    pixels, _ = slide_pixels()
    opacity = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    opacity[:, :60] = 0
    tifffile.imwrite(tmp_path / "a.tif", np.concatenate([pixels, opacity], axis=2), photometric="rgb")
    _, valid = read_raster_and_valid(tmp_path / "a.tif", reading=Reading(tissue=True))
    assert valid is not None
    assert not valid[:, :60].any()
    assert valid[50, 144]


def test_glass_alone_and_tissue_alone(tmp_path: Path) -> None:
    pixels, there = slide_pixels()
    glass = pixels[20:, 84:108]
    assert not there[20:, 84:108].any()
    tifffile.imwrite(tmp_path / "glass.tif", glass, photometric="rgb")
    tifffile.imwrite(tmp_path / "full.tif", np.ascontiguousarray(pixels[40:70, 40:60]), photometric="rgb")
    with pytest.raises(ImageError, match=r"glass\.tif: no tissue was found in it; without --tissue all of it is taken"):
        seen(tmp_path / "glass.tif")
    with closing(open_reader(tmp_path / "full.tif", tissue=True)) as reader:
        assert reader.read_rows(0, 30).seen is None


def test_gray_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", slide_pixels()[0][..., 0])
    with pytest.raises(ImageError, match=r"a\.tif: tissue is told from glass by colour, and it has 1 channels"):
        seen(tmp_path / "a.tif")


def test_the_mask_is_made_once_for_many_windows(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    real = tissue.tissue_in

    def counting(*pair: torch.Tensor) -> object:
        made.append(pair)
        return real(*pair)

    monkeypatch.setattr(tissue, "tissue_in", counting)
    for _ in range(3):
        seen(slide, level=1)
    assert len(made) == 1
    pixels, _ = slide_pixels()
    pixels[:, :96] = pixels[:, 96:]
    write_slide(slide, pixels)
    assert seen(slide, level=1)[28, 24]
    assert len(made) == 2
