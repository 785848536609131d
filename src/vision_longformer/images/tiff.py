"""TIFF, BigTIFF and OME-TIFF, tiled or in strips.

H×W image, n rows, C channels

A TIFF is cut into segments: tiles, or strips as wide as the image. Bands are put together from the segments they
touch; the segments of a band that the next one needs too are kept. Channels that are stored apart (planar) are planes
of segments, and so are the channels of an OME-TIFF that has each as a page of its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tifffile

from vision_longformer.images.adapters import orientation_of
from vision_longformer.images.errors import image_errors
from vision_longformer.images.pillow import FIRST_OF_SEVERAL, ORIENTATION_TAG
from vision_longformer.images.reader import (
    MAX_PIXELS,
    Array,
    ImageError,
    ImageInfo,
    PixelRows,
    UnsupportedError,
    Window,
    check_file,
    check_piece,
    identity,
)
from vision_longformer.images.values import full_depth, straight_colours, through_table

CUT_SHORT = "it is damaged: it names fewer strips or tiles than its size takes"
EMPTY = "it is empty: none of its strips or tiles is in the file"
RASTER_TAGS = (33550, 33922, 34264, 34735)  # of GeoTIFF: scale, tie points, transformation, keys
MASK = 4  # among the flags of what a page is for
FIRST_PAGES = 20  # among which a mask is looked for
MANY_PAGES = 1000  # of which no picture is put together: looking at each would take long
NODATA_TAG = 42113  # of GDAL, as text
ASSOCIATED = 1  # opacity among extra samples, which colours were multiplied by
ALPHA = (ASSOCIATED, 2)
COLOURS = ("MINISWHITE", "MINISBLACK", "RGB")
DECODED_TO_RGB = ("JPEG", "OJPEG", "ALT_JPEG", "JPEG_LOSSY", "WEBP")  # whatever colours the file names


class TiffReader:
    """Reads the first picture of a TIFF file by rows, as it is stored, whatever its orientation tag says.

    Values of a few bits are spread over their type (`full_depth`); indices into a table of colours become these.

    Values that are GDAL's no-data value are not valid. Colours that were multiplied by their opacity (associated) are
    divided by it.

    Args:
        path: Of the file, or its URL.
        level: Of the pyramid, 0 for full resolution.
        max_pixels: Refuse files whose tiles or strips, which are decoded at once, hold more.
        file: What to read, if it does not lie at `path`; it is closed with this.

    Raises:
        ImageError: The file is missing or damaged, has no such picture, or one that is no image of H×W(×C).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        level: int = 0,
        max_pixels: int = MAX_PIXELS,
        file: BinaryIO | None = None,
    ) -> None:
        self._name, self._remote = str(path), file
        with image_errors(self._name, "TIFF"):
            if file is None:
                check_file(path)
            self._file = tifffile.TiffFile(path if file is None else file)
        try:
            with image_errors(self._name, "TIFF"):
                self._pages = self._choose(level)
                self.orientation = _orientation(self._file.pages[0].aspage())
                self.info = self._describe(path, max_pixels)
                self._nodata = _nodata(self._pages[0])
                self._multiplied = self.info.opacity and tuple(self._pages[0].extrasamples)[-1:] == (ASSOCIATED,)
        except ImageError:
            self._file.close()
            raise
        self._kept: dict[tuple[int, int], tuple[Array, tuple[int, ...]]] = {}  # segments of the band before

    def _choose(self, level: int) -> list[Any]:
        """Return the pages of a picture: one with all channels, or one for each."""
        if len(self._file.pages) > MANY_PAGES and not self._file.is_ome:  # counting them is fast
            if level:
                raise ImageError(f"it has 1 level of resolution, and no number {level}")
            self._several = True
            return [self._file.pages[0].aspage()]
        if not self._file.series:
            raise ImageError("it is no TIFF, or a damaged one (it holds no picture)")
        chosen = self._file.series[0]
        if not 0 <= level < len(chosen.levels):
            raise ImageError(f"it has {len(chosen.levels)} levels of resolution, and no number {level}")
        chosen = chosen.levels[level]
        sizes = {axis: size for axis, size in zip(chosen.axes, chosen.shape, strict=True) if size > 1 or axis in "YX"}
        if set(sizes) - set("YXSC") or not {"Y", "X"} <= sizes.keys() or {"S", "C"} <= sizes.keys():
            found = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
            raise UnsupportedError(f"it is no single picture of rows, columns and channels (its axes: {found})")
        pages = [page.aspage() for page in chosen.pages if page is not None]
        if len(pages) != sizes.get("C", 1):
            raise UnsupportedError(f"it has {len(pages)} pages for {sizes.get('C', 1)} channels")
        self._several = len(self._file.series) > 1
        return pages

    def _describe(self, path: str | os.PathLike[str], max_pixels: int) -> ImageInfo:
        page = self._pages[0]
        layouts = {(p.imagelength, p.imagewidth, p.dtype, p.photometric, p.samplesperpixel) for p in self._pages}
        if len(layouts) > 1:
            raise UnsupportedError("its channels differ in size or type")
        if page.dtype is None or page.imagedepth != 1:
            raise UnsupportedError("its values are of a type that cannot be read")
        samples = page.samplesperpixel * len(self._pages)
        self._colours = (page.colormap >> 8).astype(np.uint8).T if _has_palette(page) and samples == 1 else None
        if self._colours is None and page.photometric.name not in COLOURS and not _decoded_to_rgb(page):
            raise UnsupportedError(f"its colours are {page.photometric.name.lower()}, not gray or RGB")
        _check_decoder(page)
        if all(map(_is_empty, self._pages)):
            raise ImageError(EMPTY)
        if not all(map(_is_plain, self._pages)):
            check_piece(self._name, _piece(page), max_pixels)
        return ImageInfo(
            name=self._name,
            height=page.imagelength,
            width=page.imagewidth,
            channels=samples if self._colours is None else 3,
            dtype=np.dtype(page.dtype if self._colours is None else np.uint8),
            preferred_rows=page.chunks[0] if page.planarconfig == 1 or page.is_tiled else page.rowsperstrip,
            note=FIRST_OF_SEVERAL if self._several else "",
            opacity=any(kind in ALPHA for kind in tuple(page.extrasamples)[-1:]),
            identity=identity(path) if self._remote is None else "",
        )

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        """Return rows `top` to `bottom`. See `Reader`."""
        return self._finished(self._stored(Window(top, 0, bottom - top, self.info.width), keep=True))

    def read_window(self, window: Window) -> PixelRows:
        """Return a part of the image, of which only the segments that it touches are decoded."""
        return self._finished(self._stored(window))

    def _stored(self, window: Window, *, keep: bool = False) -> Array:
        """Return the (n, w, C) values of a window as the file has them; keep segments that the rows below need too."""
        samples = self._pages[0].samplesperpixel
        out = np.empty((window.height, window.width, samples * len(self._pages)), self._pages[0].dtype)
        kept: dict[tuple[int, int], tuple[Array, tuple[int, ...]]] = {}
        with image_errors(self._name, "TIFF"):
            for number, page in enumerate(self._pages):
                target = out[:, :, number * samples : (number + 1) * samples]
                if _is_plain(page):
                    _read_plain(page, target, window)
                    continue
                for segment in _segments(page, window):
                    key = number, segment
                    values, place = self._kept[key] if key in self._kept else _decode(page, segment)
                    _place(values, place, target, window)
                    if keep and place[2] + values.shape[0] > window.bottom:
                        kept[key] = values, place
        self._kept = kept
        return out

    def _finished(self, out: Array) -> PixelRows:
        """Return stored values as pixels, and which of them there are."""
        with image_errors(self._name, "TIFF"):
            seen = None if self._nodata is None else out != self._nodata
            if seen is not None and self.info.opacity:
                seen[..., -1] = True  # whose zero speaks for itself
            bits = self._pages[0].bitspersample  # a tuple, such as 5, 6, 5, is spread by tifffile
            white_is_zero = self._pages[0].photometric.name == "MINISWHITE"
            if self._colours is not None:
                out, seen = through_table(out[..., 0], self._colours), None if seen is None else seen[..., 0]
            else:
                out = full_depth(out, bits if isinstance(bits, int) else 8 * out.itemsize, white_is_zero=white_is_zero)
                out = straight_colours(out) if self._multiplied else out
        return PixelRows(out, None if seen is None or seen.all() else seen)

    def close(self) -> None:
        """Close the file."""
        self._kept = {}
        self._file.close()
        if self._remote is not None:
            self._remote.close()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


def read_stored(page: Any, window: Window) -> Array:
    """Return the (h, w) values of a window of a page of one channel, as the file has them.

    Raises:
        ImageError: The file is cut short.
    """
    out = np.empty((window.height, window.width, 1), page.dtype)
    if _is_plain(page):
        _read_plain(page, out, window)
    else:
        for segment in _segments(page, window):
            _place(*_decode(page, segment), out, window)
    return out[..., 0]


class Header(NamedTuple):
    """What decides how a TIFF is read.

    Attributes:
        orientation: EXIF's, 1 to 8, that its rows are stored in.
        georeferenced: Whether it says where on earth it lies.
        nodata: Whether a value says that a pixel is missing.
        masked: Whether a page does.
        multiplied: Whether its last channel is opacity, which colours were multiplied by.
        empty: Whether none of its pixels are in the file.
        cut_short: Whether it names fewer strips or tiles than its size takes, as a damaged height does.
    """

    orientation: int = 1
    georeferenced: bool = False
    nodata: bool = False
    masked: bool = False
    multiplied: bool = False
    empty: bool = False
    cut_short: bool = False


def read_header(path: str | os.PathLike[str] | BinaryIO) -> Header:
    """Look at the tags of a TIFF's first pages; of a file that cannot be read, nothing is known."""
    try:
        with tifffile.TiffFile(path) as file:
            first = file.pages[0].aspage()
            tags = first.tags
            return Header(
                _orientation(first),
                any(tag in tags for tag in RASTER_TAGS),
                NODATA_TAG in tags,
                any(page.aspage().subfiletype & MASK for page in islice(file.pages, 1, FIRST_PAGES)),
                tuple(first.extrasamples)[-1:] == (ASSOCIATED,),
                _is_empty(first),
                len(first.dataoffsets) < math.prod(first.chunked),
            )
    except Exception:
        return Header()


def _orientation(page: Any) -> int:
    return orientation_of(page.tags.valueof(ORIENTATION_TAG, default=1))


def _has_palette(page: Any) -> bool:
    return page.photometric.name == "PALETTE" and page.colormap is not None and page.dtype in ("uint8", "uint16")


def _check_decoder(page: Any) -> None:
    """Raise `UnsupportedError` if a page's values cannot be decoded without imagecodecs, which is not installed."""
    try:
        if page.compression != 1:
            tifffile.TIFF.DECOMPRESSORS[page.compression]
        if page.predictor != 1:
            tifffile.TIFF.UNPREDICTORS[page.predictor]
        missing = page.bitspersample not in (1, 8, 16, 32, 64) and find_spec("imagecodecs") is None
    except KeyError as error:
        missing = "imagecodecs" in str(error)
    if missing:
        raise UnsupportedError("decoding it needs imagecodecs: pip install 'vision-longformer[tiff]'")


def _nodata(page: Any) -> float | None:
    """Return the value that says that a pixel is missing, if the file names one."""
    try:
        return float(page.tags.valueof(NODATA_TAG, default="").strip("\0 "))
    except (ValueError, AttributeError):  # of files that have none, or no number
        return None


def _decoded_to_rgb(page: Any) -> bool:
    """Tell whether a page of YCbCr comes as RGB out of its codec."""
    plain = page.planarconfig == 1 and not page.extrasamples
    return page.photometric.name == "YCBCR" and plain and page.compression.name in DECODED_TO_RGB


def _segments(page: Any, window: Window) -> Iterator[int]:
    """Yield the numbers of the segments that hold a window."""
    height = page.tilelength if page.is_tiled else page.rowsperstrip
    width = page.tilewidth if page.is_tiled else page.imagewidth
    across, down = -(-page.imagewidth // width), -(-page.imagelength // height)
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    for plane in range(planes):
        for row in range(window.top // height, -(-window.bottom // height)):
            start = (plane * down + row) * across
            yield from range(start + window.left // width, start - (-window.right // width))


def _decode(page: Any, segment: int) -> tuple[Array, tuple[int, ...]]:
    """Return the (n, W, C) values of a segment, and its place as (plane, depth, row, column, sample)."""
    count = page.databytecounts[segment]
    data = None
    if count:
        file = page.parent.filehandle
        file.seek(page.dataoffsets[segment])
        data = file.read(count)
        if len(data) != count:
            raise ImageError("it is damaged or cut short")
    values, place, shape = page.decode(data, segment, jpegtables=page.jpegtables, jpegheader=page.jpegheader)
    if values is None:  # left out of the file, as it holds nothing
        values = np.full(shape, page.nodata, page.dtype)
    return values[0], place


def _place(values: Array, place: tuple[int, ...], target: Array, window: Window) -> None:
    """Put what a segment holds of a window where it belongs in (n, w, C) `target`."""
    plane, _, row, column, _ = place
    first, last = max(row, window.top), min(row + values.shape[0], window.bottom)
    left, right = max(column, window.left), min(column + values.shape[1], window.right)
    inside = values[first - row : last - row, left - column : right - column]
    rows, columns = slice(first - window.top, last - window.top), slice(left - window.left, right - window.left)
    target[rows, columns, plane : plane + values.shape[2]] = inside


def _is_empty(page: Any) -> bool:
    return not any(page.databytecounts)


def _is_plain(page: Any) -> bool:
    """Tell whether rows lie in the file one after the other, uncompressed."""
    together = page.is_contiguous and not page.is_tiled and page.planarconfig == 1 and page.compression == 1
    return bool(together and all(page.databytecounts))  # what was left out of the file has none


def _piece(page: Any) -> tuple[int, int, int]:
    """Return the rows, columns and channels that are decoded at once."""
    rows, columns = (
        (page.tilelength, page.tilewidth)
        if page.is_tiled
        else (min(page.rowsperstrip, page.imagelength), page.imagewidth)
    )
    return rows, columns, page.samplesperpixel if page.planarconfig == 1 else 1


def _read_plain(page: Any, target: Array, window: Window) -> None:
    """Read a window of rows that lie in the file one after the other, uncompressed."""
    stored = np.dtype(page.parent.byteorder + page.dtype.char)
    pixel_bytes = target.shape[2] * stored.itemsize
    row_bytes = page.imagewidth * pixel_bytes
    file = page.parent.filehandle
    whole = window.width == page.imagewidth  # then all of it lies together
    pieces = [target] if whole else list(target[:, None])
    for top, rows in enumerate(pieces, start=window.top):
        file.seek(page.dataoffsets[0] + top * row_bytes + window.left * pixel_bytes)
        data = file.read(rows.size * stored.itemsize)
        if len(data) != rows.size * stored.itemsize:
            raise ImageError("it is damaged or cut short")
        rows[:] = np.frombuffer(data, stored).reshape(rows.shape)
