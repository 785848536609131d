"""`vil evaluate`: how well weights do on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.table import Table
from rich.text import Text

from vision_longformer.commands.common import Arguments, UsageError, check_output_file
from vision_longformer.commands.reading import chosen_reading
from vision_longformer.commands.terminal import complain, error_console, give, progress, say, tell, wants_json
from vision_longformer.datasets.checks import unmeasured
from vision_longformer.datasets.classification import Samples
from vision_longformer.datasets.labels import class_counts
from vision_longformer.datasets.notes import remarks_on_notes
from vision_longformer.evaluation.detection import DetectionResult
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.evaluation.metric_names import name_of, shown
from vision_longformer.evaluation.segmentation import SemanticResult
from vision_longformer.images import MAX_PIXELS, ImageError
from vision_longformer.training.tasks.detection import limit_of
from vision_longformer.training.trained import Result
from vision_longformer.training.weight_files import load_weights
from vision_longformer.utils.devices import choose_device


def run(arguments: Arguments) -> int:
    for name in ("batch_size", "size", "detections"):
        if arguments[name] is not None and arguments[name] < 1:
            raise UsageError(f"--{name.replace('_', '-')} {arguments[name]}: must be at least 1")
    if arguments.workers < 0:
        raise UsageError(f"--workers {arguments.workers}: must not be negative")
    check_output_file("--json", None if wants_json(arguments) else arguments.json)
    try:
        trained = load_weights(arguments.checkpoint)
        if arguments.detections is not None:
            trained.limit_detections(arguments.detections)
        if arguments.size is not None:
            trained = trained.at_size(arguments.size)
        trained = trained.with_reading(chosen_reading(arguments, trained=trained.reading, tell=tell))
        split = trained.read(arguments.data, arguments.split, skip_invalid=arguments.skip_invalid)
        device = choose_device(arguments.device)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    _tell_what_was_left_out(split)
    for remark in remarks_on_notes(_paths(split), trained.reading, max_pixels=MAX_PIXELS):
        tell(remark)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("images"))
    with progress(*columns, console=error_console()) as bar:
        task = bar.add_task("", total=len(split))
        setup = EvaluationSetup(
            batch_size=arguments.batch_size or trained.batch_size,
            workers=arguments.workers,
            device=device,
            autocast_dtype=torch.bfloat16 if arguments.precision == "bf16" else None,
            flips=arguments.flips,
            advance=lambda images: bar.advance(task, images),
        )
        try:
            result = trained.evaluate(split, setup)
        except (ImageError, ImportError) as error:
            complain(str(error))
            return 1
    assert result is not None  # nothing asked it to stop
    title = f"{arguments.checkpoint} on {arguments.split} of {arguments.data}, {len(split)} images"
    values = {**result.metrics(), "images": len(split)}
    if isinstance(result, DetectionResult):
        values["left_out"] = result.left_out
    try:
        give(arguments, values, title, _table(result))
    except OSError as error:
        complain(f"{arguments.json}: cannot be written ({error.strerror})")
        return 1
    for remark in unmeasured(_counts(split, result), arguments.split, _unit(result)):
        say(arguments, remark)
    if isinstance(result, DetectionResult) and result.left_out:
        say(
            arguments,
            f"At least {result.left_out} more objects were left out, as an image gives at most {limit_of(trained)} "
            "(--detections); COCO's measures take the best 100 of a class.",
        )
    return 0


def _tell_what_was_left_out(split: Any) -> None:
    for remark in getattr(split, "remarks", ()):
        tell(remark)
    for reason, count in getattr(split, "skipped", {}).items():
        tell(f"left out: {count} ({reason})")


def _counts(split: Any, result: Result) -> dict[str, int]:
    """Return how often each class occurs in the labels."""
    if isinstance(result, SemanticResult):
        return dict(zip(result.classes, result.confusion.sum(dim=1).tolist(), strict=True))
    return split.counts() if isinstance(split, Samples) else class_counts(split) or {}


def _unit(result: Result) -> str:
    if isinstance(result, SemanticResult):
        return "pixel"
    return "object" if isinstance(result, DetectionResult) else "image"


def _paths(split: Any) -> list[Path]:
    return list(split.paths) if isinstance(split, Samples) else [split.path(index) for index in range(len(split))]


def _table(result: Result) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("measure")
    table.add_column("value", justify="right")
    for measure, value in result.metrics().items():
        table.add_row(Text(name_of(measure)), shown(measure, value))  # brackets of a class's name are no markup
    return table
