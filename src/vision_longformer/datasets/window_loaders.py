"""Random windows of large images, as training takes them: nothing else of the images is decoded."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from vision_longformer.datasets.dense_loaders import DenseImages, Preprocessing, read_label
from vision_longformer.datasets.labels import Split, What
from vision_longformer.datasets.loaders import Key
from vision_longformer.datasets.options import Recipe
from vision_longformer.datasets.transforms import Augmentation, DenseSample
from vision_longformer.datasets.window_sampling import WindowSampler
from vision_longformer.datasets.windows import place_of, read_part, windows_of
from vision_longformer.images import ImageError, Raster
from vision_longformer.images.rasters import size_of
from vision_longformer.images.reader import Mask
from vision_longformer.utils.seeding import seed_sample

TRIES = 12  # windows that are looked at in search of one that is not mostly missing
WANTED = 0.5  # share of its pixels that must be there


class WindowImages(DenseImages):
    """Windows by `Key`, whose `image` numbers the windows of an epoch. Which window that is, is drawn from the key.

    Where most of a window's pixels are missing, another one is drawn; the best of a few is taken.

    Args:
        split: Of whole images.
        config: Of the run.
        preprocessing: See `Preprocessing`.
        sampler: Draws windows.
        learned: See `DenseImages`, as for the next.
        max_pixels: See there.
    """

    def __init__(
        self,
        split: Split,
        config: Recipe,
        preprocessing: Preprocessing,
        *,
        sampler: WindowSampler,
        learned: What,
        max_pixels: int,
    ) -> None:
        super().__init__(split, config, preprocessing, learned=learned, max_pixels=max_pixels)
        self.sampler = sampler

    def __getitem__(self, key: Key | int) -> tuple[DenseSample, int] | str:
        assert isinstance(key, Key)
        assert self.config is not None
        seed_sample(self.config.seed, epoch=key.epoch, image=key.image, repeat=key.repeat)
        try:
            return self._drawn()
        except ImageError as error:
            return str(error)

    def _drawn(self) -> tuple[DenseSample, int]:
        """Return a window as it is to be seen, and the number of its image."""
        assert self.config is not None
        dense, augmentation = self.config.dense, self.config.augmentation
        assert dense.window is not None
        flip, upside_down, place = torch.rand(3, dtype=torch.float64).tolist()
        factor = dense.scale[0] * (dense.scale[1] / dense.scale[0]) ** place
        chosen, image, valid = self._choose(max(1, round(dense.window / factor)))
        windows = windows_of(self.split, chosen[None])
        height, width = size_of(image)
        how = Augmentation(
            (max(1, round(height * factor)), max(1, round(width * factor))),
            flip < augmentation.horizontal_flip,
            upside_down < augmentation.vertical_flip,
        )
        label = partial(read_label, windows, 0, valid=valid, max_pixels=self.max_pixels)
        sample = self._sample(windows, 0, image, how, label=label)
        return sample, int(chosen[0])

    def _choose(self, side: int) -> tuple[NDArray[np.int64], Raster, Mask | None]:
        """Draw windows until most of one is there; return the best one, its pixels, and which of them are valid."""
        numbers = torch.rand(TRIES, 4, dtype=torch.float64).numpy()  # as many, however many are needed
        best: tuple[float, NDArray[np.int64], Raster, Mask | None] | None = None
        for own in numbers:
            window = self.sampler.draw(own, side)
            number, part = place_of(window)
            upright = bool(self.split.upright[number])
            image, valid = read_part(
                self.split.path(number), part, reading=self.split.reading, upright=upright, max_pixels=self.max_pixels
            )
            share = 1.0 if valid is None else float(valid.mean())
            if best is None or share > best[0]:
                best = share, window, image, valid
            if share >= WANTED:
                break
        assert best is not None
        return best[1:]
