"""Images of folders, decoded once and kept as squares of bytes: what training on many small images reads fast.

An image becomes a square of one of a few sides, the largest that its shorter side fills; its shape is remembered
(see `views`). The squares lie in shards, files that are mapped into memory, or all of them on a GPU.

    images-00007-192.npy   (n, 3, 192, 192) bytes: those of shard 7 whose squares have that side
    images-00007.json      the images of shard 7: their sides and shapes; written last
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vision_longformer.datasets.loaders import Key
from vision_longformer.images import AS_STORED, ImageError, Reading, as_rgb, read_raster
from vision_longformer.utils.atomic_files import replacing

SHARD = 1024  # images
SIDES = (64, 96, 128, 192, 256)  # of squares
LONGEST = 2.0  # longer side over the shorter; of a longer image the middle is kept


class Square(NamedTuple):
    """An image as it is stored."""

    pixels: NDArray[np.uint8]  # (3, S, S)
    aspect: float  # width over height


class Group(NamedTuple):
    """Squares of one side, as they were asked for."""

    places: Tensor  # of each among those that were asked for
    pixels: Tensor  # (n, 3, S, S) uint8


def shards_of(count: int) -> range:
    """Return the numbers of the shards of so many images."""
    return range(-(-count // SHARD))


def images_of(shard: int, count: int) -> range:
    """Return the images of a shard."""
    return range(shard * SHARD, min((shard + 1) * SHARD, count))


def pack_shard(
    paths: Sequence[Path],
    folder: Path,
    shard: int,
    *,
    stored_side: int,
    max_pixels: int,
    threads: int,
    reading: Reading = AS_STORED,
) -> None:
    """Decode the images of a shard and write it, unless it is there already.

    Args:
        paths: All images.
        folder: Where the shards go.
        shard: Its number.
        stored_side: Largest side of a square.
        max_pixels: Refuse larger images.
        threads: That decode.
        reading: How images are read, as ones of three channels.

    Raises:
        OSError: The folder cannot be written.
    """
    if _about(folder, shard).exists():
        return

    def read(image: int) -> Square | str:
        return _read(paths[image], reading, stored_side=stored_side, max_pixels=max_pixels)

    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        _write(folder, shard, list(pool.map(read, images_of(shard, len(paths)))))


def _read(path: Path, reading: Reading, *, stored_side: int, max_pixels: int) -> Square | str:
    """Return an image's square, or why there is none."""
    try:
        image = as_rgb(read_raster(path, reading=reading, max_pixels=max_pixels))
    except ImageError as error:
        return str(error)
    width, height = image.size
    shorter = min(width, height)
    longest = round(LONGEST * shorter)
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    box = (left, top, left + min(width, longest), top + min(height, longest))
    side = max([side for side in SIDES if side <= min(shorter, stored_side)], default=SIDES[0])
    square = image.resize((side, side), Image.Resampling.BICUBIC, box=box)
    pixels = np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))
    return Square(pixels, (box[2] - box[0]) / (box[3] - box[1]))


def _about(folder: Path, shard: int) -> Path:
    return folder / f"images-{shard:05d}.json"


def _squares(folder: Path, shard: int, side: int) -> Path:
    return folder / f"images-{shard:05d}-{side}.npy"


def _write(folder: Path, shard: int, squares: Sequence[Square | str]) -> None:
    read = [square for square in squares if isinstance(square, Square)]
    for side in sorted({square.pixels.shape[-1] for square in read}):
        with replacing(_squares(folder, shard, side)) as temporary, temporary.open("wb") as file:
            np.save(file, np.stack([square.pixels for square in read if square.pixels.shape[-1] == side]))
    about = {
        "sides": [square.pixels.shape[-1] if isinstance(square, Square) else 0 for square in squares],
        "aspects": [square.aspect if isinstance(square, Square) else 1.0 for square in squares],
        "unreadable": [square for square in squares if isinstance(square, str)],
    }
    with replacing(_about(folder, shard)) as temporary:
        temporary.write_text(json.dumps(about), encoding="utf-8")


class PackedImages:
    """Images that `pack` wrote.

    Attributes:
        sides: (N,) of the square of each image; 0 where it could not be read.
        aspects: (N,) width over height of each image.
        unreadable: Why images could not be read, a sentence each.
    """

    def __init__(self, folder: Path, count: int) -> None:
        abouts = [json.loads(_about(folder, shard).read_text(encoding="utf-8")) for shard in shards_of(count)]
        self.sides = np.concatenate([np.asarray(about["sides"], np.int32) for about in abouts])
        self.aspects = np.concatenate([np.asarray(about["aspects"], np.float32) for about in abouts])
        self.unreadable = [text for about in abouts for text in about["unreadable"]]
        # Of each side its arrays, where each begins, and the row of each image over all of them.
        self._arrays: dict[int, list[Any]] = {}
        self._begins: dict[int, NDArray[np.int64]] = {}
        self._rows = np.zeros(count, np.int64)
        for side in sorted({int(side) for side in self.sides} - {0}):
            counts = [about["sides"].count(side) for about in abouts]
            self._arrays[side] = [
                np.load(_squares(folder, shard, side), mmap_mode="r") for shard, n in enumerate(counts) if n
            ]
            self._begins[side] = np.cumsum([0, *(n for n in counts if n)])
            self._rows[self.sides == side] = np.arange(sum(counts))
        self._resident: dict[int, Tensor] = {}

    def keep_on(self, device: torch.device) -> None:
        """Copy all squares to a device, where `gather` then takes them from."""
        self._resident = {
            side: torch.cat([torch.from_numpy(np.array(array)).to(device) for array in arrays])
            for side, arrays in self._arrays.items()
        }

    def gather(self, images: Sequence[int], device: torch.device) -> Iterator[Group]:
        """Yield the squares of images, side by side; those that cannot be read are in none."""
        chosen = np.asarray(images, np.int64)
        for side in self._arrays:
            places = np.flatnonzero(self.sides[chosen] == side)
            if len(places):
                rows = self._rows[chosen[places]]
                yield Group(torch.from_numpy(places).to(device), self._take(side, rows, device))

    def _take(self, side: int, rows: NDArray[np.int64], device: torch.device) -> Tensor:
        if self._resident:
            return self._resident[side][torch.from_numpy(rows).to(device)]
        taken = np.empty((len(rows), 3, side, side), np.uint8)
        shards = np.searchsorted(self._begins[side], rows, side="right") - 1
        for place, (shard, row) in enumerate(zip(shards, rows - self._begins[side][shards], strict=True)):
            taken[place] = self._arrays[side][shard][row]
        return torch.from_numpy(taken).to(device)


class Batch(NamedTuple):
    """Images by number, and which view of each."""

    indices: list[int]
    epochs: list[int]


class Numbers(Dataset[Any]):
    """Images as their numbers: the pixels are already in memory, or on the device."""

    def __init__(self, images: NDArray[np.int64]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key | int) -> tuple[int, int]:
        return (int(self.images[key.image]), key.epoch) if isinstance(key, Key) else (int(self.images[key]), 0)

    @staticmethod
    def collate(entries: list[tuple[int, int]]) -> Batch:
        """Return a batch."""
        return Batch([image for image, _ in entries], [epoch for _, epoch in entries])
