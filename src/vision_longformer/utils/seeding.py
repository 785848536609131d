"""Randomness by counter: what is drawn depends on where training stands, never on how it got there.

A generator is seeded anew from the run's seed and a position (a step, or an image of an epoch) before it is used. So
nothing about randomness has to be saved, and continued training draws what uninterrupted training draws.
"""

from __future__ import annotations

import functools
import random

import numpy as np
import torch

_WEIGHTS, _ORDER, _SAMPLE, _STEP = range(4)  # separate streams of one seed


def seed_weights(seed: int) -> None:
    """Seed what initialises a model."""
    _seed(seed, _WEIGHTS)


def seed_sample(seed: int, *, epoch: int, image: int, repeat: int) -> None:
    """Seed the augmentation of an image, which happens on the CPU: seeding every device takes a millisecond."""
    _seed(seed, _SAMPLE, epoch, image, repeat, every_device=False)


def seed_step(seed: int, *, step: int, rank: int, part: int) -> None:
    """Seed drop path, random shift, Mixup and all else that is drawn in a part of a training step."""
    _seed(seed, _STEP, step, rank, part)


@functools.lru_cache(maxsize=2)  # an epoch is asked for at each of its steps
def epoch_order(seed: int, *, epoch: int, samples: int) -> np.ndarray:
    """Return a permutation of `samples` numbers, the order of an epoch."""
    order = np.random.default_rng([seed, _ORDER, epoch]).permutation(samples)
    order.setflags(write=False)
    return order


def _seed(*position: int, every_device: bool = True) -> None:
    words = np.random.SeedSequence(position).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    (torch.manual_seed if every_device else torch.default_generator.manual_seed)(int(words[2]))
