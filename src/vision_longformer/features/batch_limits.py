"""How many images go through a model at once, and how many are decoded ahead, within the memory that is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from vision_longformer.backbone import VisionLongformer
from vision_longformer.features.batches import AUTO, AUTO_PIXELS, WINDOWS, group
from vision_longformer.images import Pixels
from vision_longformer.memory.plans import Forecast, Plan, batch_bytes, held_memory, largest_batch
from vision_longformer.padding import Size
from vision_longformer.utils.system_memory import default_bound

SHARE_DECODED = 0.25  # of the memory that is free, for decoded images
STEP = 32  # pixels: sides are rounded up to multiples of this to ask what fits


class BatchLimits:
    """The limits of batches.

    Args:
        model: In evaluation mode.
        stages: Whose maps are kept, counted from 1.
        batch: Most images of a batch; "auto" takes `AUTO`, or fewer of large ones.
        memory: Bytes that the process may hold, or PyTorch on a GPU; None for what is held and 60% of what is free.

    Attributes:
        window: Images among which those of like size are put together.
        ahead: Images that are decoded ahead of a window.
        most_pixels: Larger images are not decoded ahead, and go alone.

    Raises:
        ValueError: `batch` is below 1.
    """

    def __init__(
        self,
        model: VisionLongformer,
        *,
        stages: Sequence[int],
        batch: int | Literal["auto"] = "auto",
        memory: int | None = None,
    ) -> None:
        if batch != "auto" and batch < 1:
            raise ValueError(f'batch={batch}: must be at least 1, or "auto"')
        parameter = next(model.parameters())
        self._config, self._stages, self._itemsize = model.config, tuple(stages), parameter.dtype.itemsize
        self._batch = AUTO if batch == "auto" else batch
        self._pixels = AUTO_PIXELS if batch == "auto" else None
        self.window, self.ahead = WINDOWS * self._batch, self._batch
        held = held_memory(model)
        bound = default_bound(parameter.device) if memory is None else max(0, memory - held)
        decoded = SHARE_DECODED * (bound if parameter.device.type == "cpu" else default_bound(torch.device("cpu")))
        self.held = held
        self.memory = bound if parameter.device.type != "cpu" else int(bound - decoded)
        self.most_pixels = int(decoded / (self.window + self.ahead) / self._pixel_bytes())
        if self._pixels is not None:
            self.most_pixels = min(self.most_pixels, self._pixels)
        self._largest: dict[Size, int] = {}

    def _pixel_bytes(self) -> float:
        """Return what a decoded image takes for each of its pixels, its features included."""
        config = self._config
        values = sum(config.stages[stage - 1].width / config.strides[stage - 1] ** 2 for stage in self._stages)
        return 4 * config.in_chans + 1 + self._itemsize * values

    def most(self, size: Size) -> int:
        """Return how many images a batch of (height, width) `size` may have; 0 if there is no room for one."""
        rounded = (-(-size[0] // STEP) * STEP, -(-size[1] // STEP) * STEP)
        if rounded not in self._largest:
            most = self._batch
            if self._pixels is not None:
                most = max(1, min(most, self._pixels // (rounded[0] * rounded[1])))
            self._largest[rounded] = largest_batch(
                self._config,
                rounded,
                most=most,
                memory=self.memory,
                stages=self._stages,
                itemsize=self._itemsize,
            )
        return self._largest[rounded]

    def plan(self, pixels: Sequence[Pixels]) -> Plan:
        """Return the plan by which images go through the model in one batch."""
        sizes = [(one.valid.shape[0], one.valid.shape[1]) for one in pixels]
        height, width = (max(lengths) for lengths in zip(*sizes, strict=True))
        of_pass = batch_bytes(
            self._config, (height, width), batch=len(sizes), stages=self._stages, itemsize=self._itemsize
        )
        decoded = (self.window + self.ahead) * max(h * w for h, w in sizes) * self._pixel_bytes()
        forecast = Forecast("whole", self.held + int(decoded) + of_pass, 0, None, None)
        return Plan((height, width), self.held + self.memory, (forecast,), forecast)

    def group(self, pixels: Sequence[Pixels]) -> list[list[int]]:
        """Return the positions of the images of each batch; see `batches.group`."""
        return group([(one.valid.shape[0], one.valid.shape[1]) for one in pixels], most=self.most)
