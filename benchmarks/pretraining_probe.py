"""What frozen features are worth: nearest neighbours and a ridge probe on labelled folders.

    python benchmarks/pretraining_probe.py --data grocery scenes --models nano.safetensors random colours \
        --teacher lite2 --sizes 160 320 640

A folder of --data has train/CLASS/images and val/CLASS/images. A model is a weight file, "random" (nano, untrained),
"colours" (a thumbnail of 8×8 pixels), or, with --teacher, what it was taught by. Features are the pooled ones that the
classifier sees. Both measures use the training part alone for what they choose: the ridge's strength by five-fold
cross-validation; of the neighbours nothing is chosen (20 by cosine, weighted as in DINO).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vision_longformer import create_model
from vision_longformer.datasets.classification import Samples, read_split
from vision_longformer.images import read_rgb
from vision_longformer.training.teachers import load_teacher
from vision_longformer.training.weight_files import load_weights

NEIGHBOURS, TEMPERATURE = 20, 0.07
STRENGTHS = [10.0**power for power in range(-4, 4)]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

Extract = Callable[[Tensor], Tensor]  # of (n, 3, size, size) in [0, 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--models", nargs="*", default=["random", "colours"])
    parser.add_argument("--teacher", help="a folder in timm's hub layout, or a name of timm")
    parser.add_argument("--sizes", nargs="+", type=int, default=[160])
    parser.add_argument("--each", type=int, help="at most so many training images of a class, and as many of val")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for data in options.data:
        training = _some_of_each(read_split(data, "train"), options.each)
        validation = _some_of_each(read_split(data, "val", classes=training.classes), options.each)
        for size in options.sizes:
            models = {name: extractor(name) for name in options.models}
            if options.teacher:
                models["teacher"] = teacher_extractor(options.teacher, size)
            found = {name: (features(training, e, size), features(validation, e, size)) for name, e in models.items()}
            for name, (known, asked) in found.items():
                labels, truth = torch.tensor(training.labels), torch.tensor(validation.labels)
                classes = len(training.classes)
                row: dict[str, Any] = {"data": data.name, "model": Path(name).stem, "size": size}
                row["knn"] = accuracy(nearest(known, labels, asked, classes), truth)
                row["ridge"] = accuracy(ridge(known, labels, asked, classes), truth)
                row["images"] = len(truth)
                rows.append(row)
                print("{data:24} {model:24} {size:4} px  knn {knn:.3f}  ridge {ridge:.3f}  of {images}".format(**row))
                sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def _some_of_each(samples: Samples, each: int | None) -> Samples:
    if each is None:
        return samples
    chosen = [place for label in range(len(samples.classes)) for place in _places(samples, label)[:each]]
    return Samples(
        tuple(samples.paths[place] for place in chosen),
        tuple(samples.labels[place] for place in chosen),
        samples.classes,
    )


def _places(samples: Samples, label: int) -> list[int]:
    return [place for place, other in enumerate(samples.labels) if other == label]


def extractor(name: str) -> Extract:
    """Return what gives features."""
    if name == "colours":
        return lambda images: F.adaptive_avg_pool2d(images, 8).flatten(1)
    if name == "random":
        torch.manual_seed(0)
        model: Any = create_model("vision_longformer_nano").eval()
        return _pooled(model, *IMAGENET)
    trained = load_weights(name)
    return _pooled(trained.model, trained.preprocessing["mean"], trained.preprocessing["std"])


def teacher_extractor(name: str, size: int) -> Extract:
    """Return what gives a teacher's features."""
    teacher = load_teacher(name, size=size)
    return _pooled(teacher.model, teacher.mean, teacher.std)


def _pooled(model: Any, mean: Any, std: Any) -> Extract:
    mean, std = (torch.tensor(list(values))[:, None, None] for values in (mean, std))

    @torch.inference_mode()
    def extract(images: Tensor) -> Tensor:
        found: Tensor = model.forward_head(model.forward_features((images - mean) / std), pre_logits=True)
        return found

    return extract


def features(samples: Samples, extract: Extract, size: int) -> Tensor:
    """Return the (n, F) features of all images."""
    return torch.cat(
        [
            extract(torch.stack([read_square(path, size) for path in samples.paths[first : first + 32]]))
            for first in range(0, len(samples), 32)
        ]
    ).clone()


def read_square(path: Path, size: int) -> Tensor:
    """Return the largest centred square of an image as (3, size, size) in [0, 1]."""
    image = read_rgb(path)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def nearest(known: Tensor, labels: Tensor, asked: Tensor, classes: int) -> Tensor:
    """Return the class that the nearest neighbours vote for, by cosine similarity of centred features."""
    mean = known.mean(0)
    similarity = F.normalize(asked - mean, dim=1) @ F.normalize(known - mean, dim=1).T
    best = similarity.topk(min(NEIGHBOURS, len(known)), dim=1)
    votes = torch.zeros(len(asked), classes)
    votes.scatter_add_(1, labels[best.indices], (best.values / TEMPERATURE).exp())
    return votes.argmax(1)


def ridge(known: Tensor, labels: Tensor, asked: Tensor, classes: int) -> Tensor:
    """Return the class of a ridge regression to one-hot targets, its strength chosen by cross-validation."""
    mean, std = known.mean(0), known.std(0).clamp(min=1e-6)
    known, asked = ((x - mean) / std for x in (known.double(), asked.double()))
    folds = torch.arange(len(known)) % 5
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))
    folds = folds[torch.argsort(order)]

    def right(strength: float) -> int:
        total = 0
        for fold in range(5):
            held = folds == fold
            predicted = known[held] @ _fit(known[~held], labels[~held], classes, strength)
            total += int((predicted.argmax(1) == labels[held]).sum())
        return total

    strength = max(STRENGTHS, key=right)
    return (asked @ _fit(known, labels, classes, strength)).argmax(1)


def _fit(known: Tensor, labels: Tensor, classes: int, strength: float) -> Tensor:
    targets = F.one_hot(labels, classes).double()
    gram = known.T @ known / len(known)
    towards = known.T @ (targets - targets.mean(0)) / len(known)
    solved: Tensor = torch.linalg.solve(gram + strength * torch.eye(len(gram), dtype=gram.dtype), towards)
    return solved


def accuracy(predicted: Tensor, truth: Tensor) -> float:
    """Return the share that is right."""
    return float((predicted == truth).double().mean())


def interval(share: float, images: int) -> float:
    """Return half of the 95% interval of a share."""
    return 1.96 * math.sqrt(share * (1 - share) / images)


if __name__ == "__main__":
    main()
