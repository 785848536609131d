from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model_helpers import bands_of
from vision_longformer import VisionLongformer, list_mechanisms
from vision_longformer.benchmarking.models import comparison_config
from vision_longformer.config import ModelConfig, Windowed
from vision_longformer.memory import activations
from vision_longformer.memory.activations import WORKSPACE_BYTES, count_bytes, forecast_memory, pass_bytes
from vision_longformer.utils.system_memory import resident_memory

MIB = 2**20


def tensors_of(attention: str, size: tuple[int, int], *, batch: int = 1) -> int:
    return forecast_memory(comparison_config("nano", attention), size, batch=batch) - WORKSPACE_BYTES


def count(*, make: list[int], keep: int) -> int:
    """Return the peak while tensors of some MiB are made one after the other, of which the last `keep` live on."""
    with activations.StorageCounter(known=[]) as counter:
        alive: list[torch.Tensor] = []
        for mebibytes in make:
            alive = [*alive, torch.empty(mebibytes * MIB, dtype=torch.uint8)][-keep:]
        assert counter.live == sum(make[-keep:]) * MIB
        del alive
        assert counter.live == 0
    peak: int = counter.peak
    return peak


def test_the_peak_is_what_lives_at_once() -> None:
    assert count(make=[3, 5, 7], keep=3) == 15 * MIB
    assert count(make=[3, 5, 7, 2], keep=1) == 12 * MIB  # one is made before the one before it goes


def test_views_and_weights_count_once_or_not_at_all() -> None:
    weight = torch.empty(5 * MIB, dtype=torch.uint8)
    with activations.StorageCounter(known=[weight]) as counter:
        made = torch.empty(3 * MIB, dtype=torch.uint8)
        views = [made[1:], made.view(3, MIB).T, weight[: 2 * MIB], weight.view(5, MIB)]
    assert counter.peak == 3 * MIB
    assert len(views) == 4


def counted(config: ModelConfig, size: tuple[int, int], batch: int, stages: list[int] | None) -> int:
    """Return the most bytes that tensors of a real pass hold at once."""
    model = VisionLongformer(config).eval()
    images = torch.randn(batch, 3, *size)
    known = [*model.parameters(), *model.buffers(), images]
    with torch.no_grad():
        if stages is None:
            return count_bytes(lambda: model(images), known=known)
        return count_bytes(lambda: model.forward_intermediates(images, stages), known=known)


@pytest.mark.parametrize("attention", list_mechanisms())
@pytest.mark.parametrize(("size", "batch"), [((203, 301), 1), ((160, 224), 2)])
def test_arithmetic_is_what_a_pass_holds(attention: str, size: tuple[int, int], batch: int) -> None:
    config = comparison_config("nano", attention)
    real = counted(config, size, batch, None)
    off = 0.05 if "global_only" in attention else 0.01  # 256 global tokens are many beside these maps
    assert pass_bytes(config, size, batch=batch) == pytest.approx(real, rel=off)


@pytest.mark.parametrize("stages", [[3], [0, 3]])
@pytest.mark.parametrize("kept_bytes", [0, 2**19, 2**25])
@pytest.mark.parametrize("shared", [True, False])
def test_maps_that_are_kept_and_rows(stages: list[int], kept_bytes: int, shared: bool) -> None:
    config = comparison_config("nano", "windowed")
    attention = Windowed(window_size=7, shared_global_projections=shared)
    config = replace(config, stages=tuple(replace(stage, attention=attention) for stage in config.stages))
    with bands_of(kept_bytes):
        found = pass_bytes(config, (310, 420), stages=stages)
        assert found == pytest.approx(counted(config, (310, 420), 1, stages), rel=0.03)


def test_a_forecast_holds_the_widest_moment_of_a_pass() -> None:
    height, width = 203, 301
    image = 4 * 3 * height * width
    first_map = 4 * 32 * 51 * 76  # bytes of stage 1's (51, 76) map of 32 channels
    found = tensors_of("windowed", (height, width))
    assert 4 * first_map < found < 12 * first_map + image  # the map, normalised, and its queries, keys and values


def test_forecasts_grow_with_the_image_and_the_batch() -> None:
    small, large = tensors_of("windowed", (96, 128)), tensors_of("windowed", (192, 256))
    assert 3.8 < large / small < 4.2
    assert 1.9 < tensors_of("windowed", (96, 128), batch=2) / small < 2.1


def test_features_of_performer_are_seen() -> None:
    size, heads, features = (64, 96), 1, 256
    of_features = 4 * heads * features * (16 * 24 + 1)
    assert tensors_of("performer", size) - tensors_of("windowed", size) > of_features


def test_no_memory_is_taken() -> None:
    before = resident_memory()
    assert tensors_of("spatial_reduction", (4000, 4000)) > 5e8
    after = resident_memory()
    assert before is None or after is None or after - before < 1e8
