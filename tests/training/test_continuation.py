"""A run that was stopped, wherever it was, ends as one that was not: to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training.cases import asked_at, disturb, make_images, metrics, outcome, recipe, run
from vision_longformer.training import checkpoints
from vision_longformer.training.trainer import train

STEPS, STEPS_PER_EPOCH, EVALUATION_BATCHES = 12, 4, 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(recipe(), data, folder)
    return folder


@pytest.mark.slow
def test_stopping_after_every_step_and_in_every_batch_of_evaluation_changes_no_bit(
    data: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    # Every life asks once after a step, and once before a batch of evaluation, which begins anew in each life.
    steps = [1] * (STEPS_PER_EPOCH - 1)
    evaluation = list(range(1, EVALUATION_BATCHES + 1))
    epoch = [EVALUATION_BATCHES + 1, *steps, *evaluation]
    lives = [1, *steps, *evaluation, *epoch, *epoch]
    stopped_at = []
    for question in lives:
        disturb()
        events = run(recipe(), data, tmp_path, should_stop=asked_at(question))
        assert events[-1].kind == "stopped"
        stopped_at.append(events[-1].step)
    at_every_step = sorted([*range(1, STEPS + 1), *[4, 4, 8, 8, 12, 12]])
    assert stopped_at == at_every_step
    disturb()
    assert run(recipe(), data, tmp_path)[-1].kind == "finished"
    assert outcome(tmp_path) == outcome(uninterrupted)
    assert metrics(tmp_path) == metrics(uninterrupted)


def test_a_finished_run_that_is_run_again_trains_nothing(data: Path, uninterrupted: Path) -> None:
    before, lines = outcome(uninterrupted), (uninterrupted / "metrics.jsonl").read_text()
    events = run(recipe(), data, uninterrupted)
    assert [event.kind for event in events] == ["continued", "result", "finished"]
    assert outcome(uninterrupted) == before
    assert (uninterrupted / "metrics.jsonl").read_text() == lines


def test_a_step_beyond_the_run_is_refused(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    whole = checkpoints.read(uninterrupted / "last.safetensors")
    beyond = replace(whole, progress=replace(whole.progress, step=10**9))
    checkpoints.write(tmp_path / "last.safetensors", beyond)
    with pytest.raises(ValueError, match=r"is damaged: it is at step 1000000000 of a run of 12"):
        run(recipe(), data, tmp_path)


def test_metrics_have_every_step_and_every_evaluation_once(uninterrupted: Path) -> None:
    lines = metrics(uninterrupted)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
    assert [(line["epoch"], line["step"]) for line in lines if "val_loss" in line] == [(1, 4), (2, 8), (3, 12)]
    assert [line["images"] for line in lines if "loss" in line] == [6, 6, 6, 3] * 3


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_no_bit(workers: int, data: Path, tmp_path: Path, uninterrupted: Path) -> None:
    run(recipe(compute={"workers": workers}), data, tmp_path)
    assert outcome(tmp_path) == outcome(uninterrupted)


@pytest.mark.parametrize("kind", ["steps", "evaluation"])
def test_a_run_whose_process_vanishes_redoes_what_was_not_saved(
    kind: str, data: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    """Nothing is saved when a generator is closed; a line of metrics is cut in half, as by a crash."""
    events = train(recipe(), data=data, output=tmp_path)
    last = ("step", 7) if kind == "steps" else ("evaluated", 8)
    for event in events:
        if (event.kind, event.step) == last:
            events.close()  # type: ignore[attr-defined]
            break
    assert checkpoints.read(tmp_path / "last.safetensors").progress.step == 4
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "ep')
    disturb()
    run(recipe(), data, tmp_path)
    assert outcome(tmp_path) == outcome(uninterrupted)
    assert metrics(tmp_path) == metrics(uninterrupted)


OTHERS: dict[str, dict[str, dict[str, Any]]] = {
    "qhm, checkpoints by time": {
        "optimizer": {"name": "qhm", "nu": 0.7, "clip_norm": None},
        "logging": {"checkpoint_minutes": 1e-9},
    },
    "sgd without an average, in float16 with its scaler": {
        "optimizer": {"name": "sgd", "ema_decay": None},
        "compute": {"precision": "float16"},
    },
    "bfloat16, parts of a step, repeated images": {
        "compute": {"precision": "bfloat16", "accumulation": 2},
        "augmentation": {"repeats": 2},
    },
    "activations computed again": {"compute": {"gradient_checkpointing": True}},
    "timm's model, with batch norm": {
        "model": {"name": "resnet10t", "options": {"channels": [8, 8, 8, 8], "stem_width": 8}},
    },
}


@pytest.mark.parametrize("groups", OTHERS.values(), ids=OTHERS)
def test_every_way_to_train_continues_exactly(groups: dict[str, dict[str, Any]], data: Path, tmp_path: Path) -> None:
    config = recipe(**{**groups, "schedule": {"epochs": 1, "warmup_epochs": 0.5, "random_shift": True}})
    run(config, data, tmp_path / "at once")
    lives = 0
    while lives < 3 and run(config, data, tmp_path / "in parts", should_stop=asked_at(3))[-1].kind == "stopped":
        lives += 1
        disturb()
    assert lives > 1  # after a step, while evaluating, while reporting
    run(config, data, tmp_path / "in parts")
    assert outcome(tmp_path / "in parts") == outcome(tmp_path / "at once")
    assert metrics(tmp_path / "in parts") == metrics(tmp_path / "at once")


# And the first step whose loss is another, None if none is. AdamW's first update does not depend on the length of the
# gradient but for rounding, which some processors show.
CHANGES: list[tuple[dict[str, Any], int | tuple[int, int] | None]] = [
    ({"seed": 1}, 1),
    ({"augmentation": {"mixup": 0.0}}, 1),
    ({"augmentation": {"erasing": 0.0}}, 1),
    ({"model": {"drop_path_rate": 0.0}}, 1),
    ({"model": {"drop_rate": 0.0}}, 1),
    ({"schedule": {"random_shift": False}}, 1),
    ({"schedule": {"random_shift_share": 0.5}}, 7),
    ({"optimizer": {"clip_norm": None}}, (2, 3)),
    ({"optimizer": {"layer_decay": 1.0}}, 2),
    ({"compute": {"gradient_checkpointing": True}}, None),
    ({"logging": {"every_steps": 3}}, None),
]


@pytest.mark.parametrize(("groups", "first"), CHANGES, ids=[str(groups) for groups, _ in CHANGES])
def test_every_random_stream_reaches_the_loss_of_the_recipe_that_is_tested_here(
    groups: dict[str, Any], first: int | tuple[int, int] | None, data: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    expected = {line["step"]: line["loss"] for line in metrics(uninterrupted) if "loss" in line}
    firsts = first if isinstance(first, tuple) else (first,)
    other = []
    for event in train(recipe(**groups), data=data, output=tmp_path):
        if event.kind == "step" and event.values["loss"] != expected[event.step]:
            other.append(event.step)
        if event.step == (firsts[-1] or 4):
            break
    assert (other[0] if other else None) in firsts


def test_settings_of_torch_are_put_back(data: Path, tmp_path: Path) -> None:
    for event in train(recipe(compute={"threads": 2}), data=data, output=tmp_path):
        if event.kind == "step":
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.get_num_threads() == 2
            break
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1
