"""The command line, `vil`. Each command has a function that adds its arguments and one that runs it (`COMMANDS`).

Exit codes: 0 all went well, 1 something failed on the way, 2 the command was not understood, 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import jsonargparse
import torch
from rich.console import Console

from vision_longformer import VisionLongformer, __version__, create_model
from vision_longformer.conversion import convert_file
from vision_longformer.encoding import Encoder
from vision_longformer.family import describe_family, family_table
from vision_longformer.feature_files import OutputError, encode_files, find_images
from vision_longformer.progress import follow, summary
from vision_longformer.reference import ReferenceOptions
from vision_longformer.serialization import load

Arguments = jsonargparse.Namespace
UNTRAINED = (
    "The model has no trained weights: its features carry no meaning yet, and pictures only show how it works. "
    "Give trained ones with --checkpoint."
)


class UsageError(Exception):
    """The command cannot be carried out as it was typed."""


class _Parser(jsonargparse.ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sentence = " ".join((message or str(ex)).split())
        for command in COMMANDS:
            sentence = sentence.replace(f"{command}.", "")
        raise UsageError(f"{sentence.rstrip('.')} (see {self.prog.replace(' [options]', '')} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `vil` with these arguments, by default those of the process.

    Returns:
        The exit code.
    """
    try:
        code = _run(argv)
        sys.stdout.flush()  # here, where a closed pipe can be dealt with
        return code
    except BrokenPipeError:  # what reads our output, such as `head`, has seen enough
        with open(os.devnull, "w") as devnull:
            os.dup2(devnull.fileno(), sys.stdout.fileno())  # for what Python flushes at exit
        return 1


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = _parser().parse_args(None if argv is None else list(argv))
        _, run = COMMANDS[arguments.command]
        return run(arguments[arguments.command])
    except UsageError as error:
        _tell(str(error))
        return 2
    except KeyboardInterrupt:
        _tell("interrupted; what was finished is kept, and running again goes on from there")
        return 130
    except SystemExit as error:  # --help and --version
        return error.code if isinstance(error.code, int) else 0


def _parser() -> jsonargparse.ArgumentParser:
    parser = _Parser(
        prog="vil",
        version=__version__,
        description="Encode high-resolution images of any size with the Multi-Scale Vision Longformer.",
    )
    commands = parser.add_subcommands(dest="command", title="commands", metavar="COMMAND")
    for name, (arguments, _) in COMMANDS.items():
        command = arguments()
        commands.add_subcommand(name, command, help=command.description)
    return parser


def _tell(message: str) -> None:
    print(f"vil: {message}", file=sys.stderr)


# --- vil encode -------------------------------------------------------------------------------------------------


def _encode_arguments() -> _Parser:
    parser = _Parser(description="Turn images into feature files, one for each, and a report to look at.")
    add = parser.add_argument
    add("images", nargs="+", type=str, metavar="IMAGES", help="Files, folders (with all below them) or patterns.")
    add("--output", required=True, type=str, metavar="DIR", help="Folder for the features; created if need be.")
    add("--model", default="vision_longformer_tiny", type=str, help="Name of a model; `vil models` lists them.")
    add("--checkpoint", type=str | None, metavar="FILE", help="Weights of this library, which say their model.")
    add("--stages", nargs="+", type=int, default=[4], metavar="N", help="Whose maps to keep, from 1.")
    add("--dtype", choices=["float16", "float32"], default="float16", help="Of stored features.")
    add("--max-side", type=int | None, metavar="PIXELS", help="Shrink larger images; by default none are.")
    add("--max-pixels", type=int, default=500_000_000, metavar="N", help="Refuse images with more pixels.")
    add("--device", default="auto", type=str, help="Where to compute: cpu, cuda, cuda:1; auto prefers a GPU.")
    add("--no-report", action="store_true", help="Do not write DIR/index.html.")
    add("--seed", type=int, default=0, help="Draws the weights of an untrained model, so that runs repeat.")
    return parser


def _encode(arguments: Arguments) -> int:
    warnings.filterwarnings("ignore", module="PIL")  # about odd but readable files
    try:
        sources = find_images(arguments.images)
        name, model = _model(arguments)
        encoder = Encoder(
            model,
            stages=arguments.stages,
            max_side=arguments.max_side,
            max_pixels=arguments.max_pixels,
            device=_device(arguments.device),
        )
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    remark = "" if arguments.checkpoint else UNTRAINED
    if remark:
        _tell(f"warning: {remark}")
    results = encode_files(
        sources,
        Path(arguments.output),
        encoder,
        model_name=name,
        dtype=arguments.dtype,
        report=not arguments.no_report,
        remark=remark,
    )
    console = Console(stderr=True)
    try:
        finished = follow(results, total=len(sources), console=console)
    except OutputError as error:
        _tell(str(error))
        return 1
    page = "" if arguments.no_report else f"; look at {Path(arguments.output) / 'index.html'}"
    print(f"{summary(finished)} Features are in {arguments.output}{page}.")
    return int(any(result.status == "failed" for result in finished))


def _model(arguments: Arguments) -> tuple[str, VisionLongformer]:
    """Return the model that was asked for, and what to call it."""
    if arguments.checkpoint:
        return arguments.checkpoint, load(arguments.checkpoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        model = create_model(arguments.model)
    assert isinstance(model, VisionLongformer)
    return arguments.model, model


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: there is no such device here") from error
    return name


# --- vil models -------------------------------------------------------------------------------------------------


def _models_arguments() -> _Parser:
    parser = _Parser(description="List the models with their sizes, costs and published accuracies.")
    parser.add_argument("--size", type=int, default=1024, metavar="PIXELS", help="Count costs at this square too.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    return parser


def _models(arguments: Arguments) -> int:
    if arguments.size < 1:
        raise UsageError(f"--size {arguments.size}: must be at least 1 pixel")
    rows = describe_family(arguments.size)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        Console().print(family_table(rows, arguments.size))
    return 0


# --- vil convert ------------------------------------------------------------------------------------------------


def _convert_arguments() -> _Parser:
    parser = _Parser(description="Turn a checkpoint of the published code into a file of this library.")
    add = parser.add_argument
    add("checkpoint", type=str, metavar="CHECKPOINT", help="A .pth file of the published code.")
    add(
        "--arch", required=True, type=str, metavar="STRING", help="Its architecture: l1,h3,d96,n1,s1,g1,p4,f7,a0_l2,..."
    )
    add("--output", required=True, type=str, metavar="PATH", help="A .safetensors file, or a folder in timm's layout.")
    add("--image-size", type=int, default=224, metavar="PIXELS", help="Side of the square it was trained at.")
    add("--windowed", action="store_true", help="Turn full attention into windowed, for any resolution.")
    add("--stretch-tables", action="store_true", help="With --windowed, stretch bias tables as the detection code did.")
    add("--class-names", type=str | None, metavar="FILE", help="One name a line, stored with the weights.")
    add("--report", type=str | None, metavar="FILE", help="Write what became of every entry as JSON.")
    add(
        "--num-classes",
        type=int,
        default=1000,
        help="Published option, as those below; see vision_longformer.reference.",
    )
    add("--norm-embed", type=bool, default=True, metavar="BOOL", help="Patch embeddings end in a LayerNorm.")
    add("--sharew", type=bool, default=True, metavar="BOOL", help="Global tokens share the projections of local ones.")
    add("--share-kv", type=bool, default=True, metavar="BOOL", help="Linformer projects keys and values alike.")
    add("--attn-type", type=str, default="longformerhand", metavar="NAME", help="Mechanism of stages with s1.")
    add("--sw-exact", type=int, default=0, metavar="N", help="0 chunks, 1 exact windows, -1 cyclic chunks.")
    add("--mode", type=int, default=0, metavar="N", help="0 all neighbours, -1 own chunk, above 0 random shift.")
    add("--only-glo", type=bool, default=False, metavar="BOOL", help="Local tokens see global tokens alone.")
    add("--avg-pool", type=bool, default=False, metavar="BOOL", help="Average tokens even with a global token.")
    return parser


def _convert(arguments: Arguments) -> int:
    published = {field.name: arguments[field.name] for field in dataclasses.fields(ReferenceOptions)}
    try:
        weights, report = convert_file(
            arguments.checkpoint,
            arguments.output,
            arch=arguments.arch,
            image_size=arguments.image_size,
            options=ReferenceOptions(**published),
            windowed=arguments.windowed,
            stretch_tables=arguments.stretch_tables,
            class_names=arguments.class_names,
            report_file=arguments.report,
        )
    except (OSError, ValueError) as error:
        _tell(str(error))
        return 1
    print(f"{weights}: {report.summary()}")
    return 0


COMMANDS: dict[str, tuple[Callable[[], _Parser], Callable[[Arguments], int]]] = {
    "encode": (_encode_arguments, _encode),
    "models": (_models_arguments, _models),
    "convert": (_convert_arguments, _convert),
}


if __name__ == "__main__":
    sys.exit(main())
