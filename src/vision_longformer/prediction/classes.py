"""The most probable classes of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vision_longformer.features.failures import reason_of
from vision_longformer.images import Reader, open_reader
from vision_longformer.images.rasters import whole_raster
from vision_longformer.images.reader import MAX_PIXELS, check_pixels
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
    trained = trained if size is None else trained.at_size(size)
    trained.model.to(device).eval()
    num_classes: Any = trained.model.num_classes
    names = trained.classes or tuple(map(str, range(num_classes)))
    for path in paths:
        try:
            with closing(open_reader(path, **vars(trained.reading))) as reader:
                numbers, probabilities = classify(trained, reader, top=top, device=device)
                note = reader.info.note
        except Exception as error:
            yield Prediction(path, error=f"{path}: {reason_of(error, path)}")
            continue
        yield Prediction(path, tuple(names[number] for number in numbers), probabilities, note=note)


@torch.inference_mode()
def classify(
    trained: Classifier, reader: Reader, *, top: int, device: torch.device
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the numbers of an open image's most probable classes, most probable first, and their probabilities.

    Args:
        trained: In evaluation mode, on `device`.
        reader: The image.
        top: How many classes.
        device: Where to compute.

    Raises:
        ImageError: The image cannot be read.
    """
    check_pixels(reader.info.name, reader.info.size, MAX_PIXELS)
    image = whole_raster(reader, trained.reading.model_channels)
    probability = trained.model(trained.transform()(image)[None].to(device))[0].float().softmax(dim=0).cpu()
    best = probability.topk(min(top, len(probability)))
    return tuple(best.indices.tolist()), tuple(best.values.double().tolist())
