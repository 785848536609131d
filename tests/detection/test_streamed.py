"""A streamed image has the detections of a pass over the whole image."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detection.cases import BACKBONE, RETINANET, retinanet
from streaming.streaming_helpers import picture, reader
from vision_longformer import ModelConfig, StageConfig, VisionLongformer
from vision_longformer.config import Full
from vision_longformer.detection import Detections, RetinaNet, build_retinanet
from vision_longformer.detection.streamed.levels import Levels
from vision_longformer.detection.streamed.retinanet import detect_streamed
from vision_longformer.fpn.features import LongformerFeatures
from vision_longformer.images import ImageError, ImageInfo, PixelRows
from vision_longformer.images.reader import Array, Mask
from vision_longformer.streaming import WorkFolderError, stream

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
BOXES, SCORES = {torch.float64: 1e-9, torch.float32: 0.01}, {torch.float64: 1e-9, torch.float32: 1e-5}


def normalised(array: Array, dtype: torch.dtype) -> Tensor:
    """Return (1, 3, h, w) pixels as a model takes them."""
    values = (torch.from_numpy(array).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return values.permute(2, 0, 1)[None].to(dtype)


def whole(model: RetinaNet, array: Array) -> Detections:
    """Return what the model finds in the whole image."""
    return model.detect(normalised(array, next(model.parameters()).dtype))[0]


def streamed(model: RetinaNet, array: Array, valid: Mask | None = None, **options: Any) -> Detections:
    """Return what it finds in the streamed one."""
    return detect_streamed(model, reader(array, valid), mean=MEAN, std=STD, **options)


def assert_same(found: Detections, expected: Detections) -> None:
    """Hold what was streamed to the whole image's result."""
    dtype = expected.boxes.dtype
    assert found.boxes.dtype == found.scores.dtype == dtype
    assert found.labels.tolist() == expected.labels.tolist()
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=BOXES[dtype])
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=SCORES[dtype])


def with_equal_scores(model: RetinaNet) -> RetinaNet:
    """Give every anchor and class the same score, everywhere."""
    with torch.no_grad():
        model.head.classification_head.cls_logits.weight.zero_()
        model.head.classification_head.cls_logits.bias.fill_(0.1)
    return model


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 260),
    width=st.integers(1, 200),
    band_rows=st.integers(1, 20) | st.just(1000),
    depth=st.integers(0, 3),
    strides=st.sampled_from([(8, 16, 32), (4, 8, 16), (16, 32)]),
    candidates=st.sampled_from([3, 50, 1000]),
    spilled=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_what_is_found_is_what_the_whole_image_shows(
    height: int,
    width: int,
    band_rows: int,
    depth: int,
    strides: tuple[int, ...],
    candidates: int,
    spilled: bool,
    dtype: torch.dtype,
) -> None:
    model = retinanet(
        dtype,
        head_depth=depth,
        strides=strides,
        anchor_sizes=tuple((8.0 * 2**level, 11.0 * 2**level) for level in range(len(strides) + 2)),
        candidates=candidates,
        detections=1000,
    )
    array = picture(height, width, seed=height)
    with tempfile.TemporaryDirectory() as folder:
        found = streamed(model, array, band_rows=band_rows, work_folder=folder if spilled else None)
        assert not list(Path(folder).iterdir())
    assert_same(found, whole(model, array))


@pytest.mark.parametrize("band_rows", [1, 2, 5, 1000])
@pytest.mark.parametrize("limits", [{"candidates": 30}, {"candidates": 400, "detections": 150}])
def test_of_equal_scores_the_same_are_taken(band_rows: int, limits: dict[str, Any]) -> None:
    model = with_equal_scores(retinanet(**{"detections": 1000, **limits}))
    array = picture(203, 150)
    expected = whole(model, array)
    assert len(expected.boxes) > 30
    torch.testing.assert_close(expected.scores, expected.scores[:1].expand_as(expected.scores))
    assert_same(streamed(model, array, band_rows=band_rows), expected)


def test_scores_that_single_precision_cannot_tell_apart() -> None:
    model = retinanet(torch.float32, candidates=60, detections=1000)
    with torch.no_grad():
        model.head.classification_head.cls_logits.bias.add_(25)
    array = picture(203, 150)
    expected = whole(model, array)
    assert (expected.scores == 1).all()
    assert_same(streamed(model, array, band_rows=2), expected)


def test_every_level_finds_something() -> None:
    """Else errors in the coarse ones would not show."""
    model = retinanet(candidates=5, detections=1000, nms_threshold=1.0)
    array = picture(260, 200)
    found = Levels(model, (260, 200), band_bytes=1, band_rows=3).run(
        stream(features(model).model, reader(array), stages=(2, 3, 4), mean=MEAN, std=STD).maps, progress=lambda _: None
    )
    assert [len(level.logits) for level, _ in found] == [5] * 5
    assert_same(streamed(model, array, band_rows=3), whole(model, array))


def features(model: RetinaNet) -> LongformerFeatures:
    found = model.backbone.features
    assert isinstance(found, LongformerFeatures)
    return found


def test_nothing_is_found_where_nothing_passes() -> None:
    found = streamed(retinanet(score_threshold=1.0), picture(101, 130), band_rows=1)
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == found.labels.shape == (0,)
    assert found.masks is None


def test_bands_by_bytes_change_nothing() -> None:
    model, array = retinanet(detections=1000), picture(203, 150)
    expected = whole(model, array)
    for band_bytes in (1, 10_000, 10**9):
        assert_same(streamed(model, array, band_bytes=band_bytes), expected)


def test_missing_pixels_are_padding() -> None:
    """What lies below and to the right of an image is missing: what remains is the image alone."""
    model = retinanet(detections=1000)
    size, (height, width) = (150, 210), (101, 130)
    array, valid = picture(*size), np.zeros(size, bool)
    valid[:height, :width] = True
    (expected,) = model.detect(normalised(array, torch.float64), image_sizes=[(height, width)])
    maps = stream(features(model).model, reader(array, valid), stages=(2, 3, 4), mean=MEAN, std=STD, band_rows=2).maps
    levels = Levels(model, size, band_bytes=1, band_rows=2).run(maps, progress=lambda _: None)
    assert_same(model.objects_of(levels, (height, width)), expected)


def test_missing_pixels_may_hold_anything() -> None:
    model, array = retinanet(detections=1000), picture(150, 131)
    valid = np.random.default_rng(1).random((150, 131)) > 0.3
    valid[40:110, 30:] = False
    other = np.where(valid[..., None], array, 255 - array).astype(np.uint8)
    found = streamed(model, array, valid, band_rows=2)
    assert len(found.boxes) > 10
    assert_same(streamed(model, other, valid, band_rows=5), found)


def test_progress_ends_at_one_and_never_goes_back() -> None:
    shares: list[float] = []
    streamed(retinanet(), picture(203, 150), band_rows=1, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert sum(0.5 < share < 1 for share in shares) > 10


def test_a_model_in_half_precision_gives_boxes_in_single() -> None:
    found = streamed(retinanet(torch.bfloat16), picture(101, 130), band_rows=2)
    assert found.boxes.dtype == torch.float32
    assert len(found.boxes) > 10


def full() -> RetinaNet:
    stages = (*BACKBONE.stages[:3], StageConfig(1, 24, 2, attention=Full()))
    model: RetinaNet = build_retinanet(VisionLongformer(ModelConfig(stages, image_size=(64, 96))), **RETINANET)
    model.eval()
    return model


def of_timm() -> RetinaNet:
    model: RetinaNet = build_retinanet("resnet18", **RETINANET)
    model.eval()
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (full, "stage 4: FullAttention needs the whole map at once: only windowed attention"),
        (of_timm, "model: only one on a backbone of this library can be streamed"),
    ],
)
def test_models_that_cannot_be_streamed_are_refused(build: Callable[[], Any], message: str) -> None:
    model = build()
    with pytest.raises(ValueError, match=message):
        streamed(model, picture(20, 30))


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    model = retinanet()
    for options, message in (
        ({"band_rows": 0}, "band_rows=0: must be at least 1"),
        ({"band_bytes": 0}, "band_bytes=0: must be at least 1"),
        ({"mean": (0.5,)}, r"mean=\(0.5,\): must be 3 numbers, one for each channel"),
    ):
        with pytest.raises(ValueError, match=message):
            detect_streamed(model, reader(picture(20, 30)), **{"mean": MEAN, "std": STD, **options})  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    with pytest.raises(WorkFolderError, match="file/below: not a directory"):
        streamed(model, picture(20, 30), work_folder=tmp_path / "file" / "below")
    with pytest.raises(ValueError, match="the model is in training mode"):
        streamed(model.train(), picture(20, 30))


def test_a_damaged_image_is_named() -> None:
    class Broken:
        info = ImageInfo("scan.tif", 64, 96, 3, np.dtype(np.uint8))

        def read_rows(self, top: int, bottom: int) -> PixelRows:
            raise ImageError("scan.tif: it is damaged")

        def close(self) -> None:
            pass

    with pytest.raises(ImageError, match=r"scan.tif: it is damaged"):
        detect_streamed(retinanet(), Broken(), mean=MEAN, std=STD)
