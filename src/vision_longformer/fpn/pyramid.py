"""A backbone and its feature pyramid.

B images, C channels, H×W image or map; C5 is a backbone's last map, P3 to P7 are a pyramid's maps of strides 8 to 128

The layers are torchvision's (Lin et al., Feature Pyramid Networks for Object Detection,
https://arxiv.org/abs/1612.03144). The forward pass is our own, as padding must stay invisible: maps are cleaned before
every 3×3 convolution. A position gets what the next coarser map holds at half its row and column, rounded down.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from vision_longformer.fpn.features import Features
from vision_longformer.fpn.strides import require_strides
from vision_longformer.padding import Padding, Size, find_level_paddings

# What follows the last map: two convolutions with stride 2 from C5 (RetinaNet), every second position of P5 (Mask
# R-CNN), or nothing.
Top = Literal["convolutions", "subsampled", "none"]


class FeaturePyramid(nn.Module):
    """Maps of equal width, each twice as coarse as the one before.

    Args:
        features: A backbone whose strides double from map to map.
        width: Channels of the maps.
        top: What follows the backbone's last map.

    Attributes:
        strides: Of the maps.
        out_channels: Of each map, as torchvision calls it.
    """

    def __init__(self, features: Features, *, width: int, top: Top) -> None:
        super().__init__()
        require_strides(features.strides)
        self.features = features
        self.fpn = FeaturePyramidNetwork(list(features.channels), width)
        self.top = top
        # Its own forward pass takes P5 in place of C5 wherever C5 happens to be as wide.
        self.extra = LastLevelP6P7(features.channels[-1], width) if top == "convolutions" else None
        last = features.strides[-1]
        more = {"convolutions": (2 * last, 4 * last), "subsampled": (2 * last,), "none": ()}[top]
        self.strides = (*features.strides, *more)
        self.out_channels = width

    def forward(
        self, images: Tensor, image_sizes: tuple[Size, ...], valid: Tensor | None = None
    ) -> tuple[list[Tensor], list[Padding]]:
        """Return a (B, width, ⌈H/stride⌉, ⌈W/stride⌉) map for each stride, and what of it is real.

        `valid` is (B, H, W), true where a pixel is real; by default all inside of `image_sizes` are.

        At padding, the maps hold numbers without meaning: clean or extend them before anything reads around itself.
        """
        size = (images.shape[2], images.shape[3])
        paddings = find_level_paddings(image_sizes, self.strides, batch_size=size, device=images.device, valid=valid)
        backbone_maps = self.features(images, image_sizes, valid)
        maps: list[Tensor] = []
        x = None
        for number in reversed(range(len(backbone_maps))):
            lateral = self.fpn.inner_blocks[number](paddings[number].clean_planes(backbone_maps[number]))
            x = lateral if x is None else lateral + _double(x, lateral)
            maps.insert(0, self.fpn.layer_blocks[number](paddings[number].clean_planes(x)))
        if self.extra is not None:
            last = len(backbone_maps)
            p6 = self.extra.p6(paddings[last - 1].clean_planes(backbone_maps[-1]))
            maps += [p6, self.extra.p7(paddings[last].clean_planes(F.relu(p6)))]
        elif self.top == "subsampled":
            maps.append(maps[-1][:, :, ::2, ::2])
        return maps, paddings


def _double(x: Tensor, like: Tensor) -> Tensor:
    """Repeat every position twice along both axes, and crop to the (height, width) of `like`."""
    return F.interpolate(x, scale_factor=2, mode="nearest")[:, :, : like.shape[2], : like.shape[3]]


def undecayed(backbone: FeaturePyramid) -> set[str]:
    """Return the names of a model's parameters that its backbone wants no weight decay of."""
    model: Any = backbone.features.model
    names = model.no_weight_decay() if hasattr(model, "no_weight_decay") else set()
    return {f"backbone.features.model.{name}" for name in names}
