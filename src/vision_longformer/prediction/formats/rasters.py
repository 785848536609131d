"""Label images: objects' numbers or classes of pixels as PNG, TIFF, or GeoTIFF that lies where its image lies.

They are written band by band. H×W image.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile

from vision_longformer.prediction.results import RegionsResult, SemanticResult

STRIP_ROWS = 256
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TILE = 512  # pixels of a GeoTIFF's tiles
CACHE_MEGABYTES = 64


def write_png(path: Path, result: RegionsResult) -> None:
    """Write classes of pixels as gray values: 8 bits, or 16 where there are more than 256.

    By hand, as no library that is at hand writes a PNG by rows.

    Raises:
        OSError: It cannot be written.
    """
    height, width = result.image.size
    depth = 8 * result.label_type.itemsize
    packed = zlib.compressobj()
    with path.open("wb") as file:
        file.write(PNG_SIGNATURE)
        _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
        for top in range(0, height, STRIP_ROWS):
            rows = result.label_rows(top, min(top + STRIP_ROWS, height))
            rows = np.ascontiguousarray(rows, rows.dtype.newbyteorder(">"))
            unfiltered = np.zeros((len(rows), 1), np.uint8)
            data = packed.compress(np.concatenate([unfiltered, rows.view(np.uint8)], axis=1).tobytes())
            if data:
                _write_chunk(file, b"IDAT", data)
        _write_chunk(file, b"IDAT", packed.flush())
        _write_chunk(file, b"IEND", b"")


def _write_chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    """Write a chunk of a PNG: https://www.w3.org/TR/png-3/#5Chunk-layout."""
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


def write_tiff(path: Path, result: RegionsResult) -> None:
    """Write a TIFF in compressed strips, with the size of a pixel where it is known.

    Raises:
        OSError: It cannot be written.
    """
    options: dict[str, Any] = {}
    if result.image.pixel_size is not None:
        height, width = result.image.pixel_size
        options = {"resolution": (1e4 / width, 1e4 / height), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(
        path,
        _strips(result, STRIP_ROWS),
        shape=result.image.size,
        dtype=result.label_type,
        rowsperstrip=STRIP_ROWS,
        photometric="minisblack",
        compression="zlib",
        byteorder="<",
        bigtiff=result.image.size[0] * result.image.size[1] * result.label_type.itemsize > 2**31,
        metadata=None,
        **options,
    )


def write_geotiff(path: Path, result: RegionsResult) -> None:
    """Write a cloud-optimised GeoTIFF, in the coordinate system and place of the image.

    Classes of pixels have a table of colours, and the value of missing pixels is named where the image lacks some.

    Raises:
        ImportError: rasterio is not installed.
        ValueError: The image does not say where it lies.
        OSError: It cannot be written.
    """
    import rasterio
    import rasterio.shutil

    place = result.image.georeference
    if not place:
        raise ValueError("the image does not say where on earth it lies, which GeoTIFF needs: choose another format")
    plain = path.with_name(f"{path.name}.plain")
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_MEGABYTES), warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # of the identity transform
            _write_plain(plain, result, place)
            options = {
                "compress": "deflate",
                "blocksize": TILE,
                "overview_resampling": "nearest",
                "bigtiff": "if_safer",
            }
            rasterio.shutil.copy(plain, path, driver="COG", **options)
            with rasterio.open(plain) as before, rasterio.open(path) as after:
                same = before.checksum(1) == after.checksum(1)  # GDAL may say nothing of a disk that is full
        if not same:
            raise OSError(f"{path.name}: not all of it could be written; the disk may be full")
    except (rasterio.errors.RasterioError, rasterio.errors.CRSError) as error:
        raise OSError(f"{path.name}: {error}") from error
    finally:
        plain.unlink(missing_ok=True)


def _write_plain(path: Path, result: RegionsResult, place: dict[str, Any]) -> None:
    import rasterio

    height, width = result.image.size
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": result.label_type.name,
        "crs": place["crs"], "transform": rasterio.Affine(*place["transform"]), "nodata": result.no_data,
        "tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "bigtiff": "if_safer",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        if isinstance(result, SemanticResult):
            if result.label_type == np.uint8:
                file.write_colormap(1, {n: result.colour(n) for n in range(len(result.class_names))})
            file.update_tags(**{f"CLASS_{number}": name for number, name in enumerate(result.class_names)})
        for top in range(0, height, TILE):
            bottom = min(top + TILE, height)
            window = rasterio.windows.Window(0, top, width, bottom - top)
            file.write(result.label_rows(top, bottom), 1, window=window)


def _strips(result: RegionsResult, rows: int) -> Iterator[bytes]:
    """Yield compressed strips: of others, tifffile wants the whole image at once."""
    height = result.image.size[0]
    for top in range(0, height, rows):
        strip = result.label_rows(top, min(top + rows, height))
        yield zlib.compress(np.ascontiguousarray(strip, strip.dtype.newbyteorder("<")).tobytes())
