"""The one-call door for people with images: `Encoder(model).encode("photo.jpg")`, or `encode_many` for a collection.

B images, H×W map or image, C channels, G global tokens
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from vision_longformer.backbone import VisionLongformer
from vision_longformer.features.batch_limits import BatchLimits
from vision_longformer.features.batches import PaddedBatch, pad, windows
from vision_longformer.features.read_ahead import default_workers, read_ahead
from vision_longformer.images import (
    AS_STORED,
    MAX_PIXELS,
    ImageError,
    ImageLike,
    Pixels,
    Reading,
    open_reader,
    read_pixels,
)
from vision_longformer.images.pixels import whole_pixels
from vision_longformer.padding import find_padding, size_at
from vision_longformer.timm_interface import normalisation
from vision_longformer.utils.devices import autocast
from vision_longformer.utils.precisions import PRECISIONS, Precision

Image = TypeVar("Image", bound=ImageLike | Pixels)


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
    """Turn images into features, each at its own size.

    Args:
        model: It is moved to `device` and to float32, and put in evaluation mode.
        stages: Whose maps to return, counted from 1; all of them by default. Others are not kept.
        max_side: Shrink images whose longer side has more pixels; None keeps every pixel.
        max_pixels: Refuse larger image files before they are decoded.
        device: Where to compute; by default where the model is. Features come back on the CPU.
        precision: What blocks compute in: "float32", or "bf16" by autocast. Features are float32 all the same.

    Raises:
        ValueError: The model has no such stage, there is no such precision, or a limit is below 1.
    """

    def __init__(
        self,
        model: VisionLongformer,
        *,
        stages: Sequence[int] | None = None,
        max_side: int | None = None,
        max_pixels: int = MAX_PIXELS,
        device: str | torch.device | None = None,
        precision: Precision = "float32",
    ) -> None:
        depth = len(model.stages)
        wanted = range(1, depth + 1) if stages is None else sorted(set(stages))
        for stage in wanted:
            if not 1 <= stage <= depth:
                raise ValueError(f"stages: there is no stage {stage}, the model has stages 1 to {depth}")
        for field, value in (("max_side", max_side), ("max_pixels", max_pixels)):
            if value is not None and value < 1:
                raise ValueError(f"{field}={value}: must be at least 1 pixel")
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision!r}: expected one of {', '.join(PRECISIONS)}")
        self.device = next(model.parameters()).device if device is None else torch.device(device)
        self.model = model.to(device=self.device, dtype=torch.float32).eval()
        self.stages = tuple(wanted)
        self.max_side = max_side
        self.max_pixels = max_pixels
        self.precision = precision
        self.mean, self.std = normalisation(model)

    def read(self, image: ImageLike) -> Pixels:
        """Read an image as `encode` does.

        Raises:
            ImageError: See `images.read_pixels`.
        """
        return read_pixels(image, channels=self.model.in_chans, max_side=self.max_side, max_pixels=self.max_pixels)

    def encode(self, image: ImageLike | Pixels) -> Features:
        """Encode one image.

        Args:
            image: A path, a Pillow image, an array (see `images.read_pixels`), or what `read` returned.

        Raises:
            ImageError: The image cannot be read.
            ValueError: The image is too large for a mechanism that is not linear in its size.
        """
        return self.encode_batch([image if isinstance(image, Pixels) else self.read(image)])[0]

    def encode_many(
        self,
        images: Iterable[Image],
        *,
        batch: int | Literal["auto"] = "auto",
        memory: int | None = None,
        workers: int | None = None,
        on_error: Callable[[Image, ImageError], None] | None = None,
    ) -> Iterator[tuple[Image, Features]]:
        """Encode images in batches of like size, each as if it were alone, while threads decode what comes next.

        Args:
            images: See `encode`. They are taken as they are needed.
            batch: Most images of a batch; "auto" takes what is fast.
            memory: Bytes that the process may hold (on a GPU, that PyTorch may hold there); None for what it holds and
                60% of what is free. Batches get smaller, and fewer images are decoded ahead, to stay below.
            workers: Threads that decode; by default as many as there are CPUs, up to 8.
            on_error: Called with an image that cannot be read, which is then passed over; by default the error is
                raised, and ends the iteration.

        Yields:
            Each image with its features, in order.

        Raises:
            ImageError: An image cannot be read, and `on_error` is None.
            ValueError: A number is below 1, or an image is too large for a mechanism that is not linear in its size.
        """
        limits = BatchLimits(self.model, stages=self.stages, batch=batch, memory=memory)
        count = default_workers() if workers is None else workers
        if count < 1:
            raise ValueError(f"workers={workers}: must be at least 1")
        return self._encode_many(images, limits, count, on_error)

    def _encode_many(
        self,
        images: Iterable[Image],
        limits: BatchLimits,
        workers: int,
        on_error: Callable[[Image, ImageError], None] | None,
    ) -> Iterator[tuple[Image, Features]]:
        def read(image: Image) -> Pixels | ImageError | None:
            try:
                return self.read_small(image, most_pixels=limits.most_pixels)
            except ImageError as error:
                return error

        with contextlib.closing(read_ahead(images, read, workers=workers, ahead=limits.ahead)) as reading:
            for window in windows(reading, most=limits.window):
                small = [(place, found) for place, (_, found) in enumerate(window) if isinstance(found, Pixels)]
                done = dict(zip((place for place, _ in small), self._encode_all(small, limits), strict=True))
                del small
                for place, (image, found) in enumerate(window):
                    try:
                        if isinstance(found, ImageError):
                            raise found
                        features = done.pop(place) if place in done else self.encode(image)
                    except ImageError as error:
                        if on_error is None:
                            raise
                        on_error(image, error)
                        continue
                    yield image, features

    def _encode_all(self, small: Sequence[tuple[int, Pixels]], limits: BatchLimits) -> list[Features]:
        """Encode decoded images in batches; return their features in order."""
        found: dict[int, Features] = {}
        for batch in limits.group([pixels for _, pixels in small]):
            pixels = [small[place][1] for place in batch]
            try:
                features = self.encode_batch(pixels)
            except (ValueError, torch.OutOfMemoryError):
                if len(batch) == 1:
                    raise
                features = [self.encode(one) for one in pixels]
            found.update(zip(batch, features, strict=True))
        return [found[place] for place in range(len(small))]

    def read_small(self, image: ImageLike | Pixels, *, most_pixels: int, reading: Reading = AS_STORED) -> Pixels | None:
        """Read an image as `read` does if it has, as stored, at most so many pixels; else return None.

        Raises:
            ImageError: It cannot be read.
        """
        if isinstance(image, Pixels):
            return image
        if not isinstance(image, str | os.PathLike):
            return self.read(image)
        with contextlib.closing(open_reader(image, **vars(reading), max_pixels=self.max_pixels)) as reader:
            size = reader.info.size
            if size[0] * size[1] > min(most_pixels, self.max_pixels):
                return None
            return whole_pixels(reader, self.model.in_chans, max_side=self.max_side, keep_bytes=True)

    @torch.inference_mode()
    def encode_batch(self, pixels: Sequence[Pixels]) -> list[Features]:
        """Encode decoded images in one padded batch, each as if it were alone.

        Raises:
            ValueError: They are too large for a mechanism that is not linear in their size, or there are none.
        """
        if not pixels:
            raise ValueError("pixels: expected at least one image")
        dtype = next(self.model.parameters()).dtype
        batch = pad(pixels, mean=self.mean, std=self.std, dtype=dtype, device=self.device)
        last = len(self.model.stages)
        with autocast(self.device, self.precision):
            final, intermediates = self.model.eval().forward_intermediates(
                batch.images,
                indices=[stage - 1 for stage in sorted({*self.stages, last})],
                return_prefix_tokens=True,
                image_sizes=batch.sizes,
                valid=batch.valid,
            )
        global_tokens = self.model.norm(intermediates[-1][1].to(dtype))
        embeddings = self._pool(final.to(dtype), global_tokens, batch).cpu()
        kept = [(maps.cpu().to(dtype), tokens.cpu().to(dtype)) for maps, tokens in intermediates[: len(self.stages)]]
        return [self._features(kept, embeddings, number, one) for number, one in enumerate(pixels)]

    def _features(
        self, kept: Sequence[tuple[Tensor, Tensor]], embeddings: Tensor, number: int, pixels: Pixels
    ) -> Features:
        """Take an image out of its batch, as a copy: a view would keep the batch."""
        size = (pixels.valid.shape[0], pixels.valid.shape[1])
        strides = self.model.config.strides
        maps = []
        for stage, (stage_map, _) in zip(self.stages, kept, strict=True):
            height, width = size_at(size, strides[stage - 1])
            own = stage_map[number, :, :height, :width]
            maps.append(own if len(stage_map) == 1 else own.clone(memory_format=torch.contiguous_format))
        return Features(
            maps=tuple(maps),
            global_tokens=tuple(tokens[number].clone() for _, tokens in kept),
            embedding=embeddings[number].clone(),
            valid=pixels.valid,
        )

    def _pool(self, final: Tensor, global_tokens: Tensor, batch: PaddedBatch) -> Tensor:
        """Pool (B, H, W, C) normalised maps and (B, G, C) tokens to (B, C); a model without pooling gets the mean."""
        stride = self.model.config.strides[-1]
        whole = (final.shape[1] * stride, final.shape[2] * stride)
        valid = batch.valid
        if valid is not None:  # to whole patches
            valid = F.pad(valid, (0, whole[1] - valid.shape[2], 0, whole[0] - valid.shape[1]))
        if self.model.global_pool:
            return self.model.forward_head(
                final, pre_logits=True, image_sizes=batch.sizes, valid=valid, global_tokens=global_tokens
            )
        padding = find_padding(whole, batch.sizes, valid, batch=len(final), device=final.device).downsample(stride)
        total = final.sum(dim=(1, 2)) + global_tokens.sum(dim=1)
        if padding.valid is None:
            return total / (final.shape[1] * final.shape[2] + global_tokens.shape[1])
        return total / (padding.valid.sum(dim=(1, 2)) + global_tokens.shape[1])[:, None]
