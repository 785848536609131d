"""What the page works on: images, strokes over them, what was asked, and what follows from that.

Whatever is shown depends on a revision, which changes with every answer; an overlay of an older one is not given out.
H×W tokens of the finest stage
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vision_longformer.explore import overlays
from vision_longformer.explore.head import FittedHead, NotEnoughError, cross_validate, fit_head, next_uncertain
from vision_longformer.explore.jobs import Jobs, OnShare
from vision_longformer.explore.opened import OpenedImage, check_same_backbone
from vision_longformer.explore.similarity import FoundRegions, Point, RegionOptions, Similarity, regions
from vision_longformer.explore.strokes import Project, Stroke
from vision_longformer.explore.tokens import Explored
from vision_longformer.prediction.colours import class_colour
from vision_longformer.segmentation.token_grid import Array, Region, Summed
from vision_longformer.segmentation.token_head import BAND, label_tokens, margins, token_of

MOST_AT_ONCE = 4 * 2**20  # tokens of an image of which similarities are computed while the page waits
AVOIDED = 200  # uncertain places that are remembered

Overlay = Literal["classes", "doubt", "similar"]


class StaleError(ValueError):
    """An overlay of another revision than the latest one was asked for."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A head, on the images of the session.

    Attributes:
        fitted: The head.
        logits: Of each image.
    """

    fitted: FittedHead
    logits: dict[int, Summed]


@dataclass(frozen=True, eq=False)
class Asked:
    """What was asked to be alike.

    Attributes:
        image: Number of the image.
        similarity: To the points.
        points: As given.
        against: As given.
        stage: As given.
        whole: (H, W) similarities; None where the image is too large.
        threshold: Least similarity of regions; None shows the heat map.
    """

    image: int
    similarity: Similarity
    points: tuple[Point, ...]
    against: tuple[Point, ...]
    stage: int | None
    whole: Array | None
    threshold: float | None = None
    found: FoundRegions | None = None


@dataclass(frozen=True, eq=False)
class Applied:
    """Labels of a whole image, and the head that gave them."""

    fitted: Fitted
    labels: NDArray[np.uint8]

    @cached_property
    def shares(self) -> dict[int, float]:
        """Share of the tokens of each class, by its number."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.fitted.fitted.numbers)).tolist()
        numbers = self.fitted.fitted.numbers
        return {number: count / self.labels.size for number, count in zip(numbers, counts, strict=True)}


@dataclass(eq=False)
class Session:
    """Images and strokes, from the opening of the page to its end; threads may share it.

    Attributes:
        images: As given.
        project_file: Where strokes are kept.
        project: Classes and strokes.
        output: Folder for what is taken away.
        revision: Grows with every answer.
    """

    images: Sequence[OpenedImage]
    project_file: Path
    project: Project
    output: Path
    revision: int = 0
    jobs: Jobs = field(default_factory=Jobs)
    fitted: Fitted | None = None
    asked: Asked | None = None
    applied: dict[int, Applied] = field(default_factory=dict)
    why_no_head: str = ""

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._undone: dict[int, list[Stroke]] = {}
        self._shown: list[tuple[int, int, int]] = []  # uncertain places: image, row, column
        self.refit()

    def explored(self, image: int) -> Explored:
        """Return the features of an image.

        Raises:
            ValueError: They are not there yet.
        """
        opened = self.image(image)
        if opened.explored is None:
            raise ValueError(opened.problem or f"{opened.name} is still being encoded: wait until that is done")
        return opened.explored

    def image(self, number: int) -> OpenedImage:
        """Return an image.

        Raises:
            ValueError: There is none of this number.
        """
        if not 0 <= number < len(self.images):
            raise ValueError(f"image={number}: there are {len(self.images)}, counted from 0")
        return self.images[number]

    # Strokes

    def paint(self, image: int, stroke: Stroke) -> None:
        """Add a stroke."""
        with self._lock:
            self._undone.pop(image, None)
            self._set_strokes(image, [*self.strokes(image), stroke])

    def undo(self, image: int) -> None:
        """Take back the last stroke."""
        with self._lock:
            if not self.strokes(image):
                raise ValueError("there is no stroke to take back")
            *before, last = self.strokes(image)
            self._set_strokes(image, before)
            self._undone.setdefault(image, []).append(last)

    def redo(self, image: int) -> None:
        """Paint again what was taken back last."""
        with self._lock:
            if not self._undone.get(image):
                raise ValueError("there is no stroke to paint again")
            self._set_strokes(image, [*self.strokes(image), self._undone[image].pop()])

    def strokes(self, image: int) -> tuple[Stroke, ...]:
        """Return the strokes over an image."""
        return self.project.of(self.image(image).digest)

    def undone(self, image: int) -> int:
        """Return how many strokes can be painted again."""
        return len(self._undone.get(image, ()))

    def set_classes(self, names: Sequence[str]) -> None:
        """Name classes: as many as before, or more at the end.

        Raises:
            ValueError: There are fewer, or a name is none.
        """
        with self._lock:
            if len(names) < len(self.project.classes):
                raise ValueError("classes: they can be renamed and added, not taken away, as strokes refer to them")
            self._keep(replace(self.project, classes=tuple(names)))
            self.revision += 1

    def _set_strokes(self, image: int, strokes: Sequence[Stroke]) -> None:
        opened = self.image(image)
        self._keep(self.project.with_strokes(opened.digest, strokes, name=opened.name))
        self.refit()

    def _keep(self, project: Project) -> None:
        """Take a project once it is on disk."""
        try:
            project.save(self.project_file)
        except OSError as error:
            raise ValueError(f"strokes cannot be kept in {self.project_file} ({error.strerror})") from error
        self.project = project

    # The head

    def labelled(self) -> list[tuple[Explored, tuple[Stroke, ...]]]:
        """Return all images with features, and the strokes over them; those without any last."""
        found = [(image.explored, self.project.of(image.digest)) for image in self.images if image.explored is not None]
        return sorted(found, key=lambda pair: not pair[1])

    def refit(self) -> None:
        """Fit the head to the strokes as they are."""
        with self._lock:
            found, problem = None, ""
            try:
                found = self._fit()
            except ValueError as error:
                problem = str(error)
            self.fitted, self.why_no_head = found, problem
            self.revision += 1

    def _fit(self) -> Fitted:
        check_same_backbone(self.images)
        if not (images := self.labelled()):
            raise NotEnoughError("features are being made")
        fitted = fit_head(images)
        logits = {
            number: fitted.head.on(image.explored.grid)
            for number, image in enumerate(self.images)
            if image.explored is not None
        }
        return Fitted(fitted, logits)

    def model(self, image: int) -> tuple[Fitted, Summed]:
        """Return the head, and its logits of an image.

        Raises:
            ValueError: There is none, or the image has no features yet.
        """
        self.explored(image)
        fitted = self.fitted
        if fitted is None or image not in fitted.logits:
            raise NotEnoughError(self.why_no_head or "paint places of at least two classes")
        return fitted, fitted.logits[image]

    def quality(self) -> dict[str, Any]:
        """Return what heads say of strokes that were held out, for JSON."""
        found = cross_validate(self.labelled())
        names = [self.project.classes[number] for number in found.numbers]
        return {"accuracy": found.accuracy, "strokes": found.strokes, "iou": dict(zip(names, found.iou, strict=True))}

    def uncertain(self, image: int, view: Sequence[float]) -> list[float] | None:
        """Return x and y of the place in a view, (left, top, right, bottom), of which the head is least certain."""
        _, logits = self.model(image)
        grid = logits.grid
        top, left = token_of((view[0], view[1]), stride=grid.stride, size=grid.size)
        bottom, right = token_of((view[2], view[3]), stride=grid.stride, size=grid.size)
        region = Region(top, max(bottom, top) + 1, left, max(right, left) + 1)
        if (region.bottom - region.top) * (region.right - region.left) > MOST_AT_ONCE:
            raise overlays.FarOutError("this view is too wide to look for uncertain places: zoom in")
        points = [point for stroke in self.strokes(image) for point in stroke.points]
        avoid = [token_of(point, stride=grid.stride, size=grid.size) for point in points]
        avoid += [(row, column) for number, row, column in self._shown if number == image]
        found = next_uncertain(logits, region, avoid=avoid)
        if found is None:
            return None
        self._shown = [*self._shown, (image, *found)][-AVOIDED:]
        return [(place + 0.5) * grid.stride for place in found[::-1]]

    def applied_now(self, image: int) -> Applied | None:
        """Return the labels of a whole image that the head of now gave, if there are such."""
        applied = self.applied.get(image)
        return applied if applied is not None and applied.fitted is self.fitted else None

    def apply(self, image: int, on_share: OnShare) -> Applied:
        """Label a whole image, unless that was done with the same head."""
        fitted, logits = self.model(image)
        if (known := self.applied_now(image)) is not None:
            return known
        height, width = logits.grid.size
        labels = np.empty((height, width), np.uint8)
        for top in range(0, height, BAND):
            band = Region(top, min(top + BAND, height), 0, width)
            labels[top : band.bottom] = label_tokens(logits, band)
            on_share(band.bottom / height)
        self.applied[image] = Applied(fitted, labels)
        return self.applied[image]

    # What is alike

    def ask(self, image: int, points: Sequence[Point], against: Sequence[Point], stage: int | None) -> Asked:
        """Ask what is alike."""
        explored = self.explored(image)
        similarity = Similarity(explored, points, against=against, stage=stage)
        height, width = explored.grid.size
        whole = similarity.whole() if height * width <= MOST_AT_ONCE else None
        with self._lock:
            threshold = None if self.asked is None or self.asked.image != image else self.asked.threshold
            self.asked = Asked(image, similarity, tuple(points), tuple(against), stage, whole)
            self.revision += 1
            return self.set_threshold(threshold)

    def set_threshold(self, threshold: float | None) -> Asked:
        """Show regions above a threshold; None shows the heat map.

        Raises:
            ValueError: Nothing was asked.
        """
        with self._lock:
            if self.asked is None:
                raise ValueError("click a place first")
            found = None
            if threshold is not None and self.asked.whole is not None:
                found = regions(self.asked.whole, RegionOptions(threshold))
            self.asked = replace(self.asked, threshold=threshold, found=found)
            self.revision += 1
            return self.asked

    def forget(self) -> None:
        """Show nothing that is alike."""
        with self._lock:
            self.asked = None
            self.revision += 1

    # Overlays

    def overlay(
        self,
        kind: Overlay,
        image: int,
        revision: int,
        *,
        level: int,
        column: int,
        row: int,
        hidden: Collection[int] = (),
    ) -> bytes:
        """Return a tile of an overlay as PNG; places of hidden classes are transparent.

        Raises:
            StaleError: The revision is not the latest.
            ValueError: There is no such tile, or nothing to show.
            FarOutError: It shows too much of the image.
        """
        explored = self.explored(image)
        with self._lock:
            if revision != self.revision:
                raise StaleError(f"revision={revision}: the latest is {self.revision}")
            paint, any_size = self._similar(image) if kind == "similar" else self._labelled(kind, image, hidden)
        return overlays.overlay_tile(
            paint,
            level=level,
            column=column,
            row=row,
            image=explored.image_size,
            tokens=explored.grid.size,
            stride=explored.grid.stride,
            any_size=any_size,
        )

    def _similar(self, image: int) -> tuple[overlays.Paint, bool]:
        asked = self.asked
        if asked is None or asked.image != image:
            raise ValueError("nothing was asked to be alike")
        whole = asked.whole
        values: Callable[[Region], Any] = asked.similarity if whole is None else overlays.from_whole(whole)

        def paint(region: Region) -> overlays.Rgba:
            if asked.threshold is not None:
                return overlays.region_colours(values(region), threshold=asked.threshold)
            return overlays.heat_colours(values(region), highest=1 + bool(asked.against))

        return paint, whole is not None

    def _labelled(self, kind: Overlay, image: int, hidden: Collection[int]) -> tuple[overlays.Paint, bool]:
        fitted, logits = self.model(image)
        explored = self.explored(image)
        applied = self.applied_now(image)
        whole = applied.labels if applied is not None and kind == "classes" else None
        numbers = fitted.fitted.numbers
        palette = [class_colour(number) for number in numbers]
        unseen = [place for place, number in enumerate(numbers) if number in hidden]

        def paint(region: Region) -> overlays.Rgba:
            if kind == "doubt":
                return overlays.doubt_colours(margins(logits(region)), explored.valid(region))
            labels = label_tokens(logits, region) if whole is None else overlays.from_whole(whole)(region)
            return overlays.class_colours(np.asarray(labels, np.uint8), explored.valid(region), palette, hidden=unseen)

        return paint, whole is not None
