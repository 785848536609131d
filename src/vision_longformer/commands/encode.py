"""`vil encode`: images to feature files, and a report to look at."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from vision_longformer.backbone import VisionLongformer
from vision_longformer.commands.common import Arguments, UsageError, stopped_by_sigterm, tell
from vision_longformer.commands.progress import Tally, followed, summary
from vision_longformer.commands.reading import chosen_reading
from vision_longformer.features.descriptions import settings_of
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.extract import encode_files
from vision_longformer.features.failures import OutputError
from vision_longformer.features.formats import Choice, check_format
from vision_longformer.features.results import OnBand, Result
from vision_longformer.features.shards import parse_shard
from vision_longformer.features.split import encode_split
from vision_longformer.features.status import RunRecord
from vision_longformer.features.strategies import Limits
from vision_longformer.images import AS_STORED
from vision_longformer.images.find import find_images
from vision_longformer.pretrained import backbones, find_weights
from vision_longformer.registry import create_model
from vision_longformer.reports.encoding_page import Report
from vision_longformer.utils.devices import choose_device
from vision_longformer.utils.distributed import Processes, join, leave
from vision_longformer.utils.system_memory import parse_bytes
from vision_longformer.weights import load, reading_of

UNTRAINED = (
    "The model has no trained weights: its features carry no meaning yet, and pictures only show how it works. "
    "Give trained ones with --checkpoint, or a model that has some (`vil models`)."
)


def run(arguments: Arguments) -> int:
    warnings.filterwarnings("ignore", module="PIL")  # about odd but readable files
    try:
        if Path(arguments.output).is_file():
            raise UsageError(f"--output {arguments.output}: is a file; name a folder for the features")
        check_format(arguments.format)
        if arguments.split:
            _check_split(arguments)
        batch = _batch(arguments.batch)
        shard = None if arguments.shard is None else parse_shard(arguments.shard, os.environ)
        processes = join(arguments.device) if arguments.split else Processes()
        say = tell if processes.is_first else _silent
        every = find_images(arguments.images, remark=say)
        sources = every if shard is None else shard.of(every)
        name, model = chosen_model(arguments)
        encoder = Encoder(
            model,
            stages=() if arguments.format == "parquet" else arguments.stages,
            max_side=arguments.max_side,
            max_pixels=arguments.max_pixels,
            device=choose_device(arguments.device, number=processes.local_rank if arguments.split else None),
        )
        reading = chosen_reading(arguments, trained=reading_of(model), tell=say)
        if arguments.max_side is not None and reading != AS_STORED:
            raise UsageError("--max-side goes with none of --level, --channels and --value-range")
        limits = _limits(arguments)
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    remark = "" if arguments.checkpoint or arguments.model in backbones() else UNTRAINED
    if remark:
        say(f"warning: {remark}")
    output = Path(arguments.output)
    # processes would write theirs over each other
    has_report = not arguments.no_report and shard is None and processes.is_first
    report = Report(output, title=name, remark=remark) if has_report else None

    def begin(on_band: OnBand) -> Iterator[Result]:
        settings = settings_of(encoder, dtype=arguments.dtype, reading=reading)
        options: dict[str, Any] = {
            "model_name": name,
            "dtype": arguments.dtype,
            "pictures": not arguments.no_report and shard is None,
            "reading": reading,
            "limits": limits,
            "verify": arguments.verify,
            "on_band": on_band,
        }
        if arguments.split:
            results = encode_split(sources, output, encoder, processes, **options)
        else:
            results = encode_files(sources, output, encoder, kind=arguments.format, batch=batch, **options)
        if not processes.is_first:
            return results
        kind: Choice = "zarr" if arguments.split else arguments.format
        results = RunRecord(output, every, settings=settings, kind=kind).follow(results)
        return results if report is None else report.follow(results)

    tally = Tally()
    try:
        with stopped_by_sigterm():
            console = Console(stderr=True, quiet=not processes.is_first)
            for result in followed(begin, total=len(sources), console=console):
                tally.add(result)
        leave(processes)
    except OutputError as error:
        say(str(error))
        return 1
    if not processes.is_first:
        return int(tally.failed > 0)
    page = "" if report is None else f"; look at {output / 'index.html'}"
    there = tally.encoded or tally.skipped
    print(f"{summary(tally)} {f'Features are in {output}{page}.' if there else f'There are no features{page}.'}")
    return int(tally.failed > 0)


def _check_split(arguments: Arguments) -> None:
    """Refuse what does not go with images that are split over processes."""
    if "RANK" not in os.environ:
        raise UsageError("--split: start it as torchrun --nproc_per_node=N -m vil encode ... --split")
    for option, given in (
        (f"--format {arguments.format}", arguments.format not in ("auto", "zarr")),
        ("--way whole", arguments.way == "whole"),
        ("--max-side", arguments.max_side is not None),
        ("--shard", arguments.shard is not None),
    ):
        if given:
            raise UsageError(f"{option} does not go with --split, which streams images and writes Zarr")


def _silent(_sentence: str) -> None:
    """Leave it to the first process to say what all would say."""


def _batch(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f'--batch {text}: must be a whole number, 1 or more, or "auto"')
    return int(text)


def _limits(arguments: Arguments) -> Limits:
    memory = None if arguments.memory is None else parse_bytes(arguments.memory)
    folder = None if arguments.work_folder is None else Path(arguments.work_folder)
    return Limits(arguments.way, memory, folder)


def chosen_model(arguments: Arguments) -> tuple[str, VisionLongformer]:
    """Return the model that was asked for, and what to call it: with the package's weights, where it has some."""
    if arguments.checkpoint:
        return arguments.checkpoint, load(find_weights(arguments.checkpoint))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        model = create_model(arguments.model, pretrained=arguments.model in backbones())
    assert isinstance(model, VisionLongformer)
    return arguments.model, model.eval()
