from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as reference
from torch.nn import functional as F

from datasets.coco_cases import random_content, write_content, write_images
from vision_longformer.datasets.coco import CocoSplit, read_coco
from vision_longformer.masks import rle
from vision_longformer.utils.flat import Segmentations

SIZE = (31, 47)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools.decode


def polygons_of(objects: Sequence[Sequence[Sequence[float]]]) -> Segmentations:
    parts = [polygon for polygons in objects for polygon in polygons]
    lengths = np.array([len(part) for part in parts], np.int64)
    return Segmentations(
        ends=np.cumsum([len(polygons) for polygons in objects]),
        is_runs=np.zeros(len(objects), bool),
        starts=lengths.cumsum() - lengths,
        lengths=lengths,
        coordinates=np.concatenate([np.array(part, np.float64) for part in parts]),
        runs=np.zeros(0, np.uint32),
    )


@pytest.fixture
def split(tmp_path: Path) -> tuple[dict[str, Any], CocoSplit]:
    content = random_content(per_image=8)
    folder = write_images(tmp_path / "images", content)
    return content, read_coco(write_content(tmp_path / "a.json", content), folder, with_masks=True)


def test_polygons_are_rasterised_as_pycocotools_does() -> None:
    generator = np.random.default_rng(0)
    for digits in (0, 1, 8):
        objects = [
            [
                np.round(generator.uniform(-4, 52, 2 * generator.integers(3, 9)), digits).tolist()
                for _ in range(generator.integers(1, 4))
            ]
            for _ in range(100)
        ]
        stored = polygons_of(objects)
        for index, polygons in enumerate(objects):
            expected = reference.decode(reference.merge(reference.frPyObjects(polygons, *SIZE)))
            np.testing.assert_array_equal(rle.segmentation_to_mask(stored, index, SIZE), expected == 1)


def test_annotations_of_each_kind_give_the_masks_of_pycocotools(split: tuple[dict[str, Any], CocoSplit]) -> None:
    content, coco = split
    assert coco.segmentations is not None
    entries = {entry["id"]: entry for entry in content["annotations"]}
    for image in range(len(coco)):
        size = coco.size(image)
        for place in coco.annotations(image):
            segmentation = entries[coco.annotation_ids[place]]["segmentation"]
            runs = reference.frPyObjects(segmentation, *size) if not is_compressed(segmentation) else segmentation
            runs = reference.merge(runs) if isinstance(runs, list) else runs
            expected = reference.decode(runs) == 1
            np.testing.assert_array_equal(rle.segmentation_to_mask(coco.segmentations, place, size), expected)
            ours = rle.segmentation_to_rle(coco.segmentations, place, size)
            np.testing.assert_array_equal(rle.rle_to_mask(ours), expected)
            assert rle.rle_area(ours) == expected.sum()


def is_compressed(segmentation: Any) -> bool:
    return isinstance(segmentation, dict) and isinstance(segmentation["counts"], str)


def test_polygons_are_scaled_before_and_run_lengths_after_they_become_pixels(
    split: tuple[dict[str, Any], CocoSplit],
) -> None:
    _, coco = split
    assert coco.segmentations is not None
    size, resized = coco.size(0), (59, 67)
    places = list(coco.annotations(0))
    result = rle.segmentations_to_masks(coco.segmentations, places, size, resized=resized)
    assert result.shape == (len(places), *resized)
    kinds = set()
    for mask, place in zip(result, places, strict=True):
        kinds.add(bool(coco.segmentations.is_runs[place]))
        if coco.segmentations.is_runs[place]:
            original = torch.from_numpy(rle.segmentation_to_mask(coco.segmentations, place, size).copy())
            expected = F.interpolate(original[None, None].float(), resized, mode="nearest-exact")[0, 0].numpy()
        else:
            scale = np.array([resized[1] / size[1], resized[0] / size[0]])
            polygons = [(part.reshape(-1, 2) * scale).ravel().tolist() for part in coco.segmentations.polygons(place)]
            expected = reference.decode(reference.merge(reference.frPyObjects(polygons, *resized)))
        np.testing.assert_array_equal(mask, expected)
    assert kinds == {True, False}


def test_boxes_of_masks_and_crops_of_boxes() -> None:
    mask = np.zeros(SIZE, bool)
    assert rle.mask_to_box(mask) == (0, 0, 0, 0)
    mask[5:11, 7:20] = True
    mask[6, 8] = False
    assert rle.mask_to_box(mask) == (7, 5, 20, 11)
    crop, corner = rle.crop_to_box(mask, (6.4, 5.0, 20.2, 10.5))
    assert corner == (5, 6)
    assert crop.shape == (6, 15)
    assert rle.crop_to_rle(crop, corner=corner, size=SIZE) == rle.mask_to_rle(mask)
    assert rle.crop_to_box(mask, (-3, -2, 2, 3))[0].shape == (3, 2)


def test_masks_are_compared_as_pycocotools_does() -> None:
    generator = np.random.default_rng(2)
    rles = [rle.mask_to_rle(generator.random(SIZE) < share) for share in (0.0, 0.3, 0.5, 0.9, 1.0)]
    expected = reference.iou([dict(one) for one in rles], [dict(one) for one in rles[1:]], [0] * 4)
    np.testing.assert_allclose(rle.rle_iou(rles, rles[1:]), expected, rtol=0, atol=1e-12)
    assert rle.rle_iou([], rles).shape == (0, 5)
    with pytest.raises(ValueError, match="masks of different sizes cannot be compared"):
        rle.rle_iou(rles, [rle.mask_to_rle(np.ones((3, 4), bool))])
    broken: rle.Rle = {"size": list(SIZE), "counts": "52"}
    with pytest.raises(ValueError, match="add up to"):
        rle.rle_iou(rles, [broken])


@pytest.mark.parametrize("box", [(3.3, 5.2, 21.9, 27.4), (-4.0, -6.5, 20.0, 14.0), (30.2, 20.1, 60.3, 44.4)])
def test_soft_masks_are_stretched_over_their_boxes(box: tuple[float, float, float, float]) -> None:
    generator = np.random.default_rng(3)
    probabilities = F.interpolate(torch.from_numpy(generator.random((1, 1, 4, 4))), 28, mode="bicubic")[0, 0].clamp(
        0, 1
    )
    height, width = SIZE
    x = (torch.arange(width, dtype=torch.float64) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (torch.arange(height, dtype=torch.float64) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[None]  # (1, H, W, 2)
    expected = F.grid_sample(probabilities[None, None], grid, align_corners=False)[0, 0] >= 0.5
    result = rle.rle_to_mask(rle.soft_mask_to_rle(probabilities.numpy(), box, size=SIZE))
    # pixels beyond the box's own are dropped, to keep the crop as large as the box
    crop, (top, left) = rle.crop_to_box(expected.numpy(), box)
    inside = np.zeros(SIZE, bool)
    inside[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    np.testing.assert_array_equal(result, inside)
    assert 20 < result.sum() < 600


def test_a_soft_mask_outside_of_the_image_is_empty() -> None:
    ones = np.ones((28, 28), np.float32)
    for box in ((50.0, 3.0, 60.0, 9.0), (-20.0, 3.0, -5.0, 9.0), (5.0, 40.0, 9.0, 50.0), (5.0, 5.0, 5.0, 5.0)):
        assert rle.rle_area(rle.soft_mask_to_rle(ones, box, size=SIZE)) == 0


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval.core", None)
    with pytest.raises(ImportError, match=r'pip install "vision-longformer\[detection\]"'):
        rle.library()
