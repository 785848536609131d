"""The Multi-Scale Vision Longformer: patch embedding, block, stage, model.

B batch, H×W map or image, C channels, G global tokens, p patch size

Inside, a map is (B, H, W, C) and its global tokens are (B, G, C). Images of any size are padded at the bottom and
right; what is padding is kept in a `Padding`, and nothing that is real ever depends on it.

Source: Zhang et al., Multi-Scale Vision Longformer, ICCV 2021, https://arxiv.org/abs/2103.15358. In these comments,
"section" is a section of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.fx
from timm.layers import drop_path
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vision_longformer.attention import PerformerAttention, build_attention, rowwise
from vision_longformer.attention.feed_forward import FeedForward
from vision_longformer.attention.position import INIT_STD, AbsolutePosition
from vision_longformer.config import ModelConfig, StageConfig
from vision_longformer.hub_interface import HubInterface
from vision_longformer.padding import Padding, find_image_padding, find_padding, pad_to_multiple
from vision_longformer.timm_interface import TimmInterface

EPS = 1e-6  # of every LayerNorm, in place of PyTorch's 1e-5

# Python that depends on shapes and on what is padding: one node each in graphs of `torch.fx`, as stages are.
torch.fx.wrap("find_image_padding")
torch.fx.wrap("_keep_in_graph")
torch.fx.wrap("_mean_of_tokens")


class PatchEmbed(nn.Module):
    """Turn p×p patches of a map into tokens, and place a stage's global tokens beside them."""

    def __init__(
        self, in_chans: int, stage: StageConfig, *, grid: tuple[int, int], norm: bool, drop_rate: float
    ) -> None:
        super().__init__()
        self.patch_size = stage.patch_size
        self.proj = nn.Conv2d(in_chans, stage.width, kernel_size=stage.patch_size, stride=stage.patch_size)
        self.norm = nn.LayerNorm(stage.width, eps=EPS) if norm else nn.Identity()
        self.global_tokens = None
        if stage.num_global_tokens:
            tokens = torch.empty(stage.num_global_tokens, stage.width)
            self.global_tokens = nn.Parameter(nn.init.trunc_normal_(tokens, std=INIT_STD))
        self.position = None
        if stage.position == "absolute":
            self.position = AbsolutePosition(stage.width, grid, num_global_tokens=stage.num_global_tokens)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor, padding: Padding) -> tuple[Tensor, Tensor, Padding]:
        """Embed a (B, H, W, C) map.

        Returns:
            (B, ⌈H/p⌉, ⌈W/p⌉, C'), (B, G, C'), and what of the new map is real.
        """
        x = padding.clean(x)  # a patch may hold both real and padded positions
        padding = padding.downsample(self.patch_size)
        x = pad_to_multiple(x, self.patch_size).permute(0, 3, 1, 2)
        if torch.is_grad_enabled() and x.device.type == "cpu":
            x = x.contiguous()  # there a convolution's backward pass takes half again as long over channels-last maps
        x = self._embed(x)
        batch, height, width, channels = x.shape
        if self.global_tokens is None:
            global_tokens = x.new_empty(batch, 0, channels)
        else:
            global_tokens = self.global_tokens.expand(batch, -1, -1)
        if self.position is not None:
            sizes = padding.sizes_within((height, width), device=x.device)
            x = x + self.position(height, width, sizes)
            if self.position.global_tokens is not None:
                global_tokens = global_tokens + self.position.global_tokens
        return self.drop(x), self.drop(global_tokens), padding

    def _embed(self, x: Tensor) -> Tensor:
        """Turn a (B, C, H, W) map of whole patches into (B, H/p, W/p, C') tokens."""
        if rowwise.pays_to_embed(self.proj, self.norm, x):  # inference on a CPU, a large map
            return rowwise.embed(self.proj, self.norm, x)
        return cast(Tensor, self.norm(self.proj(x).permute(0, 2, 3, 1)))


class Block(nn.Module):
    """Attention and an MLP, each on normalised input and added to it."""

    def __init__(self, stage: StageConfig, attention: nn.Module, *, drop_path_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(stage.width, eps=EPS)
        self.attn = attention
        self.norm2 = nn.LayerNorm(stage.width, eps=EPS)
        self.mlp = FeedForward(stage.width, hidden_features=4 * stage.width)
        self.drop_path_rate = drop_path_rate

    def forward(self, x: Tensor, global_tokens: Tensor, padding: Padding) -> tuple[Tensor, Tensor]:
        """Transform a (B, H, W, C) map and (B, G, C) global tokens."""
        if rowwise.pays(self, self.attn, x):  # inference on a CPU, a large map
            layer = cast(rowwise.RowwiseLayer, self.attn)
            return rowwise.attend(layer, self.norm1, self.rest, x, global_tokens, padding)
        x = padding.clean(x)
        update, global_update = self.attn(self.norm1(x), self.norm1(global_tokens), padding)
        if rowwise.pays_in_chunks(self):
            return rowwise.in_chunks(self.rest, x, update), self.rest(global_tokens, global_update)
        x, global_tokens = self._add(x, update, global_tokens, global_update)
        update = self.mlp(self.norm2(x))
        global_update = self.mlp(self.norm2(global_tokens)) if global_tokens.shape[1] else global_tokens
        return self._add(x, update, global_tokens, global_update)

    def rest(self, x: Tensor, update: Tensor) -> Tensor:
        """Take (..., C) tokens through the rest of the block, in inference.

        Args:
            x: The tokens as they entered the block.
            update: What attention adds to them; it is overwritten by the result, which saves new memory for it.
        """
        x = update.add_(x)
        return x.add_(self.mlp(self.norm2(x)))

    def _add(self, x: Tensor, update: Tensor, global_tokens: Tensor, global_update: Tensor) -> tuple[Tensor, Tensor]:
        """Add the residual branch, dropped for the map and the global tokens of an image together (drop path)."""
        if self.training and self.drop_path_rate > 0:
            kept = drop_path(x.new_ones(x.shape[0], 1, 1), self.drop_path_rate, training=True)
            update, global_update = update * kept[..., None], global_update * kept
        if global_tokens.shape[1] == 0:  # OpenVINO crashes on sums and products of no tokens
            return x + update, global_tokens
        return x + update, global_tokens + global_update


def _keep_in_graph(x: Tensor, unused: Tensor) -> Tensor:
    """Return `x`, so that parameters which only serve `unused` get gradients of zero rather than None."""
    return torch.where(torch.ones((), dtype=torch.bool, device=x.device), x, unused.sum())


def _mean_of_tokens(x: Tensor, global_tokens: Tensor, padding: Padding) -> Tensor:
    """Return (B, C): the mean of a (B, H, W, C) map, zero at padding, and (B, G, C) global tokens."""
    total = x.sum(dim=(1, 2))
    if global_tokens.shape[1]:
        total = total + global_tokens.sum(dim=1)
    if padding.valid is None:
        return total / (x.shape[1] * x.shape[2] + global_tokens.shape[1])
    count = padding.valid.sum(dim=(1, 2)) + global_tokens.shape[1]
    return total / count.clamp(min=1)[:, None]


class Stage(nn.Module):
    """A patch embedding, then blocks at one scale."""

    def __init__(
        self,
        in_chans: int,
        stage: StageConfig,
        *,
        grid: tuple[int, int],
        norm_embed: bool,
        drop_rate: float,
        drop_path_rates: Sequence[float],
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.patch_embed = PatchEmbed(in_chans, stage, grid=grid, norm=norm_embed, drop_rate=drop_rate)
        self.blocks = nn.ModuleList(
            Block(stage, build_attention(stage, grid=grid), drop_path_rate=rate) for rate in drop_path_rates
        )

    def forward(self, x: Tensor, padding: Padding) -> tuple[Tensor, Tensor, Padding]:
        """Turn a (B, H, W, C) map into a (B, ⌈H/p⌉, ⌈W/p⌉, C') one, with (B, G, C') global tokens."""
        if isinstance(x, torch.fx.Proxy):
            stage = x.tracer.path_of_module(self)
            return cast(Any, x.tracer.create_proxy("call_module", stage, (x, padding), {}))
        x, global_tokens, padding = self.patch_embed(x, padding)
        if self.training:
            self._redraw()
        for block in self.blocks:
            if self.grad_checkpointing and torch.is_grad_enabled():
                x, global_tokens = checkpoint(block, x, global_tokens, padding, use_reentrant=False)
            else:
                x, global_tokens = block(x, global_tokens, padding)
        if self.training and global_tokens.shape[1]:
            x = _keep_in_graph(x, global_tokens)  # the map alone goes on
        return padding.clean(x), global_tokens, padding

    def _redraw(self) -> None:
        """Draw random projections anew: here, as activation checkpointing runs blocks twice."""
        for block in self.blocks:
            if isinstance(block.attn, PerformerAttention):
                block.attn.redraw()


class VisionLongformer(TimmInterface, HubInterface):
    """A pyramid of three or four stages whose attention is linear in the number of pixels.

    Images are (B, in_chans, H, W), normalised (ImageNet mean and deviation for the published models), of any height
    and width from 1 pixel up. `image_sizes`, one (height, width) for each image, says which top left part of each is
    real; `valid`, a (B, H, W) boolean tensor, says so pixel by pixel. Where both are given, both must hold. An
    image's result does not depend on its padding, nor on other images.

    Args:
        config: What to build.

    Attributes:
        config: As built, and as changed since by `reset_classifier`, `set_input_size` and `set_neighbours`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        stages, in_chans = [], config.in_chans
        depths = [stage.depth for stage in config.stages]
        rates = iter(torch.linspace(0, config.drop_path_rate, sum(depths), device="cpu").tolist())
        for number, stage in enumerate(config.stages):
            stages.append(
                Stage(
                    in_chans,
                    stage,
                    grid=config.grid_size(number),
                    norm_embed=config.norm_embed,
                    drop_rate=config.drop_rate,
                    drop_path_rates=[next(rates) for _ in range(stage.depth)],
                )
            )
            in_chans = stage.width
        self.stages = nn.ModuleList(stages)
        self.maps = nn.ModuleList(nn.Identity() for _ in stages)  # each is shown its stage's map, for hooks and graphs
        self.num_features = self.head_hidden_size = in_chans
        self.norm: nn.Module = nn.LayerNorm(in_chans, eps=EPS)
        self.head_drop = nn.Dropout(config.drop_rate)
        self.head = self.new_head()
        self.feature_info = [
            {"num_chs": stage.width, "reduction": stride, "module": f"maps.{number}"}
            for number, (stage, stride) in enumerate(zip(config.stages, config.strides, strict=True))
        ]
        self.init_weights()

    # --- images to features to logits -------------------------------------------------------------------------

    def forward(
        self,
        images: Tensor,
        image_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Classify (B, in_chans, H, W) images.

        Returns:
            (B, num_classes) logits; pooled (B, C) features if there is no classifier, and the (B, H', W', C) map if
            nothing is pooled either.

        Raises:
            ValueError: Images, sizes or mask do not fit the model or each other.
        """
        x, global_tokens, padding = self._encode(images, image_sizes, valid)
        x, global_tokens = self._normalise(x, global_tokens, padding)
        return cast(Tensor, self.head(self.head_drop(self._pool(x, global_tokens, padding))))

    def forward_features(
        self,
        images: Tensor,
        image_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Return the last stage's normalised map, (B, ⌈H/stride⌉, ⌈W/stride⌉, C), zero at padding."""
        x, global_tokens, padding = self._encode(images, image_sizes, valid)
        return self._normalise(x, global_tokens, padding)[0]

    def forward_head(
        self,
        x: Tensor,
        pre_logits: bool = False,
        image_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
        valid: Tensor | None = None,
        global_tokens: Tensor | None = None,
    ) -> Tensor:
        """Pool and classify what `forward_features` gave.

        Args:
            x: (B, H', W', C) normalised map.
            pre_logits: Return the pooled features instead of logits.
            image_sizes: As given to `forward_features`.
            valid: As given to `forward_features`.
            global_tokens: (B, G, C) normalised global tokens of the last stage, where it has any.

        Raises:
            ValueError: The head pools global tokens, and none were given.
        """
        last = len(self.stages) - 1  # fewer than the configuration's, once pruned
        num_global = self.config.stages[last].num_global_tokens
        if global_tokens is None:
            if num_global and self.global_pool:
                raise ValueError(
                    f"global_tokens: the head pools the {num_global} global token(s) of the last stage, which are "
                    "not part of its map: call the model itself, or pass them here"
                )
            global_tokens = x.new_empty(x.shape[0], 0, x.shape[-1])
        stride = self.config.strides[last]
        pixels = (x.shape[1] * stride, x.shape[2] * stride)
        padding = find_padding(pixels, image_sizes, valid, batch=x.shape[0], device=x.device)
        pooled = self._pool(x, global_tokens, padding.downsample(stride))
        return pooled if pre_logits else cast(Tensor, self.head(self.head_drop(pooled)))

    def _encode(
        self, images: Tensor, image_sizes: Sequence[tuple[int, int]] | Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Padding]:
        padding = find_image_padding(images, image_sizes, valid, in_chans=self.in_chans)
        x = images.permute(0, 2, 3, 1)
        global_tokens = x.new_empty(x.shape[0], 0, x.shape[-1])
        for stage, shown in zip(self.stages, self.maps, strict=True):
            x, global_tokens, padding = stage(x, padding)
            shown(x.permute(0, 3, 1, 2))
        return x, global_tokens, padding

    def _normalise(self, x: Tensor, global_tokens: Tensor, padding: Padding) -> tuple[Tensor, Tensor]:
        return padding.clean(self.norm(x)), self.norm(global_tokens)

    def _pool(self, x: Tensor, global_tokens: Tensor, padding: Padding) -> Tensor:
        """Pool a (B, H, W, C) map, zero at padding, and (B, G, C) global tokens to (B, C), or leave the map."""
        match self.global_pool:
            case "token":
                return _keep_in_graph(global_tokens[:, 0], x) if self.training else global_tokens[:, 0]
            case "avg":
                return _mean_of_tokens(x, global_tokens, padding)
            case _:
                return x

    def init_weights(self) -> None:
        """Initialise linear layers: truncated normal weights, zero biases. Others do so when they are built."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                nn.init.zeros_(module.bias)
