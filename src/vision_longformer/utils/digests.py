"""Digests that tell whether bytes are as they were written: XXH3, which is as fast as memory.

They notice damage, not intent: who changes a file on purpose can change its digests too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import xxhash

NAME = "xxh3_64"
LENGTH = 16  # of a digest in hexadecimal
PIECE = 2**20  # bytes that are taken at once: they stay in the cache between reading and hashing
MOST_BLOCKS = 4096
MOST_NOTED = 64

logger = logging.getLogger(__name__)
_noted: set[Path] = set()  # folders of which something was said


def digest(data: bytes | memoryview) -> str:
    """Return the digest of some bytes."""
    return xxhash.xxh3_64_hexdigest(data)


def digest_file(path: Path) -> str:
    """Return the digest of a file.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        return "".join(digests_of(file, path.stat().st_size, block=2**62)) or digest(b"")


def block_size(size: int) -> int:
    """Return how many bytes of `size` have a digest of their own: 1 MiB, or more so that there are not too many."""
    block = PIECE
    while size > block * MOST_BLOCKS:
        block *= 2
    return block


class BlockDigests:
    """Digests of the blocks of a sequence of bytes, which comes in pieces of any length."""

    def __init__(self, block: int) -> None:
        self.block = block
        self._hash, self._filled = xxhash.xxh3_64(), 0

    def add(self, data: memoryview) -> Iterator[str]:
        """Take more bytes; give the digest of each block that they complete."""
        while len(data):
            piece = data[: self.block - self._filled]
            self._hash.update(piece)
            self._filled += len(piece)
            data = data[len(piece) :]
            if self._filled == self.block:
                yield from self.close()

    def close(self) -> Iterator[str]:
        """Give the digest of the last block, if one has been begun."""
        if self._filled:
            yield self._hash.hexdigest()
            self._hash, self._filled = xxhash.xxh3_64(), 0


def digests_of(file: BinaryIO, size: int, *, block: int) -> Iterator[str]:
    """Give the digests of the blocks of the next `size` bytes of an unbuffered file."""
    blocks, buffer = BlockDigests(block), memoryview(bytearray(min(PIECE, size)))
    while size:
        count = file.readinto(buffer[:size])  # type: ignore[attr-defined]
        if not count:
            break
        size -= count
        yield from blocks.add(buffer[:count])
    yield from blocks.close()


def note_missing(path: Path) -> None:
    """Say that a file has no digest, once for each folder."""
    folder = path.parent.absolute()
    if folder in _noted:
        return
    if len(_noted) == MOST_NOTED:
        _noted.clear()
    _noted.add(folder)
    logger.warning(
        "%s: was written without digests, in which damage would be noticed, as other files of its folder may be; "
        "written anew, it gets them",
        path,
    )
