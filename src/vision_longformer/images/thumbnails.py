"""Maps of features and of attention as pictures for people.

H×W map or picture, C channels. Pictures are (H, W, 3) uint8, RGB.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

BLOCK_TOKENS = 1 << 16  # centred at once, so that a large map is never copied whole
NEUTRAL = 128  # gray for what is not valid
PERCENTILES = (1.0, 99.0)  # a few outliers must not take all the colour
# "inferno" (Smith and van der Walt, CC0) at 17 even steps: perceptually uniform, dark to bright, also in gray.
# fmt: off
INFERNO = (
    "000004", "0b0724", "210c4a", "3d0965", "57106e", "71196e",
    "8a226a", "a32c61", "bc3754", "d24644", "e45a31", "f1731d",
    "f98e09", "fcac11", "f9cb35", "f2ea69", "fcffa4",
)
# fmt: on


@dataclass(frozen=True)
class Picture:
    """An encoded picture.

    Attributes:
        data: The file's bytes, base64.
        kind: The file's format.
        width: In pixels, as is `height`.
        height: In pixels.
    """

    data: str
    kind: Literal["jpeg", "png"]
    width: int
    height: int

    @property
    def uri(self) -> str:
        """The picture as a data: URI."""
        return f"data:image/{self.kind};base64,{self.data}"


def encode_picture(pixels: Tensor, *, max_width: int, quality: int = 86) -> Picture:
    """Encode an (H, W, 3) picture, shrunk to `max_width`: small ones as PNG, others as JPEG."""
    image = Image.fromarray(pixels.cpu().contiguous().numpy())
    if image.width > max_width:
        image = image.resize((max_width, max(1, round(image.height * max_width / image.width))), Image.Resampling.BOX)
    return _encode_image(image, quality=quality)


def shrink_picture(picture: Picture, *, max_width: int) -> Picture:
    """Return a smaller copy of a picture that is wider than `max_width`, else the picture itself."""
    if picture.width <= max_width:
        return picture
    with Image.open(io.BytesIO(base64.b64decode(picture.data))) as image:
        size = (max_width, max(1, round(image.height * max_width / image.width)))
        return _encode_image(image.convert("RGB").resize(size, Image.Resampling.BOX), quality=75)


def _encode_image(image: Image.Image, *, quality: int) -> Picture:
    buffer = io.BytesIO()
    kind: Literal["jpeg", "png"] = "png" if image.width * image.height <= 200**2 else "jpeg"
    if kind == "png":
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return Picture(base64.b64encode(buffer.getvalue()).decode(), kind, image.width, image.height)


def photograph(values: Tensor, valid: Tensor, *, max_width: int) -> Tensor:
    """Return (H, W, C) pixels in [0, 1] as a picture at most `max_width` wide; gray unless there are three channels."""
    colours = values if values.shape[-1] == 3 else values[..., :1].expand(-1, -1, 3)
    if not bool(valid.all()):  # else a large image would be copied for nothing
        colours = torch.where(valid[..., None], colours, NEUTRAL / 255)
    colours = colours.permute(2, 0, 1)[None]
    height, width = valid.shape
    if width > max_width:
        size = (max(1, round(height * max_width / width)), max_width)
        colours = F.interpolate(colours, size, mode="bilinear", antialias=True)
    return _to_bytes(colours[0].permute(1, 2, 0))


@dataclass(frozen=True)
class ColourScale:
    """Turns feature vectors into colours.

    Attributes:
        mean: (C,) of the vectors.
        axes: (C, 3) directions that become red, green and blue.
        low: (3,) components that become dark.
        high: (3,) components that become bright.
    """

    mean: Tensor
    axes: Tensor
    low: Tensor
    high: Tensor

    def colours(self, tokens: Tensor) -> Tensor:
        """Return the (N, 3) uint8 colours of (N, C) vectors."""
        components = torch.cat([self._components(block) for block in tokens.split(BLOCK_TOKENS)])
        spread = (self.high - self.low).clamp(min=1e-12)
        return _to_bytes(torch.where(self.high > self.low, (components - self.low) / spread, 0.5))

    def _components(self, block: Tensor) -> Tensor:
        return (block.float() - self.mean) @ self.axes


def fit_colours(tokens: Tensor) -> ColourScale:
    """Choose colours for (N, C) feature vectors, N ≥ 1: their first three principal components.

    Each is scaled from its 1st to its 99th percentile. Signs are chosen so that the largest weight is positive: the
    same features always give the same colours.
    """
    mean = tokens.mean(dim=0)
    covariance = torch.zeros(tokens.shape[1], tokens.shape[1], dtype=torch.float64)
    for block in tokens.split(BLOCK_TOKENS):
        centred = (block - mean).double()
        covariance += centred.T @ centred
    axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :3]  # (C, 3), largest variance first
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    axes = F.pad(axes * largest.sign(), (0, max(0, 3 - axes.shape[1]))).float()
    components = torch.cat([(block - mean) @ axes for block in tokens.split(BLOCK_TOKENS)])  # (N, 3)
    low, high = torch.from_numpy(np.percentile(components.numpy(), PERCENTILES, axis=0)).float()
    return ColourScale(mean, axes, low, high)


def principal_colours(features: Tensor, valid: Tensor | None, scale: ColourScale | None = None) -> Tensor:
    """Show where a map's features differ, as `fit_colours` says.

    Args:
        features: (H, W, C).
        valid: (H, W) boolean; what is not valid becomes gray. None where all is.
        scale: Of a map that this is a part of; by default that of the map itself.
    """
    tokens = features.flatten(0, 1) if valid is None else features[valid]  # (N, C)
    tokens = tokens.cpu()
    if scale is None:
        scale = fit_colours(tokens)
    if valid is None:
        return scale.colours(tokens).view(*features.shape[:2], 3)
    picture = torch.full((*features.shape[:2], 3), NEUTRAL, dtype=torch.uint8)
    picture[valid.cpu()] = scale.colours(tokens)
    return picture


def heat_overlay(photo: Tensor, heat: Tensor, *, covered: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Lay a map, scaled from its lowest to its highest value, over a darkened gray (H, W, 3) picture.

    Args:
        photo: The picture.
        heat: (h, w), positive; 0 where nothing was seen, which is left gray.
        covered: Shares of the map's height and width that the picture covers, from its top left corner.
    """
    size = [max(round(side / share), side) for side, share in zip(photo.shape[:2], covered, strict=True)]
    heat = heat[None, None].float().cpu()  # (1, 1, h, w)
    seen, lowest = heat > 0, heat[heat > 0].min()
    grown = F.interpolate(torch.where(seen, heat, lowest), size, mode="bilinear", align_corners=False)
    shown = F.interpolate(seen.float(), size, mode="nearest")[0, 0, : photo.shape[0], : photo.shape[1], None] > 0
    colours = inferno((grown - lowest)[0, 0] / (heat.max() - lowest).clamp(min=1e-12))
    gray = photo.float().mean(dim=-1, keepdim=True) / 255
    overlay = 0.68 * colours[: photo.shape[0], : photo.shape[1]] + 0.32 * gray
    return _to_bytes(torch.where(shown, overlay, gray))


def inferno(values: Tensor) -> Tensor:
    """Return the (..., 3) colours, in [0, 1], of (...) values in [0, 1]."""
    table = torch.tensor([[int(colour[i : i + 2], 16) for i in (0, 2, 4)] for colour in INFERNO]) / 255
    places = values.clamp(0, 1) * (len(INFERNO) - 1)
    below = places.floor().long().clamp(max=len(INFERNO) - 2)
    return torch.lerp(table[below], table[below + 1], (places - below)[..., None])


def _to_bytes(values: Tensor) -> Tensor:
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)
