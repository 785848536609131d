"""What streaming gives: maps that may be in files, tokens, and the pooled embedding.

H×W map, C channels, G global tokens
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from vision_longformer.config import GlobalPool
from vision_longformer.images import ImageError, ImageInfo
from vision_longformer.streaming.maps import StageMap
from vision_longformer.streaming.rows import Rows
from vision_longformer.utils.distributed import Processes

ALONE = Processes()


@dataclass(frozen=True)
class StreamedFeatures:
    """What a model makes of one image, as `Features`.

    Attributes:
        stages: Whose maps were asked for, counted from 1.
        maps: One for each of them. Their files are in the work folder, and stay until `remove` of each is called.
        global_tokens: (G, C) of each of these stages; G is 0 where a stage has none.
        embedding: (C,) pooled, normalised features, which a classifier would see.
        image: The image.
    """

    stages: tuple[int, ...]
    maps: tuple[StageMap, ...]
    global_tokens: tuple[Tensor, ...]
    embedding: Tensor
    image: ImageInfo


class Pool:
    """Pools the last stage as its rows arrive.

    Args:
        norm: The model's last norm.
        global_pool: What the head pools; the mean if it pools nothing.
        image: For messages.
        processes: Each of which adds rows of its own.
    """

    def __init__(
        self, norm: nn.Module, global_pool: GlobalPool, image: ImageInfo, *, processes: Processes = ALONE
    ) -> None:
        self._norm = norm
        self._global_pool = global_pool
        self._image = image
        self._processes = processes
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, rows: Iterator[Rows]) -> None:
        """Add all rows of the last stage's map."""
        for part in rows:
            normed = self._norm(part.tokens).flatten(0, 1)  # (n·W, C)
            if part.valid is not None:
                normed = normed.masked_fill(~part.valid.flatten()[:, None], 0)
            total = normed.sum(dim=0, dtype=torch.float64)
            self._sum = total if self._sum is None else self._sum + total
            self._count += len(normed) if part.valid is None else int(part.valid.sum())

    def result(self, global_tokens: Tensor) -> Tensor:
        """Return the (C,) embedding, given the last stage's (G, C) global tokens, once all processes have added theirs.

        Raises:
            ImageError: No pixel of the image was valid.
        """
        own = global_tokens.new_zeros(global_tokens.shape[1], dtype=torch.float64) if self._sum is None else self._sum
        total = self._processes.sum(own)
        count = int(self._processes.sum(torch.tensor(self._count, device=own.device)))
        if count == 0:
            raise ImageError(f"{self._image.name}: all of its pixels are transparent or missing")
        normed = self._norm(global_tokens)
        if self._global_pool == "token":
            return cast(Tensor, normed[0].clone())
        mean: Tensor = (total + normed.sum(dim=0, dtype=torch.float64)) / (count + len(normed))
        return mean.to(global_tokens.dtype)
