"""Arithmetic of a streamed image against the storages that live while one is streamed."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_helpers import MODELS, build
from streaming.streaming_helpers import picture, reader
from vision_longformer import VisionLongformer, create_model
from vision_longformer.memory.activations import WORKSPACE_BYTES, StorageCounter
from vision_longformer.memory.streaming import Stored, forecast_streaming
from vision_longformer.streaming import stream
from vision_longformer.streaming.layout import Layout


@pytest.mark.parametrize("spilled", [False, True])
@pytest.mark.parametrize("band_bytes", [2**19, 2**22, 2**27])
def test_memory_is_that_of_the_storages_that_live_at_once(tmp_path: Path, spilled: bool, band_bytes: int) -> None:
    model = create_model("vision_longformer_nano", num_classes=0).eval()
    assert isinstance(model, VisionLongformer)
    height, width = 640, 1100
    layout = Layout(model.config, (height, width), 4, band_bytes)
    needs = forecast_streaming(layout, Stored(3), wanted={1, 3}, spilled=spilled, resume=spilled)
    folder = tmp_path if spilled else None
    with StorageCounter(known=[*model.parameters(), *model.buffers()]) as counter:
        stream(
            model,
            reader(picture(height, width)),
            stages=(2, 4),
            work_folder=folder,
            resume=spilled,
            band_bytes=band_bytes,
        )
    assert 0.95 * counter.peak <= needs.memory - WORKSPACE_BYTES <= 1.3 * counter.peak + 12 * 2**20


@pytest.mark.parametrize("resume", [False, True])
def test_disk_is_that_of_the_files_that_are_there_at_once(tmp_path: Path, resume: bool) -> None:
    model = build(MODELS["windowed"])
    layout = Layout(model.config, (103, 83), next(model.parameters()).itemsize, 2**20)
    most = 0

    def look(_: object) -> None:
        nonlocal most
        most = max(most, sum(file.stat().st_size for file in tmp_path.glob("*.map")))

    stream(
        model,
        reader(picture(103, 83)),
        stages=(2, 3),
        work_folder=tmp_path,
        resume=resume,
        band_bytes=2**20,
        progress=look,
    )
    needs = forecast_streaming(layout, Stored(3), wanted={1, 2}, spilled=True, resume=resume)
    left = sum(file.stat().st_size for file in tmp_path.glob("*.map"))
    assert 0.5 * needs.disk <= max(most, left) <= needs.disk
    assert forecast_streaming(layout, Stored(3), wanted={1, 2}, spilled=False).disk == 0


def test_bands_bound_the_memory_of_a_spilled_image() -> None:
    model = create_model("vision_longformer_nano")
    assert isinstance(model, VisionLongformer)

    def memory(height: int, *, spilled: bool) -> int:
        layout = Layout(model.config, (height, 2000), 4, 2**22)
        return forecast_streaming(layout, Stored(3), wanted={3}, spilled=spilled, resume=spilled).memory

    assert memory(200_000, spilled=True) == memory(20_000, spilled=True)
    assert memory(200_000, spilled=False) > 5 * memory(20_000, spilled=False)
