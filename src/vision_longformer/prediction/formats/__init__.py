"""Formats of results: a file or folder for each image, and tables of a whole run.

One module a format; `FORMATS` names what can be written of one image, `TABLES` what is put together of all.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from vision_longformer.prediction.formats import coco, geojson, gpkg, ome_zarr, rasters, tables, zoom
from vision_longformer.prediction.measures import ImageFacts
from vision_longformer.prediction.results import Kind, Result
from vision_longformer.utils.atomic_files import replacing_folder, replacing_from_folder

LABELS = "labels"  # the label image in the format that fits the image
LARGE = 400_000_000  # pixels beyond which a label image is OME-Zarr: no viewer opens one picture of so many
JPEG_SIDE = 65500  # pixels, the most that libjpeg writes
REGIONS: tuple[Kind, ...] = ("objects", "pixels")
TABLES = ("csv", "parquet", "coco")
FOR_PAGES = ("picture", "zoom")


@dataclass(frozen=True)
class Format:
    """A format of the result of one image.

    Attributes:
        suffix: Of its files; `save` knows it by this.
        kinds: Of results that it is for.
        write: Writes into a path that does not exist yet, or an empty folder.
        holds: A file by which a folder of this format is known; "" of a file.
        needs: A package that it needs, and the extra that brings it; "" for none.
        on_map: Whether it is for georeferenced images alone.
    """

    suffix: str
    kinds: tuple[Kind, ...]
    write: Callable[[Path, Any], None]
    holds: str = ""
    needs: str = ""
    extra: str = ""
    on_map: bool = False


def _write_picture(path: Path, result: Any) -> None:
    picture = result.plot()
    picture.thumbnail((JPEG_SIDE, JPEG_SIDE))  # larger ones alone shrink
    picture.save(path, format="JPEG", quality=90)


def _write_table(path: Path, result: Result, *, write: Callable[[Path, tables.Rows], None]) -> None:
    write(path, result.rows)


FORMATS: dict[str, Format] = {
    "geojson": Format(".geojson", REGIONS, geojson.write_geojson),
    "gpkg": Format(".gpkg", REGIONS, gpkg.write_gpkg, needs="pyogrio", extra="geo"),
    "png": Format(".png", ("pixels",), rasters.write_png),
    "tiff": Format(".tif", REGIONS, rasters.write_tiff),
    "geotiff": Format(".tif", REGIONS, rasters.write_geotiff, needs="rasterio", extra="geo", on_map=True),
    "zarr": Format(".zarr", REGIONS, ome_zarr.write_ome_zarr, holds="zarr.json", needs="zarr", extra="zarr"),
    "picture": Format(".jpg", REGIONS, _write_picture),
    "zoom": Format(".zoom", REGIONS, zoom.write_zoom, holds="index.html"),
    "csv": Format(".csv", ("objects", "pixels", "classes"), partial(_write_table, write=tables.write_csv)),
    "parquet": Format(
        ".parquet",
        ("objects", "pixels", "classes"),
        partial(_write_table, write=tables.write_parquet),
        needs="pyarrow",
        extra="tables",
    ),
    "coco": Format(".json", ("objects",), coco.write_coco),
}
DEFAULTS: dict[Literal["objects", "pixels"], tuple[str, ...]] = {
    "objects": ("geojson", "csv", "coco"),
    "pixels": (LABELS, "csv"),
}


def check_outputs(outputs: Sequence[str], kind: Kind) -> None:
    """Check that formats can be written here, of such results.

    Raises:
        ValueError: There is no such format, or it is not for such results.
        ImportError: A package is missing; the message says how to install it.
    """
    fit = [LABELS, *(name for name, form in FORMATS.items() if kind in form.kinds and name not in FOR_PAGES)]
    for name in outputs:
        if name not in fit:
            what = {"objects": "objects", "pixels": "classes of pixels", "classes": "classes"}[kind]
            raise ValueError(f"{name}: is no format of {what}; choose of {', '.join(fit)}")
        if name != LABELS:
            _check_installed(name, FORMATS[name])


def format_of(name: str, kind: Kind, image: ImageFacts) -> str:
    """Return the format that is meant by "labels" for an image; others as they are."""
    if name != LABELS:
        return name
    if image.size[0] * image.size[1] > LARGE:
        return "zarr"
    if image.georeference:
        return "geotiff"
    return "png" if kind == "pixels" else "tiff"


def write_result(path: Path, result: Result, *, format: str | None = None) -> Path:
    """Write the result of one image; see `Result.save`."""
    name = _by_suffix(path, result) if format is None else format
    if name == LABELS:
        name = format_of(name, result.kind, result.image)
    if name not in FORMATS or result.kind not in FORMATS[name].kinds:
        known = ", ".join(key for key, form in FORMATS.items() if result.kind in form.kinds)
        raise ValueError(f"format={name}: must be one of {known}")
    form = FORMATS[name]
    _check_installed(name, form)
    if form.holds:
        if path.is_dir() and any(path.iterdir()) and not (path / form.holds).is_file():
            raise FileExistsError(f"{path}: there is a folder of this name that holds something else")
        with replacing_folder(path) as temporary:
            form.write(temporary, result)
    else:
        with replacing_from_folder(path) as temporary:
            form.write(temporary, result)
    return path


def _by_suffix(path: Path, result: Result) -> str:
    suffix = {".jpeg": ".jpg", ".tiff": ".tif", ".json": ".json"}.get(path.suffix.lower(), path.suffix.lower())
    if suffix == ".tif" and result.image.georeference:
        return "geotiff"
    fit = {form.suffix: name for name, form in FORMATS.items() if result.kind in form.kinds and not form.on_map}
    if suffix not in fit:
        raise ValueError(f"{path}: its ending must be one of {', '.join(fit)}, or say which format it is")
    return fit[suffix]


def _check_installed(name: str, form: Format) -> None:
    if form.needs and importlib.util.find_spec(form.needs) is None:
        raise ImportError(f"{name}: needs {form.needs}: pip install 'vision-longformer[{form.extra}]'")
