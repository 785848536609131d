"""TIFFs of all kinds, pair by pair of their properties: every door gives the pixels that rasterio and tifffile do."""

from __future__ import annotations

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

from vision_longformer import Encoder, VisionLongformer
from vision_longformer.datasets.classification import Samples
from vision_longformer.datasets.loaders import Images
from vision_longformer.images import AS_STORED, ImageError, open_reader, read_pixels, unit_rows
from vision_longformer.prediction.classes import predict
from vision_longformer.variants import CONFIGS

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
    """A classifier that keeps what it is shown."""

    num_classes = 2

    def forward(self, images: Tensor) -> Tensor:
        self.images = images
        return torch.zeros(1, 2)


def name_of(kind: Kind) -> str:
    return "-".join(str(value) for value in (*kind.content, *kind[1:]) if value not in ("", False))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(VisionLongformer(CONFIGS["vision_longformer_nano"]))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of rasterio, about files without a place on earth
@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_every_door_gives_what_independent_readers_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: Encoder, kind: Kind
) -> None:
    path, content = tmp_path / "a.tif", kind.content
    file = write(path, kind)
    with rasterio.open(path) as other:
        np.testing.assert_array_equal(np.moveaxis(other.read(), 0, 2), file.stored)
        masks = other.read_masks()[: content.opaque].all(axis=0)
        opacity = other.read(content.bands) > 0 if content.alpha else True
        np.testing.assert_array_equal(masks & opacity, file.valid)
    again = tifffile.imread(path, key=0)
    again = np.moveaxis(again, 0, 2) if kind.planar == "separate" and content.bands > 1 else again
    np.testing.assert_array_equal(again.reshape(file.stored.shape), file.stored)
    if not kind.with_rasterio:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    values, valid = expected(kind, file), torch.from_numpy(file.valid)
    tolerance: dict[str, Any] = {"rtol": 0, "atol": 1e-6}
    if content.alpha == "assocalpha":  # rounded to whole numbers
        tolerance["atol"] += 1 / FULL.get(kind.dtype, 10**6)
    with closing(open_reader(path, value_range=file.value_range)) as reader:
        assert reader.info.size == (HEIGHT, WIDTH)
        bands = [unit_rows(reader, top, min(top + 11, HEIGHT), content.channels) for top in range(0, HEIGHT, 11)]
    torch.testing.assert_close(torch.cat([band for band, _ in bands]), values, **tolerance)
    assert torch.equal(torch.cat([mask for _, mask in bands]), valid)

    if file.value_range is not None:
        with pytest.raises(ImageError, match="no defined range"):
            read_pixels(path, channels=content.channels)
        return
    pixels = read_pixels(path, channels=content.channels)
    torch.testing.assert_close(pixels.values, values, **tolerance)
    assert torch.equal(pixels.valid, valid)
    assert pixels.note == ""
    if content.channels == 3:
        assert torch.equal(encoder.read(path).values, pixels.values)
        assert torch.equal(encoder.read(path).valid, valid)
        trained_on, _, _ = Images(Samples((path,), (0,), ("a",)), np.array, seed=0, max_pixels=10**6)[0]
        colours = (pixels.values * 255).round().byte()
        assert (torch.from_numpy(np.array(trained_on)).int() - colours.int()).abs().max() <= 1
        shown = Seen()
        classifier: Any = SimpleNamespace(
            model=shown,
            classes=("a", "b"),
            reading=AS_STORED,
            transform=lambda: lambda image: torch.from_numpy(np.array(image)),
        )
        (prediction,) = predict(classifier, [path], top=1, device=torch.device("cpu"))
        assert prediction.error == ""
        np.testing.assert_array_equal(shown.images[0].numpy(), np.array(trained_on))


def test_every_pair_of_properties_that_can_be_is_among_them() -> None:
    assert set().union(*(pairs_of(kind._asdict()) for kind in KINDS)) >= possible_pairs()
    assert len(KINDS) < 150
