"""Mean and variance of a map that arrives by rows, for group normalisation.

G groups, C channels, n rows, W positions a row
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Moments:
    """Counts, means and sums of squared deviations of groups of channels, in double precision.

    Parts are joined as in Chan, Golub and LeVeque, Algorithms for computing the sample variance, 1983: nothing is lost
    where a mean is far from zero.

    Args:
        groups: Of channels.
        like: Where, as a tensor.
    """

    def __init__(self, groups: int, *, like: Tensor) -> None:
        self._groups, self._count = groups, 0
        self._mean, self._squares = (torch.zeros(groups, dtype=torch.float64, device=like.device) for _ in range(2))

    def add(self, rows: Tensor, real: Tensor | None) -> None:
        """Add (1, C, n, W) rows; of them, those that (n, W) `real` says are (all, for None)."""
        values = rows[0].unflatten(0, (self._groups, -1))  # (G, C/G, n, W)
        positions = rows.shape[2] * rows.shape[3] if real is None else int(real.sum())
        count = positions * values.shape[1]
        if count == 0:
            return
        values = values if real is None else torch.where(real, values, 0)
        mean = values.sum(dim=(1, 2, 3), dtype=torch.float64) / count  # (G,)
        # Taken off rounded to the map's own type, so that no copy in double precision is made; then made good for.
        near = mean.to(rows.dtype)
        values = values - near[:, None, None, None]
        values = (values if real is None else torch.where(real, values, 0)).square_()
        squares = values.sum(dim=(1, 2, 3), dtype=torch.float64) - count * (mean - near).square()
        total, apart = self._count + count, mean - self._mean
        self._squares += squares + apart.square() * (self._count * count / total)
        self._mean += apart * (count / total)
        self._count = total

    def affine(self, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
        """Return (C, 1, 1) factors and summands that normalise a map as `norm` does, its weights included."""
        scale = (self._squares / self._count + norm.eps).rsqrt()  # (G,)
        repeated = [x.repeat_interleave(norm.num_channels // self._groups) for x in (self._mean, scale)]
        factor = norm.weight.double() * repeated[1]
        summand = norm.bias.double() - repeated[0] * factor
        return factor.to(norm.weight.dtype)[:, None, None], summand.to(norm.weight.dtype)[:, None, None]
