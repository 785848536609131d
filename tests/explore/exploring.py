"""A small image, its features and a session, that several test files share."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import model_helpers
from vision_longformer import VisionLongformer
from vision_longformer.explore.opened import OpenedImage, open_features
from vision_longformer.explore.session import Session
from vision_longformer.explore.strokes import Project, Stroke
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.extract import encode_files
from vision_longformer.images.find import Source

SIZE = (150, 220)


def picture(*, seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return an image that is dark on its left and bright on its right half, with noise."""
    values = np.random.default_rng(seed).integers(0, 60, (*size, 3))
    values[:, size[1] // 2 :] += 180
    return values.astype(np.uint8)


def model(seed: int = 0) -> VisionLongformer:
    """Return a small model of strides 3, 6, 12 and 36... with seeded weights."""
    import torch

    return model_helpers.build(model_helpers.config(), seed=seed, dtype=torch.float32)


def encode(path: Path, output: Path, backbone: VisionLongformer, *, kind: str = "safetensors") -> Path:
    """Encode an image; return its feature file."""
    source = Source(path, path.name)
    encoder = Encoder(backbone, stages=[1, 2, 3, 4])
    (result,) = encode_files([source], output, encoder, model_name="small", kind=kind)  # type: ignore[arg-type]
    assert result.status == "encoded", result.message
    return source.target(output, kind)


def opened(folder: Path, *, backbone: VisionLongformer | None = None, seed: int = 0) -> OpenedImage:
    """Return an image with its features, open."""
    path = folder / f"picture{seed}.png"
    if backbone is not None:
        Image.fromarray(picture(seed=seed)).save(path)
        return open_features(encode(path, folder / "features", backbone))
    image, features = _encoded(seed)
    path.write_bytes(image)
    (folder / "features").mkdir(exist_ok=True)
    target = folder / "features" / f"{path.name}.safetensors"
    target.write_bytes(features)
    return open_features(target)


@functools.cache
def _encoded(seed: int) -> tuple[bytes, bytes]:
    """Return the files of an image and of its features."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"picture{seed}.png"
        Image.fromarray(picture(seed=seed)).save(path)
        return path.read_bytes(), encode(path, Path(folder) / "features", model()).read_bytes()


def session(folder: Path, *images: OpenedImage) -> Session:
    """Return a session over images."""
    return Session(images, folder / "strokes.json", Project(), folder / "out")


def dot(label: int | None, x: float, y: float, radius: float = 5.0) -> Stroke:
    """Return a stroke of one point."""
    return Stroke(label, ((x, y),), radius)


HALVES = (dot(0, 30, 40), dot(0, 60, 110), dot(1, 150, 40), dot(1, 180, 110))
