"""How many images a training step can take, and whether their activations must be computed twice to fit.

The very step is run on fake tensors (see `activations`), with one image and with two: what a batch takes grows evenly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vision_longformer.attention import gathered
from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import ModelConfig
from vision_longformer.memory.activations import count_bytes, make_fake
from vision_longformer.memory.plans import PlanError, held_memory
from vision_longformer.utils.system_memory import gigabytes

OPTIMISER_STATES = 2  # of AdamW, for each parameter
# The backward pass of windowed attention gathers a band's queries, keys, values and their gradients in its operator.
WORKSPACE_BYTES = 6 * gathered.BAND_BYTES
COUNTED_SIDE = 1344  # pixels of the image that stands for all, where memory grows with the number of pixels
MOST = 4096  # images, beyond which no batch is looked for


@dataclass(frozen=True)
class TrainingForecast:
    """What a training step takes.

    Attributes:
        checkpointing: Whether the activations of blocks are computed again in the backward pass.
        held: Peak resident bytes of the process with an empty batch.
        image: Bytes of each image more.
        batch: The most images that fit; 0 if none does.
    """

    checkpointing: bool
    held: int
    image: int
    batch: int

    @property
    def memory(self) -> int:
        """Peak resident bytes of the process with this batch, or with one image if none fits."""
        return self.held + max(self.batch, 1) * self.image


@dataclass(frozen=True)
class TrainingPlan:
    """How to train.

    Attributes:
        size: (height, width) of the images in pixels.
        limit: Bytes that the process may take.
        forecasts: Without activation checkpointing, and with it.
        chosen: Without it if an image fits so, as it costs time.
    """

    size: tuple[int, int]
    limit: int
    forecasts: tuple[TrainingForecast, TrainingForecast]
    chosen: TrainingForecast


def plan_training(model: VisionLongformer, height: int, width: int, *, memory: int) -> TrainingPlan:
    """Find the largest batch of a training step in float32 with AdamW.

    Args:
        model: What is to be trained; it stays as it is.
        height: Of the images in pixels.
        width: Of the images in pixels.
        memory: Bytes that the process may hold at its peak, data loading aside.

    Raises:
        PlanError: Not even one image fits.
        ValueError: A size is below 1, or the model refuses it.
    """
    for field, value in (("height", height), ("width", width)):
        if value < 1:
            raise ValueError(f"{field}={value}: must be at least 1 pixel")
    size = height, width
    held = held_memory(model) + OPTIMISER_STATES * sum(p.numel() * p.itemsize for p in model.parameters())
    plain, checkpointed = (_forecast(model.config, size, held, memory, checkpointing=on) for on in (False, True))
    if not checkpointed.batch and not plain.batch:
        needed = min(plain.memory, checkpointed.memory)
        raise PlanError(
            f"a training step with one image of {width}×{height} pixels does not fit into {gigabytes(memory)}: allow "
            f"{gigabytes(1.01 * needed)} or more, take smaller images, or a smaller model",
            (),
        )
    return TrainingPlan(size, memory, (plain, checkpointed), plain if plain.batch else checkpointed)


def _forecast(
    config: ModelConfig, size: tuple[int, int], held: int, memory: int, *, checkpointing: bool
) -> TrainingForecast:
    one, two = (_step_peak(config, size, batch, checkpointing=checkpointing) for batch in (1, 2))
    image = max(two - one, 1)
    held += max(one - image, 0) + WORKSPACE_BYTES
    batch = min(max((memory - held) // image, 0), MOST)
    return TrainingForecast(checkpointing, held, image, batch)


def _step_peak(config: ModelConfig, size: tuple[int, int], batch: int, *, checkpointing: bool) -> int:
    """Return the bytes that the tensors of a step hold at its peak, gradients included, beside the parameters."""
    scale = 1.0
    if all(stage.is_local for stage in config.stages) and size[0] * size[1] > COUNTED_SIDE**2:
        scale = size[0] * size[1] / COUNTED_SIDE**2
        size = (COUNTED_SIDE, COUNTED_SIDE)
    with torch.device("meta"):
        model = VisionLongformer(config).train().float()
    model.set_grad_checkpointing(checkpointing)
    with FakeTensorMode():
        known = make_fake(model)
        model.requires_grad_(True)
        shape = (batch, config.in_chans, *size)
        step = count_bytes(lambda: model(torch.empty(shape, dtype=torch.float32)).sum().backward(), known=known)
    return round(step * scale)
