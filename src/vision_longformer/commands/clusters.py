"""`vil clusters`: groups among encoded images, on a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vision_longformer.commands.common import Arguments, UsageError
from vision_longformer.commands.terminal import complain, give
from vision_longformer.explore.clusters import NOISE, Clusters, find_clusters
from vision_longformer.explore.search import Index, index_folder
from vision_longformer.prediction.formats.tables import Row, write_csv
from vision_longformer.reports.clusters_page import write_clusters_page


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
        complain(f"{error.filename or folder}: cannot be written ({error.strerror})")
        return 1
    alone = int((found.labels == NOISE).sum())
    rest = f" and {alone} images that belong to none" if alone else ""
    about = {"images": len(index), "clusters": len(found.central), "in_none": alone, "page": str(folder / "index.html")}
    give(
        arguments, about, f"{len(index)} images: {len(found.central)} clusters{rest}. Look at {folder / 'index.html'}."
    )
    return 0


def _write_table(path: Path, index: Index, found: Clusters) -> None:
    def rows() -> Iterator[Row]:
        for image, cluster, (x, y) in zip(index.image_of, found.labels, found.places, strict=True):
            yield {
                "image": index.images[image],
                "cluster": int(cluster),
                "x": round(float(x), 5),
                "y": round(float(y), 5),
            }

    write_csv(path, rows, columns=("image", "cluster", "x", "y"))
