"""Hooks that reduce each stage to a picture as soon as it is there, so that large maps are not kept.

B batch, H×W map, C channels, h heads, d head width, G global tokens
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_longformer.attention import FullAttention, GlobalOnlyAttention, WindowedAttention
from vision_longformer.attention.position import RelativePositionBias
from vision_longformer.backbone import Block, Stage, VisionLongformer
from vision_longformer.images.thumbnails import Picture, encode_picture, principal_colours
from vision_longformer.padding import Padding

# Mechanisms whose global tokens score every token of the map; the others score mixtures or features of them.
SCORING_TOKENS = (FullAttention, GlobalOnlyAttention, WindowedAttention)
STAGE_WIDTH = 664  # of a stage's picture, in pixels


@dataclass(frozen=True)
class StagePicture:
    """A stage's map as a picture.

    Attributes:
        picture: Its first three principal components.
        tokens: (height, width) of the map.
        stride: Pixels of the image per token.
    """

    picture: Picture
    tokens: tuple[int, int]
    stride: int


@dataclass
class StagePictures:
    """What was seen of one image.

    Attributes:
        stages: A picture of each stage, first to last.
        attention: (H, W) attention of a global token over the map of the last stage that has one, as a multiple of
            an even share, 0 at padding; None if there is none to see.
        attention_stage: That stage, counted from 1; 0 without.
        alike: (H, W) how alike each token of the last stage is to the one in the middle of the image, from above 0 to
            1, 0 at padding; None if there is nothing in the middle.
    """

    stages: list[StagePicture] = field(default_factory=list)
    attention: Tensor | None = None
    attention_stage: int = 0
    alike: Tensor | None = None


@contextmanager
def picture_stages(model: VisionLongformer) -> Iterator[StagePictures]:
    """Picture the stages of the first image of the batch that passes through `model` inside the `with` block.

    Threads may share a model: each sees what it passes through it itself.
    """
    pictures, own_thread = StagePictures(), threading.get_ident()

    def see_stage(_module: nn.Module, _inputs: Any, outputs: tuple[Tensor, Tensor, Padding]) -> None:
        if threading.get_ident() != own_thread:
            return
        x, _, padding = outputs
        colours = principal_colours(x[0], None if padding.valid is None else padding.valid[0])
        picture = encode_picture(colours, max_width=STAGE_WIDTH)
        stride = model.config.strides[len(pictures.stages)]
        pictures.stages.append(StagePicture(picture, (x.shape[1], x.shape[2]), stride))
        if len(pictures.stages) == len(model.stages):
            pictures.alike = alike_to_the_middle(x[0], None if padding.valid is None else padding.valid[0])

    def see_attention(block: nn.Module, inputs: tuple[Tensor, Tensor, Padding]) -> None:
        if threading.get_ident() != own_thread:
            return
        # of the block's input: a hook of its attention would see, and so make, the whole map that goes in there
        (x, global_tokens, padding), norm = inputs, cast(Block, block).norm1
        x, global_tokens = norm(padding.clean(x)), norm(global_tokens)
        pictures.attention = attention_of_global_token(cast(Block, block).attn, x, global_tokens, padding)[0].cpu()

    hooks = [stage.register_forward_hook(see_stage) for stage in model.stages]
    for number, stage in reversed(list(enumerate(model.stages, start=1))):
        block = cast(Block, cast(Stage, stage).blocks[-1])
        if isinstance(block.attn, SCORING_TOKENS) and cast(Stage, stage).patch_embed.global_tokens is not None:
            pictures.attention_stage = number
            hooks.append(block.register_forward_pre_hook(see_attention))
            break
    try:
        yield pictures
    finally:
        for hook in hooks:
            hook.remove()


def alike_to_the_middle(x: Tensor, valid: Tensor | None) -> Tensor | None:
    """Return (H, W): the cosine of each token with the middle one, once the mean of all is taken off, as (1 + cos) / 2.

    Args:
        x: (H, W, C) map.
        valid: (H, W) which tokens are real; None if all are. The others get 0.
    """
    real = torch.ones_like(x[..., 0], dtype=torch.bool) if valid is None else valid
    middle = (x.shape[0] // 2, x.shape[1] // 2)
    if not bool(real[middle]) or int(real.sum()) < 2:
        return None
    centred = torch.where(real[..., None], x - x[real].mean(0), 0.0).float()
    cosine = F.cosine_similarity(centred, centred[middle], dim=-1)
    return torch.where(real, (1 + cosine).div(2).clamp(1e-6, 1), 0.0).cpu()


def attention_of_global_token(attention: nn.Module, x: Tensor, global_tokens: Tensor, padding: Padding) -> Tensor:
    """Return (B, H, W): what share of its attention the first global token gives each position, averaged over heads.

    Shares are multiples of an even share among all that is seen, global tokens included; padding has 0.

    Args:
        attention: A layer of a mechanism whose global tokens see the whole map.
        x: (B, H, W, C) input of the layer.
        global_tokens: (B, G, C), with G ≥ 1.
        padding: What of the map is real.
    """
    assert isinstance(attention, SCORING_TOKENS)
    projections = attention.projections
    of_global = projections.split(global_tokens, projections.qkv_global)
    global_key, key = of_global.key, projections.split(x, projections.qkv_global).key  # (B, G, h, d), (B, H, W, h, d)
    query = of_global.query[:, 0] * key.shape[-1] ** -0.5  # (B, h, d)
    on_map = torch.einsum("bhd,bijhd->bhij", query, key).flatten(2)  # (B, h, N)
    on_global = torch.einsum("bhd,bkhd->bhk", query, global_key)
    position = attention.position
    bias = position.global_queries if isinstance(position, RelativePositionBias) else position
    if bias is not None:
        on_map, on_global = on_map + bias.to_map[:, :1], on_global + bias.to_global[:, 0]
    seen = torch.full_like(on_map[:, 0, 0], on_map.shape[2])  # (B,)
    if padding.valid is not None:
        real = padding.valid.flatten(1)
        on_map = on_map.masked_fill(~real[:, None], float("-inf"))
        seen = real.sum(dim=1)
    weights = torch.cat([on_global, on_map], dim=-1).softmax(dim=-1).mean(dim=1)
    multiples = weights[:, on_global.shape[2] :] * (seen + on_global.shape[2])[:, None]  # (B, N)
    return multiples.view(x.shape[:3])
