"""Small images of many formats, and what rot and strangers make of them."""

from __future__ import annotations

import io
import random
import struct
from typing import Any

import numpy as np
import tifffile
from PIL import Image

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
