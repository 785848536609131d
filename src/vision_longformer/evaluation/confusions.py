"""What a classifier gets wrong: classes, pairs of classes that it confuses, and how sure the numbers are."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vision_longformer.evaluation.classification import Evaluation

QUANTILE = 1.959963984540054  # of the normal distribution, for 95%


@dataclass(frozen=True)
class Pair:
    """Images of one class that were taken for another.

    Attributes:
        truth: Their class.
        predicted: What they were taken for.
        images: Their numbers among the samples, those with the largest probability first.
    """

    truth: int
    predicted: int
    images: tuple[int, ...]


@dataclass(frozen=True)
class ClassResult:
    """How well the images of a class were recognised.

    Attributes:
        label: The class.
        correct: Images recognised.
        total: Images, at least one.
        taken_for: The class that most of the others were taken for; None if all were recognised.
    """

    label: int
    correct: int
    total: int
    taken_for: Pair | None

    @property
    def accuracy(self) -> float:
        """Share of the images that were recognised."""
        return self.correct / self.total


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95% confidence interval of a share (Wilson, JASA 22, 1927, pages 209-212).

    It takes images as independent draws. With no images at all it is everything from 0 to 1.
    """
    if total == 0:
        return 0.0, 1.0
    share, squared = correct / total, QUANTILE**2
    centre = (share + squared / (2 * total)) / (1 + squared / total)
    spread = math.sqrt(share * (1 - share) / total + squared / (4 * total**2)) * QUANTILE / (1 + squared / total)
    low = 0.0 if correct == 0 else centre - spread
    high = 1.0 if correct == total else centre + spread
    return low, high


def count_pairs(evaluation: Evaluation) -> Counter[tuple[int, int]]:
    """Return the number of images of every (true class, predicted class) that there is."""
    return Counter(zip(evaluation.samples.labels, evaluation.ranking[:, 0].tolist(), strict=True))


def confused_pairs(evaluation: Evaluation) -> list[Pair]:
    """Return the pairs of classes that were confused, most images first, and of as many the surest mistake first."""
    wrong = defaultdict(list)
    probability: list[float] = evaluation.probability.tolist()
    predictions: list[int] = evaluation.ranking[:, 0].tolist()
    for image, (truth, predicted) in enumerate(zip(evaluation.samples.labels, predictions, strict=True)):
        if truth != predicted:
            wrong[truth, predicted].append(image)
    pairs = [
        Pair(truth, predicted, tuple(sorted(images, key=lambda image: -probability[image])))
        for (truth, predicted), images in wrong.items()
    ]
    return sorted(pairs, key=lambda pair: (-len(pair.images), -probability[pair.images[0]], pair.truth, pair.predicted))


def class_results(evaluation: Evaluation, pairs: Sequence[Pair]) -> list[ClassResult]:
    """Return the classes that have images, worst first, and of equally bad ones that with more images first.

    Args:
        evaluation: The results.
        pairs: Its `confused_pairs`.
    """
    counts = count_pairs(evaluation)
    totals = Counter(evaluation.samples.labels)
    worst: dict[int, Pair] = {}
    for pair in pairs:
        worst.setdefault(pair.truth, pair)
    results = [ClassResult(label, counts[label, label], total, worst.get(label)) for label, total in totals.items()]
    return sorted(results, key=lambda result: (result.accuracy, -result.total, result.label))
