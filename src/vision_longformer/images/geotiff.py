"""GeoTIFF, cloud-optimised or not, and whatever else rasterio reads, with its place on earth."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_longformer.images.errors import image_errors
from vision_longformer.images.reader import (
    MAX_PIXELS,
    Array,
    ImageError,
    ImageInfo,
    Mask,
    PixelRows,
    UnsupportedError,
    Window,
    check_file,
    check_piece,
    identity,
)
from vision_longformer.images.values import full_depth, straight_colours, through_table

CACHE_MEGABYTES = 64  # of decoded blocks, in place of GDAL's share of all memory


class GeoReader:
    """Reads a raster by rows. Values without data, masked or fully transparent pixels are not valid.

    Indices into a table of colours become these. Values of a few bits are spread over their type (`full_depth`).

    `info.georeference` holds "crs", the coordinate reference system as WKT, and "transform", the six numbers
    (a, b, c, d, e, f) with x = a·column + b·row + c and y = d·column + e·row + f for the top left corner of a pixel.

    Args:
        path: Of the file.
        level: Of its overviews, 0 for full resolution.
        orientation: EXIF's, 1 to 8, that its rows are stored in.
        multiplied: Whether colours were multiplied by their opacity, and are to be divided by it.
        max_pixels: Refuse files whose tiles or strips, which are decoded at once, hold more.

    Raises:
        ImageError: The file is missing or damaged, has no such level, or its channels differ in type.
        ImportError: rasterio is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        level: int = 0,
        orientation: int = 1,
        multiplied: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.orientation = orientation
        try:
            import rasterio
        except ImportError as error:
            raise ImportError(f"{path}: reading it needs rasterio: pip install 'vision-longformer[geo]'") from error
        self._rasterio = rasterio
        self._environment = rasterio.Env(GDAL_CACHEMAX=CACHE_MEGABYTES)
        with image_errors(str(path), "raster"), self._environment, warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            check_file(path)
            self._file = rasterio.open(path)
            levels = 1 + len(self._file.overviews(1))
            if level >= levels:
                raise UnsupportedError(f"{path}: it has {levels} levels of resolution, and no number {level}")
            if level:
                self._file = rasterio.open(path, overview_level=level - 1)
            check_piece(str(path), self._file.block_shapes[0], max_pixels)
        alpha = rasterio.enums.ColorInterp.alpha
        kinds = dict(enumerate(self._file.colorinterp, start=1))
        self._bands = [band for band, kind in kinds.items() if kind != alpha]
        self._opacity = next((band for band, kind in kinds.items() if kind == alpha), None)
        self._multiplied = multiplied and self._opacity is not None
        self._white_is_zero = self._file.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
        self._colours = self._read_colours()
        self.info = self._describe(path)

    def _read_colours(self) -> Array | None:
        """Return the (N, 1) grays or (N, 3) colours that values stand for, or None."""
        if len(self._bands) != 1 or self._white_is_zero:  # for which rasterio makes up a table
            return None
        try:
            table = self._file.colormap(self._bands[0])
        except ValueError:
            return None
        colours = np.zeros((max(table) + 1, 3), np.uint8)
        for index, colour in table.items():
            colours[index] = colour[:3]
        return colours[:, :1] if (colours == colours[:, :1]).all() else colours

    def _describe(self, path: str | os.PathLike[str]) -> ImageInfo:
        file = self._file
        georeference: dict[str, Any] = {}
        if file.crs is not None:
            georeference = {"crs": file.crs.to_wkt(), "transform": list(file.transform)[:6]}
        kinds = {file.dtypes[band - 1] for band in self._bands}
        if len(kinds) != 1:
            raise ImageError(f"{path}: its channels differ in type ({', '.join(sorted(kinds))})")
        dtype = np.dtype(kinds.pop())
        self._bits = int(file.tags(self._bands[0], ns="IMAGE_STRUCTURE").get("NBITS", 8 * dtype.itemsize))
        return ImageInfo(
            name=str(path),
            height=file.height,
            width=file.width,
            channels=len(self._bands) if self._colours is None else self._colours.shape[1],
            dtype=dtype if self._colours is None else self._colours.dtype,
            preferred_rows=file.block_shapes[0][0],
            opacity=False,
            identity=identity(path),
            georeference=georeference,
        )

    def read_rows(self, top: int, bottom: int) -> PixelRows:
        """Return rows `top` to `bottom`. See `Reader`."""
        return self.read_window(Window(top, 0, bottom - top, self.info.width))

    def read_window(self, window: Window) -> PixelRows:
        """Return a part of the image, of which only the blocks that it touches are decoded."""
        place = self._rasterio.windows.Window(window.left, window.top, window.width, window.height)
        with image_errors(self.info.name), self._environment:
            values = self._file.read(self._bands, window=place)  # (C, n, w)
            opacity: NDArray[Any] | None = None  # (n, w)
            if self._opacity is not None:
                opacity = self._file.read(self._opacity, window=place)
            seen = self._seen(place)
            if self._colours is not None:
                rows = through_table(values[0], self._colours)  # (n, W, 1 or 3)
            else:
                rows = np.ascontiguousarray(np.moveaxis(values, 0, 2))
                if self._multiplied and opacity is not None:
                    rows = straight_colours(np.dstack([rows, opacity]))[..., :-1]
                rows = full_depth(rows, self._bits, white_is_zero=self._white_is_zero)
        if opacity is not None:
            seen &= opacity > 0 if seen.ndim == 2 else opacity[..., None] > 0
        return PixelRows(rows, None if seen.all() else seen)

    def _seen(self, window: Any) -> Mask:
        """Return which pixels there are, (n, W), or which values, (n, W, C), if each band says so for itself."""
        shared = self._rasterio.enums.MaskFlags.per_dataset in self._file.mask_flag_enums[self._bands[0] - 1]
        if shared or self._colours is not None:
            return np.asarray(self._file.read_masks(self._bands[0], window=window) > 0)
        return np.moveaxis(self._file.read_masks(self._bands, window=window) > 0, 0, 2)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def scaled_georeference(georeference: Mapping[str, Any], factors: tuple[float, float]) -> dict[str, Any]:
    """Return the georeference of a raster with the same top left corner and larger pixels.

    Args:
        georeference: As `GeoReader` gives it; empty if there is none, as then the result is.
        factors: By how much pixels are higher and wider.
    """
    if not georeference:
        return {}
    a, b, c, d, e, f = georeference["transform"]
    height, width = factors
    return {**georeference, "transform": [a * width, b * height, c, d * width, e * height, f]}


def turned_georeference(georeference: Mapping[str, Any], orientation: int, size: tuple[int, int]) -> dict[str, Any]:
    """Return the georeference of a raster that was turned and mirrored upright.

    Args:
        georeference: Of the raster as it is stored, as `GeoReader` gives it; empty if there is none, as then the
            result is.
        orientation: EXIF's, 1 to 8, that it is stored in.
        size: Its (height, width) once it is upright.
    """
    if not georeference:
        return {}
    a, b, c, d, e, f = georeference["transform"]
    height, width = size
    if orientation in (5, 6, 7, 8):  # the same corner, with rows for columns
        a, b, d, e = b, a, e, d
    if orientation in (3, 4, 7, 8):
        b, c, e, f = -b, c + b * height, -e, f + e * height
    if orientation in (2, 3, 6, 7):
        a, c, d, f = -a, c + a * width, -d, f + d * width
    return {**georeference, "transform": [a, b, c, d, e, f]}
