"""A class for every pixel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from detection.cases import SIZES, backbone, batch_of, images, liven
from model_helpers import noise, relative_error
from vision_longformer.segmentation import SemanticConfig, SemanticFPN, build_semantic_fpn
from vision_longformer.segmentation.config import UNLABELLED
from vision_longformer.segmentation.semantic import enlarge

SETTINGS: dict[str, Any] = {"num_classes": 3, "pyramid_width": 14, "head_width": 8, "norm_groups": 2}


def build(dtype: torch.dtype = torch.float64, **settings: Any) -> SemanticFPN:
    model = build_semantic_fpn(backbone(dtype), **{**SETTINGS, **settings}).to(dtype)
    liven(model)
    return model.eval()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_logits_do_not_depend_on_the_batch(dtype: torch.dtype, tolerance: float) -> None:
    model, singles = build(dtype), images(dtype=dtype)
    with torch.no_grad():
        for extra in (0, 75):
            together = model.logits(batch_of(singles, extra=extra), torch.tensor(SIZES))
            assert together.shape == (len(SIZES), 3, 101 + extra, 130 + extra)
            for logits, single, (height, width) in zip(together, singles, SIZES, strict=True):
                assert relative_error(logits[:, :height, :width], model.logits(single[None])[0]) <= tolerance
                assert not logits[:, height:].any()
                assert not logits[:, :, width:].any()


def test_enlarging_is_linear_between_centres() -> None:
    """Each position becomes factor × factor pixels around its centre, so that classes are where they were seen."""
    x = torch.arange(6, dtype=torch.float64)[None, None, None].expand(1, 1, 4, 6)
    large = enlarge(x, 4, size=(15, 22))
    assert large.shape == (1, 1, 15, 22)
    centres = (torch.arange(22, dtype=torch.float64) + 0.5) / 4 - 0.5
    torch.testing.assert_close(large[0, 0, 3], centres.clamp(0, 5))


def test_the_loss_is_the_mean_over_real_pixels() -> None:
    model, singles = build(), images()
    labels = [(noise(*size, seed=number) * 2).long().clamp(-1, 1) + 1 for number, size in enumerate(SIZES)]
    labels[0][5:30, 7:40] = 255
    labels[2][:] = 255
    losses, counts = [], []
    for single, own in zip(singles, labels, strict=True):
        losses.append(F.cross_entropy(model.logits(single[None]), own[None], ignore_index=255, reduction="sum"))
        counts.append(int((own != 255).sum()))
    expected = torch.stack(losses).sum() / sum(counts)
    for extra in (0, 30):
        padded = batch_of([own.double() for own in labels], extra=extra, padding=-77.0).long()
        loss = model(batch_of(singles, extra=extra), SIZES, padded)["cross_entropy"]
        assert relative_error(loss, expected) <= 1e-12
    everything_ignored = model(batch_of(singles), SIZES, torch.full((5, 101, 130), 255))["cross_entropy"]
    assert everything_ignored == 0


def test_padding_changes_no_gradient() -> None:
    results = []
    for extra, padding in ((0, 0.0), (75, float("nan"))):
        model = build().train()
        labels = torch.zeros(5, 101 + extra, 130 + extra, dtype=torch.int64)
        model(batch_of(images(), extra=extra, padding=padding), SIZES, labels)["cross_entropy"].backward()
        results.append([parameter.grad for parameter in model.parameters()])
    for gradient, padded in zip(*results, strict=True):
        assert gradient is not None
        assert padded is not None
        assert (padded - gradient).abs().max() <= 1e-10 * gradient.abs().max()


def test_wrong_labels_are_named() -> None:
    model, pixels = build(), noise(2, 3, 20, 30)
    labels = torch.zeros(2, 20, 30, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"targets: expected class numbers of shape \(2, 20, 30\), got torch.float32"):
        model(pixels, None, labels.float())
    with pytest.raises(ValueError, match=r"targets: .* of shape \(2, 30, 20\)"):
        model(pixels, None, labels.transpose(1, 2))
    labels[1, 4, 7] = 3
    with pytest.raises(ValueError, match=r"targets\[1, 4, 7\]=3: must be a class number from 0 to 2, or 255 to be ign"):
        model(pixels, None, labels)
    model(pixels, [(20, 30), (20, 7)], labels)  # there, it is padding


def test_no_loss_is_taken_where_there_is_no_pixel_whatever_label_is_ignored() -> None:
    pixels, labels = noise(1, 3, 20, 30), torch.randint(0, 2, (1, 20, 30))
    missing = labels.clone()
    missing[0, :, 9:] = UNLABELLED
    ignored = torch.where(missing == UNLABELLED, 255, missing)
    expected = build()(pixels, None, ignored)["cross_entropy"]
    assert expected != build()(pixels, None, labels)["cross_entropy"]
    for label in (255, None):
        assert build(ignored_label=label)(pixels, None, missing)["cross_entropy"] == expected


def test_without_an_ignored_label_every_real_pixel_has_a_class() -> None:
    model, pixels = build(ignored_label=None), noise(1, 3, 20, 30)
    labels = torch.zeros(1, 20, 30, dtype=torch.int64)
    labels[0, :, 20:] = 255
    with pytest.raises(ValueError, match=r"targets\[0, 0, 20\]=255: must be a class number from 0 to 2$"):
        model(pixels, None, labels)
    assert model(pixels, [(20, 20)], labels)["cross_entropy"] > 0  # there, it is padding


def test_one_image_is_learned() -> None:
    torch.manual_seed(0)
    model = build_semantic_fpn(backbone(torch.float32), **SETTINGS).train()
    image, labels = noise(1, 3, 41, 64, dtype=torch.float32) * 0.1, torch.zeros(1, 41, 64, dtype=torch.int64)
    for number, (top, bottom, left, right) in enumerate(((4, 20, 10, 50), (24, 41, 40, 64)), start=1):
        image[:, :, top:bottom, left:right] += 3 * number - 4.5
        labels[:, top:bottom, left:right] = number
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(40):
        optimizer.zero_grad()
        model(image, None, labels)["cross_entropy"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    found = model.eval().logits(image).argmax(dim=1)
    for label in range(3):
        overlap = ((found == label) & (labels == label)).sum() / ((found == label) | (labels == label)).sum()
        assert overlap > 0.8


def test_every_backbone_of_timm_serves() -> None:
    model = build_semantic_fpn("resnet18", **SETTINGS).train()
    model(noise(2, 3, 50, 70, dtype=torch.float32), [(50, 70), (31, 9)], torch.ones(2, 50, 70).long())[
        "cross_entropy"
    ].backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_a_configuration_names_what_is_wrong() -> None:
    assert SemanticConfig(2, strides=[8, 16]).strides == (8, 16)  # type: ignore[arg-type]
    for change, message in (
        ({"num_classes": 0}, "num_classes=0: must be an integer of at least 1"),
        ({"strides": (4, 12)}, r"strides=\(4, 12\): each must be twice the one before"),
        ({"norm_groups": 3}, "norm_groups=3: must divide the head width 128"),
        ({"ignored_label": 1}, "ignored_label=1: must be null or an integer that is no class number, 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            SemanticConfig(**{"num_classes": 2, **change})  # type: ignore[arg-type]
