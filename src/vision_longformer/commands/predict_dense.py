"""The part of `vil predict` that is for detectors and segmentation models."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from vision_longformer.commands.common import INTERRUPTED, Arguments, UsageError, stopped_by_sigterm
from vision_longformer.commands.on_ray import for_actors
from vision_longformer.commands.progress import follow
from vision_longformer.commands.reading import chosen_reading
from vision_longformer.commands.terminal import complain, error_console, give, say, tell
from vision_longformer.engines.ray_data import EngineError, RayOptions, over_ray
from vision_longformer.features.failures import OutputError
from vision_longformer.features.results import OnBand
from vision_longformer.images.find import Source
from vision_longformer.prediction.formats import DEFAULTS, check_outputs
from vision_longformer.prediction.journal import RUN, JournalError
from vision_longformer.prediction.predictor import PredictOptions, Predictor
from vision_longformer.prediction.run import FOLDERS, Outcome, PredictionRun
from vision_longformer.reports.prediction_page import write_prediction_page
from vision_longformer.training.tasks.detection import limit_of
from vision_longformer.training.trained import Trained
from vision_longformer.training.weight_files import load_weights
from vision_longformer.utils.devices import autocast, choose_device
from vision_longformer.utils.system_memory import default_bound, parse_bytes
from vision_longformer.utils.words import counted
from vision_longformer.weights import MIN_SCORE

FOLDER = "predictions"
LISTED = 40  # images whose results are printed


def predict_dense(
    trained: Trained, sources: Sequence[Source], arguments: Arguments, device: torch.device, ray: RayOptions | None
) -> int:
    """Write what is found in images, and pictures of it; return the exit code.

    Args:
        trained: The model.
        sources: The images.
        arguments: Of the command.
        device: Where to compute.
        ray: The cluster that does it; None where this process does.
    """
    arguments.output = str(arguments.output or FOLDER)
    output = Path(arguments.output)
    kind = trained.gives
    assert kind != "classes"
    outputs = tuple(dict.fromkeys(DEFAULTS[kind] if arguments.outputs is None else arguments.outputs))
    try:
        check_outputs(outputs, kind)
        predictor = Predictor(trained, _options(arguments), device=device)
        sources = _without_results(sources, output)
    except (ImportError, ValueError) as error:
        raise UsageError(_as_option(str(error))) from error
    if arguments.overlap is not None and arguments.tile is None:
        tell(f"--overlap {arguments.overlap} is for images that do not fit into memory; --tile asks for tiles of all")
    if predictor.scale != 1 and arguments.scale is None:
        tell(f"images are resized by {predictor.scale:.3g}, as in training; --scale 1 keeps their size")
    if kind == "objects" and arguments.min_score is None:
        chosen = "as training chose" if MIN_SCORE in trained.preprocessing else "as nothing was chosen in training"
        tell(f"objects have a score of {predictor.min_score:g} or more, {chosen}; --min-score changes that")
    console = error_console()
    total = Counts(kind)
    try:
        root, pictures = _root(sources), not arguments.no_pictures
        run = PredictionRun(output, predictor, root=root, outputs=outputs, pictures=pictures)
        with stopped_by_sigterm(), run:

            def begin(on_band: OnBand) -> Iterator[Outcome]:
                if ray is None:
                    return run.predict(sources, on_band=on_band)
                return over_ray(sources, partial(begin_work, for_actors(arguments), root, outputs), ray)

            finished = follow(begin, total=len(sources), console=console, so_far=total)
            for outcome in finished:
                if outcome.left_out:
                    grown = predictor.limits if outcome.tiles == 1 else None
                    seen = round(outcome.size[0] * predictor.scale), round(outcome.size[1] * predictor.scale)
                    limit = grown.most(seen) if grown else limit_of(trained)
                    tell(_about_left_out(outcome, limit))
            if not arguments.no_pictures:
                write_prediction_page(run, title=str(arguments.checkpoint))
    except KeyboardInterrupt:
        tell("interrupted; what was finished is kept, and running again goes on from there")
        return INTERRUPTED
    except JournalError as error:
        raise UsageError(f"--output {error}") from error
    except (OutputError, EngineError) as error:
        complain(str(error))
        return 1
    except OSError as error:
        raise UsageError(f"--output {error}") from error
    done = [outcome for outcome in finished if outcome.status != "failed"]
    give(arguments, _as_json(finished, predictor), *([_table(done, predictor)] if done else []))
    if done:
        say(arguments, f"{_summary(finished)} Look at {output if arguments.no_pictures else output / 'index.html'}.")
    return int(len(done) < len(finished))


def begin_work(
    arguments: Arguments, root: Path, outputs: Sequence[str], sharing: int
) -> Callable[[Sequence[Source]], Iterator[Outcome]]:
    """Return what looks at images in an actor, see `engines.ray_data`.

    Args:
        arguments: See `for_actors`.
        root: The folder that all images share.
        outputs: What is written.
        sharing: How many actors share the memory of a machine.

    Raises:
        OSError: There are no such weights.
        ValueError: They are damaged, or an option is not for them.
    """
    device = choose_device(arguments.device)
    trained = load_weights(arguments.checkpoint)
    trained = trained.with_reading(chosen_reading(arguments, trained=trained.reading, tell=lambda sentence: None))
    options = _options(arguments)
    if options.memory is None:
        options = replace(options, memory=default_bound(device) // sharing)
    run = PredictionRun(
        Path(arguments.output),
        Predictor(trained, options, device=device),
        root=root,
        outputs=outputs,
        pictures=not arguments.no_pictures,
        helping=True,
    )

    def work(sources: Sequence[Source]) -> Iterator[Outcome]:
        with run, autocast(device, arguments.precision):
            yield from run.predict(sources, on_band=lambda source, share, pixels: None)

    return work


class Counts:
    """Says how many objects were found so far.

    Args:
        kind: What the model gives; of classes of pixels there is nothing to count.
    """

    def __init__(self, kind: str) -> None:
        self._counted, self._sum = kind == "objects", 0

    def __call__(self, outcome: Outcome) -> str:
        """Take what became of an image."""
        self._sum += sum(outcome.found)
        return counted(self._sum, "object") if self._counted else ""


def _options(arguments: Arguments) -> PredictOptions:
    return PredictOptions(
        min_score=arguments.min_score,
        classes=None if arguments.classes is None else tuple(arguments.classes),
        detections=arguments.detections,
        tile=arguments.tile,
        overlap=arguments.overlap,
        memory=None if arguments.memory is None else parse_bytes(arguments.memory),
        scale=arguments.scale,
        simplify=arguments.simplify,
        flips=arguments.flips,
    )


def _as_option(message: str) -> str:
    """Return a message on a field of `PredictOptions` as one on the option of the command."""
    return re.sub(
        r"^(min_score|scale|classes|simplify)[= ](.*?):",
        lambda found: f"--{found[1].replace('_', '-')} {found[2]}:",
        message,
    )


def _without_results(sources: Sequence[Source], output: Path) -> list[Source]:
    """Return images without those that an earlier run drew in the folder of its results."""
    if not (output / RUN).is_file():
        return list(sources)
    own = {Path(os.path.abspath(output)) / folder for folder in FOLDERS.values()}
    kept = [source for source in sources if own.isdisjoint(source.path.parents)]
    if not kept:
        raise ValueError(f"output {output}: all images are results of an earlier run; choose others")
    return kept


def _root(sources: Sequence[Source]) -> Path:
    """Return the folder that all images' names are below."""
    source = sources[0]
    return source.path.parents[len(Path(source.name).parts) - 1]


def _table(done: Sequence[Outcome], predictor: Predictor) -> Table:
    is_pixels = predictor.trained.gives == "pixels"
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("pixels", justify="right")
    table.add_column("tiles", justify="right")
    table.add_column("share of pixels" if is_pixels else "objects")
    for outcome in done[:LISTED]:
        height, width = outcome.size
        total = sum(outcome.found) or 1
        named = [(name, count) for name, count in zip(predictor.class_names, outcome.found, strict=True) if count]
        words = [f"{name} {count / total:.1%}" if is_pixels else f"{count} {name}" for name, count in named]
        tiles = "streamed" if outcome.streamed else str(outcome.tiles)
        cells = (outcome.source.location, f"{width}×{height}", tiles, ", ".join(words) or "none")
        table.add_row(*map(Text, cells))  # brackets are no markup
    if len(done) > LISTED:
        table.add_row(f"and {len(done) - LISTED:,} more", "", "", "")
    return table


def _as_json(finished: Sequence[Outcome], predictor: Predictor) -> list[dict[str, Any]]:
    return [
        {
            "path": str(outcome.source.path),
            "status": outcome.status,
            "message": outcome.message,
            "size": list(outcome.size),
            "found": dict(zip(predictor.class_names, outcome.found, strict=False)),  # of an image that failed nothing
            "left_out": outcome.left_out,
            "seconds": round(outcome.seconds, 3),
        }
        for outcome in finished
    ]


def _summary(finished: Sequence[Outcome]) -> str:
    count = {status: sum(done.status == status for done in finished) for status in ("predicted", "skipped", "failed")}
    parts = [f"{count['predicted']} predicted"]
    parts += [f"{count['skipped']} done before"] if count["skipped"] else []
    parts += [f"{count['failed']} failed"] if count["failed"] else []
    return ", ".join(parts) + "."


def _about_left_out(outcome: Outcome, limit: int) -> str:
    about, of = ("about", "a tile") if outcome.tiles > 1 else ("at least", "an image")  # tiles overlap
    return (
        f"{outcome.source.location}: {about} {outcome.left_out} more objects were left out, as {of} gives at most "
        f"{limit}; --detections changes that"
    )
