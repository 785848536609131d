"""Safetensors written in pieces are those that the library reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from vision_longformer.features.formats import safetensors_file
from vision_longformer.features.formats.encoded import Encoded, ReaderMask, TensorRows
from vision_longformer.features.formats.safetensors_file import write_safetensors
from vision_longformer.images import ArrayReader


@pytest.mark.parametrize("band_bytes", [1, 1000, 2**25])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_is_written_in_pieces_is_read_back(
    tmp_path: Path, band_bytes: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors_file, "BAND_BYTES", band_bytes)
    maps = [torch.randn(5, 13, 11), torch.randn(7, 7, 6)]  # (C, H, W)
    valid = np.random.default_rng(0).random((50, 41)) > 0.4
    encoded = Encoded(
        size=(50, 41),
        stages=(1, 3),
        strides=(4, 8),
        maps=tuple(TensorRows(features, None) for features in maps),
        global_tokens=(torch.zeros(0, 5), torch.zeros(0, 7)),
        embedding=torch.randn(9),
        valid=ReaderMask(ArrayReader(np.zeros((50, 41, 3), np.uint8), valid=valid), 3),
    )
    path = tmp_path / "x.safetensors"
    write_safetensors(path, encoded, {"key": "ü"}, dtype=dtype)
    found = load_file(path)
    assert found.keys() == {"stage1", "stage3", "embedding", "valid"}
    assert torch.equal(found["stage1"], maps[0].to(dtype))
    assert torch.equal(found["stage3"], maps[1].to(dtype))
    assert torch.equal(found["embedding"], encoded.embedding.to(dtype))
    assert np.array_equal(np.unpackbits(found["valid"].numpy(), axis=1, count=41), valid)
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["key"] == "ü"
