"""What strokes on a small share of an image teach: intersection over union on the rest, by features and by head.

    python benchmarks/strokes.py --nuclei NUCLEI --weights WEIGHTS [--aerial IMAGE.png] [--share 0.05] [--choosing]

NUCLEI has train.json and val.json, COCO's annotations, and their images. Three mosaics of 16 micrographs each are
drawn from val; with --choosing, from train, on which the head's numbers were chosen. The photograph is the project's
own, with dandelions as ellipses that were drawn by hand below. An aerial image has boxes of trees in IMAGE.xml, Pascal
VOC's layout. A band at the edge of ellipses and the corners of boxes belong to no class.

A script draws lines within each class until they cover the share of the labelled pixels, half of it for each class. The
head is that of `vil explore`; with raw colours it sees the mean and the deviation of each square of 4×4 pixels. Seconds
are CPU time of fitting and of labelling the whole image.
"""

from __future__ import annotations

import argparse
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier

from vision_longformer import VisionLongformer
from vision_longformer.datasets.coco import read_coco
from vision_longformer.explore.head import at, fit_head, gather
from vision_longformer.explore.strokes import Stroke, painted
from vision_longformer.explore.tokens import Explored
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.load import StoredArray, StoredFeatures
from vision_longformer.masks.rle import segmentation_to_mask
from vision_longformer.segmentation.token_head import label_tokens, tokens_to_pixels
from vision_longformer.weights import load

PHOTO = Path(__file__).parent.parent / "examples" / "seeding_by_Clements_Engelhardt.jpg"
PHOTO_SIZE = (1400, 788)  # width, height to which the ellipses belong
# x, y and radii of dandelions; those that are too blurred to say belong to no class.
DANDELIONS = (
    (412, 253, 212, 185), (438, 488, 62, 48), (783, 537, 66, 60), (1148, 606, 90, 75), (793, 343, 47, 33),
    (923, 380, 52, 58), (858, 483, 38, 36), (1114, 264, 34, 31), (1347, 250, 48, 46), (1383, 205, 32, 35),
    (1312, 343, 45, 45), (1390, 340, 32, 50), (686, 165, 45, 40), (668, 215, 38, 32), (1063, 343, 34, 26),
)  # fmt: skip
BLURRED = ((760, 165, 45, 40), (950, 135, 40, 40), (700, 262, 40, 30), (885, 235, 50, 35), (580, 90, 60, 50))
STALK = (slice(435, None), slice(385, 435))  # rows and columns, before the dandelion behind it
CELL, SIDE = 256, 4  # pixels of a micrograph, micrographs of a side of a mosaic
LENGTH, RADIUS = 40, 2.0  # of a stroke, in pixels

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int8]  # 0 or 1, −1 for neither


class Scene(NamedTuple):
    """An image with labels."""

    name: str
    pixels: Pixels  # (H, W, 3)
    labels: Labels  # (H, W)


def mosaic(data: Path, split: str, seed: int) -> Scene:
    """Return micrographs side by side."""
    read = read_coco(data / f"{split}.json", data / split, with_masks=True)
    assert read.segmentations is not None
    order = np.random.default_rng(seed).permutation(len(read.file_names))[: SIDE**2].tolist()
    pixels, labels = np.zeros((SIDE * CELL, SIDE * CELL, 3), np.uint8), np.zeros((SIDE * CELL, SIDE * CELL), np.int8)
    for place, number in enumerate(order):
        row, column = divmod(place, SIDE)
        here = slice(row * CELL, (row + 1) * CELL), slice(column * CELL, (column + 1) * CELL)
        with Image.open(read.folder / read.file_names[number]) as image:
            pixels[here] = np.asarray(image.convert("RGB"))[:CELL, :CELL]
        height, width = read.sizes[number].tolist()
        for nucleus in range(int(read.ends[number - 1]) if number else 0, int(read.ends[number])):
            mask = segmentation_to_mask(read.segmentations, nucleus, (height, width))
            labels[here] |= mask[:CELL, :CELL].astype(np.int8)
    return Scene(f"nuclei {split} {seed}", pixels, labels)


def photograph() -> Scene:
    """Return the project's photograph with its dandelions."""
    with Image.open(PHOTO) as image:
        pixels = np.asarray(image.convert("RGB").resize(PHOTO_SIZE))
    labels = np.zeros(pixels.shape[:2], np.int8)
    for ellipse in (*DANDELIONS, *BLURRED):
        _draw(labels, ellipse, 1.15, -1)
    for ellipse in DANDELIONS:
        _draw(labels, ellipse, 0.85, 1)
    labels[STALK][labels[STALK] == 1] = -1
    return Scene("photograph", pixels, labels)


def aerial(path: Path) -> Scene:
    """Return an image from above with its trees."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    labels = np.zeros(pixels.shape[:2], np.int8)
    edges = ("xmin", "ymin", "xmax", "ymax")
    trees = [
        [float(str(tree.findtext(f"bndbox/{edge}"))) for edge in edges]
        for tree in ET.parse(path.with_suffix(".xml")).iter("object")
    ]
    for left, top, right, bottom in trees:
        labels[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = -1
    for left, top, right, bottom in trees:
        _draw(labels, ((left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2), 0.8, 1)
    return Scene("aerial", pixels, labels)


def _draw(labels: Labels, ellipse: Sequence[float], scale: float, label: int) -> None:
    x, y, across, down = ellipse
    top, left = max(0, int(y - down * scale)), max(0, int(x - across * scale))
    part = labels[top : int(y + down * scale) + 2, left : int(x + across * scale) + 2]
    rows, columns = np.indices(part.shape)
    inside = ((columns + left - x) / max(across * scale, 1)) ** 2 + ((rows + top - y) / max(down * scale, 1)) ** 2 <= 1
    part[inside] = label


def draw_strokes(labels: Labels, share: float, seed: int) -> list[Stroke]:
    """Return straight lines within each class, until each has half of the share of the labelled pixels."""
    random, found = np.random.default_rng(seed), list[Stroke]()
    for label in (0, 1):
        room = ndimage.distance_transform_edt(labels == label)
        places, left = np.argwhere(room > RADIUS), share * (labels >= 0).sum() / 2
        while left > 0:
            y, x = places[random.integers(len(places))].tolist()
            angle, length = random.uniform(0, 2 * np.pi), 0
            step = np.array([np.cos(angle), np.sin(angle)])
            while length + 2 < LENGTH and _free(room, np.array([x, y]) + (length + 2) * step):
                length += 2
            end = np.array([x, y]) + length * step + 0.5
            found.append(Stroke(label, ((x + 0.5, y + 0.5), (float(end[0]), float(end[1]))), RADIUS))
            left -= 2 * RADIUS * length + np.pi * RADIUS**2
    return [found[place] for place in random.permutation(len(found))]


def _free(room: NDArray[np.float64], place: NDArray[np.float64]) -> bool:
    column, row = place.round().astype(int).tolist()
    return 0 <= row < room.shape[0] and 0 <= column < room.shape[1] and bool(room[row, column] > RADIUS)


def explored(maps: Sequence[NDArray[np.float32]], strides: Sequence[int], scene: Scene) -> Explored:
    """Return maps of an image as if they had been read from a file."""
    size = list(scene.labels.shape)
    stored = [StoredArray(values, values.shape, values.dtype) for values in maps]
    valid = np.ones(scene.labels.shape, bool)
    about: dict[str, Any] = {"strides": list(strides), "encoded_size": size, "original_size": size}
    stages = tuple(range(1, len(maps) + 1))
    return Explored(
        StoredFeatures(stages, tuple(stored), (), torch.zeros(1), StoredArray(valid, valid.shape, valid.dtype), about)
    )


def of_model(model: VisionLongformer, scene: Scene) -> Explored:
    """Return a model's features, in half precision as they are stored."""
    found = Encoder(model).encode(np.ascontiguousarray(scene.pixels))
    return explored([values.half().float().numpy() for values in found.maps], model.config.strides, scene)


def of_colours(scene: Scene, stride: int = 4) -> Explored:
    """Return the mean and the deviation of each square's colours."""
    height, width = scene.labels.shape
    rows, columns = -(-height // stride), -(-width // stride)
    padding = ((0, rows * stride - height), (0, columns * stride - width), (0, 0))
    squares = np.pad(scene.pixels, padding, mode="edge").reshape(rows, stride, columns, stride, 3) / 255
    values = np.concatenate([squares.mean((1, 3)), squares.std((1, 3))], axis=-1).astype(np.float32)
    return explored([np.moveaxis(values, -1, 0)], [stride], scene)


def judge(scene: Scene, features: Explored, strokes: Sequence[Stroke], *, boosted: bool = False) -> tuple[float, float]:
    """Return the intersection over union of class 1 beside the strokes, and CPU seconds."""
    grid = features.grid
    _ = features.scalers  # as they are on the page once an image is open
    start = time.process_time()
    tokens = _boosted(features, strokes) if boosted else label_tokens(fit_head([(features, strokes)]).head.on(grid))
    seconds = time.process_time() - start
    under = painted(strokes, stride=grid.stride, size=grid.size)
    seen = np.zeros(grid.size, bool)
    seen[under.rows, under.columns] = True
    size = scene.labels.shape
    left = (scene.labels >= 0) & ~np.asarray(tokens_to_pixels(seen, stride=grid.stride, size=(size[0], size[1])))
    said = np.asarray(tokens_to_pixels(tokens, stride=grid.stride, size=(size[0], size[1]))) == 1
    true = scene.labels == 1
    return float((said & true & left).sum() / ((said | true) & left).sum()), seconds


def _boosted(features: Explored, strokes: Sequence[Stroke]) -> NDArray[np.uint8]:
    """Return the classes of all tokens that boosted trees say."""
    samples = gather([(features, strokes)], features.scalers)
    trees = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)
    trees.fit(samples.features, samples.labels, sample_weight=samples.weights * len(samples.labels))
    height, width = features.grid.size
    found = []
    for top in range(0, height, 64):
        rows, columns = (axis.ravel() for axis in np.mgrid[top : min(top + 64, height), :width])
        found.append(trees.predict(at(features, features.scalers, rows, columns)).reshape(-1, width))
    return np.concatenate(found).astype(np.uint8)


def scenes(options: argparse.Namespace) -> Iterator[Scene]:
    """Yield what was asked for."""
    split, first = ("train", 100) if options.choosing else ("val", 200)
    if options.nuclei:
        for number in range(3):
            yield mosaic(options.nuclei, split, first + number)
    yield photograph()
    if options.aerial:
        yield aerial(options.aerial)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nuclei", type=Path)
    parser.add_argument("--aerial", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--choosing", action="store_true")
    parser.add_argument("--no-trees", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    trained = load(options.weights).eval()
    untrained = VisionLongformer(trained.config).eval()
    print("| scene | strokes | trained | random weights | raw colours | trained, boosted trees |")
    print("|---" * 6 + "|")
    for scene in scenes(options):
        strokes = draw_strokes(scene.labels, options.share, 0)
        features = of_model(trained, scene)
        found = [judge(scene, features, strokes), judge(scene, of_model(untrained, scene), strokes)]
        found.append(judge(scene, of_colours(scene), strokes))
        if not options.no_trees:
            found.append(judge(scene, features, strokes, boosted=True))
        cells = " | ".join(f"{quality:.3f} ({seconds:.2f} s)" for quality, seconds in found)
        print(f"| {scene.name} | {len(strokes)} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
