from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim import AdamW

from vision_longformer.training import checkpoints
from vision_longformer.training.checkpoints import Checkpoint, Progress
from vision_longformer.utils.tensor_files import write_tensors

pytestmark = pytest.mark.process

HERE = Path(__file__).parent


def a_checkpoint() -> Checkpoint:
    tensors = {
        "model.a": torch.arange(6.0).view(2, 3).t(),
        "model.b.c": torch.tensor(3),
        "ema.a": torch.ones(2, dtype=torch.bfloat16),
    }
    return Checkpoint(tensors, Progress(step=7, evaluated_epochs=2, best=41.5, best_epoch=1, seconds=9.25), {"x": [1]})


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written = a_checkpoint()
    checkpoints.write(tmp_path / "last.safetensors", written)
    found = checkpoints.read(tmp_path / "last.safetensors")
    assert found.progress == written.progress
    assert found.about == written.about
    assert found.tensors.keys() == written.tensors.keys()
    for name, tensor in written.tensors.items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype
    assert found.part("model").keys() == {"a", "b.c"}
    assert found.part("mod") == {}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.safetensors"]


def test_an_optimisers_state_goes_back_to_its_parameters() -> None:
    def trained(steps: int) -> tuple[nn.Module, AdamW]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        optimizer = AdamW([{"params": model[1].parameters()}, {"params": model[0].parameters()}], lr=0.1)
        for step in range(steps):
            optimizer.zero_grad()
            model(torch.arange(3.0) + step).sum().backward()
            optimizer.step()
        return model, optimizer

    model, optimizer = trained(3)
    tensors = checkpoints.optimizer_tensors(optimizer, model)
    assert "0.weight.exp_avg" in tensors
    assert float(tensors["1.bias.step"]) == 3
    other, empty = trained(0)
    checkpoints.restore_optimizer(empty, other, tensors)
    assert checkpoints.optimizer_tensors(empty, other).keys() == tensors.keys()
    for (name, own), (_, restored) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        for entry in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(optimizer.state[own][entry], empty.state[restored][entry]), name


def test_what_is_no_checkpoint_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"last.safetensors: cannot be read as a checkpoint"):
        checkpoints.read(path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"last.safetensors: is not the checkpoint of a training run"):
        checkpoints.read(path)
    checkpoints.write(path, a_checkpoint())
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"last.safetensors: cannot be read as a checkpoint"):
        checkpoints.read(path)
    path.write_bytes(whole.replace(b'\\"format_version\\": 1', b'\\"format_version\\": 8'))
    with pytest.raises(ValueError, match=r"last.safetensors: is damaged: what it says of itself"):
        checkpoints.read(path)
    with pytest.raises(ValueError, match=r"format_version is 8, this version of the library reads 1"):
        checkpoints.read(path, verify=False)


@pytest.mark.parametrize(
    ("progress", "message"),
    [
        ({"eValuated_epochs": 2}, "its progress is "),
        ({"step": "x"}, "its progress says step='x'"),
        ({"step": -5}, "its progress says step=-5"),
        ({"step": 2.5}, "its progress says step=2.5"),
        ({"seconds": float("nan")}, "its progress says seconds=nan"),
        (None, "its progress is None"),
    ],
)
def test_progress_that_cannot_be_is_refused(tmp_path: Path, progress: dict[str, Any] | None, message: str) -> None:
    path, whole = tmp_path / "last.safetensors", a_checkpoint()
    state = None if progress is None else vars(whole.progress) | progress
    about = {"format_version": 1, "content": "training", "progress": state}
    write_tensors(path, whole.tensors, {"vision_longformer": json.dumps(about)})
    with pytest.raises(ValueError, match=f"last.safetensors: is damaged: {message}"):
        checkpoints.read(path)


def test_a_part_that_no_run_has_is_refused(tmp_path: Path) -> None:
    whole = a_checkpoint()
    checkpoints.write(tmp_path / "x", Checkpoint(whole.tensors | {"optimizes.a.step": torch.ones(1)}, whole.progress))
    with pytest.raises(ValueError, match=r"'optimizes\.a\.step' belongs to no part of it; these are model, ema, optim"):
        checkpoints.read(tmp_path / "x")


def test_an_entry_of_no_parameter_is_refused() -> None:
    model = nn.Linear(3, 2)
    for name, tensor in (("wEight.exp_avg", torch.zeros(2, 3)), ("weight.exp_avg", torch.zeros(3, 2))):
        with pytest.raises(ValueError, match=r"is of no parameter of the model|the parameter \(2, 3\)"):
            checkpoints.restore_optimizer(AdamW(model.parameters()), model, {name: tensor})


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.long)])
def test_rot_of_a_checkpoint_is_noticed_or_changes_nothing(count: int, tmp_path: Path) -> None:
    path, written = tmp_path / "last.safetensors", a_checkpoint()
    checkpoints.write(path, written)
    whole, silent = path.read_bytes(), 0
    random.seed(4)
    for _ in range(count):
        data = bytearray(whole)
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        path.write_bytes(bytes(data))
        with contextlib.suppress(ValueError):
            found = checkpoints.read(path)
            silent += 1
            assert (found.progress, found.about) == (written.progress, written.about)
            assert all(torch.equal(found.tensors[name], tensor) for name, tensor in written.tensors.items())
    assert silent < count // 5  # in a file this small the name of the digests, and spaces, are a part of some size


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler on Linux")
    folder = tmp_path_factory.mktemp("faults")
    library = folder / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "faults.c", "-ldl"], check=True)
    (folder / "run").mkdir()
    result = subprocess.run(
        [sys.executable, HERE / "faults.py", library, folder / "run"],
        env={**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_save_makes_several_calls_that_can_fail(faults: list[dict[str, Any]]) -> None:
    whole = faults[0]
    assert (whole["step"], whole["message"], whole["left"]) == (2, "", [])
    assert re.fullmatch("w+srs", whole["order"])  # writing, syncing the file, renaming it, syncing the folder
    assert len(faults) == 1 + 2 * whole["calls"]


def test_a_process_that_dies_at_any_call_of_a_save_leaves_the_old_checkpoint_or_the_new_one(
    faults: list[dict[str, Any]],
) -> None:
    killed = [fault for fault in faults if fault["kill"]]
    assert {fault["exit"] for fault in killed} == {77}
    steps = [fault["step"] for fault in killed]
    assert steps == sorted(steps)  # the old one up to the renaming, the new one after it
    assert set(steps) == {1, 2}


def test_a_full_disk_at_any_call_of_a_save_leaves_a_whole_checkpoint_and_says_so(faults: list[dict[str, Any]]) -> None:
    failed = [fault for fault in faults if fault["at"] and not fault["kill"]]
    assert {fault["exit"] for fault in failed} == {0}
    for fault in failed:
        assert fault["step"] in {1, 2}
        assert fault["left"] == []
        assert "last.safetensors: cannot be written (" in fault["message"]
        assert "No space left on device" in fault["message"]
        assert fault["message"].endswith("the previous checkpoint is intact") == (fault["step"] == 1)
