"""Label images as OME-Zarr (version 0.5), of halved resolutions, for viewers of large images such as napari.

H×W image, h×w level
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vision_longformer.features.formats.pyramid import create_levels, halved_sizes
from vision_longformer.features.formats.view import VERSION
from vision_longformer.prediction.formats.rows import shared_columns
from vision_longformer.prediction.results import ObjectsResult, RegionsResult

CHUNK = 512  # pixels of a side; even, so that chunks hold whole pairs of rows
COLOURED = 100_000  # objects beyond have no colour of their own: the description would be larger than the image
MISSING = "writing Zarr needs zarr: pip install 'vision-longformer[zarr]'"


def write_ome_zarr(folder: Path, result: RegionsResult) -> None:
    """Write a label image into an empty folder.

    Raises:
        ImportError: zarr is not installed.
        OSError: It cannot be written.
    """
    try:
        import zarr
    except ImportError as error:
        raise ImportError(MISSING) from error
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    compressors = [zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")]
    level = create_levels(
        group,
        result.image.size,
        chunk=CHUNK,
        halve=lambda rows: rows[::2, ::2],
        dtype=result.label_type,
        compressors=compressors,
        axes=["y", "x"],
    )
    height = result.image.size[0]
    for top in range(0, height, CHUNK):
        level.add(result.label_rows(top, min(top + CHUNK, height)))
    level.close()
    levels = len(list(halved_sizes(result.image.size)))
    about = {"version": VERSION, "multiscales": [_multiscale(result, levels)], "image-label": _labels(result)}
    group.attrs.update({"ome": about})


def _multiscale(result: RegionsResult, levels: int) -> dict[str, Any]:
    height, width = result.image.pixel_size or (1.0, 1.0)
    unit = {} if result.image.pixel_size is None else {"unit": "micrometer"}
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [height * 2**level, width * 2**level]},
                {"type": "translation", "translation": [height * (2**level - 1) / 2, width * (2**level - 1) / 2]},
            ],
        }
        for level in range(levels)
    ]
    axes = [{"name": name, "type": "space", **unit} for name in "yx"]
    about = {"description": "Every second pixel"}
    return {"name": result.image.name or "labels", "axes": axes, "datasets": datasets, "metadata": about}


def _labels(result: RegionsResult) -> dict[str, Any]:
    """Return the colours and the names of label values."""
    is_objects = isinstance(result, ObjectsResult)
    count = min(len(result), COLOURED) if isinstance(result, ObjectsResult) else len(result.class_names)
    colours, properties = [], []
    for number in range(count):
        value = number + is_objects
        shared = shared_columns(result, number)
        colours.append({"label-value": value, "rgba": [*result.colour(shared["class_number"]), 255]})
        named: dict[str, Any] = {key: shared[key] for key in ("class", "score") if key in shared}
        properties.append({"label-value": value, **named})
    described: dict[str, Any] = {"colors": colours, "properties": properties} if count else {}
    return {"version": VERSION, **described}
