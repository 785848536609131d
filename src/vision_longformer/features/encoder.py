"""The one-call door for people with an image: `Encoder(model).encode("photo.jpg")`.

H×W map or image, C channels, G global tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vision_longformer.backbone import VisionLongformer
from vision_longformer.images import MAX_PIXELS, ImageLike, Pixels, read_pixels
from vision_longformer.timm_interface import normalisation


@dataclass(frozen=True)
class Features:
    """What a model makes of one image.

    Attributes:
        maps: (C, H, W) float32 output of each stage that was asked for, first to last; zero where nothing is valid.
        global_tokens: (G, C) of each of these stages; G is 0 where a stage has none.
        embedding: (C,) pooled, normalised features, which a classifier would see.
        valid: (H, W) boolean for the pixels that were encoded, false where one is missing or fully transparent.
    """

    maps: tuple[Tensor, ...]
    global_tokens: tuple[Tensor, ...]
    embedding: Tensor
    valid: Tensor


class Encoder:
    """Turn images into features, one at a time, each at its own size.

    Args:
        model: It is moved to `device` and to float32, and put in evaluation mode.
        stages: Whose maps to return, counted from 1; all of them by default. Others are not kept.
        max_side: Shrink images whose longer side has more pixels; None keeps every pixel.
        max_pixels: Refuse larger image files before they are decoded.
        device: Where to compute; by default where the model is. Features come back on the CPU.

    Raises:
        ValueError: The model has no such stage, or a limit is below 1.
    """

    def __init__(
        self,
        model: VisionLongformer,
        *,
        stages: Sequence[int] | None = None,
        max_side: int | None = None,
        max_pixels: int = MAX_PIXELS,
        device: str | torch.device | None = None,
    ) -> None:
        depth = len(model.stages)
        wanted = range(1, depth + 1) if stages is None else sorted(set(stages))
        for stage in wanted:
            if not 1 <= stage <= depth:
                raise ValueError(f"stages: there is no stage {stage}, the model has stages 1 to {depth}")
        for field, value in (("max_side", max_side), ("max_pixels", max_pixels)):
            if value is not None and value < 1:
                raise ValueError(f"{field}={value}: must be at least 1 pixel")
        self.device = next(model.parameters()).device if device is None else torch.device(device)
        self.model = model.to(device=self.device, dtype=torch.float32).eval()
        self.stages = tuple(wanted)
        self.max_side = max_side
        self.max_pixels = max_pixels
        self.mean, self.std = normalisation(model)

    def read(self, image: ImageLike) -> Pixels:
        """Read an image as `encode` does.

        Raises:
            ImageError: See `images.read_pixels`.
        """
        return read_pixels(image, channels=self.model.in_chans, max_side=self.max_side, max_pixels=self.max_pixels)

    @torch.inference_mode()
    def encode(self, image: ImageLike | Pixels) -> Features:
        """Encode one image.

        Args:
            image: A path, a Pillow image, an array (see `images.read_pixels`), or what `read` returned.

        Raises:
            ImageError: The image cannot be read.
            ValueError: The image is too large for a mechanism that is not linear in its size.
        """
        pixels = image if isinstance(image, Pixels) else self.read(image)
        mean, std = (torch.tensor(values, dtype=torch.float32, device=self.device) for values in (self.mean, self.std))
        images = pixels.values.to(self.device).sub(mean).div_(std).permute(2, 0, 1)[None]  # (1, C, H, W)
        valid = None if bool(pixels.valid.all()) else pixels.valid[None].to(self.device)
        last = len(self.model.stages)
        final, intermediates = self.model.eval().forward_intermediates(
            images,
            indices=[stage - 1 for stage in sorted({*self.stages, last})],
            return_prefix_tokens=True,
            valid=valid,
        )
        embedding = self._pool(final, self.model.norm(intermediates[-1][1]), valid)
        kept = intermediates[: len(self.stages)]
        return Features(
            maps=tuple(stage_map[0].cpu() for stage_map, _ in kept),
            global_tokens=tuple(tokens[0].clone().cpu() for _, tokens in kept),
            embedding=embedding[0].cpu(),
            valid=pixels.valid,
        )

    def _pool(self, final: Tensor, global_tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Pool a (1, H, W, C) normalised map and (1, G, C) tokens to (1, C); a model without pooling gets the mean."""
        if not self.model.global_pool:
            tokens = torch.cat([final.flatten(1, 2), global_tokens], dim=1)
            if valid is None:
                return tokens.mean(dim=1)
            real = F.max_pool2d(self._whole_patches(final, valid).float(), self._stride)
            return tokens.sum(dim=1) / (real.sum() + global_tokens.shape[1])
        padded = None if valid is None else self._whole_patches(final, valid)
        return self.model.forward_head(final, pre_logits=True, valid=padded, global_tokens=global_tokens)

    @property
    def _stride(self) -> int:
        return self.model.config.strides[len(self.model.stages) - 1]

    def _whole_patches(self, final: Tensor, valid: Tensor) -> Tensor:
        """Pad (1, H, W) `valid` with false to whole patches of the last stage's (1, H', W', C) map."""
        bottom = final.shape[1] * self._stride - valid.shape[1]
        right = final.shape[2] * self._stride - valid.shape[2]
        return F.pad(valid, (0, right, 0, bottom))
