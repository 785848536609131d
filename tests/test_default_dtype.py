"""Programs that compute in float64 by default get the same results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vil import main
from vision_longformer import Encoder, VisionLongformer, create_model, save, set_attention_backend
from vision_longformer.memory.activations import _attention_bytes, pass_bytes

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 52, 3)).astype(np.uint8)


@pytest.fixture
def _float64() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


def model() -> VisionLongformer:
    torch.manual_seed(0)
    made = create_model("vision_longformer_nano", dtype=torch.float32)
    assert isinstance(made, VisionLongformer)
    return made


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("backend", ["auto", "sdpa"])
def test_features_are_the_same(backend: str) -> None:
    set_attention_backend(backend)  # type: ignore[arg-type]
    try:
        encoder = Encoder(model())
        expected = encoder.encode(PIXELS)
        torch.set_default_dtype(torch.float64)
        actual = encoder.encode(PIXELS)
    finally:
        set_attention_backend("auto")
    assert torch.equal(actual.embedding, expected.embedding)
    for one, other in zip(actual.maps, expected.maps, strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("_float64")
def test_gradients_are_the_same() -> None:
    network = model().train()
    images = torch.randn(2, 3, 40, 52)

    def gradient() -> torch.Tensor:
        network.zero_grad()
        network(images).sum().backward()
        found = network.stages[0].patch_embed.proj.weight.grad  # type: ignore[union-attr]
        assert isinstance(found, torch.Tensor)
        return found.clone()

    expected = gradient()
    torch.set_default_dtype(torch.float64)
    assert torch.equal(gradient(), expected)


@pytest.mark.usefixtures("_float64")
def test_plans_are_the_same() -> None:
    config = model().config
    expected = pass_bytes(config, (610, 940))
    torch.set_default_dtype(torch.float64)
    _attention_bytes.cache_clear()
    assert pass_bytes(config, (610, 940)) == expected


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_a_command_encodes(way: str, tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    save(model(), tmp_path / "m.safetensors")
    command = ["encode", str(tmp_path / "a.png"), "--checkpoint", str(tmp_path / "m.safetensors"), "--no-report"]
    stored = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        output = tmp_path / str(dtype)
        assert main([*command, "--way", way, "--output", str(output)]) == 0
        stored.append((output / "a.png.safetensors").read_bytes())
    assert stored[0] == stored[1]
