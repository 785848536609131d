from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vil import main
from vision_longformer.explore.clusters import NOISE, find_clusters


def _clouds(sizes: tuple[int, ...], *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    return 5 * np.eye(12)[truth] + generator.normal(0, 0.3, (len(truth), 12)), truth


@pytest.mark.parametrize("count", [3, None])
def test_clouds_are_found_and_numbered_by_size(count: int | None) -> None:
    vectors, truth = _clouds((10, 30, 20))

    found = find_clusters(vectors, count=count)

    for label, cloud in enumerate((1, 2, 0)):
        assert set(found.labels[truth == cloud]) <= {label, NOISE}
    assert [len(members) for members in found.central] == sorted(map(len, found.central), reverse=True)


def test_images_unlike_all_others_belong_to_no_cluster() -> None:
    vectors, _ = _clouds((20, 20))
    far = np.random.default_rng(1).normal(0, 30, (2, 12))

    assert find_clusters(np.concatenate([vectors, far])).labels[-2:].tolist() == [NOISE, NOISE]


def test_the_most_typical_image_comes_first() -> None:
    vectors = np.concatenate([np.eye(6)[[0] * 5], np.eye(6)[[1] * 5]]) + 0.0
    vectors[2, 5] = 0.9  # an odd one

    [first, _] = find_clusters(vectors, count=2).central

    assert first[-1] == 2 or 2 not in first


@pytest.mark.parametrize("layout", ["pca", pytest.param("tsne", marks=pytest.mark.slow)])
def test_on_the_map_alike_images_are_near(layout: str) -> None:
    vectors, truth = _clouds((15, 15))

    places = find_clusters(vectors, count=2, layout=layout).places  # type: ignore[arg-type]

    assert places.min() == 0
    assert places.max() == 1
    apart = np.linalg.norm(places[truth == 0].mean(0) - places[truth == 1].mean(0))
    assert apart > 2 * max(places[truth == cloud].std(0).max() for cloud in (0, 1))


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="4 images are too few for 5 clusters"):
        find_clusters(np.eye(4), count=5)


@pytest.mark.slow
def test_from_images_to_a_page_and_a_table(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(6):
        colour = (200, 40, 40) if number % 2 else (40, 60, 200)
        pixels = np.clip(np.random.default_rng(number).normal(colour, 20, (40, 50, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    features, page = str(tmp_path / "features"), tmp_path / "page"
    assert main(["encode", str(tmp_path / "photos"), "--output", features, "--no-report"]) == 0

    arguments = ["--count", "2", "--images", str(tmp_path / "photos"), "--output", str(page)]
    assert main(["clusters", features, *arguments]) == 0

    with (page / "clusters.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["cluster"] for row in rows if int(row["image"][0]) % 2}) == 1
    assert len({row["cluster"] for row in rows}) == 2
    text = (page / "index.html").read_text()
    assert text.count("<circle") == 6
    assert text.count("<img") == 6


def test_a_folder_without_features_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clusters", str(tmp_path), "--output", str(tmp_path / "page")]) == 2
    assert "there are no features" in capsys.readouterr().err
