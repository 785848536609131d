"""A large image streamed from its file: peak memory, disk, and pixels a second against a pass over a whole image.

python benchmarks/mosaic.py mosaic.tif --size 32768x32768
python benchmarks/streamed_speed.py mosaic.tif --memory 4GB [--model vision_longformer_tiny] [--way auto]

Passes over a whole image of 3584×3584 pixels are timed before and after, with as many threads, each in a fresh process.
All that `vil encode` does is counted: planning, reading, encoding, and writing the last stage's map.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from planning import DiskWatch

import vision_longformer
from vision_longformer.benchmarking.machine import machine_line
from vision_longformer.benchmarking.models import Step
from vision_longformer.benchmarking.timing import interleaved, markdown_table
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.formats import write_features
from vision_longformer.features.strategies import Limits, encoded_image
from vision_longformer.utils.system_memory import parse_bytes, peak_memory

SIDE = 3584  # of the whole image in pixels


def encode(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Encode the image in this process."""
    torch.manual_seed(0)
    model: Any = vision_longformer.create_model(arguments.model)
    encoder = Encoder(model, stages=[4])
    limits = Limits(arguments.way, parse_bytes(arguments.memory))
    work = folder / "work"
    work.mkdir()
    watch = DiskWatch(work)
    watch.start()
    shown = time.monotonic()

    def show(share: float, _pixels: int) -> None:
        nonlocal shown
        if time.monotonic() - shown > 60:
            shown = time.monotonic()
            print(f"{share:.0%} after {shown - start:.0f} s", file=sys.stderr, flush=True)

    start = time.monotonic()
    with encoded_image(encoder, arguments.image, limits=limits, work_folder=work, on_band=show) as image:
        write_features(folder / "features", image.encoded, {}, dtype=torch.float16, kind=arguments.format)
    seconds = time.monotonic() - start
    watch.over.set()
    watch.join()
    chosen, (height, width) = image.plan.chosen, image.plan.size
    return {
        "pixels": height * width,
        "way": chosen.strategy,
        "seconds": seconds,
        "peak": peak_memory(),
        "forecast": chosen.memory,
        "files": watch.most,
        "disk": chosen.disk,
    }


def whole(arguments: argparse.Namespace) -> float:
    """Return the pixels a second of a pass over a whole image in this process, after one that warms up."""
    torch.set_num_threads(arguments.threads)
    model = vision_longformer.create_model(arguments.model)
    step = Step(model, torch.randn(1, 3, SIDE, SIDE), training=False)
    return SIDE**2 / min(interleaved({"whole": step}, repeats=1)["whole"])


def alone(arguments: argparse.Namespace, what: str) -> Any:
    """Run a part in a fresh process."""
    command = [sys.executable, __file__, str(arguments.image), "--alone", what]
    for option in ("model", "memory", "way", "threads", "format"):
        command += [f"--{option}", str(getattr(arguments, option))]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--model", default="vision_longformer_tiny")
    parser.add_argument("--memory", default="4GB", help="that the process may take")
    parser.add_argument("--way", choices=["auto", "whole", "streamed", "spilled"], default="auto")
    parser.add_argument("--format", choices=["safetensors", "zarr"], default="safetensors")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alone", choices=["encode", "whole"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.alone == "whole":
        print(json.dumps(whole(arguments)))
        return
    if arguments.alone == "encode":
        with tempfile.TemporaryDirectory(dir=arguments.image.parent) as folder:
            print(json.dumps(encode(arguments, Path(folder))))
        return
    print(machine_line())
    before, took, after = (alone(arguments, what) for what in ("whole", "encode", "whole"))
    rate, reference = took["pixels"] / took["seconds"], statistics.mean([before, after])
    row = [f"{took['pixels'] / 1e6:.0f}", took["way"], f"{took['seconds']:.0f}", f"{rate / 1e6:.3f}"]
    row += [f"{before / 1e6:.3f}, {after / 1e6:.3f}", f"{rate / reference:.0%}"]
    row += [f"{took[key] / 1e9:.2f}" for key in ("peak", "forecast", "files", "disk")]
    header = ["megapixels", "way", "seconds", "megapixels/s", f"whole {SIDE}², before and after", "of it"]
    header += ["peak GB", "forecast GB", "files GB", "forecast GB"]
    print(markdown_table(header, [row]))


if __name__ == "__main__":
    main()
