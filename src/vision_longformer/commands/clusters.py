"""`vil clusters`: groups among encoded images, on a page."""

from __future__ import annotations

import csv
from pathlib import Path

from vision_longformer.commands.common import Arguments, UsageError, tell
from vision_longformer.explore.clusters import NOISE, Clusters, find_clusters
from vision_longformer.explore.search import Index, index_folder
from vision_longformer.reports.clusters_page import write_clusters_page
from vision_longformer.utils.atomic_files import replacing


def run(arguments: Arguments) -> int:
    for name in ("count", "smallest"):
        if arguments[name] is not None and arguments[name] < 2:
            raise UsageError(f"--{name} {arguments[name]}: must be at least 2")
    folder = Path(arguments.output)
    try:
        index = index_folder(arguments.features)
        found = find_clusters(
            index.vectors, count=arguments.count, smallest=arguments.smallest, layout=arguments.layout, seed=0
        )
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(str(error)) from error
    names = [index.images[number] for number in index.image_of]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_table(folder / "clusters.csv", index, found)
        write_clusters_page(folder / "index.html", found, names, Path(arguments.images) if arguments.images else None)
    except OSError as error:
        tell(f"{error.filename or folder}: cannot be written ({error.strerror})")
        return 1
    alone = int((found.labels == NOISE).sum())
    rest = f" and {alone} images that belong to none" if alone else ""
    print(f"{len(index)} images: {len(found.central)} clusters{rest}. Look at {folder / 'index.html'}.")
    return 0


def _write_table(path: Path, index: Index, found: Clusters) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "cluster", "x", "y"))
        for number, image in enumerate(index.image_of):
            x, y = found.places[number]
            writer.writerow((index.images[image], int(found.labels[number]), f"{x:.5f}", f"{y:.5f}"))
