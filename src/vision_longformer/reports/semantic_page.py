"""The parts of the page of semantic segmentation: its numbers, its tables, and images with their maps of classes."""

from __future__ import annotations

import colorsys
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.dense_loaders import read_label
from vision_longformer.datasets.semantic import BACKGROUND, IGNORE_INDEX
from vision_longformer.evaluation.confusions import Pair
from vision_longformer.evaluation.iou import SemanticScores
from vision_longformer.evaluation.metric_names import shown
from vision_longformer.evaluation.segmentation import SemanticResult
from vision_longformer.images import ImageError
from vision_longformer.reports.dense_parts import MAX_ROWS, left_out, table_notes
from vision_longformer.reports.dense_pictures import Colour, encode, error_picture, paint, read_photo, shrink_map
from vision_longformer.reports.matrix import PICKED, choose_matrix, draw_matrix, escape
from vision_longformer.reports.training_parts import (
    Column,
    Tile,
    bar,
    counted,
    percent,
    scale,
    section,
    small,
    swatches,
    table,
)

SIDE = 384  # pixels of the longer side of a picture
PICTURE_BYTES = 48_000
MAX_NAMES = 40  # classes whose colours are told
WRONG: Colour = (213, 94, 0)
UNLABELLED: Colour = (235, 235, 235)
BEHIND: Colour = (45, 48, 54)  # of the background
# Okabe and Ito's colours, which most people can tell apart; the classes behind them get others, which some cannot.
FIRST: tuple[Colour, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (0, 114, 178),
    (213, 94, 0),
)


def semantic_tiles(result: SemanticResult, measured: SemanticScores, best_epoch: int) -> list[Tile]:
    """Return the main measures; "–" where no pixel is labelled."""
    total = int(result.confusion.sum())
    miou = shown("miou", measured.miou if total else None)
    accuracy = percent(int(result.confusion.diagonal().sum()), total) if total else "–"
    occurring = sum(not math.isnan(iou) for iou in measured.class_iou)
    tiles = [Tile("mIoU", miou, f"mean over {counted(occurring, 'class')}; best epoch {best_epoch}")]
    if measured.foreground_iou is not None and total:
        tiles.append(
            Tile(f"IoU of {escape(result.classes[1])}", shown("iou", measured.foreground_iou), "the one class")
        )
    return [*tiles, Tile("Pixel accuracy", accuracy, f"of {total:,} labelled pixels")]


# --- classes ----------------------------------------------------------------------------------------------------


def class_table(result: SemanticResult, measured: SemanticScores) -> str:
    """Return the table of classes, worst first."""
    counts = result.confusion.cpu()
    every = [label for label, iou in enumerate(measured.class_iou) if not math.isnan(iou)]
    if not every:
        return section("Classes", "<p>No pixel is labelled in the split, so that IoU is not defined.</p>")
    order = sorted(every, key=lambda label: measured.class_iou[label])
    total = int(counts.sum())
    rows = []
    for label in order[:MAX_ROWS]:
        hits, own, taken = int(counts[label, label]), int(counts[label].sum()), int(counts[:, label].sum())
        others = counts[label].clone()
        others[label] = 0
        iou, most = measured.class_iou[label], int(others.argmax())
        other = f"{escape(result.classes[most])} ({_share(int(others[most]), own)})" if int(others[most]) else ""
        numbers = (shown("iou", iou), bar(0.0, iou, iou), _share(hits, own), _share(hits, taken), _share(own, total))
        rows.append((escape(result.classes[label]), *numbers, other))
    columns = [Column("Class"), Column("IoU"), scale("1"), Column("Recall"), Column("Precision"), Column("Pixels")]
    columns.append(Column("Mostly taken for", text=True))
    guide = (
        "<p class='guide'>Worst first. Recall is the share of a class's pixels that were recognised, precision the "
        "share of the pixels taken for it that are of it; Pixels, its share of all labelled pixels.</p>"
    )
    notes = table_notes(len(result.classes), len(rows), len(order), why="without a pixel")
    return section("Classes", f"{guide}{table(columns, rows)}{small(notes)}")


def confusion(result: SemanticResult) -> str:
    """Return the confusion matrix of pixels."""
    counts = result.confusion.cpu()
    filled = {(truth, taken): int(counts[truth, taken]) for truth, taken in counts.nonzero().tolist()}
    wrong = sorted((pair for pair in filled if pair[0] != pair[1]), key=lambda pair: -filled[pair])
    pairs = [Pair(truth, predicted, ()) for truth, predicted in wrong]
    matrix = choose_matrix(Counter(filled), pairs, classes=len(result.classes))
    if not matrix.labels or not filled:
        return ""
    notes = ""
    if matrix.partial:
        notes = (
            f" Of {len(result.classes):,} classes the {len(matrix.labels)} in the largest confusions are shown (at "
            f"most {PICKED}); the last column holds pixels taken for any other class."
        )
    return section(
        "Confusion matrix",
        "<p class='guide'>A row holds the pixels of a class, a column those taken for one, in percent of the row: "
        f"{swatches()} 1, 5, 25 and 100%, recognised in blue and mistaken in orange.{notes}</p>"
        f"<div class='scroll'>{draw_matrix(matrix, result.classes, shares=True)}</div>",
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "–"


# --- examples ---------------------------------------------------------------------------------------------------


def semantic_examples(result: SemanticResult, *, max_pixels: int) -> str:
    """Return a section of images beside their true and their predicted classes."""
    colours = class_colours(result.classes)
    parts, seen, shown_images = [], set[int](), 0
    even, worst = result.examples()
    for title, images in (("Spread over the split", even), ("Lowest accuracy", worst)):
        rows = []
        for image in images:
            row, classes = _row(result, image, colours, max_pixels=max_pixels)
            rows += [row] if row else []
            seen |= classes
        shown_images += len(rows)
        if rows:
            parts.append(f"<h3>{title}</h3><div class='panels'>{''.join(rows)}</div>")
    chosen = f"The first {counted(len(even), 'image')} lie at even distances in the split"
    chosen += f"; the other {len(worst)} have the lowest pixel accuracy of all that are left." if worst else "."
    guide = (
        f"<p class='guide'>{chosen} Beside an image stand its true and its predicted classes, and in orange the pixels "
        "whose class is wrong. Pixels without a label are light gray in the truth, and never wrong.</p>"
    )
    named = sorted(seen)[:MAX_NAMES]
    names = "".join(
        f"<span><i style='background:rgb{colours[label]}'></i>{escape(result.classes[label])}</span>" for label in named
    )
    more = f"<span>and {len(seen) - MAX_NAMES} more</span>" if len(seen) > MAX_NAMES else ""
    note = small(left_out(len(even) + len(worst), shown_images))
    content = f"{guide}<div class='names'>{names}{more}</div>{''.join(parts)}{note}"
    return f"<section class='examples'><h2>Examples</h2>{content}</section>\n"


def class_colours(classes: Sequence[str]) -> list[Colour]:
    """Return a colour for each class; a first one named background is dark."""
    plain = [BEHIND] if classes and classes[0] == BACKGROUND else []
    colours = [*plain, *FIRST]
    for number in range(len(classes) - len(colours)):
        hue, light = 0.618034 * number % 1.0, (0.45, 0.7, 0.3)[number % 3]
        red, green, blue = colorsys.hls_to_rgb(hue, light, 0.65)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colours[: len(classes)]


def _row(result: SemanticResult, image: int, colours: Sequence[Colour], *, max_pixels: int) -> tuple[str, set[int]]:
    """Return an image with its maps, and the classes on it; nothing if it cannot be read."""
    photo = read_photo(result.split, image, side=SIDE, max_pixels=max_pixels)
    if photo is None:
        return "", set()
    size = (photo.height, photo.width)
    try:
        truth = shrink_map(read_label(result.split, image, max_pixels=max_pixels), size)
    except ImageError:
        return "", set()
    predicted = shrink_map(result.labels[image], size)
    labelled = truth != IGNORE_INDEX
    pictures = [
        ("image", encode(photo, "jpeg", max_bytes=PICTURE_BYTES)),
        ("truth", encode(_map(np.where(labelled, truth, len(colours)), colours), "png", max_bytes=PICTURE_BYTES)),
        ("prediction", encode(_map(predicted, colours), "png", max_bytes=PICTURE_BYTES)),
        (
            "errors",
            encode(error_picture(photo, labelled & (truth != predicted), WRONG), "jpeg", max_bytes=PICTURE_BYTES),
        ),
    ]
    name = escape(_name(result, image))
    panels = "".join(
        f"<div><img src='{picture.uri}' alt='{words} of {name}' width='{picture.width}' height='{picture.height}' "
        f"loading='lazy'{_flat(picture.kind)}>{words}</div>"
        for words, picture in pictures
    )
    accuracy = float(result.accuracy[image])
    right = "no pixel is labelled" if math.isnan(accuracy) else f"{100 * accuracy:.1f}% of the labelled pixels right"
    classes = set(np.unique(predicted).tolist()) | set(np.unique(truth[labelled]).tolist())
    row = f"<figure><div class='row'>{panels}</div><figcaption><b>{name}</b> {right}</figcaption></figure>\n"
    return row, classes


def _flat(kind: str) -> str:
    return " class='flat'" if kind == "png" else ""


def _map(values: NDArray[np.generic], colours: Sequence[Colour]) -> Image.Image:
    """Return a map of classes as an image; the number behind the last class is no label."""
    palette = np.array([*colours, UNLABELLED], np.uint8)
    if len(palette) <= 256:
        return paint(values.astype(np.int64), [(int(r), int(g), int(b)) for r, g, b in palette])
    return Image.fromarray(palette[values.astype(np.int64)])


def _name(result: SemanticResult, image: int) -> str:
    split = result.split
    return Path(split.file_names[image] if isinstance(split, CocoSplit) else split.images[image]).name
