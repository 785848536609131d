"""The Vision Longformer's attention as a layer (paper, section 3.1).

B batch, H×W map, C channels, h heads, d head width, G global tokens
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vision_longformer.attention.backend import attention_backend
from vision_longformer.attention.dense import dense_windowed_attention
from vision_longformer.attention.gathered import gathered_windowed_attention, windowed_attention
from vision_longformer.attention.geometry import ALL, NEIGHBOURS, OWN
from vision_longformer.attention.position import GlobalQueryBias, RelativePositionBias
from vision_longformer.attention.projections import Projections, QueryKeyValue
from vision_longformer.attention.triton import is_supported, windowed_attention_triton
from vision_longformer.attention.windows import Windows
from vision_longformer.config import Neighbours, Windowed
from vision_longformer.padding import UNPADDED, Padding


class WindowedAttention(nn.Module):
    """Local tokens attend to chunks around their own and to global tokens; global tokens attend to everything.

    Attributes:
        neighbours: Which chunks are seen beside the own one; may be changed at any time.
    """

    neighbours: Neighbours

    def __init__(
        self, config: Windowed, *, width: int, num_heads: int, num_global_tokens: int, relative_position: bool
    ) -> None:
        super().__init__()
        self.window = config.window_size
        self.shape = config.shape
        self.neighbours = config.neighbours
        shared = config.shared_global_projections or num_global_tokens == 0
        self.projections = Projections(width, num_heads, shared_global=shared)
        self.position = None
        if relative_position:
            rows = (4 * self.window - 1) ** 2
            self.position = RelativePositionBias(rows, num_heads, num_global_tokens=num_global_tokens)

    def forward(self, x: Tensor, global_tokens: Tensor, padding: Padding = UNPADDED) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            x: (B, H, W, C) map.
            global_tokens: (B, G, C).
            padding: What of the map is real.

        Returns:
            (B, H, W, C) and (B, G, C).
        """
        local, of_global = self.projections.split(x), self.projections.split(global_tokens)
        if takes_triton(local.query):
            out = self._attend_on_gpu(*local, of_global, padding)
        else:
            attend = dense_windowed_attention if attention_backend() == "dense" else gathered_windowed_attention
            out = attend(
                *local,
                of_global.key_value,
                table=None if self.position is None else self.position.table,
                global_bias=None if self.position is None else self.position.to_global,
                valid=padding.valid,
                sizes=padding.sizes,
                window=self.window,
                shape=self.shape,
                offsets=self._offsets(),
            )
        out = self.projections.proj(out.flatten(-2))
        if global_tokens.shape[1] == 0:
            return out, global_tokens
        return out, self.projections.attend_from_global(
            x, global_tokens, local, of_global, bias=self.global_query_bias, valid=padding.valid
        )

    # --- what row-wise execution needs to know, see `rowwise.RowwiseLayer` -------------------------------------

    @property
    def is_local(self) -> bool:
        """Whether a map can go by rows: keys of a band are near it."""
        return self.shape != "cyclic"

    @property
    def step(self) -> int:
        """Rows in a chunk row."""
        return self.window

    @property
    def halo(self) -> int:
        """Rows of keys that are needed above and below a band."""
        return 0 if self.neighbours == "own" else self.window

    @property
    def global_query_bias(self) -> GlobalQueryBias | None:
        """Biases of the global queries."""
        return None if self.position is None else self.position.global_queries

    def attend_band(
        self, query: Tensor, key_value: Tensor, of_global: QueryKeyValue, valid: Tensor | None, *, top: int
    ) -> Tensor:
        """Attend from some chunk rows of a map; windows may not be cyclic."""
        if takes_triton(query):
            return self._attend_on_gpu(query, key_value, of_global, Padding(valid), top=top)
        windows = Windows(
            query,
            key_value,
            of_global.key_value,
            table=None if self.position is None else self.position.table,
            global_bias=None if self.position is None else self.position.to_global,
            valid=valid,
            offsets=self._offsets(),
            window=self.window,
            top=top,
            left=0,
            exact=self.shape == "exact",
        )
        out: Tensor = windowed_attention(*windows)
        return out

    def _attend_on_gpu(
        self, query: Tensor, key_value: Tensor, of_global: QueryKeyValue, padding: Padding, *, top: int = 0
    ) -> Tensor:
        out: Tensor = windowed_attention_triton(
            query,
            key_value,
            of_global.key_value,
            None if self.position is None else self.position.table,
            None if self.position is None else self.position.to_global,
            padding.valid,
            padding.sizes if self.shape == "cyclic" else None,
            self._drawn(query.device),
            self.window,
            self.neighbours == "all" or (self.neighbours == "random" and not self.training),
            self.shape == "exact",
            self.shape == "cyclic",
            top,
            0,
        )[0]
        return out

    def _offsets(self) -> Tensor:
        """Return the (n, 2) chunks that each chunk sees in this pass."""
        if self.neighbours == "own":
            return torch.tensor([OWN])
        drawn = self._drawn(torch.device("cpu"))
        return torch.tensor(ALL) if drawn is None else torch.cat([torch.tensor([OWN]), torch.tensor(NEIGHBOURS)[drawn]])

    def _drawn(self, device: torch.device) -> Tensor | None:
        """Return the (1,) number of the neighbour that this pass draws; None if it draws none."""
        if self.neighbours != "random" or not self.training:
            return None
        # torch's generator: it is part of checkpoints, and activation checkpointing replays the same draw
        return torch.randint(len(NEIGHBOURS), (1,), device=device)


def takes_triton(query: Tensor) -> bool:
    """Tell whether the kernels for GPUs attend from these queries."""
    return attention_backend() in ("auto", "triton") and is_supported(query)
