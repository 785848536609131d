"""Images with their objects or classes of pixels, as the tasks of dense prediction take them.

B images, n objects of an image, H×W batch
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.ops import masks_to_boxes
from torchvision.transforms import ColorJitter

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.labels import Split, What
from vision_longformer.datasets.loaders import Key
from vision_longformer.datasets.normalising import Colours
from vision_longformer.datasets.options import Recipe
from vision_longformer.datasets.semantic import IGNORE_INDEX, SemanticSplit, coco_label
from vision_longformer.datasets.transforms import (
    Augmentation,
    DenseSample,
    draw,
    fitted_size,
    image_to_tensor,
    transformed_boxes,
    transformed_map,
)
from vision_longformer.detection.boxes import Target
from vision_longformer.images import ImageError, Raster
from vision_longformer.images.rasters import size_of
from vision_longformer.masks.rle import Mask, segmentations_to_masks
from vision_longformer.padding import Size
from vision_longformer.segmentation.config import UNLABELLED
from vision_longformer.utils.seeding import seed_sample

MIN_SIDE = 1.0  # pixels of the box that a window or shrinking leaves of an object; thinner ones are dropped
Preprocessing = dict[str, Any]  # "mean", "std", "interpolation", "side", "max_side"; in weight files also "scale"


class DenseBatch(NamedTuple):
    """Images and what is on them.

    Attributes:
        images: (B, C, H, W), with zeros below and to the right of smaller images; see `normalising.images_of`.
        sizes: (height, width) of each image.
        targets: The objects of each; empty where classes of pixels are learned.
        semantic: (B, H, W) classes of pixels; None where objects are learned.
        indices: Of each image among those of the split.
        valid: Of each, (h, w) which pixels its file has, None where all; of images by number, in the file's size.
        colours: To normalise the images with.
        erased: Nothing.
    """

    images: Tensor
    sizes: list[Size]
    targets: list[Target]
    semantic: Tensor | None
    indices: list[int]
    valid: Sequence[Mask | None] = ()
    colours: Colours | None = None
    erased: tuple[()] = ()


class DenseImages(Dataset[Any]):
    """Images by number, or by `Key` and then augmented with the randomness that belongs to it.

    Args:
        split: The images.
        config: Of the run; None where nothing is augmented.
        preprocessing: See `Preprocessing`.
        learned: What is read with the images of keys.
        max_pixels: Refuse larger images.
    """

    def __init__(
        self,
        split: Split,
        config: Recipe | None,
        preprocessing: Preprocessing,
        *,
        learned: What = "boxes",
        max_pixels: int,
    ) -> None:
        self.split, self.config, self.preprocessing = split, config, preprocessing
        self.learned, self.max_pixels = learned, max_pixels
        self._colours = Colours.of(preprocessing["mean"], preprocessing["std"])

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: Key | int) -> tuple[DenseSample, int] | str:
        index = key.image if isinstance(key, Key) else key
        try:
            image, valid = self.split.read_and_valid(index, max_pixels=self.max_pixels)
            if isinstance(key, Key):
                return self._augmented(image, valid, key), index
            pixels = self._pixels(image, self.whole(index))
            return DenseSample(pixels, torch.empty(0, 4, dtype=torch.float32), torch.empty(0), valid=valid), index
        except ImageError as error:
            return str(error)

    def whole(self, index: int) -> Augmentation:
        """Return how an image is resized for evaluation."""
        return Augmentation(evaluation_size(self.size(index), self.preprocessing))

    def size(self, index: int) -> Size:
        """Return an image's (height, width) in pixels."""
        height, width = self.split.sizes[index].tolist()
        return height, width

    def _augmented(self, image: Raster, valid: Mask | None, key: Key) -> DenseSample:
        assert self.config is not None
        dense, augmentation = self.config.dense, self.config.augmentation
        seed_sample(self.config.seed, epoch=key.epoch, image=key.image, repeat=key.repeat)
        how = draw(
            size_of(image),
            sides=dense.sides,
            max_side=dense.max_side,
            scale=dense.scale,
            crop=dense.crop,
            horizontal_flip=augmentation.horizontal_flip,
            vertical_flip=augmentation.vertical_flip,
        )
        return self._sample(
            self.split,
            key.image,
            image,
            how,
            label=partial(read_label, self.split, key.image, valid=valid, max_pixels=self.max_pixels),
        )

    def _sample(
        self, split: Split, index: int, image: Raster, how: Augmentation, *, label: Callable[[], NDArray[np.int64]]
    ) -> DenseSample:
        """Return an image of a split and what is on it, as it is to be seen; `label` gives classes of pixels."""
        assert self.config is not None
        size, jitter = size_of(image), self.config.augmentation.color_jitter
        if jitter and isinstance(image, Image.Image):
            image = ColorJitter(*(jitter,) * 3)(image)
        pixels = self._pixels(image, how)
        if self.learned == "classes":
            classes = transformed_map(label(), how)
            return DenseSample(pixels, torch.empty(0, 4, dtype=torch.float32), torch.empty(0), semantic=classes)
        assert isinstance(split, CocoSplit)
        return self._with_objects(split, pixels, index, size, how)

    def _with_objects(self, split: CocoSplit, pixels: Tensor, index: int, size: Size, how: Augmentation) -> DenseSample:
        places = np.array([place for place in split.annotations(index) if not split.is_crowd[place]], np.int64)
        boxes = transformed_boxes(split.boxes[places], size, how)
        left = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(dim=1)
        places, boxes = places[left.numpy()], boxes[left]
        masks = None
        if self.learned == "masks":
            assert split.segmentations is not None
            drawn = segmentations_to_masks(split.segmentations, places.tolist(), size, resized=how.size)
            masks = transformed_map(drawn, how).bool()
            seen = masks.flatten(1).any(dim=1)
            places, boxes, masks = places[seen.numpy()], boxes[seen], masks[seen]
            if how.window is not None and len(masks):  # what is left of an object may be smaller than its cut box
                boxes = masks_to_boxes(masks)
                boxes[:, 2:] += 1  # torchvision's are the last pixels
        return DenseSample(pixels, boxes, torch.from_numpy(split.labels[places]), masks)

    def _pixels(self, image: Raster, how: Augmentation) -> Tensor:
        return image_to_tensor(image, how, interpolation=self.preprocessing["interpolation"])

    def collate(self, entries: list[tuple[DenseSample, int] | str]) -> DenseBatch | str:
        """Return a batch, or what is wrong with an image."""
        samples, indices = [], []
        for entry in entries:
            if isinstance(entry, str):
                return entry
            samples.append(entry[0])
            indices.append(entry[1])
        sizes: list[Size] = [(sample.image.shape[1], sample.image.shape[2]) for sample in samples]
        height, width = (max(lengths) for lengths in zip(*sizes, strict=True))
        images = samples[0].image.new_zeros(len(samples), len(samples[0].image), height, width)
        semantic = None
        if samples[0].semantic is not None:
            semantic = torch.full((len(samples), height, width), IGNORE_INDEX)
        for number, (sample, (own_height, own_width)) in enumerate(zip(samples, sizes, strict=True)):
            images[number, :, :own_height, :own_width] = sample.image
            if semantic is not None:
                assert sample.semantic is not None
                semantic[number, :own_height, :own_width] = sample.semantic
        valid = [sample.valid for sample in samples]
        targets = [Target(sample.boxes, sample.labels, sample.masks) for sample in samples]
        targets = [] if semantic is not None else targets
        return DenseBatch(images, sizes, targets, semantic, indices, valid, self._colours)


def evaluation_size(size: Size, preprocessing: Preprocessing) -> Size:
    """Return the (height, width) at which a model sees an image of `size` outside of training."""
    side = preprocessing["side"]
    return size if side is None else fitted_size(size, side=side, max_side=preprocessing["max_side"])


def read_label(split: Split, index: int, *, valid: Mask | None = None, max_pixels: int) -> NDArray[np.int64]:
    """Return the (H, W) classes of an image's pixels, and `UNLABELLED` where they have none.

    Args:
        split: The images.
        index: Of an image.
        valid: (H, W) which pixels the image has; None where it has all. The others have no class, whatever is drawn.
        max_pixels: Refuse larger labels.

    Raises:
        ImageError: The label cannot be read.
    """
    if isinstance(split, SemanticSplit):
        label = split.read_label(index, max_pixels=max_pixels)
        if split.coding.ignored is not None:
            label[label == split.coding.ignored] = UNLABELLED
    else:
        label = coco_label(split, index)
    if valid is not None:
        if valid.shape != label.shape:
            raise ImageError(f"{split.path(index)}: its label has another size; it had the same when it was checked")
        label[~valid] = UNLABELLED
    return label


def training_scale(sizes: Sequence[Size], preprocessing: Preprocessing) -> float:
    """Return the factor by which evaluation resizes images of (height, width) `sizes`; where it differs, the median."""
    return float(median(evaluation_size(size, preprocessing)[0] / size[0] for size in sizes))
