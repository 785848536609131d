from __future__ import annotations

import math
from typing import Any, cast

import pytest
import timm
import torch
from torch import nn
from torch.optim import SGD

from vision_longformer import create_model
from vision_longformer.training.config import OptimizerOptions, ScheduleOptions
from vision_longformer.training.optimizers import QHM, build_optimizer, build_schedule, undecayed

NORMS = [
    f"{place}.{entry}"
    for place in (
        *(f"stages.{stage}.patch_embed.norm" for stage in range(4)),
        *(
            f"stages.{stage}.blocks.{block}.norm{number}"
            for stage, depth in enumerate((1, 1, 4, 1))
            for block in range(depth)
            for number in (1, 2)
        ),
        "norm",
    )
    for entry in ("weight", "bias")
]
BLOCKS = [f"stages.{stage}.blocks.{block}" for stage, depth in enumerate((1, 1, 4, 1)) for block in range(depth)]
NAMED = {
    "vision_longformer_nano": [
        *(f"{block}.attn.position.table" for block in BLOCKS),
        *(  # the last stage has no global token
            f"{block}.attn.position.{entry}"
            for block in BLOCKS[:-1]
            for entry in ("to_global", "global_queries.to_global", "global_queries.to_map")
        ),
    ],
    "vision_longformer_nano_ape": [
        *(f"stages.{stage}.patch_embed.position.{entry}" for stage in range(4) for entry in ("rows", "columns")),
        *(f"stages.{stage}.patch_embed.position.global_tokens" for stage in range(3)),
    ],
}


@pytest.mark.parametrize("name", NAMED)
def test_weight_decay_is_of_all_but_norms_position_tables_global_tokens_and_the_heads_bias(name: str) -> None:
    model = create_model(name, num_classes=3)
    expected = [*NORMS, *NAMED[name], *(f"stages.{stage}.patch_embed.global_tokens" for stage in range(3)), "head.bias"]
    assert undecayed(model) == sorted(expected)
    optimizer = build_optimizer(model, OptimizerOptions(weight_decay=0.03))
    names = {parameter: name for name, parameter in model.named_parameters()}
    without = [names[p] for group in optimizer.param_groups if group["weight_decay"] == 0 for p in group["params"]]
    decays = {group["weight_decay"] for group in optimizer.param_groups}
    assert sorted(without) == sorted(expected)
    assert decays == {0, 0.03}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)


def test_norms_and_bias_of_timms_models_have_no_weight_decay() -> None:
    model = timm.create_model("resnet10t", num_classes=3)
    names = undecayed(model)
    assert {"bn1.weight", "layer4.0.bn2.bias", "fc.bias"} <= set(names)
    assert not {"fc.weight", "conv1.0.weight"} & set(names)


def test_each_block_learns_by_a_factor_slower_than_the_one_above_it() -> None:
    model = create_model("vision_longformer_nano", num_classes=3)
    optimizer = build_optimizer(model, OptimizerOptions(layer_decay=0.5, learning_rate=0.1))
    build_schedule(optimizer, ScheduleOptions(), learning_rate=0.1, steps_per_epoch=10).step_update(50)
    rates = {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    top = rates[cast(nn.Linear, model.head).weight]
    depths = {
        "stages.3.blocks.0": 1,
        "stages.3.patch_embed": 1,
        "stages.2.blocks.3": 2,
        "stages.2.blocks.0": 5,
        "stages.2.patch_embed": 5,
        "stages.1": 6,
        "stages.0.blocks.0": 7,
        "stages.0.patch_embed": 8,
        "head": 0,
    }
    for prefix, depth in depths.items():
        of_these = {rates[p] for name, p in model.named_parameters() if name.startswith(f"{prefix}.")}
        assert [rate / top for rate in of_these] == pytest.approx([0.5**depth]), prefix


# --- QHM --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nu", "decay"), [(1.0, 0.0), (0.7, 0.0), (0.7, 0.1)])
def test_qhm_follows_its_formula(nu: float, decay: float) -> None:
    rate, beta = 0.3, 0.8
    x, momentum = [2.0, -1.0], [0.0, 0.0]
    parameter = nn.Parameter(torch.tensor(x, dtype=torch.float64))
    optimizer = QHM([parameter], rate, beta=beta, nu=nu, weight_decay=decay)
    for gradient in ([1.0, 0.5], [-2.0, 3.0], [0.25, 0.0]):
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        for i in range(2):
            g = gradient[i] + decay * x[i]
            momentum[i] = beta * momentum[i] + (1 - beta) * g
            x[i] -= rate * ((1 - nu) * g + nu * momentum[i])
        assert parameter.tolist() == pytest.approx(x, rel=1e-12)


def test_the_first_step_of_qhm_is_damped_and_that_of_torchs_momentum_is_not() -> None:
    first = {}
    for name, optimizer in (("qhm", QHM), ("sgd", SGD)):
        parameter = nn.Parameter(torch.zeros(1))
        options: dict[str, Any] = {"beta": 0.9} if name == "qhm" else {"momentum": 0.9, "dampening": 0.9}
        parameter.grad = torch.ones(1)
        optimizer([parameter], lr=1.0, **options).step()
        first[name] = -parameter.item()
    assert first == pytest.approx({"qhm": 0.1, "sgd": 1.0})


def test_a_recipes_numbers_reach_the_optimiser() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    qhm = build_optimizer(model, OptimizerOptions(name="qhm", momentum=0.7, nu=0.6, learning_rate=0.2))
    assert {(g["beta"], g["nu"], g["lr"]) for g in qhm.param_groups} == {(0.7, 0.6, 0.2)}
    sgd = build_optimizer(model, OptimizerOptions(name="sgd", momentum=0.7))
    assert {(g["momentum"], g["nesterov"]) for g in sgd.param_groups} == {(0.7, True)}
    adamw = build_optimizer(model, OptimizerOptions(betas=(0.5, 0.6)))
    assert {g["betas"] for g in adamw.param_groups} == {(0.5, 0.6)}


# --- the schedule -----------------------------------------------------------------------------------------------


def by_hand(step: int, *, rate: float, last: float, warmup: int, total: int) -> float:
    if step < warmup:
        return rate * (0.002 + (1 - 0.002) * step / warmup)
    return last + (rate - last) * (1 + math.cos(math.pi * step / total)) / 2


@pytest.mark.parametrize("step", [0, 1, 7, 19, 20, 21, 50, 99, 60, 3])
def test_the_learning_rate_warms_up_and_follows_a_cosine_by_the_number_of_the_step_alone(step: int) -> None:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    options = ScheduleOptions(epochs=10, warmup_epochs=2, final_learning_rate=0.01)
    schedule = build_schedule(optimizer, options, learning_rate=0.5, steps_per_epoch=10)
    for before in (88, 5, step):
        schedule.step_update(before)
    expected = by_hand(step, rate=0.5, last=0.01, warmup=20, total=100)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-9)


def test_short_runs_warm_up_too() -> None:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = build_schedule(optimizer, ScheduleOptions(epochs=1), learning_rate=0.5, steps_per_epoch=1)
    schedule.step_update(0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)
