"""A study on small data: attention mechanisms and other models under one recipe and budget, several seeds each.

python benchmarks/study.py --data sign_digits --output runs/study [--models vil resnet ...] [--seeds 0 1 2]

Each run is `vil train` in a process of its own, one after the other. Runs that are finished are not repeated, so an
interrupted study goes on where it stood. At the end the table of all finished runs is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vision_longformer.benchmarking.timing import markdown_table
from vision_longformer.training.config import ModelOptions
from vision_longformer.training.mistakes import wilson_interval
from vision_longformer.training.models import build_model

RECIPE = Path(__file__).parent.parent / "recipes" / "sign_digits_study.yaml"
SIZE, CLASSES = 128, 10
NANO = "vision_longformer_nano_ape"

# Name: model, its options, options of the recipe. The last four are cut to about the size of nano.
MODELS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "vil": (NANO, {}, []),
    "vil_relative": ("vision_longformer_nano", {}, []),
    "vil_random_shift": (NANO, {}, ["--schedule.random_shift=true"]),
    "full": (NANO, {"attention": "full"}, []),
    "linformer": (NANO, {"attention": "linformer"}, []),
    "spatial_reduction": (NANO, {"attention": "spatial_reduction_32"}, []),
    "performer": (NANO, {"attention": "performer"}, []),
    "global_only": (NANO, {"attention": "global_only"}, []),
    "resnet": ("resnet18", {"channels": [24, 48, 96, 192]}, []),
    "vit": (
        "vit_tiny_patch16_224",
        {"img_size": SIZE, "patch_size": 16, "embed_dim": 160, "depth": 6, "num_heads": 5},
        [],
    ),
    "pvt_v2": ("pvt_v2_b0", {"embed_dims": [24, 48, 120, 192]}, []),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": SIZE, "window_size": 4, "embed_dim": 32, "depths": [1, 1, 4, 1], "num_heads": [1, 2, 4, 8]},
        [],
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/study"))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--report", action="store_true", help="only print the table of what is finished")
    arguments, options = parser.parse_known_args()
    for seed in arguments.seeds:
        for name in arguments.models:
            if not arguments.report:
                train(name, seed, arguments.data, arguments.output, options)
    report(arguments.output)


def train(name: str, seed: int, data: str, output: Path, options: list[str]) -> None:
    """Run `vil train` for one model and seed, unless that is done."""
    folder = output / f"{name}-{seed}"
    if (folder / "report.html").exists():
        return
    model, model_options, recipe_options = MODELS[name]
    command = [sys.executable, "-m", "vision_longformer.cli", "train", "--recipe", str(RECIPE)]
    command += ["--data", data, "--output", str(folder), f"--seed={seed}", f"--model.name={model}"]
    command += [f"--model.options={json.dumps(model_options)}", *recipe_options, *options]
    subprocess.run(command, check=True)


def report(output: Path) -> None:
    """Print a row for each model that has a finished run."""
    rows = []
    for name, (model_name, options, _) in MODELS.items():
        folders = [folder for folder in sorted(output.glob(f"{name}-*")) if (folder / "report.html").exists()]
        folders = [folder for folder in folders if folder.name.rsplit("-", 1)[0] == name]
        if not folders:
            continue
        runs = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in folders]
        images = json.loads((folders[0] / "run.json").read_text())["validation_images"]
        # the last epoch, not the best one: nothing is chosen on the images that are reported
        top1 = [next(line["val_top1"] for line in reversed(run) if "val_top1" in line) for run in runs]
        rates = [line["images_per_second"] for run in runs for line in run if "images_per_second" in line]
        seconds = [line["images"] / line["images_per_second"] for run in runs for line in run if "images" in line]
        mean = statistics.mean(top1)
        low, high = wilson_interval(round(mean / 100 * images), images)
        model = build_model(ModelOptions(model_name, options, drop_path_rate=0.0), num_classes=CLASSES, size=SIZE)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        rows.append(
            [
                name,
                f"{parameters / 1e6:.2f}",
                f"{multiply_adds(model) / 1e9:.3f}",
                f"{statistics.median(seconds):.2f}",
                f"{statistics.median(rates):.0f}",
                ", ".join(f"{value:.1f}" for value in top1),
                f"{mean:.1f}",
                f"{100 * low:.1f} to {100 * high:.1f}",
            ]
        )
    header = ["model", "M parameters", "G multiply-adds", "s a step", "images/s", "top-1 by seed", "mean", "95%"]
    print(markdown_table(header, rows))


def multiply_adds(model: nn.Module) -> float:
    """Count the multiply-adds of one image by the operations that run."""
    config = getattr(model, "config", None)
    if config is not None:
        import vision_longformer

        return float(vision_longformer.multiply_adds(config, (SIZE, SIZE)))
    timm.layers.set_fused_attn(False)  # so that products of attention are seen
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.eval()(torch.zeros(1, 3, SIZE, SIZE))
    return float(counter.get_total_flops()) / 2


if __name__ == "__main__":
    main()
