from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from vision_longformer.explore.similarity import RegionOptions, Similarity, regions, similar
from vision_longformer.explore.tokens import Explored
from vision_longformer.features.load import load_features
from vision_longformer.segmentation.token_grid import Region

from . import exploring


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Explored:
    found = exploring.opened(tmp_path_factory.mktemp("similar")).explored
    assert found is not None
    return found


def _standardised(explored: Explored, number: int) -> torch.Tensor:
    """Return a stage's (C, H, W) features, standardised over the image."""
    values = explored.features.maps[number].tensor().double()
    flat = values.flatten(1)
    return (values - flat.mean(1)[:, None, None]) / flat.std(1, correction=0)[:, None, None]


def test_similarity_is_the_cosine_of_standardised_features_to_those_of_the_point(explored: Explored) -> None:
    found = similar(explored, (100.5, 61.0), stage=1)

    features = _standardised(explored, 0)
    query = features[:, 61 // 3, 100 // 3]
    expected = F.cosine_similarity(features, query[:, None, None], dim=0)
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-4)
    assert found[61 // 3, 100 // 3] == pytest.approx(1, abs=1e-5)


def test_points_are_averaged_and_those_against_taken_away(explored: Explored) -> None:
    one, two, three = (similar(explored, point) for point in ((10.0, 10.0), (20.0, 90.0), (180.0, 50.0)))

    found = similar(explored, [(10.0, 10.0), (20.0, 90.0)], against=[(180.0, 50.0)])

    np.testing.assert_allclose(found, (one + two) / 2 - three, atol=1e-5)


def test_all_stages_together_are_the_average_of_each_on_the_finest_grid(explored: Explored) -> None:
    each = [similar(explored, (33.0, 44.0), stage=stage) for stage in explored.stages]

    np.testing.assert_allclose(similar(explored, (33.0, 44.0)), np.mean(each, axis=0), atol=1e-5)


def test_what_looks_alike_is_alike(explored: Explored) -> None:
    found = similar(explored, (30.0, 70.0))

    width = found.shape[1]
    assert found[:, : width // 2 - 4].mean() > found[:, width // 2 + 4 :].mean() + 0.2


def test_a_region_is_the_same_part_of_the_whole_bit_for_bit(explored: Explored) -> None:
    similarity = Similarity(explored, [(30.0, 70.0)], against=[(200.0, 10.0)])

    whole = similarity.whole()

    np.testing.assert_array_equal(similarity(Region(7, 31, 40, 71)), whole[7:31, 40:71])


@pytest.mark.parametrize("kind", ["safetensors", "zarr"])
def test_features_of_any_format_are_read_in_parts_and_pixels_that_are_missing_are_nowhere_alike(
    tmp_path: Path, kind: str
) -> None:
    pixels = exploring.picture(size=(60, 90))
    opacity = np.full((60, 90, 1), 255, np.uint8)
    opacity[:, 45:] = 0
    Image.fromarray(np.concatenate([pixels, opacity], axis=2)).save(tmp_path / "half.png")
    path = exploring.encode(tmp_path / "half.png", tmp_path, exploring.model(), kind=kind)

    found = similar(load_features(path), (10.0, 10.0))

    assert np.isnan(found[:, 15:]).all()
    assert not np.isnan(found[:, :15]).any()


def test_regions_connect_over_sides_and_small_ones_are_left_out() -> None:
    values = np.array([[0.9, 0.1, 0.8], [0.9, 0.1, 0.2], [0.1, 0.7, np.nan]], np.float32)

    found = regions(values, RegionOptions(0.6))
    large = regions(values, RegionOptions(0.6, min_tokens=2))

    assert found.number == 3
    assert found.areas.tolist() == [2, 1, 1]
    assert large.number == 1
    assert large.labels.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_a_stage_that_is_not_stored_and_no_points_are_refused(explored: Explored) -> None:
    with pytest.raises(ValueError, match="stage=7: the features hold stages 1, 2, 3, 4"):
        similar(explored, (1.0, 1.0), stage=7)
    with pytest.raises(ValueError, match="points: give at least one to be alike"):
        similar(explored, [])
