"""What detectors and segmentation models find in image files of any size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.detection.streamed.find_objects import find_objects_streamed, streaming_strategy
from vision_longformer.detection.tiled import find_objects
from vision_longformer.features.small_pictures import small_photograph
from vision_longformer.images import (
    MAX_PIXELS,
    ImageError,
    Raster,
    as_rgb,
    describe_image,
    open_reader,
    rasters,
    read_raster,
)
from vision_longformer.masks.rle import Rle, mask_to_rle, nearest, rle_to_mask
from vision_longformer.padding import Size
from vision_longformer.segmentation.tiled import label_pixels
from vision_longformer.streaming.maps import WorkFolderError
from vision_longformer.tiling.choosing import Tiling
from vision_longformer.training.trained import Trained

PICTURE_WIDTH = 4096  # pixels


@dataclass(frozen=True, eq=False)
class DensePrediction:
    """What was found in an image.

    Attributes:
        path: The image.
        image: Its pixels, RGB, turned upright; of a streamed image that is larger than `PICTURE_WIDTH`, a smaller
            picture; None if it cannot be read.
        size: (height, width) of the image in pixels.
        tiles: How many parts it was looked at in.
        streamed: Whether it went through the model band by band, which leaves no seam; `tiles` is 1 then.
        objects: Of detectors.
        labels: (H, W) classes of pixels, of segmentation models.
        error: Why there is nothing; "" if there is.
    """

    path: Path
    image: Image.Image | None = None
    size: Size = (0, 0)
    tiles: int = 0
    streamed: bool = False
    objects: FoundObjects | None = None
    labels: NDArray[Any] | None = None
    error: str = ""


def predict_dense(
    trained: Trained,
    paths: Sequence[Path],
    *,
    tiling: Tiling,
    device: torch.device,
    scale: float,
    min_score: float = 0.0,
    classes: Collection[int] | None = None,
    detections: int | None = None,
    work_folder: Path | None = None,
    on_tile: Callable[[int, int], None] = lambda done, total: None,
    on_band: Callable[[float], None] = lambda share: None,
) -> Iterator[DensePrediction]:
    """Look at image files, one after the other.

    An image that does not fit into memory is streamed where the model allows it, nothing is resized and no tiles were
    asked for; else it is cut into tiles. A streamed image is read by rows if its format allows that.

    Args:
        trained: See `load_weights`.
        paths: Image files.
        tiling: Which tiles to look at.
        device: Where the model is.
        scale: Factor that images are resized by before the model sees them; what is found is given in the pixels of
            the file.
        min_score: Drop objects that are less certain.
        classes: Keep objects of these class numbers only; None keeps all.
        detections: The most objects of an image, for which the model must be set too (`set_detections`); None leaves
            the model's own limit, which holds for each tile where there are several.
        work_folder: Where a streamed image's maps go that do not fit into memory, until it is done; None takes the
            system's place for temporary files.
        on_tile: Called after each tile with how many of the image's are done, and of how many.
        on_band: Called after each band of a streamed image with the share of its work that is done.
    """
    preprocessing = trained.preprocessing
    common: dict[str, Any] = {"mean": preprocessing["mean"], "std": preprocessing["std"]}
    wanted: dict[str, Any] = {"min_score": min_score, "classes": classes}
    model: Any = trained.model
    reading = trained.reading

    def stream(path: Path) -> DensePrediction | None:
        info = describe_image(path, reading=reading)
        size = (info.height, info.width)
        if scale != 1 or (strategy := streaming_strategy(model, size, tiling)) is None:
            return None
        # row-wise execution writes into buffers of one type
        in_float32 = torch.autocast(device.type, enabled=False)
        with in_float32, contextlib.closing(open_reader(path, **vars(reading))) as reader:
            found = find_objects_streamed(
                model, reader, strategy, work_folder=work_folder, on_band=on_band, **wanted, **common
            )
            picture = Image.fromarray(small_photograph(reader, len(common["mean"]), max_width=PICTURE_WIDTH).numpy())
        return DensePrediction(path, picture, size, 1, streamed=True, objects=found)

    def look(path: Path) -> DensePrediction:
        if (streamed := stream(path)) is not None:
            return streamed
        image = read_raster(path, reading=reading)
        size = rasters.size_of(image)
        seen = resized(image, scale, interpolation=preprocessing["interpolation"])
        seen_size = rasters.size_of(seen)
        tiles = len(tiling.cut(seen_size))
        in_tiles: dict[str, Any] = {"tiling": tiling, "device": device, "on_tile": on_tile, **common}
        if trained.gives == "pixels":
            labels = _labels_of_file(label_pixels(model, seen, **in_tiles), size)
            return DensePrediction(path, as_rgb(image), size, tiles, labels=labels)
        found = find_objects(model, seen, detections=detections, **wanted, **in_tiles)
        return DensePrediction(path, as_rgb(image), size, tiles, objects=in_pixels_of(found, size, seen=seen_size))

    for path in paths:
        try:
            yield look(path)
        except (ImageError, MemoryError, ValueError, WorkFolderError) as error:
            text = str(error)
            yield DensePrediction(path, error=text if text.startswith(str(path)) else f"{path}: {text}")


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


def _labels_of_file(labels: NDArray[Any], size: Size) -> NDArray[Any]:
    rows, columns = nearest(labels.shape[0], size[0]), nearest(labels.shape[1], size[1])
    return labels if labels.shape == size else labels[rows[:, None], columns]
