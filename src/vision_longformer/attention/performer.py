"""Performer's attention with positive orthogonal random features, FAVOR+ (Choromanski et al., arXiv 2009.14794).

B batch, H×W map, N = H·W tokens, C channels, h heads, d head width, G global tokens, m random features

exp(q·k / √d) is the mean of φ(q)·φ(k) over random projections P, with q and k divided by d^¼ and

    φ(x) = exp(Px − |x|²/2 − c) + 1e-4

c keeps the exponential in range; but for the 1e-4 it would cancel. For queries it is the largest of Px of each token
and head, for keys the largest of an image, over heads, tokens and features. (The published code takes that maximum over
the whole batch, which lets one image change another.) A factor 1/√m of both would cancel. Then

    out = φ(q) (φ(k)ᵀ v) / (φ(q) · Σ φ(k)),

where the (m, d) product in the middle is the same for all queries, so that the cost is linear in N.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vision_longformer.attention.projections import Projections
from vision_longformer.attention.tracing import is_traced
from vision_longformer.config import Performer
from vision_longformer.padding import UNPADDED, Padding

EPS = 1e-4
BAND_BYTES = 64 * 2**20  # of features at once


class PerformerAttention(nn.Module):
    """Every token attends to every token through random features of queries and keys.

    Attributes:
        projection: (m, d) random projection P, part of the saved weights; drawn anew in training.
        draws: (2,) seed of the layer's own random numbers, and how many projections were drawn with it. As it is
            saved too, continued training draws what uninterrupted training would.
    """

    projection: Tensor
    draws: Tensor

    def __init__(self, config: Performer, *, width: int, num_heads: int) -> None:
        super().__init__()
        self.projections = Projections(width, num_heads)
        seed = torch.randint(2**48, (), device="cpu").item()
        self.register_buffer("draws", torch.tensor([seed, 0]))
        first = draw_projection(config.num_features, width // num_heads, seed=int(seed), number=0)
        self.register_buffer("projection", first.to(torch.get_default_dtype()).to(self.projections.proj.weight.device))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def redraw(self) -> None:
        """Draw the next projection. A training step does so once, before the layer runs."""
        seed, number = self.draws.tolist()
        self.draws[1] += 1
        # a new tensor, as a backward pass may still need the old one
        self.projection = draw_projection(*self.projection.shape, seed=seed, number=number + 1).to(self.projection)

    def forward(self, x: Tensor, global_tokens: Tensor, padding: Padding = UNPADDED) -> tuple[Tensor, Tensor]:
        """Attend from and to a (B, H, W, C) map and (B, G, C) global tokens; return both. Padding is no key."""
        num_global, x = global_tokens.shape[1], padding.clean(x)
        local, of_global = self.projections.split(x), self.projections.split(global_tokens)
        query, key, value = (
            torch.cat([first, second.flatten(1, 2)], dim=1).transpose(1, 2)
            for first, second in zip(
                (of_global.query, of_global.key, of_global.value), (local.query, local.key, local.value), strict=True
            )
        )  # (B, h, G + N, d)
        real = None
        if padding.valid is not None:
            valid = padding.valid.flatten(1)
            real = torch.cat([valid.new_ones(valid.shape[0], num_global), valid], dim=1)[:, None, :, None]
        with torch.autocast(x.device.type, enabled=False):  # sums over thousands of tokens need float32
            out = self._attend(_at_least_float32(query), _at_least_float32(key), _at_least_float32(value), real)
        out = self.projections.proj(out.to(value.dtype).transpose(1, 2).flatten(2))  # (B, G + N, C)
        of_global_out, on_map = out.split([num_global, out.shape[1] - num_global], dim=1)
        return on_map.reshape(x.shape), of_global_out

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, real: Tensor | None) -> Tensor:
        """Attend with (B, h, n, d) queries, keys and values; `real` is (B, 1, n, 1), None if all keys are real."""
        projection = self.projection.to(query.dtype)
        query, key = query * query.shape[-1] ** -0.25, key * query.shape[-1] ** -0.25
        band = self._tokens_in_a_band(query)
        in_one = band >= query.shape[2]
        run = _run if in_one else _run_again_in_backward
        largest = torch.stack([run(_largest, k, projection, r) for k, r in _split(band, key, real)]).amax(dim=0)
        parts = [run(_key_context, k, v, projection, largest, r) for k, v, r in _split(band, key, value, real)]
        context, total = (torch.stack(part).sum(dim=0) for part in zip(*parts, strict=True))
        return torch.cat([run(_read, q, projection, context, total) for (q,) in _split(band, query)], dim=2)

    def _tokens_in_a_band(self, query: Tensor) -> int:
        batch, heads, tokens, _ = query.shape
        if is_traced():  # a loop would be traced for one size only
            return tokens
        return max(1, BAND_BYTES // max(1, batch * heads * self.projection.shape[0] * query.itemsize))


def draw_projection(num_features: int, head_width: int, *, seed: int, number: int) -> Tensor:
    """Draw the (m, d) float64 projection `number` of those that belong to `seed`.

    Blocks of d random orthonormal rows, each row scaled by the norm of an independent Gaussian vector of d numbers.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)

    def gaussian(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")

    blocks = math.ceil(num_features / head_width)
    directions, triangle = torch.linalg.qr(gaussian(blocks, head_width, head_width))
    directions = directions * triangle.diagonal(dim1=1, dim2=2).sign()[:, None]  # QR alone prefers some directions
    rows: Tensor = directions.transpose(1, 2).flatten(0, 1)[:num_features]
    lengths: Tensor = gaussian(num_features, head_width).norm(dim=1, keepdim=True)
    return rows * lengths


def _largest(key: Tensor, projection: Tensor, real: Tensor | None) -> Tensor:
    """Return the (B, 1, 1, 1) largest projection of an image's real keys; −∞ if it has none."""
    projected = key @ projection.T
    if real is not None:
        projected = projected.masked_fill(~real, float("-inf"))
    return projected.amax(dim=(1, 2, 3), keepdim=True)


def _key_context(
    key: Tensor, value: Tensor, projection: Tensor, largest: Tensor, real: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return Σ φ(k) vᵀ, (B, h, m, d), and Σ φ(k), (B, h, m, 1), over a band of tokens."""
    shift = torch.where(largest.isfinite(), largest, 0)
    features = _features(key, projection, shift)
    if real is not None:
        features = torch.where(real, features, 0)
        value = torch.where(real, value, 0)
    return features.transpose(2, 3) @ value, features.sum(dim=2)[..., None]


def _read(query: Tensor, projection: Tensor, context: Tensor, total: Tensor) -> Tensor:
    """Return (B, h, n, d): what a band of queries reads from the keys' context."""
    features = _features(query, projection, (query @ projection.T).amax(dim=3, keepdim=True))
    weight = features @ total  # (B, h, n, 1)
    return features @ context / torch.where(weight > 0, weight, 1)


def _features(x: Tensor, projection: Tensor, shift: Tensor) -> Tensor:
    """Return the (B, h, n, m) positive features of (B, h, n, d) queries or keys."""
    half_square = x.square().sum(dim=3, keepdim=True) / 2
    return torch.exp(x @ projection.T - half_square - shift) + EPS


def _split(band: int, *tensors: Tensor | None) -> list[tuple[Any, ...]]:
    """Cut (B, h or 1, n, ...) tensors into bands of tokens; None stays None in each."""
    parts = [None if tensor is None else tensor.split(band, dim=2) for tensor in tensors]
    count = max(len(part) for part in parts if part is not None)
    return [tuple(None if part is None else part[number] for part in parts) for number in range(count)]


def _run(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _run_again_in_backward(function: Callable[..., Any], *arguments: Any) -> Any:
    """Keep the arguments alone for backward: features are m / d times as large as what they are made of."""
    if torch.is_grad_enabled():
        return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return function(*arguments)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
