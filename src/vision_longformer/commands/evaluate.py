"""`vil evaluate`: how well weights do on labelled images."""

from __future__ import annotations

import json
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from vision_longformer.commands.common import Arguments, Parser, UsageError, tell
from vision_longformer.data.classification import read_split
from vision_longformer.devices import choose_device
from vision_longformer.files import replacing
from vision_longformer.images import MAX_PIXELS, ImageError
from vision_longformer.training.evaluation import Evaluation, evaluate
from vision_longformer.training.loading import evaluation_transform
from vision_longformer.training.models import load_weights


def arguments() -> Parser:
    parser = Parser(description="Measure a classifier's accuracy on labelled images.")
    add = parser.add_argument
    add("checkpoint", type=str, metavar="CHECKPOINT", help="Weights, such as RUN/best.safetensors.")
    add("--data", required=True, type=str, metavar="PATH", help="Folder of SPLIT/CLASS/images, or a CSV file.")
    add("--split", default="val", type=str, help="Which images.")
    add("--json", type=str | None, metavar="FILE", help="Write the metrics as JSON: top1 and top5 in percent, loss.")
    add("--size", type=int | None, metavar="PIXELS", help="Side of the square; by default that of training.")
    add("--batch-size", type=int, default=32, metavar="N", help="Images at once.")
    add("--workers", type=int, default=2, metavar="N", help="Processes that read images.")
    add("--device", default="auto", type=str, help="Where to compute: cpu, cuda, cuda:1; auto prefers a GPU.")
    return parser


def run(arguments: Arguments) -> int:
    for name in ("batch_size", "size"):
        if arguments[name] is not None and arguments[name] < 1:
            raise UsageError(f"--{name.replace('_', '-')} {arguments[name]}: must be at least 1")
    if arguments.workers < 0:
        raise UsageError(f"--workers {arguments.workers}: must not be negative")
    try:
        trained = load_weights(arguments.checkpoint)
        samples = read_split(arguments.data, arguments.split, classes=trained.classes)
        device = choose_device(arguments.device)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    if trained.model.num_classes != len(samples.classes):
        raise UsageError(
            f"{arguments.checkpoint}: has {trained.model.num_classes or 'no'} classes, without names, and "
            f"{arguments.data} has {len(samples.classes)}"
        )
    preprocessing = dict(trained.preprocessing)
    size, share = arguments.size or preprocessing["size"], preprocessing["crop_pct"]
    transform = evaluation_transform(
        size=size,
        crop_share=share,
        interpolation=preprocessing["interpolation"],
        mean=preprocessing["mean"],
        std=preprocessing["std"],
    )
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("images"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(samples))
        try:
            result = evaluate(
                trained.model.to(device),
                samples,
                transform,
                batch_size=arguments.batch_size,
                workers=arguments.workers,
                device=device,
                max_pixels=MAX_PIXELS,
                advance=lambda images: progress.advance(task, images),
            )
        except ImageError as error:
            tell(str(error))
            return 1
    assert result is not None  # nothing asked it to stop
    Console().print(_table(result, title=f"{arguments.checkpoint} on {arguments.split} of {arguments.data}"))
    if arguments.json is not None:
        try:
            with replacing(Path(arguments.json)) as temporary:
                temporary.write_text(json.dumps({**result.metrics(), "images": len(samples)}, indent=2) + "\n")
        except OSError as error:
            tell(f"{arguments.json}: cannot be written ({error.strerror})")
            return 1
    return 0


def _table(result: Evaluation, *, title: str) -> Table:
    metrics = result.metrics()
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for heading in ("images", "top-1 %", "top-5 %", "loss"):
        table.add_column(heading, justify="right")
    table.add_row(
        str(len(result.samples)), f"{metrics['top1']:.2f}", f"{metrics['top5']:.2f}", f"{metrics['loss']:.4f}"
    )
    return table
