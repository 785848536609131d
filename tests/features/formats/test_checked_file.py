"""Files whose blocks are much smaller than their tensors, so that slices begin and end within blocks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision_longformer.features.formats import checked_file
from vision_longformer.features.formats.checked_file import CheckedFile
from vision_longformer.utils import tensor_files
from vision_longformer.utils.tensor_files import DamagedError, write_tensors

BLOCK = 64  # bytes


@pytest.fixture
def tensors(tmp_path: Path) -> dict[str, Tensor]:
    """Write a file of several, which end within blocks."""
    generator = torch.Generator().manual_seed(0)
    stored = {
        "stage1": torch.randn(5, 7, 11, generator=generator),
        "stage2": torch.randn(3, 4, 6, generator=generator),
        "embedding": torch.randn(9, generator=generator),
        "valid": torch.randint(0, 256, (13, 3), generator=generator, dtype=torch.uint8),
    }
    with mock.patch.object(tensor_files, "block_size", return_value=BLOCK):
        write_tensors(tmp_path / "x", stored, {})
    return stored


def slices(shape: tuple[int, ...], chance: random.Random) -> tuple[int | slice, ...]:
    def part(side: int) -> int | slice:
        first, last = sorted(chance.sample(range(side + 1), 2))
        found: list[int | slice] = [slice(None), slice(first, last), slice(first, last, 2), first]
        return chance.choice(found)

    return tuple(map(part, shape))


def touched(shape: tuple[int, ...], parts: Any) -> NDArray[np.bool_]:
    """Return which bytes of a tensor of float32 hold what a part reads."""
    values = np.zeros(shape, bool)
    values[parts] = True
    return np.repeat(values.reshape(-1), 4)


@pytest.mark.parametrize("verify", [True, False])
def test_parts_are_those_of_the_tensor(tensors: dict[str, Tensor], tmp_path: Path, *, verify: bool) -> None:
    chance = random.Random(1)
    file = CheckedFile(tmp_path / "x", verify=verify)
    for _ in range(30):
        for name, tensor in tensors.items():
            for parts in (slices(tuple(tensor.shape), chance), ..., chance.randrange(-3, 3), slice(None, None, -1)):
                assert np.array_equal(file.array(name)[parts], tensor.numpy()[parts]), (name, parts)


def test_damage_is_noticed_in_whatever_part_holds_it(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path, chance = tmp_path / "x", random.Random(2)
    whole, header = path.read_bytes(), CheckedFile(path, verify=True).header
    shape, begin = header.entries["stage1"].shape, header.start + header.entries["stage1"].begin
    for _ in range(300):
        parts = slices(shape, chance)
        place = chance.choice(np.flatnonzero(touched(shape, parts)).tolist())
        path.write_bytes(whole[: begin + place] + bytes([whole[begin + place] ^ 16]) + whole[begin + place + 1 :])
        with pytest.raises(DamagedError, match="is damaged, in "):
            CheckedFile(path, verify=True).array("stage1")[parts]
        CheckedFile(path, verify=True).array("valid")[...]  # of other blocks


def test_what_is_read_whole_is_read_once_but_for_blocks_that_tensors_share(
    tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    file = CheckedFile(tmp_path / "x", verify=True)
    read = mock.Mock(wraps=tensor_files.read_bytes)
    with mock.patch.object(tensor_files, "read_bytes", read), mock.patch.object(checked_file, "read_bytes", read):
        for name in tensors:
            file.array(name)[...]
        everything = sum(len(call.args[-1]) for call in read.call_args_list)
        assert everything <= file.header.size + 2 * BLOCK * len(tensors)
        read.reset_mock()
        for name in tensors:
            file.array(name)[...]
        assert sum(len(call.args[-1]) for call in read.call_args_list) == file.header.size


def test_a_file_that_is_cut_short_meanwhile_is_damaged(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    arrays = [CheckedFile(tmp_path / "x", verify=verify).array("valid") for verify in (True, False)]
    with (tmp_path / "x").open("r+b") as same:
        same.truncate((tmp_path / "x").stat().st_size - 1)
    for array in arrays:
        assert array.shape == tuple(tensors["valid"].shape)
        with pytest.raises(DamagedError, match="x: is cut short"):
            array[...]
