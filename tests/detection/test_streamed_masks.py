"""A streamed image has the objects and masks of a pass over the whole image."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from detection.cases import mask_rcnn
from detection.test_streamed import BOXES, MEAN, SCORES, STD, normalised
from model_helpers import noise
from streaming.streaming_helpers import picture, reader
from vision_longformer.detection import Detections, MaskRCNN
from vision_longformer.detection.streamed.find_objects import find_objects_streamed
from vision_longformer.detection.streamed.mask_rcnn import detect_masks_streamed
from vision_longformer.detection.streamed.regions import sampling
from vision_longformer.detection.tiled import find_objects
from vision_longformer.fpn.streamed.memory import Streaming
from vision_longformer.images import ArrayReader
from vision_longformer.images.reader import Array, Mask
from vision_longformer.tiling.choosing import Tiling


def streamed(model: MaskRCNN, array: Array, valid: Mask | None = None, **options: Any) -> Detections:
    """Return what the model finds in a streamed image."""
    return detect_masks_streamed(model, reader(array, valid), mean=MEAN, std=STD, **options)


def assert_same(found: Detections, expected: Detections) -> None:
    """Hold what was streamed to the whole image's result."""
    dtype = expected.boxes.dtype
    assert found.boxes.dtype == dtype
    assert found.labels.tolist() == expected.labels.tolist()
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=BOXES[dtype])
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=SCORES[dtype])
    assert found.masks is not None
    assert expected.masks is not None
    torch.testing.assert_close(found.masks, expected.masks, rtol=0, atol=10 * SCORES[dtype])
    assert found.left_out is not None
    assert expected.left_out is not None
    assert len(found.left_out.scores) == len(expected.left_out.scores)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    height=st.integers(20, 260),
    width=st.integers(20, 200),
    band_rows=st.integers(1, 20) | st.just(1000),
    proposals=st.sampled_from([20, 200]),
    spilled=st.booleans(),
)
def test_what_is_found_is_what_the_whole_image_shows(
    height: int, width: int, band_rows: int, proposals: int, spilled: bool
) -> None:
    model = mask_rcnn(proposals=proposals, proposal_candidates=(50, 100), detections=30)
    array = picture(height, width, seed=height)
    (expected,) = model.detect(normalised(array, torch.float64))
    with tempfile.TemporaryDirectory() as folder:
        found = streamed(model, array, band_rows=band_rows, work_folder=folder if spilled else None)
        assert not list(Path(folder).iterdir())
    assert_same(found, expected)


def test_single_precision_and_bands_by_bytes() -> None:
    model, array = mask_rcnn(torch.float32, proposals=50, detections=10), picture(203, 150)
    (expected,) = model.detect(normalised(array, torch.float32))
    assert len(expected.boxes) == 10
    shares: list[float] = []
    assert_same(streamed(model, array, band_bytes=20_000, progress=shares.append), expected)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_missing_pixels_may_hold_anything() -> None:
    model, array = mask_rcnn(proposals=50), picture(150, 131)
    valid = np.random.default_rng(1).random((150, 131)) > 0.3
    valid[40:110, 30:] = False
    other = np.where(valid[..., None], array, 255 - array).astype(np.uint8)
    found = streamed(model, array, valid, band_rows=2)
    assert len(found.boxes) > 5
    assert_same(streamed(model, other, valid, band_rows=5), found)


@pytest.mark.parametrize("side", [1, 5, 7])
def test_regions_are_sampled_as_torchvision_does(side: int) -> None:
    """Also beyond the edges, and where a region is smaller than a position or as large as the map."""
    x = noise(1, 2, 13, 17)
    boxes = torch.tensor(
        [
            [0, 0, 17, 13],
            [-0.4, 3.2, 5.1, 20.5],
            [16.2, 12.1, 17, 13],
            [2.3, 4.1, 2.6, 4.2],
            [3, 2, 10, 9],
            [0, 0, 7, 14],
        ]
    ).double()
    expected = roi_align(x, [boxes], side, aligned=True)
    for box, wanted in zip(boxes - 0.5, expected, strict=True):
        (left, columns), (top, rows) = sampling(box[0], box[2], side, 17), sampling(box[1], box[3], side, 13)
        part = x[0, :, top : top + rows.shape[1], left : left + columns.shape[1]]
        torch.testing.assert_close(rows @ (part @ columns.T), wanted, rtol=1e-12, atol=1e-12)


def test_masks_are_those_of_a_whole_pass_in_the_image(tmp_path: Path) -> None:
    model, pixels = mask_rcnn(torch.float32, detections=20, proposals=80), picture(203, 150)
    colours: dict[str, Any] = {"mean": MEAN, "std": STD}
    expected = find_objects(model, pixels, tiling=Tiling(model, tile=256), min_score=0.1, **colours)
    found = find_objects_streamed(
        model, ArrayReader(pixels), Streaming(0, 50_000, True), work_folder=tmp_path, min_score=0.1, **colours
    )
    assert not list(tmp_path.iterdir())
    assert found.left_out == expected.left_out
    assert len(found.boxes) == len(expected.boxes) > 5
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
    assert found.masks is not None
    assert expected.masks is not None
    assert [mask["size"] for mask in found.masks] == [[203, 150]] * len(found.masks)
    same = sum(own == other for own, other in zip(found.masks, expected.masks, strict=True))
    assert same >= 0.8 * len(found.masks)  # a pixel just at a half may fall either way
