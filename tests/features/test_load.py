from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from features.formats.cases import METADATA, STAGES, encoded, features
from vision_longformer.features.formats import write_zarr
from vision_longformer.features.load import StoredFeatures, load_features


def store(folder: Path, kind: str) -> Path:
    path = folder / f"x.{kind}"
    if kind == "zarr":
        pytest.importorskip("zarr")
        write_zarr(path, encoded(), METADATA, dtype=torch.float16)
        return path
    found = features()
    tensors = {f"stage{stage}": x.half() for stage, x in zip(STAGES, found.maps, strict=True)}
    tensors |= {"embedding": found.embedding.half(), "valid": found.valid}
    save_file(tensors, path, metadata={"vision_longformer": json.dumps(METADATA)})
    return path


@pytest.fixture(params=["zarr", "safetensors"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> StoredFeatures:
    return load_features(store(tmp_path, request.param))


def test_all_that_was_stored_comes_back(stored: StoredFeatures) -> None:
    expected = features()
    assert stored.stages == STAGES
    for found, wanted in zip(stored.maps, expected.maps, strict=True):
        assert found.shape == tuple(wanted.shape)
        assert found.dtype == np.float16
        assert torch.equal(found.tensor(), wanted.half())
    assert torch.equal(stored.embedding, expected.embedding.half())
    assert torch.equal(stored.valid.tensor(), expected.valid)
    assert stored.metadata == METADATA
    for tokens, kept in zip(expected.global_tokens, stored.global_tokens, strict=False):
        assert torch.equal(kept, tokens.half())


@pytest.mark.parametrize(
    "index",
    [
        (slice(1, 3), slice(10, 20), slice(30, 70)),
        (slice(None), 4, slice(5, 9)),
        (2, slice(3, 8), slice(5, 9)),
        (1, 2, slice(None)),
        (slice(2), ..., 7),
        (..., slice(4, 6)),
        3,
        slice(1, 2),
    ],
)
def test_parts_are_those_of_an_array(stored: StoredFeatures, index: Any) -> None:
    expected = features().maps[0].half().numpy()[index]
    assert np.array_equal(stored.maps[0][index], expected)


def test_too_many_indices_are_refused(stored: StoredFeatures) -> None:
    with pytest.raises(IndexError, match="4 indices for 3 axes"):
        stored.maps[0][1, 2, 3, 4]


def test_nothing_is_loaded_before_it_is_asked_for(tmp_path: Path) -> None:
    path = store(tmp_path, "zarr")
    found = load_features(path)
    for chunk in (path / "stage1" / "c").rglob("0"):
        if chunk.is_file():
            chunk.write_bytes(b"damaged")
    assert found.maps[1].tensor().shape == features().maps[1].shape


def test_what_holds_no_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file or folder"):
        load_features(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    for name in ("empty", "text.safetensors"):
        if name != "empty":
            (tmp_path / name).write_text("text")
        with pytest.raises(ValueError, match=f"{name}: it is no feature file"):
            load_features(tmp_path / name)


def test_a_missing_map_is_damage(tmp_path: Path) -> None:
    path = store(tmp_path, "zarr")
    (path / "stage3" / "zarr.json").unlink()
    with pytest.raises(ValueError, match=r"stage3/zarr.json: is missing"):
        load_features(path)
