"""Zarr stores whose files are not read if they are larger than what they hold can be, nor inflated beyond that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from zarr.storage import WrapperStore

from vision_longformer.images.zarr_codecs import bound_chunks

LARGEST_METADATA = 1 << 26
OVERHEAD = 1 << 16  # of a codec, beside a tenth


class BoundedStore(WrapperStore):  # type: ignore[misc]
    """Reads another store.

    Attributes:
        largest: Bytes that a file may have.
    """

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.largest = LARGEST_METADATA

    def holds(self, array: Any) -> None:
        """Set the bound to what a chunk of an array, or a shard, can take, and its chunks' to what they can become."""
        self.largest = _most_bytes(array, array.shards or array.chunks)
        bound_chunks(array, _most_bytes(array, array.chunks))

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Return the bytes of a file, or some of them."""
        try:
            size = await self._store.getsize(key)
        except FileNotFoundError:
            return None
        if size > self.largest:
            raise ValueError(f"{key} has {size:,} bytes, more than its values can take")
        return await super().get(key, prototype, byte_range)


def _most_bytes(array: Any, shape: Sequence[int]) -> int:
    return math.prod(shape) * int(array.dtype.itemsize) * 11 // 10 + OVERHEAD
