"""How well a classifier does on a split, image by image.

n images, C classes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.data.classification import Samples
from vision_longformer.training.loading import Images, batches
from vision_longformer.training.processes import Processes

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
    model: nn.Module,
    samples: Samples,
    transform: Any,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    max_pixels: int,
    autocast_dtype: torch.dtype | None = None,
    processes: Processes | None = None,
    should_stop: Callable[[], bool] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Evaluation | None:
    """Classify every image of a split.

    Args:
        model: Of images to logits; put into evaluation mode.
        samples: The split; its classes are the model's outputs.
        transform: See `evaluation_transform`.
        batch_size: Images at once, in each process.
        workers: Processes that read images.
        device: Where the model is.
        max_pixels: Refuse larger images.
        autocast_dtype: Compute in this type; None for the model's own.
        processes: Processes that share the work.
        should_stop: Asked before every batch.
        advance: Told of every batch how many images it had, over all processes.

    Returns:
        None if `should_stop` said so in any process.

    Raises:
        ImageError: An image cannot be read.
    """
    processes = processes or Processes()
    model.eval()
    count, top = len(samples), min(TOP, len(samples.classes))
    ranking = torch.zeros(count, top, dtype=torch.long)
    probability, losses = torch.zeros(count), torch.zeros(count)
    images = Images(samples, transform, seed=0, max_pixels=max_pixels)
    for batch in _batches_or_nothing(images, batch_size, workers, processes):
        stop = torch.tensor(float(should_stop is not None and should_stop()), device=device)
        if bool(processes.maximum(stop)):
            return None
        if batch is None:
            continue
        with torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
            logits = model(batch.images.to(device))
        log_probability = F.log_softmax(logits.float(), dim=1).cpu()
        best = log_probability.topk(top, dim=1)
        indices = torch.tensor(batch.indices)
        ranking[indices], probability[indices] = best.indices, best.values[:, 0].exp()
        losses[indices] = -log_probability.gather(1, batch.labels[:, None])[:, 0]
        if advance is not None:
            advance(min(len(batch.indices) * processes.count, count))
    gathered = [processes.sum(values.to(device)).cpu() for values in (ranking, probability, losses)]
    return Evaluation(samples, *gathered)


def _batches_or_nothing(images: Images, batch_size: int, workers: int, processes: Processes) -> Iterator[Any]:
    """Yield this process's batches, then None until all processes have had as many."""
    own = range(processes.rank, len(images), processes.count)
    keys = [list(own[first : first + batch_size]) for first in range(0, len(own), batch_size)]
    most = -(-len(range(0, len(images), processes.count)) // batch_size)
    yield from batches(images, keys, workers=workers, pin=False)
    for _ in range(most - len(keys)):
        yield None
