"""Fitting a head to strokes: which class is every place of an image, and where is that uncertain.

n painted tokens, F features of all stages, K classes
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision_longformer.explore.strokes import Painted, Stroke, painted
from vision_longformer.explore.tokens import Explored, Scaler, as_explored
from vision_longformer.features.load import StoredFeatures
from vision_longformer.segmentation.token_grid import Array, Region, Summed, TokenGrid
from vision_longformer.segmentation.token_head import NO_DATA, TokenHead, label_tokens, margins, tokens_to_pixels

TOKENS_OF_STROKE = 300  # that are learned from, evenly spread: neighbours are alike
FEWEST_OF_STROKE, MOST_TOKENS = 8, 6000  # of many strokes fewer tokens each, so that fitting takes the same time
# Of the labels against the penalty on weights, times the squared number of strokes, and its bounds: see
# benchmarks/strokes.py.
STRENGTH, WEAKEST, STRONGEST = 0.25, 100.0, 1e4
FEW = 40  # strokes, up to which coarse stages have the least say; at eight times as many, the most
ITERATIONS = 200
FOLDS = 5
APART = 8  # tokens between places that are asked about


class NotEnoughError(ValueError):
    """There are not enough strokes for what was asked; the message says which are missing."""


class Samples(NamedTuple):
    """What is learned from.

    Attributes:
        features: (n, F) standardised, of all stages one after the other.
        labels: (n,) class numbers.
        strokes: (n,) numbers of strokes, over all images.
        weights: (n,) that sum to 1: classes weigh the same, and so do the strokes of a class.
        factors: (F,) of the features, see `balance`.
    """

    features: Array
    labels: NDArray[np.int64]
    strokes: NDArray[np.int64]
    weights: NDArray[np.float64]
    factors: Array


@dataclass(frozen=True)
class FittedHead:
    """A head that was fitted to strokes.

    Attributes:
        head: The head.
        numbers: (K,) class numbers of its outputs: of those classes of which there are strokes.
    """

    head: TokenHead
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Quality:
    """What a head says of strokes that it was not fitted to.

    Attributes:
        numbers: (K,) class numbers.
        accuracy: Share of the weight of strokes that is labelled right; every class, and every stroke of it, weighs
            the same.
        iou: (K,) intersection over union of each class, so weighted.
        strokes: How many were held out in turn.
    """

    numbers: tuple[int, ...]
    accuracy: float
    iou: tuple[float, ...]
    strokes: int


def require_explore() -> None:
    """Raise unless what the page needs is installed.

    Raises:
        ImportError: Something is not; says how to install it.
    """
    for name in ("sklearn", "scipy", "starlette", "uvicorn"):
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"exploring needs {name}: pip install 'vision-longformer[explore]'")


def fit_head(images: Sequence[tuple[Explored, Sequence[Stroke]]]) -> FittedHead:
    """Fit a multinomial logistic regression of standardised features to strokes over one or several images.

    Args:
        images: Open features and the strokes over each; all of the same backbone and stages. They are standardised as
            those of the first one.

    Raises:
        NotEnoughError: Fewer than two classes were painted.
        ImportError: scikit-learn is not installed.
    """
    scalers = images[0][0].scalers
    return _head(*fit_affine(gather(images, scalers)), scalers)


def segment(features: StoredFeatures | Explored, strokes: Sequence[Stroke]) -> NDArray[np.uint8]:
    """Return the class of every pixel of an image by strokes over it, as the page of `vil explore` shows it.

    Args:
        features: From `load_features`, or open already, which is quicker for further strokes.
        strokes: Of at least two classes.

    Returns:
        (height, width) class numbers of strokes; 255 where the image has no pixel.

    Raises:
        NotEnoughError: Fewer than two classes were painted.
        ValueError: The image was shrunk.
        ImportError: scikit-learn is not installed.
    """
    explored = as_explored(features)
    fitted = fit_head([(explored, strokes)])
    numbers = np.array(fitted.numbers, np.uint8)[label_tokens(fitted.head.on(explored.grid))]
    pixels = np.asarray(tokens_to_pixels(numbers, stride=explored.grid.stride, size=explored.image_size))
    return np.where(explored.features.valid[...], pixels, np.uint8(NO_DATA))


def balance(grid: TokenGrid, strokes: int) -> Array:
    """Return the (F,) factors of standardised features that say how freely the head may use them.

    Few strokes show few of the places where a class can be, and features of wide context, of which there are the most,
    mislead then: all channels of a stage together vary as much as one feature, times the finest stride over the stage's
    own to a power that falls from 1/2 to −1/2 with the number of strokes.
    """
    power = min(max(0.5 - math.log2(max(strokes, 1) / FEW) / 3, -0.5), 0.5)
    stages = zip(grid.channels, grid.strides, strict=True)
    factors = [
        np.full(channels, (grid.stride / stride) ** power / math.sqrt(channels), np.float32)
        for channels, stride in stages
    ]
    return np.concatenate(factors)


def gather(images: Sequence[tuple[Explored, Sequence[Stroke]]], scalers: Sequence[Scaler]) -> Samples:
    """Return what strokes over images mark, with features standardised by each stage's scaler."""
    features, labels, strokes = [], [], []
    first = 0
    most = min(TOKENS_OF_STROKE, max(FEWEST_OF_STROKE, MOST_TOKENS // max(1, sum(len(lines) for _, lines in images))))
    for explored, lines in images:
        grid = explored.grid
        found = _thinned(painted(lines, stride=grid.stride, size=grid.size), most)
        features.append(at(explored, scalers, found.rows, found.columns))
        labels.append(found.labels)
        strokes.append(found.strokes + first)
        first += len(lines)
    all_labels, all_strokes = np.concatenate(labels), np.concatenate(strokes)
    factors = balance(images[0][0].grid, len(np.unique(all_strokes)))
    return Samples(np.concatenate(features), all_labels, all_strokes, weigh(all_labels, all_strokes), factors)


def at(explored: Explored, scalers: Sequence[Scaler], rows: NDArray[np.integer], columns: NDArray[np.integer]) -> Array:
    """Return the (n, F) standardised features of n tokens of the finest stage."""
    own = [scaler(explored.grid.at(number, rows, columns)) for number, scaler in enumerate(scalers)]  # (n, C) of each
    return np.concatenate(own, axis=1)


def weigh(labels: NDArray[np.int64], strokes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return weights that sum to 1: classes weigh the same, the strokes of a class too, and the tokens of a stroke."""
    _, first, stroke, tokens = np.unique(strokes, return_index=True, return_inverse=True, return_counts=True)
    classes, label, alike = np.unique(labels[first], return_inverse=True, return_counts=True)  # of each stroke
    weights: NDArray[np.float64] = 1 / (len(classes) * alike[label] * tokens)[stroke]
    return weights


def fit_affine(samples: Samples) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, ...]]:
    """Return (F, K) weights and (K,) biases of logits, and the K class numbers.

    Raises:
        NotEnoughError: Fewer than two classes were painted.
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError("a head needs scikit-learn: pip install 'vision-longformer[explore]'") from error
    if len(np.unique(samples.labels)) < 2:
        raise NotEnoughError("paint places of at least two classes")
    strength = min(max(WEAKEST, STRENGTH * len(np.unique(samples.strokes)) ** 2), STRONGEST)
    model = LogisticRegression(C=strength, max_iter=ITERATIONS, tol=1e-3)
    model.fit(samples.features * samples.factors, samples.labels, sample_weight=samples.weights)
    weights, bias = model.coef_.T * samples.factors[:, None], model.intercept_
    if weights.shape[1] == 1:  # of two classes, the logit of the second alone
        weights, bias = weights * [[-0.5, 0.5]], bias * [-0.5, 0.5]
    return weights, bias, tuple(model.classes_.tolist())


def cross_validate(images: Sequence[tuple[Explored, Sequence[Stroke]]]) -> Quality:
    """Say how well strokes are labelled by heads that were fitted without them.

    The strokes of each class are dealt out into up to five folds, each of which is held out in turn.

    Raises:
        NotEnoughError: Fewer than two classes were painted, or one of them with a single stroke.
    """
    samples = gather(images, images[0][0].scalers)
    classes = np.unique(samples.labels)
    own = {int(label): np.unique(samples.strokes[samples.labels == label]) for label in classes}
    if len(classes) < 2 or min(map(len, own.values())) < 2:
        raise NotEnoughError("quality is measured on strokes that are held out: paint at least two of every class")
    folds = min(FOLDS, *map(len, own.values()))
    confusion = np.zeros((len(classes), len(classes)))
    for fold in range(folds):
        held = np.isin(samples.strokes, np.concatenate([strokes[fold::folds] for strokes in own.values()]))
        known = Samples(
            samples.features[~held],
            samples.labels[~held],
            samples.strokes[~held],
            weigh(samples.labels[~held], samples.strokes[~held]),
            samples.factors,
        )
        weights, bias, numbers = fit_affine(known)
        said = np.array(numbers)[(samples.features[held] @ weights + bias).argmax(axis=1)]
        places = np.searchsorted(classes, samples.labels[held]), np.searchsorted(classes, said)
        np.add.at(confusion, places, samples.weights[held])
    right = confusion.diagonal()
    iou = right / (confusion.sum(axis=0) + confusion.sum(axis=1) - right)
    return Quality(tuple(own), float(right.sum() / confusion.sum()), tuple(iou.tolist()), sum(map(len, own.values())))


def next_uncertain(logits: Summed, region: Region, *, avoid: Sequence[tuple[int, int]] = ()) -> tuple[int, int] | None:
    """Return the (row, column) of the token of a region where the two best classes are closest; None if all are near.

    Args:
        logits: Of the image.
        region: Where to look.
        avoid: (row, column) of tokens near which nobody needs to be asked, as they are painted or were shown.
    """
    margin = margins(logits(region))
    margin = np.where(_near(region, avoid), np.inf, margin)
    place = int(margin.argmin())
    row, column = divmod(place, margin.shape[1])
    return None if not np.isfinite(margin[row, column]) else (region.top + row, region.left + column)


def _near(region: Region, tokens: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Return (rows, columns): whether tokens of a region lie within `APART` tokens of some others."""
    near = np.zeros((region.bottom - region.top, region.right - region.left), bool)
    for row, column in tokens:
        top, left = max(0, row - APART - region.top), max(0, column - APART - region.left)
        near[top : max(0, row + APART + 1 - region.top), left : max(0, column + APART + 1 - region.left)] = True
    return near


def _thinned(found: Painted, most: int) -> Painted:
    """Keep of each stroke at most so many tokens, evenly spread."""
    order = np.argsort(found.strokes, kind="stable")
    _, counts = np.unique(found.strokes, return_counts=True)
    kept = []
    for own in np.split(order, np.cumsum(counts)[:-1]):
        step = np.linspace(0, len(own) - 1, min(len(own), most)).round().astype(int)
        kept.append(own[step])
    places = np.concatenate(kept) if kept else np.zeros(0, int)
    return Painted(found.rows[places], found.columns[places], found.labels[places], found.strokes[places])


def _head(
    weights: NDArray[np.float64], bias: NDArray[np.float64], numbers: tuple[int, ...], scalers: Sequence[Scaler]
) -> FittedHead:
    edges = np.cumsum([len(scaler.mean) for scaler in scalers])[:-1]
    parts = tuple(part.astype(np.float32) for part in np.split(weights, edges))
    means, stds = tuple(scaler.mean for scaler in scalers), tuple(scaler.std for scaler in scalers)
    return FittedHead(TokenHead(parts, bias.astype(np.float32), means, stds), numbers)
