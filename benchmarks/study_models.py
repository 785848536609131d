"""The models of the study, each cut to about the parameters and multiply-adds of *nano* at 64×64, and what they cost.

The maps of nano at 64×64 have 16, 8, 4 and 2 tokens a side, against 56, 28, 14 and 7 at 224×224. So the settings that
the paper gives for 224×224 are cut down with them: 32 rows of Linformer in place of 256; ratios 4, 2, 1 of spatial
reduction and full attention in stage 4, which leave 4×4 keys; 64 features of performer; 21, 21, 5, 1 global tokens of
global-only attention, as many to a token as in the paper.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import (
    Attention,
    Full,
    GlobalOnly,
    Linformer,
    Performer,
    SpatialReduction,
    StageConfig,
    Windowed,
)
from vision_longformer.costs import pairs_along_axis
from vision_longformer.training.classifiers import build_model
from vision_longformer.training.config import ModelOptions
from vision_longformer.variants import CONFIGS

SIZE, CLASSES = 64, 10
NANO = "vision_longformer_nano"


@dataclass(frozen=True)
class Entry:
    """A model of the study.

    Attributes:
        name: As `vil train --model.name` takes it.
        options: As `--model.options` takes them.
        random_shift: Whether it is trained with random shift.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    random_shift: bool = False

    def build(self) -> nn.Module:
        """Return the untrained model."""
        options = ModelOptions(self.name, self.options, drop_path_rate=0.0)
        return build_model(options, num_classes=CLASSES, size=SIZE)


def _nano(attention: Attention | Sequence[Attention], *, num_global_tokens: Sequence[int] | None = None) -> Entry:
    """Return nano with absolute positions and another mechanism: one for all stages, or one for each."""
    config = CONFIGS[f"{NANO}_ape"]
    kinds = [attention] * 4 if isinstance(attention, Attention) else attention
    numbers = num_global_tokens or [stage.num_global_tokens for stage in config.stages]
    stages = tuple(
        dataclasses.replace(stage, attention=kind, num_global_tokens=number)
        for stage, kind, number in zip(config.stages, kinds, numbers, strict=True)
    )
    pool = config.global_pool if num_global_tokens is None else "token"
    config = dataclasses.replace(config, stages=stages, global_pool=pool)
    return Entry(f"{NANO}_ape", {"config": config.to_dict()})


MODELS: dict[str, Entry] = {
    "vil": Entry(f"{NANO}_ape"),
    "vil_relative": Entry(NANO),
    "vil_random_shift": Entry(f"{NANO}_ape", random_shift=True),
    "full": _nano(Full()),
    "linformer": _nano(Linformer(num_features=32)),
    "spatial_reduction": _nano((SpatialReduction(4), SpatialReduction(2), SpatialReduction(1), Full())),
    "performer": _nano(Performer(num_features=64)),
    "global_only": _nano(GlobalOnly(), num_global_tokens=(21, 21, 5, 1)),
    "resnet": Entry("resnet18", {"channels": [20, 44, 104, 208]}),
    # A plain ViT has one map: with patches of 16 it matches both figures of nano, with 8 only the parameters.
    "vit_patch_16": Entry(
        "vit_tiny_patch16_224", {"img_size": SIZE, "patch_size": 16, "embed_dim": 128, "depth": 9, "num_heads": 4}
    ),
    "vit_patch_8": Entry(
        "vit_tiny_patch16_224", {"img_size": SIZE, "patch_size": 8, "embed_dim": 128, "depth": 9, "num_heads": 4}
    ),
    "pvt_v2": Entry("pvt_v2_b0", {"embed_dims": [24, 48, 120, 184]}),
    "swin": Entry(
        "swin_tiny_patch4_window7_224",
        {"img_size": SIZE, "window_size": 4, "embed_dim": 32, "depths": [1, 1, 4, 1], "num_heads": [1, 2, 4, 8]},
    ),
    # Windows of 7 see 203 of the 256 tokens of stage 1, windows of 2 as large a share as those of 7 at 224×224.
    "vil_window_2": _nano(Windowed(window_size=2)),
}


def parameter_count(model: nn.Module) -> int:
    """Return the number of a model's parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module) -> float:
    """Count the multiply-adds of one image: the matrix products and convolutions that run.

    The products of windowed attention run in an operation of its own, and are counted by the keys that exist.
    """
    frozen = copy.deepcopy(model).eval().requires_grad_(False)  # the counter cannot follow parameters passed on
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        frozen(torch.zeros(1, 3, SIZE, SIZE))
    total = float(counter.get_total_flops()) / 2
    if isinstance(model, VisionLongformer):
        config = model.config
        total += sum(
            stage.depth * _windowed_products(stage, config.grid_size(number)[0])
            for number, stage in enumerate(config.stages)
        )
    return total


def _windowed_products(stage: StageConfig, side: int) -> int:
    """Return the multiply-adds of the map queries of a layer with windows: scores and weighted sums."""
    if not isinstance(stage.attention, Windowed):
        return 0
    pairs = pairs_along_axis(side, stage.attention) ** 2 + side**2 * stage.num_global_tokens
    return 2 * stage.width * pairs
