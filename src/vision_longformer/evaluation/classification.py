"""How well a classifier does on a split, image by image.

n images, C classes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.datasets.classification import Samples
from vision_longformer.datasets.loaders import Batch, Images
from vision_longformer.datasets.normalising import images_of
from vision_longformer.evaluation.flips import with_flips
from vision_longformer.evaluation.loop import EvaluationSetup, for_each_batch
from vision_longformer.images import MAX_PIXELS

TOP = 5


@dataclass(frozen=True)
class Evaluation:
    """Results on every image of a split.

    Attributes:
        samples: The images.
        ranking: (n, up to 5) the most probable classes of each, most probable first.
        probability: (n,) of the most probable class.
        loss: (n,) cross-entropy.
    """

    samples: Samples
    ranking: Tensor
    probability: Tensor
    loss: Tensor

    @property
    def correct(self) -> Tensor:
        """(n, up to 5) booleans: which ranks hold the true class."""
        return self.ranking == torch.tensor(self.samples.labels)[:, None]

    def metrics(self) -> dict[str, float]:
        """Return "top1" and "top5" in percent, and the mean "loss"."""
        return {
            "top1": 100 * float(self.correct[:, 0].double().mean()),
            "top5": 100 * float(self.correct.any(dim=1).double().mean()),
            "loss": float(self.loss.double().mean()),
        }

    def confusion(self) -> Tensor:
        """Return the (C, C) numbers of images, true class by predicted class."""
        classes = len(self.samples.classes)
        pairs = torch.tensor(self.samples.labels) * classes + self.ranking[:, 0]
        return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


@torch.inference_mode()
def evaluate(
    model: nn.Module, samples: Samples, transform: Any, how: EvaluationSetup, *, max_pixels: int = MAX_PIXELS
) -> Evaluation | None:
    """Classify every image of a split.

    Args:
        model: Of images to logits; put into evaluation mode.
        samples: The split; its classes are the model's outputs.
        transform: See `evaluation_transform`.
        how: Batches, the device, and the processes that share the work.
        max_pixels: Refuse larger images.

    Returns:
        None if `how.should_stop` said so in any process.

    Raises:
        ImageError: An image cannot be read.
    """
    seen = with_flips(model.eval(), how.flips)
    count, top = len(samples), min(TOP, len(samples.classes))
    ranking = torch.zeros(count, top, dtype=torch.long)
    probability, losses = torch.zeros(2, count, dtype=torch.float32)
    images = Images(samples, transform, seed=0, max_pixels=max_pixels)

    def take(batch: Batch) -> None:
        with how.autocast():
            logits = seen(images_of(batch, how.device))
        log_probability = F.log_softmax(logits.float(), dim=1).cpu()
        best = log_probability.topk(top, dim=1)
        indices = torch.tensor(batch.indices)
        ranking[indices], probability[indices] = best.indices, best.values[:, 0].exp()
        losses[indices] = -log_probability.gather(1, batch.labels[:, None])[:, 0]

    if not for_each_batch(images, how, take):
        return None
    gathered = [how.processes.sum(values.to(how.device)).cpu() for values in (ranking, probability, losses)]
    return Evaluation(samples, *gathered)
