"""Packed images: what was decoded comes back, in the order that was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vision_longformer.datasets import packed
from vision_longformer.datasets.packed import PackedImages, images_of, pack_shard, shards_of

SIZES = [(64, 64), (200, 130), (50, 40), (128, 300), (97, 96), (64, 70), (300, 300)]  # (width, height)
SIDES = [64, 128, 64, 128, 96, 64, 192]


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = []
    for number, (width, height) in enumerate(SIZES):
        path = tmp_path / f"{number}.png"
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def write(paths: list[Path], folder: Path) -> PackedImages:
    folder.mkdir(exist_ok=True)
    for shard in shards_of(len(paths)):
        pack_shard(paths, folder, shard, stored_side=192, max_pixels=10**6, threads=2)
    return PackedImages(folder, len(paths))


@pytest.mark.parametrize("shard", [1024, 3, 1])
@pytest.mark.parametrize("resident", [False, True])
def test_images_come_back_wherever_they_lie(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: int, resident: bool
) -> None:
    monkeypatch.setattr(packed, "SHARD", shard)
    images = write(paths, tmp_path / "packed")
    if resident:
        images.keep_on(torch.device("cpu"))
    assert images.sides.tolist() == SIDES
    asked = [5, 1, 6, 1, 0]
    found: dict[int, torch.Tensor] = {}
    for places, squares in images.gather(asked, torch.device("cpu")):
        found |= dict(zip(places.tolist(), squares, strict=True))
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert torch.equal(found[1], found[3])
    whole = torch.from_numpy(np.array(Image.open(paths[0]))).permute(2, 0, 1)
    assert torch.equal(found[4], whole)  # of 64×64 pixels as they are
    smaller = Image.open(paths[1]).resize((128, 128), Image.Resampling.BICUBIC)
    assert torch.equal(found[1], torch.from_numpy(np.array(smaller)).permute(2, 0, 1))


def test_of_a_long_image_the_middle_is_kept(paths: list[Path], tmp_path: Path) -> None:
    images = write(paths, tmp_path / "packed")
    assert images.aspects[1] == pytest.approx(200 / 130)
    assert images.aspects[3] == pytest.approx(0.5)


def test_what_cannot_be_read_is_named_and_left_out(paths: list[Path], tmp_path: Path) -> None:
    paths[2].write_bytes(b"no image")
    images = write(paths, tmp_path / "packed")
    assert images.sides[2] == 0
    assert len(images.unreadable) == 1
    assert str(paths[2]) in images.unreadable[0]
    places = [place for group in images.gather([1, 2, 3], torch.device("cpu")) for place in group.places.tolist()]
    assert sorted(places) == [0, 2]


def test_a_shard_that_is_there_is_not_written_again(paths: list[Path], tmp_path: Path) -> None:
    write(paths, tmp_path / "packed")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "packed").iterdir()}
    write(paths, tmp_path / "packed")
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "packed").iterdir()}


def test_a_shard_without_its_description_is_written_again(paths: list[Path], tmp_path: Path) -> None:
    write(paths, tmp_path / "packed")
    (tmp_path / "packed" / "images-00000.json").unlink()
    (tmp_path / "packed" / "images-00000-64.npy").write_bytes(b"half of")
    assert write(paths, tmp_path / "packed").sides.tolist() == SIDES


def test_shards_hold_every_image_once() -> None:
    for count in (1, 1023, 1024, 1025, 5000):
        assert [image for shard in shards_of(count) for image in images_of(shard, count)] == list(range(count))
