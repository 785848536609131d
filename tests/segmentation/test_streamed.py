"""The logits of a streamed image are those of a pass over the whole image."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from detection.test_streamed import MEAN, STD, normalised
from model_helpers import noise, relative_error
from segmentation.test_semantic import build
from streaming.streaming_helpers import TOLERANCE, holes, picture, reader
from vision_longformer.images.reader import Array, Mask
from vision_longformer.segmentation import SemanticFPN, build_semantic_fpn
from vision_longformer.segmentation.streamed.moments import Moments
from vision_longformer.segmentation.streamed.run import stream_logits


@torch.no_grad()
def whole(model: SemanticFPN, array: Array, valid: Mask | None = None) -> Tensor:
    """Return the (K, H, W) logits of a pass over the whole image."""
    mask = None if valid is None else torch.from_numpy(valid)[None]
    return model.logits(normalised(array, next(model.parameters()).dtype), valid=mask)[0]


def streamed(model: SemanticFPN, array: Array, valid: Mask | None = None, **options: Any) -> Tensor:
    """Return those of the streamed one, whose bands must follow each other."""
    bands, end = [], 0
    for top, logits, real in stream_logits(model, reader(array, valid), mean=MEAN, std=STD, **options):
        assert top == end
        end += logits.shape[1]
        bands.append(logits)
        there = np.ones(logits.shape[1:], bool) if real is None else real.numpy()
        assert (there == (True if valid is None else valid[top:end])).all()
    return torch.cat(bands, dim=1)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 180),
    width=st.integers(1, 150),
    band_rows=st.integers(1, 20) | st.just(1000),
    strides=st.sampled_from([(4, 8, 16, 32), (4, 8, 16), (8, 16, 32), (16, 32), (4,)]),
    missing=st.booleans(),
    spilled=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_logits_are_those_of_the_whole_image(
    height: int,
    width: int,
    band_rows: int,
    strides: tuple[int, ...],
    missing: bool,
    spilled: bool,
    dtype: torch.dtype,
) -> None:
    model = build(dtype, strides=strides)
    array = picture(height, width, seed=height)
    valid = holes(height, width, seed=width) if missing else None
    valid = None if valid is None or valid.all() else valid
    with tempfile.TemporaryDirectory() as folder:
        found = streamed(model, array, valid, band_rows=band_rows, work_folder=folder if spilled else None)
        assert not list(Path(folder).iterdir())
    expected = whole(model, array, valid)
    assert found.shape == expected.shape == (3, height, width)
    assert found.dtype == dtype
    assert relative_error(found, expected) <= TOLERANCE[dtype]


def test_every_norm_sees_the_whole_map() -> None:
    """A picture that is black above and white below has bands whose own statistics are far from those of the map."""
    array = np.concatenate([np.zeros((90, 70, 3), np.uint8), np.full((41, 70, 3), 255, np.uint8)])
    array[::7, ::5] = 128
    model = build()
    assert relative_error(streamed(model, array, band_rows=2), whole(model, array)) <= 1e-12


def test_missing_pixels_may_hold_anything() -> None:
    model, array, valid = build(), picture(150, 131), holes(150, 131)
    other = np.where(valid[..., None], array, 255 - array).astype(np.uint8)
    expected = whole(model, array, valid)
    assert torch.equal(whole(model, other, valid), expected)
    assert relative_error(streamed(model, other, valid, band_rows=3), expected) <= 1e-12


def test_what_is_missing_below_and_to_the_right_changes_nothing() -> None:
    model, array = build(), picture(150, 131)
    valid = np.zeros((150, 131), bool)
    valid[:101, :97] = True
    expected = whole(model, array[:101, :97].copy())
    for found in (whole(model, array, valid), streamed(model, array, valid, band_rows=2)):
        assert relative_error(found[:, :101, :97], expected) <= 1e-12
        assert not found[:, 101:].any()
        assert not found[:, :, 97:].any()


def test_bands_by_bytes_change_nothing() -> None:
    model, array = build(), picture(103, 150)
    expected = whole(model, array)
    for band_bytes in (1, 10_000, 10**9):
        assert relative_error(streamed(model, array, band_bytes=band_bytes), expected) <= 1e-12


def test_progress_ends_at_one_and_never_goes_back() -> None:
    shares: list[float] = []
    streamed(build(), picture(203, 50), band_rows=1, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert len(set(shares)) > 30


def test_statistics_keep_their_digits_far_from_zero() -> None:
    norm = nn.GroupNorm(2, 6).double()
    x = noise(1, 6, 23, 11) + 1e6
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-2)):
        moments, rounded = Moments(2, like=x), x.to(dtype)
        for top in (0, 4, 5):
            moments.add(rounded[:, :, top : {0: 4, 4: 5, 5: 23}[top]], None)
        moments.add(rounded[:, :, :0], None)
        factor, summand = moments.affine(norm)
        expected = F.group_norm(rounded.double(), 2, norm.weight, norm.bias, norm.eps)
        assert relative_error(rounded.double() * factor + summand, expected) <= tolerance


def test_models_that_cannot_be_streamed_are_refused() -> None:
    model = build_semantic_fpn("resnet18", num_classes=3, pyramid_width=8, head_width=8, norm_groups=2).eval()
    with pytest.raises(ValueError, match="model: only one on a backbone of this library can be streamed"):
        streamed(model, picture(20, 30))
    with pytest.raises(ValueError, match="the model is in training mode"):
        streamed(build().train(), picture(20, 30))
    with pytest.raises(ValueError, match="band_rows=0: must be at least 1"):
        streamed(build(), picture(20, 30), band_rows=0)
