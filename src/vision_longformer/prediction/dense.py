"""Looking at one image of any size with a detector or a segmentation model.

This is the one place that decides how an image is read: by rows where it is streamed, else as a whole. An image that
does not fit into memory is streamed where the model allows it, nothing is resized or flipped, and no tiles were asked
for; else it is cut into tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.detection.missing import where_pixels_are, where_rows_are
from vision_longformer.detection.streamed.find_objects import find_objects_streamed
from vision_longformer.detection.tiled import find_objects
from vision_longformer.evaluation.flips import Flips, with_flips
from vision_longformer.fpn.streamed.memory import Streaming
from vision_longformer.images import MAX_PIXELS, ImageError, Raster, Reader, rasters
from vision_longformer.images.reader import check_pixels
from vision_longformer.masks.rle import Mask, Rle, mask_to_rle, nearest, rle_to_mask
from vision_longformer.padding import Size
from vision_longformer.prediction.missing import without_missing
from vision_longformer.prediction.streaming import streaming_strategy
from vision_longformer.segmentation.streamed.label_file import LabelFile
from vision_longformer.segmentation.streamed.label_pixels import label_pixels_streamed
from vision_longformer.segmentation.tiled import label_pixels
from vision_longformer.tiling.choosing import Tiling
from vision_longformer.training.trained import Trained


@dataclass(frozen=True)
class LookOptions:
    """How images are looked at.

    Attributes:
        scale: Factor that images are resized by before the model sees them; what is found is given in the pixels of
            the file.
        min_score: Objects that are less certain are dropped.
        classes: Objects of these class numbers only are kept; None keeps all.
        detections: The most objects of an image, for which the model must be set too (`limit_detections`); None leaves
            the model's own limit, which holds for each tile where there are several.
        work_folder: Where a streamed image's maps go that do not fit into memory, until it is done; None takes the
            system's place for temporary files.
        flips: Which flipped copies of an image are looked at too; then no image is streamed.
    """

    scale: float = 1.0
    min_score: float = 0.0
    classes: Collection[int] | None = None
    detections: int | None = None
    work_folder: Path | None = None
    flips: Flips = "none"


@dataclass(frozen=True)
class OnProgress:
    """Who is told how far an image is.

    Attributes:
        begin: Called with the (height, width) of the image before work begins.
        tile: Called after each tile with how many are done, and of how many.
        band: Called after each band of a streamed image with the share of its work that is done.
    """

    begin: Callable[[Size], None] = lambda size: None
    tile: Callable[[int, int], None] = lambda done, total: None
    band: Callable[[float], None] = lambda share: None


@dataclass(frozen=True, eq=False)
class Seen:
    """What was found in an image, in its own pixels.

    Attributes:
        tiles: How many parts it was looked at in.
        streamed: Whether it went through the model band by band; `tiles` is 1 then.
        objects: Of detectors.
        labels: (H, W) classes of pixels, of segmentation models.
        label_file: The same, where they are in a file: `labels` are mapped into memory then.
        valid: (H, W), where the image has pixels; None where it has all.
    """

    tiles: int
    streamed: bool = False
    objects: FoundObjects | None = None
    labels: NDArray[Any] | None = None
    label_file: LabelFile | None = None
    valid: Mask | None = None


def look(
    trained: Trained,
    reader: Reader,
    *,
    tiling: Tiling,
    device: torch.device,
    options: LookOptions,
    progress: OnProgress,
) -> Seen:
    """Look at an image that is open.

    Raises:
        ImageError: It cannot be read.
        ValueError: No tile fits into memory.
        MemoryError: There was less memory than was free before.
        WorkFolderError: Maps cannot be kept in the work folder.
    """
    size = reader.info.size
    progress.begin(size)
    is_streamed = options.scale == 1 and options.flips == "none"
    with tiling.limits(size):
        strategy = streaming_strategy(trained.model, size, tiling) if is_streamed else None
        if strategy is not None:
            return _look_streamed(trained, reader, strategy, device=device, options=options, progress=progress)
    return _look(trained, reader, tiling=tiling, device=device, options=options, progress=progress)


def _look_streamed(
    trained: Trained,
    reader: Reader,
    strategy: Streaming,
    *,
    device: torch.device,
    options: LookOptions,
    progress: OnProgress,
) -> Seen:
    model: Any = trained.model
    colours = {name: trained.preprocessing[name] for name in ("mean", "std")}
    in_bands: dict[str, Any] = {"work_folder": options.work_folder, "on_band": progress.band, **colours}
    with torch.autocast(device.type, enabled=False):  # row-wise execution writes into buffers of one type
        if trained.gives == "pixels":
            file, there = label_pixels_streamed(model, reader, strategy, **in_bands)
            own = None if there is None else there.array()
            return Seen(1, streamed=True, labels=file.array(), label_file=file, valid=own)
        found = find_objects_streamed(
            model, reader, strategy, min_score=options.min_score, classes=options.classes, **in_bands
        )
    return Seen(1, streamed=True, objects=where_rows_are(found, reader, trained.reading.model_channels))


def _look(
    trained: Trained,
    reader: Reader,
    *,
    tiling: Tiling,
    device: torch.device,
    options: LookOptions,
    progress: OnProgress,
) -> Seen:
    """Look at an image as a whole, or in tiles."""
    preprocessing = trained.preprocessing
    model: Any = with_flips(trained.model, options.flips)
    size = reader.info.size
    check_pixels(reader.info.name, size, MAX_PIXELS)
    image, valid = rasters.raster_and_valid(reader, trained.reading.model_channels)
    seen = resized(image, options.scale, interpolation=preprocessing["interpolation"])
    seen_size = rasters.size_of(seen)
    tiles = len(tiling.cut(seen_size))
    in_tiles: dict[str, Any] = {name: preprocessing[name] for name in ("mean", "std")}
    in_tiles |= {"tiling": tiling, "device": device, "on_tile": progress.tile}
    if trained.gives == "pixels":
        own = None if valid is None else _at_size(valid, seen_size)
        labels = _at_size(label_pixels(model, seen, valid=own, **in_tiles), size)
        return Seen(tiles, labels=without_missing(labels, valid, len(trained.classes or ())), valid=valid)
    wanted: dict[str, Any] = {"min_score": options.min_score, "classes": options.classes}
    found = find_objects(model, seen, detections=options.detections, **wanted, **in_tiles)
    objects = where_pixels_are(in_pixels_of(found, size, seen=seen_size), valid)
    return Seen(tiles, objects=objects, valid=valid)


def resized(image: Raster, scale: float, *, interpolation: str) -> Raster:
    """Return an image resized by a factor, as evaluation does.

    Raises:
        ImageError: It would have too many pixels.
    """
    if scale == 1:
        return image
    height, width = rasters.size_of(image)
    if width * scale * height * scale > MAX_PIXELS:
        raise ImageError(
            f"its {width}×{height} pixels, resized by {scale:g}, would be more than the limit of "
            f"{MAX_PIXELS:,}; choose a smaller scale"
        )
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return rasters.resized(image, size, interpolation)


def in_pixels_of(objects: FoundObjects, size: Size, *, seen: Size) -> FoundObjects:
    """Return objects of an image of (height, width) `seen` in the pixels of the same image of another size."""
    if seen == size:
        return objects
    factors = np.array([size[1] / seen[1], size[0] / seen[0]] * 2)
    masks = objects.masks
    if masks is not None:
        masks = [_resized_mask(mask, size) for mask in masks]
    return replace(objects, boxes=objects.boxes * factors, masks=masks)


def _resized_mask(rle: Rle, size: Size) -> Rle:
    mask = rle_to_mask(rle)
    rows, columns = nearest(mask.shape[0], size[0]), nearest(mask.shape[1], size[1])
    return mask_to_rle(mask[rows[:, None], columns])


def _at_size(plane: NDArray[Any], size: Size) -> NDArray[Any]:
    """Return an (H, W) array at another (height, width), of the nearest pixels."""
    rows, columns = nearest(plane.shape[0], size[0]), nearest(plane.shape[1], size[1])
    return plane if plane.shape == size else plane[rows[:, None], columns]
