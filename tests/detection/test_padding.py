"""An image gets the detections and losses that it gets alone, whatever it is in a batch with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from detection.cases import DETECTORS, SIZES, batch_of, images, mask_rcnn, retinanet, targets
from model_helpers import relative_error
from vision_longformer.detection import Detections

# Largest errors of boxes in pixels, of scores, and of mask probabilities.
TOLERANCES = [(torch.float32, (0.01, 1e-4, 2e-3)), (torch.float64, (1e-8, 1e-10, 1e-8))]


def assert_same(found: Detections, expected: Detections, tolerances: tuple[float, float, float]) -> None:
    """Compare detections one to one; those of nearly equal scores may stand in another order."""
    box, score, mask = tolerances
    assert len(found.boxes) == len(expected.boxes)
    same = (found.boxes[:, None] - expected.boxes).abs().amax(dim=2) <= box
    same &= (found.scores[:, None] - expected.scores).abs() <= score
    same &= found.labels[:, None] == expected.labels
    if found.masks is not None and expected.masks is not None:
        same &= (found.masks[:, None] - expected.masks).abs().amax(dim=(2, 3)) <= mask
    assert same.any(dim=0).all()
    assert same.any(dim=1).all()


@pytest.mark.parametrize(("dtype", "tolerances"), TOLERANCES)
@pytest.mark.parametrize("name", DETECTORS)
def test_detections_do_not_depend_on_the_batch(
    name: str, dtype: torch.dtype, tolerances: tuple[float, float, float]
) -> None:
    model, singles = DETECTORS[name](dtype), images(dtype=dtype)
    alone = [model.detect(single[None])[0] for single in singles]
    for found in alone[:4]:
        assert len(found.boxes) >= 20
        assert len(found.labels.unique()) >= 2
        assert found.scores.max() - found.scores.min() > 0.1
    order = [3, 0, 4, 2, 1]
    sizes = [SIZES[number] for number in order]
    shuffled = batch_of([singles[number] for number in order])
    far = batch_of([singles[number] for number in order], extra=75)
    for batch, image_sizes in ((shuffled, sizes), (far, torch.tensor(sizes))):
        for number, found in zip(order, model.detect(batch, image_sizes), strict=True):
            assert_same(found, alone[number], tolerances)


@pytest.mark.parametrize("name", DETECTORS)
def test_detections_lie_in_their_image(name: str) -> None:
    model = DETECTORS[name]()
    for found, (height, width) in zip(model.detect(batch_of(images()), SIZES), SIZES, strict=True):
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([width, height, width, height])).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert ((found.labels >= 0) & (found.labels < 3)).all()
        assert (found.scores.diff() <= 0).all()
        assert len(found.boxes) <= 100
        assert (found.masks is None) == (name == "retinanet")
        if found.masks is not None:
            assert found.masks.shape == (len(found.boxes), 12, 12)
            assert ((found.masks >= 0) & (found.masks <= 1)).all()


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_no_loss_and_no_gradient(name: str, training: bool) -> None:
    results: list[tuple[dict[str, torch.Tensor], list[Any]]] = []
    for extra, padding in ((0, 0.0), (75, float("nan"))):
        model = DETECTORS[name]().train(training)
        torch.manual_seed(5)  # samples of anchors and proposals are drawn
        losses = model(batch_of(images(), extra=extra, padding=padding), SIZES, targets())
        torch.stack(list(losses.values())).sum().backward()
        results.append((losses, [parameter.grad for parameter in model.parameters()]))
    (losses, gradients), (padded_losses, padded_gradients) = results
    for key, loss in losses.items():
        assert loss.ndim == 0
        assert loss > 0
        assert relative_error(padded_losses[key], loss) <= 1e-10
    for gradient, padded in zip(gradients, padded_gradients, strict=True):
        assert (gradient is None) == (padded is None)
        if gradient is not None:
            assert (padded - gradient).abs().max() <= 1e-8 * gradient.abs().max()


def test_a_retinanet_loss_is_the_mean_over_images_alone() -> None:
    model, singles, known = retinanet(), images(), targets()
    together = model(batch_of(singles), SIZES, known)
    alone = [model(single[None], None, [target]) for single, target in zip(singles, known, strict=True)]
    for key, loss in together.items():
        mean = torch.stack([losses[key] for losses in alone]).mean()
        assert relative_error(loss, mean) <= 1e-12


def test_a_mask_rcnn_loss_is_the_mean_over_images_alone_weighted_by_their_samples() -> None:
    """Where samples take all there is, so that nothing is random."""
    sizes = ((61, 50), (37, 64))
    model, singles, known = mask_rcnn(proposals=20), images(sizes), targets(((61, 50), (9, 9), (37, 64)))[::2]
    model.rpn.fg_bg_sampler.batch_size_per_image = 10**6
    model.roi_heads.fg_bg_sampler.batch_size_per_image = 10**6
    weights: dict[str, list[float]] = {"proposals": [], "classification": []}
    alone = []
    for single, size, target in zip(singles, sizes, known, strict=True):
        maps, paddings = model.backbone(single[None], (size,))
        candidates = model.rpn(maps, paddings, image_sizes=(size,), strides=model.backbone.strides)
        anchor_labels, _ = model.rpn.assign_targets_to_anchors([candidates[0].anchors], [{"boxes": target.boxes}])
        weights["proposals"].append(float((anchor_labels[0] >= 0).sum()))
        weights["classification"].append(len(model.rpn.propose(candidates, [size])[0]) + len(target.boxes))
        alone.append(model(single[None], None, [target]))
    together = model(batch_of(singles), sizes, known)
    for key, kind in (
        ("proposals", "proposals"),
        ("proposal_boxes", "proposals"),
        ("classification", "classification"),
        ("boxes", "classification"),
    ):
        weight = torch.tensor(weights[kind]).double()
        mean = (torch.stack([losses[key] for losses in alone]) * weight).sum() / weight.sum()
        assert relative_error(together[key], mean) <= 1e-10
