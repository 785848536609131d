"""Tables, precision-recall curves and example pictures of finished runs of detection and segmentation.

python benchmarks/dense_results.py --data bccd --split val --figure docs/images/bccd.png runs/bccd runs/bccd_resnet18

Each run is measured anew from its best weights. With `--examples FOLDER`, the first run's predictions on a few images
at even distances in the split are drawn there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vision_longformer.benchmarking.timing import markdown_table
from vision_longformer.evaluation.coco import AveragePrecision
from vision_longformer.evaluation.detection import DetectionResult
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.evaluation.metric_names import name_of
from vision_longformer.images.rasters import as_rgb
from vision_longformer.prediction.draw_objects import draw_objects, select
from vision_longformer.training import checkpoints
from vision_longformer.training.weight_files import load_weights

EXAMPLES = 3
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's but for yellow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--examples", type=Path)
    parser.add_argument("--min-score", type=float, default=0.5)
    arguments = parser.parse_args()
    results = {}
    for run in arguments.runs:
        trained = load_weights(run / "best.safetensors")
        setup = EvaluationSetup(batch_size=1, workers=0, device=torch.device("cpu"))
        results[run] = trained.evaluate(trained.read(arguments.data, arguments.split), setup)
    measures = list(next(iter(results.values())).metrics())  # type: ignore[union-attr]
    header = ["run", "M parameters", "epochs", "minutes", *map(name_of, measures)]
    print(markdown_table(header, [row(run, result, measures) for run, result in results.items()]))
    detections = {run: result for run, result in results.items() if isinstance(result, DetectionResult)}
    if detections and arguments.figure:
        draw_curves({run.name: result for run, result in detections.items()}, arguments.figure)
    if detections and arguments.examples:
        draw_examples(next(iter(detections.values())), arguments.examples, min_score=arguments.min_score)


def row(run: Path, result: Any, measures: list[str]) -> list[str]:
    """Return what a run took and reached."""
    about = json.loads((run / "run.json").read_text())
    minutes = checkpoints.read(run / "last.safetensors").progress.seconds / 60
    found = result.metrics()
    values = ["–" if found[name] is None else f"{found[name]:.3f}" for name in measures]
    epochs = about["steps"] // about["steps_per_epoch"]
    return [run.name, f"{about['parameters'] / 1e6:.2f}", str(epochs), f"{minutes:.0f}", *values]


def draw_curves(results: dict[str, DetectionResult], path: Path) -> None:
    """Draw precision against recall at IoU 0.5, a panel for each class and kind, a line for each run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    first = next(iter(results.values()))
    kinds = [kind for kind in ("box", "mask") if getattr(first.scores, kind) is not None]
    panels = [(kind, label) for kind in kinds for label in range(len(first.scores.classes))]
    figure = Figure(figsize=(4.2 * len(panels), 4.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (kind, label) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for (name, result), colour in zip(results.items(), COLOURS, strict=False):
            scores: AveragePrecision = getattr(result.scores, kind)
            text = f"{name}: AP50 {scores.class_ap50[label]:.2f}"
            axes.plot(scores.recalls, scores.precisions[label], color=colour, linewidth=2, label=text)
        kind_name = "" if len(kinds) == 1 else f", {'boxes' if kind == 'box' else 'masks'}"
        axes.set_title(f"{first.scores.classes[label]}{kind_name}", fontsize=14)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axes.grid(True, color="#d5d8dc", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower left", fontsize=11, framealpha=0.9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def draw_examples(result: DetectionResult, folder: Path, *, min_score: float) -> None:
    """Draw what was found on a few images."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in np.linspace(0, len(result.split) - 1, EXAMPLES + 2).astype(int)[1:-1].tolist():
        found = select(result.found[number], min_score=min_score)
        picture = draw_objects(as_rgb(result.split.read(number)), found, classes=result.scores.classes)
        picture.save(folder / f"{number:04d}.jpg", quality=85)


if __name__ == "__main__":
    main()
