"""Maps of a backbone for dense prediction: of our models, or of any of timm's.

B images, C channels, H×W image or map

Backbones come without classifier and without final norm, so that every parameter serves the maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import timm
from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.backbone import VisionLongformer
from vision_longformer.fpn.simple_pyramid import SimplePyramid
from vision_longformer.padding import Size, find_level_paddings, size_at
from vision_longformer.registry import create_model
from vision_longformer.variants import list_models


class LongformerFeatures(nn.Module):
    """Maps of our own models, zero at padding; an image's maps do not depend on its batch.

    Args:
        model: It loses its classifier, its final norm and the stages after the last one that is used.
        strides: Of the maps, ascending.

    Attributes:
        strides: As given.
        channels: Of the map of each stride.

    Raises:
        ValueError: The model has no map of such a stride.
    """

    def __init__(self, model: VisionLongformer, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.stages = _numbers_of(self.strides, model.config.strides)
        self.channels = tuple(model.config.stages[stage].width for stage in self.stages)
        model.prune_intermediate_layers(self.stages, prune_norm=True, prune_head=True)
        self.model = model

    def forward(self, images: Tensor, image_sizes: Sequence[Size], valid: Tensor | None = None) -> list[Tensor]:
        """Return a (B, C, ⌈H/stride⌉, ⌈W/stride⌉) map for each stride.

        `valid` is (B, H, W), true where a pixel is real; by default all inside of `image_sizes` are.
        """
        padded = any(tuple(size) != tuple(images.shape[2:]) for size in image_sizes)
        return cast(
            list[Tensor],
            self.model.forward_intermediates(
                images,
                indices=self.stages,
                intermediates_only=True,
                image_sizes=image_sizes if padded else None,  # sizes as a tensor stop a pass on fake tensors
                valid=valid,
            ),
        )


class TimmFeatures(nn.Module):
    """Maps of a `features_only` model of timm.

    Images are padded with zeros, mean colour, to what the model takes: to a multiple of its largest stride, or to the
    one size it was built for. Such models see that padding, so an image's maps do depend on its batch. Where all
    maps have the same stride, as in a plain ViT, the last one becomes a pyramid (see `simple_pyramid`).

    Args:
        model: As `timm.create_model(name, features_only=True)` builds it.
        strides: Of the maps, ascending.

    Attributes:
        strides: As given.
        channels: Of the map of each stride.

    Raises:
        ValueError: The model has no map of such a stride.
    """

    def __init__(self, model: nn.Module, strides: Sequence[int]) -> None:
        super().__init__()
        info: Any = model.feature_info
        found, channels = list(info.reduction()), list(info.channels())
        self.model = model
        self.strides = tuple(strides)
        self.channels_last = "NHWC" in str(getattr(model, "output_fmt", ""))
        self.fixed_size: Size | None = None
        for module in model.modules():
            if getattr(module, "strict_img_size", False):
                self.fixed_size = cast(Any, module).img_size
        self.numbers: tuple[int, ...]
        self.pyramid = None
        if len(set(found)) == 1:
            self.pyramid = SimplePyramid(channels[-1], stride=found[-1], strides=self.strides)
            self.numbers, self.multiple = (len(found) - 1,), max(found[-1], *self.strides)
            self.channels = self.pyramid.channels
        else:
            self.numbers, self.multiple = _numbers_of(self.strides, found), max(found)
            self.channels = tuple(channels[number] for number in self.numbers)

    def forward(self, images: Tensor, image_sizes: Sequence[Size], valid: Tensor | None = None) -> list[Tensor]:
        """Return a (B, C, ⌈H/stride⌉, ⌈W/stride⌉) map for each stride; pixels that `valid` says are missing are zero.

        Raises:
            ValueError: The model is built for smaller images.
        """
        size = (images.shape[2], images.shape[3])
        (padding,) = find_level_paddings(image_sizes, [1], batch_size=size, device=images.device, valid=valid)
        maps = self.model(self._pad(padding.clean_planes(images)))
        maps = [maps[number].permute(0, 3, 1, 2) if self.channels_last else maps[number] for number in self.numbers]
        if self.pyramid is not None:
            maps = self.pyramid(maps[-1])
        sizes = [size_at(size, stride) for stride in self.strides]
        return [x[:, :, :height, :width].contiguous() for x, (height, width) in zip(maps, sizes, strict=True)]

    def _pad(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if self.fixed_size is None:
            return F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        if height > self.fixed_size[0] or width > self.fixed_size[1]:
            raise ValueError(
                f"images: this backbone is built for {self.fixed_size[0]}×{self.fixed_size[1]} pixels and cannot take "
                f"{height}×{width}: build it with img_size=(height, width) of the largest batch"
            )
        return F.pad(images, (0, self.fixed_size[1] - width, 0, self.fixed_size[0] - height))


Features = LongformerFeatures | TimmFeatures


def build_features(
    backbone: str | nn.Module, strides: Sequence[int], *, options: Mapping[str, Any] | None = None
) -> Features:
    """Build the backbone of a dense model.

    Args:
        backbone: A name of ours or of timm's; or a model: a `VisionLongformer`, whose head is taken off, or one of
            timm's built with `features_only=True`.
        strides: Of the maps that are wanted, ascending.
        options: Further ones of the backbone, such as {"drop_path_rate": 0.1} or {"img_size": 320}.

    Raises:
        ValueError: There is no such model, or it has no such maps.
    """
    if isinstance(backbone, str):
        options = dict(options or {})
        if backbone in list_models():
            backbone = create_model(backbone, num_classes=0, **options)
        elif timm.is_model(backbone):
            try:
                backbone = cast(nn.Module, timm.create_model(backbone, features_only=True, **options))
            except (AttributeError, RuntimeError, TypeError) as error:
                raise ValueError(f"backbone={backbone!r}: timm cannot build it with features_only ({error})") from error
        else:
            create_model(backbone)  # says which name is meant
    elif options:
        raise ValueError("options: are for a backbone given by name; this one is built already")
    if isinstance(backbone, VisionLongformer):
        return LongformerFeatures(backbone, strides)
    if not hasattr(backbone, "feature_info"):
        raise ValueError(
            f"backbone: {type(backbone).__name__} gives no maps: pass a name, a VisionLongformer, or a model of "
            "timm built with features_only=True"
        )
    return TimmFeatures(cast(nn.Module, backbone), strides)


def _numbers_of(strides: Sequence[int], found: Sequence[int]) -> tuple[int, ...]:
    missing = [stride for stride in strides if stride not in found]
    if missing:
        raise ValueError(f"strides={tuple(strides)}: the backbone has maps of strides {tuple(found)} only")
    return tuple(list(found).index(stride) for stride in strides)
