"""Peak memory of one pass over the loaded, warmed-up model, each in a fresh process of its own.

python benchmarks/memory.py [--size 1792] [--models NAME ...] [--training --batch 2]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import timm
import torch

import vision_longformer
from vision_longformer.benchmarking.timing import markdown_table

MODELS = ["vision_longformer_small", "vision_longformer_tiny", "swin_tiny_patch4_window7_224"]


def build(name: str, size: int) -> torch.nn.Module:
    if name in vision_longformer.list_models():
        return vision_longformer.create_model(name)
    model: torch.nn.Module = timm.create_model(name, img_size=size)
    return model


def one_pass(model: torch.nn.Module, images: torch.Tensor, *, training: bool) -> None:
    if training:
        model(images).sum().backward()
        model.zero_grad(set_to_none=False)
    else:
        with torch.inference_mode():
            model(images)


def measure(name: str, *, size: int, batch: int, training: bool) -> float:
    """Return gigabytes (10⁹) of peak resident memory above that of the loaded model."""
    torch.set_num_threads(2)
    model = build(name, size).train(training)
    if name in vision_longformer.list_models():  # timm's Swin runs at the size it was built for only
        one_pass(model, torch.randn(1, 3, 64, 64), training=training)
    images = torch.randn(batch, 3, size, size)
    loaded = resident()
    one_pass(model, images, training=training)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9 - loaded / 1e9


def resident() -> int:
    """Return the bytes of memory that this process holds now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1792)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--training", action="store_true", help="forward and backward instead of inference")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        (name,) = arguments.models
        print(measure(name, size=arguments.size, batch=arguments.batch, training=arguments.training))
        return
    rows = []
    for name in arguments.models:
        settings = ["--size", str(arguments.size), "--batch", str(arguments.batch)]
        settings += ["--training"] if arguments.training else []
        command = [sys.executable, __file__, "--alone", "--models", name, *settings]
        gigabytes = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append([name, str(arguments.size), str(arguments.batch), f"{gigabytes:.2f}"])
    print(markdown_table(["model", "side", "batch", "GB above the loaded model"], rows))


if __name__ == "__main__":
    main()
