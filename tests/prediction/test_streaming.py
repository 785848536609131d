"""Which images are streamed, and what a prediction then gives: what it gives of the whole image."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detection.cases import retinanet
from model_helpers import noise
from prediction.cases import noise_image, trained
from segmentation.test_semantic import build as semantic
from streaming.streaming_helpers import holes
from vision_longformer.fpn.streamed.memory import choose_streaming, forecast_streamed
from vision_longformer.images import ArrayReader
from vision_longformer.memory.activations import StorageCounter
from vision_longformer.memory.dense import forecast_dense_memory
from vision_longformer.memory.streaming import SMALLEST_BAND_BYTES
from vision_longformer.prediction.predictor import PredictOptions, Predictor
from vision_longformer.prediction.results import SemanticResult
from vision_longformer.prediction.streaming import LEVEL_BYTES, streamable, streaming_strategy
from vision_longformer.segmentation import build_semantic_fpn
from vision_longformer.segmentation.streamed.run import stream_logits
from vision_longformer.tiling.choosing import Tiling

LARGE = (1500, 2500)
MODELS: dict[str, Any] = {"retinanet": retinanet, "semantic": semantic}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param](torch.float32)


def level_bytes(model: Any, size: tuple[int, int]) -> Any:
    return partial(LEVEL_BYTES[type(model)], model, size)


def test_what_does_not_fit_is_streamed_unless_tiles_are_asked_for(model: Any) -> None:
    needed = forecast_dense_memory(model, LARGE)
    assert streaming_strategy(model, LARGE, Tiling(model, memory=needed)) is None
    strategy = streaming_strategy(model, LARGE, Tiling(model, memory=needed - 1))
    assert strategy is not None
    assert strategy.bytes < needed
    assert not strategy.spilled
    assert streaming_strategy(model, LARGE, Tiling(model, memory=needed - 1, tile=512)) is None
    assert streaming_strategy(model, LARGE, Tiling(model, memory=needed - 1, overlap=64)) is None
    assert streaming_strategy(model, LARGE, Tiling(model, memory=1000)) is None


def test_other_models_are_cut_into_tiles() -> None:
    assert not streamable(build_semantic_fpn("resnet18", num_classes=3, pyramid_width=8, head_width=8, norm_groups=2))
    assert not streamable(torch.nn.Linear(3, 4))


def test_bands_shrink_before_maps_go_to_disk(model: Any) -> None:
    size = (20_000, 3000)
    bytes_of = level_bytes(model, size)
    ways = [
        choose_streaming(model.backbone, size, bytes_of, memory=memory)
        for memory in range(10_000_000, 1_000_000_000, 5_000_000)
    ]
    found = [strategy for strategy in ways if strategy is not None]
    assert ways[: len(ways) - len(found)] == [None] * (len(ways) - len(found))  # more memory is never worse
    assert None in ways
    order = [(not strategy.spilled, strategy.band_bytes) for strategy in found]
    assert order == sorted(order)
    assert {strategy.spilled for strategy in found} == {True, False}
    assert {strategy.band_bytes for strategy in found if strategy.spilled} >= {
        SMALLEST_BAND_BYTES,
        8 * SMALLEST_BAND_BYTES,
    }
    for strategy in found:
        needs = forecast_streamed(model.backbone, size, bytes_of, strategy.band_bytes, spilled=strategy.spilled)
        assert (strategy.bytes, strategy.disk) == (needs.memory, needs.disk)


def test_the_need_of_a_spilled_image_grows_with_its_width_only(model: Any) -> None:
    def needed(height: int, width: int) -> int:
        size = height, width
        bytes_of = level_bytes(model, size)
        return forecast_streamed(model.backbone, size, bytes_of, SMALLEST_BAND_BYTES, spilled=True).memory

    assert needed(400_000, 3000) == needed(4000, 3000) < needed(4000, 6000)


@pytest.mark.parametrize("num_classes", [3, 90])
@pytest.mark.parametrize("width", [8, 40])
def test_a_streamed_head_holds_no_more_than_was_forecast(num_classes: int, width: int) -> None:
    model = semantic(torch.float32, num_classes=num_classes, pyramid_width=width)
    size, band_bytes = (600, 300), 100_000
    pixels = ArrayReader((noise(*size, 3) * 50).clamp(0, 255).byte().numpy())
    colours: dict[str, Any] = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    with torch.no_grad(), StorageCounter(known=[*model.parameters(), *model.buffers()]) as counter:
        for _, logits, _ in stream_logits(model, pixels, band_bytes=band_bytes, **colours):
            logits.argmax(dim=0)
            del logits
    forecast = forecast_streamed(model.backbone, size, level_bytes(model, size), band_bytes, spilled=False).memory
    of_levels = LEVEL_BYTES[type(model)](model, size, band_bytes)
    assert 0.3 * of_levels < counter.peak < forecast


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("spilled", [False, True])
def test_classes_of_a_streamed_image_are_those_of_the_whole(
    missing: bool, spilled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = trained("semantic_segmentation", tmp_path)
    size = (243, 150)
    pixels, valid = noise_image(*size), holes(*size) if missing else None
    whole = Predictor(weights)(ArrayReader(pixels, valid=valid))
    monkeypatch.setattr(Tiling, "fits_whole", lambda *_: False)
    work = tmp_path / "work"
    work.mkdir()
    if spilled:
        monkeypatch.setattr("vision_longformer.fpn.streamed.memory.forecast_streamed", only_spilled)
    predictor = Predictor(weights, PredictOptions(memory=10**9))
    streamed = predictor.predict(ArrayReader(pixels, valid=valid), work_folder=work)
    assert not list(work.iterdir())
    assert isinstance(whole, SemanticResult)
    assert isinstance(streamed, SemanticResult)
    assert streamed.streamed
    assert not whole.streamed
    assert (streamed.labels == whole.labels).mean() > 0.999
    for top, bottom in ((0, 10), (77, 243), (5, 5)):
        np.testing.assert_array_equal(streamed.label_rows(top, bottom), streamed.labels[top:bottom])
    assert streamed.pixels.sum() == (size[0] * size[1] if streamed.valid is None else streamed.valid.sum())
    assert streamed.no_data == whole.no_data == (255 if missing else None)
    if missing:
        assert whole.valid is not None
        np.testing.assert_array_equal(streamed.valid, whole.valid)
        assert (streamed.labels[~whole.valid] == 255).all()
    streamed.save(tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), streamed.labels)
    assert streamed.plot(Image.fromarray(noise_image(81, 50))).size == (50, 81)


def only_spilled(*arguments: Any, spilled: bool) -> Any:
    """Say that no maps fit into memory."""
    found = forecast_streamed(*arguments, spilled=spilled)
    return found if spilled else type(found)(10**15, 0, 0)
