"""`vil predict`: the most probable classes of images."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from vision_longformer.commands.common import Arguments, Parser, UsageError, tell
from vision_longformer.devices import choose_device
from vision_longformer.feature_files import find_images
from vision_longformer.files import replacing
from vision_longformer.training.models import load_weights
from vision_longformer.training.prediction import Prediction, predict


def arguments() -> Parser:
    parser = Parser(description="Name the most probable classes of images.")
    add = parser.add_argument
    add("checkpoint", type=str, metavar="CHECKPOINT", help="Weights, such as RUN/best.safetensors.")
    add("images", nargs="+", type=str, metavar="IMAGES", help="Files, folders (with all below them) or patterns.")
    add("--top", type=int, default=5, metavar="N", help="How many classes to name.")
    add("--format", choices=["table", "json", "csv"], default="table", help="What to print.")
    add("--output", type=str | None, metavar="FILE", help="Write there instead of printing.")
    add("--size", type=int | None, metavar="PIXELS", help="Side of the square; by default that of training.")
    add("--device", default="auto", type=str, help="Where to compute: cpu, cuda, cuda:1; auto prefers a GPU.")
    return parser


def run(arguments: Arguments) -> int:
    for name in ("top", "size"):
        if arguments[name] is not None and arguments[name] < 1:
            raise UsageError(f"--{name} {arguments[name]}: must be at least 1")
    try:
        trained = load_weights(arguments.checkpoint)
        paths = [source.path for source in find_images(arguments.images)]
        device = choose_device(arguments.device)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    if trained.model.num_classes == 0:
        raise UsageError(f"{arguments.checkpoint}: has no classifier")
    predictions = []
    for prediction in predict(trained, paths, top=arguments.top, device=device, size=arguments.size):
        if prediction.error:
            tell(f"failed: {prediction.error}")
        predictions.append(prediction)
    if arguments.output is None:
        if arguments.format == "table":
            Console().print(_table(predictions))
        else:
            print(_FORMATS[arguments.format](predictions), end="")
    else:
        try:
            with replacing(Path(arguments.output)) as temporary:
                temporary.write_text(_FORMATS[arguments.format](predictions), encoding="utf-8")
        except OSError as error:
            tell(f"{arguments.output}: cannot be written ({error.strerror})")
            return 1
    return int(any(prediction.error for prediction in predictions))


def _table(predictions: Sequence[Prediction]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("class")
    table.add_column("probability", justify="right")
    for prediction in predictions:
        if prediction.error:
            table.add_row(str(prediction.path), "cannot be read", "")
        for rank, (name, probability) in enumerate(zip(prediction.classes, prediction.probabilities, strict=True)):
            table.add_row("" if rank else str(prediction.path), name, f"{probability:.4f}")
    return table


def _as_text(predictions: Sequence[Prediction]) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=120).print(_table(predictions))
    return buffer.getvalue()


def _as_json(predictions: Sequence[Prediction]) -> str:
    rows = [
        {
            "path": str(prediction.path),
            "classes": [
                {"name": name, "probability": probability}
                for name, probability in zip(prediction.classes, prediction.probabilities, strict=True)
            ],
            **({"error": prediction.error} if prediction.error else {}),
        }
        for prediction in predictions
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def _as_csv(predictions: Sequence[Prediction]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "rank", "class", "probability"])
    for prediction in predictions:
        pairs = zip(prediction.classes, prediction.probabilities, strict=True)
        for rank, (name, probability) in enumerate(pairs, start=1):
            writer.writerow([prediction.path, rank, name, f"{probability:.6f}"])
    return buffer.getvalue()


_FORMATS = {"table": _as_text, "json": _as_json, "csv": _as_csv}
