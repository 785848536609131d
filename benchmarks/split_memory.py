"""One image on several processes: what each of them holds at its peak, beside one process that does it alone.

python benchmarks/split_memory.py [--size 5000x6000] [--processes 2] [--model vision_longformer_tiny] [--way streamed]

The maps of all stages are kept. Memory is the peak resident size of the largest process, less that of a process that
has the model and has encoded a small image. `--size 12500x16000` has 200 megapixels. Features are compared too.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr
from mosaic import parse_size, write_mosaic

from vision_longformer.benchmarking.timing import markdown_table

# prints the most bytes that the largest of the processes below it held
CHILD = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(code)
"""


def measured(arguments: argparse.Namespace, image: Path, output: Path, *, processes: int) -> tuple[int, float]:
    """Encode an image; return the peak bytes of the largest process, and seconds."""
    vil = ["-m", "vil", "encode", str(image), "--output", str(output), "--model", arguments.model]
    vil += ["--format", "zarr", "--way", arguments.way, "--no-report", "--dtype", "float32", "--stages", *"1234"]
    command = [sys.executable, *vil]
    if processes > 1:
        torchrun = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
        command = [sys.executable, *torchrun, *vil, "--split"]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CHILD, *command], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout), time.perf_counter() - start


def difference(one: Path, other: Path) -> float:
    """Return the largest difference of the maps of two Zarr folders, over the largest magnitude of a map."""
    worst = 0.0
    groups = [zarr.open_group(folder, mode="r") for folder in (one, other)]
    for stage in range(1, 5):
        first, second = (group[f"stage{stage}"] for group in groups)
        differs = largest = 0.0
        for top in range(0, first.shape[0], first.chunks[0]):
            rows = [np.asarray(array[top : top + first.chunks[0]]) for array in (first, second)]
            differs = max(differs, float(np.abs(rows[0] - rows[1]).max()))
            largest = max(largest, float(np.abs(rows[0]).max()))
        worst = max(worst, differs / largest)
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=parse_size, default=(5000, 6000))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--model", default="vision_longformer_tiny")
    parser.add_argument("--way", default="streamed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        image, small = folder / "mosaic.tif", folder / "small.tif"
        write_mosaic(image, *arguments.size)
        write_mosaic(small, 64, 64)
        base, _ = measured(arguments, small, folder / "small", processes=1)
        rows = []
        for count in (1, arguments.processes):
            peak, seconds = measured(arguments, image, folder / str(count), processes=count)
            rows.append((count, peak, peak - base, seconds))
        worst = difference(*(folder / str(count) / "mosaic.tif.zarr" for count in (1, arguments.processes)))
    alone, own = rows[0][1], rows[0][2]
    columns = ["processes", "peak GB of each", "of one's", "above a loaded model, GB", "of one's", "seconds"]
    table = [
        [
            str(count),
            f"{peak / 1e9:.2f}",
            f"{peak / alone:.2f}",
            f"{above / 1e9:.2f}",
            f"{above / own:.2f}",
            f"{seconds:.0f}",
        ]
        for count, peak, above, seconds in rows
    ]
    print(markdown_table(columns, table))
    print(f"\nlargest difference of a map: {worst:.1e} of its largest magnitude")


if __name__ == "__main__":
    main()
