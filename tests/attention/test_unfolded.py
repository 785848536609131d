"""Windowed attention for export against the dense oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import assume, given, settings
from torch import Tensor

from attention.cases import EXAMPLE as PADDED
from attention.cases import Case, cases, relative_error
from vision_longformer.attention import gathered
from vision_longformer.attention.dense import dense_windowed_attention
from vision_longformer.attention.gathered import gathered_windowed_attention
from vision_longformer.attention.geometry import ALL, NEIGHBOURS, OWN
from vision_longformer.attention.unfolded import unfolded_windowed_attention
from vision_longformer.attention.windows import Windows

EXAMPLE = replace(PADDED, sizes=None)


def unfolded(case: Case, dtype: torch.dtype = torch.float64, **replaced: Any) -> Tensor:
    """Return the result with `unfolded_windowed_attention` in the operator's place."""
    arguments = {"table": None, "global_bias": None, **case.tensors(dtype), **case.settings(), **replaced}
    with torch.no_grad(), mock.patch.object(gathered, "windowed_attention", unfolded_windowed_attention):
        return gathered_windowed_attention(**arguments)


def dense(case: Case, **replaced: Any) -> Tensor:
    arguments = {"table": None, "global_bias": None, **case.tensors(), **case.settings(), **replaced}
    with torch.no_grad():
        return dense_windowed_attention(**arguments)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True)
@given(case=cases())
def test_equals_dense_oracle(case: Case) -> None:
    assume(case.offsets in (ALL, (OWN,)))
    expected = dense(case)
    assume(expected.abs().max() > 0.01)  # less is what is left of values that cancel, but for rounding
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        assert relative_error(unfolded(case, dtype), expected, least=0.1) <= tolerance, dtype


def test_every_missing_pixel_may_differ() -> None:
    case = replace(EXAMPLE, shape="cyclic")
    valid = torch.rand(2, 11, 7, generator=torch.Generator().manual_seed(0)) < 0.6
    assert relative_error(unfolded(case, valid=valid), dense(case, valid=valid)) <= 1e-12


@pytest.mark.parametrize("exact", [False, True])
def test_queries_without_any_key_give_zeros(exact: bool) -> None:
    case = replace(EXAMPLE, num_global=0)
    valid = torch.zeros(2, 11, 7, dtype=torch.bool)
    valid[1, 2, 6] = True
    tensors = case.tensors()
    with torch.no_grad():
        out = unfolded_windowed_attention(
            *Windows(**tensors, valid=valid, offsets=torch.tensor(ALL), window=3, top=0, left=0, exact=exact)
        )
    assert torch.equal(out[1, 2, 6], tensors["key_value"][1, 2, 6, 1])
    assert not out[0].any()
    assert not out[1, 6:].any()


@pytest.mark.parametrize("top", [0, 2, 5])
@pytest.mark.parametrize("left", [0, 3])
def test_a_map_of_keys_may_reach_further(top: int, left: int) -> None:
    arguments: dict[str, Any] = {**EXAMPLE.tensors(), "valid": None, "offsets": torch.tensor(ALL)}
    arguments |= {"window": 3, "top": top, "left": left, "exact": False}
    arguments["query"] = arguments["query"][:, top : top + 4, left : left + 4]
    windows = Windows(**arguments)
    with torch.no_grad():
        expected = gathered.windowed_attention(*windows)
        assert relative_error(unfolded_windowed_attention(*windows), expected) <= 1e-12


def test_random_neighbours_are_refused() -> None:
    case = replace(EXAMPLE, offsets=(OWN, NEIGHBOURS[2]))
    with pytest.raises(ValueError, match="got 2, as random shifting draws in training"):
        unfolded(case)
