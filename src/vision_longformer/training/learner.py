"""What a run changes step by step: the model, the average of its weights, and what its optimiser keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from vision_longformer.backbone import VisionLongformer
from vision_longformer.config import Windowed
from vision_longformer.training import checkpoints
from vision_longformer.training.checkpoints import Checkpoint
from vision_longformer.training.config import ScheduleOptions, TrainConfig
from vision_longformer.training.optimizers import build_optimizer, build_schedule

SMALLER_STEPS = (
    "Try a smaller optimizer.learning_rate, optimizer.clip_norm=1, or compute.precision=bfloat16 in place of float16"
)


class TrainingError(ValueError):
    """Training cannot go on; the message says why, and what is kept."""


class Learner:
    """A model with its optimiser, schedule, loss scaler and, if the recipe has one, its moving average.

    Attributes:
        model: On its device.
        to_use: What is evaluated and kept: the average if there is one, else the model.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, *, steps_per_epoch: int) -> None:
        device = next(model.parameters()).device
        self.model, self.clip_norm = model, config.optimizer.clip_norm
        if config.compute.gradient_checkpointing:
            _checkpoint(model, config.compute.checkpointed_stages)
        self.optimizer = build_optimizer(model, config.optimizer)
        self.schedule = build_schedule(
            self.optimizer,
            config.schedule,
            learning_rate=config.optimizer.learning_rate,
            steps_per_epoch=steps_per_epoch,
        )
        self.ema: ModelEmaV3 | None = None
        if config.optimizer.ema_decay is not None:  # random projections and the like are copied, not averaged
            self.ema = ModelEmaV3(model, decay=config.optimizer.ema_decay, exclude_buffers=True)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.compute.precision == "float16")

    @property
    def to_use(self) -> nn.Module:
        return self.model if self.ema is None else self.ema.module

    @property
    def learning_rate(self) -> float:
        """The largest of all parameters."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a part of a step."""
        self.scaler.scale(loss).backward()

    def update(self, step: int) -> None:
        """Follow the gradients, as the step after `step` others."""
        self.scaler.unscale_(self.optimizer)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model, step=step + 1)

    def tensors(self) -> dict[str, Tensor]:
        """Return all that a checkpoint needs, by the names that checkpoints have."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.module.state_dict().items()}
        state = checkpoints.optimizer_tensors(self.optimizer, self.model)
        return tensors | {f"optimizer.{name}": tensor for name, tensor in state.items()}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Become what a checkpoint holds.

        Raises:
            ValueError: It is of another model, or of another optimiser.
        """
        try:
            self.model.load_state_dict(checkpoint.part("model"))
            if self.ema is not None:
                self.ema.module.load_state_dict(checkpoint.part("ema"))
            checkpoints.restore_optimizer(self.optimizer, self.model, checkpoint.part("optimizer"))
            self.scaler.load_state_dict(checkpoint.about["scaler"])
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"it is of another model, or damaged ({' '.join(str(error).split())[:300]})") from error

    def check(self, step: int, *, kept: str) -> None:
        """Make sure that there is something to evaluate and to continue with.

        Args:
            step: Steps taken.
            kept: What there is of an earlier moment, for the message.

        Raises:
            TrainingError: A weight is no number any more.
        """
        for name, weight in self.model.named_parameters():
            if not weight.isfinite().all():
                raise TrainingError(
                    f"step {step}: weights are not numbers any more ({name}); training stopped, and {kept}. "
                    f"{SMALLER_STEPS}"
                )


def _checkpoint(model: nn.Module, stages: Sequence[int] | None) -> None:
    """Compute the activations of a model again in backward; those of some of its stages alone if they are named."""
    if stages is None:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
        return
    ours = [part for part in model.modules() if isinstance(part, VisionLongformer)]
    depth = max((len(part.stages) for part in ours), default=0)
    if any(stage > depth for stage in stages):
        has = f"the model has stages 1 to {depth}" if ours else "the model is none of this library"
        raise ValueError(f"compute.checkpointed_stages={list(stages)}: {has}")
    for part in ours:
        part.set_grad_checkpointing(True, stages=stages)


def set_neighbours(model: nn.Module, schedule: ScheduleOptions, *, step: int, steps: int) -> None:
    """Begin with random shift, if the recipe says so, and end it when its share of the run is over.

    Args:
        model: Has our backbones somewhere.
        schedule: Of the recipe.
        step: Steps taken.
        steps: Of the whole run.
    """
    if not schedule.random_shift:
        return
    wanted: Literal["all", "random"] = "all" if step >= schedule.random_shift_share * steps else "random"
    for part in model.modules():
        if isinstance(part, VisionLongformer):
            windowed: list[Any] = [s.attention for s in part.config.stages if isinstance(s.attention, Windowed)]
            if any(attention.neighbours != wanted for attention in windowed):
                part.set_neighbours(wanted)


def sum_of(losses: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of the parts of a loss."""
    return torch.stack(list(losses.values())).sum()
