"""Files that were damaged at random are read, or refused by a sentence: nothing else comes out of any door."""

from __future__ import annotations

import io
import random
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from vision_longformer.images import ImageError, describe_image, open_reader, read_pixels

CALLS = 64_000  # of the long form
MAX_PIXELS = 10**6  # whatever a damaged header says
PLACE = (33550, "d", 3, (1.0, 1.0, 0.0), True)  # a tag of GeoTIFF, so that GDAL reads the file


def originals() -> dict[str, bytes]:
    """Return small images of many formats by their names."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (40, 48, 3), np.uint8)
    colours[:20] = colours[:1]
    gray = rng.integers(0, 65536, (40, 48), np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6

    def pillow(kind: str, image: Any = colours, **options: Any) -> bytes:
        buffer = io.BytesIO()
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
        return buffer.getvalue()

    def tiff(array: Any = colours, photometric: str = "rgb", **options: Any) -> bytes:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array, photometric=photometric, **options)
        return buffer.getvalue()

    def numpy(array: Any) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, array)
        return buffer.getvalue()

    return {
        "a.jpg": pillow("JPEG", quality=90, exif=exif),
        "b.jpg": pillow("JPEG", progressive=True),
        "a.png": pillow("PNG", exif=exif),
        "b.png": pillow("PNG", gray, transparency=7),
        "c.png": pillow("PNG", Image.fromarray(colours).quantize(16)),
        "a.webp": pillow("WEBP", lossless=True, exif=exif),
        "a.gif": pillow("GIF"),
        "a.bmp": pillow("BMP"),
        "a.ppm": pillow("PPM"),
        "a.jp2": pillow("JPEG2000"),
        "a.avif": pillow("AVIF"),
        "a.tif": tiff(),
        "b.tif": tiff(tile=(16, 16), compression="zlib", predictor=True),
        "c.tif": tiff(np.moveaxis(colours, 2, 0).copy(), planarconfig="separate", bigtiff=True),
        "d.tif": tiff(gray, "minisblack", compression="lzw", byteorder=">", extratags=[(42113, "s", 0, "7", True)]),
        "e.tif": tiff(compression="jpeg", extratags=[PLACE]),
        "f.tif": pillow("TIFF", Image.fromarray(colours).convert("CMYK"), compression="tiff_lzw"),
        "g.tif": tiff(np.dstack([colours, colours[..., :1]]), extrasamples=["assocalpha"], compression="zlib"),
        "a.npy": numpy(colours),
        "b.npy": numpy(np.asfortranarray(colours / 255)),
    }


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return a file with some bits, bytes, numbers or pieces changed, or cut short."""
    found, how = bytearray(data), rng.random()
    if how < 0.35:
        for _ in range(rng.choice([1, 2, 20])):
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    elif how < 0.6:
        for _ in range(rng.choice([1, 2, 4])):
            found[rng.randrange(min(len(found), 200))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    elif how < 0.75:
        del found[rng.randrange(len(found)) :]
    elif how < 0.88:
        number = rng.choice([0, 1, 60_000, 10**6, 2**31 - 1, 2**31, 2**32 - 1])
        at = rng.randrange(min(len(found) - 4, 400))
        found[at : at + 4] = struct.pack(rng.choice("<>") + "I", number)
    elif how < 0.94:
        source, target, size = rng.randrange(len(found)), rng.randrange(len(found)), rng.randrange(1, 64)
        found[target : target + size] = found[source : source + size]
    else:
        at = rng.randrange(len(found))
        found[at:at] = rng.randbytes(rng.randrange(1, 50))
    return bytes(found)


def read_some_rows(path: Path) -> None:
    with closing(open_reader(path, max_pixels=MAX_PIXELS)) as reader:
        rows = min(reader.info.height, 9)
        if rows * reader.info.width * reader.info.channels <= MAX_PIXELS:
            reader.read_rows(0, rows)


DOORS: list[Callable[[Path], Any]] = [
    lambda path: read_pixels(path, max_pixels=MAX_PIXELS),
    read_some_rows,
    lambda path: describe_image(path, max_pixels=MAX_PIXELS),
]


def refusal(read: Callable[[Path], Any], path: Path) -> str | None:
    """Return why a file is refused; None if it is read."""
    try:
        read(path)
    except ImageError as error:
        return str(error)
    return None


@pytest.mark.filterwarnings("ignore")  # of decoders, about damaged files
@pytest.mark.parametrize("calls", [600, pytest.param(CALLS, marks=pytest.mark.long)])
def test_damaged_files_are_read_or_refused_by_a_sentence_that_names_them(tmp_path: Path, calls: int) -> None:
    pytest.importorskip("rasterio")
    files, rng, ends = originals(), random.Random(calls), Counter[str]()
    names = list(files)
    for number in range(-(-calls // len(DOORS))):
        path = tmp_path / names[number % len(names)]
        path.write_bytes(damaged(files[path.name], rng))
        for read in DOORS:
            sentence = refusal(read, path)
            assert sentence is None or (sentence.startswith(f"{path}: ") and "\n" not in sentence), sentence
            ends["read" if sentence is None else "refused"] += 1
    assert ends["refused"] > calls / 10
    assert ends["read"] > calls / 10


@pytest.mark.filterwarnings("ignore")
def test_undamaged_ones_are_read(tmp_path: Path) -> None:
    for name, data in originals().items():
        (tmp_path / name).write_bytes(data)
        assert read_pixels(tmp_path / name, max_pixels=MAX_PIXELS).valid.any()
