"""Windowed attention cases drawn by hypothesis, and how results are compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from vision_longformer.attention.geometry import ALL, NEIGHBOURS, OWN, Offset
from vision_longformer.config import WindowShape

MAX_SCORES = 5_000_000  # of the oracle: batch × heads × tokens²


@dataclass(frozen=True)
class Case:
    """Shapes and settings of one call, and the seed of its tensors."""

    batch: int
    height: int
    width: int
    window: int
    heads: int
    head_width: int
    num_global: int
    shape: WindowShape
    offsets: tuple[Offset, ...]
    biased: bool
    sizes: tuple[tuple[int, int], ...] | None
    band_bytes: int
    seed: int

    def tensors(self, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        """Return leaf tensors with float32 values: queries, keys, values, biases and the result's cotangent."""
        generator = torch.Generator().manual_seed(self.seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(dtype).requires_grad_()

        head = (self.heads, self.head_width)
        tensors = {
            "query": normal(self.batch, self.height, self.width, *head),
            "key_value": normal(self.batch, self.height, self.width, 2, *head),
            "global_key_value": normal(self.batch, self.num_global, 2, *head),
        }
        if self.biased:
            tensors["table"] = normal((4 * self.window - 1) ** 2, self.heads)
            tensors["global_bias"] = normal(self.heads, self.num_global)
        return tensors

    def valid(self) -> Tensor | None:
        """Return (B, H, W), true inside each image's size."""
        if self.sizes is None:
            return None
        valid = torch.zeros(self.batch, self.height, self.width, dtype=torch.bool)
        for image, (height, width) in zip(valid, self.sizes, strict=True):
            image[:height, :width] = True
        return valid

    def settings(self) -> dict[str, Any]:
        sizes = None if self.sizes is None else torch.tensor(self.sizes)
        return {
            "valid": self.valid(),
            "sizes": sizes,
            "window": self.window,
            "shape": self.shape,
            "offsets": self.offsets,
        }

    def without_padding(self, image: int) -> Case:
        """Return the same case for one of its images alone."""
        assert self.sizes is not None
        height, width = self.sizes[image]
        return replace(self, batch=1, height=height, width=width, sizes=None)


EXAMPLE = Case(
    batch=2,
    height=11,
    width=7,
    window=3,
    heads=2,
    head_width=5,
    num_global=2,
    shape="chunk",
    offsets=ALL,
    biased=True,
    sizes=((11, 7), (5, 4)),
    band_bytes=2000,
    seed=1,
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    window = draw(st.integers(1, 9))
    if draw(st.booleans()):  # sides that windows divide, too rare by chance
        height, width = max(1, height // window) * window, max(1, width // window) * window
    room = max(1, MAX_SCORES // (height * width) ** 2)
    heads = draw(st.integers(1, min(4, room)))
    batch = draw(st.integers(1, min(3, max(1, room // heads))))
    shape: WindowShape = draw(st.sampled_from(["chunk", "exact", "cyclic"]))
    drawn = st.sampled_from(NEIGHBOURS).map(lambda offset: (OWN, offset))
    offsets = draw(st.sampled_from([ALL, (OWN,)]) | drawn) if shape != "exact" else ALL
    size = st.tuples(st.integers(1, height), st.integers(1, width))
    return Case(
        batch=batch,
        height=height,
        width=width,
        window=window,
        heads=heads,
        head_width=draw(st.sampled_from([1, 2, 5, 8])),
        num_global=draw(st.integers(0, 5)),
        shape=shape,
        offsets=offsets,
        biased=draw(st.booleans()),
        sizes=draw(st.none() | st.tuples(*[size] * batch)),
        band_bytes=draw(st.sampled_from([100_000, 4 * 2**20])),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def relative_error(actual: Tensor, expected: Tensor, *, least: float = 0.0) -> float:
    """Return the largest error over the largest expected magnitude; over 1 where nothing but zeros is expected.

    Args:
        actual: Any numbers.
        expected: What they should be.
        least: The magnitude to go by where all that is expected is smaller, as what is left of terms that cancel.
    """
    if expected.numel() == 0:
        return 0.0
    magnitude = max(expected.abs().max().item(), least)
    return (actual.double() - expected.double()).abs().max().item() / (magnitude or 1.0)
