"""Searching in encoded images: which of them, or which of their regions, are most like a vector.

n entries, F features
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vision_longformer.features.descriptions import read_metadata
from vision_longformer.features.formats.parquet import load_embeddings, part_files
from vision_longformer.features.load import StoredFeatures, load_features
from vision_longformer.utils.atomic_files import replacing

FOLDER = ".index"  # below the features
VERSION = 1
PART = 1 << 16  # entries that are compared at once
ROUNDING = 5e-4  # bounds the error of a product of unit vectors in half precision: 2.2e-4 was seen
CELLS = 8  # regions along the longer side of an image

Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels of the encoded image


class Entry(NamedTuple):
    """What an index holds of one image or region."""

    image: str
    box: Box
    vector: Tensor  # (F,)


class Match(NamedTuple):
    """An entry that was found.

    Attributes:
        image: Name of the image.
        box: The region; all of the image in an index of images.
        similarity: Cosine of the angle between its features and those asked for, both less the mean of all: 1 for equal
            ones, about 0 for unrelated ones.
    """

    image: str
    box: Box
    similarity: float


@dataclass(frozen=True)
class Index:
    """Features of images or regions, ready to be compared. Every comparison is exact: nothing is approximated.

    Attributes:
        images: Names of the images.
        image_of: (n,) which of them each entry belongs to.
        boxes: (n, 4) regions.
        vectors: (n, F) float16, of unit length, less `mean`; mapped into memory where the index lies on disk.
        mean: (F,) of all vectors.
        metadata: How the images were encoded; a query must have been encoded alike.
        stage: Whose map regions are of; None for an index of whole images.
    """

    images: tuple[str, ...]
    image_of: NDArray[np.int32]
    boxes: NDArray[np.int32]
    vectors: NDArray[np.float16]
    mean: Tensor
    metadata: dict[str, Any]
    stage: int | None = None

    def __len__(self) -> int:
        return len(self.image_of)

    @classmethod
    def of(cls, entries: Sequence[Entry], *, metadata: dict[str, Any], stage: int | None = None) -> Self:
        """Make an index of entries.

        Raises:
            ValueError: There are none.
        """
        if not entries:
            raise ValueError("there is nothing to search in")
        vectors = torch.stack([entry.vector for entry in entries]).float()
        mean = vectors.mean(0) if len(entries) > 1 else torch.zeros_like(vectors[0])
        images = tuple(dict.fromkeys(entry.image for entry in entries))
        number = {image: place for place, image in enumerate(images)}
        return cls(
            images,
            np.array([number[entry.image] for entry in entries], np.int32),
            np.array([entry.box for entry in entries], np.int32),
            F.normalize(vectors - mean, dim=1).half().numpy(),
            mean,
            metadata,
            stage,
        )

    def search(self, vector: Tensor, *, count: int = 10, each: int | None = None) -> list[Match]:
        """Return the entries most like a vector, the best first.

        Args:
            vector: (F,) features.
            count: How many.
            each: How many of one image at most; None for any number.

        Raises:
            ValueError: The vector has another number of features.
        """
        if vector.shape != self.mean.shape:
            raise ValueError(
                f"the vector has shape {tuple(vector.shape)}, not {tuple(self.mean.shape)} as in the index"
            )
        wanted = F.normalize(vector.float() - self.mean, dim=0)
        coarse = torch.cat([self._part(first) @ wanted.half() for first in range(0, len(self), PART)]).float()
        most = len(self) if each is not None else min(count, len(self))
        least = float(coarse.topk(most).values[-1]) - 2 * ROUNDING
        near = torch.nonzero(coarse >= least)[:, 0]  # holds the best, whatever rounding did
        similarity = torch.from_numpy(self.vectors[near.numpy()].astype(np.float32)) @ wanted
        best = similarity.topk(most)
        places = near[best.indices].tolist()
        found, taken = list[Match](), dict[int, int]()
        for place, value in zip(places, best.values.tolist(), strict=True):
            image = int(self.image_of[place])
            taken[image] = taken.get(image, 0) + 1
            if each is None or taken[image] <= each:
                top, left, bottom, right = self.boxes[place].tolist()
                found.append(Match(self.images[image], (top, left, bottom, right), value))
            if len(found) == count:
                break
        return found

    def _part(self, first: int) -> Tensor:
        """Return vectors from `first` on, as they are stored: products of half precision are several times as fast."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the file is not writable, which nobody does
            return torch.from_numpy(self.vectors[first : first + PART])

    def save(self, folder: Path, *, state: str) -> None:
        """Write the index into a folder, with what tells whether it is still true (see `index_folder`).

        Raises:
            OSError: It cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, NDArray[Any]] = {
            "vectors": self.vectors,
            "boxes": self.boxes,
            "image_of": self.image_of,
            "mean": self.mean.numpy(),
        }
        for name, array in arrays.items():
            with replacing(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, array)
        about = {"version": VERSION, "state": state, "stage": self.stage, "metadata": self.metadata}
        with replacing(folder / "index.json") as temporary:  # the last: without it there is no index
            temporary.write_text(json.dumps(about | {"images": self.images}))

    @classmethod
    def open(cls, folder: Path, *, state: str) -> Self | None:
        """Open an index; None if there is none, or if it is of another state or damaged."""
        try:
            about = json.loads((folder / "index.json").read_text())
            if (about["version"], about["state"]) != (VERSION, state):
                return None
            vectors = np.load(folder / "vectors.npy", mmap_mode="r")
            boxes, image_of, mean = (np.load(folder / f"{name}.npy") for name in ("boxes", "image_of", "mean"))
            if not (len(vectors) == len(boxes) == len(image_of) and vectors.shape[1:] == mean.shape):
                return None
            return cls(
                tuple(about["images"]),
                image_of,
                boxes,
                vectors,
                torch.from_numpy(mean),
                about["metadata"],
                about["stage"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


def index_folder(features: str | Path, *, stage: int | None = None) -> Index:
    """Return the index of a folder that `vil encode` wrote; it is made, and kept beside the features, if need be.

    Args:
        features: The folder: feature files, Zarr folders or Parquet.
        stage: Index regions of the maps of this stage, counted from 1; None indexes whole images by their embeddings.

    Raises:
        FileNotFoundError: There are no features in it.
        ValueError: They are damaged, of several models, or have no map of that stage.
        OSError: The index cannot be written.
    """
    features = Path(features)
    files = sorted(_feature_files(features))
    parts = [] if files else part_files(features)
    if not (files or parts):
        raise FileNotFoundError(f"{features}: there are no features of `vil encode` in it")
    if parts and stage is not None:
        raise ValueError(f"{features}: Parquet holds embeddings, no maps: encode with --format auto to search regions")
    stats = [(str(path.relative_to(features)), path.stat()) for path in files or parts]
    state = hashlib.sha256(repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]).encode()).hexdigest()
    folder = features / FOLDER / ("images" if stage is None else f"stage{stage}")
    if (known := Index.open(folder, state=state)) is not None:
        return known
    if parts:
        found = load_embeddings(features)
        entries = [Entry(name, (0, 0, 0, 0), row) for name, row in zip(found.names, found.embeddings, strict=True)]
        index = Index.of(entries, metadata=found.metadata)
    else:
        index = _of_files(files, stage)
    index.save(folder, state=state)
    return index


def stored_query(features: str | Path, query: str) -> StoredFeatures | None:
    """Return the features of an image by its name in a folder of features; None if it is none of them."""
    for suffix in (".safetensors", ".zarr"):
        path = Path(features) / f"{query}{suffix}"
        if path.exists() and read_metadata(path) is not None:
            return load_features(path)
    return None


def _of_files(files: Sequence[Path], stage: int | None) -> Index:
    entries: list[Entry] = []
    first: dict[str, Any] = {}
    for path in files:
        stored = load_features(path)
        first = first or stored.metadata
        for key in ("config_sha256", "weights_sha256"):
            if stored.metadata[key] != first[key]:
                raise ValueError(f"{path}: it was encoded with another {key.split('_')[0]} than {files[0].name}")
        name, (height, width) = str(stored.metadata["source"]), stored.metadata["encoded_size"]
        if stage is None:
            entries.append(Entry(name, (0, 0, height, width), stored.embedding.float()))
        elif stage not in stored.stages:
            has = ", ".join(map(str, stored.stages))
            raise ValueError(f"{path}: it has no map of stage {stage}, only of {has}: encode with --stages {stage}")
        else:
            stride = stored.metadata["strides"][stored.stages.index(stage)]
            whole = stored.maps[stored.stages.index(stage)].tensor().float()
            entries += [Entry(name, box, vector) for box, vector in regions(whole, stride=stride, size=(height, width))]
    return Index.of(entries, metadata=first, stage=stage)


def regions(stage_map: Tensor, *, stride: int, size: tuple[int, int]) -> Iterator[tuple[Box, Tensor]]:
    """Yield squares of an image with the mean of the tokens in each; regions without data are left out.

    Args:
        stage_map: (F, H, W).
        stride: Pixels of a token.
        size: (height, width) of the image in pixels.
    """
    _, height, width = stage_map.shape
    side = max(1, -(-max(height, width) // CELLS))
    for top in range(0, height, side):
        for left in range(0, width, side):
            tokens = stage_map[:, top : top + side, left : left + side].flatten(1)
            real = tokens.abs().amax(0) > 0  # a map is zero where nothing is valid
            if bool(real.any()):
                box = (top * stride, left * stride, (top + side) * stride, (left + side) * stride)
                yield (box[0], box[1], min(box[2], size[0]), min(box[3], size[1])), tokens[:, real].mean(1)


def region_vector(stage_map: Tensor, box: Box, *, stride: int) -> Tensor:
    """Return the (F,) mean of the tokens that a box in pixels touches.

    Args:
        stage_map: (F, H, W).
        box: top, left, bottom, right; a point is a box of no size.
        stride: Pixels of a token.

    Raises:
        ValueError: The box lies outside.
    """
    top, left, bottom, right = box
    part = stage_map[
        :, top // stride : max(bottom - 1, top) // stride + 1, left // stride : max(right - 1, left) // stride + 1
    ]
    if min(box) < 0 or part.numel() == 0:
        raise ValueError(f"the region {box} (top, left, bottom, right) lies outside of the image")
    return part.flatten(1).mean(1)


def _feature_files(folder: Path) -> Iterator[Path]:
    """Yield feature files and Zarr folders of any depth, but nothing inside of these."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.suffix in (".safetensors", ".zarr"):
            if read_metadata(path) is not None:
                yield path
        elif path.is_dir() and path.suffix != ".geotiff":
            yield from _feature_files(path)
