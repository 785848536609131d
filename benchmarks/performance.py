"""Speed and memory of the published models beside their peers, as Markdown tables: inference, batch 1, float32.

python benchmarks/performance.py [--parts peers exported share kernel growth memory] [--repeats 7] [--output FILE]

peers     small and tiny beside eager Swin-T and ConvNeXt-T at 448, 896 and 1792
exported  the same beside Swin-T and ConvNeXt-T in ONNX Runtime and OpenVINO (needs the extra `benchmark`)
share     what small makes of the matrix-product peak at 896
kernel    windowed attention alone at every stage of tiny and small at 896
growth    tiny from 448 to 3584
memory    peak memory of a pass at 1792

Each part is measured by itself, so that it can be run in pieces. Tables are printed as soon as they are measured, and
added to FILE.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from vision_longformer.benchmarking.benchmark import Plan, Row, benchmark, size_name
from vision_longformer.benchmarking.machine import machine_line
from vision_longformer.benchmarking.published import published_accuracy
from vision_longformer.benchmarking.runtimes import Runtime
from vision_longformer.benchmarking.timing import markdown_table, ratios, spread

HERE = Path(__file__).parent
SMALL, TINY = "vision_longformer_small", "vision_longformer_tiny"
SWIN, CONVNEXT = "swin_tiny_patch4_window7_224", "convnext_tiny"
PARTS = ("peers", "exported", "share", "kernel", "growth", "memory")
Settings = argparse.Namespace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--sizes", type=int, nargs="+", help="instead of those of the parts that are chosen")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="a Markdown file that the tables are added to")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    failed = False
    tell(settings, machine_line())
    for part in dict.fromkeys(settings.parts):
        tell(settings, f"\n`python benchmarks/performance.py --parts {part}`\n")
        try:
            tell(settings, MEASURED[part](settings))
        except ValueError as error:  # a runtime is not installed, or a number is impossible
            tell(settings, f"Not measured: {error}")
            failed = True
    sys.exit(int(failed))


def tell(settings: Settings, text: str) -> None:
    """Print text, and add it to the file."""
    print(text, flush=True)
    if settings.output:
        settings.output.parent.mkdir(parents=True, exist_ok=True)
        with settings.output.open("a", encoding="utf-8") as file:
            print(text, file=file)


def measured(
    settings: Settings, models: Sequence[str], sizes: Sequence[int], runtimes: tuple[Runtime, ...] = ("eager",)
) -> list[Row]:
    """Measure models side by side."""
    chosen = [(size, size) for size in settings.sizes or sizes]
    plan = Plan(tuple(models), tuple(chosen), runtimes, repeats=settings.repeats, threads=settings.threads)
    return list(benchmark(plan, on_step=lambda words: print(f"  {words}", file=sys.stderr, flush=True)))


def table_beside(rows: Sequence[Row], peer: str) -> str:
    """Return a table of times, and of ratios to those of the eager `peer` at the same size."""
    lines = []
    base = {row.size: row.seconds for row in rows if (row.model, row.runtime) == (peer, "eager")}
    for row in rows:
        published = published_accuracy(row.model)
        about = [size_name(row.size), row.model, f"{published.top1:g}" if published else "–", row.runtime]
        if not row.seconds or not base.get(row.size):
            lines.append([*about, row.status, "–", "–"])
            continue
        milliseconds = spread([1000 * seconds for seconds in row.seconds], 0)
        over = spread(ratios(row.seconds, base[row.size]))
        lines.append([*about, milliseconds, over, spread(row.shares_of_peak)])
    header = ["side", "model", "published top-1", "runtime", "ms", f"time over eager {peer}", "share of peak"]
    table = markdown_table(header, lines)
    notes = dict.fromkeys(f"\n{row.model} {row.note}." for row in rows if row.note)
    return "\n".join([table, *notes])


def peers(settings: Settings) -> str:
    return table_beside(measured(settings, [SMALL, TINY, SWIN, CONVNEXT], [448, 896, 1792]), SWIN)


def exported(settings: Settings) -> str:
    runtimes: tuple[Runtime, ...] = ("eager", "onnxruntime", "openvino")
    return table_beside(measured(settings, [SMALL, TINY, SWIN, CONVNEXT], [448, 896], runtimes), SWIN)


def share(settings: Settings) -> str:
    lines = []
    for row in measured(settings, [SMALL], [896]):
        assert row.multiply_adds is not None
        reached = [2 * row.multiply_adds / seconds / 1e9 for seconds in row.seconds]
        peak = [2 * row.product_multiply_adds / seconds / 1e9 for seconds in row.product_seconds]
        needed = f"{row.multiply_adds / 1e9:.1f}"
        lines.append(
            [size_name(row.size), row.model, needed, spread(reached, 0), spread(peak, 0), spread(row.shares_of_peak)]
        )
    header = ["side", "model", "G multiply-adds", "GFLOP/s", "GFLOP/s of the matrix product", "share, turn by turn"]
    return markdown_table(header, lines)


def kernel(settings: Settings) -> str:
    (size,) = settings.sizes or [896]
    command = [sys.executable, str(HERE / "windowed_attention.py"), "--size", str(size)]
    command += ["--threads", str(settings.threads), "--repeats", str(settings.repeats)]
    return output_of(command)


def growth(settings: Settings) -> str:
    sizes = settings.sizes or [448, 896, 1792, 3584]
    command = [sys.executable, str(HERE / "growth.py"), "--model", TINY, "--repeats", str(settings.repeats)]
    command += ["--sizes", *map(str, sizes)]
    return output_of(command)


def memory(settings: Settings) -> str:
    lines = []
    for size in settings.sizes or [1792]:
        command = [sys.executable, str(HERE / "memory.py"), "--size", str(size), "--models", SMALL, TINY, SWIN]
        lines.append(output_of(command))
    return "\n\n".join(lines)


def output_of(command: Sequence[str]) -> str:
    """Run another script and return what it prints, with its table in a paragraph of its own."""
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    table = next(number for number, line in enumerate(lines) if line.startswith("|"))
    return "\n".join([*lines[:table], *([""] if table else []), *lines[table:]])


MEASURED = {
    "peers": peers,
    "exported": exported,
    "share": share,
    "kernel": kernel,
    "growth": growth,
    "memory": memory,
}

if __name__ == "__main__":
    main()
