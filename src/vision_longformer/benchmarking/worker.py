"""Time and memory of one model at one size, measured in a process of its own.

Run as `python -m vision_longformer.benchmarking.worker`. A `Task` comes in as JSON on stdin. Lines of JSON go out on
stdout: `{"loaded": bytes}` with the resident size of the process once the model is loaded and warm; then
`{"measured": {...}}`, a `Measurement`, or `{"refused": sentence}` if the model does not take images of this size.

Memory is read from Linux's /proc; elsewhere it is None.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import ModelConfig
from vision_longformer.utils.system_memory import peak_memory, reset_peak, resident_memory

WARM_UP_SIDE = 64  # pixels: enough to load every kernel, and hardly any memory
TIMED_SECONDS = 60.0  # after which no further pass is begun


@dataclass(frozen=True)
class Task:
    """What to measure: inference on one random float32 image.

    Attributes:
        config: Of the model, whose weights are random.
        size: (height, width) of the image in pixels.
        repeats: Timed passes, fewer if they take longer than `TIMED_SECONDS` together.
        threads: Of PyTorch; None leaves its default.
    """

    config: ModelConfig
    size: tuple[int, int]
    repeats: int = 5
    threads: int | None = None

    def to_json(self) -> str:
        """Return what `from_json` reads."""
        return json.dumps({**dataclasses.asdict(self), "config": self.config.to_dict()})

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Read what `to_json` returned."""
        fields = json.loads(text)
        return cls(**{**fields, "config": ModelConfig.from_dict(fields["config"]), "size": tuple(fields["size"])})


@dataclass(frozen=True)
class Measurement:
    """What was measured.

    Attributes:
        seconds: Of each timed pass.
        attention_seconds: Of the attention proper of all layers, in the same passes: the time in each block's
            attention without that in its linear layers and convolutions.
        peak_memory: Bytes of peak resident memory of a pass above that of the loaded, warmed-up model with its image;
            None where it cannot be measured.
        threads: That PyTorch computed with.
    """

    seconds: list[float]
    attention_seconds: list[float]
    peak_memory: int | None
    threads: int


def measure(task: Task, *, on_loaded: Callable[[int | None], None] = lambda _: None) -> Measurement:
    """Measure in this process, whose peak memory is reset. Run it in a fresh one: allocators keep what was freed.

    Args:
        task: What to measure.
        on_loaded: Called with the resident size in bytes, if known, before the first pass at the full size.

    Raises:
        ValueError: The model refuses the size.
    """
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    model = VisionLongformer(task.config).eval()
    clock = AttentionClock(model)
    seconds, attention = [], []
    with torch.inference_mode():
        model(torch.randn(1, task.config.in_chans, WARM_UP_SIDE, WARM_UP_SIDE))
        images = torch.randn(1, task.config.in_chans, *task.size)
        reset_peak()
        loaded = resident_memory()
        on_loaded(loaded)
        spent = _timed(model, images)  # the first pass: its memory counts, its time only if it leaves none for others
        peak = peak_memory()
        if spent > TIMED_SECONDS or task.repeats < 1:
            seconds, attention = [spent], [clock.read()]
        total = 0.0
        while len(seconds) < task.repeats and total < TIMED_SECONDS and spent <= TIMED_SECONDS:
            clock.reset()
            seconds.append(_timed(model, images))
            attention.append(clock.read())
            total += seconds[-1]
    above = None if peak is None or loaded is None else max(0, peak - loaded)
    return Measurement(seconds, attention, above, torch.get_num_threads())


def _timed(model: nn.Module, images: Tensor) -> float:
    start = time.perf_counter()
    model(images)
    return time.perf_counter() - start


class AttentionClock:
    """Adds up the time that a model's layers spend in attention proper.

    Args:
        model: Each of its blocks gets hooks around its attention and the linear layers and convolutions in it.
    """

    def __init__(self, model: VisionLongformer) -> None:
        self._seconds = 0.0
        self._started: dict[nn.Module, float] = {}
        for stage in model.stages:
            for block in stage.blocks:  # type: ignore[union-attr]
                self._watch(block.attn, sign=1)
                for module in block.attn.modules():
                    if isinstance(module, nn.Linear | nn.Conv2d):
                        self._watch(module, sign=-1)

    def _watch(self, module: nn.Module, *, sign: int) -> None:
        def start(*_: Any) -> None:
            self._started[module] = time.perf_counter()

        def stop(*_: Any) -> None:
            self._seconds += sign * (time.perf_counter() - self._started[module])

        module.register_forward_pre_hook(start)
        module.register_forward_hook(stop)

    def reset(self) -> None:
        """Start from zero."""
        self._seconds = 0.0

    def read(self) -> float:
        """Return the seconds since `reset`."""
        return self._seconds


def main() -> None:
    """Serve one task."""

    def say(**fact: Any) -> None:
        print(json.dumps(fact), flush=True)

    try:
        measured = measure(Task.from_json(sys.stdin.read()), on_loaded=lambda size: say(loaded=size))
    except ValueError as error:
        say(refused=str(error))
    else:
        say(measured=dataclasses.asdict(measured))


if __name__ == "__main__":
    main()
