"""What values of options are allowed, in words and as a condition."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """A rule for a value.

    Attributes:
        text: Ends the sentence of the error.
        holds: Tells whether a value, which is of the right type, keeps to it.
    """

    text: str
    holds: Callable[[Any], bool]


AT_LEAST_1 = Rule("must be at least 1", lambda value: value >= 1)
AT_LEAST_64 = Rule("must be at least 64", lambda value: value >= 64)
NOT_NEGATIVE = Rule("must not be negative", lambda value: value >= 0)
ABOVE_0 = Rule("must be above 0", lambda value: value > 0)
PART = Rule("must be above 0 and at most 1", lambda value: 0 < value <= 1)
SHARE = Rule("must lie between 0 and 1", lambda value: 0 <= value <= 1)
RATE = Rule("must be from 0 up to, but not including, 1", lambda value: 0 <= value < 1)
RATES = Rule(
    "must be two numbers from 0 up to, but not including, 1", lambda pair: all(0 <= value < 1 for value in pair)
)
RANGE = Rule("must be two numbers above 0, the smaller first", lambda pair: len(pair) == 2 and 0 < pair[0] <= pair[1])
SIDES = Rule(
    "must be whole numbers from 1 on",
    lambda numbers: len(numbers) > 0 and all(isinstance(number, int) and number >= 1 for number in numbers),
)
SHARES_OF_RUN = Rule(
    "must be shares of the run, between 0 and 1, in ascending order",
    lambda shares: all(0 < share < 1 for share in shares) and list(shares) == sorted(set(shares)),
)
RAND_AUGMENT = Rule(
    "must be timm's description of RandAugment, such as rand-m9-mstd0.5-inc1",
    lambda text: bool(re.fullmatch(r"rand(-(m|n|mmax|inc)\d+|-(mstd|p)\d+(\.\d+)?|-t\w+)*", text)),
)
CHANNELS = Rule(
    "must be numbers of channels, counted from 0, each once",
    lambda numbers: (
        len(numbers) > 0
        and all(isinstance(number, int) and number >= 0 for number in numbers)
        and len(set(numbers)) == len(numbers)
    ),
)
LABEL_VALUES = Rule(
    "must be whole numbers from 0 on, each once",
    lambda numbers: (
        all(isinstance(number, int) and number >= 0 for number in numbers) and len(set(numbers)) == len(numbers) > 0
    ),
)
CLASS_WEIGHTS = Rule(
    "must be balanced, or numbers from 0 on, one above 0",
    lambda value: value == "balanced" or (not isinstance(value, str) and min(value, default=-1) >= 0 < max(value)),
)
