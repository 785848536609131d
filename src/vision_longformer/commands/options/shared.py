"""What the options of several commands have in common."""

from __future__ import annotations

import jsonargparse

from vision_longformer.commands.common import Parser
from vision_longformer.utils.precisions import PRECISIONS

FILE_METAVARS = {"FILE", "PATH", "IMAGE", "IMAGES", "CHECKPOINT", "DATA", "QUERY", "FEATURES"}  # which shells complete
FOLDER_METAVARS = {"DIR"}
DEVICE_HELP = "Where to compute: cpu, cuda, cuda:1; auto prefers a GPU."


def add_model(parser: Parser) -> None:
    """Add which model encodes, and where."""
    add = parser.add_argument
    add("--model", default="vision_longformer_nano", type=str, help="Name of a model; `vil models` lists them.")
    add("--checkpoint", type=str | None, metavar="FILE", help="Weights of this library, which say their model.")
    add("--stages", nargs="+", type=int, default=[4], metavar="N", help="Whose maps to keep, from 1.")
    add("--device", default="auto", type=str, help=DEVICE_HELP)
    add("--seed", type=int, default=0, help="Draws the weights of an untrained model, so that runs repeat.")


def add_saying(parser: Parser) -> None:
    """Add how much a command says; and its result as JSON, unless it has none, or an option for a file of it."""
    add = parser.add_argument
    if "--json" not in parser._option_string_actions and parser.has_result:
        add("--json", action="store_true", help="Print the result as JSON, and nothing else to standard output.")
    add("--quiet", "-q", action="store_true", help="Say what failed, and the result; no remarks and no progress.")
    add("--verbose", "-v", action="store_true", help="Say what is decided on the way, and why.")


def add_json_file(parser: Parser, what: str) -> None:
    """Add the option of a command whose result goes into a file, or to standard output."""
    text = f"Write {what} as JSON; without FILE print it, and nothing else to standard output."
    parser.add_argument("--json", nargs="?", const="-", type=str | None, metavar="FILE", help=text)


def add_engine(parser: Parser) -> None:
    """Add where many images are worked on."""
    add = parser.add_argument
    engine_help = "What shares the images out: none, or ray, to actors on all machines of a cluster."
    address_help = "Of the cluster, or auto on one of its machines; by default RAY_ADDRESS, else this machine alone."
    add("--engine", choices=["none", "ray"], default="none", help=engine_help)
    add("--address", type=str | None, metavar="ADDRESS", help=address_help)
    add("--actors", type=int | None, metavar="N", help="Of Ray: how many; by default as many as there is room for.")
    add("--actor-cpus", type=float, default=1.0, metavar="N", help="CPUs that each actor takes.")
    add("--actor-gpus", type=float | None, metavar="N", help="GPUs of each; by default 1 where there are any.")


def add_precision(parser: Parser, *, streams: bool = False) -> None:
    """Add what is computed in, by a command that may stream images."""
    precision_help = "float32, or bf16 (autocast): half the memory, and faster where the device computes in it."
    if streams:
        precision_help += " Streamed images: float32."
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help=precision_help)


def add_reading(parser: Parser, *, by_default: str = "By default as the weights were trained.") -> None:
    """Add how images are read.

    Args:
        parser: Of the command.
        by_default: What holds where an option is not given; "{}" is the name of its field.
    """
    add = parser.add_argument
    level_help = "Of the pyramid of a slide or TIFF; 0 is full resolution."
    channels_help = "Which channels to take, in this order, counted from 0."
    range_help = "Stored values that become 0 and 1, where their type does not say so: 0 4095 for 12 bits in 16."
    mpp_help = "Micrometres a pixel: the next finer level of a slide or TIFF is resampled to that."
    power_help = "The same for slides, as the power of an objective, such as 20."
    tissue_help = "Take bare glass, around the tissue of a slide, for missing: colour is what tells them apart."
    level_help, channels_help, range_help, mpp_help, power_help, tissue_help = (
        f"{text} {by_default.format(field)}"
        for text, field in (
            (level_help, "level"),
            (channels_help, "channels"),
            (range_help, "value_range"),
            (mpp_help, "mpp"),
            (power_help, "magnification"),
            (tissue_help, "tissue"),
        )
    )
    add("--level", type=int | None, metavar="N", help=level_help)
    add("--mpp", type=float | None, metavar="UM", help=mpp_help)
    add("--magnification", type=float | None, metavar="POWER", help=power_help)
    add("--tissue", action=jsonargparse.ActionYesNo(no_prefix="no-"), default=None, help=tissue_help)
    add("--channels", nargs="+", type=int, metavar="N", help=channels_help)
    add("--value-range", nargs=2, type=float, metavar=("LOW", "HIGH"), help=range_help)
