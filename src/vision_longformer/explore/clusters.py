"""Groups among encoded images, and a map of them: what a collection holds, before anybody labels it.

n images, F features
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vision_longformer.explore.probe import require_scikit_learn

Method = Literal["kmeans", "hdbscan"]
Layout = Literal["pca", "tsne", "umap"]
NOISE = -1  # the cluster of images that HDBSCAN gives none
COMPONENTS = 32  # of the features that groups and maps are made of: further ones are mostly noise
FEW = 3  # images, of which there is nothing to group


@dataclass(frozen=True)
class Clusters:
    """Groups, the largest first.

    Attributes:
        labels: (n,) the cluster of each image, from 0; `NOISE` for none.
        places: (n, 2) on a map, between 0 and 1, on which near images are alike.
        central: For each cluster its images, the most typical one first.
        method: How groups were found.
        layout: How the map was made.
    """

    labels: NDArray[np.int64]
    places: NDArray[np.float64]
    central: tuple[tuple[int, ...], ...]
    method: Method
    layout: Layout


def find_clusters(
    vectors: NDArray[np.floating],
    *,
    count: int | None = None,
    smallest: int = 5,
    layout: Layout = "pca",
    seed: int = 0,
) -> Clusters:
    """Group images, and lay them out.

    Args:
        vectors: (n, F) features of unit length, as an `Index` has them.
        count: How many groups k-means makes; None lets HDBSCAN find as many as there are, and what is in none.
        smallest: The fewest images of a group of HDBSCAN.
        layout: How the map is made: principal components, t-SNE, or UMAP, which is a package of its own.
        seed: Of what is random.

    Raises:
        ValueError: There are too few images.
        ImportError: scikit-learn, or UMAP, is not installed.
    """
    require_scikit_learn()
    from sklearn.cluster import HDBSCAN, KMeans
    from sklearn.decomposition import PCA

    if len(vectors) < max(FEW, count or 0):
        raise ValueError(f"{len(vectors)} images are too few for {count or 'any'} clusters")
    wide = np.asarray(vectors, np.float64)
    reduced = PCA(min(COMPONENTS, *wide.shape), random_state=seed).fit_transform(wide)
    if count is None:
        found = HDBSCAN(min_cluster_size=min(smallest, len(wide)), copy=True).fit_predict(reduced)
    else:
        found = KMeans(count, n_init=4, random_state=seed).fit_predict(reduced)
    labels = _largest_first(found)
    central = tuple(_most_typical_first(reduced, labels, label) for label in range(labels.max() + 1))
    return Clusters(labels, _places(reduced, layout, seed), central, "hdbscan" if count is None else "kmeans", layout)


def _largest_first(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Number clusters by size; noise stays noise."""
    names, sizes = np.unique(labels[labels != NOISE], return_counts=True)
    order = names[np.argsort(-sizes, kind="stable")]
    new = {int(name): number for number, name in enumerate(order)} | {NOISE: NOISE}
    return np.array([new[int(label)] for label in labels], np.int64)


def _most_typical_first(vectors: NDArray[np.float64], labels: NDArray[np.int64], label: int) -> tuple[int, ...]:
    members = np.flatnonzero(labels == label)
    distance = np.linalg.norm(vectors[members] - vectors[members].mean(0), axis=1)
    return tuple(int(image) for image in members[np.argsort(distance, kind="stable")])


def _places(vectors: NDArray[np.float64], layout: Layout, seed: int) -> NDArray[np.float64]:
    """Return (n, 2) places between 0 and 1."""
    if layout == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(vectors) - 1) / 3)
        flat = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(vectors)
    elif layout == "umap":
        try:
            from umap import UMAP
        except ImportError as error:
            raise ImportError("the layout umap needs umap-learn: pip install umap-learn") from error
        flat = UMAP(n_neighbors=min(15, len(vectors) - 1), random_state=seed).fit_transform(vectors)
    else:
        flat = vectors[:, :2] if vectors.shape[1] > 1 else np.pad(vectors, ((0, 0), (0, 1)))
    low, high = flat.min(0), flat.max(0)
    return np.asarray((flat - low) / np.maximum(high - low, 1e-12), np.float64)
