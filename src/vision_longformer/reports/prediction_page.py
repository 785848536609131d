"""The page of a run of `vil predict`, index.html: what was found, on pictures with their legend beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from vision_longformer.features.failures import explaining
from vision_longformer.images.thumbnails import Picture
from vision_longformer.prediction.colours import class_colour, pixel_class_colour
from vision_longformer.prediction.journal import Entry
from vision_longformer.prediction.run import PredictionRun, found_of
from vision_longformer.reports.pages import write_page
from vision_longformer.reports.pictures import encode
from vision_longformer.utils.words import counted

FULL_IMAGES = 12  # up to here pictures are large; a page of more images shows smaller ones
LARGE_SIDE, SMALL_SIDE = 1000, 320  # pixels
MAX_PICTURED = 200  # images beyond are only listed
MAX_LISTED = 2000  # the tables have all
PICTURE_BYTES = 400_000
FILES = ("geojson", "gpkg", "labels", "png", "tiff", "geotiff", "zarr")


def write_prediction_page(run: PredictionRun, *, title: str) -> Path:
    """Write the page of all images that are done.

    Args:
        run: The run.
        title: Name of the weights.

    Returns:
        Its path.

    Raises:
        OutputError: It cannot be written.
    """
    target = run.output / "index.html"
    names = run.predictor.class_names
    is_objects = run.predictor.trained.gives == "objects"
    totals, done, failed = [0] * len(names), 0, 0
    for entry in run.journal.entries():
        if "error" in entry:
            failed += 1
            continue
        done += 1
        totals = [total + count for total, count in zip(totals, found_of(entry, len(names)), strict=True)]
    colours = [(class_colour if is_objects else pixel_class_colour)(number) for number in range(len(names))]
    shown = {
        "title": title,
        "summary": _summary(done, failed, sum(totals) if is_objects else None),
        "classes": list(zip(names, colours, _amounts(totals, is_objects), strict=True)),
        "is_objects": is_objects,
        "is_large": done <= FULL_IMAGES,
        "max_pictured": MAX_PICTURED if done > MAX_PICTURED else None,
        "pictured": _pictured(run, colours, side=LARGE_SIDE if done <= FULL_IMAGES else SMALL_SIDE),
        "listed": _listed(run),
        "more_listed": max(0, done + failed - MAX_LISTED),
        "tables": [path.name for path in sorted(run.output.glob("*.*")) if path.suffix in (".csv", ".parquet")],
    }
    with explaining(target):
        write_page(target, "predictions.html", shown)
    return target


def _pictured(
    run: PredictionRun, colours: list[tuple[int, int, int]], *, side: int
) -> Iterator[tuple[Entry, Picture, str, list[Any]]]:
    """Yield images, each with its picture, the address of a larger one, and its legend."""
    names, pictured = run.predictor.class_names, 0
    for entry in run.journal.entries():
        if "error" in entry or pictured == MAX_PICTURED:
            continue
        path = run.target("picture", entry)
        with contextlib.suppress(OSError), Image.open(path) as image:
            image.draft("RGB", (side, side))
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
            picture = encode(image.convert("RGB"), max_bytes=PICTURE_BYTES)
            found = found_of(entry, len(names))
            amounts = _amounts(found, entry["kind"] == "objects")
            legend = [
                (name, colour, amount)
                for name, colour, amount, count in zip(names, colours, amounts, found, strict=True)
                if count
            ]
            pictured += 1
            zoom = run.target("zoom", entry) / "index.html"
            yield entry, picture, _address(zoom if zoom.is_file() else path, run.output), legend


def _listed(run: PredictionRun) -> Iterator[dict[str, Any]]:
    """Yield the first images with their files, and what went wrong."""
    for number, entry in enumerate(run.journal.entries()):
        if number == MAX_LISTED:
            return
        if "error" in entry:
            yield {"name": entry["name"], "error": entry["error"], "cells": [], "files": []}
            continue
        height, width = entry["size"]
        looked = "streamed" if entry["streamed"] else counted(entry["tiles"], "tile") if entry["tiles"] > 1 else "whole"
        cells = [f"{width} × {height}", looked]
        if entry["kind"] == "objects":
            cells.append(f"{len(entry['rows']):,}")
        targets = {name: run.target(name, entry) for name in FILES}
        files = {path: name for name, path in targets.items() if path.exists()}
        addresses = [(name, _address(path, run.output)) for path, name in files.items()]
        yield {"name": entry["name"], "error": "", "cells": cells, "files": addresses}


def _amounts(found: Iterable[int], is_objects: bool) -> list[str]:
    counts = list(found)
    if is_objects:
        return [f"{count:,}" for count in counts]
    total = sum(counts) or 1
    return [f"{100 * count / total:.1f}%" for count in counts]


def _summary(done: int, failed: int, objects: int | None) -> str:
    text = counted(done, "image")
    text += "" if objects is None else f", {counted(objects, 'object')}"
    return text + (f"; {counted(failed, 'image')} failed." if failed else ".")


def _address(path: Path, output: Path) -> str:
    return quote(path.relative_to(output).as_posix(), errors="surrogateescape")
