"""A patch embedding over a map that arrives by rows.

H×W map, n rows, C channels, p patch size
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vision_longformer.attention.position import axis_positions, interpolate
from vision_longformer.backbone import PatchEmbed
from vision_longformer.padding import pad_to_multiple
from vision_longformer.streaming.rows import Rows, Stream
from vision_longformer.utils.distributed import Processes


class StreamedEmbedding:
    """Applies a patch embedding to one map.

    Args:
        embed: In evaluation mode.
        size: (height, width) of the map that comes in.

    Attributes:
        size: (height, width) of the map that goes out.
        global_tokens: (G, C) of the stage that begins here.
    """

    def __init__(self, embed: PatchEmbed, size: tuple[int, int]) -> None:
        self.embed = embed
        self.patch = embed.patch_size
        self.height = size[0]
        self.size = (-(-size[0] // self.patch), -(-size[1] // self.patch))
        like = embed.proj.weight
        self.global_tokens = like.new_empty(0, like.shape[0]) if embed.global_tokens is None else embed.global_tokens
        self._tables: tuple[Tensor, Tensor] | None = None
        position = embed.position
        if position is not None:
            tables = []
            for table, length in zip((position.rows, position.columns), self.size, strict=True):
                whole = torch.tensor([length], device=like.device)
                tables.append(interpolate(table, axis_positions(whole, length, table_length=len(table)))[0])
            self._tables = (tables[0], tables[1])  # (H', C/2), (W', C/2)
            if position.global_tokens is not None:
                self.global_tokens = self.global_tokens + position.global_tokens

    def run(self, source: Stream) -> Stream:
        """Return the map of tokens as a stream that draws on `source`."""
        return Stream(self.size, self._embedded(source.rows))

    def finish(self, _processes: Processes) -> None:
        """Do nothing: its global tokens are known from the start."""

    def _embedded(self, source: Iterator[Rows]) -> Iterator[Rows]:
        for rows in self._whole_patches(source):
            top = rows.top // self.patch
            tokens = self._convolve(rows.tokens)
            if self._tables is not None:
                by_row, by_column = self._tables
                half = by_row.shape[1]
                tokens[..., :half] += by_row[top : top + len(tokens), None]
                tokens[..., half:] += by_column
            valid = None if rows.valid is None else self._downsample(rows.valid)
            yield Rows(top, tokens, valid)

    def _convolve(self, x: Tensor) -> Tensor:
        """Turn (n, W, C) into (n/p, W/p, C')."""
        x = pad_to_multiple(x[None], self.patch).permute(0, 3, 1, 2)
        tokens: Tensor = self.embed.norm(self.embed.proj(x).permute(0, 2, 3, 1))
        return tokens[0].contiguous()

    def _downsample(self, valid: Tensor) -> Tensor:
        """Turn (n, W) into (n/p, W/p): a token is real if its patch holds a real position."""
        tiles: Tensor = pad_to_multiple(valid[None, ..., None], self.patch)[0, ..., 0]
        tiles = tiles.unflatten(1, (-1, self.patch)).unflatten(0, (-1, self.patch))  # (n/p, p, W/p, p)
        return tiles.any(dim=3).any(dim=1)

    def _whole_patches(self, source: Iterator[Rows]) -> Iterator[Rows]:
        """Cut rows so that each piece begins at a patch, and ends at one or at the end of the map."""
        left: list[Rows] = []  # less than a patch
        for rows in source:
            top = rows.top
            if left:
                top = min(left[0].top + self.patch, rows.bottom)
                left.append(rows.part(rows.top, top))
                if top % self.patch and top != self.height:
                    continue
                yield _joined(left)
                left = []
            bottom = rows.bottom if rows.bottom == self.height else rows.bottom // self.patch * self.patch
            if top < bottom:
                yield rows.part(top, bottom)
            if bottom < rows.bottom:
                left = [rows.part(max(top, bottom), rows.bottom)]


def _joined(parts: list[Rows]) -> Rows:
    valid = None
    if any(part.valid is not None for part in parts):
        masks = [
            part.tokens.new_ones(part.tokens.shape[:2]).bool() if part.valid is None else part.valid for part in parts
        ]
        valid = torch.cat(masks)
    return Rows(parts[0].top, torch.cat([part.tokens for part in parts]), valid)
