"""Forecasts of memory and disk against measurement, each in a fresh process: 12 cases from 1 to 400 megapixels.

python benchmarks/planning.py [--cases 1 5 ...] [--work-folder DIR]

Memory is the peak resident size of the process, libraries and model included. A forecast may be off by 15%, and not
be below by more than 5%. The images are noise that is made as it is read.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vision_longformer
from vision_longformer.benchmarking.timing import markdown_table
from vision_longformer.features.encoder import Encoder
from vision_longformer.images import ArrayReader, PixelRows
from vision_longformer.images.pixels import whole_pixels
from vision_longformer.memory.plans import Strategy, plan
from vision_longformer.streaming import stream
from vision_longformer.utils.system_memory import peak_memory

# Strategy, model, height, width, and gigabytes that bands must fit into
CASES: list[tuple[Strategy, str, int, int, float]] = [
    ("whole", "nano", 1024, 1024, 100),
    ("whole", "small", 2048, 1536, 100),
    ("whole", "tiny", 3584, 3584, 100),
    ("whole", "nano", 3000, 8000, 100),
    ("streamed", "small", 3072, 2048, 100),
    ("streamed", "tiny", 4000, 8000, 100),
    ("streamed", "nano", 10000, 10000, 100),
    ("streamed", "tiny", 5000, 6000, 1.15),
    ("spilled", "small", 2048, 5000, 100),
    ("spilled", "tiny", 6000, 4000, 100),
    ("spilled", "nano", 12000, 16000, 100),
    ("spilled", "nano", 20000, 20000, 100),
]
OFF, BELOW = 0.15, 0.05


class Noise(ArrayReader):
    """An image of some rows of noise, repeated."""

    ROWS = 512

    def __init__(self, height: int, width: int) -> None:
        super().__init__(np.broadcast_to(np.zeros((1, 1, 1), np.uint8), (height, width, 3)))
        self._noise = np.random.default_rng(0).integers(0, 256, (self.ROWS, width, 3), dtype=np.uint8)

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        return PixelRows(self._noise[np.arange(top, bottom) % self.ROWS])


class DiskWatch(threading.Thread):
    """Notes the most bytes that a folder's files had together."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.most, self.over = folder, 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.2):
            with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
                self.most = max(self.most, sum(_size(entry) for entry in entries))


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return 0


def measure(case: int, folder: Path) -> dict[str, Any]:
    """Encode once, in this process, and return what was forecast and what it took."""
    way, name, height, width, gigabytes = CASES[case]
    torch.set_num_threads(2)
    torch.manual_seed(0)
    model: Any = vision_longformer.create_model(f"vision_longformer_{name}")
    encoder = Encoder(model, stages=[4])
    reader = Noise(height, width)
    found = plan(
        encoder.model, height, width, memory=int(gigabytes * 1e9), outputs=[4], strategies=[way], image=reader.info
    ).chosen
    watch = DiskWatch(folder)
    watch.start()
    start = time.perf_counter()
    if way == "whole":
        encoder.encode(whole_pixels(reader, 3))
    else:
        spilled = way == "spilled"
        stream(
            encoder.model,
            reader,
            stages=[4],
            work_folder=folder if spilled else None,
            resume=spilled,
            band_bytes=found.band_bytes or 1,
        )
    seconds = time.perf_counter() - start
    watch.over.set()
    watch.join()
    return {
        "memory": found.memory,
        "peak": peak_memory(),
        "disk": found.disk,
        "files": watch.most,
        "band": found.band_bytes,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", type=int, default=range(1, len(CASES) + 1), help="numbers, from 1")
    parser.add_argument("--work-folder", type=Path, help="for spilled maps, which are removed")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(measure(arguments.cases[0] - 1, arguments.work_folder)))
        return
    rows, failed = [], 0
    for number in arguments.cases:
        way, name, height, width, _ = CASES[number - 1]
        if arguments.work_folder is not None:
            arguments.work_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=arguments.work_folder) as folder:
            command = [sys.executable, __file__, "--alone", "--cases", str(number), "--work-folder", folder]
            took = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        off = took["memory"] / took["peak"] - 1
        failed += not -BELOW <= off <= OFF
        band = "–" if took["band"] is None else f"{took['band'] // 2**20} MiB"
        numbers = [f"{took[key] / 1e9:.2f}" for key in ("memory", "peak")]
        disk = [f"{took[key] / 1e9:.2f}" for key in ("disk", "files")]
        size = f"{height}×{width}"
        pixels = f"{height * width / 1e6:.0f}"
        rows.append([str(number), way, name, size, pixels, band, *numbers, f"{off:+.1%}", *disk])
        print(*rows[-1], f"{took['seconds']:.0f} s", file=sys.stderr, flush=True)
    header = ["", "way", "model", "size", "megapixels", "bands", "forecast GB", "peak GB", "off", "disk GB", "files GB"]
    print(markdown_table(header, rows))
    if failed:
        sys.exit(f"{failed} of {len(rows)} forecasts are off by more than {OFF:.0%}, or below by more than {BELOW:.0%}")


if __name__ == "__main__":
    main()
