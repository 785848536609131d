"""Features on a disk that rots: whatever changes a value is noticed when it is read, and is done again."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vision_longformer import Encoder, ModelConfig, StageConfig, VisionLongformer, Windowed
from vision_longformer.features.descriptions import read_metadata
from vision_longformer.features.extract import encode_files
from vision_longformer.features.formats.table import Choice
from vision_longformer.features.load import load_features
from vision_longformer.images.find import Source

Values = list[np.ndarray[Any, Any]]
STAGES = tuple(StageConfig(1, 8, 2, 4, 1, "relative", Windowed(3)) for _ in range(3))


@pytest.fixture(scope="module")
def encode(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    folder = tmp_path_factory.mktemp("image")
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 4), np.uint8)
    pixels[..., 3] = np.where(pixels[..., 3] < 30, 0, 255)  # some are missing
    Image.fromarray(pixels).save(folder / "x.png")
    encoder = Encoder(VisionLongformer(ModelConfig(STAGES, num_classes=0)).eval())

    def run(output: Path, kind: Choice, *, verify: bool = False) -> list[str]:
        source = Source(folder / "x.png", "x.png")
        found = encode_files([source], output, encoder, model_name="m", kind=kind, verify=verify)
        return [result.status for result in found]

    return run


def values(path: Path, *, verify: bool = True) -> Values:
    """Read everything, maps by slices."""
    found = load_features(path, verify=verify)
    return [
        *(stage[:, top : top + 5] for stage in found.maps for top in range(0, stage.shape[1], 5)),
        *(tokens.numpy() for tokens in found.global_tokens),
        found.embedding.numpy(),
        found.valid[...],
    ]


def same(first: Values, second: Values) -> bool:
    pairs = zip(first, second, strict=True)
    return all(one.shape == other.shape and one.tobytes() == other.tobytes() for one, other in pairs)


def flips(path: Path, count: int) -> Iterator[None]:
    """Flip a bit of a file, let it be looked at, and put it back."""
    whole = path.read_bytes()
    for _ in range(count):
        data = bytearray(whole)
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        path.write_bytes(bytes(data))
        yield
        path.write_bytes(whole)


def is_silent(path: Path, expected: Values) -> bool:
    """Tell whether nothing is noticed; then nothing may have changed."""
    try:
        found = values(path)
    except ValueError:
        return False
    assert same(found, expected)
    return True


@pytest.mark.parametrize("count", [200, pytest.param(4000, marks=pytest.mark.long)])
def test_bits_of_a_safetensors_file(count: int, encode: Callable[..., list[str]], tmp_path: Path) -> None:
    assert encode(tmp_path, "safetensors") == ["encoded"]
    path = tmp_path / "x.png.safetensors"
    expected, about = values(path), read_metadata(path)
    random.seed(2)
    silent = 0
    for _ in flips(path, count):
        silent += is_silent(path, expected)
        assert read_metadata(path) in (None, about)
    assert silent < count // 20
    assert encode(tmp_path, "safetensors") == ["skipped"]
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    assert encode(tmp_path, "safetensors", verify=True) == ["encoded"]
    assert same(values(path), expected)


def test_damage_is_told_when_it_is_read_and_need_not_be_looked_for(
    encode: Callable[..., list[str]], tmp_path: Path
) -> None:
    encode(tmp_path, "safetensors")
    path = tmp_path / "x.png.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1  # of the mask, which shares its block with all else
    path.write_bytes(bytes(data))
    found = load_features(path, verify=False)
    assert np.isfinite(found.maps[0][...]).all()
    assert found.valid[...].shape == (70, 90)
    with pytest.raises(ValueError, match="is damaged, in embedding, stage1"):
        load_features(path).valid[60:]


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.long)])  # for each of some twenty files
def test_bits_of_a_zarr_folder(count: int, encode: Callable[..., list[str]], tmp_path: Path) -> None:
    assert encode(tmp_path, "zarr") == ["encoded"]
    path = tmp_path / "x.png.zarr"
    expected, about = values(path), read_metadata(path)
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and "view" not in file.parts]
    assert len(files) > 10
    random.seed(3)
    for file in files:
        for _ in flips(file, count):
            assert not is_silent(path, expected) or file.name == "zarr.json"
            assert read_metadata(path) in (None, about)


@pytest.mark.parametrize("damage", ["a file is missing", "a file is cut", "a file is new", "a bit"])
def test_a_damaged_folder_is_not_done(damage: str, encode: Callable[..., list[str]], tmp_path: Path) -> None:
    assert encode(tmp_path, "zarr") == ["encoded"]
    path = tmp_path / "x.png.zarr"
    chunk = path / "stage1" / "c" / "0" / "0" / "0"
    expected, whole = values(path), chunk.read_bytes()
    match damage:
        case "a file is missing":
            chunk.unlink()
        case "a file is cut":
            chunk.write_bytes(whole[:-1])
        case "a file is new":
            (chunk.parent / "1").write_bytes(whole)
        case "a bit":
            chunk.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(ValueError, match=r"is missing|is damaged|does not belong there"):
        values(path)
    assert encode(tmp_path, "zarr", verify=damage == "a bit") == ["encoded"]
    assert same(values(path), expected)


def test_folders_of_before_there_were_lists(
    encode: Callable[..., list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encode(tmp_path, "zarr")
    path = tmp_path / "x.png.zarr"
    expected = values(path)
    description = json.loads((path / "zarr.json").read_text())
    del description["attributes"]["vision_longformer_files"]
    (path / "zarr.json").write_text(json.dumps(description))
    shutil.rmtree(path / "view")
    assert same(values(path), expected)
    assert "without digests" in caplog.text
    assert encode(tmp_path, "zarr") == ["skipped"]
