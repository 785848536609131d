"""Many small images: `encode_many` and `vil encode` beside a plain loop, growth with their number, and skipping.

python benchmarks/many_images.py speed [--images 2000] [--size 100] [--rounds 5]
python benchmarks/many_images.py growth [--counts 1000 20000] [--size 32] [--format parquet]

`speed` takes turns over the same files in one process, decoding included, start-up excluded: a loop as one would write
it (Pillow, a batch of 32, the model), `Encoder.encode_many`, and `encode_files` as `vil encode` calls it, writing
embeddings to Parquet. `growth` encodes collections of several sizes, each into a folder of its own, then runs each
again, which has to skip all of it; memory is the peak of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

import vision_longformer
from vision_longformer.benchmarking.machine import machine_line
from vision_longformer.benchmarking.timing import markdown_table
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.extract import encode_files
from vision_longformer.images.find import find_images
from vision_longformer.utils.system_memory import peak_memory

BATCH = 32


def make_images(folder: Path, count: int, side: int) -> list[Path]:
    """Write photographs of noise that is smooth, so that JPEG has something to do."""
    folder.mkdir(parents=True)
    generator, paths = np.random.default_rng(0), []
    for number in range(count):
        small = generator.integers(0, 256, (side // 4, side // 4, 3)).astype(np.uint8)
        paths.append(folder / f"{number:06d}.jpg")
        Image.fromarray(small).resize((side, side)).save(paths[-1], quality=90)
    return paths


def build() -> Any:
    torch.manual_seed(0)
    return vision_longformer.create_model("vision_longformer_nano", num_classes=0).eval()


@torch.inference_mode()
def plain_loop(model: Any, paths: list[Path]) -> torch.Tensor:
    """Encode images as one would without the library's own collection."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    found = []
    for first in range(0, len(paths), BATCH):
        arrays = [np.asarray(Image.open(path).convert("RGB")) for path in paths[first : first + BATCH]]
        images = (torch.from_numpy(np.stack(arrays)).float() / 255 - mean) / std
        found.append(model(images.permute(0, 3, 1, 2)))
    return torch.cat(found)


def speed(count: int, side: int, rounds: int) -> None:
    """Time the three beside each other."""
    model = build()
    encoder = Encoder(model, stages=[])
    with tempfile.TemporaryDirectory() as scratch:
        paths = make_images(Path(scratch) / "in", count, side)
        sources = find_images([str(Path(scratch) / "in")])
        outputs = iter(Path(scratch) / f"out{number}" for number in range(rounds + 1))

        def to_parquet() -> None:
            list(encode_files(sources, next(outputs), encoder, model_name="nano", dtype="float32", kind="parquet"))

        ways: dict[str, Callable[[], Any]] = {
            "plain loop": lambda: plain_loop(model, paths),
            "encode_many": lambda: [features.embedding for _, features in encoder.encode_many(paths)],
            "vil encode --format parquet": to_parquet,
        }
        expected, found = plain_loop(model, paths[:100]), [f.embedding for _, f in encoder.encode_many(paths[:100])]
        print(f"largest difference of embeddings: {float((torch.stack(found) - expected).abs().max()):.1e}")
        wall: dict[str, list[float]] = {name: [] for name in ways}
        cpu: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 1):  # the first warms up
            for name, run in ways.items():
                start, used = time.perf_counter(), time.process_time()
                run()
                if turn:
                    wall[name].append(time.perf_counter() - start)
                    cpu[name].append(time.process_time() - used)
    rows = []
    for name in ways:
        ratios = [[a / b for a, b in zip(seconds["plain loop"], seconds[name], strict=True)] for seconds in (wall, cpu)]
        shown = [f"{median(found):.2f} ({min(found):.2f} to {max(found):.2f})" for found in ratios]
        rows.append([name, f"{count / median(wall[name]):.0f}", f"{count / median(cpu[name]):.0f}", *shown])
    print(f"{count} images of {side}×{side}, nano, {rounds} rounds")
    print(markdown_table(["", "images/s", "images/CPU s", "× plain loop", "× by CPU time"], rows))


def growth(counts: list[int], side: int, kind: str) -> None:
    """Encode and skip collections of several sizes, each in a process of its own."""
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch:
            make_images(Path(scratch) / "in", count, side)
            cells = [f"{count:,}"]
            for _ in ("encode", "skip"):
                command = [sys.executable, __file__, "once", scratch, "--format", kind]
                ran = subprocess.run(command, check=True, capture_output=True, text=True)
                seconds, used, peak = json.loads(ran.stdout.splitlines()[-1])
                cells += [f"{seconds:.1f}", f"{1000 * used / count:.2f}", f"{peak / 1e6:.0f}"]
        rows.append(cells)
    print(f"images of {side}×{side}, nano, {kind}")
    names = [f"{name} {what}" for what in ("encoding", "skipping") for name in ("s", "CPU ms/image", "MB")]
    print(markdown_table(["images", *names], rows))


def once(scratch: Path, kind: Any) -> None:
    """Encode a folder, finding its images included; print seconds, CPU seconds and peak memory."""
    encoder = Encoder(build(), stages=[] if kind == "parquet" else [4])
    encoder.encode(np.zeros((64, 64, 3), np.uint8))
    start, used = time.perf_counter(), time.process_time()
    for _ in encode_files(find_images([str(scratch / "in")]), scratch / "out", encoder, model_name="nano", kind=kind):
        pass
    print(json.dumps([time.perf_counter() - start, time.process_time() - used, peak_memory() or 0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "growth", "once"])
    parser.add_argument("folder", nargs="?", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 20_000])
    parser.add_argument("--size", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--format", default="parquet", choices=["parquet", "safetensors"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.what == "once":
        once(arguments.folder, arguments.format)
        return
    print(machine_line())
    if arguments.what == "speed":
        speed(arguments.images, arguments.size or 100, arguments.rounds)
    else:
        growth(arguments.counts, arguments.size or 32, arguments.format)


if __name__ == "__main__":
    main()
