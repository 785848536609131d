"""A small model, and a folder for its features."""

from __future__ import annotations

from pathlib import Path

import pytest

from vision_longformer import VisionLongformer, create_model


@pytest.fixture
def model() -> VisionLongformer:
    network = create_model("vision_longformer_nano", num_classes=0)
    assert isinstance(network, VisionLongformer)
    return network


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "features"
