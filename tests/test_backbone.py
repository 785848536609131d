"""The model as a whole: any size, its checks, its head, its randomness, its initialisation."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from model_helpers import ALL_WINDOWED, MODELS, build, config, noise, relative_error
from vision_longformer import GlobalOnly, VisionLongformer, Windowed
from vision_longformer.attention import WindowedAttention
from vision_longformer.backbone import Block


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (2, 5), (23, 3), (12, 24), (53, 29)])
@pytest.mark.parametrize("name", MODELS)
def test_any_size_is_encoded(name: str, size: tuple[int, int]) -> None:
    model = build(MODELS[name])
    with torch.no_grad():
        maps = model.forward_intermediates(noise(2, 3, *size), intermediates_only=True)
        assert model(noise(2, 3, *size)).isfinite().all()
    for x, stage, stride in zip(maps, model.config.stages, model.config.strides, strict=True):
        assert x.shape == (2, stage.width, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
        assert x.isfinite().all()


IMAGES = noise(2, 3, 11, 13)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": IMAGES[0]}, r"images: expected shape \(batch, 3, height, width\), got \(3, 11, 13\)"),
        ({"images": IMAGES[:, :1]}, r"images: expected shape \(batch, 3, height, width\), got \(2, 1, 11, 13\)"),
        ({"images": IMAGES.byte()}, r"images: expected normalised floating-point pixels, got torch.uint8"),
        ({"images": IMAGES[:, :, :0]}, r"images: height and width must be at least 1 pixel, got \(2, 3, 0, 13\)"),
        (
            {"image_sizes": [(11, 13)]},
            r"image_sizes: expected 2 pairs of integers .* got torch.int64 of shape \(1, 2\)",
        ),
        ({"image_sizes": torch.ones(2, 2)}, r"image_sizes: expected 2 pairs of integers .* got torch.float32"),
        (
            {"image_sizes": [(11, 13), (0, 13)]},
            r"image_sizes\[1\]=\(0, 13\): must lie between \(1, 1\) and .*\(11, 13\)",
        ),
        (
            {"image_sizes": [(11, 14), (1, 1)]},
            r"image_sizes\[0\]=\(11, 14\): must lie between \(1, 1\) and .*\(11, 13\)",
        ),
        (
            {"valid": torch.ones(2, 11, 13)},
            r"valid: expected a boolean tensor of shape \(2, 11, 13\), got torch.float32",
        ),
        ({"valid": torch.ones(2, 13, 11, dtype=torch.bool)}, r"valid: expected .* got torch.bool \(2, 13, 11\)"),
    ],
)
def test_wrong_input_is_refused(arguments: dict[str, Any], message: str) -> None:
    model = build(MODELS["windowed"])
    for method in (model.forward, model.forward_features, model.forward_intermediates):
        with pytest.raises(ValueError, match=message):
            method(**{"images": IMAGES, **arguments})


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_global_tokens_of_every_stage_are_used(count: int) -> None:
    model = build(config(num_global_tokens=(count,) * 4))
    expected = model(IMAGES)
    for number, stage in enumerate(model.stages):
        tokens = stage.patch_embed.global_tokens  # type: ignore[union-attr]
        assert (0 if tokens is None else len(cast(Tensor, tokens))) == count
        if tokens is not None:
            with torch.no_grad():
                cast(Tensor, tokens)[count - 1, 0] += 1
            assert relative_error(model(IMAGES), expected) > 1e-6, f"stage {number}"


def test_average_pooling_takes_global_tokens_too() -> None:
    model = build(config(*ALL_WINDOWED[:3], num_global_tokens=(1, 0, 2), num_classes=0))
    final, pairs = model.forward_intermediates(IMAGES, norm=True, return_prefix_tokens=True)
    global_tokens = pairs[-1][1]
    pooled = torch.cat([final.flatten(1, 2), global_tokens], dim=1).mean(dim=1)
    torch.testing.assert_close(model(IMAGES), pooled)
    torch.testing.assert_close(model.forward_head(final, global_tokens=global_tokens), pooled)
    with pytest.raises(ValueError, match="global_tokens: the head pools the 2 global token"):
        model.forward_head(final)


def test_token_pooling_takes_global_token_0() -> None:
    model = build(MODELS["token pooled"])
    pairs = model.forward_intermediates(IMAGES, norm=True, return_prefix_tokens=True, intermediates_only=True)
    torch.testing.assert_close(model(IMAGES), model.head(pairs[-1][1][:, 0]))


def test_separate_global_projections_serve_global_tokens_only() -> None:
    attention = (Windowed(window_size=2, shared_global_projections=False),) * 3
    model = build(config(*attention, num_global_tokens=(0, 0, 1), global_pool="token"))
    block = cast(Block, model.stages[2].blocks[0])  # type: ignore[index]
    before = model.forward_intermediates(IMAGES, return_prefix_tokens=True, intermediates_only=True)[-1]
    with torch.no_grad():
        block.attn.projections.qkv_global.weight.add_(1)  # type: ignore[union-attr, operator]
    after = model.forward_intermediates(IMAGES, return_prefix_tokens=True, intermediates_only=True)[-1]
    assert torch.equal(after[0], before[0])
    assert relative_error(after[1], before[1]) > 1e-3


# --- randomness in training -------------------------------------------------------------------------------------


def random_model(**options: Any) -> VisionLongformer:
    return build(config(*(Windowed(window_size=2, neighbours="random"),) * 4, **options))


def draws_of(model: VisionLongformer, images: Tensor) -> list[list[list[int]]]:
    """Return the chunks that each windowed layer saw in one pass."""
    seen: list[list[list[int]]] = []
    layers = [module for module in model.modules() if isinstance(module, WindowedAttention)]
    originals = [layer._offsets for layer in layers]
    for layer, original in zip(layers, originals, strict=True):

        def recorded(original: Any = original) -> Tensor:
            offsets: Tensor = original()
            seen.append(offsets.tolist())
            return offsets

        layer._offsets = recorded  # type: ignore[method-assign]
    model(images)
    for layer in layers:
        del layer._offsets
    return seen


def test_random_shift_draws_for_each_layer_and_pass() -> None:
    model = random_model().train()
    passes = [draws_of(model, IMAGES) for _ in range(20)]
    assert {len(layers) for layers in passes} == {5}
    drawn = [[offsets[1] for offsets in layers] for layers in passes]
    assert all(offsets[0] == [0, 0] and len(offsets) == 2 for layers in passes for offsets in layers)
    assert {tuple(offset) for layers in drawn for offset in layers} == {
        (row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)
    }
    assert any(layers != drawn[0] for layers in drawn)  # passes differ
    assert any(layer != layers[0] for layers in drawn for layer in layers)  # layers differ


def test_random_shift_follows_the_seed_and_ends_in_evaluation() -> None:
    model, images = random_model().train(), noise(1, 3, 40, 52)
    torch.manual_seed(3)
    first, other = model(images), model(images)
    torch.manual_seed(3)
    assert torch.equal(model(images), first)
    assert not torch.equal(other, first)
    assert torch.equal(model.eval()(images), build(MODELS["windowed"])(images))
    assert torch.equal(model(images), model(images))


def test_neighbours_can_be_changed() -> None:
    model, images = random_model(), noise(1, 3, 40, 52)
    for neighbours in ("all", "own", "random"):
        model.set_neighbours(neighbours)
        expected = build(config(*(Windowed(window_size=2, neighbours=neighbours),) * 4)).train()
        assert model.config == expected.config
        torch.manual_seed(0)
        actual = model.train()(images)
        torch.manual_seed(0)
        assert torch.equal(actual, expected(images))
    exact = build(MODELS["exact"])
    with pytest.raises(ValueError, match="neighbours='random': random neighbours need whole chunks"):
        exact.set_neighbours("random")
    assert exact.config == MODELS["exact"]
    mixed = build(config(*ALL_WINDOWED[:2], GlobalOnly()))
    mixed.set_neighbours("own")
    assert mixed.config.stages[2].attention == GlobalOnly()


def test_drop_path_grows_linearly() -> None:
    model = build(config(drop_path_rate=0.4))
    rates = [module.drop_path_rate for module in model.modules() if isinstance(module, Block)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_drop_path_drops_half_blocks_of_an_image_as_a_whole() -> None:
    block = cast(Block, build(config(drop_path_rate=0.5)).stages[3].blocks[0]).train()  # type: ignore[index]
    x, update = noise(64, 2, 3, 12), torch.ones(64, 2, 3, 12, dtype=torch.float64)
    global_tokens, global_update = noise(64, 2, 12), torch.ones(64, 2, 12, dtype=torch.float64)
    torch.manual_seed(0)
    added, global_added = block._add(x, update, global_tokens, global_update)
    difference = (added - x).flatten(1)
    assert torch.allclose(difference, difference[:, :1])
    assert torch.allclose((global_added - global_tokens).flatten(1), difference[:, :1])
    assert sorted(set(difference[:, 0].round(decimals=6).tolist())) == [0, 2]


def test_evaluation_drops_nothing() -> None:
    model = build(config(drop_rate=0.5, drop_path_rate=0.5))
    assert torch.equal(model(IMAGES), build(MODELS["windowed"])(IMAGES))
    assert not torch.equal(model.train()(IMAGES), model(IMAGES))


# --- initialisation, precision, gradients -----------------------------------------------------------------------


@pytest.mark.parametrize("position", ["relative", "absolute"])
def test_initial_weights(position: Any) -> None:
    torch.manual_seed(0)
    model = VisionLongformer(config(position=position, image_size=(300, 310), num_classes=400))
    model.reset_classifier(500)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            assert module.eps == 1e-6
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
        elif isinstance(module, nn.Linear):
            assert (module.bias == 0).all()
    drawn = [
        parameter.detach().flatten()
        for name, parameter in model.named_parameters()
        if "norm" not in name and "patch_embed.proj" not in name and not name.endswith("bias")
    ]
    for values in (torch.cat(drawn), *[values for values in drawn if values.numel() > 500]):
        assert values.std() == pytest.approx(0.02, rel=0.1)
        assert values.mean().abs() < 0.003


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_large_logits_stay_finite(name: str, dtype: torch.dtype, autocast: bool) -> None:
    if autocast and dtype == torch.float32:
        pytest.skip("autocast lowers precision")
    torch.manual_seed(0)
    model = VisionLongformer(MODELS[name]).train()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "qkv" in parameter_name and parameter.ndim == 2:
                parameter[: 2 * len(parameter) // 3] *= 10  # queries and keys
    images, sizes = noise(2, 3, 31, 46, dtype=torch.float32), [(31, 46), (17, 23)]
    if not autocast:
        model, images = model.to(dtype), images.to(dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        logits = model(images, sizes)
    logits.float().square().sum().backward()
    assert logits.dtype == dtype
    assert logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_parameters_that_serve_only_the_last_global_tokens_get_zero_gradients() -> None:
    attention = (Windowed(window_size=2, shared_global_projections=False),) * 3
    model = build(config(*attention, num_global_tokens=(1, 2, 0))).train()
    model(IMAGES).sum().backward()
    for number in (0, 1):
        last = len(model.stages[number].blocks) - 1  # type: ignore[arg-type]
        prefix = f"stages.{number}.blocks.{last}.attn."
        for name in ("projections.qkv_global.weight", "position.global_queries.to_map"):
            gradient = model.get_parameter(prefix + name).grad
            assert gradient is not None
            assert not gradient.any()
        assert model.get_parameter(f"{prefix}position.to_global").grad.any()  # type: ignore[union-attr]
    first = model.get_parameter("stages.1.blocks.0.attn.projections.qkv_global.weight").grad
    assert first is not None
    assert first.any()
