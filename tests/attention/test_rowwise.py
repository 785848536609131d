"""A large map that goes through a block by rows is transformed as a whole one is."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model_helpers import MODELS, bands_of, build, noise, relative_error
from vision_longformer import VisionLongformer, set_attention_backend
from vision_longformer.attention import rowwise
from vision_longformer.attention.projections import Projections
from vision_longformer.backbone import Block
from vision_longformer.memory.activations import StorageCounter
from vision_longformer.padding import UNPADDED

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}
ROWWISE = [
    name
    for name in MODELS
    if not any(word in name for word in ("full", "published", "cyclic", "linformer", "spatial", "performer"))
]


def results(model: VisionLongformer, images: Tensor, sizes: list[tuple[int, int]] | None) -> list[Tensor]:
    """Return logits, maps and global tokens."""
    with torch.no_grad():
        pairs = model.forward_intermediates(
            images, intermediates_only=True, return_prefix_tokens=True, image_sizes=sizes
        )
        return [model(images, image_sizes=sizes), *[tensor for pair in pairs for tensor in pair]]


def oracle(model: VisionLongformer, images: Tensor, sizes: list[tuple[int, int]] | None) -> list[Tensor]:
    """Return the same from dense attention over whole maps."""
    set_attention_backend("dense")
    try:
        return results(model, images, sizes)
    finally:
        set_attention_backend("auto")


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == other.shape
        assert one.numel() == 0 or relative_error(one, other) <= tolerance


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    name=st.sampled_from(ROWWISE),
    dtype=st.sampled_from(list(TOLERANCES)),
    sizes=st.lists(st.tuples(*[st.integers(1, 110)] * 2), min_size=1, max_size=3),
    extra=st.integers(0, 9),
    mixed=st.booleans(),
    kept_bytes=st.sampled_from([0, 2**10, 2**13, 2**16]),
)
def test_bands_give_what_dense_attention_gives(
    name: str, dtype: torch.dtype, sizes: list[tuple[int, int]], extra: int, mixed: bool, kept_bytes: int
) -> None:
    model = build(MODELS[name], dtype=dtype)
    height, width = (max(size[axis] for size in sizes) + extra for axis in (0, 1))
    images = noise(len(sizes), model.in_chans, height, width, dtype=dtype)
    real = sizes if mixed else None
    with bands_of(kept_bytes):
        assert_close(results(model, images, real), oracle(model, images, real), TOLERANCES[dtype])


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Collect the attention layers that a map goes through by rows."""
    seen: list[nn.Module] = []

    attend = rowwise.attend

    def noted(layer: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        seen.append(layer)
        return attend(layer, *arguments)

    monkeypatch.setattr(rowwise, "attend", noted)
    return seen


def test_only_large_maps_without_gradients_go_by_rows(layers: list[nn.Module]) -> None:
    model = build(MODELS["windowed"])
    images = noise(1, 3, 60, 70)
    with torch.no_grad():
        model(images)
    assert not layers
    with bands_of(0):
        model(images).sum().backward()
        assert not layers
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            model(images)
        assert not layers
        with torch.no_grad():
            model(images)
    assert len(layers) == sum(stage.depth for stage in model.config.stages)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("attn.projections.proj", (1, 10, 12, 10)),
        ("norm1", (1, 10, 12, 10)),
        ("norm2", (1, 10, 12, 10)),
        ("mlp.fc1", (1, 10, 12, 40)),
    ],
)
def test_who_hooks_into_a_block_sees_the_whole_map(
    layers: list[nn.Module], name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rowwise, "CHUNK_TOKENS", 7)
    model = build(MODELS["windowed"])
    block = model.get_submodule("stages.1.blocks.0")
    seen: list[Tensor] = []
    block.get_submodule(name).register_forward_hook(lambda *call: seen.append(call[2]))
    with bands_of(0), torch.no_grad():
        model(noise(1, 3, 60, 72))
    assert seen[0].shape == shape
    assert block.attn not in layers
    assert layers


def test_who_hooks_into_a_patch_embedding_sees_the_whole_map() -> None:
    model = build(MODELS["windowed"])
    seen: list[Tensor] = []
    model.get_submodule("stages.0.patch_embed.proj").register_forward_hook(lambda *call: seen.append(call[2]))
    with bands_of(0), torch.no_grad():
        model(noise(1, 3, 60, 72))
    assert [out.shape for out in seen] == [(1, 6, 20, 24)]


class Adapted(nn.Module):
    """A linear layer with something added, as adapters do."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x) + 0.5 * x[..., :1]
        return out


@pytest.mark.parametrize("part", ["qkv", "proj", "qkv_global", "proj_global"])
def test_linear_layers_that_were_replaced_are_called(part: str) -> None:
    model = build(MODELS["token pooled"])
    for block in model.modules():
        if isinstance(block, Block):
            projections = block.attn.projections
            assert isinstance(projections, nn.Module)
            linear = getattr(projections, part)
            if linear is not None:
                setattr(projections, part, Adapted(linear))
    images = noise(1, 3, 60, 70)
    expected = oracle(model, images, None)
    with bands_of(0):
        assert_close(results(model, images, None), expected, 1e-12)


def test_nothing_but_the_result_is_as_large_as_the_map() -> None:
    model = build(MODELS["windowed"], dtype=torch.float32)
    block = model.get_submodule("stages.0.blocks.0")
    assert isinstance(block, Block)
    x = noise(1, 900, 90, 6, dtype=torch.float32)
    with bands_of(2**16), torch.no_grad(), StorageCounter(known=[x, *model.parameters()]) as counter:
        block(x, x[:, 0, :1], UNPADDED)
        held = counter.peak - x.numel() * x.element_size()
        layer = cast(rowwise.RowwiseLayer, block.attn)
        forecast = rowwise.held_bytes((900, 90), 6, 4, step=layer.step, halo=layer.halo)
        assert held <= 1.1 * forecast
        assert forecast < x.numel() * x.element_size()


@pytest.mark.parametrize("part", ["qkv", "proj"])
def test_linear_layers_may_lose_their_bias(part: str) -> None:
    model, images = build(MODELS["windowed"]), noise(1, 3, 61, 83)
    for module in model.modules():
        if isinstance(module, Projections):
            getattr(module, part).bias = None
    with bands_of(4000):
        assert_close(results(model, images, None), oracle(model, images, None), TOLERANCES[torch.float64])
