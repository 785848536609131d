"""Many small things in a few large arrays.

A worker process that reads a Python object writes to it, its reference count, and so copies the page of memory that
it lies in. Arrays are shared by all workers of a forked loader without a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Texts:
    """A list of texts.

    Attributes:
        data: All of them in UTF-8, one after the other.
        ends: Where each ends.
    """

    data: NDArray[np.uint8]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Store texts."""
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        end = int(self.ends[index])  # raises IndexError, which ends a loop
        start = int(self.ends[index - 1]) if index % len(self) else 0
        return self.data[start:end].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True, eq=False)
class Segmentations:
    """Outlines or run lengths of many objects, each of one or several parts.

    Attributes:
        ends: (N,) where the parts of each object end.
        is_runs: (N,) whether an object's one part is run lengths; else its parts are polygons.
        starts: (P,) where each part begins in `runs` or in `coordinates`.
        lengths: (P,) numbers of each part.
        coordinates: x, y, x, y, ... in pixels, of all polygons.
        runs: Of all masks.
    """

    ends: NDArray[np.int64]
    is_runs: NDArray[np.bool_]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    coordinates: NDArray[np.float64]
    runs: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.ends)

    def polygons(self, index: int) -> list[NDArray[np.float64]]:
        """Return an object's polygons, each x, y, x, y, ...; none if it has run lengths."""
        return [] if self.is_runs[index] else [self._part(self.coordinates, part) for part in self._parts(index)]

    def run_lengths(self, index: int) -> NDArray[np.uint32]:
        """Return an object's run lengths; none if it has polygons."""
        parts = self._parts(index) if self.is_runs[index] else ()
        return self._part(self.runs, parts[0]) if parts else self.runs[:0]

    def _parts(self, index: int) -> range:
        return range(int(self.ends[index - 1]) if index else 0, int(self.ends[index]))

    def _part(self, values: NDArray[Any], part: int) -> NDArray[Any]:
        return values[self.starts[part] : self.starts[part] + self.lengths[part]]
