"""One object that says of any image what a trained model finds in it."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image

from vision_longformer.evaluation.flips import Flips, check_flips
from vision_longformer.features.small_pictures import small_photograph
from vision_longformer.images import AS_STORED, ChosenReader, ImageLike, Reader, Reading, open_reader
from vision_longformer.images.pixel_size import read_pixel_size
from vision_longformer.images.pixels import open_image
from vision_longformer.prediction.classes import classify
from vision_longformer.prediction.dense import LookOptions, OnProgress, Seen, look
from vision_longformer.prediction.limits import Limits, limits_of
from vision_longformer.prediction.measures import ImageFacts
from vision_longformer.prediction.results import ClassesResult, ObjectsResult, Result, SemanticResult
from vision_longformer.prediction.strokes import look_by_strokes
from vision_longformer.tiling.choosing import Tiling
from vision_longformer.training.tasks.classification import Classifier
from vision_longformer.training.tasks.strokes import StrokeModel
from vision_longformer.training.trained import Trained
from vision_longformer.training.weight_files import load_weights
from vision_longformer.utils.devices import choose_device
from vision_longformer.weights import MIN_SCORE, weights_digest

PICTURE_WIDTH = 4096  # pixels of the largest picture that is drawn on
DEFAULT_MIN_SCORE, TOP = 0.5, 5
SILENT = OnProgress()
# By what a model gives: options that are not for it.
FOR_CLASSIFIERS = ("top", "size")
FOR_DETECTORS = ("min_score", "classes", "detections")
NOT_FOR_STROKES = ("tile", "overlap", "scale", "flips")
FOR_OTHERS = (*FOR_DETECTORS, "tile", "overlap", "memory", "scale", "simplify")
UNFIT = {"classes": FOR_OTHERS, "objects": FOR_CLASSIFIERS, "pixels": (*FOR_CLASSIFIERS, *FOR_DETECTORS)}


@dataclass(frozen=True)
class PredictOptions:
    """What is asked of a model; None stands for the default.

    Attributes:
        top: Classifiers: how many classes to name (5).
        size: Classifiers: side of the square in pixels; that of training.
        min_score: Detectors: leave out objects that are less certain; by default as training chose, or 0.5.
        classes: Detectors: keep objects of the classes of these names only; all.
        detections: Detectors: the most objects of an image; as in training.
        tile: Others: side of tiles in pixels; images that fit into memory are looked at whole.
        overlap: Others: pixels that neighbouring tiles share; a quarter of their side.
        memory: Others: bytes that one pass may take beside the model; 60% of what is free.
        scale: Others: factor that images are resized by before the model sees them; as in training.
        flips: Which flipped copies of an image are looked at too: "horizontal", "all" (upside down too) or "none". What
            they show is averaged. No image is streamed then: what does not fit into memory is cut into tiles.
        simplify: Others: pixels by which outlines may be moved to have fewer vertices; 0 for the exact edges of pixels.

    Raises:
        ValueError: A number is out of range.
    """

    top: int | None = None
    size: int | None = None
    min_score: float | None = None
    classes: tuple[str, ...] | None = None
    detections: int | None = None
    tile: int | None = None
    overlap: int | None = None
    memory: int | None = None
    scale: float | None = None
    flips: Flips | None = None
    simplify: float | None = None

    def __post_init__(self) -> None:
        for name in ("top", "size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        check_flips(self.flips or "none")
        if self.scale is not None and not self.scale > 0:
            raise ValueError(f"scale={self.scale}: must be above 0")
        if self.simplify is not None and not self.simplify >= 0:
            raise ValueError(f"simplify={self.simplify}: must be at least 0")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score={self.min_score}: must lie between 0 and 1")


DEFAULTS = PredictOptions()


class Predictor:
    """Says of images what a trained model finds in them; `load_predictor` makes one.

    Call it with an image, or a list of images, and it gives a result, or a list of results: `ObjectsResult`,
    `SemanticResult` or `ClassesResult`, by what the model was trained for. An image is a path, the bytes of a file
    (`io.BytesIO`), a Pillow image, an array (see `images.read_pixels`) or a reader (see `images.open_reader`), which is
    closed afterwards. Images of any size are taken: what does not fit into memory is streamed or cut into tiles.

    Args:
        trained: See `load_weights`.
        options: What is asked of it.
        device: Where to compute.

    Raises:
        ValueError: An option is not for this model, or out of range for it.
    """

    def __init__(
        self, trained: Trained, options: PredictOptions = DEFAULTS, *, device: torch.device | None = None
    ) -> None:
        for name in UNFIT[trained.gives]:
            if getattr(options, name) is not None:
                raise ValueError(f"{name}: is not for weights that were trained for {trained.task.replace('_', ' ')}")
        self.device = torch.device("cpu") if device is None else device
        names = trained.classes or ()
        self._wanted = None if options.classes is None else [_number(name, names) for name in options.classes]
        if options.detections is not None:
            trained.limit_detections(options.detections)
        if options.size is not None:
            trained = trained.at_size(options.size)
        trained.model.to(self.device).eval()
        self.trained, self.options = trained, options
        self.limits: Limits | None = None
        self._tiling = None
        if isinstance(trained, StrokeModel):
            for name in NOT_FOR_STROKES:
                if getattr(options, name) is not None:
                    raise ValueError(f"{name}: is not for a head of `vil explore`, which takes images as they are")
        elif trained.gives != "classes":
            tiles: dict[str, Any] = {"tile": options.tile, "overlap": options.overlap, "memory": options.memory}
            self.limits = limits_of(trained) if options.detections is None else None
            self._tiling = Tiling(trained.model, limits=self.limits, **tiles)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the model's classes, by number."""
        if self.trained.classes is None and isinstance(self.trained, Classifier):
            num_classes: Any = self.trained.model.num_classes
            return tuple(map(str, range(num_classes)))
        return self.trained.classes or ()

    @property
    def scale(self) -> float:
        """Factor that images are resized by before the model sees them."""
        if self.options.scale is not None:
            return self.options.scale
        return float(self.trained.preprocessing.get("scale", 1.0))

    @property
    def min_score(self) -> float:
        """Objects that are less certain are left out."""
        if self.options.min_score is not None:
            return self.options.min_score
        return float(self.trained.preprocessing.get(MIN_SCORE, DEFAULT_MIN_SCORE))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that results depend on besides the image, for JSON: the digest of the weights, and what was asked.

        Not the memory: it decides which tiles are looked at where none were asked for, and may differ from run to run.
        """
        asked = {key: value for key, value in asdict(self.options).items() if key not in ("memory", "scale")}
        return {
            "task": self.trained.task,
            "weights_sha256": weights_digest(self.trained.model),
            "classes_of_model": list(self.class_names),
            "preprocessing": self.trained.preprocessing,
            **asked,
            "min_score": self.min_score,
            "scale": self.scale,
        }

    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...]) -> list[Result]: ...
    @overload
    def __call__(self, images: ImageLike) -> Result: ...
    def __call__(self, images: ImageLike | list[Any] | tuple[Any, ...]) -> Result | list[Result]:
        """Say what is found in an image, or in each of a list.

        Raises:
            ImageError: An image cannot be read; the message names it.
            ValueError: No tile fits into memory.
            MemoryError: There was less memory than was free before.
        """
        if isinstance(images, list | tuple):
            return [self.predict(image) for image in images]
        return self.predict(images)

    def predict(
        self,
        image: ImageLike,
        *,
        name: str | None = None,
        reading: Reading | None = None,
        work_folder: Path | None = None,
        progress: OnProgress = SILENT,
    ) -> Result:
        """Say what is found in one image.

        Args:
            image: See the class.
            name: What the result calls it; by default its path.
            reading: How a file is read; by default as in training.
            work_folder: Where maps go that do not fit into memory, until it is done; by default the system's place for
                temporary files.
            progress: Who is told how far it is.

        Raises:
            ImageError: See `__call__`, as for the others.
        """
        path = Path(image) if isinstance(image, str | os.PathLike) else None
        reading = self.trained.reading if reading is None else reading
        reader = _open(image, reading)
        with contextlib.closing(reader):
            facts = ImageFacts(
                name if name is not None else "" if path is None else str(path),
                reader.info.size,
                reader.info.georeference,
                _pixel_size(path, reader),
                reader.info.downsample,
                reader.info.full_size,
            )
            about: dict[str, Any] = {
                "image": facts,
                "class_names": self.class_names,
                "picture": _picture(image, reader, reading),
            }
            if path is not None:
                about["reader"] = partial(_open, path, reading)
            if isinstance(self.trained, Classifier):
                top = TOP if self.options.top is None else self.options.top
                flips = self.options.flips or "none"
                numbers, scores = classify(self.trained, reader, top=top, device=self.device, flips=flips)
                names = tuple(self.class_names[number] for number in numbers)
                return ClassesResult(classes=names, class_numbers=numbers, scores=scores, **about)
            seen = self._look(reader, path, work_folder, progress)
        about |= {"tiles": seen.tiles, "streamed": seen.streamed, "tolerance": self.options.simplify or 0.0}
        if seen.labels is not None:
            return SemanticResult(labels=seen.labels, label_file=seen.label_file, valid=seen.valid, **about)
        assert seen.objects is not None
        return ObjectsResult(objects=seen.objects, **about)

    def _look(self, reader: Reader, path: Path | None, work_folder: Path | None, progress: OnProgress) -> Seen:
        if isinstance(self.trained, StrokeModel):
            return look_by_strokes(
                self.trained,
                reader,
                path,
                memory=self.options.memory,
                work_folder=work_folder,
                device=self.device,
                progress=progress,
            )
        options = LookOptions(
            self.scale,
            self.min_score,
            self._wanted,
            self.options.detections,
            work_folder,
            self.options.flips or "none",
        )
        assert self._tiling is not None
        return look(self.trained, reader, tiling=self._tiling, device=self.device, options=options, progress=progress)


def load_predictor(
    weights: str | os.PathLike[str], *, device: str = "auto", options: PredictOptions = DEFAULTS, **asked: Any
) -> Predictor:
    """Return what says of images what a trained model finds in them.

    Args:
        weights: A weight file, such as best.safetensors of a run, or the name of weights of the package (`vil models`).
        device: "cpu", "cuda", "cuda:1"; "auto" prefers a GPU.
        options: What is asked of it.
        asked: Fields of `PredictOptions` by name, in place of `options`: `min_score=0.3`.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: They cannot be used, or an option is not for them or out of range.
        TypeError: There is no option of this name.
    """
    if asked:
        if "classes" in asked and asked["classes"] is not None:
            asked["classes"] = tuple(asked["classes"])
        options = PredictOptions(**asked)
    return Predictor(load_weights(Path(weights)), options, device=choose_device(device))


def _open(image: ImageLike, reading: Reading) -> Reader:
    """Open an image of any kind as a model takes it. A path is read by rows where its format allows that."""
    if isinstance(image, str | os.PathLike):
        return open_reader(image, **vars(reading))
    reader = open_image(image)
    if reading.channels is None and reading.value_range is None:
        return reader
    return ChosenReader(reader, reading.channels, value_range=reading.value_range)


def _pixel_size(path: Path | None, reader: Reader) -> tuple[float, float] | None:
    """Return the (height, width) of a pixel in micrometres, as it is read; None if its file does not say."""
    if reader.info.pixel_size is not None or path is None:
        return reader.info.pixel_size
    full, (down, across) = read_pixel_size(path), reader.info.downsample
    return None if full is None else (full[0] * down, full[1] * across)


def _picture(image: ImageLike, reader: Reader, reading: Reading) -> Callable[[], Image.Image]:
    """Return what gives an image as RGB, read again: a result keeps no pixels beside those that it was given."""
    if isinstance(image, str | os.PathLike | io.BytesIO | Image.Image | np.ndarray):
        return partial(read_picture, image, reading)
    return partial(_refuse_picture, reader.info.name)  # a reader, which is closed


def _refuse_picture(name: str) -> Image.Image:
    raise ValueError(f"{name}: its reader is closed; give the image to draw on (image)")


def read_picture(image: ImageLike, reading: Reading = AS_STORED) -> Image.Image:
    """Return an image as RGB; one larger than `PICTURE_WIDTH` smaller, read band by band.

    Args:
        image: See `Predictor`.
        reading: How a model reads it.

    Raises:
        ImageError: It cannot be read.
    """
    with contextlib.closing(_open(image, reading)) as reader:
        return Image.fromarray(small_photograph(reader, reading.model_channels, max_width=PICTURE_WIDTH).numpy())


def _number(name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise ValueError(f"classes {name}: the weights know {', '.join(names)}")
    return list(names).index(name)
