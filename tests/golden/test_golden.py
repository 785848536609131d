"""The published code's outputs, reproduced. `pytest tests/golden --golden-dir DIR` runs cases from elsewhere."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from golden.fill import fill
from vision_longformer.attention import WindowedAttention, build_attention
from vision_longformer.attention.geometry import NEIGHBOURS, OWN
from vision_longformer.config import (
    Attention,
    Full,
    GlobalOnly,
    Linformer,
    Performer,
    SpatialReduction,
    StageConfig,
    Windowed,
)
from vision_longformer.published.convert import attention_from_reference, model_from_reference
from vision_longformer.published.parse import ReferenceEntries
from vision_longformer.weights import load_exactly

Case = dict[str, Any]
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5}  # of the largest magnitude; float32 is also what is stored


@functools.cache
def read(folder: Path, kind: str) -> tuple[list[Case], dict[str, Tensor]]:
    if not (folder / f"{kind}.json").exists():
        return [], {}
    return json.loads((folder / f"{kind}.json").read_text())["cases"], load_file(folder / f"{kind}.safetensors")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kind = "layers" if "layer_case" in metafunc.fixturenames else "models"
    cases, _ = read(metafunc.config.getoption("--golden-dir"), kind)
    parameters = []
    for case in cases:
        for dtype in (torch.float64, torch.float32):
            if case["dtype"] == "float64" or dtype == torch.float32:
                parameters.append(pytest.param(case, dtype, id=f"{case['id']}-{dtype}"))
    metafunc.parametrize((f"{kind[:-1]}_case", "dtype"), parameters)


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).abs().max() / expected.double().abs().max()
    assert error <= TOLERANCE[dtype]


_last_filled: dict[str, dict[str, Tensor]] = {}


def fill_state(case: Case, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make the case's state from its names; what cannot be made, random projections, is stored."""
    if case["id"] not in _last_filled:  # each case runs twice in a row
        _last_filled.clear()
        state = {name: fill(filled_as, shape) for name, shape, filled_as in case["state"]}
        state |= {name: stored[key].double() for name in state if (key := f"{case['id']}.state.{name}") in stored}
        _last_filled[case["id"]] = state
    return _last_filled[case["id"]]


def attention_config(case: Case) -> Attention:
    arguments = case["args"]
    match case["kind"]:
        case "full":
            return Full()
        case "linformer":
            return Linformer(num_features=arguments["num_feats"], shared_projection=arguments["share_kv"])
        case "srformer":
            return SpatialReduction(ratio=arguments["rratio"])
        case "performer":
            return Performer(num_features=arguments["nb_features"])
    assert case["kind"] == "longformer"
    if arguments.get("only_glo"):
        return GlobalOnly(shared_global_projections=arguments["sharew"])
    return Windowed(
        window_size=arguments["w"],
        shape={0: "chunk", 1: "exact", -1: "cyclic"}[arguments["exact"]],  # type: ignore[arg-type]
        neighbours={0: "all", -1: "own", None: "all"}.get(arguments.get("mode"), "random"),  # type: ignore[arg-type]
        shared_global_projections=arguments["sharew"],
    )


def build_layer(case: Case, stored: dict[str, Tensor]) -> nn.Module:
    arguments, grid = case["args"], (case["height"], case["width"])
    stage = StageConfig(
        depth=1,
        width=arguments["dim"],
        num_heads=arguments["num_heads"],
        num_global_tokens=case["num_global_tokens"],
        position="relative" if arguments.get("rpe") else "none",
        attention=attention_config(case),
    )
    layer = build_attention(stage, grid=grid)
    entries = ReferenceEntries(fill_state(case, stored))
    attention_from_reference(entries, "", "", stage, grid=grid)
    entries.raise_problems(image_size=grid)
    load_exactly(layer, entries.converted, source=case["id"])
    return layer.train(case["training"])


def reference_gradients(layer: nn.Module) -> dict[str, Tensor]:
    """Gradients under the published names: joined tensors are taken apart, and split ones joined."""
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters() if parameter.grad is not None}
    named = {
        "local_relative_position_bias_table": gradients["position.table"],
        "g2l_relative_position_bias": torch.stack(
            [gradients["position.global_queries.to_map"], gradients["position.to_global"]]
        ),
        "g2g_relative_position_bias": gradients["position.global_queries.to_global"],
        "qkv.weight": gradients["projections.qkv.weight"],
    }
    for suffix in ("", "_global"):
        if f"projections.qkv{suffix}.weight" in gradients:
            qkv = gradients[f"projections.qkv{suffix}.weight"]
            width = qkv.shape[1]
            named[f"query{suffix}.weight"], named[f"kv{suffix}.weight"] = qkv[:width], qkv[width:]
    if "projections.proj_global.weight" in gradients:
        named["proj_global.weight"] = gradients["projections.proj_global.weight"]
    return named


def test_layer(
    layer_case: Case, dtype: torch.dtype, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, (_, expected) = layer_case, read(pytestconfig.getoption("--golden-dir"), "layers")
    layer = build_layer(case, expected).to(dtype)
    if case["training"] and case["neighbour"] is not None:
        seen = torch.tensor([OWN, NEIGHBOURS[case["neighbour"] - 1]])
        monkeypatch.setattr(WindowedAttention, "_offsets", lambda _: seen)
    sequence = fill(case["input"], case["input_shape"]).to(dtype).requires_grad_()
    num_global = case["num_global_tokens"]
    x = sequence[:, num_global:].unflatten(1, (case["height"], case["width"]))
    out, global_out = layer(x, sequence[:, :num_global])
    result = torch.cat([global_out, out.flatten(1, 2)], dim=1)
    assert_close(result, expected[f"{case['id']}.output"], dtype)

    if "gradients" in case:
        (result * fill(f"input:{case['id']}:cotangent", result.shape).to(dtype)).sum().backward()
        assert sequence.grad is not None
        gradients = {"input": sequence.grad, **reference_gradients(layer)}
        for name in case["gradients"]:
            assert_close(gradients[name], expected[f"{case['id']}.grad.{name}"], dtype)


def test_model(model_case: Case, dtype: torch.dtype, pytestconfig: pytest.Config) -> None:
    case, (_, expected) = model_case, read(pytestconfig.getoption("--golden-dir"), "models")
    model = model_from_reference(
        fill_state(case, expected), case["arch"], image_size=case["image_size"], **case["options"]
    )
    model = model.to(dtype).eval()
    images = fill(case["input"], case["input_shape"]).to(dtype)
    with torch.inference_mode():
        assert_close(model(images), expected[f"{case['id']}.logits"], dtype)
        maps = model.forward_intermediates(images, intermediates_only=True)
    for number, features in enumerate(maps, start=1):
        assert_close(features[:, :4], expected[f"{case['id']}.stage{number}"], dtype)
    assert sum(parameter.numel() for parameter in model.parameters()) == case["params"]
