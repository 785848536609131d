"""A map as pictures for viewers such as napari: OME-Zarr images (version 0.5) of halved resolutions.

H×W map, h×w picture, n rows, C channels
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vision_longformer.features.formats.encoded import MapRows
from vision_longformer.features.formats.pyramid import Rows, create_levels, halved_sizes
from vision_longformer.images.thumbnails import ColourScale, fit_colours, principal_colours

VERSION = "0.5"  # of OME-Zarr, the newest one released
CHUNK = 256  # pixels of a side; even, so that chunks hold whole pairs of rows
SAMPLE_TOKENS = 1 << 14  # that colours are chosen by
SAMPLE_ROWS = 128
AXES = [
    {"name": "c", "type": "channel"},
    {"name": "y", "type": "space"},
    {"name": "x", "type": "space"},
]


class Pyramid:
    """Writes a map's colours at all resolutions, from top to bottom.

    Args:
        group: A Zarr group; level k becomes its array `str(k)`, (3, h, w) uint8.
        features: The map.
        compressors: Of the arrays.
    """

    def __init__(self, group: Any, features: MapRows, *, compressors: Any) -> None:
        self._scale = choose_colours(features)
        self.sizes = list(halved_sizes(features.shape[:2]))
        self._full = create_levels(
            group,
            (3, *features.shape[:2]),
            chunk=CHUNK,
            halve=_halved,
            dtype="uint8",
            compressors=compressors,
            axes=[axis["name"] for axis in AXES],
        )

    def add(self, tokens: Tensor, valid: Tensor | None) -> None:
        """Add the next (n, W, C) rows and which of their tokens are real."""
        self._full.add(principal_colours(tokens, valid, self._scale).cpu().numpy())

    def close(self) -> None:
        """Write what is left."""
        self._full.close()


def multiscale(name: str, *, path: str, levels: int, stride: int) -> dict[str, Any]:
    """Describe a pyramid as OME-Zarr does; a pixel of the encoded image is the unit of length.

    Args:
        name: For viewers.
        path: Of the pyramid's group, with a slash at its end; "" for the group that the description is put into.
        levels: How many resolutions there are.
        stride: Pixels of the image per token.
    """
    steps = [stride * 2**level for level in range(levels)]
    datasets = [
        {
            "path": f"{path}{level}",
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, float(step), float(step)]},
                {"type": "translation", "translation": [0.0, (step - 1) / 2, (step - 1) / 2]},  # centres of pixels
            ],
        }
        for level, step in enumerate(steps)
    ]
    about = {"description": "Mean of 2 × 2 pixels", "method": "torch.nn.functional.avg_pool2d"}
    return {"name": name, "axes": AXES, "datasets": datasets, "type": "mean", "metadata": about}


def image_attributes(multiscales: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the attributes of a group that viewers open as red, green and blue."""
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    colours = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
    channels = [{"label": label, "color": colour, "window": window, "active": True} for label, colour in colours]
    return {"ome": {"version": VERSION, "multiscales": multiscales, "omero": {"channels": channels}}}


def _halved(rows: Rows) -> Rows:
    """Halve an (h, w, 3) picture; at an odd edge fewer pixels are averaged."""
    means = F.avg_pool2d(torch.from_numpy(rows).permute(2, 0, 1)[None].float(), 2, ceil_mode=True)
    return means[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


def choose_colours(features: MapRows) -> ColourScale:
    """Choose colours by tokens spread evenly over the real part of a map."""
    valid = features.valid
    rows = torch.arange(features.shape[0]) if valid is None else valid.any(dim=1).nonzero()[:, 0].cpu()
    rows = _spread(rows, SAMPLE_ROWS)
    tokens = []
    for row in rows.tolist():
        found = features.read(row, row + 1)[0]  # (W, C)
        found = found if valid is None else found[valid[row]]
        tokens.append(_spread(found.cpu().float(), SAMPLE_TOKENS // len(rows)))
    return fit_colours(torch.cat(tokens))


def _spread(items: Tensor, most: int) -> Tensor:
    """Return at most `most` items, evenly spread."""
    if len(items) <= most:
        return items
    return items[torch.linspace(0, len(items) - 1, most).round().long()]
