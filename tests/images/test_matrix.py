"""TIFFs of all kinds, pair by pair of their properties: every door gives the pixels that rasterio and tifffile do."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from contextlib import closing
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_helpers import config
from vision_longformer import Encoder, GlobalOnly, VisionLongformer
from vision_longformer.datasets.classification import Samples
from vision_longformer.datasets.loaders import Images
from vision_longformer.features.encoder import Features
from vision_longformer.features.extract import encode_files
from vision_longformer.features.load import load_features
from vision_longformer.images import ImageError, Pixels, Reading, open_reader, read_pixels, unit_rows
from vision_longformer.images.find import find_images
from vision_longformer.prediction.classes import predict
from vision_longformer.prediction.predictor import PredictOptions, Predictor

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("imagecodecs")

HEIGHT, WIDTH = 37, 53
NO_DATA = 42113  # GDAL's tag
COLOURS = np.random.default_rng(7).integers(0, 256, (3, 256), dtype=np.uint16) * 257  # of the palette
FULL = {"uint8": 255, "uint16": 65535}  # types whose range is their own


class Content(NamedTuple):
    """What the bands of a file are, the last of them opacity if `alpha` says of which kind."""

    bands: int
    photometric: str
    alpha: str = ""

    @property
    def opaque(self) -> int:
        """How many bands are no opacity."""
        return self.bands - bool(self.alpha)

    @property
    def channels(self) -> int:
        """How many a model takes."""
        return 3 if self.opaque == 1 else self.opaque


class Kind(NamedTuple):
    """The properties of a file; of `missing`, what says so."""

    content: Content
    dtype: str
    missing: str
    planar: str
    order: str
    tiled: bool
    compression: str
    with_rasterio: bool


CONTENTS = [
    *(Content(bands, "minisblack") for bands in range(1, 6)),
    *(Content(bands, "rgb") for bands in range(3, 6)),
    *(
        Content(bands, kind, alpha)
        for bands, kind in ((2, "minisblack"), (4, "rgb"))
        for alpha in ("unassalpha", "assocalpha")
    ),
    Content(1, "miniswhite"),
    Content(1, "palette"),
]
PROPERTIES: dict[str, list[Any]] = {
    "content": CONTENTS,
    "dtype": ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"],
    "missing": ["", "no-data", "mask"],
    "planar": ["contig", "separate"],
    "order": ["<", ">"],
    "tiled": [False, True],
    "compression": ["", "lzw", "zlib", "lzw after a predictor", "zlib after a predictor"],
    "with_rasterio": [True, False],
}


def possible(given: dict[str, Any]) -> bool:
    """Tell whether a file can have some properties together."""
    content, dtype = given.get("content", CONTENTS[0]), given.get("dtype", "uint8")
    return not (
        (content.photometric == "miniswhite" and dtype not in FULL)
        or (content.photometric == "palette" and dtype != "uint8")
        or (content.alpha and dtype not in (*FULL, "float32", "float64"))
        or (given.get("missing") == "mask" and not given.get("with_rasterio", True))
        or (dtype in ("int8", "float16") and "predictor" in given.get("compression", ""))
    )


Pair = frozenset[tuple[str, Any]]  # two properties by name, each with a value


def possible_pairs() -> set[Pair]:
    return {
        frozenset([(first, one), (second, other)])
        for (first, ones), (second, others) in combinations(PROPERTIES.items(), 2)
        for one, other in product(ones, others)
        if possible({first: one, second: other})
    }


def pairs_of(given: dict[str, Any]) -> set[Pair]:
    return {frozenset(pair) for pair in combinations(given.items(), 2)}


def few_kinds() -> list[Kind]:
    """Choose kinds, one after the other, that have the most pairs which none before has, until all have been."""
    left, kinds = possible_pairs(), []
    while left:
        given = dict(min(left, key=lambda pair: sorted(map(str, pair))))
        for name in sorted(PROPERTIES.keys() - given.keys()):
            options = [given | {name: value} for value in PROPERTIES[name] if possible(given | {name: value})]
            given = max(options, key=lambda option: (len(pairs_of(option) & left), str(option)))
        left -= pairs_of(given)
        kinds.append(Kind(**given))
    return kinds


KINDS = few_kinds()


class File(NamedTuple):
    """What was written: (H, W, C) values, (H, W) which pixels are there, and the range that becomes 0 to 1."""

    stored: NDArray[Any]
    valid: NDArray[np.bool_]
    value_range: tuple[float, float] | None


def write(path: Path, kind: Kind) -> File:
    rng = np.random.default_rng(0)
    dtype = np.dtype(kind.dtype)
    content = kind.content
    shape = (HEIGHT, WIDTH, content.bands)
    if dtype.kind == "f":
        stored, value_range = rng.uniform(0.1, 1, shape).astype(dtype), None
    else:
        limits = np.iinfo(dtype)
        stored = rng.integers(limits.min + 10, limits.max, shape, dtype=dtype, endpoint=True)
        value_range = None if kind.dtype in FULL else (float(limits.min), float(limits.max))
    valid = np.ones((HEIGHT, WIDTH), np.bool_)
    if content.alpha:
        stored[20:24, ..., -1] = 0
        valid[20:24] = False
        if content.alpha == "assocalpha":
            share = stored[..., -1:].astype(np.float64) / FULL.get(kind.dtype, 1)
            multiplied = stored[..., :-1] * share
            stored[..., :-1] = multiplied.round() if dtype.kind == "u" else multiplied
    tags: list[Any] = []
    if kind.missing == "no-data":
        nothing = -999 if dtype.kind == "f" else int(np.iinfo(dtype).min) + 5
        stored[3:6, 7:11, 0] = nothing
        stored[30, 31, content.opaque - 1] = nothing
        valid &= (stored[..., : content.opaque] != nothing).all(axis=2)
        tags = [(NO_DATA, "s", 0, str(nothing), True)]
    laid_out = np.moveaxis(stored, 2, 0) if kind.planar == "separate" else stored
    options: dict[str, Any] = {"tile": (16, 32)} if kind.tiled else {"rowsperstrip": 10}
    if kind.compression:
        options |= {"compression": kind.compression.split()[0], "predictor": "predictor" in kind.compression}
    extra = content.bands - (3 if content.photometric == "rgb" else 1)
    options |= {"extrasamples": [content.alpha or "unspecified"] * extra} if extra else {}
    options |= {"planarconfig": kind.planar} if content.bands > 1 else {}
    options |= {"colormap": COLOURS} if content.photometric == "palette" else {}
    with tifffile.TiffWriter(path, byteorder=kind.order) as file:
        data = laid_out.squeeze() if content.bands == 1 else laid_out
        file.write(data, photometric=content.photometric, extratags=tags, metadata=None, **options)
        if kind.missing == "mask":
            valid[:9, 5:30] = False
            mask = np.ones((HEIGHT, WIDTH), np.bool_)
            mask[:9, 5:30] = False
            file.write(mask, photometric="mask", subfiletype=4, metadata=None, rowsperstrip=HEIGHT)
    return File(stored, valid, value_range)


def expected(kind: Kind, file: File) -> Tensor:
    """Return the (H, W, `channels`) values that a model takes, by the standards alone."""
    content = kind.content
    stored = file.stored.astype(np.float64)
    if content.photometric == "palette":
        values = COLOURS.T[file.stored[..., 0]] / 65535
    else:
        low, high = file.value_range or (0, FULL.get(kind.dtype, 1))
        values = (stored[..., : content.opaque] - low) / (high - low)
        if content.alpha == "assocalpha":
            opacity = stored[..., -1:] / high
            values = np.divide(values, opacity, out=np.zeros_like(values), where=opacity > 0).clip(None, 1 + 1e-9)
        values = 1 - values if content.photometric == "miniswhite" else values
    values = np.where(file.valid[..., None], values, 0)
    return torch.from_numpy(np.broadcast_to(values, (HEIGHT, WIDTH, content.channels)).astype(np.float32))


class Seen(nn.Module):
    """A classifier, or a model for segmentation, that keeps what it is shown."""

    num_classes = 2
    backbone = SimpleNamespace(strides=(1,))
    config = SimpleNamespace(num_classes=2)

    def forward(self, images: Tensor) -> Tensor:
        self.images = images
        return torch.zeros(1, 2)

    def logits(self, images: Tensor, **_options: Any) -> Tensor:
        self.images = images.permute(0, 2, 3, 1)
        return torch.zeros(1, 2, *images.shape[2:])


class SeenEncoder(Encoder):
    """An encoder that keeps what it is shown."""

    def encode_batch(self, pixels: Sequence[Pixels]) -> list[Features]:
        self.pixels = pixels
        return super().encode_batch(pixels)


@functools.cache
def encoder_of(channels: int) -> SeenEncoder:
    return SeenEncoder(VisionLongformer(config(*[GlobalOnly()] * 3, num_global_tokens=(1, 1, 1), in_chans=channels)))


def reading_of(content: Content, value_range: tuple[float, float] | None) -> Reading:
    """Return how people say that all bands are to be read."""
    return Reading(channels=None if content.channels == 3 else tuple(range(content.opaque)), value_range=value_range)


def name_of(kind: Kind) -> str:
    return "-".join(str(value) for value in (*kind.content, *kind[1:]) if value not in ("", False))


def write_and_check(path: Path, kind: Kind) -> File:
    """Write a file, and have independent readers say that it holds what it is meant to."""
    content, file = kind.content, write(path, kind)
    with rasterio.open(path) as other:
        np.testing.assert_array_equal(np.moveaxis(other.read(), 0, 2), file.stored)
        masks = other.read_masks()[: content.opaque].all(axis=0)
        opacity = other.read(content.bands) > 0 if content.alpha else True
        np.testing.assert_array_equal(masks & opacity, file.valid)
    again = tifffile.imread(path, key=0)
    again = np.moveaxis(again, 0, 2) if kind.planar == "separate" and content.bands > 1 else again
    np.testing.assert_array_equal(again.reshape(file.stored.shape), file.stored)
    return file


def assert_same(found: Tensor, kind: Kind, file: File, *, eight_bit: bool = False) -> None:
    """Hold (H, W, C) values, bytes or floats, which may have been bytes, to what a model takes."""
    values, tolerance = expected(kind, file), 1e-6
    if kind.content.alpha == "assocalpha":  # rounded to whole numbers
        tolerance += 1 / FULL.get(kind.dtype, 10**6)
    if found.dtype == torch.uint8:
        found, eight_bit = found / 255, True
    tolerance += 0.5 / 255 if eight_bit else 0
    torch.testing.assert_close(found, values, rtol=0, atol=tolerance)


@pytest.fixture(params=KINDS, ids=name_of)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    kind: Kind = request.param
    if not kind.with_rasterio:
        find = importlib.util.find_spec
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "rasterio" else find(name))
    return kind


@pytest.mark.filterwarnings("ignore::UserWarning")  # of rasterio, about files without a place on earth
def test_every_door_gives_what_independent_readers_do(tmp_path: Path, kind: Kind) -> None:
    path, content = tmp_path / "a.tif", kind.content
    file = write_and_check(path, kind)
    valid = torch.from_numpy(file.valid)
    with closing(open_reader(path, value_range=file.value_range)) as reader:
        assert reader.info.size == (HEIGHT, WIDTH)
        bands = [unit_rows(reader, top, min(top + 11, HEIGHT), content.channels) for top in range(0, HEIGHT, 11)]
    assert_same(torch.cat([band for band, _ in bands]), kind, file)
    assert torch.equal(torch.cat([mask for _, mask in bands]), valid)

    if file.value_range is not None:
        with pytest.raises(ImageError, match="no defined range"):
            read_pixels(path, channels=content.channels)
        return
    pixels = read_pixels(path, channels=content.channels)
    assert_same(pixels.values, kind, file)
    assert torch.equal(pixels.valid, valid)
    assert pixels.note == ""
    encoder = encoder_of(content.channels)
    assert torch.equal(encoder.read(path).values, pixels.values)
    assert torch.equal(encoder.read(path).valid, valid)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_user_of_images_sees_what_independent_readers_do(tmp_path: Path, kind: Kind) -> None:
    """`vil encode`, training, and `vil predict` with classifiers and with models for every pixel."""
    path, content = tmp_path / "a.tif", kind.content
    file = write_and_check(path, kind)
    reading = reading_of(content, file.value_range)
    assert reading.model_channels == content.channels

    encoder, output = encoder_of(content.channels), tmp_path / "features"
    (encoded,) = encode_files(find_images([str(path)]), output, encoder, model_name="small", reading=reading)
    assert (encoded.status, encoded.message) == ("encoded", "")
    assert_same(encoder.pixels[0].values, kind, file)
    assert torch.equal(encoder.pixels[0].valid, torch.from_numpy(file.valid))
    np.testing.assert_array_equal(load_features(output / "a.tif.safetensors").valid[...], file.valid)

    samples = Samples((path,), (0,), ("a",), reading=reading)
    learned = Images(samples, np.array, seed=0, max_pixels=10**6)[0].image  # type: ignore[union-attr]
    assert_same(torch.from_numpy(learned), kind, file)

    shown = Seen()
    trained: Any = SimpleNamespace(
        model=shown, classes=("a", "b"), reading=reading, task="semantic_segmentation", gives="pixels",
        preprocessing={"mean": [0.0] * content.channels, "std": [1.0] * content.channels, "interpolation": "bicubic"},
        transform=lambda: lambda image: torch.from_numpy(np.array(image)),
    )  # fmt: skip
    (prediction,) = predict(trained, [path], top=1, device=torch.device("cpu"))
    assert prediction.error == ""
    assert_same(shown.images[0], kind, file)

    result: Any = Predictor(trained, PredictOptions(tile=64))(path)
    assert_same(shown.images[0], kind, file, eight_bit=content.channels == 3)
    np.testing.assert_array_equal(result.valid if result.valid is not None else np.ones_like(file.valid), file.valid)
    np.testing.assert_array_equal(result.labels, np.where(file.valid, 0, 255))


def test_every_pair_of_properties_that_can_be_is_among_them() -> None:
    assert set().union(*(pairs_of(kind._asdict()) for kind in KINDS)) >= possible_pairs()
    assert len(KINDS) < 150
