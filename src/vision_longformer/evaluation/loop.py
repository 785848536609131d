"""A pass over the images of a split, shared by the processes of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from vision_longformer.datasets.loaders import batches
from vision_longformer.evaluation.flips import Flips
from vision_longformer.utils.distributed import Processes


@dataclass(frozen=True)
class EvaluationSetup:
    """How to evaluate.

    Attributes:
        batch_size: Images at once, in each process.
        workers: Processes that read images.
        device: Where the model is.
        autocast_dtype: Compute in this type; None for the model's own.
        flips: Which flipped copies of an image are looked at too (see `evaluation.flips`).
        processes: Those that share the work.
        should_stop: Asked before every batch.
        advance: Told of every batch how many images it had, over all processes.
    """

    batch_size: int
    workers: int
    device: torch.device
    autocast_dtype: torch.dtype | None = None
    flips: Flips = "none"
    processes: Processes = Processes()
    should_stop: Callable[[], bool] = lambda: False
    advance: Callable[[int], None] = lambda images: None

    def autocast(self) -> torch.autocast:
        """Return the context to compute in."""
        return torch.autocast(self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None)


def for_each_batch(images: Dataset[Any], how: EvaluationSetup, take: Callable[[Any], None]) -> bool:
    """Hand this process's batches of a split to `take`, one after the other.

    Args:
        images: By number; see `loaders.batches`.
        how: Batches, the device, and the processes that share the work.
        take: What to do with a batch.

    Returns:
        Whether all of them were; not if any process was asked to stop.

    Raises:
        ImageError: An image cannot be read.
    """
    count = len(images)  # type: ignore[arg-type]
    for batch in _batches_or_nothing(images, count, how):
        if how.processes.any(how.should_stop(), device=how.device):
            return False
        if batch is not None:
            take(batch)
            how.advance(min(len(batch.indices) * how.processes.count, count))
    return True


def _batches_or_nothing(images: Dataset[Any], count: int, how: EvaluationSetup) -> Iterator[Any]:
    """Yield this process's batches, then None until all processes have had as many."""
    own = range(how.processes.rank, count, how.processes.count)
    keys = [list(own[first : first + how.batch_size]) for first in range(0, len(own), how.batch_size)]
    most = -(-len(range(0, count, how.processes.count)) // how.batch_size)
    yield from batches(images, keys, workers=how.workers, pin=how.device.type == "cuda")
    for _ in range(most - len(keys)):
        yield None
