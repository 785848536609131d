"""What a student learns from a teacher: its logits, its features, and labels where folders have them.

n images, K classes of the teacher, C components of its features, L labels of all folders together, m images on a side
of a mosaic
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Agreement:
    """How a student does on images that it was not trained on.

    Attributes:
        images: (n,) numbers of the images among all.
        teacher: (n,) the teacher's first class.
        student: (n,) the student's.
        divergence: (n,) of the student's probabilities from the teacher's, in nats.
        features: (n, F) the student's pooled features.
        classes: Names of the teacher's classes.
        picture: Gives an image by its number.
    """

    images: Tensor
    teacher: Tensor
    student: Tensor
    divergence: Tensor
    features: Tensor
    classes: Sequence[str]
    picture: Callable[[int], Image.Image]

    def metrics(self) -> dict[str, Any]:
        """Return "agreement" in percent, and the mean "divergence"."""
        return {
            "agreement": 100 * float((self.teacher == self.student).double().mean()),
            "divergence": float(self.divergence.double().mean()),
        }


class Answers(NamedTuple):
    """What a student gives for images."""

    logits: Tensor  # (n, K)
    features: Tensor  # (n, C)
    labels: Tensor | None  # (n, L), where there are any


class LogitsAndFeatures(nn.Module):
    """A classifier of timm's interface that also gives what its last layer sees: the pooled features."""

    model: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._seen: list[Tensor] = []
        self.model.get_classifier().register_forward_pre_hook(lambda _, inputs: self._seen.append(inputs[0]))

    def forward(self, images: Tensor, mosaic: int = 1) -> tuple[Tensor, Tensor]:
        """Return (n, K) logits and (n, F) features of (n, 3, s, s) images, seen alone or in mosaics of m×m of them."""
        self._seen.clear()
        if mosaic == 1:
            logits = self.model(images)
        else:  # the map of a mosaic is pooled over each image by itself
            logits = self.model.forward_head(taken_apart(self.model.forward_features(laid_out(images, mosaic)), mosaic))
        return logits, self._seen.pop()


def laid_out(images: Tensor, mosaic: int) -> Tensor:
    """Return (n/m², 3, ms, ms) mosaics of (n, 3, s, s) images, row by row."""
    count, channels, height, width = images.shape
    cells = images.view(count // mosaic**2, mosaic, mosaic, channels, height, width)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, mosaic * height, mosaic * width)


def taken_apart(maps: Tensor, mosaic: int) -> Tensor:
    """Return the (n, h, w, F) parts of (n/m², mh, mw, F) maps that show each image of a mosaic."""
    count, height, width, channels = maps.shape
    cells = maps.view(count, mosaic, height // mosaic, mosaic, width // mosaic, channels)
    return cells.permute(0, 1, 3, 2, 4, 5).reshape(-1, height // mosaic, width // mosaic, channels)


class Student(nn.Module):
    """A classifier of the teacher's classes, with two linear layers that are needed in training alone.

    Attributes:
        backbone: The model that is kept, of timm's interface. Its pooled features are what both layers see.
    """

    backbone: Any

    def __init__(self, backbone: nn.Module, *, components: int, labels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self._pair = [LogitsAndFeatures(backbone)]  # in a list: its parameters are the backbone's
        width = int(self.backbone.get_classifier().in_features)
        self.features = nn.Linear(width, components)
        self.labels = nn.Linear(width, labels) if labels else nn.Identity()
        self._has_labels = labels > 0

    def forward(self, images: Tensor, mosaic: int = 1) -> Answers:
        """Return the answers to (n, 3, s, s) images, seen alone or in mosaics of m×m of them."""
        logits, pooled = self._pair[0](images, mosaic)
        return Answers(logits, self.features(pooled), self.labels(pooled) if self._has_labels else None)

    def no_weight_decay(self) -> set[str]:
        """Name the backbone's parameters without weight decay, as timm's models do."""
        names: set[str] = getattr(self.backbone, "no_weight_decay", set)()
        return {f"backbone.{name}" for name in names}

    def get_classifier(self) -> nn.Module:
        """Return the layer of the logits."""
        classifier: nn.Module = self.backbone.get_classifier()
        return classifier

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the backbone's activations again in backward, to save memory."""
        self.backbone.set_grad_checkpointing(enable)


def logits_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Return the (n,) divergences of the student's probabilities from the teacher's, in nats.

    Logits are divided by the temperature first, and the result is multiplied by its square, so that its gradients
    stay alike (Hinton et al., arXiv 1503.02531).
    """
    targets = F.log_softmax(teacher.float() / temperature, dim=1)
    given = F.log_softmax(student.float() / temperature, dim=1)
    return (targets.exp() * (targets - given)).sum(1) * temperature**2


def features_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the (n,) mean squared errors of features whose mean variance is 1: the share that is not explained."""
    return (student.float() - teacher.float()).square().mean(1)


def labels_loss(student: Tensor, labels: Tensor, folder_of_label: Tensor) -> Tensor:
    """Return the (n,) cross-entropies among the labels of an image's own folder; 0 for images without a label.

    Args:
        student: (n, L).
        labels: (n,), −1 where there is none.
        folder_of_label: (L,).
    """
    known = labels >= 0
    folders = folder_of_label[labels.clamp(min=0)]
    others = folder_of_label[None] != folders[:, None]
    logits = student.float().masked_fill(others, float("-inf"))
    losses = F.cross_entropy(logits, labels.clamp(min=0), reduction="none")
    return torch.where(known, losses, student.float().sum(1) * 0)
