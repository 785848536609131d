"""Published accuracies: ImageNet-1K top-1 at 224×224 of models trained on ImageNet-1K alone, each with its source.

Models whose published figures have other conditions, such as pretraining on more images or 384×384, have none here.
"""

from __future__ import annotations

from dataclasses import dataclass

from vision_longformer.variants import CONFIGS, variant_of

VISION_LONGFORMER = "Zhang et al., ICCV 2021, https://arxiv.org/abs/2103.15358"
SWIN = "https://github.com/microsoft/Swin-Transformer"
CONVNEXT = "https://github.com/facebookresearch/ConvNeXt"
PVT = "https://github.com/whai362/PVT, classification"
RESNET = "Wightman et al., 2021, https://arxiv.org/abs/2110.00476"
RESOLUTION = 224


@dataclass(frozen=True)
class PublishedAccuracy:
    """An accuracy that others measured.

    Attributes:
        top1: In percent.
        source: Where it stands.
    """

    top1: float
    source: str


PEERS = {
    "swin_tiny_patch4_window7_224": PublishedAccuracy(81.2, SWIN),
    "swin_small_patch4_window7_224": PublishedAccuracy(83.2, SWIN),
    "swin_base_patch4_window7_224": PublishedAccuracy(83.5, SWIN),
    "convnext_tiny": PublishedAccuracy(82.1, CONVNEXT),
    "convnext_small": PublishedAccuracy(83.1, CONVNEXT),
    "convnext_base": PublishedAccuracy(83.8, CONVNEXT),
    "pvt_v2_b0": PublishedAccuracy(70.5, PVT),
    "pvt_v2_b1": PublishedAccuracy(78.7, PVT),
    "pvt_v2_b2": PublishedAccuracy(82.0, PVT),
    "pvt_v2_b3": PublishedAccuracy(83.1, PVT),
    "resnet50": PublishedAccuracy(80.4, RESNET),
}


def published_accuracy(model: str) -> PublishedAccuracy | None:
    """Return what was published of a model, by its name without a tag of weights; None if nothing fits."""
    if model not in CONFIGS:
        return PEERS.get(model)
    published = variant_of(model).published
    if published is None or published.image_size != RESOLUTION:
        return None
    top1 = published.top1_absolute if "_ape" in model else published.top1_relative
    return None if top1 is None else PublishedAccuracy(top1, VISION_LONGFORMER)
