"""Detectors by the name of their backbone, and the published ones.

Names of ours (`vision_longformer.list_models()`) and of timm are taken alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from vision_longformer.detection.config import MaskRCNNConfig, RetinaNetConfig
from vision_longformer.detection.mask_rcnn import MaskRCNN
from vision_longformer.detection.retinanet import RetinaNet
from vision_longformer.fpn.features import build_features

# Parameters of the published detectors for the 80 classes of COCO, in millions (paper, tables of section 4): Mask R-CNN
# and RetinaNet. They count a classifier of 1,000 classes that a detector does not use.
PUBLISHED_PARAMETERS = {
    "vision_longformer_tiny": (26.9, 16.64),
    "vision_longformer_small": (45.0, 35.68),
    "vision_longformer_medium_deep": (60.1, 50.77),
    "vision_longformer_base_deep": (76.1, 66.74),
}


def build_retinanet(
    backbone: str | nn.Module, *, num_classes: int, backbone_options: Mapping[str, Any] | None = None, **settings: Any
) -> RetinaNet:
    """Build RetinaNet, untrained.

    Args:
        backbone: See `fpn.features.build_features`.
        num_classes: Classes of objects.
        backbone_options: Further options of a backbone given by name, such as {"drop_path_rate": 0.1}.
        **settings: Fields of `RetinaNetConfig`.

    Raises:
        ValueError: There is no such backbone, or a setting has an impossible value.
        TypeError: There is no such setting.
    """
    config = RetinaNetConfig(num_classes, **settings)
    return RetinaNet(build_features(backbone, config.strides, options=backbone_options), config)


def build_mask_rcnn(
    backbone: str | nn.Module, *, num_classes: int, backbone_options: Mapping[str, Any] | None = None, **settings: Any
) -> MaskRCNN:
    """Build Mask R-CNN, untrained; arguments as for `build_retinanet`, settings are fields of `MaskRCNNConfig`.

    Raises:
        ValueError: There is no such backbone, or a setting has an impossible value.
        TypeError: There is no such setting.
    """
    config = MaskRCNNConfig(num_classes, **settings)
    return MaskRCNN(build_features(backbone, config.strides, options=backbone_options), config)
