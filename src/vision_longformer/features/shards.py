"""A share of the images for each of several processes, which need not know of each other."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vision_longformer.images.find import Source


@dataclass(frozen=True)
class Shard:
    """One of so many shares.

    An image belongs to a share by its name, so that processes which find more images than others, as files are added,
    still do each once.

    Attributes:
        number: Which, from 1.
        count: Of how many.

    Raises:
        ValueError: There is no such share.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"shard {self.number}/{self.count}: the first number must lie between 1 and the second")

    def of(self, sources: Sequence[Source]) -> list[Source]:
        """Return the images of this share, in order."""
        return [source for source in sources if _number_of(source.name) % self.count == self.number - 1]


def _number_of(name: str) -> int:
    """Return a large number that is as good as random; checksums are not, for names that differ in a digit."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest())


def parse_shard(text: str, environment: Mapping[str, str]) -> Shard:
    """Return the share that a text names.

    Args:
        text: Such as "3/16"; "auto" takes it from torchrun's RANK and WORLD_SIZE, or from the variables of a SLURM
            array.
        environment: For "auto".

    Raises:
        ValueError: It names none.
    """
    if text == "auto":
        return _from_environment(environment)
    number, slash, count = text.partition("/")
    if not (slash and number.strip().isdecimal() and count.strip().isdecimal()):
        raise ValueError(f'{text!r} is no share: write which of how many, such as 3/16, or "auto"')
    return Shard(int(number), int(count))


def _from_environment(environment: Mapping[str, str]) -> Shard:
    def number(name: str, default: int | None = None) -> int:
        text = environment.get(name)
        if text is None and default is not None:
            return default
        if text is None or not text.isdecimal():
            raise ValueError(f"{name}={text}: expected a whole number, from which the share is taken")
        return int(text)

    if "RANK" in environment and "WORLD_SIZE" in environment:
        return Shard(number("RANK") + 1, number("WORLD_SIZE"))
    if "SLURM_ARRAY_TASK_ID" in environment:
        first, step = number("SLURM_ARRAY_TASK_MIN", 0), max(1, number("SLURM_ARRAY_TASK_STEP", 1))
        return Shard((number("SLURM_ARRAY_TASK_ID") - first) // step + 1, number("SLURM_ARRAY_TASK_COUNT"))
    raise ValueError("neither RANK and WORLD_SIZE nor SLURM_ARRAY_TASK_ID are set: name the share, such as 3/16")
