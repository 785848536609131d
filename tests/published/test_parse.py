"""Architecture strings, options and files of the published code."""

from __future__ import annotations

from typing import Any

import pytest

from vision_longformer.published.parse import (
    ReferenceOptions,
    parse_architecture,
)

# --- what an architecture string means ---------------------------------------------------------------------------


def test_missing_letters_take_the_published_defaults() -> None:
    stage = parse_architecture("l1")[0]
    assert (stage.heads, stage.width, stage.blocks, stage.use_attn_type) == (3, 192, 1, 1)
    assert (stage.global_tokens, stage.patch, stage.window, stage.absolute) == (1, 2, 7, 1)


def test_published_option_defaults() -> None:
    assert ReferenceOptions() == ReferenceOptions(
        num_classes=1000,
        norm_embed=True,
        sharew=True,
        share_kv=True,
        attn_type="longformerhand",
        sw_exact=0,
        mode=0,
        only_glo=False,
        avg_pool=False,
    )


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("l1,x4", "'x4' in stage 1 is not a letter and a number"),
        ("l1,h3_l2,h", "'h' in stage 2"),
        ("", "'' in stage 1"),
        ("l1,h3,h4", "stage 1 sets 'h' twice"),
        ("l1_l3", "stage 2 must start with 'l2'"),
    ],
)
def test_bad_architecture_strings(arch: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_architecture(arch)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"attn_type": "mamba"}, "attn_type='mamba'"), ({"sw_exact": 2}, "sw_exact=2"), ({"mode": -3}, "mode=-3")],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReferenceOptions(**options)
