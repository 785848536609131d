"""`vil encode`: images to feature files, and a report to look at."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from vision_longformer.backbone import VisionLongformer
from vision_longformer.commands.common import Arguments, UsageError, stopped_by_sigterm
from vision_longformer.commands.on_ray import for_actors, ray_options, uses_ray
from vision_longformer.commands.progress import Tally, followed, summary
from vision_longformer.commands.reading import check_max_side, chosen_reading
from vision_longformer.commands.terminal import complain, error_console, give, remarks, tell, wants_json, warn
from vision_longformer.engines.ray_data import EngineError, RayOptions, over_ray
from vision_longformer.features.descriptions import settings_of
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.extract import encode_files
from vision_longformer.features.failures import OutputError, explaining
from vision_longformer.features.formats import Choice, check_format
from vision_longformer.features.mirror import Mirror
from vision_longformer.features.one_run import one_run
from vision_longformer.features.results import OnBand, Result
from vision_longformer.features.shards import parse_shard
from vision_longformer.features.split import encode_split
from vision_longformer.features.status import RunRecord
from vision_longformer.features.strategies import Limits
from vision_longformer.images import Reading
from vision_longformer.images.find import Source, by_reading, find_images
from vision_longformer.images.lists import AS_OTHERS
from vision_longformer.pretrained import backbones, find_weights
from vision_longformer.registry import create_model
from vision_longformer.reports.encoding_page import Report
from vision_longformer.utils.devices import choose_device
from vision_longformer.utils.distributed import Processes, join, leave
from vision_longformer.utils.remote import is_url
from vision_longformer.utils.system_memory import parse_bytes
from vision_longformer.weights import load, reading_of

UNTRAINED = (
    "The model has no trained weights: its features carry no meaning yet, and pictures only show how it works. "
    "Give trained ones with --checkpoint, or a model that has some (`vil models`)."
)


def run(arguments: Arguments) -> int:
    if not is_url(arguments.output):
        return _encode(arguments, Path(arguments.output), None)
    if arguments.format == "geotiff" or arguments.split:
        raise UsageError(f"--output {arguments.output}: take --format safetensors, zarr or parquet, and no --split")
    arguments.format = "safetensors" if arguments.format == "auto" else arguments.format
    with tempfile.TemporaryDirectory(prefix="vision_longformer-") as folder:
        try:
            mirror = Mirror(arguments.output, Path(folder))
        except (ImportError, OSError) as error:
            raise UsageError(str(error)) from error
        return _encode(arguments, Path(folder), mirror)


@dataclass(frozen=True)
class _Run:
    """What was asked for, looked at before anything is done.

    Attributes:
        every: All images.
        sources: Those of them that this process encodes.
        tools: What they are encoded with.
        ray: The cluster that does it; None where this process does.
        processes: Those that split each image between them.
    """

    every: Sequence[Source]
    sources: Sequence[Source]
    tools: _Tools
    ray: RayOptions | None
    processes: Processes


@dataclass(frozen=True)
class _Tools:
    """What images are encoded with.

    Attributes:
        name: Of the model.
        encoder: It.
        reading: How images are read.
        limits: On memory, and how it is kept.
        batch: Images of a batch.
    """

    name: str
    encoder: Encoder
    reading: Reading
    limits: Limits
    batch: int | Literal["auto"]


def _tools(arguments: Arguments, *, number: int | None = None, say: Callable[[str], None]) -> _Tools:
    """Build what images are encoded with.

    Args:
        arguments: Of the command.
        number: Of the GPU.
        say: Is told which settings are those of the weights.

    Raises:
        ImportError: A package is missing.
        OSError: There are no such weights.
        ValueError: An option is impossible.
    """
    name, model = chosen_model(arguments)
    encoder = Encoder(
        model,
        stages=() if arguments.format == "parquet" else arguments.stages,
        max_side=arguments.max_side,
        max_pixels=arguments.max_pixels,
        device=choose_device(arguments.device, number=number),
        precision=arguments.precision,
    )
    reading = chosen_reading(arguments, trained=reading_of(model), tell=say)
    if arguments.max_side is not None:
        check_max_side(arguments.max_side, reading)
    return _Tools(name, encoder, reading, _limits(arguments), _batch(arguments.batch))


def _prepared(arguments: Arguments, output: Path) -> _Run:
    """Look at what was asked for.

    Raises:
        UsageError: It cannot be done.
    """
    if output.is_file():
        raise UsageError(f"--output {arguments.output}: is a file; name a folder for the features")
    try:
        check_format(arguments.format)
        ray = ray_options(arguments) if uses_ray(arguments) else None
        if ray is not None and arguments.shard is not None:
            raise UsageError("--shard does not go with --engine ray, which shares images out itself")
        if arguments.split:
            _check_split(arguments)
        shard = None if arguments.shard is None else parse_shard(arguments.shard, os.environ)
        processes = join(arguments.device) if arguments.split else Processes()
        say = tell if processes.is_first else _silent
        every = find_images(arguments.images, remark=say, urls=not arguments.split)
        if arguments.max_side is not None and any(source.asked != AS_OTHERS for source in every):
            raise UsageError("--max-side does not go with a list that says how images are read")
        sources = every if shard is None else shard.of(every)
        own = arguments.clone()
        if ray is not None:
            own.device = "cpu"  # actors may have GPUs
        tools = _tools(own, number=processes.local_rank if arguments.split else None, say=say)
        return _Run(every, sources, tools, ray, processes)
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(str(error)) from error


def _encode(arguments: Arguments, output: Path, mirror: Mirror | None) -> int:
    warnings.filterwarnings("ignore", module="PIL")  # about odd but readable files
    run = _prepared(arguments, output)
    is_first = run.processes.is_first
    own = None if arguments.checkpoint else backbones().get(arguments.model)
    remark = "" if arguments.checkpoint or own else UNTRAINED
    if remark and is_first:
        warn(remark)
    if own and is_first:
        tell(f"with the weights {own.name}.{own.tag} that come with the package: {own.summary}")
    report = Report(output, title=run.tools.name, remark=remark) if _has_report(arguments) and is_first else None

    def begin(on_band: OnBand) -> Iterator[Result]:
        results = _results(run, arguments, output, mirror, on_band)
        return results if report is None else report.follow(results)

    tally = Tally()
    try:
        with stopped_by_sigterm():
            console = error_console(quiet=not is_first)
            for result in followed(begin, total=len(run.sources), console=console):
                tally.add(result)
        leave(run.processes)
        _finish(mirror)
    except (OutputError, EngineError) as error:
        if is_first:
            complain(str(error))
        return 1
    if is_first:
        page = None if report is None else f"{arguments.output.rstrip('/')}/index.html"
        what = f"Features are in {arguments.output}" if tally.encoded or tally.skipped else "There are no features"
        sentence = f"{summary(tally)} {what}{'' if page is None else f'; look at {page}'}."
        if wants_json(arguments) or remarks():
            give(arguments, {**dataclasses.asdict(tally), "output": arguments.output, "page": page}, sentence)
    return int(tally.failed > 0)


def _results(run: _Run, arguments: Arguments, output: Path, mirror: Mirror | None, on_band: OnBand) -> Iterator[Result]:
    """Encode, and write down what is to be done and what fails."""
    tools = run.tools
    options = _options(arguments, tools) | {"on_band": on_band}
    results: Iterator[Result]
    if arguments.split:  # its processes may not wait for each other so long
        encode = partial(encode_split, output=output, encoder=tools.encoder, processes=run.processes, **options)
        yield from _recorded(_by_reading(encode, run.sources, tools.reading), run, arguments, output)
        return
    with one_run(output, (source.name for source in run.sources), on_wait=lambda: tell(_waits(arguments))):
        if run.ray is not None:
            results = over_ray(run.sources, partial(begin_work, for_actors(arguments), tools.name), run.ray)
        else:
            options |= {"kind": arguments.format, "batch": tools.batch, "mirror": mirror}
            encode = partial(encode_files, output=output, encoder=tools.encoder, **options)
            results = _by_reading(encode, run.sources, tools.reading)
        yield from _recorded(results, run, arguments, output)


def _waits(arguments: Arguments) -> str:
    return f"another run encodes these images into {arguments.output}; this one waits until that is over"


def _recorded(results: Iterator[Result], run: _Run, arguments: Arguments, output: Path) -> Iterator[Result]:
    """Pass results on, and write down what `vil status` tells."""
    tools = run.tools
    if not run.processes.is_first:
        return results
    settings = settings_of(tools.encoder, dtype=arguments.dtype, reading=tools.reading)
    kind: Choice = "zarr" if arguments.split else arguments.format
    return RunRecord(output, run.every, settings=settings, reading=tools.reading, kind=kind).follow(results)


def _by_reading(
    encode: Callable[..., Iterator[Result]], sources: Sequence[Source], reading: Reading
) -> Iterator[Result]:
    """Encode images, those together that are read alike; see `by_reading`."""
    for own, group in (by_reading(sources, reading) or {reading: []}).items():
        yield from encode(group, reading=own)


def _options(arguments: Arguments, tools: _Tools) -> dict[str, Any]:
    """Return what every way of encoding takes."""
    return {
        "model_name": tools.name,
        "dtype": arguments.dtype,
        "pictures": _has_report(arguments),
        "limits": tools.limits,
        "verify": arguments.verify,
    }


def _has_report(arguments: Arguments) -> bool:
    """Tell whether this run writes a page: those of several processes would be written over each other."""
    return not arguments.no_report and arguments.shard is None and arguments.engine != "ray"


def begin_work(arguments: Arguments, name: str, sharing: int) -> Callable[[Sequence[Source]], Iterator[Result]]:
    """Return what encodes images in an actor, see `engines.ray_data`.

    Args:
        arguments: See `for_actors`.
        name: What the model is called.
        sharing: How many actors share the memory of a machine.

    Raises:
        ImportError: See `_tools`, as for the others.
        OSError: The store of the features cannot be reached.
    """
    warnings.filterwarnings("ignore", module="PIL")
    tools = _tools(arguments, say=_silent)
    limits = replace(tools.limits, memory=tools.limits.bytes(tools.encoder.device, processes=sharing))
    options = _options(arguments, replace(tools, name=name, limits=limits))
    options |= {"kind": arguments.format, "batch": tools.batch}
    if not is_url(arguments.output):
        encode = partial(encode_files, output=Path(arguments.output), encoder=tools.encoder, **options)
        return lambda sources: _by_reading(encode, sources, tools.reading)
    folder = tempfile.TemporaryDirectory(prefix="vision_longformer-")  # removed when the actor ends
    mirror = Mirror(arguments.output, Path(folder.name))
    options |= {"mirror": mirror}

    def work(sources: Sequence[Source]) -> Iterator[Result]:
        encode = partial(encode_files, output=Path(folder.name), encoder=tools.encoder, **options)
        yield from _by_reading(encode, sources, tools.reading)

    return work


def _finish(mirror: Mirror | None) -> None:
    """Send what remains to be sent: the page, and what is known of the run."""
    if mirror is not None:
        with explaining(mirror.url):
            mirror.send_rest()


def _check_split(arguments: Arguments) -> None:
    """Refuse what does not go with images that are split over processes."""
    if "RANK" not in os.environ:
        raise UsageError("--split: start it as torchrun --nproc_per_node=N -m vil encode ... --split")
    for option, given in (
        (f"--precision {arguments.precision}", arguments.precision != "float32"),
        (f"--format {arguments.format}", arguments.format not in ("auto", "zarr")),
        ("--way whole", arguments.way == "whole"),
        ("--max-side", arguments.max_side is not None),
        ("--shard", arguments.shard is not None),
        ("--engine ray", arguments.engine == "ray"),
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
