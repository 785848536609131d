"""`vil pretrain`: folders of images without labels, and a teacher, to a model that has learned from them."""

from __future__ import annotations

from typing import Any

from vision_longformer.commands.common import Arguments, Parser, UsageError
from vision_longformer.commands.train import INTERRUPTED, STOPPED, carry_out, options_given
from vision_longformer.training.config import TrainConfig, walk
from vision_longformer.training.recipes import build, override, read_recipe

# Where neither the recipe nor the command line says otherwise. Two processors see about a million views in an hour.
DEFAULTS: dict[str, Any] = {
    "task": "distillation",
    "model": {"name": "vision_longformer_nano", "drop_path_rate": 0.0},
    "input": {"size": 128, "crop_share": 1.0},
    "augmentation": {"crop_scale": [0.35, 1.0], "rand_augment": None, "color_jitter": 0.2, "mixup": 0, "cutmix": 0},
    "optimizer": {"learning_rate": 1e-3, "clip_norm": 1.0},
    "schedule": {"epochs": 30, "warmup_epochs": 1},
    "compute": {"batch_size": 128},
}


def arguments() -> Parser:
    parser = Parser(
        description=(
            "Pretrain a model on images without labels: it learns to say of them what a trained classifier says. Run "
            "the same command again to continue a run that was stopped: it ends as if it had not been. Exit codes: "
            f"{STOPPED} stopped by SIGTERM and saved, {INTERRUPTED} by Ctrl-C and saved."
        )
    )
    add = parser.add_argument
    add("--recipe", type=str | None, metavar="FILE", help="YAML file with any of the options below.")
    add("--data", required=True, type=str, nargs="+", metavar="DIR", help="Folders of images, searched to any depth.")
    add("--teacher", type=str | None, metavar="NAME|FILE", help="Short for --distillation.teacher.")
    add("--output", required=True, type=str, metavar="DIR", help="Folder of the run; created if need be.")
    defaults = {option.path: option.value for option in walk(build(DEFAULTS))}
    for option in walk(TrainConfig()):
        if option.path not in ("task",) and not option.path.startswith("dense."):
            default = "none" if defaults[option.path] is None else defaults[option.path]
            add(f"--{option.path}", type=str | None, metavar="VALUE", help=f"{option.help} (default: {default})")
    return parser


def run(arguments: Arguments) -> int:
    try:
        config = _config(arguments)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    return carry_out(config, data=arguments.data, output=arguments.output)


def _config(arguments: Arguments) -> TrainConfig:
    recipe = {} if arguments.recipe is None else read_recipe(arguments.recipe)
    given = options_given(arguments)
    if arguments.teacher is not None:
        given.append(f"--distillation.teacher={arguments.teacher}")
    try:
        return build(override(_over(DEFAULTS, recipe), given))
    except ValueError as error:
        where = "" if arguments.recipe is None else f"{arguments.recipe}: "
        raise ValueError(f"{where}{error}") from error


def _over(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Return `values` with `others` in their place, one level of groups deep."""
    return values | {
        name: values[name] | other if isinstance(values.get(name), dict) and isinstance(other, dict) else other
        for name, other in others.items()
    }
