"""A softmax over keys that arrive in pieces is the softmax over all of them."""

from __future__ import annotations

import pytest
import torch

from model_helpers import noise, relative_error
from vision_longformer.attention.online_softmax import OnlineSoftmax
from vision_longformer.attention.position import GlobalQueryBias
from vision_longformer.attention.projections import QueryKeyValue, global_attention


@pytest.mark.parametrize("scale", [0.1, 1.0, 300.0])
@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_pieces_equal_the_whole(scale: float, rising: bool, with_bias: bool, masked: bool) -> None:
    of_global = QueryKeyValue(noise(1, 3, 2, 5), noise(1, 3, 2, 2, 5, seed=2))
    key, value = noise(1, 4, 11, 2, 5, seed=3) * scale, noise(1, 4, 11, 2, 5, seed=4)
    if rising:  # every piece has a larger key than the one before
        key = key * torch.arange(1, 5)[:, None, None, None]
    valid = noise(1, 4, 11, seed=5) > 0 if masked else None
    if valid is not None:
        valid[:, 1] = False
    bias = None
    if with_bias:
        bias = GlobalQueryBias(2, 3).double()
        bias.to_map.data, bias.to_global.data = noise(2, 3, seed=6), noise(2, 3, 3, seed=7)
    expected = global_attention(
        of_global,
        key,
        value,
        map_bias=None if bias is None else bias.to_map,
        global_bias=None if bias is None else bias.to_global,
        valid=valid,
    )
    gathered = OnlineSoftmax(of_global, bias)
    for row in range(4):
        gathered.add(key[0, row], value[0, row], None if valid is None else valid[0, row])
    assert relative_error(gathered.result(), expected[0].flatten(1)) <= 1e-14


def test_an_empty_map_leaves_the_global_tokens_to_themselves() -> None:
    of_global = QueryKeyValue(noise(1, 3, 2, 5), noise(1, 3, 2, 2, 5, seed=2))
    gathered = OnlineSoftmax(of_global, None)
    gathered.add(noise(7, 2, 5), noise(7, 2, 5), torch.zeros(7, dtype=torch.bool))
    alone = OnlineSoftmax(of_global, None)
    assert torch.equal(gathered.result(), alone.result())


def test_many_small_weights_do_not_drown() -> None:
    """In single precision, adding one to a hundred million leaves it as it is; a billion tokens need more."""
    of_global = QueryKeyValue(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 2, 1, 1))
    gathered = OnlineSoftmax(of_global, None)
    gathered._sum += 1e8
    gathered.add(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), None)
    assert float(gathered._sum) == 1e8 + 2
