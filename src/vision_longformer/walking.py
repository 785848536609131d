"""Large maps in inference: embedded, and taken through a block, band by band, so that only the result is as large.

B batch, H×W map, C channels, G global tokens, p patch size
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from vision_longformer.attention import GlobalOnlyAttention, WindowedAttention
from vision_longformer.attention.backend import attention_backend
from vision_longformer.attention.walk import Attended, Walk, WalkedLayer, ring_bytes
from vision_longformer.slabs import is_traced, is_watched, linear_into, slab_bytes, slabs

if TYPE_CHECKING:
    from vision_longformer.backbone import Block, PatchEmbed

# C libraries give larger tensors back to the system, and get new pages for them each time: a third of the time of a
# large map. So the queries, keys and values of a band take no more than this.
KEPT_BYTES = 32 * 2**20
EMBEDDED_BYTES = 4 * 2**20  # of patches that are embedded at once where their map is larger than that


def _is_inference(x: Tensor) -> bool:
    return x.device.type == "cpu" and not (torch.is_grad_enabled() or is_traced())


# --- patch embeddings -------------------------------------------------------------------------------------------


def is_embedded_in_bands(embed: PatchEmbed, x: Tensor) -> bool:
    """Tell whether the tokens of a (B, C, H, W) map of whole patches are too many to be embedded at once."""
    if is_watched(embed.proj) or is_watched(embed.norm):
        return False
    return _is_inference(x) and math.prod(embedded_shape(embed, x)) * x.element_size() > KEPT_BYTES


def embedded_shape(embed: PatchEmbed, x: Tensor) -> tuple[int, int, int, int]:
    """Return the shape (B, H/p, W/p, C') of the tokens of a (B, C, H, W) map."""
    batch, _, height, width = x.shape
    return batch, height // embed.patch_size, width // embed.patch_size, embed.proj.out_channels


def embed_in_bands(embed: PatchEmbed, x: Tensor) -> Tensor:
    """Project and normalise the patches of a (B, C, H, W) map, to (B, H/p, W/p, C')."""
    patch, shape = embed.patch_size, embedded_shape(embed, x)
    out = x.new_empty(shape)
    rows = max(1, EMBEDDED_BYTES * shape[1] // (out.numel() * out.element_size()))
    for top in range(0, shape[1], rows):
        band = x[:, :, top * patch : (top + rows) * patch]
        out[:, top : top + rows] = embed.norm(embed.proj(band).permute(0, 2, 3, 1))
    return out


# --- blocks -----------------------------------------------------------------------------------------------------


def is_walked(block: Block, x: Tensor) -> bool:
    """Tell whether a (B, H, W, C) map is large enough to be walked over, and nobody looks at what is between."""
    if not isinstance(block.attn, WindowedAttention | GlobalOnlyAttention) or not block.attn.is_local:
        return False
    if not _is_inference(x) or block.training or torch.is_autocast_enabled("cpu"):
        return False
    if attention_backend() == "dense" or any(is_watched(part) for part in block.children()):
        return False
    return len(x) > 0 and 3 * x[0].numel() * x.element_size() > KEPT_BYTES


def walk_block(block: Block, x: Tensor, global_tokens: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Take a (B, H, W, C) map and (B, G, C) global tokens through a block.

    Args:
        block: One for which `is_walked`.
        x: The map.
        global_tokens: The global tokens.
        valid: (B, H, W), true where something is real; None if all is.

    Returns:
        Both; the map is zero where nothing is real.
    """
    layer, has_global = cast(WalkedLayer, block.attn), global_tokens.shape[1] > 0
    out, gathered = torch.empty_like(x, memory_format=torch.contiguous_format), []
    for number, image in enumerate(x):
        tokens = global_tokens[number : number + 1]
        band_rows = _band(layer, x) // layer.step
        walk = Walk(layer, tokens, image.shape[:2], band_rows=band_rows, gather=has_global, norm=block.norm1)
        top = 0
        while top < len(image):
            rows = slice(top, top + walk.room)
            walk.project(image[rows], None if valid is None else valid[number, rows])
            top = rows.stop
            while band := walk.attend():
                rows = slice(band.top, band.top + len(band.tokens))
                finish(block, image[rows], band, out=out[number, rows])
        gathered.append(walk.gathered() if has_global else tokens)
    return out, block.finish_global(global_tokens, torch.cat(gathered))


def finish(block: Block, x: Tensor, attended: Attended, *, out: Tensor) -> None:
    """Take a band of (n, W, C) rows `x` that has attended through the rest of a block, to contiguous `out`."""
    flat = [tokens.flatten(0, 1) for tokens in (x, attended.tokens, out)]
    for slab in slabs(len(flat[0])):
        before, update, after = (tokens[slab] for tokens in flat)
        linear_into(after, cast(WalkedLayer, block.attn).projections.proj, update)
        after += before
        after += block.mlp(block.norm2(after))
    if attended.valid is not None:
        out.masked_fill_(~attended.valid[..., None], 0)


def walk_bytes(block: Block, x: Tensor) -> int:
    """Return what `walk_block` holds beside a (B, H, W, C) map and the result."""
    layer = cast(WalkedLayer, block.attn)
    (_, height, width, channels), itemsize, band = x.shape, x.element_size(), _band(layer, x)
    ring = ring_bytes((height, width), channels, itemsize, band=band, halo=layer.halo)
    attended = min(band, height) * width * channels * itemsize
    return ring + attended + slab_bytes(height * width, channels, itemsize)


def _band(layer: WalkedLayer, x: Tensor) -> int:
    """Return how many rows of a (B, H, W, C) map attend at once: whole chunk rows, at least one."""
    rows = KEPT_BYTES // (3 * x[0, 0].numel() * x.element_size()) - 2 * layer.halo
    return max(rows // layer.step, 1) * layer.step
