from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vision_longformer import explore
from vision_longformer.explore import head, similarity
from vision_longformer.explore.head import (
    NotEnoughError,
    balance,
    cross_validate,
    fit_head,
    gather,
    next_uncertain,
    weigh,
)
from vision_longformer.explore.strokes import Stroke
from vision_longformer.explore.tokens import Explored
from vision_longformer.segmentation.token_grid import Region
from vision_longformer.segmentation.token_head import label_tokens, margins

from . import exploring
from .exploring import HALVES, dot


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Explored:
    found = exploring.opened(tmp_path_factory.mktemp("head")).explored
    assert found is not None
    return found


@pytest.mark.parametrize("strokes", [HALVES, (*HALVES, dot(2, 110, 75))])
def test_logits_are_those_of_a_logistic_regression_of_all_features_together(
    explored: Explored, strokes: tuple[Stroke, ...]
) -> None:
    fitted = fit_head([(explored, strokes)])

    samples = gather([(explored, strokes)], explored.scalers)
    factors = balance(explored.grid, len(strokes))
    model = LogisticRegression(C=head.WEAKEST, max_iter=head.ITERATIONS, tol=1e-3)
    model.fit(samples.features * factors, samples.labels, sample_weight=samples.weights)
    height, width = explored.grid.size
    rows, columns = np.divmod(np.arange(height * width), width)
    features = np.concatenate(
        [scaler(explored.grid.at(number, rows, columns)) for number, scaler in enumerate(explored.scalers)], axis=1
    )
    expected = model.decision_function(features * factors)
    found = fitted.head.on(explored.grid)(explored.grid.whole).reshape(height * width, -1)
    if expected.ndim == 1:
        np.testing.assert_allclose(found[:, 1] - found[:, 0], expected, atol=1e-4)
    else:
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_few_places_of_two_classes_tell_the_rest(explored: Explored) -> None:
    labels = label_tokens(fit_head([(explored, HALVES)]).head.on(explored.grid))

    middle = labels.shape[1] // 2
    assert (labels[:, : middle - 3] == 0).mean() > 0.97
    assert (labels[:, middle + 3 :] == 1).mean() > 0.97


def test_an_image_is_segmented_as_the_page_shows_it(explored: Explored) -> None:
    strokes = [dot(2, 30, 40), dot(2, 60, 110), dot(5, 150, 40), dot(5, 180, 110)]

    found = explore.segment(explored.features, strokes)

    fitted = fit_head([(explored, strokes)])
    shown = label_tokens(fitted.head.on(explored.grid))
    assert found.shape == exploring.SIZE
    rows, columns = np.indices(exploring.SIZE)
    np.testing.assert_array_equal(found, np.array([2, 5])[shown[rows // 3, columns // 3]])


def test_what_the_page_does_is_there_in_python() -> None:
    assert explore.similar is similarity.similar
    assert explore.search.Index is explore.Index
    assert explore.probe.fit(torch.eye(4), torch.tensor([0, 0, 1, 1])).weight.shape == (4, 2)


def test_classes_without_strokes_are_left_out(explored: Explored) -> None:
    strokes = [dot(1, 30, 40), dot(4, 150, 40)]

    fitted = fit_head([(explored, strokes)])

    assert fitted.numbers == (1, 4)
    assert set(label_tokens(fitted.head.on(explored.grid)).ravel().tolist()) == {0, 1}


def test_classes_weigh_the_same_and_so_do_the_strokes_of_a_class() -> None:
    labels, strokes = np.array([0, 0, 0, 0, 0, 1]), np.array([0, 0, 0, 0, 1, 2])

    assert weigh(labels, strokes).tolist() == [1 / 16] * 4 + [1 / 4, 1 / 2]


@pytest.mark.parametrize(("strokes", "power"), [(1, 1), (40, 1), (320, -1), (5000, -1)])
def test_coarse_stages_vary_less_while_there_are_few_strokes(explored: Explored, strokes: int, power: int) -> None:
    parts = np.split(balance(explored.grid, strokes), np.cumsum(explored.grid.channels)[:-1])

    shares = [float((part.astype(np.float64) ** 2).sum()) for part in parts]  # variances of whole stages
    finest = min(explored.grid.strides)
    assert shares == pytest.approx([(finest / stride) ** power for stride in explored.grid.strides], rel=1e-4)


def test_many_strokes_are_learned_from_by_fewer_tokens_each(
    explored: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "MOST_TOKENS", 4 * 10)
    wide = [dot(stroke.label, *stroke.points[0], 20) for stroke in HALVES]

    samples = gather([(explored, wide)], explored.scalers)

    assert np.bincount(samples.strokes).tolist() == [10] * 4


def test_strokes_over_several_images_are_learned_from_together(explored: Explored, tmp_path: Path) -> None:
    other = exploring.opened(tmp_path, seed=5).explored
    assert other is not None

    fitted = fit_head([(explored, HALVES[:2]), (other, HALVES[2:])])

    labels = label_tokens(fitted.head.on(explored.grid))
    assert labels[:, -20:].mean() > 0.9


def test_one_class_is_not_enough(explored: Explored) -> None:
    with pytest.raises(NotEnoughError, match="paint places of at least two classes"):
        fit_head([(explored, HALVES[:2])])
    with pytest.raises(NotEnoughError, match="at least two classes"):
        fit_head([(explored, ())])


def test_quality_is_measured_on_strokes_that_were_held_out(explored: Explored) -> None:
    good = cross_validate([(explored, HALVES)])
    # the strokes of the second class lie on both halves: whichever is held out, the other says the opposite
    misleading = (dot(0, 30, 40), dot(0, 60, 110), dot(1, 150, 40), dot(1, 90, 60))
    bad = cross_validate([(explored, misleading)])

    assert good.accuracy > 0.95
    assert good.strokes == 4
    assert min(good.iou) > 0.9
    assert bad.accuracy < 0.8


def test_quality_needs_two_strokes_of_every_class(explored: Explored) -> None:
    with pytest.raises(NotEnoughError, match="paint at least two of every class"):
        cross_validate([(explored, HALVES[:3])])


def test_the_next_uncertain_place_has_the_smallest_margin_and_others_follow(explored: Explored) -> None:
    logits = fit_head([(explored, HALVES)]).head.on(explored.grid)
    region = Region(5, 40, 10, 60)

    first = next_uncertain(logits, region)
    assert first is not None
    margin = margins(logits(region))
    assert margin[first[0] - 5, first[1] - 10] == margin.min()

    second = next_uncertain(logits, region, avoid=[first])
    assert second is not None
    assert max(abs(second[0] - first[0]), abs(second[1] - first[1])) > head.APART


def test_no_place_is_left_where_all_were_seen(explored: Explored) -> None:
    logits = fit_head([(explored, HALVES)]).head.on(explored.grid)

    assert next_uncertain(logits, Region(0, 3, 0, 3), avoid=[(1, 1)]) is None
