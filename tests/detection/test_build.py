"""The published detectors."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import nn

from vision_longformer import VisionLongformer, create_model
from vision_longformer.detection import build_mask_rcnn, build_retinanet
from vision_longformer.detection.build import PUBLISHED_PARAMETERS


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_parameters_are_as_published(name: str) -> None:
    """To 1%, and less the classifier that the published detectors keep without use."""
    with torch.device("meta"):
        detectors: tuple[nn.Module, ...] = build_mask_rcnn(name, num_classes=80), build_retinanet(name, num_classes=80)
        classifier = cast(VisionLongformer, create_model(name)).get_classifier()
    unused = sum(parameter.numel() for parameter in classifier.parameters())
    assert unused == (385_000 if name.endswith("tiny") else 769_000)
    for detector, published in zip(detectors, PUBLISHED_PARAMETERS[name], strict=True):
        parameters = sum(parameter.numel() for parameter in detector.parameters())
        assert parameters == pytest.approx(published * 1e6 - unused, rel=0.01)


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="head_dept"):
        build_retinanet("vision_longformer_nano", num_classes=2, head_dept=3)
    with pytest.raises(TypeError, match="head_dept"):
        build_mask_rcnn("vision_longformer_nano", num_classes=2, head_dept=3)
