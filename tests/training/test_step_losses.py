"""Losses that are read when it costs nothing, or now and then."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
import torch

from vision_longformer.training.step_losses import READ_EVERY, StepLosses


class RefusedError(Exception):
    pass


def refuse(step: int, value: float, images: list[int]) -> NoReturn:
    raise RefusedError(step, value, images)


def losses(device: str, monkeypatch: pytest.MonkeyPatch) -> tuple[StepLosses, list[int]]:
    """Return those of a device, and a list that grows whenever a tensor of it is waited for."""
    waits: list[int] = []
    to_list = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: (waits.append(1), to_list(tensor))[1])  # type: ignore[func-returns-value]
    return StepLosses(torch.device(device), refuse), waits


def parts(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_on_a_cpu_each_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found, waits = losses("cpu", monkeypatch)
    for step in range(3):
        found.add(step, parts(boxes=step + 0.5, classes=0.25), [step])
        assert found.latest == {"loss": step + 0.75, "loss_boxes": step + 0.5, "loss_classes": 0.25}
    assert len(waits) == 3


def test_on_a_gpu_the_first_is_read_and_then_many_together(monkeypatch: pytest.MonkeyPatch) -> None:
    found, waits = losses("cuda", monkeypatch)
    for step in range(READ_EVERY):
        found.add(step, parts(cross_entropy=float(step)), [step])
        assert found.latest == {"loss": 0.0}
    found.add(READ_EVERY, parts(cross_entropy=float(READ_EVERY)), [1])
    assert found.latest == {"loss": float(READ_EVERY)}
    assert len(waits) == 2
    found.add(READ_EVERY + 1, parts(cross_entropy=7.0), [2])
    found.read()
    assert found.latest == {"loss": 7.0}
    found.read()
    assert len(waits) == 3


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused_with_its_own_step_and_images(
    device: str, wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = losses(device, monkeypatch)
    found.add(0, parts(cross_entropy=1.0), [4])

    def go_on() -> Any:
        found.add(1, parts(cross_entropy=wrong), [5, 6])
        found.add(2, parts(cross_entropy=float("nan")), [7])
        found.read()

    with pytest.raises(RefusedError) as error:
        go_on()
    step, value, images = error.value.args
    assert (step, images) == (1, [5, 6])
    assert str(value) == str(wrong)
