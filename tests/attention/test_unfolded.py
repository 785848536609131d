"""Windowed attention for export against the dense oracle."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import assume, given, settings
from torch import Tensor

from attention.cases import Case, cases, relative_error
from vision_longformer.attention import banded
from vision_longformer.attention.banded import banded_windowed_attention
from vision_longformer.attention.dense import dense_windowed_attention
from vision_longformer.attention.geometry import ALL, NEIGHBOURS, OWN
from vision_longformer.attention.unfolded import unfolded_windowed_attention

EXAMPLE = Case(
    batch=2,
    height=11,
    width=7,
    window=3,
    heads=2,
    head_width=5,
    num_global=2,
    shape="chunk",
    offsets=ALL,
    biased=True,
    sizes=None,
    band_bytes=2000,
    seed=1,
)


def unfolded(case: Case, dtype: torch.dtype = torch.float64, **replaced: Any) -> Tensor:
    """Return the result with `unfolded_windowed_attention` in the operator's place."""
    arguments = {"table": None, "global_bias": None, **case.tensors(dtype), **case.settings(), **replaced}
    with torch.no_grad(), mock.patch.object(banded, "windowed_attention", unfolded_windowed_attention):
        return banded_windowed_attention(**arguments)


def dense(case: Case, **replaced: Any) -> Tensor:
    arguments = {"table": None, "global_bias": None, **case.tensors(), **case.settings(), **replaced}
    with torch.no_grad():
        return dense_windowed_attention(**arguments)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(case=cases())
def test_equals_dense_oracle(case: Case) -> None:
    assume(case.offsets in (ALL, (OWN,)))
    expected = dense(case)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        assert relative_error(unfolded(case, dtype), expected) <= tolerance, dtype
