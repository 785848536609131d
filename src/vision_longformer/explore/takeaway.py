"""What a person takes away from the page: labels of whole images, and the head."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vision_longformer.backbone import VisionLongformer
from vision_longformer.explore.head import FittedHead
from vision_longformer.explore.jobs import OnShare
from vision_longformer.explore.opened import OpenedImage
from vision_longformer.explore.session import Applied, Session
from vision_longformer.explore.tokens import Explored
from vision_longformer.prediction.formats import FORMATS, format_of
from vision_longformer.prediction.measures import ImageFacts
from vision_longformer.prediction.predictor import read_picture
from vision_longformer.prediction.results import SemanticResult
from vision_longformer.segmentation.token_head import NO_DATA, tokens_to_pixels
from vision_longformer.training.tasks.strokes import HeadFacts, StrokeSegmenter, save_stroke_model
from vision_longformer.weights import READING, weights_digest

# What the page offers: a name of `prediction.formats`, and its ending.
OFFERED = {"labels": "Label image", "zarr": "OME-Zarr", "geojson": "GeoJSON", "csv": "Table of areas"}
MASK_ROWS = 1024
HEAD_FILE = "head.safetensors"


def labelled(image: OpenedImage, explored: Explored, applied: Applied, classes: tuple[str, ...]) -> SemanticResult:
    """Return the class of every pixel of an image, for the writers of `vil predict`."""
    stride, size = explored.grid.stride, explored.image_size
    labels = np.asarray(tokens_to_pixels(applied.labels, stride=stride, size=size))
    every = True
    for top in range(0, size[0], MASK_ROWS):
        band = explored.features.valid[top : top + MASK_ROWS]
        every &= bool(band.all())
        labels[top : top + MASK_ROWS][~band] = NO_DATA
    names = tuple(classes[number] for number in applied.fitted.fitted.numbers)
    return SemanticResult(
        image=image.facts,
        class_names=names,
        picture=partial(read_picture, image.path, image.reading),
        labels=labels,
        valid=None if every else labels != NO_DATA,
    )


def export(session: Session, image: int, kind: str, on_share: OnShare) -> tuple[Path, dict[str, int]]:
    """Label a whole image and write it below the session's output.

    Args:
        session: With a head.
        image: Its number.
        kind: One of `OFFERED`.
        on_share: Told how much is done.

    Returns:
        The file or folder, and how many pixels there are of each class.

    Raises:
        ValueError: There is no head, or no such kind.
        ImportError: A package is missing.
        OSError: It cannot be written.
    """
    if kind not in OFFERED:
        raise ValueError(f"format={kind}: must be one of {', '.join(OFFERED)}")
    applied = session.apply(image, lambda share: on_share(0.7 * share))
    opened = session.image(image)
    result = labelled(opened, session.explored(image), applied, session.project.classes)
    name = format_of(kind, "pixels", opened.facts)
    path = session.output / f"{opened.name}.labels{FORMATS[name].suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    result.save(path, format=name)
    counts = result.pixels.tolist()
    return path, dict(zip(result.class_names, counts, strict=True))


def save_head(session: Session, backbone: Callable[[], VisionLongformer]) -> Path:
    """Write the head and its backbone for `vil predict`.

    Args:
        session: With a head.
        backbone: Gives the model that made the features.

    Raises:
        ValueError: There is no head, or the model is not the one that made the features.
        OSError: It cannot be written.
    """
    number = next((number for number, image in enumerate(session.images) if image.explored is not None), 0)
    fitted, _ = session.model(number)
    opened = session.image(number)
    model = segmenter(fitted.fitted, session.explored(number), backbone(), opened.facts)
    about = session.explored(number).features.metadata
    preprocessing: dict[str, Any] = {"mean": about["mean"], "std": about["std"], "interpolation": "bilinear"}
    if (reading := about.get("reading")) is not None:
        preprocessing[READING] = reading
    path = session.output / HEAD_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    classes = [session.project.classes[number] for number in fitted.fitted.numbers]
    save_stroke_model(model, path, classes=classes, preprocessing=preprocessing)
    return path


def segmenter(fitted: FittedHead, explored: Explored, backbone: VisionLongformer, facts: ImageFacts) -> StrokeSegmenter:
    """Put a head onto its backbone.

    Raises:
        ValueError: The features are not of this backbone.
    """
    about = explored.features.metadata
    digest = weights_digest(backbone)
    if digest != about["weights_sha256"]:
        raise ValueError(
            f"the features are of other weights than {about.get('model')} has now: give those that made them with "
            "--checkpoint"
        )
    head = HeadFacts(explored.stages, about["dtype"], digest, facts.pixel_size)
    with torch.no_grad():
        return StrokeSegmenter(backbone, head, len(fitted.numbers)).with_head(fitted.head)
