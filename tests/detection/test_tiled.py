from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detection.cases import mask_rcnn, retinanet
from detection.scenes import PLAIN, StandIn, blank, boxes_of, disc, find, paint, rectangle
from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.detection.tiled import find_objects, normalised, rgb_array
from vision_longformer.masks.rle import mask_to_rle, rle_area, rle_iou, soft_mask_to_rle
from vision_longformer.tiling.choosing import Tiling
from vision_longformer.tiling.tiles import Tile


def noise(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("build", [retinanet, mask_rcnn])
def test_a_whole_image_is_what_the_model_itself_finds(build: Any) -> None:
    model = build(torch.float32)
    pixels = noise(101, 130)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    found = find_objects(model, pixels, tiling=Tiling(model, tile=256), mean=mean, std=std)
    values = (torch.from_numpy(pixels).float() / 255 - torch.tensor(mean)) / torch.tensor(std)
    (expected,) = model.detect(values.permute(2, 0, 1)[None])
    assert len(found.boxes) == len(expected.boxes) > 10
    assert np.allclose(found.boxes, expected.boxes, atol=1e-2)
    assert np.allclose(found.scores, expected.scores, atol=1e-4)
    assert (found.labels == expected.labels.numpy()).all()
    assert (found.masks is None) == (expected.masks is None)
    if expected.masks is not None and found.masks is not None:
        boxes = expected.boxes.tolist()
        rles = [soft_mask_to_rle(m, box, size=(101, 130)) for m, box in zip(expected.masks.numpy(), boxes, strict=True)]
        assert min(np.diag(rle_iou(found.masks, rles))[[rle_area(rle) > 20 for rle in rles]]) > 0.95


@pytest.mark.parametrize("build", [retinanet, mask_rcnn])
def test_real_detectors_go_through_tiles(build: Any) -> None:
    model = build(torch.float32)
    steps: list[tuple[int, int]] = []
    found = find_objects(
        model,
        noise(201, 259),
        tiling=Tiling(model, tile=128, overlap=40),
        on_tile=lambda done, total: steps.append((done, total)),
        **PLAIN,
    )
    assert steps == [(number, 4 + 2) for number in range(1, 7)]
    assert len(found.boxes) > 10
    assert (np.diff(found.scores) <= 0).all()
    assert found.boxes[:, :2].min() >= 0
    assert (found.boxes[:, 2:] <= (259, 201)).all()


@pytest.mark.parametrize("build", [retinanet, mask_rcnn])
def test_detectors_compute_in_half_precision(build: Any) -> None:
    model, pixels = build(torch.float32), noise(101, 130)
    scores = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            found = find_objects(model, pixels, tiling=Tiling(model, tile=256), **PLAIN)
        assert found.scores.dtype == np.float64
        scores.append(found.scores[:10])
    assert not np.array_equal(scores[0], scores[1])
    assert np.allclose(scores[0], scores[1], atol=0.05)


def test_masks_are_joined_across_seams() -> None:
    picture = blank(203, 267)
    shapes = [rectangle(picture, 5, 20, 260, 60), disc(picture, 130, 130, 62), rectangle(picture, 90, 196, 100, 203)]
    for number, mask in enumerate(shapes, start=1):
        paint(picture, number, 0, mask)
    found = find(picture, tile=96, overlap=24, masks=True)
    assert found.masks is not None
    assert len(found.masks) == 3
    assert all(rle["size"] == [203, 267] for rle in found.masks)
    assert (rle_iou([mask_to_rle(mask) for mask in shapes], found.masks).max(axis=1) > 0.95).all()


def test_crossing_masks_stay_apart_where_boxes_do_not() -> None:
    """Two slanted bars side by side, larger than a tile: their boxes overlap, their masks do not."""
    picture = blank(203, 267)
    rows, columns = np.ogrid[:203, :267]
    for number, offset in ((1, -20), (2, 16)):
        paint(picture, number, 0, (np.abs(rows - columns * 0.6 - offset) < 12) & (columns > 10) & (columns < 250))
    found = find(picture, tile=96, overlap=24, masks=True)
    assert boxes_of(found) == boxes_of(find(picture, tile=None, masks=True))


def test_classes_never_mix_and_parts_alone_stay() -> None:
    picture = blank(100, 180)
    paint(picture, 1, 0, rectangle(picture, 40, 10, 140, 40))
    paint(picture, 2, 1, rectangle(picture, 40, 40, 140, 70))
    found = find(picture, tile=100, overlap=30)
    assert boxes_of(found) == [(0, 40, 10, 140, 40), (1, 40, 40, 140, 70)]


def test_filters_drop_what_is_uncertain_or_of_other_classes() -> None:
    picture = blank(60, 100)
    for number, label in ((1, 0), (2, 1), (3, 2)):
        paint(picture, number, label, rectangle(picture, 30 * number - 20, 10, 30 * number, 30))
    model: Any = StandIn(score=lambda number, area: number / 10)
    tiling = Tiling(model, tile=128)
    found = find_objects(model, picture, tiling=tiling, min_score=0.2, classes={0, 1}, **PLAIN)
    assert found.labels.tolist() == [1]
    nothing = find_objects(model, picture, tiling=tiling, min_score=0.9, **PLAIN)
    assert isinstance(nothing, FoundObjects)
    assert nothing.boxes.shape == (0, 4)


@pytest.mark.parametrize("build", [retinanet, mask_rcnn])
def test_the_limit_of_a_tile_is_counted(build: Any) -> None:
    model = build(torch.float32)
    model.set_detections(5000)
    every = find_objects(model, noise(101, 130), tiling=Tiling(model, tile=256), **PLAIN)
    model.set_detections(5)
    whole = find_objects(model, noise(101, 130), tiling=Tiling(model, tile=256), **PLAIN)
    assert len(whole.boxes) == 5
    assert len(whole.boxes) + whole.left_out == len(every.boxes) > 10
    assert every.left_out == 0


def test_the_limit_of_an_image_in_tiles_keeps_the_best() -> None:
    picture = blank(60, 300)
    for number in range(1, 8):
        paint(picture, number, 0, rectangle(picture, 40 * number - 20, 10, 40 * number, 30))
    model: Any = StandIn(score=lambda number, area: number / 10)
    tiling = Tiling(model, tile=100, overlap=30)
    found = find_objects(model, picture, tiling=tiling, detections=3, **PLAIN)
    np.testing.assert_allclose(found.scores, [0.7, 0.6, 0.5])
    assert found.left_out == 4
    assert find_objects(model, picture, tiling=tiling, **PLAIN).left_out == 0


@pytest.mark.parametrize("masks", [False, True])
def test_empty_images_have_no_objects(masks: bool) -> None:
    found = find(blank(150, 170), tile=96, masks=masks)
    assert found.boxes.shape == (0, 4)
    assert found.masks == ([] if masks else None)


def test_nothing_is_resized() -> None:
    model: Any = StandIn()
    find_objects(model, blank(900, 1500), tiling=Tiling(model, tile=1500), **PLAIN)
    assert model.seen == [(900, 1500)]


def test_images_come_as_files_pillow_images_or_arrays(tmp_path: Path) -> None:
    pixels = noise(7, 11)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    for image in (tmp_path / "image.png", str(tmp_path / "image.png"), Image.fromarray(pixels), pixels):
        assert (rgb_array(image) == pixels).all()
    values = normalised(pixels, Tile(2, 3, 6, 8), mean=(0, 0, 0), std=(1, 1, 1), device=None)
    assert torch.allclose(values[0, :, 1, 2], torch.from_numpy(pixels[3, 5]) / 255)
    dot = rgb_array(Image.new("RGB", (1, 1), (51, 102, 255)))  # which PyTorch could not write to
    values = normalised(dot, Tile(0, 0, 1, 1), mean=(0, 0, 0), std=(1, 1, 1), device=None)
    assert values.flatten().tolist() == pytest.approx([0.2, 0.4, 1.0])
    for wrong in (pixels[:, :, 0], pixels[:0]):
        with pytest.raises(ValueError, match=r"image: expected RGB as uint8 of shape \(height, width, 3\), got"):
            rgb_array(wrong)


def test_running_out_of_memory_names_a_remedy() -> None:
    model: Any = StandIn()
    model.detect = lambda images: (_ for _ in ()).throw(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    with pytest.raises(MemoryError, match=r"not enough memory for 170×150 .* choose smaller tiles"):
        find_objects(model, blank(150, 170), tiling=Tiling(model, tile=256), **PLAIN)
