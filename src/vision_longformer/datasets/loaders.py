"""Images as a model takes them: augmented in training, cropped in evaluation, read by other processes."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageOps
from timm.data import auto_augment, create_transform
from timm.data.transforms import str_to_interp_mode
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from vision_longformer.datasets.classification import Samples
from vision_longformer.datasets.normalising import Colours, Erased, Unnormalised
from vision_longformer.datasets.options import AugmentationOptions, InputOptions
from vision_longformer.images import ImageError, read_raster
from vision_longformer.images.rasters import unit_tensor
from vision_longformer.utils.seeding import seed_sample


class Key(NamedTuple):
    """An image to be augmented in its own way."""

    epoch: int
    image: int
    repeat: int


class Batch(NamedTuple):
    """Images and what is known of them."""

    images: Tensor  # (B, C, H, W), see `normalising.images_of`
    labels: Tensor  # (B,)
    indices: list[int]  # of each image among the samples
    colours: Colours | None = None
    erased: Sequence[tuple[int, Erased]] = ()
    sizes: None = None  # all have the same


def training_transform(options: InputOptions, augmentation: AugmentationOptions, *, mean: Any, std: Any) -> Any:
    """Return what turns an image into an augmented (C, size, size) tensor, where C channels have a mean.

    Images of other than three channels are arrays, see `images.rasters`, and have no augmentation of colours.
    """
    photographs = len(mean) == 3
    transform = create_transform(
        options.size,
        is_training=True,
        scale=augmentation.crop_scale,
        ratio=augmentation.crop_ratio,
        hflip=augmentation.horizontal_flip,
        vflip=augmentation.vertical_flip,
        color_jitter=(augmentation.color_jitter or None) if photographs else None,
        auto_augment=augmentation.rand_augment if photographs else None,
        interpolation=options.interpolation,
        mean=mean,
        std=std,
        re_prob=augmentation.erasing,
        re_mode="pixel",
    )
    if augmentation.crop == "plain":
        whole = round(options.size / kept_share(options))
        resize = transforms.Resize(whole, interpolation=str_to_interp_mode(options.interpolation))
        transform.transforms[:1] = [resize, transforms.RandomCrop(options.size)]
    for step in transform.transforms:
        for operation in getattr(step, "ops", ()):
            if getattr(operation, "aug_fn", None) is auto_augment.posterize:
                operation.aug_fn = _posterize
    return transform if photographs else _of_arrays(transform)


def _of_arrays(transform: Any) -> Any:
    """Return a transform of (C, H, W) tensors for (H, W, C) arrays."""
    return transforms.Compose([unit_tensor, *transform.transforms])


def _posterize(image: Image.Image, bits: int, **_options: Any) -> Image.Image:
    """Keep some bits of each value; none at all is black, which Pillow refuses and timm asks for at full strength."""
    return ImageOps.posterize(image, bits) if bits >= 1 else Image.new(image.mode, image.size)


def kept_share(options: InputOptions) -> float:
    """Return the share of an image's shorter side that is kept."""
    return options.crop_share or (0.922 if options.size >= 384 else 0.875)


def evaluation_transform(*, size: int, crop_share: float, interpolation: str, mean: Any, std: Any) -> Any:
    """Return what turns an image into the (C, size, size) tensor of its centre. See `training_transform`."""
    transform = create_transform(size, crop_pct=crop_share, interpolation=interpolation, mean=mean, std=std)
    return transform if len(mean) == 3 else _of_arrays(transform)


class Sample(NamedTuple):
    """An image of a batch; see `normalising.Unnormalised`."""

    image: Tensor
    erased: Erased | None
    label: int
    number: int


class Images(Dataset[Any]):
    """Images by number, or by `Key` and then augmented with the randomness that belongs to it.

    Args:
        samples: The images.
        transform: Of one to the (C, H, W) tensor that a model takes. Its normalisation is left to `images_of`.
        seed: Of what is random.
        max_pixels: Refuse larger images.
    """

    def __init__(
        self,
        samples: Samples,
        transform: Any,
        *,
        seed: int,
        max_pixels: int,
    ) -> None:
        self.samples, self.seed, self.max_pixels = samples, seed, max_pixels
        self.transform = Unnormalised(transform)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key | int) -> Sample | str:
        index = key.image if isinstance(key, Key) else key
        try:
            image = read_raster(self.samples.paths[index], reading=self.samples.reading, max_pixels=self.max_pixels)
        except ImageError as error:
            return str(error)
        if isinstance(key, Key):
            seed_sample(self.seed, epoch=key.epoch, image=key.image, repeat=key.repeat)
        try:
            return Sample(*self.transform(image), self.samples.labels[index], index)
        except (ArithmeticError, LookupError, OSError, RuntimeError, ValueError) as error:
            return f"{self.samples.paths[index]}: cannot be augmented ({error})"

    def collate(self, entries: list[Sample | str]) -> Batch | str:
        """Return a batch, or what is wrong with an image."""
        samples = list[Sample]()
        for entry in entries:
            if isinstance(entry, str):
                return entry
            samples.append(entry)
        images, erased, labels, indices = zip(*samples, strict=True)
        parts = tuple((number, part) for number, part in enumerate(erased) if part is not None)
        return Batch(torch.stack(images), torch.tensor(labels), list(indices), self.transform.colours, parts)


def batches(images: Dataset[Any], keys: Iterable[list[Any]], *, workers: int, pin: bool) -> Iterator[Any]:
    """Read batches in the order of `keys`, ahead of their use.

    Args:
        images: Its entries are put together by its method `collate`, which returns a sentence where one cannot be
            read: an exception would arrive from another process as a traceback.
        keys: Of each batch.
        workers: Processes that read; 0 reads here.
        pin: Into memory that GPUs copy from quickly.

    Raises:
        ImageError: An image cannot be read; names it.
    """
    loader = DataLoader(
        images,
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=images.collate,  # type: ignore[attr-defined]
        pin_memory=pin,
        worker_init_fn=_leave_signals_to_the_trainer,
    )
    for batch in loader:
        if isinstance(batch, str):
            raise ImageError(batch)
        yield batch


def _leave_signals_to_the_trainer(_worker: int) -> None:
    """Ctrl-C reaches every process of the terminal, SIGTERM often every process of a job.

    The trainer finishes its step with the batches of these, and ends them itself.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
