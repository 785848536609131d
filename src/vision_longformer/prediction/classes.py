"""The most probable classes of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vision_longformer.images import ImageError, describe_image, read_raster
from vision_longformer.training.tasks.classification import Classifier


@dataclass(frozen=True)
class Prediction:
    """What a classifier makes of an image.

    Attributes:
        path: The image.
        classes: The most probable classes, most probable first; empty if the image cannot be read.
        probabilities: Of each.
        error: Why the image cannot be read; "" if it can.
        note: What of the file was left out; "" if nothing was.
    """

    path: Path
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str = ""
    note: str = ""


@torch.inference_mode()
def predict(
    trained: Classifier, paths: Sequence[Path], *, top: int, device: torch.device, size: int | None = None
) -> Iterator[Prediction]:
    """Classify image files, one after the other.

    Args:
        trained: See `load_weights`.
        paths: Image files.
        top: How many classes to name.
        device: Where to compute.
        size: Side of the square in pixels; by default that of training.
    """
    transform = (trained if size is None else trained.at_size(size)).transform()
    model = trained.model.to(device).eval()
    for path in paths:
        try:
            image = read_raster(path, reading=trained.reading)
            note = describe_image(path, reading=trained.reading).note
        except ImageError as error:
            yield Prediction(path, error=str(error))
            continue
        probability = model(transform(image)[None].to(device))[0].softmax(dim=0).cpu()
        best = probability.topk(min(top, len(probability)))
        names = trained.classes or tuple(map(str, range(len(probability))))
        yield Prediction(
            path,
            tuple(names[number] for number in best.indices.tolist()),
            tuple(best.values.double().tolist()),
            note=note,
        )
