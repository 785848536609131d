"""What frozen features are worth: nearest neighbours and a linear probe on labelled images.

n images, F features, C classes
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.datasets.classification import Samples
from vision_longformer.datasets.loaders import Batch, Images, evaluation_transform
from vision_longformer.datasets.normalising import images_of
from vision_longformer.evaluation.loop import EvaluationSetup, for_each_batch
from vision_longformer.images import MAX_PIXELS

NEIGHBOURS, TEMPERATURE = 20, 0.07  # as in DINO (Caron et al., ICCV 2021)
STRENGTHS = tuple(10.0**power for power in range(-3, 6))  # of the ridge, in units of one image's weight
THUMBNAIL = 8  # pixels of a side

Extract = Callable[[Tensor], Tensor]  # (n, 3, size, size) in [0, 1] to (n, F)


def require_scikit_learn() -> None:
    """Raise unless scikit-learn is installed.

    Raises:
        ImportError: It is not; says how to install it.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise ImportError("a probe needs scikit-learn: pip install 'vision-longformer[explore]'")


@dataclass(frozen=True)
class LinearProbe:
    """An affine map from features to scores of classes.

    Attributes:
        weight: (F, C).
        bias: (C,).
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Return (n, C) scores: the largest is the class."""
        return features @ self.weight + self.bias


def fit(features: Tensor, labels: Tensor, *, classes: int | None = None) -> LinearProbe:
    """Fit a linear probe: ridge regression of standardised features to the classes as 0 and 1.

    Its strength is the one with the smallest squared error where each image is left out in turn, which ridge regression
    gives in closed form.

    Args:
        features: (n, F).
        labels: (n,) classes, at least two different ones.
        classes: How many there are; by default up to the largest label.

    Raises:
        ValueError: All labels are of one class.
        ImportError: scikit-learn is not installed.
    """
    require_scikit_learn()
    from sklearn.linear_model import RidgeCV

    if len(labels.unique()) < 2:
        raise ValueError("all images are of one class: a probe needs two")
    classes = int(labels.max()) + 1 if classes is None else classes
    features = features.double()
    mean, std = features.mean(0), features.std(0).clamp(min=1e-6)
    targets = F.one_hot(labels, classes).double()
    ridge = RidgeCV(alphas=STRENGTHS).fit(((features - mean) / std).numpy(), targets.numpy())
    weight = torch.from_numpy(ridge.coef_.T.copy()) / std[:, None]
    return LinearProbe(weight.float(), (torch.from_numpy(ridge.intercept_.copy()) - mean @ weight).float())


def nearest(known: Tensor, labels: Tensor, asked: Tensor, *, classes: int) -> Tensor:
    """Return (m, C) votes of the nearest neighbours, weighted as in DINO, by cosine similarity of centred features.

    Args:
        known: (n, F) features.
        labels: (n,) their classes.
        asked: (m, F) features.
        classes: How many there are.
    """
    mean = known.mean(0)
    similarity = F.normalize(asked - mean, dim=1) @ F.normalize(known - mean, dim=1).T
    best = similarity.topk(min(NEIGHBOURS, len(known)), dim=1)
    votes = torch.zeros(len(asked), classes)
    return votes.scatter_add_(1, labels[best.indices], (best.values / TEMPERATURE).exp())


class Scores(NamedTuple):
    """What both say of m images."""

    truth: Tensor  # (m,) classes
    neighbours: Tensor  # (m, C)
    linear: Tensor  # (m, C)
    images: tuple[int, ...]  # their numbers among all


def judge(features: Tensor, labels: Tensor, folds: Sequence[tuple[Tensor, Tensor]], *, classes: int) -> Scores:
    """Ask both of images that they were not fitted to.

    Args:
        features: (n, F) of all images.
        labels: (n,) their classes.
        folds: The numbers of the images to learn from, and of those to ask of.
        classes: How many there are.
    """
    votes, scores = [], []
    for known, asked in folds:
        votes.append(nearest(features[known], labels[known], features[asked], classes=classes))
        scores.append(fit(features[known], labels[known], classes=classes)(features[asked]))
    order = torch.cat([asked for _, asked in folds])
    return Scores(labels[order], torch.cat(votes), torch.cat(scores), tuple(order.tolist()))


def in_folds(labels: Tensor, count: int = 5) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield folds of images that no split was made for: each class dealt out evenly, in an order drawn from seed 0."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    fold = torch.empty_like(labels)
    for label in labels.unique():
        of_class = order[labels[order] == label]
        fold[of_class] = torch.arange(len(of_class)) % count
    for number in range(count):
        if bool((fold == number).any()):
            yield torch.nonzero(fold != number)[:, 0], torch.nonzero(fold == number)[:, 0]


def pooled(model: nn.Module, *, mean: Sequence[float], std: Sequence[float], device: torch.device) -> Extract:
    """Return what gives the features that the classifier of a model with timm's interface sees."""
    model = model.eval().to(device)
    centre, spread = (torch.tensor(list(values), device=device)[:, None, None] for values in (mean, std))

    def extract(images: Tensor) -> Tensor:
        normalised: Tensor = (images.to(device) - centre) / spread
        own: Any = model
        found: Tensor = own.forward_head(own.forward_features(normalised), pre_logits=True)
        return found.float().cpu()

    return extract


def colours(images: Tensor) -> Tensor:
    """Return a thumbnail of each image, a serious baseline: what a model adds must be more than colours and layout."""
    return F.adaptive_avg_pool2d(images, THUMBNAIL).flatten(1)


@torch.inference_mode()
def embed(
    samples: Samples, extract: Extract, how: EvaluationSetup, *, size: int, max_pixels: int = MAX_PIXELS
) -> Tensor:
    """Return the (n, F) features of images, each the largest square at its centre, resized.

    Args:
        samples: The images.
        extract: What gives features.
        how: Batches, the device, and the processes that share the work.
        size: Side of the square in pixels.
        max_pixels: Refuse larger images.

    Raises:
        ImageError: An image cannot be read.
    """
    transform = evaluation_transform(
        size=size, crop_share=1.0, interpolation="bicubic", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    found: list[tuple[list[int], Tensor]] = []

    def take(batch: Batch) -> None:
        found.append((batch.indices, extract(images_of(batch, how.device))))

    for_each_batch(Images(samples, transform, seed=0, max_pixels=max_pixels), how, take)
    order = torch.tensor([index for indices, _ in found for index in indices])
    return torch.cat([features for _, features in found])[order.argsort()].clone()
