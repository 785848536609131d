"""What training does on a GPU only, on tensors that are nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from training.cases import make_images, plain, run
from vision_longformer.datasets.loaders import Batch
from vision_longformer.datasets.options import AugmentationOptions
from vision_longformer.training import checkpoints
from vision_longformer.training.classification_loss import Objective
from vision_longformer.training.classifiers import build_model
from vision_longformer.training.config import OptimizerOptions
from vision_longformer.training.learner import Learner
from vision_longformer.training.optimizers import build_optimizer
from vision_longformer.utils.devices import images_on
from vision_longformer.utils.distributed import Processes

GPU = torch.device("cuda", 0)


@pytest.fixture
def _nowhere() -> Iterator[None]:
    with FakeTensorMode():
        yield


@pytest.mark.usefixtures("_nowhere")
def test_images_come_channels_last() -> None:
    images = images_on(GPU, torch.zeros(2, 3, 8, 6))
    assert images.device == GPU
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_on_a_cpu_images_stay_as_they_are() -> None:
    images = torch.zeros(2, 3, 8, 6)
    assert images_on(torch.device("cpu"), images) is images


@pytest.mark.usefixtures("_nowhere")
def test_mixup_goes_on_where_the_model_is() -> None:
    objective = Objective(AugmentationOptions(), OptimizerOptions(), num_classes=4)
    seen = []

    class Pool(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images.device)
            return torch.zeros(len(images), 4, device=images.device)

    batch = Batch(torch.zeros(3, 3, 8, 6), torch.zeros(3, dtype=torch.int64), [0, 1, 2])
    assert objective(Pool(), batch, device=GPU).device == GPU
    assert seen == [GPU]


@pytest.mark.usefixtures("_nowhere")
@pytest.mark.parametrize(("device", "is_fused"), [("cuda", True), ("cpu", False)])
def test_adamw_is_one_kernel_on_a_gpu_alone(device: str, is_fused: bool) -> None:
    optimizer = build_optimizer(nn.Linear(3, 2, device=device), OptimizerOptions())
    assert bool(optimizer.defaults["fused"]) == is_fused


@pytest.mark.usefixtures("_nowhere")
def test_the_steps_of_a_fused_adamw_are_restored_to_the_gpu() -> None:
    model = nn.Linear(3, 2, bias=False, device=GPU)
    optimizer = build_optimizer(model, OptimizerOptions())
    saved = {"weight.step": torch.zeros(()), "weight.exp_avg": torch.zeros(2, 3)}
    checkpoints.restore_optimizer(optimizer, model, saved)
    assert {entry.device for entry in optimizer.state[model.weight].values()} == {GPU}


@pytest.mark.usefixtures("_nowhere")
def test_one_process_is_asked_without_a_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "tensor", lambda *_, **__: pytest.fail("waits for the GPU"))
    assert Processes().any(True, device=GPU)
    assert not Processes().any(False, device=GPU)


# --- options that are for GPUs above all, where anybody can try them -----------------------------------------------


def test_some_stages_are_checkpointed() -> None:
    found = learner(gradient_checkpointing=True, checkpointed_stages=(1, 3))
    assert [stage.grad_checkpointing for stage in found.model.stages] == [True, False, True]


def test_a_stage_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"compute.checkpointed_stages=\[1, 4\]: the model has stages 1 to 3"):
        learner(gradient_checkpointing=True, checkpointed_stages=(1, 4))


def test_a_run_compiles_its_model_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    data = make_images(tmp_path / "data", train=2, val=1)
    for compile_it, expected in ((False, []), (True, ["VisionLongformer"])):
        config = plain(schedule={"epochs": 1}, compute={"compile": compile_it})
        assert run(config, data, tmp_path / str(compile_it))[-1].kind == "finished"
        assert compiled == expected


def learner(**compute: Any) -> Any:
    config = plain(compute=compute)
    model = build_model(config.model, num_classes=3, size=24)
    return Learner(model, config, steps_per_epoch=2)
