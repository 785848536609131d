"""Losses of steps, left where they were computed: reading one waits for all that a GPU has yet to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from vision_longformer.training.learner import sum_of

READ_EVERY = 10  # steps on a GPU


class _Step(NamedTuple):
    number: int
    losses: Tensor  # the sum of the parts, then each of them
    images: list[int]


class StepLosses:
    """The losses of a run's last steps.

    Args:
        device: Where they are computed. On a CPU each is read at once.
        refuse: Raises what is to be raised about a loss that is no number; given the step, the loss and its images.

    Attributes:
        every: Steps that are read at once.
        latest: What was read last: the "loss", and where it has several parts, each as "loss_NAME".
    """

    def __init__(self, device: torch.device, refuse: Callable[[int, float, list[int]], NoReturn]) -> None:
        self.every = 1 if device.type == "cpu" else READ_EVERY
        self.latest: dict[str, float] = {}
        self._refuse = refuse
        self._waiting: list[_Step] = []
        self._names: Sequence[str] = ()

    def add(self, step: int, parts: Mapping[str, Tensor], images: list[int]) -> None:
        """Take in the losses of a step by name; read them if enough wait, or none was read so far."""
        self._names = list(parts)
        self._waiting.append(_Step(step, torch.stack([sum_of(parts), *parts.values()]), images))
        if len(self._waiting) >= self.every or not self.latest:
            self.read()

    def read(self) -> None:
        """Read what waits.

        Raises:
            Exception: What `refuse` raises of the first loss that is no number.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        rows = torch.stack([step.losses for step in waiting]).tolist()
        for step, (value, *_) in zip(waiting, rows, strict=True):
            if not math.isfinite(value):
                self._refuse(step.number, value, step.images)
        value, *parts = rows[-1]
        self.latest = {"loss": value}
        if len(parts) > 1:
            self.latest |= {f"loss_{name}": part for name, part in zip(self._names, parts, strict=True)}
