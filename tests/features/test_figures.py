from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vision_longformer import VisionLongformer, create_model
from vision_longformer.features import small_pictures
from vision_longformer.features.figures import NAMES, seen_in, streamed_figures
from vision_longformer.features.formats import encoded_from_stream
from vision_longformer.features.formats.encoded import TensorRows
from vision_longformer.features.small_pictures import small_map, small_photograph
from vision_longformer.images import ArrayReader
from vision_longformer.images.thumbnails import NEUTRAL, principal_colours
from vision_longformer.streaming import stream

HEIGHT, WIDTH = 157, 211


def averaged(pixels: np.ndarray[Any, Any], side: int) -> np.ndarray[Any, Any]:
    """Average whole squares, and leave out the others."""
    height, width = (size // side for size in pixels.shape[:2])
    whole = pixels[: height * side, : width * side].astype(float)
    means: np.ndarray[Any, Any] = whole.reshape(height, side, width, side, 3).mean(axis=(1, 3))
    return means


@pytest.fixture(params=[10**3, 10**9])
def band_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a square's rows at a time, or everything at once."""
    monkeypatch.setattr(small_pictures, "BAND_BYTES", request.param)


@pytest.mark.usefixtures("band_bytes")
def test_a_photograph_is_averaged_and_holes_are_gray() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    valid = np.ones((HEIGHT, WIDTH), dtype=bool)
    valid[:50, :90] = False
    shown = small_photograph(ArrayReader(pixels, valid=valid), 3, max_width=50).numpy()
    assert shown.shape == (32, 43, 3)  # a fifth, its last pixels of fewer pixels
    expected = averaged(np.where(valid[..., None], pixels, NEUTRAL), 5)
    assert np.abs(shown[: len(expected), : expected.shape[1]] - expected).max() <= 0.51
    assert (shown[:10, :18] == NEUTRAL).all()


def test_channels_that_are_no_colours_are_gray() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 5), dtype=np.uint8)
    shown = small_photograph(ArrayReader(pixels), 5, max_width=60).numpy()
    assert np.array_equal(shown, np.repeat(pixels[..., :1], 3, axis=2))


def test_an_image_that_is_high_becomes_no_higher_than_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_pictures, "LARGEST", 40)
    pixels = np.zeros((HEIGHT, 30, 3), dtype=np.uint8)
    assert small_photograph(ArrayReader(pixels), 3, max_width=960).shape == (40, 8, 3)


@pytest.mark.usefixtures("band_bytes")
def test_a_map_has_the_colours_of_the_whole() -> None:
    features = torch.randn(6, HEIGHT, 60) * torch.tensor([5.0, 4, 3, 1, 1, 1])[:, None, None]
    valid = torch.ones(HEIGHT, 60, dtype=torch.bool)
    valid[20:60] = False
    expected = principal_colours(features.permute(1, 2, 0), valid)
    assert torch.equal(small_map(TensorRows(features, valid), max_width=60), expected)
    shown = small_map(TensorRows(features, valid), max_width=30).numpy()
    assert np.abs(shown[:78] - averaged(expected.numpy(), 2)).max() <= 0.51


def test_a_streamed_image_stands_beside_its_stages() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    model: Any = create_model("vision_longformer_nano", num_classes=0).eval()
    reader = ArrayReader(pixels)
    encoded = encoded_from_stream(stream(model, reader, stages=(2, 4)), reader, strides=(8, 32))
    figures, missing = streamed_figures(encoded, reader, channels=3)
    assert missing == ""
    assert [figure.title for figure in figures] == ["Image", "Stage 2", "Stage 4"]
    assert [figure.picture.width for figure in figures] == [211, 27, 7]
    assert [figure.picture.height for figure in figures] == [157, 20, 5]
    assert [figure.extent for figure in figures] == pytest.approx([1, 27 * 8 / 211, 7 * 32 / 211])
    assert "27 × 20 tokens" in figures[1].caption


def test_the_names_are_the_most_probable_of_the_head() -> None:
    model = create_model("vision_longformer_nano", num_classes=7).eval()
    assert isinstance(model, VisionLongformer)
    embedding = torch.randn(256)
    assert seen_in(embedding, model) == ""  # the classes have no names
    model.pretrained_cfg = {**model.pretrained_cfg, "label_names": [f"kind {number}" for number in range(7)]}
    with torch.no_grad():
        share, best = model.head(embedding).softmax(0).max(0)
    assert seen_in(embedding, model).startswith(f"Taken for kind {int(best)} ({float(share):.0%}), ")
    assert seen_in(embedding, model).count("(") == NAMES
