"""How large a pixel of a microscope's image is, where its file says so."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tifffile

from vision_longformer.images.open import SLIDE_SUFFIXES

MICROMETRES = {
    "m": 1e6, "cm": 1e4, "mm": 1e3, "micron": 1.0, "microns": 1.0, "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0,
    "nm": 1e-3, "pixel": math.nan,
}  # fmt: skip
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, ZeroDivisionError, RuntimeError)


def read_pixel_size(path: str | os.PathLike[str]) -> tuple[float, float] | None:
    """Return the (height, width) of a pixel at full resolution in micrometres; None if the file does not say.

    OME-TIFF, ImageJ's TIFF and slides say. What other files call their resolution is meant for printers.
    """
    path = Path(path)
    found: tuple[float, float] | None = None
    with contextlib.suppress(*_UNREADABLE, ElementTree.ParseError, tifffile.TiffFileError):
        if path.suffix.lower() in SLIDE_SUFFIXES:
            found = _of_slide(path)
        elif path.suffix.lower() in (".tif", ".tiff", ".btf", ".tf8", ".tf2"):
            with tifffile.TiffFile(path) as file:
                found = _of_tiff(file)
    return found if found is not None and all(math.isfinite(side) and side > 0 for side in found) else None


def read_magnification(path: str | os.PathLike[str]) -> float | None:
    """Return the power of the objective that a slide was scanned with; None if the file does not say."""
    path = Path(path)
    found = 0.0
    if path.suffix.lower() in SLIDE_SUFFIXES:
        with contextlib.suppress(*_UNREADABLE, ImportError):
            import openslide

            with openslide.OpenSlide(path) as slide:
                found = float(slide.properties["openslide.objective-power"])
    return found if math.isfinite(found) and found > 0 else None


def _of_tiff(file: Any) -> tuple[float, float] | None:
    if file.is_ome:
        pixels = ElementTree.fromstring(file.ome_metadata).find(".//{*}Pixels")
        if pixels is None:
            return None
        height, width = (
            float(pixels.attrib[f"PhysicalSize{axis}"])
            * MICROMETRES[pixels.attrib.get(f"PhysicalSize{axis}Unit", "µm").lower()]
            for axis in "YX"
        )
        return height, width
    if file.is_imagej:
        scale = MICROMETRES[str((file.imagej_metadata or {}).get("unit", "")).lower()]
        tags = file.pages[0].tags
        (pixels_y, units_y), (pixels_x, units_x) = tags["YResolution"].value, tags["XResolution"].value
        return scale * units_y / pixels_y, scale * units_x / pixels_x
    return None


def _of_slide(path: Path) -> tuple[float, float] | None:
    try:
        import openslide
    except ImportError:
        return None
    with openslide.OpenSlide(path) as slide:
        return float(slide.properties["openslide.mpp-y"]), float(slide.properties["openslide.mpp-x"])
