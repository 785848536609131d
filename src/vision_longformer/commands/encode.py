"""`vil encode`: images to feature files, and a report to look at."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console

from vision_longformer.backbone import VisionLongformer
from vision_longformer.commands.common import Arguments, Parser, UsageError, stopped_by_sigterm, tell
from vision_longformer.commands.progress import follow, summary
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.extract import OnBand, OutputError, Result, encode_files
from vision_longformer.features.formats import FORMATS, check_format
from vision_longformer.features.strategies import Limits
from vision_longformer.images.decode import MAX_PIXELS
from vision_longformer.images.find import find_images
from vision_longformer.images.open import AS_STORED, Reading
from vision_longformer.memory.plans import STRATEGIES
from vision_longformer.registry import create_model
from vision_longformer.reports.encoding_page import Report
from vision_longformer.utils.devices import choose_device
from vision_longformer.utils.system_memory import parse_bytes
from vision_longformer.weights import load

UNTRAINED = (
    "The model has no trained weights: its features carry no meaning yet, and pictures only show how it works. "
    "Give trained ones with --checkpoint."
)
FORMAT_HELP = (
    "safetensors: a file; zarr: a folder of compressed chunks, with pictures for viewers; geotiff: a folder of "
    "rasters, for images that say where on earth they lie; auto: safetensors, or zarr where maps are spilled."
)

WAY_HELP = (
    "whole: all at once; streamed: band by band, with maps in memory; spilled: with maps in files, from which the same "
    "command goes on after a stop; auto: the first of these that fits."
)
MAX_PIXELS_HELP = "Refuse images with more pixels that are decoded whole."
LEVEL_HELP = "Of the pyramid of a slide or TIFF; 0 is full resolution."
CHANNELS_HELP = "Which channels to take, in this order, counted from 0."
RANGE_HELP = "Stored values that become 0 and 1, where their type does not say so."
MEMORY_HELP = "That the process may take, such as 4GB; by default what it holds and 60%% of what is free."


def arguments() -> Parser:
    parser = Parser(description="Turn images into feature files, one for each, and a report to look at.")
    add = parser.add_argument
    add("images", nargs="+", type=str, metavar="IMAGES", help="Files, folders (with all below them) or patterns.")
    add("--output", required=True, type=str, metavar="DIR", help="Folder for the features; created if need be.")
    add("--model", default="vision_longformer_tiny", type=str, help="Name of a model; `vil models` lists them.")
    add("--checkpoint", type=str | None, metavar="FILE", help="Weights of this library, which say their model.")
    add("--stages", nargs="+", type=int, default=[4], metavar="N", help="Whose maps to keep, from 1.")
    add("--dtype", choices=["float16", "float32"], default="float16", help="Of stored features.")
    add("--format", choices=["auto", *FORMATS], default="auto", help=FORMAT_HELP)
    add("--max-side", type=int | None, metavar="PIXELS", help="Shrink larger images; by default none are.")
    add("--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help=MAX_PIXELS_HELP)
    add_reading(parser)
    add("--way", choices=["auto", *STRATEGIES], default="auto", help=WAY_HELP)
    add("--memory", type=str | None, metavar="AMOUNT", help=MEMORY_HELP)
    add("--work-folder", type=str | None, metavar="DIR", help="Where maps are spilled; by default below --output.")
    add("--device", default="auto", type=str, help="Where to compute: cpu, cuda, cuda:1; auto prefers a GPU.")
    add("--no-report", action="store_true", help="Do not write DIR/index.html.")
    add("--seed", type=int, default=0, help="Draws the weights of an untrained model, so that runs repeat.")
    return parser


def run(arguments: Arguments) -> int:
    warnings.filterwarnings("ignore", module="PIL")  # about odd but readable files
    try:
        check_format(arguments.format)
        sources = find_images(arguments.images)
        name, model = chosen_model(arguments)
        encoder = Encoder(
            model,
            stages=arguments.stages,
            max_side=arguments.max_side,
            max_pixels=arguments.max_pixels,
            device=choose_device(arguments.device),
        )
        reading = chosen_reading(arguments)
        if arguments.max_side is not None and reading != AS_STORED:
            raise UsageError("--max-side goes with none of --level, --channels and --value-range")
        limits = _limits(arguments)
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    remark = "" if arguments.checkpoint else UNTRAINED
    if remark:
        tell(f"warning: {remark}")
    report = None if arguments.no_report else Report(Path(arguments.output), title=name, remark=remark)

    def begin(on_band: OnBand) -> Iterator[Result]:
        results = encode_files(
            sources,
            Path(arguments.output),
            encoder,
            model_name=name,
            dtype=arguments.dtype,
            kind=arguments.format,
            pictures=report is not None,
            reading=reading,
            limits=limits,
            on_band=on_band,
        )
        return results if report is None else report.follow(results)

    try:
        with stopped_by_sigterm():
            finished = follow(begin, total=len(sources), console=Console(stderr=True))
    except OutputError as error:
        tell(str(error))
        return 1
    page = "" if arguments.no_report else f"; look at {Path(arguments.output) / 'index.html'}"
    print(f"{summary(finished)} Features are in {arguments.output}{page}.")
    return int(any(result.status == "failed" for result in finished))


def add_reading(parser: Parser) -> None:
    """Add the options of `chosen_reading`."""
    add = parser.add_argument
    add("--level", type=int, default=0, metavar="N", help=LEVEL_HELP)
    add("--channels", nargs="+", type=int, metavar="N", help=CHANNELS_HELP)
    add("--value-range", nargs=2, type=float, metavar=("LOW", "HIGH"), help=RANGE_HELP)


def chosen_reading(arguments: Arguments) -> Reading:
    """Return how images are to be read.

    Raises:
        ValueError: A number is out of range.
    """
    channels, value_range = arguments.channels, arguments.value_range
    return Reading(
        arguments.level,
        None if channels is None else tuple(channels),
        None if value_range is None else (value_range[0], value_range[1]),
    )


def _limits(arguments: Arguments) -> Limits:
    memory = None if arguments.memory is None else parse_bytes(arguments.memory)
    folder = None if arguments.work_folder is None else Path(arguments.work_folder)
    return Limits(arguments.way, memory, folder)


def chosen_model(arguments: Arguments) -> tuple[str, VisionLongformer]:
    """Return the model that was asked for, and what to call it."""
    if arguments.checkpoint:
        return arguments.checkpoint, load(arguments.checkpoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        model = create_model(arguments.model)
    assert isinstance(model, VisionLongformer)
    return arguments.model, model
