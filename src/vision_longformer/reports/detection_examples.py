"""Images with what a detector found on them, missed, and saw where nothing is: a photograph under boxes and masks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vision_longformer.evaluation.detection import DetectionResult
from vision_longformer.evaluation.detection_confusions import Matching, choose_examples
from vision_longformer.masks.rle import rle_to_mask, segmentations_to_masks
from vision_longformer.reports.dense_parts import left_out
from vision_longformer.reports.dense_pictures import encode, mask_layer, read_photo, shrink_map
from vision_longformer.reports.matrix import escape, shorten
from vision_longformer.reports.training_parts import counted, small

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
        box: x1, y1, x2, y2 in pixels of the image.
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


def examples(
    result: DetectionResult, matchings: Sequence[Matching], threshold: float, how: str, *, max_pixels: int
) -> str:
    """Return a section of images; `how` says how the threshold was chosen."""
    spread, worst = choose_examples(matchings, threshold)
    parts, shown = [], 0
    for title, images in (("Spread over the split", spread), ("Lowest F1", worst)):
        figures = [_figure(result, matchings[image], threshold, image, max_pixels=max_pixels) for image in images]
        readable = [figure for figure in figures if figure]
        shown += len(readable)
        if readable:
            parts.append(f"<h3>{title}</h3><div class='shots'>{''.join(readable)}</div>")
    toggles = "".join(
        f"<label><input type='checkbox' class='show-{kind}' checked><i class='{kind}'></i>{words}</label>"
        for kind, words in (
            ("hit", "found"),
            ("truth", "annotation of what was found"),
            ("miss", "missed"),
            ("alarm", "false alarm"),
        )
    )
    chosen = f"The first {counted(len(spread), 'image')} lie at even distances in the split"
    if worst:
        chosen += f"; the other {len(worst)} have the lowest F1 of all that are left"
    guide = (
        f"{chosen}. {how} An object is found if a box of its class overlaps its own by half (IoU 0.5). Names and "
        f"scores stand beside boxes where an image has at most {MAX_NAMED} of them; point at a box to read more."
    )
    note = small(left_out(len(spread) + len(worst), shown))
    return (
        f"<section class='examples'><h2>Examples</h2><p class='guide'>{guide}</p><div class='toggles'>{toggles}"
        "<label><input type='checkbox' class='show-name' checked>names</label></div>"
        f"{''.join(parts)}{note}</section>\n"
    )


def _figure(result: DetectionResult, matching: Matching, threshold: float, image: int, *, max_pixels: int) -> str:
    """Return an image with its objects; nothing if it cannot be read."""
    split = result.split
    photo = read_photo(split, image, side=SIDE, max_pixels=max_pixels)
    if photo is None:
        return ""
    height, width = split.size(image)
    unit = SIDE / max(height, width)
    every = list(_objects(result, matching, threshold, image))
    main = [thing for thing in every if thing.kind != "truth"][:MAX_DRAWN]
    hits = {thing.place for thing in main if thing.kind == "hit"}
    drawn = [thing for thing in every if thing.kind == "truth" and thing.place in hits] + main[::-1]
    with_masks = result.scores.mask is not None
    boxes = "".join(_box(thing, unit, width * unit, named=len(main) <= MAX_NAMED, quiet=with_masks) for thing in drawn)
    layers = _layers(result, drawn, image, (photo.height, photo.width)) if with_masks else ""
    picture = encode(photo, "jpeg", max_bytes=PHOTO_BYTES)
    name = escape(split.path(image).name)
    return (
        f"<figure><div class='shot' style='aspect-ratio:{width}/{height};max-width:{width * unit:.0f}px'>"
        f"<img src='{picture.uri}' alt='{name}' width='{picture.width}' height='{picture.height}' loading='lazy'>"
        f"{layers}<svg viewBox='0 0 {width * unit:.1f} {height * unit:.1f}' preserveAspectRatio='none'>{boxes}</svg>"
        f"</div><figcaption><b>{name}</b> {_summary(matching, threshold, left=len(every), drawn=len(drawn))}"
        "</figcaption></figure>\n"
    )


def _summary(matching: Matching, threshold: float, *, left: int, drawn: int) -> str:
    hits, alarms = len(matching.hits(threshold)), len(matching.false_alarms(threshold))
    words = f"{hits:,} of {counted(len(matching.places), 'object')} found, {counted(alarms, 'false alarm')}"
    f1 = matching.f1(threshold)
    words += "" if math.isnan(f1) else f"; F1\u00a0{f1:.2f}"
    return words + (f"; mistakes and {MAX_DRAWN} objects at the most are drawn" if drawn < left else "")


def _objects(result: DetectionResult, matching: Matching, threshold: float, image: int) -> Iterator[Drawn]:
    """Yield what is to be drawn: misses, false alarms and hits, the surest first, then the annotations of hits."""
    split, found = result.split, result.found.get(image)
    one_class, annotations = len(split.classes) == 1, []
    for place in matching.misses(threshold).tolist():
        name = split.classes[split.labels[place]]
        words = "" if one_class else shorten(name)
        yield Drawn("miss", tuple(split.boxes[place].tolist()), words, f"{name}, missed", place=place)
    if found is None:
        return
    for kind, detections in (("alarm", matching.false_alarms(threshold)), ("hit", matching.hits(threshold))):
        for number in detections[np.argsort(-matching.scores[detections], kind="stable")].tolist():
            name = split.classes[int(found.labels[number])]
            score, taken = f"{matching.scores[number]:.2f}", int(matching.taken[number])
            box = tuple(float(value) for value in found.boxes[number])
            words = score if one_class else f"{shorten(name)} {score}"
            if kind == "alarm":
                yield Drawn(kind, box, words, f"{name}, false alarm, score {score}", number)
                continue
            title = f"{name}, found, score {score}, overlap {matching.iou[number]:.2f}"
            yield Drawn(kind, box, words, title, number, taken)
            annotations.append(
                Drawn("truth", tuple(split.boxes[taken].tolist()), "", f"{name}, annotation", None, taken)
            )
    yield from annotations


def _box(thing: Drawn, unit: float, width: float, *, named: bool, quiet: bool) -> str:
    x1, y1, x2, y2 = (unit * value for value in thing.box)
    place = f"x='{x1:.1f}' y='{y1:.1f}' width='{max(0.0, x2 - x1):.1f}' height='{max(0.0, y2 - y1):.1f}'"
    words = ""
    if thing.name and named:
        left = max(2.0, min(x1, width - CHARACTER * len(thing.name)))
        words = f"<text x='{left:.1f}' y='{y1 - 4 if y1 > 18 else y1 + 14:.1f}'>{escape(thing.name)}</text>"
    halo = "" if quiet else f"<rect class='halo' {place}/>"
    title = f"<title>{escape(thing.title)}</title>"
    return f"<g class='{thing.kind}{' quiet' * quiet}'>{title}{halo}<rect {place}/>{words}</g>"


def _layers(result: DetectionResult, drawn: Sequence[Drawn], image: int, size: tuple[int, int]) -> str:
    """Return the masks of objects as pictures, one for each kind; `size` is that of the photograph."""
    split, found, layers = result.split, result.found.get(image), []
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
            layer = encode(mask_layer(masks, colour, filled=kind != "truth"), "png", max_bytes=LAYER_BYTES)
            layers.append(f"<img class='layer {kind}' src='{layer.uri}' alt=''>")
    return "".join(layers)
