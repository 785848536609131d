"""Object detection and instance segmentation on any of our backbones, or of timm's."""

from vision_longformer.detection.boxes import Detections, Target
from vision_longformer.detection.build import build_mask_rcnn, build_retinanet
from vision_longformer.detection.config import MaskRCNNConfig, RetinaNetConfig
from vision_longformer.detection.mask_rcnn import MaskRCNN
from vision_longformer.detection.retinanet import RetinaNet
from vision_longformer.fpn.features import build_features

__all__ = [
    "Detections",
    "MaskRCNN",
    "MaskRCNNConfig",
    "RetinaNet",
    "RetinaNetConfig",
    "Target",
    "build_features",
    "build_mask_rcnn",
    "build_retinanet",
]
