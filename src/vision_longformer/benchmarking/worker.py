"""Peak memory of one model at one size, in a process of its own: `python -m vision_longformer.benchmarking.worker`.

A `Task` comes in as JSON on stdin. Lines of JSON go out on stdout: `{"loaded": bytes}` with the resident size of the
process once the model is loaded, then `{"peak_memory": bytes}`, or `{"refused": sentence}` if the model does not take
images of this size. Memory is read from Linux's /proc; elsewhere it is null.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vision_longformer.attention.backend import AttentionBackend, set_attention_backend
from vision_longformer.benchmarking.models import Step, build_model
from vision_longformer.benchmarking.runtimes import Runtime, open_session
from vision_longformer.utils.errors import reason
from vision_longformer.utils.system_memory import peak_memory, reset_peak, resident_memory

WARM_UP_SIDE = 64  # pixels: enough to load every kernel, and hardly any memory


@dataclass(frozen=True)
class Task:
    """What to measure.

    Attributes:
        model: Name of the model.
        attention: Mechanism that it has in place of its own; None for its own.
        size: (height, width) of the images in pixels.
        batch: Images of a pass.
        threads: Of PyTorch or of the runtime.
        training: Whether to take training steps, two of them, so that gradients and what the optimizer keeps count.
        runtime: What runs it.
        exported: The model as ONNX for runtimes other than "eager".
        backend: Of windowed attention.
    """

    model: str
    size: tuple[int, int]
    batch: int
    threads: int
    attention: str | None = None
    training: bool = False
    runtime: Runtime = "eager"
    exported: str | None = None
    backend: AttentionBackend = "auto"

    def to_json(self) -> str:
        """Return what `from_json` reads."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Read what `to_json` returned."""
        fields = json.loads(text)
        return cls(**{**fields, "size": tuple(fields["size"])})


def measure(task: Task, *, on_loaded: Callable[[int | None], None] = lambda _: None) -> int | None:
    """Measure in this process. Run it in a fresh one: allocators keep what was freed.

    Models that take small images are warm, those that run at one size alone are not: the code that their first pass
    loads then counts as theirs.

    Args:
        task: What to measure.
        on_loaded: Called with the resident size in bytes, if known, before the first pass at the full size.

    Returns:
        Bytes of peak resident memory above that of the loaded model with its images; None where the system does
        not tell.

    Raises:
        Exception: Of any kind; the model does not take images of this size.
    """
    torch.set_num_threads(task.threads)
    set_attention_backend(task.backend)
    images = torch.randn(task.batch, 3, *task.size)
    step = _exported_step(task, images) if task.exported else _eager_step(task, images)
    reset_peak()
    loaded = resident_memory()
    on_loaded(loaded)
    for _ in range(2 if task.training else 1):
        step()
    peak = peak_memory()
    return None if peak is None or loaded is None else max(0, peak - loaded)


def _exported_step(task: Task, images: torch.Tensor) -> Callable[[], Any]:
    session = open_session(task.runtime, Path(task.exported or ""), threads=task.threads)
    return lambda: session(images.numpy())


def _eager_step(task: Task, images: torch.Tensor) -> Callable[[], Any]:
    model = build_model(task.model, task.size, task.attention)
    with contextlib.suppress(Exception):  # it may take its own size alone
        Step(model, torch.randn(1, 3, WARM_UP_SIDE, WARM_UP_SIDE), training=False)()
    return Step(model, images, training=task.training)


def main() -> None:
    """Serve one task."""

    def say(**fact: Any) -> None:
        print(json.dumps(fact), flush=True)

    try:
        peak = measure(Task.from_json(sys.stdin.read()), on_loaded=lambda size: say(loaded=size))
    except Exception as error:  # code of other libraries, which refuses as it likes
        say(refused=reason(error))
    else:
        say(peak_memory=peak)


if __name__ == "__main__":
    main()
