"""What bands of large maps gain in inference: a pass with bands of several sizes and without, beside one at 448².

python benchmarks/bands.py [--model vision_longformer_tiny] [--size 3584] [--mebibytes 8 16 32 64 128] [--repeats 5]

New pages are those that the system had to give to the process in one pass, and the processors' time in the system.
"""

from __future__ import annotations

import argparse
import functools
import resource
import statistics

import torch
from torch import Tensor, nn

import vision_longformer
from vision_longformer.attention import rowwise
from vision_longformer.benchmarking.machine import machine_line
from vision_longformer.benchmarking.timing import interleaved, markdown_table, ratios, spread

BASE = 448
WHOLE = 2**60  # bytes that no map takes


def run(model: nn.Module, images: Tensor, kept_bytes: int) -> None:
    """Run a pass with bands of so many bytes."""
    rowwise.KEPT_BYTES = kept_bytes
    model(images)


def new_pages(model: nn.Module, images: Tensor, kept_bytes: int) -> list[str]:
    """Return the gigabytes of new pages and the seconds in the system that one pass takes."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    run(model, images, kept_bytes)
    after = resource.getrusage(resource.RUSAGE_SELF)
    pages = (after.ru_minflt - before.ru_minflt) * resource.getpagesize()
    return [f"{pages / 1e9:.1f}", f"{after.ru_stime - before.ru_stime:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vision_longformer_tiny")
    parser.add_argument("--size", type=int, default=3584)
    parser.add_argument("--mebibytes", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    print(machine_line())
    model = vision_longformer.create_model(arguments.model).eval()
    small, large = (torch.randn(1, 3, size, size) for size in (BASE, arguments.size))
    bands = {"none": WHOLE, **{f"{number} MiB": number * 2**20 for number in arguments.mebibytes}}
    with torch.inference_mode():
        runs = {name: functools.partial(run, model, large, kept) for name, kept in bands.items()}
        runs["base"] = functools.partial(run, model, small, rowwise.KEPT_BYTES)
        seconds = interleaved(runs, repeats=arguments.repeats)
        pages = {name: new_pages(model, large, kept) for name, kept in bands.items()}
    base = seconds.pop("base")
    rows = [
        [name, f"{1000 * statistics.median(own):.0f}", spread(ratios(own, base)), *pages[name]]
        for name, own in seconds.items()
    ]
    print(markdown_table(["bands", "median ms", f"time over {BASE}²", "GB of new pages", "s in the system"], rows))


if __name__ == "__main__":
    main()
