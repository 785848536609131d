"""The part of `vil predict` that is for classifiers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vision_longformer.commands.common import Arguments, UsageError
from vision_longformer.commands.on_ray import for_actors
from vision_longformer.commands.reading import chosen_reading
from vision_longformer.commands.terminal import complain, tell, wants_json
from vision_longformer.engines.ray_data import EngineError, RayOptions, over_ray
from vision_longformer.evaluation.flips import Flips, check_flips
from vision_longformer.images.find import Source
from vision_longformer.prediction.classes import Prediction, predict
from vision_longformer.prediction.formats.tables import safe
from vision_longformer.training.tasks.classification import Classifier
from vision_longformer.training.weight_files import load_weights
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.devices import autocast, choose_device
from vision_longformer.utils.words import visible

FILE_WIDTH = 10_000  # columns: no name of a file is folded


def predict_classes(
    trained: Classifier, sources: Sequence[Source], arguments: Arguments, device: torch.device, ray: RayOptions | None
) -> int:
    """Name the most probable classes of images; return the exit code. See `predict_dense`."""
    top = 5 if arguments.top is None else arguments.top
    form = "json" if wants_json(arguments) else arguments.format or "table"
    for name, value in (("top", top), ("size", arguments.size)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: must be at least 1")
    if form not in _FORMATS:
        raise UsageError(f"--format {form}: must be one of {', '.join(_FORMATS)}")
    if trained.model.num_classes == 0:
        raise UsageError(f"{arguments.checkpoint}: has no classifier")
    found: Iterable[Prediction]
    if ray is None:
        found = predict(trained, sources, top=top, device=device, size=arguments.size, flips=_flips(arguments))
    else:
        found = _in_order(over_ray(sources, partial(begin_work, for_actors(arguments), top), ray), sources)
    try:
        predictions = list(_told(found))
    except EngineError as error:
        complain(str(error))
        return 1
    if arguments.output is None:
        if form == "table":
            Console().print(_table(predictions))
        else:
            print(_FORMATS[form](predictions), end="")
    else:
        try:
            with replacing(Path(arguments.output)) as temporary:
                text = _FORMATS[form](predictions)
                temporary.write_text(text, encoding="utf-8", errors="surrogateescape")  # names that are no text
        except OSError as error:
            complain(f"{arguments.output}: cannot be written ({error.strerror})")
            return 1
    return int(any(prediction.error for prediction in predictions))


def begin_work(
    arguments: Arguments, top: int, _sharing: int
) -> Callable[[Sequence[Source]], Iterator[tuple[str, Prediction]]]:
    """Return what names the classes of images in an actor, see `engines.ray_data`: by the names of these.

    Args:
        arguments: See `for_actors`.
        top: How many classes.

    Raises:
        OSError: There are no such weights.
        ValueError: They are damaged.
    """
    device = choose_device(arguments.device)
    trained = load_weights(arguments.checkpoint)
    trained = trained.with_reading(chosen_reading(arguments, trained=trained.reading, tell=lambda sentence: None))
    assert isinstance(trained, Classifier)

    def work(sources: Sequence[Source]) -> Iterator[tuple[str, Prediction]]:
        with autocast(device, arguments.precision):
            found = predict(trained, sources, top=top, device=device, size=arguments.size, flips=_flips(arguments))
            yield from zip((source.name for source in sources), found, strict=True)

    return work


def _flips(arguments: Arguments) -> Flips:
    return check_flips(arguments.flips or "none")


def _in_order(found: Iterable[tuple[str, Prediction]], sources: Sequence[Source]) -> Iterator[Prediction]:
    """Give predictions in the order of the images."""
    by_name = dict(found)
    return (by_name[source.name] for source in sources)


def _told(found: Iterable[Prediction]) -> Iterator[Prediction]:
    """Pass predictions on, and tell of images that could not be read, or not all of them."""
    for prediction in found:
        if prediction.error:
            complain(f"failed: {prediction.error}")
        if prediction.note:
            tell(f"{prediction.path}: {prediction.note}")
        yield prediction


def _table(predictions: Sequence[Prediction]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("class")
    table.add_column("probability", justify="right")
    for prediction in predictions:
        if prediction.error:
            table.add_row(Text(visible(str(prediction.path))), "cannot be read", "")
        for rank, (name, probability) in enumerate(zip(prediction.classes, prediction.probabilities, strict=True)):
            path = "" if rank else visible(str(prediction.path))
            table.add_row(Text(path), Text(name), f"{probability:.4f}")  # brackets are no markup
    return table


def _as_text(predictions: Sequence[Prediction]) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=FILE_WIDTH).print(_table(predictions))
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
            writer.writerow([safe(str(prediction.path)), rank, safe(name), f"{probability:.6f}"])
    return buffer.getvalue()


_FORMATS = {"table": _as_text, "json": _as_json, "csv": _as_csv}
