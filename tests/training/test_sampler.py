from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vision_longformer.datasets.loaders import Key
from vision_longformer.training.sampler import Sampler
from vision_longformer.utils.seeding import epoch_order, seed_sample, seed_step, seed_weights


def an_order(
    *,
    samples: int,
    batch_size: int,
    repeats: int = 1,
    seed: int = 0,
    ranks: int = 1,
    rank: int = 0,
    accumulation: int = 1,
) -> Sampler:
    return Sampler(samples, batch_size, repeats, seed, ranks, rank, accumulation)


def epoch(order: Sampler, number: int) -> list[Key]:
    first = number * order.steps_per_epoch
    return [key for step in range(first, first + order.steps_per_epoch) for key in order.step(step)]


samples = st.integers(1, 60)
batch_sizes = st.integers(1, 17)
small = st.integers(1, 5)
seeds = st.integers(0, 2**40)
epochs = st.integers(0, 400)


@given(samples, batch_sizes, seeds, epochs)
def test_each_image_is_taken_once_an_epoch(samples: int, batch_size: int, seed: int, number: int) -> None:
    keys = epoch(an_order(samples=samples, batch_size=batch_size, seed=seed), number)
    assert sorted(key.image for key in keys) == list(range(samples))
    assert {(key.epoch, key.repeat) for key in keys} == {(number, 0)}


@given(samples, batch_sizes, small, seeds)
def test_a_repeated_image_stands_r_times_in_a_row_and_an_epoch_is_as_long_as_ever(
    samples: int, batch_size: int, repeats: int, seed: int
) -> None:
    keys = epoch(an_order(samples=samples, batch_size=batch_size, repeats=repeats, seed=seed), 2)
    assert len(keys) == samples
    drawn = Counter(key.image for key in keys)
    whole, rest = divmod(samples, repeats)
    assert sorted(drawn.values()) == sorted([repeats] * whole + [rest] * (rest > 0))
    assert [key.repeat for key in keys] == [place % repeats for place in range(samples)]
    assert [key.image for key in keys][::repeats] == list(epoch_order(seed, epoch=2, samples=samples))[: len(drawn)]


@given(samples, batch_sizes, small, small, small, st.integers(0, 50))
def test_parts_of_all_processes_make_up_the_step_that_one_process_takes(
    samples: int, batch_size: int, ranks: int, accumulation: int, repeats: int, step: int
) -> None:
    alone = an_order(samples=samples, batch_size=batch_size, repeats=repeats)
    shares = [
        an_order(
            samples=samples, batch_size=batch_size, repeats=repeats, ranks=ranks, rank=rank, accumulation=accumulation
        ).parts(step)
        for rank in range(ranks)
    ]
    assert all(len(parts) == accumulation for parts in shares)
    assert [key for parts in shares for part in parts for key in part] == alone.step(step)
    sizes = [len(part) for parts in shares for part in parts]
    assert max(sizes) - min(sizes) <= 1


@given(samples, batch_sizes)
def test_only_the_last_step_of_an_epoch_is_smaller(samples: int, batch_size: int) -> None:
    order = an_order(samples=samples, batch_size=batch_size)
    sizes = [len(order.step(step)) for step in range(order.steps_per_epoch)]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert sizes[-1] == samples - batch_size * (len(sizes) - 1) > 0


def test_epochs_and_seeds_have_their_own_orders() -> None:
    drawn = {tuple(epoch_order(seed, epoch=number, samples=20)) for seed in range(5) for number in range(5)}
    assert len(drawn) == 25


@given(samples, batch_sizes, small, small, st.integers(0, 9), st.integers(0, 9))
def test_what_remains_goes_on_where_the_steps_before_ended(
    samples: int, batch_size: int, ranks: int, accumulation: int, first: int, more: int
) -> None:
    order = an_order(samples=samples, batch_size=batch_size, ranks=ranks, rank=ranks - 1, accumulation=accumulation)
    whole = list(order.remaining(0, first + more))
    assert list(order.remaining(0, first)) + list(order.remaining(first, first + more)) == whole
    assert len(whole) == (first + more) * accumulation


def test_a_process_without_an_image_computes_with_one_of_the_step() -> None:
    order = an_order(samples=3, batch_size=2, ranks=2, rank=0)
    assert [len(part) for part in order.parts(1)] == [0]
    assert list(order.remaining(1, 2)) == [order.step(1)]


# --- randomness -------------------------------------------------------------------------------------------------


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_what_is_drawn_follows_from_the_position_alone() -> None:
    seed_step(3, step=5, rank=1, part=2)
    first = drawn()
    seed_sample(3, epoch=5, image=1, repeat=2)
    drawn()
    seed_step(3, step=5, rank=1, part=2)
    assert drawn() == first
    seed_sample(3, epoch=5, image=1, repeat=2)
    of_an_image = drawn()
    torch.rand(9)
    seed_sample(3, epoch=5, image=1, repeat=2)
    assert drawn() == of_an_image


@pytest.mark.parametrize("generator", [0, 1, 2], ids=["Python", "NumPy", "torch"])
def test_no_two_positions_draw_the_same(generator: int) -> None:
    numbers = []
    for seed in (0, 1):
        seed_weights(seed)
        numbers.append(drawn()[generator])
        for first in (0, 1):
            for second in (0, 1):
                for third in (0, 1):
                    seed_step(seed, step=first, rank=second, part=third)
                    numbers.append(drawn()[generator])
                    seed_sample(seed, epoch=first, image=second, repeat=third)
                    numbers.append(drawn()[generator])
    assert len(set(numbers)) == len(numbers) == 34
