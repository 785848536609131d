"""What timm calls on a model, beside its forward pass.

B batch, H×W map or image, C channels
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, cast

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models._features import feature_take_indices
from timm.models._input import update_model_args, update_model_input_size
from torch import Tensor, nn

from vision_longformer.attention import FullAttention, LinformerAttention, WindowedAttention
from vision_longformer.attention.position import INIT_STD, AbsolutePosition
from vision_longformer.config import GlobalPool, ModelConfig, Neighbours, Windowed
from vision_longformer.padding import find_image_padding


class TimmInterface(nn.Module):
    """A mixin for a pyramid of stages.

    Attributes:
        config: As built, and as changed since by `reset_classifier`, `set_input_size` and `set_neighbours`.
        pretrained_cfg: timm's description of the model; set by timm and by `load`.
        default_cfg: The same, under timm's older name.
        feature_info: timm's description of each stage's map.
        maps: Modules that are each shown a stage's map, (B, C, H, W): for `feature_cls="hook"` and "fx" of timm, and
            torchvision's `create_feature_extractor`, which know maps by the names of modules.
    """

    output_fmt = "NHWC"
    pretrained_cfg: dict[str, Any]
    default_cfg: dict[str, Any]
    config: ModelConfig
    stages: nn.ModuleList
    maps: nn.ModuleList
    norm: nn.Module
    head: nn.Module
    num_features: int
    head_hidden_size: int
    feature_info: list[dict[str, Any]]

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier; 0 without one."""
        return self.config.num_classes

    @property
    def in_chans(self) -> int:
        """Channels of the input image."""
        return self.config.in_chans

    @property
    def global_pool(self) -> GlobalPool:
        """What the head pools."""
        return self.config.global_pool

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NHWC"] = "NCHW",
        intermediates_only: bool = False,
        return_prefix_tokens: bool = False,
        image_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Any:
        """Return the maps of several stages, zero at padding.

        Args:
            images: (B, in_chans, H, W).
            indices: Stages, counted from 0; an integer n means the last n; None means all.
            norm: Normalise the last stage's map, as `forward_features` does.
            stop_early: Do not run stages after the last one asked for.
            output_fmt: Layout of the maps.
            intermediates_only: Return the list alone.
            return_prefix_tokens: Return (map, global tokens) for each stage.
            image_sizes: (height, width) of the real part of each image.
            valid: (B, H, W), true where a pixel is real.

        Returns:
            A list with a map for each stage; unless `intermediates_only`, a tuple of `forward_features`' result
            (after `stop_early`, the map of the last stage that ran) and that list.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt={output_fmt!r}: must be 'NCHW' or 'NHWC'")
        wanted, last_wanted = feature_take_indices(len(self.stages), indices)
        stages = self.stages[: last_wanted + 1] if stop_early else self.stages
        padding = find_image_padding(images, image_sizes, valid, in_chans=self.in_chans)
        x, intermediates = images.permute(0, 2, 3, 1), []
        final = x
        for number, stage in enumerate(stages):
            x, global_tokens, padding = stage(x, padding)
            final, taken, taken_tokens = x, x, global_tokens
            if number == len(self.config.stages) - 1:
                final, final_tokens = padding.clean(self.norm(x)), self.norm(global_tokens)
                if norm:
                    taken, taken_tokens = final, final_tokens
            if number in wanted:
                taken = taken.permute(0, 3, 1, 2).contiguous() if output_fmt == "NCHW" else taken
                intermediates.append((taken, taken_tokens) if return_prefix_tokens else taken)
        return intermediates if intermediates_only else (final, intermediates)

    def set_neighbours(self, neighbours: Neighbours) -> None:
        """Choose the chunks that windowed layers see from now on; random shifting ends with "all" (section 3.3).

        Raises:
            ValueError: A stage's window shape does not go with `neighbours`.
        """
        stages = tuple(
            dataclasses.replace(stage, attention=dataclasses.replace(stage.attention, neighbours=neighbours))
            if isinstance(stage.attention, Windowed)
            else stage
            for stage in self.config.stages
        )
        self.config = dataclasses.replace(self.config, stages=stages)
        update_model_args(self, model_config=self.config.to_dict())
        for module in self.modules():
            if isinstance(module, WindowedAttention):
                module.neighbours = neighbours

    def set_input_size(self, img_size: int | tuple[int, int] | None = None, patch_size: int | None = None) -> None:
        """Resize position tables to another image size. Only needed for training at that size: any size works.

        Raises:
            ValueError: `patch_size`, which timm may pass, is not the model's.
        """
        if patch_size is not None and patch_size != self.config.stages[0].patch_size:
            raise ValueError(f"patch_size={patch_size!r}: must stay {self.config.stages[0].patch_size}, or be None")
        if img_size is None:
            return
        size = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.config = dataclasses.replace(self.config, image_size=size)
        update_model_input_size(self, self.config.image_size)
        for number, stage in enumerate(self.stages):
            grid = self.config.grid_size(number)
            for module in stage.modules():
                if isinstance(module, AbsolutePosition | FullAttention | LinformerAttention):
                    module.resize(grid)

    def set_grad_checkpointing(self, enable: bool = True, *, stages: Sequence[int] | None = None) -> None:
        """Keep only the input of each block for the backward pass, and compute the rest again.

        Args:
            enable: Whether to.
            stages: Those that it is for, counted from 1, the others as they are; by default all.
        """
        for number, stage in enumerate(self.stages, start=1):
            if stages is None or number in stages:
                cast(Any, stage).grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """Return the classifier."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: GlobalPool | None = None) -> None:
        """Replace the classifier by an untrained one, and what it pools unless that is None."""
        pool = self.global_pool if global_pool is None else global_pool
        self.config = dataclasses.replace(self.config, num_classes=num_classes, global_pool=pool)
        like = next(self.parameters())
        self.head = self.new_head().to(device=like.device, dtype=like.dtype)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter) if parameter.ndim == 1 else nn.init.trunc_normal_(parameter, std=INIT_STD)

    def new_head(self) -> nn.Module:
        """Build a classifier."""
        return nn.Linear(self.num_features, self.num_classes) if self.num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's description of layers, first to last, for layer-wise learning rates."""
        blocks = (
            r"^stages\.(\d+)"
            if coarse
            else [
                (r"^stages\.(\d+)\.patch_embed", (0,)),
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
                (r"^norm", (99999,)),
            ]
        )
        return {"stem": r"^stages\.0\.patch_embed", "blocks": blocks}

    def no_weight_decay(self) -> set[str]:
        """Return the names of position tables and global tokens."""
        return {name for name, _ in self.named_parameters() if "global_tokens" in name or ".position." in name}

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last one in `indices`, and the final norm and head where asked.

        Returns:
            The stages that `indices` meant, counted from 0.
        """
        kept, last = feature_take_indices(len(self.stages), indices)
        ends_early = last < len(self.stages) - 1
        self.stages, self.maps = self.stages[: last + 1], self.maps[: last + 1]
        if ends_early:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if prune_norm or ends_early:
            self.norm = nn.Identity()
        if prune_head or ends_early:
            self.reset_classifier(0, "")
        return list(kept)


def default_cfg(config: ModelConfig) -> dict[str, Any]:
    """Return timm's description of a model: input, preprocessing, names of its first and last layer."""
    height, width = config.image_size
    return {
        "url": "",
        "num_classes": config.num_classes,
        "input_size": (config.in_chans, height, width),
        "pool_size": config.grid_size(len(config.stages) - 1),
        "crop_pct": 0.922 if min(height, width) >= 384 else 0.875,
        "interpolation": "bicubic",
        "fixed_input_size": False,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stages.0.patch_embed.proj",
        "classifier": "head",
        "license": "mit",
        "paper_ids": "arXiv:2103.15358",
        "paper_name": "Multi-Scale Vision Longformer: A New Vision Transformer for High-Resolution Image Encoding",
    }


def normalisation(model: TimmInterface) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation for each input channel: the model's own (timm's convention), or ImageNet's."""
    described: dict[str, Any] = dict(getattr(model, "pretrained_cfg", None) or {})
    pair = []
    for field, default in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD)):
        values = tuple(float(value) for value in described.get(field, default))
        if len(values) != model.in_chans:  # a model for other channels than it was described for
            values = (sum(values) / len(values),) * model.in_chans
        pair.append(values)
    return pair[0], pair[1]
