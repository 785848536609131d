"""Run by test_processes: trains with one process and with two, which are forks of this one, and prints JSON lines.

python -m training.ranks FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from processes import in_ranks
from training.cases import asked_at, make_images, metrics, outcome, plain, recipe, weight_digest
from training.dense_cases import dense_recipe, make_coco
from vision_longformer.evaluation import classification, loop
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.training import trainer
from vision_longformer.training.config import TrainConfig
from vision_longformer.utils.distributed import join, leave

MEASURE = {"classification": "val_loss", "detection": "val_box_ap"}


def train(config: TrainConfig, data: Path, output: Path, *, count: int, stop_at: int = 10**9) -> list[dict[str, Any]]:
    """Train with `count` processes; return what each of them saw."""

    def work(rank: int) -> dict[str, Any]:
        return _rank(config, data, output, asked_at(stop_at if rank == count - 1 else 10**9))

    return in_ranks(count, output, work)


def _rank(config: TrainConfig, data: Path, output: Path, should_stop: Any) -> dict[str, Any]:
    made, evaluated = [], []
    original = trainer._Trainer.__init__
    take_all = loop.for_each_batch

    def counted(images: Any, how: EvaluationSetup, take: Any) -> bool:
        own: list[int] = []
        evaluated.append(own)

        def note(batch: Any) -> None:
            own.extend(batch.indices)
            take(batch)

        return take_all(images, how, note)

    def remember(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        made.append(self)

    setattr(trainer._Trainer, "__init__", remember)  # noqa: B010, mypy forbids the assignment
    setattr(classification, "for_each_batch", counted)  # noqa: B010
    processes = join("cpu")
    events = list(trainer.train(config, data=data, output=output, processes=processes, should_stop=should_stop))
    leave(processes)
    parts = {"model": made[0].model, **({"ema": made[0].learner.ema.module} if made[0].learner.ema else {})}
    return {
        "last": events[-1].kind,
        "evaluated": evaluated,
        "losses": [event.values["loss"] for event in events if event.kind == "step"],
        "evaluations": [event.values[MEASURE[config.task]] for event in events if event.kind == "evaluated"],
        "digests": {name: weight_digest(dict(part.state_dict())) for name, part in parts.items()},
    }


def main(folder: Path) -> None:
    """Train, and print."""
    torch.set_num_threads(1)
    # 21 images by 6: the last step of an epoch has 3, for two processes to share; 7 images are evaluated
    data = make_images(folder / "data")
    for path in list((folder / "data/val").rglob("*.png"))[:2]:
        path.unlink()
    # SGD without clipping, which notices gradients that are too large by a factor, as AdamW does not
    quiet = plain(schedule={"epochs": 5}, optimizer={"name": "sgd", "learning_rate": 0.1, "clip_norm": None})
    for count in (1, 2):
        print(json.dumps(train(quiet, data, folder / f"quiet-{count}", count=count)), flush=True)
    loud = recipe(schedule={"epochs": 2}, compute={"accumulation": 2})
    print(json.dumps(train(loud, data, folder / "loud", count=2)), flush=True)
    lives = [train(loud, data, folder / "in-parts", count=2, stop_at=stop_at) for stop_at in (3, 2, 2, 10**9)]
    whole = folder / "loud"
    same = outcome(folder / "in-parts") == outcome(whole) and metrics(folder / "in-parts") == metrics(whole)
    print(json.dumps({"kinds": [[rank["last"] for rank in ranks] for ranks in lives], "same": same}), flush=True)
    # 5 images by 4: the last step has one, which two processes cannot share
    coco = make_coco(folder / "coco")
    calm = dense_recipe(
        "detection",
        model={"drop_path_rate": 0.0, "drop_rate": 0.0},
        optimizer={"name": "sgd", "learning_rate": 0.01, "clip_norm": None},
        compute={"batch_size": 4},
    )
    for count in (1, 2):
        print(json.dumps(train(calm, coco, folder / f"coco-{count}", count=count)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
