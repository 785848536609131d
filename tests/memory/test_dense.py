from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from detection.cases import mask_rcnn, retinanet
from vision_longformer.memory import dense
from vision_longformer.memory.activations import WORKSPACE_BYTES, StorageCounter
from vision_longformer.memory.dense import forecast_dense_memory
from vision_longformer.segmentation import build_semantic_fpn

SIZE = (192, 259)


def semantic() -> nn.Module:
    return build_semantic_fpn("vision_longformer_nano", num_classes=7, pyramid_width=16, head_width=8, norm_groups=4)


def tensors_of(model: nn.Module, size: tuple[int, int]) -> float:
    return forecast_dense_memory(model, size) / dense.MARGIN - WORKSPACE_BYTES


def measured(model: Any, size: tuple[int, int]) -> int:
    """Return the most bytes that tensors of a real pass hold at once."""
    images = torch.rand(1, 3, *size)
    with torch.no_grad(), StorageCounter(known=[*model.parameters(), *model.buffers()]) as counter:
        if hasattr(model, "detect"):
            model.detect(images * 1)
        else:
            model.logits(images * 1).argmax(dim=1)
        peak: int = counter.peak
    return peak


@pytest.mark.parametrize("kind", ["retinanet", "mask_rcnn", "semantic"])
def test_a_pass_holds_no_more_than_was_forecast(kind: str) -> None:
    models: dict[str, Any] = {
        "retinanet": lambda: retinanet(torch.float32, score_threshold=0.0, num_classes=23),
        "mask_rcnn": lambda: mask_rcnn(torch.float32, proposals=50, detections=20),
        "semantic": semantic,
    }
    model = models[kind]().eval()
    real = measured(model, SIZE)
    assert 0.4 * tensors_of(model, SIZE) < real < dense.MARGIN * tensors_of(model, SIZE)


def test_forecasts_grow_with_the_image_and_with_what_passes() -> None:
    model = retinanet(torch.float32)
    assert 3.5 < tensors_of(model, (384, 518)) / tensors_of(model, SIZE) < 4.5
    classes = {"num_classes": 200}
    all_pass = tensors_of(retinanet(torch.float32, score_threshold=0.0, **classes), SIZE)
    assert all_pass > 1.3 * tensors_of(retinanet(torch.float32, score_threshold=0.05, **classes), SIZE)


def test_holes_of_the_heap_are_allowed_for_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks from 32 MiB on leave none, so that the allowance stops to grow."""
    model, sizes = semantic(), (SIZE, (384, 518), (1200, 1600))
    forecasts = [forecast_dense_memory(model, size) for size in sizes]
    monkeypatch.setattr(dense, "HEAP_HOLES", 0)
    holes = [total - forecast_dense_memory(model, size) for total, size in zip(forecasts, sizes, strict=True)]
    assert 0 < 3 * holes[0] < holes[1]
    assert holes[2] <= dense.MARGIN * 1.5 * 2**25
    assert holes[2] > 0.25 * 2**25


def test_the_model_stays_as_it_is() -> None:
    model = mask_rcnn(torch.float32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    forecast_dense_memory(model, SIZE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.detect(torch.rand(1, 3, 40, 50))


def test_other_models_are_refused() -> None:
    with pytest.raises(TypeError, match="Conv2d is no detector"):
        forecast_dense_memory(nn.Conv2d(3, 4, 3), SIZE)
