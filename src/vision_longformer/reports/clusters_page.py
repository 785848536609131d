"""The page of clusters: a map of all images, and of each cluster its most typical ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vision_longformer.explore.clusters import NOISE, Clusters
from vision_longformer.images import read_rgb
from vision_longformer.images.thumbnails import Picture
from vision_longformer.prediction.colours import class_colour
from vision_longformer.reports.pages import write_page
from vision_longformer.reports.pictures import encode, read_photo

TYPICAL = 8  # images that are shown of a cluster
SHOWN = 60  # clusters
THUMBNAIL = 160  # pixels of the longer side
DOTS = 20_000  # on the map at most
SIZE, MARGIN = (960, 620), 14
METHODS = {"kmeans": "k-means", "hdbscan": "HDBSCAN"}
LAYOUTS = {"pca": "first two principal components", "tsne": "t-SNE", "umap": "UMAP"}


def write_clusters_page(target: Path, found: Clusters, names: Sequence[str], root: Path | None) -> None:
    """Write the page.

    Args:
        target: The page.
        found: The clusters.
        names: Of the images.
        root: Where the images are; None shows names alone.

    Raises:
        OSError: The disk is full, or the place cannot be written.
    """
    shown = {
        "title": f"Clusters of {len(names):,} images",
        "method": METHODS[found.method],
        "layout": LAYOUTS[found.layout],
        "size": SIZE,
        "dots": list(_dots(found, names)),
        "left_out": max(0, len(names) - DOTS),
        "clusters": [_cluster(number, members, names, root) for number, members in enumerate(found.central[:SHOWN])],
        "more": len(found.central) - SHOWN,
        "alone": int((found.labels == NOISE).sum()),
        "without": root is None,
    }
    write_page(target, "clusters.html", shown)


def _dots(found: Clusters, names: Sequence[str]) -> Any:
    width, height = (side - 2 * MARGIN for side in SIZE)
    step = max(1, -(-len(names) // DOTS))
    for number in range(0, len(names), step):
        x, y = found.places[number]
        label = int(found.labels[number])
        yield MARGIN + x * width, MARGIN + (1 - y) * height, _colour(label), names[number], label


def _colour(label: int) -> str:
    if label == NOISE:
        return "#9aa0a6"
    red, green, blue = class_colour(label)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _cluster(number: int, members: Sequence[int], names: Sequence[str], root: Path | None) -> dict[str, Any]:
    pictures = [(names[member], _picture(names[member], root)) for member in members[:TYPICAL]]
    return {"number": number, "colour": _colour(number), "count": len(members), "pictures": pictures}


def _picture(name: str, root: Path | None) -> Picture | None:
    if root is None or not (root / name).exists():
        return None
    photo = read_photo(partial(read_rgb, root / name), side=THUMBNAIL)
    return None if photo is None else encode(photo)
