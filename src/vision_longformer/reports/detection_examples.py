"""Images with what a detector found on them, missed, and saw where nothing is: a photograph under boxes and masks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from vision_longformer.evaluation.detection import DetectionResult
from vision_longformer.evaluation.detection_confusions import Matching, choose_examples
from vision_longformer.images.thumbnails import Picture
from vision_longformer.masks.rle import rle_to_mask, segmentations_to_masks
from vision_longformer.reports.dense import examples_chosen
from vision_longformer.reports.matrix import shorten
from vision_longformer.reports.pictures import encode, mask_layer, read_photo, shrink_map
from vision_longformer.utils.words import counted

SIDE = 512  # pixels of the longer side, and units of the drawing over it
PHOTO_BYTES, LAYER_BYTES = 110_000, 30_000
MAX_DRAWN = 120  # objects of an image; mistakes come first
MAX_NAMED = 16  # an image of more has names only where one points
CHARACTER = 8.5  # width of one, in units of the drawing
LAYERS = {"truth": (255, 255, 255), "hit": (86, 180, 233), "alarm": (255, 140, 26), "miss": (247, 236, 63)}


class Drawn(NamedTuple):
    """An object to draw.

    Attributes:
        kind: "hit", "alarm", "miss", or "truth": the annotation of a hit.
        box: x1, y1, x2, y2 in units of the drawing.
        name: What stands beside it, where there is room: of a single class, its score alone.
        title: What is shown where one points.
        detection: Its number among those of the image; None for an annotation.
        place: Of its annotation in the split; None for a false alarm.
    """

    kind: str
    box: tuple[float, ...]
    name: str
    title: str
    detection: int | None = None
    place: int | None = None

    @property
    def size(self) -> tuple[float, float]:
        """(width, height) of the box."""
        x1, y1, x2, y2 = self.box
        return max(0.0, x2 - x1), max(0.0, y2 - y1)

    def name_place(self, width: float) -> tuple[float, float]:
        """Return where the name begins, within a drawing of this width."""
        x1, y1, _, _ = self.box
        return max(2.0, min(x1, width - CHARACTER * len(self.name))), y1 - 4 if y1 > 18 else y1 + 14


def find_examples(
    result: DetectionResult, matchings: Sequence[Matching], threshold: float, *, max_pixels: int
) -> dict[str, Any]:
    """Choose images, draw what was found on them with a score of `threshold` or more, and say which are missing."""
    spread, worst = choose_examples(matchings, threshold)
    groups = {}
    for title, images in (("Spread over the split", spread), ("Lowest F1", worst)):
        shots = [_shot(result, matchings[image], threshold, image, max_pixels=max_pixels) for image in images]
        groups[title] = [shot for shot in shots if shot is not None]
    missing = len(spread) + len(worst) - sum(map(len, groups.values()))
    return {"chosen": examples_chosen(spread, worst, by="F1"), "groups": groups, "missing": missing}


def _shot(
    result: DetectionResult, matching: Matching, threshold: float, image: int, *, max_pixels: int
) -> dict[str, Any] | None:
    """Return an image with its objects, the last on top; None if it cannot be read."""
    split = result.split
    photo = read_photo(partial(split.read, image, max_pixels=max_pixels), side=SIDE)
    if photo is None:
        return None
    height, width = split.size(image)
    unit = SIDE / max(height, width)
    every = list(_objects(result, matching, threshold, image, unit))
    main = [thing for thing in every if thing.kind != "truth"][:MAX_DRAWN]
    hits = {thing.place for thing in main if thing.kind == "hit"}
    drawn = [thing for thing in every if thing.kind == "truth" and thing.place in hits] + main[::-1]
    has_masks = result.scores.mask is not None
    return {
        "name": split.path(image).name,
        "words": _summary(matching, threshold, left_out=len(drawn) < len(every)),
        "photo": encode(photo, max_bytes=PHOTO_BYTES),
        "size": (width * unit, height * unit),
        "layers": dict(_layers(result, drawn, image, (photo.height, photo.width))) if has_masks else {},
        "has_masks": has_masks,
        "objects": drawn,
        "is_named": len(main) <= MAX_NAMED,
    }


def _summary(matching: Matching, threshold: float, *, left_out: bool) -> str:
    hits, alarms = len(matching.hits(threshold)), len(matching.false_alarms(threshold))
    words = f"{hits:,} of {counted(len(matching.places), 'object')} found, {counted(alarms, 'false alarm')}"
    f1 = matching.f1(threshold)
    words += "" if math.isnan(f1) else f"; F1\u00a0{f1:.2f}"
    return words + (f"; mistakes and {MAX_DRAWN} objects at the most are drawn" if left_out else "")


def _objects(result: DetectionResult, matching: Matching, threshold: float, image: int, unit: float) -> Iterator[Drawn]:
    """Yield what is to be drawn: misses, false alarms and hits, the surest first, then the annotations of hits."""
    split, found = result.split, result.found.get(image)
    one_class, annotations = len(split.classes) == 1, []

    def annotated(place: int) -> tuple[float, ...]:
        return tuple(unit * value for value in split.boxes[place].tolist())

    for place in matching.misses(threshold).tolist():
        name = split.classes[split.labels[place]]
        yield Drawn("miss", annotated(place), "" if one_class else shorten(name), f"{name}, missed", place=place)
    if found is None:
        return
    for kind, detections in (("alarm", matching.false_alarms(threshold)), ("hit", matching.hits(threshold))):
        for number in detections[np.argsort(-matching.scores[detections], kind="stable")].tolist():
            name = split.classes[int(found.labels[number])]
            score, taken = f"{matching.scores[number]:.2f}", int(matching.taken[number])
            box = tuple(unit * float(value) for value in found.boxes[number])
            words = score if one_class else f"{shorten(name)} {score}"
            if kind == "alarm":
                yield Drawn(kind, box, words, f"{name}, false alarm, score {score}", number)
                continue
            title = f"{name}, found, score {score}, overlap {matching.iou[number]:.2f}"
            yield Drawn(kind, box, words, title, number, taken)
            annotations.append(Drawn("truth", annotated(taken), "", f"{name}, annotation", None, taken))
    yield from annotations


def _layers(
    result: DetectionResult, drawn: Sequence[Drawn], image: int, size: tuple[int, int]
) -> Iterator[tuple[str, Picture]]:
    """Yield the masks of objects as pictures, one for each kind; `size` is that of the photograph."""
    split, found = result.split, result.found.get(image)
    for kind, colour in LAYERS.items():
        things = [thing for thing in drawn if thing.kind == kind]
        if kind in ("truth", "miss"):
            assert split.segmentations is not None
            places = [thing.place for thing in things if thing.place is not None]
            masks = segmentations_to_masks(split.segmentations, places, split.size(image), resized=size).astype(bool)
        else:
            rles = found.masks if found is not None and found.masks is not None else ()
            own = [rles[thing.detection] for thing in things if thing.detection is not None]
            masks = np.array([shrink_map(rle_to_mask(rle), size) for rle in own], bool)
        if len(masks):
            yield kind, encode(mask_layer(masks, colour, filled=kind != "truth"), "png", max_bytes=LAYER_BYTES)
