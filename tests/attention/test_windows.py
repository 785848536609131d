"""The operator of windowed attention and its kernel, called with what does not fit: errors, never a wild read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vision_longformer import set_attention_backend
from vision_longformer.attention.fused import fused_windowed_attention, fused_windowed_attention_backward
from vision_longformer.attention.fused.build import kernel
from vision_longformer.attention.gathered import windowed_attention, windowed_attention_backward
from vision_longformer.attention.geometry import ALL
from vision_longformer.attention.windows import Windows

HUGE = 2**62
Way = Callable[..., Any]
NOTHING_SEEN = torch.zeros(1, 9, 11, dtype=torch.bool)


def arguments(batch: int = 1, height: int = 9, width: int = 11, heads: int = 2, head_width: int = 8, tokens: int = 1,
              dtype: torch.dtype = torch.float32, **changes: Any) -> dict[str, Any]:  # fmt: skip
    """Return what fits together, and what is changed of it."""
    torch.manual_seed(0)
    of_head = (heads, head_width)
    found: dict[str, Any] = {
        "query": torch.randn(batch, height, width, *of_head).to(dtype),
        "key_value": torch.randn(batch, height, width, 2, *of_head).to(dtype),
        "global_key_value": torch.randn(batch, tokens, 2, *of_head).to(dtype),
        "table": None,
        "global_bias": None,
        "valid": None,
        "offsets": torch.tensor(ALL),
        "window": 3,
        "top": 0,
        "left": 0,
        "exact": False,
    }
    for name, change in changes.items():
        found[name] = change(found[name]) if callable(change) else change
    return found


def fused(**call: Any) -> Tensor:
    return fused_windowed_attention(Windows(**call))


def fused_backward(**call: Any) -> Any:
    return fused_windowed_attention_backward(torch.ones_like(call["query"]), Windows(**call))


def operator(**call: Any) -> Any:
    return windowed_attention(*Windows(**call))


def operator_backward(**call: Any) -> Any:
    return windowed_attention_backward(torch.ones_like(call["query"]), *Windows(**call))


def portable(**call: Any) -> Any:
    set_attention_backend("sdpa")
    try:
        return operator(**call), operator_backward(**call)
    finally:
        set_attention_backend("auto")


@pytest.fixture(params=[fused, fused_backward, operator, operator_backward, portable], ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    if "fused" in found.__name__ and kernel() is None:
        pytest.skip("no compiler")
    return found


def offsets(*seen: tuple[int, int]) -> Tensor:
    return torch.tensor(seen)


@pytest.mark.parametrize(
    "changes",
    [
        *({"window": window} for window in (0, -1, -7, 20_000, 2**31, HUGE)),
        *({"top": top} for top in (-1, -100, 5, HUGE, -HUGE)),
        *({"left": left} for left in (-1, 5, HUGE)),
        {"offsets": offsets((5, 0))},
        {"offsets": offsets((-9, 0))},
        {"offsets": offsets((0, HUGE))},
        {"offsets": offsets((0, 0), (0, 0))},
        {"offsets": torch.zeros(0, 2, dtype=torch.int64)},
        {"offsets": torch.zeros(3, dtype=torch.int64)},
        {"offsets": torch.zeros(1, 2)},
        *({"dtype": dtype} for dtype in (torch.int32, torch.int8, torch.complex64)),
        {"query": lambda x: x[0]},
        {"query": lambda x: x[..., :4]},
        {"key_value": lambda x: x[0]},
        {"key_value": lambda x: x[:, :, :5]},
        {"key_value": lambda x: x[..., :1, :]},
        {"key_value": lambda x: x.double()},
        {"key_value": lambda x: torch.cat([x, x])},
        {"global_key_value": lambda x: x[0]},
        {"global_key_value": lambda x: x[..., :4]},
        {"table": torch.zeros(10, 2)},
        {"table": torch.zeros(121, 2, dtype=torch.int32)},
        {"global_bias": torch.zeros(2, 7)},
        {"valid": torch.ones(1, 9, 11, dtype=torch.uint8)},
        {"valid": torch.ones(1, 9, 10, dtype=torch.bool)},
    ],
    ids=lambda changes: "-".join(changes) if isinstance(changes, dict) else str(changes),
)
def test_what_does_not_fit_is_refused(way: Way, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^windowed attention: "):
        way(**arguments(**changes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_the_kernel_takes_two_types(dtype: torch.dtype) -> None:
    for way in (fused, fused_backward):
        with pytest.raises(ValueError, match=rf"^windowed attention: the kernel takes no {dtype} on cpu"):
            way(**arguments(dtype=dtype))
    assert operator(**arguments(dtype=torch.float64)).isfinite().all()  # which goes the other way


@pytest.mark.parametrize(
    "changes",
    [
        {"window": 50},  # larger than the map
        {"table": torch.zeros(121, 2, dtype=torch.float64)},
        {"query": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2)},
        {"key_value": lambda x: torch.cat([x, x], -1)[..., ::2]},
        {"valid": torch.ones(1, 11, 9, dtype=torch.bool).transpose(1, 2)},
        {"valid": NOTHING_SEEN, "tokens": 0},
        {"query": lambda x: x.expand(3, -1, -1, -1, -1), "key_value": lambda x: x.expand(3, -1, -1, -1, -1, -1),
         "global_key_value": lambda x: x.expand(3, -1, -1, -1, -1)},
    ],
    ids=lambda changes: "-".join(changes) if isinstance(changes, dict) else str(changes),
)  # fmt: skip
def test_unusual_layouts_give_finite_results(way: Way, changes: dict[str, Any]) -> None:
    found = way(**arguments(**changes))
    assert all(x.isfinite().all() for x in _tensors(found))


def _tensors(found: Any) -> list[Tensor]:
    """Return the tensors among what was computed."""
    parts = [found] if isinstance(found, Tensor) else [*found]
    return [x for part in parts for x in (part if isinstance(part, list) else [part]) if x is not None]


@pytest.mark.parametrize("size", ["batch", "height", "width", "heads", "head_width", "tokens"])
def test_nothing_at_all_is_computed_for_nothing(way: Way, size: str) -> None:
    sizes: dict[str, Any] = {size: 0}
    assert all(x.isfinite().all() for x in _tensors(way(**arguments(**sizes))))


def test_gradients_that_are_not_of_the_result_are_refused() -> None:
    if kernel() is None:
        pytest.skip("no compiler")
    windows = Windows(**arguments())
    for grad in (windows.query[:, :-1], windows.query.double(), windows.query.to("meta")):
        with pytest.raises(ValueError, match=r"^windowed attention: gradient of .*, unlike the queries"):
            fused_windowed_attention_backward(grad, windows)


def test_tensors_without_values_are_refused_where_values_are_computed() -> None:
    call = arguments() | {
        name: x.to("meta") for name, x in arguments().items() if isinstance(x, Tensor) and name != "offsets"
    }
    for way in (fused, fused_backward):
        with pytest.raises(ValueError, match=r"^windowed attention: the kernel takes no torch\.float32 on meta"):
            way(**call)
    assert operator(**call).shape == call["query"].shape  # which is asked for shapes alone
