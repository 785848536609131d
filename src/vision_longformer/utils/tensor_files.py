"""Tensors in safetensors files that notice damage: written whole or not at all, and checked as they are read.

A safetensors file is the length of its header in 8 bytes, the header in JSON, and the tensors' bytes one after the
other: https://github.com/huggingface/safetensors#format. Any reader of the format reads these. Among the header's
metadata, under `DIGEST_KEY`, are digests:

    "xxh3_64 BLOCK HEADER FIRST SECOND ..."

BLOCK is a number of bytes; FIRST, SECOND and so on are the digests of the blocks of that size that the tensors' bytes
are cut into; HEADER is that of everything else in the header, and of these.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from vision_longformer.utils import strict_json
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.digests import LENGTH, NAME, PIECE, BlockDigests, block_size, digest, note_missing
from vision_longformer.utils.positioned import read_into_at

DIGEST_KEY = "vision_longformer_digest"
MAX_HEADER = 4 * 2**20  # bytes: ten times what the largest models need, with the names of 20,000 classes
MAX_TENSORS = 20_000
ALIGNMENT = 8
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class DamagedError(ValueError):
    """A file is not as it was written; the message names it."""


class IsAFolderError(ValueError):
    """A file was to be read, and a folder is there."""


@dataclass(frozen=True)
class Entry:
    """Where a tensor is.

    Attributes:
        dtype: Of its values.
        shape: Its sides.
        begin: Its first byte, counted from the first of all tensors.
        end: One past its last.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        entries: By name, in the order of their bytes.
        metadata: Texts by name, without the digests.
        start: Bytes before the tensors.
        block: Bytes that have a digest of their own; 0 in files without digests.
        digests: Of these blocks.
    """

    entries: dict[str, Entry]
    metadata: dict[str, str]
    start: int
    block: int = 0
    digests: tuple[str, ...] = field(default=(), repr=False)

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return max((entry.end for entry in self.entries.values()), default=0)

    @classmethod
    def of(
        cls,
        shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
        metadata: Mapping[str, str],
        *,
        start: int = 0,
    ) -> Header:
        """Lay out tensors of these shapes and types, the largest types first, so that all are aligned.

        `start` is where tensors begin, if not as soon as they can.
        """
        entries, end = {}, 0
        for name, (shape, dtype) in sorted(shapes.items(), key=lambda item: (-item[1][1].itemsize, item[0])):
            begin, end = end, end + math.prod(shape) * dtype.itemsize
            entries[name] = Entry(dtype, tuple(shape), begin, end)
        header = cls(entries, dict(metadata), 0, block_size(end))
        empty = cls(entries, header.metadata, 0, header.block, ("0" * LENGTH,) * -(-end // header.block))
        return cls(entries, header.metadata, max(start, len(empty.encoded())), header.block)

    def encoded(self) -> bytes:
        """Return the header, and its length before it, as a file has them."""
        values = self._values()
        if self.block:
            own = _own_digest(values, self.digests)
            values["__metadata__"][DIGEST_KEY] = " ".join((NAME, str(self.block), own, *self.digests))
        text = json.dumps(values).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        return len(text).to_bytes(8, "little") + text

    def sealed(self, digests: Iterator[str]) -> bytes:
        """Return `encoded` with the digests of all blocks, spaces at its end, of the length that `of` foresaw."""
        found = Header(self.entries, self.metadata, self.start, self.block, tuple(digests)).encoded()
        assert len(found) <= self.start, "one digest for each block"
        return (self.start - 8).to_bytes(8, "little") + found[8:].ljust(self.start - 8)

    def _values(self) -> dict[str, Any]:
        values: dict[str, Any] = {"__metadata__": dict(self.metadata)}
        for name, entry in self.entries.items():
            offsets = [entry.begin, entry.end]
            values[name] = {"dtype": NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": offsets}
        return values


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file, whole or not at all.

    Args:
        path: What is there is replaced.
        tensors: On any device; brought to the CPU one at a time.
        metadata: Texts by name.

    Raises:
        OSError: The disk is full, or cannot be written; what was at `path` is as it was.
        ValueError: A tensor is of a type that such files do not hold, or there are too many.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES:
            raise ValueError(f"{path}: {name} is of type {tensor.dtype}, which cannot be stored")
    header = Header.of({name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}, metadata)
    if header.start > MAX_HEADER or len(tensors) > MAX_TENSORS:
        raise ValueError(f"{path}: {len(tensors)} tensors and what is to be said of them are too much for one file")
    blocks, digests = BlockDigests(header.block), list[str]()
    with replacing(path) as temporary, temporary.open("r+b", buffering=0) as file:
        write_whole(file, memoryview(bytes(header.start)))
        for name in header.entries:
            data = bytes_of(tensors[name].detach().cpu().contiguous())
            for begin in range(0, len(data), PIECE):
                digests += blocks.add(data[begin : begin + PIECE])
                write_whole(file, data[begin : begin + PIECE])
        digests += blocks.close()
        file.seek(0)
        write_whole(file, memoryview(header.sealed(iter(digests))))


def read_tensors(path: Path, *, verify: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file by name, each in memory of its own, and its metadata.

    Args:
        path: Of any safetensors file; of one without digests a note is logged.
        verify: Whether to compare what is read with the digests.

    Raises:
        DamagedError: It is not as it was written.
        ValueError: It is no safetensors file.
    """
    with open_file(path) as file:
        header = read_header(file, path, verify=verify)
        return read_entries(file, path, header, verify=verify), header.metadata


def read_entries(
    file: BinaryIO,
    path: Path,
    header: Header,
    *,
    verify: bool = True,
    on_tensor: Callable[[str, Tensor], None] = lambda name, tensor: None,
) -> dict[str, Tensor]:
    """Return the tensors of an open file (see `read_tensors`), whose header was just read.

    `on_tensor` is called with each as soon as it is read, while it is in the cache.
    """
    if verify and not header.block:
        note_missing(path)
    blocks = BlockDigests(header.block) if verify and header.block else None
    tensors, found = {}, 0
    try:
        file.seek(header.start)
        for name, entry in header.entries.items():
            tensors[name] = torch.empty(entry.shape, dtype=entry.dtype)
            data = bytes_of(tensors[name])
            while data:
                count = file.readinto(data[:PIECE])  # type: ignore[attr-defined]
                if not count:
                    raise DamagedError(f"{path}: is cut short")
                for each in () if blocks is None else blocks.add(data[:count]):
                    _compare(each, path, header, found)
                    found += 1
                data = data[count:]
            on_tensor(name, tensors[name])
        for each in () if blocks is None else blocks.close():
            _compare(each, path, header, found)
    except (OSError, RuntimeError) as error:  # the latter where there is no memory
        raise ValueError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    return tensors


def open_file(path: Path) -> BinaryIO:
    """Open a file for the functions here.

    Raises:
        ValueError: It cannot be opened, or is no file: of a pipe nothing may ever come.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise IsAFolderError(f"{path}: is no file") if stat.S_ISDIR(mode) else ValueError(f"{path}: is no file")
    return os.fdopen(descriptor, "rb", buffering=0)


def read_header(file: BinaryIO, path: Path, *, verify: bool = True) -> Header:
    """Return what an open file says of itself.

    Args:
        file: From `open_file`.
        path: For messages.
        verify: Whether to compare it with its digest.

    Raises:
        DamagedError: It is not as it was written.
        ValueError: It is no safetensors file, or its tensors do not lie one after the other.
    """
    try:
        size = os.fstat(file.fileno()).st_size
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if length > min(MAX_HEADER, size - 8):
            raise ValueError(f"a header of {length} bytes" if size > 8 else "it is cut short")
        values = strict_json.parse(file.read(length))
        if not isinstance(values, dict):
            raise ValueError("its header is no object")
        metadata = values.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise ValueError("its metadata are no texts")
        block, own, digests = _parse_digests(metadata.pop(DIGEST_KEY, None))
        header = Header(_entries(values), metadata, 8 + length, block, digests)
        if header.start + header.size != size:
            raise ValueError(f"its tensors take {header.size} bytes, and there are {size - header.start}")
        if block and len(digests) != -(-header.size // block):
            raise ValueError("it has not one digest for each block")
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error})") from error
    if verify and block and own != _own_digest(values | {"__metadata__": metadata}, digests):
        raise DamagedError(f"{path}: is damaged: what it says of itself is not what was written; {_REMEDY}")
    return header


def check_block(file: BinaryIO, path: Path, header: Header, number: int, into: memoryview | None = None) -> None:
    """Compare a block of an open file's tensors with its digest; keep it, where memory of its size is given.

    Raises:
        DamagedError: They differ.
        OSError: It cannot be read.
    """
    hasher, begin = BlockDigests(header.block), number * header.block
    end, found = min(begin + header.block, header.size), list[str]()
    buffer = memoryview(np.empty(min(PIECE, end - begin), np.uint8).data) if into is None else into
    for place in range(begin, end, PIECE):
        piece = (buffer if into is None else into[place - begin :])[: min(PIECE, end - place)]
        read_bytes(file, path, header, place, piece)
        found += hasher.add(piece)  # while it is in the cache
    found += hasher.close()
    _compare(found[0], path, header, number)


def read_bytes(file: BinaryIO, path: Path, header: Header, place: int, into: memoryview) -> None:
    """Fill memory with bytes of an open file's tensors from `place` on, without a look at digests.

    Raises:
        DamagedError: There are not so many.
        OSError: They cannot be read.
    """
    while into:
        count = read_into_at(file.fileno(), into, header.start + place)
        if not count:
            raise DamagedError(f"{path}: is cut short")
        into, place = into[count:], place + count


_REMEDY = f"bring back a copy, or make it again (whoever changes a file on purpose removes {DIGEST_KEY!r} from it)"


def _compare(found: str, path: Path, header: Header, number: int) -> None:
    if found == header.digests[number]:
        return
    begin, end = number * header.block, (number + 1) * header.block
    names = [name for name, entry in header.entries.items() if entry.begin < end and entry.end > begin]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    raise DamagedError(f"{path}: is damaged, in {', '.join(names[:3])}{more}; {_REMEDY}")


def _own_digest(values: Mapping[str, Any], digests: tuple[str, ...]) -> str:
    return digest((json.dumps(values, sort_keys=True) + " ".join(digests)).encode())


def _parse_digests(text: str | None) -> tuple[int, str, tuple[str, ...]]:
    """Return the bytes of a block, the digest of the header and those of all blocks; 0, "" and none without any."""
    if text is None:
        return 0, "", ()
    name, block, own, *digests = [*text.split(" "), "", ""]
    if name != NAME or not block.isascii() or not block.isdigit() or len(block) > 18 or not int(block):
        raise ValueError("its digests are of an unknown kind")
    return int(block), own, tuple(digests[: len(digests) - 2])


def _entries(values: dict[str, Any]) -> dict[str, Entry]:
    if len(values) > MAX_TENSORS:
        raise ValueError(f"{len(values)} tensors")
    entries = {}
    for name, value in values.items():
        try:
            dtype, shape, (begin, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
            if not all(type(number) is int and 0 <= number < 2**53 for number in (*shape, begin, end)):
                raise ValueError
            size = math.prod(shape) * DTYPES[dtype].itemsize
        except KeyError as error:
            raise ValueError(f"its entry {name[:80]!r} has an unknown type, or lacks {error}") from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"its entry {name[:80]!r} is damaged") from error
        if begin + size != end:
            raise ValueError(f"its entry {name[:80]!r} of {dtype} {list(shape)!s:.80} has other bytes than these take")
        entries[name] = Entry(DTYPES[dtype], shape, begin, end)
    in_order = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
    place = 0
    for name, entry in in_order.items():
        if entry.begin != place:
            raise ValueError(f"its entry {name[:80]!r} begins at byte {entry.begin}, not at {place}")
        place = entry.end
    return in_order


def bytes_of(tensor: Tensor) -> memoryview:
    """View the bytes of a contiguous tensor on the CPU; what is written there is in the tensor."""
    # Not `flatten`, which keeps the stride of a single element: a tensor of one is contiguous with any.
    flat = tensor.detach().as_strided((tensor.numel(),), (1,))
    return memoryview(flat.view(torch.uint8).numpy().data)


def write_whole(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write all of some bytes to an unbuffered file, which may take them in parts."""
    left = memoryview(data)
    left = left.cast("B") if left.nbytes else memoryview(b"")
    while left:
        left = left[file.write(left) :]
