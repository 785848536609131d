"""Which images each step takes, and which process takes which of them: pure functions of counters.

An epoch is a permutation of all images, in which images of like orientation may stand together; with repeated
augmentation r, of the first 1/r of them, each r times in a row. It is cut into steps of `batch_size` images, the last
of which may be smaller, a step into as many shares as there are processes, and a share into parts, one after the
other (gradient accumulation).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vision_longformer.datasets.loaders import Key
from vision_longformer.datasets.transforms import grouped_by_orientation
from vision_longformer.training.config import TrainConfig
from vision_longformer.utils.distributed import Processes
from vision_longformer.utils.seeding import epoch_order


@dataclass(frozen=True, eq=False)
class Sampler:
    """The order of a run.

    Attributes:
        samples: Images of the training set.
        batch_size: Images of a step, of all processes together.
        repeats: Repeated augmentation.
        seed: Of the run.
        ranks: Number of processes.
        rank: This one, from 0.
        accumulation: Parts of a step.
        sizes: (samples, 2) (height, width) of the images: those of a step are then all wide or all high; None where
            that does not matter.
    """

    samples: int
    batch_size: int
    repeats: int
    seed: int
    ranks: int
    rank: int
    accumulation: int
    sizes: NDArray[np.int32] | None = None

    @classmethod
    def of(
        cls, config: TrainConfig, *, samples: int, processes: Processes, sizes: NDArray[np.int32] | None = None
    ) -> Sampler:
        """Return the order of one of the processes of a run."""
        return cls(
            samples=samples,
            batch_size=config.compute.batch_size,
            repeats=config.augmentation.repeats,
            seed=config.seed,
            ranks=processes.count,
            rank=processes.rank,
            accumulation=config.compute.accumulation,
            sizes=sizes,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, the smaller last one included."""
        return -(-self.samples // self.batch_size)

    def step(self, step: int) -> list[Key]:
        """Return the images of a step, counted from 0 over the whole run, of all processes."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        order = self._of_epoch(epoch)
        first = step_in_epoch * self.batch_size
        places = range(first, min(first + self.batch_size, self.samples))
        return [Key(epoch, int(order[place // self.repeats]), place % self.repeats) for place in places]

    def parts(self, step: int) -> list[list[Key]]:
        """Return this process's images of a step, part by part. A part may be empty."""
        images = self.step(step)
        shares = self.ranks * self.accumulation
        cuts = [len(images) * number // shares for number in range(shares + 1)]
        own = range(self.rank * self.accumulation, (self.rank + 1) * self.accumulation)
        return [images[cuts[part] : cuts[part + 1]] for part in own]

    def remaining(self, first_step: int, last_step: int) -> Iterator[list[Key]]:
        """Yield the parts of steps `first_step` up to, but not including, `last_step`."""
        for step in range(first_step, last_step):
            for keys in self.parts(step):
                # A process without an image of its own computes with one whose loss counts nothing.
                yield keys or self.step(step)[:1]

    def _of_epoch(self, epoch: int) -> NDArray[np.int64]:
        order = epoch_order(self.seed, epoch=epoch, samples=self.samples)
        if self.sizes is None:
            return order
        return grouped_by_orientation(order, self.sizes, batch_size=self.batch_size)


class Remaining:
    """The parts of the steps that are left, for a data loader: a sampler may be iterated anew in each worker."""

    def __init__(self, order: Sampler, first: int, last: int) -> None:
        self.order, self.first, self.last = order, first, last

    def __iter__(self) -> Iterator[list[Key]]:
        return self.order.remaining(self.first, self.last)

    def __len__(self) -> int:
        return (self.last - self.first) * self.order.accumulation
