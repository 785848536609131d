from __future__ import annotations

import dataclasses
import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.formats.cases import HEIGHT, METADATA, STAGES, STRIDES, WIDTH, encoded, features, token_mask, valid_pixels
from model_helpers import relative_error
from vision_longformer import create_model
from vision_longformer.features.formats import Encoded, chunks, encoded_from_stream, write_zarr, zarr_folder
from vision_longformer.features.formats.encoded import TensorRows
from vision_longformer.features.load import load_features
from vision_longformer.images import ArrayReader
from vision_longformer.images.thumbnails import NEUTRAL
from vision_longformer.streaming import stream

zarr = pytest.importorskip("zarr")


def write(folder: Path, what: Encoded, dtype: torch.dtype = torch.float32) -> Any:
    write_zarr(folder, what, METADATA, dtype=dtype)
    return zarr.open_group(folder, mode="r")


def values(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array[...]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_all_features_are_there(tmp_path: Path, dtype: torch.dtype) -> None:
    expected = features()
    group = write(tmp_path / "x.zarr", encoded(expected), dtype)
    for number, stage in enumerate(STAGES):
        assert torch.equal(values(group[f"stage{stage}"]).permute(2, 0, 1), expected.maps[number].to(dtype))
        assert torch.equal(values(group[f"stage{stage}_global_tokens"]), expected.global_tokens[number].to(dtype))
        assert torch.equal(values(group[f"stage{stage}_valid"]), token_mask(expected.valid, STRIDES[number]))
    assert torch.equal(values(group["embedding"]), expected.embedding.to(dtype))
    assert torch.equal(values(group["valid"]), expected.valid)
    assert group.attrs["vision_longformer"] == METADATA
    assert zarr_folder.read_zarr_metadata(tmp_path / "x.zarr") == METADATA


def test_maps_are_cut_into_chunks_and_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 32 * 64 * 5 * 4)
    expected = features()
    array = write(tmp_path / "x.zarr", encoded(expected))["stage1"]
    assert array.chunks[0] * array.chunks[1] == 32 * 64
    assert array.chunks[2] == 5
    assert len(list((tmp_path / "x.zarr" / "stage1" / "c").rglob("0"))) > 4
    assert array.nbytes_stored() < array.nbytes
    assert torch.equal(values(array).permute(2, 0, 1), expected.maps[0])


def test_maps_are_never_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched(TensorRows):
        most = 0

        def read(self, top: int, bottom: int) -> torch.Tensor:
            Watched.most = max(Watched.most, bottom - top)
            return super().read(top, bottom)

    monkeypatch.setattr(chunks, "BAND_BYTES", 16 * 33 * 7 * 4)
    found = features()
    what = dataclasses.replace(encoded(found), maps=tuple(Watched(x, None) for x in found.maps))
    write(tmp_path / "x.zarr", what)
    assert Watched.most == 16


def test_where_every_pixel_is_valid_no_mask_is_stored(tmp_path: Path) -> None:
    everything = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    group = write(tmp_path / "x.zarr", encoded(features(everything)))
    assert values(group["valid"]).all()
    assert [path.name for path in (tmp_path / "x.zarr" / "valid").iterdir()] == ["zarr.json"]


def test_a_mask_of_many_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr_folder, "MASK_CHUNK", 64)
    monkeypatch.setattr(zarr_folder, "MASK_BYTES", 20 * 4 * WIDTH)
    group = write(tmp_path / "x.zarr", encoded())
    assert torch.equal(values(group["valid"]), valid_pixels())


def test_viewers_find_each_stage(tmp_path: Path) -> None:
    group = write(tmp_path / "x.zarr", encoded())
    for place, names in ((group, ["stage1", "stage3"]), (group["view/stage3"], ["stage3"])):
        about = place.attrs["ome"]
        assert about["version"] == "0.5"
        assert [entry["name"] for entry in about["multiscales"]] == names
        for entry in about["multiscales"]:
            for dataset in entry["datasets"]:
                array = place[dataset["path"]]
                assert array.metadata.dimension_names == ("c", "y", "x")
                assert array.dtype == "uint8"


def test_missing_tokens_are_gray_in_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "BAND_BYTES", 16 * 131 * 5 * 4)
    group = write(tmp_path / "x.zarr", encoded())
    gray = (values(group["view/stage1/0"]) == NEUTRAL).all(dim=0)
    missing = ~token_mask(valid_pixels(), STRIDES[0])
    assert gray[missing].all()
    assert gray[~missing].float().mean() < 0.01


def test_what_was_streamed_to_files_is_written_and_read_back(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (131, 197, 3), dtype=np.uint8)
    valid = generator.random((131, 197)) > 0.2
    valid[:40, :60] = False
    reader = ArrayReader(pixels, valid=valid)
    model: Any = create_model("vision_longformer_nano", num_classes=0).eval()
    streamed = stream(model, reader, stages=[2, 4], work_folder=tmp_path / "work")
    what = encoded_from_stream(streamed, reader, strides=[8, 32])
    write_zarr(tmp_path / "x.zarr", what, METADATA | {"stages": [2, 4]}, dtype=torch.float32)
    found = load_features(tmp_path / "x.zarr")
    assert found.stages == (2, 4)
    for stored, streamed_map in zip(found.maps, streamed.maps, strict=True):
        assert relative_error(stored.tensor(), streamed_map.tensor()) == 0
    assert torch.equal(found.valid.tensor(), torch.from_numpy(valid))
    assert [tuple(tokens.shape) for tokens in found.global_tokens] == [(1, 64), (0, 256)]
    assert torch.equal(found.embedding, streamed.embedding)


def test_without_zarr_the_package_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(ImportError, match=r"pip install 'vision-longformer\[zarr\]'"):
        write_zarr(tmp_path / "x.zarr", encoded(), METADATA, dtype=torch.float16)


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("zarr.storage._local._put", full)
    with pytest.raises(OSError, match="No space left"):
        write_zarr(tmp_path / "x.zarr", encoded(), METADATA, dtype=torch.float16)
