"""The attention of the global tokens over a map that is never whole in memory.

h heads, d head width, G global tokens, n map tokens

A softmax needs the largest score and the sum over all keys. Both are kept as keys arrive: when a larger score comes,
what was summed before is scaled down to it. So are the sums of several processes, each of which has seen some keys.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from vision_longformer.attention.position import GlobalQueryBias
from vision_longformer.attention.projections import QueryKeyValue


class Others(Protocol):
    """Processes that have seen other keys; see `utils.distributed.Processes`."""

    @property
    def is_first(self) -> bool:
        """Whether this is the first of them."""

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all of them."""

    def maximum(self, values: Tensor) -> Tensor:
        """Return the largest, element by element."""


class OnlineSoftmax:
    """Gathers the values of all keys, weighted by a softmax over all of them, in any number of steps.

    The global tokens are its first keys, so that there is always a real one.

    Args:
        of_global: Projected global tokens, (1, G, h, d) each.
        bias: Of the logits of the global queries, or None.
    """

    def __init__(self, of_global: QueryKeyValue, bias: GlobalQueryBias | None) -> None:
        query = of_global.query[0].transpose(0, 1)  # (h, G, d)
        self._query = query * query.shape[-1] ** -0.5
        heads, count, width = query.shape
        # Sums over a billion tokens need more than single precision; there are few of them.
        self._largest = query.new_full((heads, count, 1), float("-inf"), dtype=torch.float64)
        self._sum = query.new_zeros(heads, count, 1, dtype=torch.float64)
        self._values = query.new_zeros(heads, count, width, dtype=torch.float64)
        to_global = None if bias is None else bias.to_global
        self._add(of_global.key[0], of_global.value[0], to_global, None)
        self._of_global = (self._largest, self._sum, self._values)
        self._map_bias = None if bias is None else bias.to_map[..., None]

    def add(self, key: Tensor, value: Tensor, valid: Tensor | None) -> None:
        """Add (n, h, d) keys and values of map tokens; (n,) `valid` is false where one is not real."""
        self._add(key, value, self._map_bias, valid)

    def _add(self, key: Tensor, value: Tensor, bias: Tensor | None, valid: Tensor | None) -> None:
        scores = self._query @ key.permute(1, 2, 0)  # (h, G, n)
        if bias is not None:
            scores = scores + bias
        if valid is not None:
            scores = scores.masked_fill(~valid, float("-inf"))
        largest = torch.maximum(self._largest, scores.amax(dim=-1, keepdim=True))
        weights = scores.sub_(largest.to(scores.dtype)).exp_()
        # `largest` is exact in the scores' own type, as it is one of them.
        shrink = (self._largest - largest).exp()
        self._sum = self._sum * shrink + weights.sum(dim=-1, keepdim=True, dtype=torch.float64)
        self._values = self._values * shrink + weights @ value.transpose(0, 1)
        self._largest = largest

    def merge(self, others: Others) -> None:
        """Add what other processes have seen, which have the same global tokens: these count once."""
        largest = others.maximum(self._largest)
        if not others.is_first:
            before, shares, values = self._of_global
            shrink = (before - self._largest).exp()
            self._sum, self._values = self._sum - shares * shrink, self._values - values * shrink
        shrink = (self._largest - largest).exp()
        self._sum, self._values = others.sum(self._sum * shrink), others.sum(self._values * shrink)
        self._largest = largest

    def result(self) -> Tensor:
        """Return (G, h·d): what each global token gathered, head after head."""
        gathered: Tensor = self._values / self._sum  # (h, G, d)
        return gathered.to(self._query.dtype).transpose(0, 1).flatten(1)
