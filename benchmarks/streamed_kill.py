"""SIGKILL at random moments: `vil encode` is killed, run again until it ends, and must give the same bytes.

python benchmarks/streamed_kill.py [--kills 20] [--size 1500x2000] [--model vision_longformer_tiny] [--seed 0]

A run that is not killed comes first. Each of the others is killed once, at a moment drawn evenly from the time between
its first file of maps and the end of that first run; a run that ends before that does not count.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from mosaic import parse_size, write_mosaic

from vision_longformer.benchmarking.timing import markdown_table

WORK = "work"


def command(arguments: argparse.Namespace, folder: Path, output: Path) -> list[str]:
    """Return the command that encodes the image."""
    vil = [sys.executable, "-m", "vil", "encode", str(folder / "mosaic.tif")]
    return [
        *vil,
        *("--output", str(output), "--model", arguments.model, "--way", "spilled"),
        *("--work-folder", str(folder / WORK), "--no-report", "--dtype", "float32", "--format", "safetensors"),
    ]


def result(output: Path) -> bytes:
    """Return the bytes of the features."""
    return (output / "mosaic.tif.safetensors").read_bytes()


def run(words: list[str]) -> tuple[float, float]:
    """Run to the end, and return when files of maps first were there, and when it was over, in seconds."""
    begin, first = time.monotonic(), 0.0
    work = Path(words[words.index("--work-folder") + 1])
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if not first and any(work.glob("*/*.map")):
                first = time.monotonic() - begin
            time.sleep(0.01)
    if process.returncode:
        sys.exit(f"it failed with exit code {process.returncode}: {' '.join(words)}")
    return first, time.monotonic() - begin


def kill(words: list[str], delay: float) -> bool:
    """Run, and kill the process so many seconds after its first file of maps; return whether it still ran."""
    work = Path(words[words.index("--work-folder") + 1])
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not any(work.glob("*/*.map")):
            time.sleep(0.01)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
            return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--size", type=parse_size, default=(1500, 2000), help="HEIGHTxWIDTH in pixels")
    parser.add_argument("--model", default="vision_longformer_tiny")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    torch.set_num_threads(1)
    rows: list[list[str]] = []
    same = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_mosaic(folder / "mosaic.tif", *arguments.size)
        first, last = run(command(arguments, folder, folder / "whole"))
        expected = result(folder / "whole")
        attempts = 0
        while len(rows) < arguments.kills:
            attempts += 1
            words, delay = command(arguments, folder, folder / str(attempts)), generator.uniform(0, last - first)
            if not kill(words, delay):  # it had ended before: another moment
                continue
            checkpoint = any((folder / WORK).glob("*/progress.safetensors"))
            run(words)
            equal = result(folder / str(attempts)) == expected
            clean = not any((folder / WORK).iterdir())
            same += equal and clean
            row = [str(len(rows) + 1), f"{delay:.2f}", *("yes" if it else "no" for it in (checkpoint, equal, clean))]
            print(*row, file=sys.stderr, flush=True)
            rows.append(row)
    print(markdown_table(["", "killed after s", "went on from a checkpoint", "same bytes", "work files gone"], rows))
    print(f"{same} of {arguments.kills} gave the same bytes")
    sys.exit(same < arguments.kills)


if __name__ == "__main__":
    main()
