"""Models side by side: time, memory and what they make of the machine, at several sizes; or one of our models with
each attention mechanism (see `comparison`).

At each size every model first runs in a process of its own, which measures its peak memory and finds out whether it
takes images of this size. Those that do are then timed in this process, in turns, together with a large matrix product.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch

from vision_longformer.attention.backend import attention_backend
from vision_longformer.benchmarking.children import ChildEndedError, Status, run_child
from vision_longformer.benchmarking.models import (
    Step,
    build_model,
    comparison_config,
    count_multiply_adds,
    count_parameters,
    forecast_pass,
    require_model,
)
from vision_longformer.benchmarking.runtimes import Runtime, check_output, export, open_session, require_runtime
from vision_longformer.benchmarking.timing import AttentionClock, MatrixProduct, interleaved
from vision_longformer.benchmarking.worker import Task
from vision_longformer.export.onnx import ExportError
from vision_longformer.images import MAX_SIDE
from vision_longformer.utils.errors import reason
from vision_longformer.utils.system_memory import gigabytes

Mode = Literal["inference", "training"]
Size = tuple[int, int]
PRODUCT = "matrix product"
MOST_SECONDS = 60.0  # after which a model takes no further turn
FORWARD_AND_BACKWARD = 3  # times the multiply-adds of a pass forward: backward computes two products for each


@dataclass(frozen=True)
class Plan:
    """What to measure, and how.

    Attributes:
        models: Names, ours or timm's; with mechanisms, as `comparison_config` takes them.
        sizes: (height, width) of images in pixels.
        runtimes: What runs the models in inference.
        training: Whether to measure training steps too, in eager PyTorch.
        batch: Images of a pass or step.
        attentions: Mechanisms that models have in place of their own, one after the other; none leaves them theirs.
        repeats: Timed turns; fewer of what took `MOST_SECONDS`.
        threads: That all compute with; None leaves PyTorch's default.
        memory: Bytes that a pass may take beside the loaded model; None sets no bound.
        time_limit: Seconds for one process that measures memory.
        product_side: Rows and columns of the matrices whose product is the peak.

    Raises:
        ValueError: On construction, if a field has an impossible value, there is no such model, or a runtime is not
            installed.
    """

    models: tuple[str, ...]
    sizes: tuple[Size, ...]
    runtimes: tuple[Runtime, ...] = ("eager",)
    training: bool = False
    batch: int = 1
    attentions: tuple[str, ...] = ()
    repeats: int = 7
    threads: int | None = None
    memory: int | None = None
    time_limit: float = 600.0
    product_side: int = 2048

    def __post_init__(self) -> None:
        for name in ("models", "sizes", "runtimes", "attentions"):
            values = getattr(self, name)
            if not values and name != "attentions":
                raise ValueError(f"{name}: name at least one")
            object.__setattr__(self, name, tuple(dict.fromkeys(values)))
        numbers = {"batch": self.batch, "repeats": self.repeats, "threads": self.threads}
        for name, value in numbers.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} {value}: must be at least 1")
        for size in self.sizes:
            if min(size) < 1:
                raise ValueError(f"size {size_name(size)}: height and width must be at least 1 pixel")
            if max(size) > MAX_SIDE:
                raise ValueError(f"size {size_name(size)}: height and width must be at most {MAX_SIDE:,} pixels")
        if not self.time_limit > 0:
            raise ValueError(f"time limit {self.time_limit:g}: must be more than 0 seconds")
        for model, attention in self.subjects:
            require_model(model) if attention is None else comparison_config(model, attention)
        if self.attentions and self.runtimes != ("eager",):
            raise ValueError("attention mechanisms are compared in eager PyTorch, without other runtimes")
        for runtime in self.runtimes:
            require_runtime(runtime)

    @property
    def subjects(self) -> list[tuple[str, str | None]]:
        """What is measured: models, each with its mechanism."""
        return [(model, attention) for model in self.models for attention in self.attentions or (None,)]

    @property
    def groups(self) -> list[tuple[Mode, Size]]:
        """What is timed together, in order: modes at sizes, the smallest first."""
        modes: list[Mode] = ["inference", "training"] if self.training else ["inference"]
        return [(mode, size) for mode in modes for size in sorted(self.sizes, key=lambda size: size[0] * size[1])]

    @property
    def steps(self) -> int:
        """How often `on_step` of `benchmark` is called."""
        inference = len(self.sizes) * (len(self.subjects) * len(self.runtimes) + self.repeats + 1)
        training = len(self.sizes) * (len(self.subjects) + self.repeats + 1) if self.training else 0
        return inference + training


@dataclass(frozen=True)
class Row:
    """One model in one runtime at one size.

    Attributes:
        model: Its name.
        runtime: What ran it.
        mode: A pass, or a training step.
        size: (height, width) of the images in pixels.
        batch: Images of a pass.
        parameters: Of the model built for this size; None if it cannot be, or would not fit.
        multiply_adds: That a pass needs for one image, or a step, three times as many; None if unknown.
        status: Whether it was measured, or why not.
        note: A sentence on why not.
        attention: Mechanism that it has in place of its own; None for its own.
        forecast_memory: Bytes that a pass was forecast to take at least; None if it is refused.
        seconds: Of each turn.
        attention_seconds: Of these, those in attention proper, where a mechanism was asked for: without the linear
            layers and convolutions in it.
        product_seconds: Of the matrix product in the same turns.
        product_multiply_adds: Of that product.
        peak_memory: Bytes of a pass above the loaded model; None if not measured.
    """

    model: str
    runtime: Runtime
    mode: Mode
    size: Size
    batch: int
    parameters: int | None = None
    multiply_adds: int | None = None
    status: Status = "measured"
    note: str = ""
    attention: str | None = None
    forecast_memory: int | None = None
    seconds: tuple[float, ...] = ()
    attention_seconds: tuple[float, ...] = ()
    product_seconds: tuple[float, ...] = ()
    product_multiply_adds: int = 0
    peak_memory: int | None = None

    @property
    def shares_of_peak(self) -> list[float]:
        """What it needs to compute, for each second, over what the matrix product of the same turn computed."""
        if self.multiply_adds is None:
            return []
        own, product = self.batch * self.multiply_adds, self.product_multiply_adds
        return [
            (own / seconds) / (product / peak) for seconds, peak in zip(self.seconds, self.product_seconds, strict=True)
        ]


def size_name(size: Size) -> str:
    """Return "448" for a square, else "896×1344", height first."""
    height, width = size
    return str(height) if height == width else f"{height}×{width}"


def parse_size(text: str) -> Size:
    """Return (height, width) of "448", or of "896x1344", height first.

    Raises:
        ValueError: It is neither.
    """
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) not in (1, 2) or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"size {text!r}: write a number of pixels, or HEIGHTxWIDTH such as 896x1344")
    height, width = int(parts[0]), int(parts[-1])
    if min(height, width) < 1:
        raise ValueError(f"size {text!r}: height and width must be at least 1 pixel")
    return height, width


def benchmark(plan: Plan, *, on_step: Callable[[str], None] = lambda _: None) -> Iterator[Row]:
    """Measure what a plan says.

    Args:
        plan: What to measure.
        on_step: Called with a few words before each of `plan.steps` pieces of work, some of which may be left out.

    Yields:
        The rows of a size once all of its models were timed.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(plan.threads or before)
    failed: dict[str, str] = {}  # why a model cannot be exported, by name
    try:
        for mode, size in plan.groups:
            with tempfile.TemporaryDirectory(prefix="vision_longformer_") as folder:
                yield from _Group(plan, mode, size, Path(folder), failed, on_step).rows()
    finally:
        torch.set_num_threads(before)


@dataclass
class _Group:
    """What is timed together.

    Attributes:
        plan: What to measure.
        mode: Passes or training steps.
        size: (height, width) of all images in pixels.
        folder: For exported models.
        failed: Why a model cannot be exported, by name; added to.
        on_step: See `benchmark`.
        runs: What takes turns, by model and runtime.
        clocked: The seconds that each pass of a run spent in attention, the warm-up first.
    """

    plan: Plan
    mode: Mode
    size: Size
    folder: Path
    failed: dict[str, str]
    on_step: Callable[[str], None]
    runs: dict[str, Callable[[], Any]] = field(default_factory=dict)
    clocked: dict[str, list[float]] = field(default_factory=dict)

    def rows(self) -> list[Row]:
        rows = [row for model, attention in self.plan.subjects for row in self._prepare(model, attention)]
        if not self.runs:
            return rows
        product = MatrixProduct(self.plan.product_side)
        seconds = interleaved(
            {**self.runs, PRODUCT: product},
            repeats=self.plan.repeats,
            on_turn=self._tell_turn,
            most_seconds=MOST_SECONDS,
        )
        return [
            replace(
                row,
                seconds=tuple(seconds[_key(row)]),
                attention_seconds=tuple(self.clocked.get(_key(row), ())[1:]),
                product_seconds=tuple(seconds[PRODUCT][: len(seconds[_key(row)])]),
                product_multiply_adds=product.multiply_adds,
            )
            if row.status == "measured"
            else row
            for row in rows
        ]

    @cached_property
    def images(self) -> torch.Tensor:
        """What all models are given; made once one of them is known to fit."""
        return torch.randn(self.plan.batch, 3, *self.size)

    def _tell_turn(self, turn: int) -> None:
        name = f"turn {turn} of {self.plan.repeats}" if turn else "warm-up"
        self.on_step(f"{self.mode} at {size_name(self.size)}: {name}")

    def _prepare(self, name: str, attention: str | None) -> Iterator[Row]:
        """Measure a model's memory in each runtime, and add what is to be timed to `runs`."""
        runtimes = self.plan.runtimes if self.mode == "inference" else ("eager",)
        rows = [self._describe(name, attention, runtime) for runtime in runtimes]
        if rows[0].status != "measured":
            yield from rows
            return
        model = build_model(name, self.size, attention)
        eager: Row | None = None
        for row in rows:
            if eager is not None and eager.status != "measured":  # what does not fit here need not be exported
                yield replace(row, status=eager.status, note=eager.note)
                continue
            self.on_step(f"{self.mode} at {size_name(self.size)}: memory of {_key(row)}")
            try:
                if row.runtime == "eager":
                    measured = self._measure_memory(row)
                    step: Callable[[], Any] = Step(model, self.images, training=self.mode == "training")
                    step = step if attention is None else self._clocked(_key(row), step, model)
                else:
                    exported = self._export(name, model)
                    session = open_session(row.runtime, exported, threads=torch.get_num_threads())
                    check_output(model, self.images, session)
                    measured = self._measure_memory(row, exported)
                    step = partial(session, self.images.numpy())
            except ChildEndedError as error:
                measured = replace(row, status=error.status, note=str(error))
            except ExportError as error:
                measured = replace(row, status="refused", note=str(error))
            if measured.status == "measured":
                self.runs[_key(row)] = step
            if row.runtime == "eager":
                eager = measured
            yield measured

    def _clocked(self, key: str, step: Callable[[], Any], model: Any) -> Callable[[], None]:
        """Return a step that notes how long it spends in attention."""
        clock, seconds = AttentionClock(model), self.clocked.setdefault(key, [])

        def run() -> None:
            clock.reset()
            step()
            seconds.append(clock.read())

        return run

    def _describe(self, name: str, attention: str | None, runtime: Runtime) -> Row:
        row = Row(name, runtime, self.mode, self.size, self.plan.batch, attention=attention)
        try:
            needed = forecast_pass(name, self.size, attention, batch=self.plan.batch)
            row = replace(row, forecast_memory=needed)
            if self.plan.memory is not None and needed > self.plan.memory:
                bound = gigabytes(self.plan.memory)
                note = f"would need at least {gigabytes(needed)} for a pass, more than the bound of {bound}"
                return replace(row, status="too large", note=note)
            multiply_adds = count_multiply_adds(name, self.size, attention)
            parameters = count_parameters(name, self.size, attention)
        except Exception as error:  # a model refuses as it likes
            note = f"does not take images of {self.size[0]}×{self.size[1]} pixels ({reason(error)})"
            return replace(row, status="refused", note=note)
        times = FORWARD_AND_BACKWARD if self.mode == "training" else 1
        return replace(row, multiply_adds=times * multiply_adds, parameters=parameters)

    def _measure_memory(self, row: Row, exported: Path | None = None) -> Row:
        """Return the row with its peak memory, or with why there is none.

        Raises:
            ChildEndedError: The process took too much memory or time, or failed.
        """
        task = Task(
            model=row.model,
            attention=row.attention,
            size=row.size,
            batch=row.batch,
            threads=torch.get_num_threads(),
            training=row.mode == "training",
            runtime=row.runtime,
            exported=None if exported is None else str(exported),
            backend=attention_backend(),
        )
        answer = run_child(task, memory=self.plan.memory, time_limit=self.plan.time_limit)
        if "refused" in answer:
            note = f"does not take images of {row.size[0]}×{row.size[1]} pixels ({answer['refused']})"
            return replace(row, status="refused", note=note)
        return replace(row, peak_memory=answer["peak_memory"])

    def _export(self, name: str, model: torch.nn.Module) -> Path:
        """Return a model as ONNX.

        Raises:
            ExportError: It cannot be exported, now or at an earlier size.
        """
        target = self.folder / f"{name}.onnx"
        if name in self.failed:
            raise ExportError(self.failed[name])
        if not target.exists():
            try:
                export(model, self.images, target)
            except ExportError as error:
                self.failed[name] = str(error)
                raise
        return target


def _key(row: Row) -> str:
    name = row.model if row.attention is None else f"{row.model} with {row.attention}"
    return name if row.runtime == "eager" else f"{name} in {row.runtime}"
