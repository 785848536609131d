"""A study on small data: attention mechanisms and other models under one recipe and budget, several seeds each.

python benchmarks/study.py --data sign_digits --output runs/study [--models vil resnet ...] [--seeds 0 1 2]
python benchmarks/study.py --data sign_digits --output runs/study --time
python benchmarks/study.py --data sign_digits --output runs/study --report

Each run is `vil train` in a process of its own, one after the other. A finished run is not repeated and an interrupted
one is continued, so the same command goes on where it stood. `--time` measures a training step of all models
afterwards, in one process and in turn. The table of all finished runs is written to OUTPUT/table.md and printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from study_models import MODELS
from study_steps import measure_steps
from study_table import is_finished, markdown

from vision_longformer.training.recipes import SHIPPED

RECIPE = SHIPPED / "sign_digits_study.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/study"))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--time", action="store_true", help="measure the training step of all models, and train none")
    parser.add_argument("--report", action="store_true", help="only write the table of what is finished")
    arguments, options = parser.parse_known_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.time:
        measure_steps(RECIPE, arguments.output)
    elif not arguments.report:
        for seed in arguments.seeds:
            for name in arguments.models:
                train(name, seed, arguments.data, arguments.output, options)
    table = markdown(arguments.output)
    (arguments.output / "table.md").write_text(table, encoding="utf-8")
    print(table)


def train(name: str, seed: int, data: str, output: Path, options: Sequence[str]) -> None:
    """Run `vil train` for one model and seed, unless that is done."""
    folder = output / f"{name}-{seed}"
    if is_finished(folder):
        return
    model = MODELS[name]
    command = [sys.executable, "-m", "vil", "train", "--recipe", str(RECIPE)]
    command += ["--data", data, "--output", str(folder), f"--seed={seed}", f"--model.name={model.name}"]
    command += [f"--model.options={json.dumps(model.options)}", f"--schedule.random_shift={model.random_shift}"]
    subprocess.run([*command, *options], check=True)


if __name__ == "__main__":
    main()
