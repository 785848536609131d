"""Safetensors files with digests: what others read of them, and what they notice."""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from vision_longformer.utils import digests, tensor_files
from vision_longformer.utils.tensor_files import DIGEST_KEY, DamagedError, read_tensors, write_tensors

TENSORS = {
    "a": torch.arange(12.0).view(3, 4).t(),  # not contiguous
    "count": torch.tensor(3),
    "empty": torch.zeros(0, 4),
    "half": torch.linspace(0, 1, 5, dtype=torch.bfloat16),
    "mask": torch.tensor([True, False, True]),
    "large": torch.arange(300_000, dtype=torch.int32),  # of more than one block
}
METADATA = {"vision_longformer": '{"größe": 1}'}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "x.safetensors", TENSORS, METADATA)
    return tmp_path / "x.safetensors"


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == TENSORS.keys() and all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in TENSORS.items()
    )


def test_what_was_written_is_read_here_and_by_the_library_of_the_format(path: Path) -> None:
    found, metadata = read_tensors(path)
    assert same(found)
    assert metadata == METADATA
    assert same(load_file(path))
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["vision_longformer"] == METADATA["vision_longformer"]
    assert all(tensor.data_ptr() % 16 == 0 for tensor in found.values())  # odd addresses round products otherwise


def test_files_of_others_are_read_with_one_note_for_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("y", "z"):
        save_file({name: tensor.contiguous() for name, tensor in TENSORS.items()}, tmp_path / name, metadata=METADATA)
        with caplog.at_level(logging.WARNING):
            found, metadata = read_tensors(tmp_path / name)
        assert same(found)
        assert metadata == METADATA
    assert [record.message.split(":")[0] for record in caplog.records] == [str(tmp_path / "y")]
    assert "without digests" in caplog.text


def flipped(data: bytes, place: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return bytes(changed)


def notices(path: Path, data: bytes) -> bool:
    """Tell whether a damaged file is refused; if it is not, it must hold the same."""
    path.write_bytes(data)
    try:
        found, metadata = read_tensors(path)
    except ValueError:
        return True
    assert same(found)
    assert metadata.keys() >= METADATA.keys()
    return False


def test_every_bit_of_the_header_and_many_of_the_tensors(path: Path) -> None:
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    random.seed(0)
    places = [*range(start), *(random.randrange(start, len(whole)) for _ in range(300))]
    missed = [place for place in places if not notices(path, flipped(whole, place, random.randrange(8)))]
    # what is not noticed changes nothing: the spaces at its end, or the name of the digests
    key = whole.index(DIGEST_KEY.encode())
    assert all(key <= place < key + len(DIGEST_KEY) or whole[place : place + 1] == b" " for place in missed)
    assert len(missed) < len(DIGEST_KEY) + 8


def test_a_file_that_is_cut_or_longer(path: Path) -> None:
    whole = path.read_bytes()
    for data in (b"", whole[:4], whole[:8], whole[:100], whole[:-1], whole + b"\0"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"x\.safetensors: cannot be read as safetensors"):
            read_tensors(path)


def test_damage_is_told_by_the_tensor_and_need_not_be_looked_for(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(flipped(whole, len(whole) - 1, 0))
    with pytest.raises(DamagedError, match=r"x\.safetensors: is damaged, in .*mask; bring back a copy"):
        read_tensors(path)
    found, _ = read_tensors(path, verify=False)
    assert not same(found)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(a={**h["a"], "shape": [2**40, 2**40]}),
        lambda h: h.update(a={**h["a"], "data_offsets": [-8, 0]}),
        lambda h: h.update(a={**h["a"], "data_offsets": [2**63, 2**63 + 48]}),
        lambda h: h.update(a={**h["a"], "data_offsets": h["large"]["data_offsets"]}),
        lambda h: h.update(a={**h["a"], "dtype": "F99"}),
        lambda h: h.update(a={**h["a"], "shape": [True, 12]}),
        lambda h: h.update(a=7),
        lambda h: h.update(b=h["a"]),
        lambda h: h.update(__metadata__={"a": 7}),
        lambda h: h.update(__metadata__=None),
        lambda h: h["__metadata__"].update({DIGEST_KEY: "md5 7 a b"}),
        lambda h: h["__metadata__"].update({DIGEST_KEY: "xxh3_64 0 a b"}),
        lambda h: h["__metadata__"].update({DIGEST_KEY: "xxh3_64 1048576 a b"}),
        lambda h: h.update({f"t{n}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(30_000)}),
        lambda h: h["__metadata__"].update(x="a" * 5_000_000),
    ],
)  # fmt: skip
def test_headers_that_lie_are_refused(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
    with pytest.raises(ValueError, match=r"x\.safetensors: cannot be read as safetensors") as raised:
        read_tensors(path)
    assert len(str(raised.value)) < 500


def test_a_name_twice_and_what_is_deep(path: Path) -> None:
    for text, message in ((b'{"a": 1, "a": 2}', "it has 'a' twice"), (b"[" * 100_000 + b"]" * 100_000, "too deeply")):
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        with pytest.raises(ValueError, match=message):
            read_tensors(path)


def test_a_pipe_and_a_folder_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ValueError, match="is no file"):
            read_tensors(place)


def test_a_type_that_cannot_be_stored_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x: c is of type torch\.complex64, which cannot be stored"):
        write_tensors(tmp_path / "x", {"c": torch.zeros(1, dtype=torch.complex64)}, {})
    assert list(tmp_path.iterdir()) == []


def test_blocks_do_not_depend_on_the_pieces_that_bytes_come_in() -> None:
    data = memoryview(bytes(range(256)) * 40)

    def found(piece: int) -> Iterator[str]:
        blocks = digests.BlockDigests(1000)
        for begin in range(0, len(data), piece):
            yield from blocks.add(data[begin : begin + piece])
        yield from blocks.close()

    expected = [digests.digest(data[begin : begin + 1000]) for begin in range(0, len(data), 1000)]
    assert list(found(1)) == list(found(999)) == list(found(5000)) == expected


def test_large_files_have_large_blocks() -> None:
    assert digests.block_size(10) == 2**20
    assert digests.block_size(2**40) == 2**28
    assert 2**40 // digests.block_size(2**40) == digests.MOST_BLOCKS


def test_single_blocks_are_checked(path: Path) -> None:
    whole = path.read_bytes()
    with tensor_files.open_file(path) as file:
        header = tensor_files.read_header(file, path)
        assert len(header.digests) == 2
    path.write_bytes(flipped(whole, header.start + 10, 0))  # in the first one

    def check(file: BinaryIO, block: int) -> None:
        tensor_files.check_block(file, path, header, block)

    with tensor_files.open_file(path) as file:
        check(file, 1)
        with pytest.raises(DamagedError, match="is damaged, in "):
            check(file, 0)
