"""timm's and PyTorch's tools, on small models: checkpointing, saving, tracing, export."""

from __future__ import annotations

import copy
import io
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
import torch.fx
from safetensors.torch import save_file
from timm.models import save_for_hf
from timm.utils import ModelEmaV3
from torch.optim.swa_utils import AveragedModel
from torchvision.models.feature_extraction import create_feature_extractor

from model_helpers import MODELS, build, config, fill, noise
from vision_longformer import Full, ModelConfig, VisionLongformer, Windowed, create_model

NANO = "vision_longformer_nano"
RANDOM = config(*(Windowed(window_size=2, neighbours="random"),) * 4, drop_path_rate=0.5, drop_rate=0.1)


def model_of(name: str, **options: Any) -> VisionLongformer:
    return cast(VisionLongformer, create_model(name, **options))


# --- intermediate maps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("indices", "stages"), [(None, [0, 1, 2, 3]), (2, [2, 3]), ([0, 2], [0, 2]), ([-3, -1], [1, 3])]
)
@pytest.mark.parametrize("stop_early", [False, True])
def test_indices_choose_stages(indices: int | Sequence[int] | None, stages: list[int], stop_early: bool) -> None:
    model, images = build(MODELS["windowed"]), noise(2, 3, 31, 46)
    _, every = model.forward_intermediates(images)
    final, taken = model.forward_intermediates(images, indices=indices, stop_early=stop_early)
    assert [x.shape[1:] for x in every] == [(6, 11, 16), (10, 6, 8), (14, 3, 4), (12, 2, 2)]
    assert all(torch.equal(x, every[stage]) for x, stage in zip(taken, stages, strict=True))
    if not stop_early or 3 in stages:
        assert torch.equal(final, model.forward_features(images))
    else:
        assert torch.equal(final, every[stages[-1]].permute(0, 2, 3, 1))
    only = model.forward_intermediates(images, indices=indices, stop_early=stop_early, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(only, taken, strict=True))


def test_stopping_early_runs_no_later_stage() -> None:
    model = build(MODELS["windowed"])
    model.stages[2].register_forward_hook(lambda *_: pytest.fail("stage 3 ran"))
    model.forward_intermediates(noise(1, 3, 31, 46), indices=[0, 1], stop_early=True)


def test_intermediates_in_other_forms() -> None:
    model, images = build(config(num_global_tokens=(1, 2, 3, 2))), noise(2, 3, 31, 46)
    maps = model.forward_intermediates(images, intermediates_only=True)
    channels_last = model.forward_intermediates(images, intermediates_only=True, output_fmt="NHWC")
    pairs = model.forward_intermediates(images, intermediates_only=True, return_prefix_tokens=True)
    for last, first, (alone, tokens), count in zip(channels_last, maps, pairs, (1, 2, 3, 2), strict=True):
        assert torch.equal(last.permute(0, 3, 1, 2), first)
        assert torch.equal(alone, first)
        assert tokens.shape == (2, count, first.shape[1])
    normed = model.forward_intermediates(images, intermediates_only=True, norm=True, return_prefix_tokens=True)
    assert torch.equal(normed[0][0], maps[0])
    assert torch.equal(normed[3][0].permute(0, 2, 3, 1), model.norm(maps[3].permute(0, 2, 3, 1)))
    assert torch.equal(normed[3][1], model.norm(pairs[3][1]))
    with pytest.raises(ValueError, match=r"output_fmt='NLC': must be 'NCHW' or 'NHWC'"):
        model.forward_intermediates(images, output_fmt="NLC")  # type: ignore[arg-type]


def test_features_only_equals_intermediates() -> None:
    model = model_of(NANO)
    wrapped: Any = create_model(NANO, features_only=True, out_indices=(1, 3))
    wrapped.model.load_state_dict(model.state_dict(), strict=False)
    images = noise(1, 3, 67, 97, dtype=torch.float32)
    expected = model.eval().forward_intermediates(images, indices=[1, 3], intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(wrapped.eval()(images), expected, strict=True))


@pytest.mark.parametrize("indices", [1, [0, 1], [-1], [2]])
@pytest.mark.parametrize(("prune_norm", "prune_head"), [(False, False), (True, True)])
def test_pruning_keeps_what_was_asked_for(indices: int | list[int], prune_norm: bool, prune_head: bool) -> None:
    model, images = build(MODELS["windowed"]), noise(1, 3, 31, 46)
    expected = model.forward_intermediates(images, indices=indices, intermediates_only=True)
    logits = model(images)
    kept = model.prune_intermediate_layers(indices, prune_norm=prune_norm, prune_head=prune_head)
    assert len(model.stages) == kept[-1] + 1
    actual = model.forward_intermediates(images, indices=kept, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    if kept[-1] == 3 and not prune_head:
        assert torch.equal(model(images), logits)
    else:
        channels = (6, 10, 14, 12)[kept[-1]]
        assert model.num_features == channels
        assert model(images).shape == (1, *expected[-1].shape[2:], channels)


# --- gradient checkpointing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["windowed", "full absolute", "global only", "random"])
def test_grad_checkpointing_changes_no_gradient(name: str) -> None:
    images, sizes = noise(3, 3, 31, 46), [(31, 46), (17, 23), (5, 41)]
    outputs, gradients = [], []
    for enable in (False, True):
        model = build(RANDOM if name == "random" else MODELS[name]).train()
        model.set_grad_checkpointing(enable)
        torch.manual_seed(3)
        outputs.append(model(images, sizes))
        outputs[-1].square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert torch.equal(*outputs)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_grad_checkpointing_changes_no_gradient_where_stages_are_frozen() -> None:
    gradients = []
    for enable in (False, True):
        model = build(MODELS["windowed"]).train()
        model.set_grad_checkpointing(enable)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(("stages.3", "head")))
        model(noise(2, 3, 31, 46)).square().sum().backward()
        found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        gradients.append(found)
    assert gradients[0].keys() == gradients[1].keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(torch.equal(gradient, gradients[1][name]) for name, gradient in gradients[0].items())


def test_grad_checkpointing_runs_blocks_again() -> None:
    model = build(RANDOM).train()
    calls: list[int] = []
    model.stages[1].blocks[1].register_forward_pre_hook(lambda *_: calls.append(1))  # type: ignore[union-attr, index]
    for enable, expected in ((True, 2), (False, 1)):
        calls.clear()
        model.set_grad_checkpointing(enable)
        model(noise(1, 3, 31, 46)).sum().backward()
        assert len(calls) == expected


def test_grad_checkpointing_of_some_stages_runs_their_blocks_again() -> None:
    model, calls = build(RANDOM).train(), []
    for number, stage in enumerate(model.stages, start=1):
        stage.blocks[0].register_forward_pre_hook(lambda *_, number=number: calls.append(number))  # type: ignore[union-attr, index]
    model.set_grad_checkpointing(True, stages=(1, 3))
    model(noise(1, 3, 31, 46)).sum().backward()
    assert sorted(calls) == [1, 1, 2, 3, 3, 4]


# --- building, saving and loading -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_meta_construction_hides_no_state(name: str) -> None:
    expected = build(MODELS[name])
    with torch.device("meta"):
        model = VisionLongformer(MODELS[name])
    assert all(parameter.is_meta for parameter in model.parameters())
    model = model.to(torch.float64).to_empty(device="cpu").eval()
    model.load_state_dict(expected.state_dict())
    images = noise(1, 3, 31, 46)
    assert torch.equal(model(images), expected(images))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("name", ["windowed", "published form", "global only"])
def test_copies_give_the_same_output(name: str, duplicate: Callable[[VisionLongformer], VisionLongformer]) -> None:
    model, images = build(MODELS[name]), noise(1, 3, 31, 46)
    model.set_grad_checkpointing()
    expected = model(images)
    twin = duplicate(model)
    fill(model, seed=7)
    assert twin.config == model.config
    assert torch.equal(twin(images), expected)


def test_wrappers_of_pytorch_and_timm_give_the_same_output(tmp_path: Path) -> None:
    model, images = build(MODELS["windowed"]), noise(2, 3, 31, 46)
    expected = model(images).detach()
    torch.save(model, tmp_path / "m.pt")
    ways: dict[str, Callable[[Any], Any]] = {
        "a file of the whole model": torch.load(tmp_path / "m.pt", weights_only=False),
        "timm's average": ModelEmaV3(model).module,
        "PyTorch's average": AveragedModel(model),
        "parameters as an argument": lambda x: torch.func.functional_call(model, dict(model.state_dict()), (x,)),
    }
    for name, way in ways.items():
        torch.testing.assert_close(way(images), expected, msg=name)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings(
    "ignore:.torch.jit.*deprecated:FutureWarning", "ignore:.torch.jit.*deprecated:DeprecationWarning"
)
def test_a_model_can_be_traced_and_mapped_over_images() -> None:
    model, images = build(MODELS["windowed"]), noise(2, 3, 31, 46)
    expected = model(images).detach()
    traced = torch.jit.trace(model, images, check_trace=False)
    mapped = torch.vmap(lambda image: model(image[None])[0])

    torch.testing.assert_close(traced(images), expected)
    torch.testing.assert_close(mapped(images), expected)


def test_weights_of_data_parallel_training_are_taken(tmp_path: Path) -> None:
    """Their names begin with "module.", and they may lie one level deeper."""
    source = model_of(NANO, num_classes=5).state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in source.items()}}, tmp_path / "c.pth")
    loaded = timm.create_model(NANO, num_classes=5, checkpoint_path=str(tmp_path / "c.pth")).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in source.items())


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_checkpoint_path_loads_weights(suffix: str, tmp_path: Path) -> None:
    source = model_of(NANO, num_classes=5)
    path = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(source.state_dict(), path)
    for build_model in (timm.create_model, create_model):
        loaded = build_model(NANO, num_classes=5, checkpoint_path=str(path)).state_dict()
        assert all(torch.equal(value, loaded[name]) for name, value in source.state_dict().items())


@pytest.mark.parametrize("name", [f"{NANO}_ape", f"{NANO}_full"])
def test_pretrained_weights_of_another_size_and_classifier(name: str, tmp_path: Path) -> None:
    source = model_of(name, img_size=96)
    path = tmp_path / "weights.safetensors"
    save_file(source.state_dict(), path)
    overlay = {"file": str(path), "input_size": (3, 96, 96)}
    model = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay=overlay, img_size=(64, 160), num_classes=7, in_chans=1
    )
    source.set_input_size((64, 160))
    expected, actual = source.state_dict(), model.state_dict()
    for key, value in expected.items():
        if not key.startswith(("head.", "stages.0.patch_embed.proj.weight")):
            torch.testing.assert_close(actual[key], value, rtol=0, atol=1e-6)
    assert actual["head.weight"].shape == (7, 256)
    torch.testing.assert_close(
        actual["stages.0.patch_embed.proj.weight"],
        expected["stages.0.patch_embed.proj.weight"].sum(dim=1, keepdim=True),
    )


def test_pretrained_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="pretrained=True: vision_longformer_small has no trained weights"):
        create_model("vision_longformer_small", pretrained=True)


def test_pretrained_cfg_is_taken() -> None:
    model = timm.create_model(NANO, pretrained_cfg={**model_of(NANO).default_cfg, "num_classes": 9, "crop_pct": 1.0})
    assert (model.num_classes, model.default_cfg["crop_pct"]) == (9, 1.0)
    assert timm.data.resolve_model_data_config(model)["input_size"] == (3, 224, 224)


def test_saved_for_the_hub_and_built_again(tmp_path: Path) -> None:
    custom = config(Windowed(window_size=3), Windowed(window_size=2), Full())
    model = model_of(NANO, config=custom, num_classes=4, img_size=(41, 58))
    fill(model)
    model.set_input_size((29, 71))
    model.reset_classifier(3)
    model.set_neighbours("own")
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["num_classes"] == 3
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert again.config == model.config
    images = noise(1, 3, 50, 61, dtype=torch.float32)
    assert torch.equal(again(images), model.eval()(images))


def test_a_config_replaces_the_variants_own() -> None:
    custom = config(*(Full(),) * 3, in_chans=2)
    for given in (custom, custom.to_dict()):
        for build_model in (timm.create_model, create_model):
            model = cast(VisionLongformer, build_model(NANO, config=given))
            assert model.config == custom
            changed = cast(VisionLongformer, build_model(NANO, config=given, num_classes=8, global_pool=""))
            assert changed.config == ModelConfig.from_dict({**custom.to_dict(), "num_classes": 8, "global_pool": ""})
    wrapped: Any = create_model(NANO, config=custom, features_only=True)
    assert wrapped.feature_info.reduction() == [3, 6, 12]


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match=r"window_siez: vision_longformer_nano has no such option; it has config"):
        create_model(NANO, window_siez=7)
    with pytest.raises(ValueError, match=r"drop_rate=1.5: must be a number from 0"):
        create_model(NANO, drop_rate=1.5)
    with pytest.raises(ValueError, match=r"patch_size=8: must stay 4"):
        model_of(NANO, device="meta").set_input_size(64, patch_size=8)


def test_device_and_dtype_are_options() -> None:
    model = model_of(NANO, device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}
    model.reset_classifier(3)
    assert (model.get_parameter("head.weight").device.type, model.head.weight.dtype) == ("meta", torch.bfloat16)


def test_weights_survive_a_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(build(MODELS["published form"]).state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    twin = VisionLongformer(MODELS["published form"]).to(torch.float64).eval()
    assert twin.load_state_dict(state).missing_keys == []
    images = noise(1, 3, 31, 46)
    assert torch.equal(twin(images), build(MODELS["published form"])(images))


# --- maps by the names of modules ---------------------------------------------------------------------------------


@pytest.mark.parametrize("feature_cls", ["hook", "fx", "getter"])
def test_every_way_of_timm_to_take_maps_gives_the_same(feature_cls: str) -> None:
    options: dict[str, Any] = {"features_only": True, "out_indices": (1, 3)}
    expected = timm.create_model(NANO, **options)
    taken = timm.create_model(NANO, **options, feature_cls=feature_cls)
    state = {name.split(".", 1)[1]: tensor for name, tensor in expected.state_dict().items()}
    (inner,) = taken.children()
    inner.load_state_dict(state, strict=False)
    for size in ((61, 75), (32, 20)):
        images = noise(2, 3, *size, dtype=torch.float32)
        for mode in (True, False):
            maps = [model.train(mode)(images) for model in (taken, expected)]
            for one, other in zip(*maps, strict=True):
                torch.testing.assert_close(one, other)
    assert taken.feature_info.channels() == expected.feature_info.channels() == [64, 256]


def test_torchvision_extracts_maps_and_logits() -> None:
    model, images = build(MODELS["windowed"]), noise(2, 3, 31, 46)
    taken = create_feature_extractor(model, {"maps.1": "second", "maps.3": "last", "head": "logits"})(images)
    intermediates = model.forward_intermediates(images, intermediates_only=True)
    assert torch.equal(taken["second"], intermediates[1])
    assert torch.equal(taken["last"], intermediates[3])
    assert torch.equal(taken["logits"], model(images))


def test_a_graph_has_a_node_for_a_stage_and_takes_padded_images() -> None:
    model, images = build(MODELS["windowed"]), noise(2, 3, 31, 46)
    graph = torch.fx.symbolic_trace(model)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module" and "stages" in str(node.target)] == [
        f"stages.{number}" for number in range(4)
    ]
    sizes = [(31, 46), (20, 13)]
    assert torch.equal(graph(images, sizes), model(images, image_sizes=sizes))


# --- pruned models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [0, 1, 2, 3])
@pytest.mark.parametrize("sizes", [None, [(31, 46), (20, 13)]])
def test_the_head_of_a_pruned_model_pools_its_own_last_stage(last: int, sizes: Any) -> None:
    model = build(config(num_global_tokens=(0, 0, 0, 2)))
    model.prune_intermediate_layers([0, last])
    model.reset_classifier(10, "avg")
    images = noise(2, 3, 31, 46)
    tokens = model.forward_intermediates(images, image_sizes=sizes, return_prefix_tokens=True)[1][-1][1]
    logits = model.forward_head(
        model.forward_features(images, image_sizes=sizes),
        image_sizes=sizes,
        global_tokens=model.norm(tokens) if last == 3 else None,
    )
    torch.testing.assert_close(logits, model(images, image_sizes=sizes))
