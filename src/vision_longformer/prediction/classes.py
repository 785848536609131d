"""The most probable classes of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision_longformer.evaluation.flips import Flips, with_flips
from vision_longformer.features.batches import windows
from vision_longformer.features.failures import reason_of
from vision_longformer.features.read_ahead import default_workers, read_ahead
from vision_longformer.images import Reader, open_reader
from vision_longformer.images.find import Source
from vision_longformer.images.rasters import whole_raster
from vision_longformer.images.reader import MAX_PIXELS, check_pixels
from vision_longformer.training.tasks.classification import Classifier

BATCH = 32
PIXELS_AHEAD = 50_000_000  # of an image; larger ones are decoded when it is their turn, alone

_Best = tuple[tuple[int, ...], tuple[float, ...]]  # numbers of classes, most probable first, and their probabilities


@dataclass(frozen=True)
class Prediction:
    """What a classifier makes of an image.

    Attributes:
        path: The image, or its URL.
        classes: The most probable classes, most probable first; empty if the image cannot be read.
        probabilities: Of each.
        error: Why the image cannot be read; "" if it can.
        note: What of the file was left out; "" if nothing was.
    """

    path: Path | str
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str = ""
    note: str = ""


def predict(
    trained: Classifier,
    paths: Sequence[Path | Source],
    *,
    top: int,
    device: torch.device,
    size: int | None = None,
    batch: int = BATCH,
    flips: Flips = "none",
) -> Iterator[Prediction]:
    """Classify image files in batches, while threads decode what comes next.

    Args:
        trained: See `load_weights`.
        paths: Image files; or what `find_images` finds, by URL too.
        top: How many classes to name.
        device: Where to compute.
        size: Side of the square in pixels; by default that of training.
        batch: Most images at once.
        flips: See `PredictOptions`.

    Yields:
        What is predicted of each, in order.
    """
    trained = trained if size is None else trained.at_size(size)
    trained.model.to(device).eval()
    num_classes: Any = trained.model.num_classes
    names = trained.classes or tuple(map(str, range(num_classes)))
    if flips != "none":
        trained = replace(trained, model=with_flips(trained.model, flips))
    sources = [image if isinstance(image, Source) else Source(image, image.name) for image in paths]

    def look(source: Source) -> _Seen:
        return _look(trained, source, most_pixels=PIXELS_AHEAD)

    looking = read_ahead(sources, look, workers=default_workers(), ahead=batch)
    with closing(looking):
        for window in windows(looking, most=batch):
            # a large image is held only until it is a square
            looked = [found if found.is_done else _look(trained, source) for source, found in window]
            squares = [found.square for found in looked if found.square is not None]
            best = iter(_best_of_each(trained, squares, top=top, device=device))
            for (source, _), found in zip(window, looked, strict=True):
                place = source.path if source.remote is None else source.location
                if found.square is None:
                    yield Prediction(place, error=found.error)
                elif isinstance(said := next(best), str):
                    yield Prediction(place, error=f"{place}: {said}")
                else:
                    numbers, probabilities = said
                    yield Prediction(place, tuple(names[number] for number in numbers), probabilities, note=found.note)


@dataclass(frozen=True)
class _Seen:
    """An image as a classifier takes it.

    Attributes:
        square: (C, size, size); None if it cannot be read, or was not, as it is large.
        error: Why it cannot be read.
        note: What of the file was left out.
    """

    square: Tensor | None = None
    error: str = ""
    note: str = ""

    @property
    def is_done(self) -> bool:
        """Whether there is no more to do."""
        return self.square is not None or self.error != ""


def _look(trained: Classifier, source: Source, *, most_pixels: int = MAX_PIXELS) -> _Seen:
    """Read an image, unless it has more pixels."""
    path = source.path
    try:
        with source.at_hand() as near:
            path = near.path
            with closing(open_reader(path, **vars(source.asked.on(trained.reading)))) as reader:
                if MAX_PIXELS >= reader.info.height * reader.info.width > most_pixels:
                    return _Seen()
                return _Seen(_square(trained, reader), note=reader.info.note)
    except Exception as error:
        return _Seen(error=f"{source.location}: {reason_of(error, path)}")


def _square(trained: Classifier, reader: Reader) -> Tensor:
    """Return (C, size, size) of an open image."""
    check_pixels(reader.info.name, reader.info.size, MAX_PIXELS)
    square: Tensor = trained.transform()(whole_raster(reader, trained.reading.model_channels))
    return square


def _best_of_each(trained: Classifier, squares: list[Tensor], *, top: int, device: torch.device) -> list[_Best | str]:
    """Return what `_best` does, or, of an image with which it fails even alone, why."""
    if not squares:
        return []
    try:
        return [*_best(trained, torch.stack(squares), top=top, device=device)]
    except Exception as error:  # such as want of memory
        if len(squares) == 1:
            return [reason_of(error, Path())]
        return [found for square in squares for found in _best_of_each(trained, [square], top=top, device=device)]


@torch.inference_mode()
def _best(trained: Classifier, squares: Tensor, *, top: int, device: torch.device) -> list[_Best]:
    """Return the numbers of the most probable classes of each image, most probable first, and their probabilities."""
    probabilities = trained.model(squares.to(device)).float().softmax(dim=1).cpu()
    best = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
    pairs = zip(best.indices.tolist(), best.values.double().tolist(), strict=True)
    return [(tuple(numbers), tuple(values)) for numbers, values in pairs]


def classify(trained: Classifier, reader: Reader, *, top: int, device: torch.device, flips: Flips = "none") -> _Best:
    """Return the numbers of an open image's most probable classes, most probable first, and their probabilities.

    Args:
        trained: In evaluation mode, on `device`.
        reader: The image.
        top: How many classes.
        device: Where to compute.
        flips: Which flipped copies are looked at too.

    Raises:
        ImageError: The image cannot be read.
    """
    seen = replace(trained, model=with_flips(trained.model, flips))
    return _best(seen, _square(trained, reader)[None], top=top, device=device)[0]
