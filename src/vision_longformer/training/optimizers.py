"""Parameter groups, optimisers and the schedule of the learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from vision_longformer.training.config import OptimizerOptions, ScheduleOptions


class QHM(Optimizer):
    """Quasi-hyperbolic momentum (Ma and Yarats, arXiv 1810.06801).

    m ← βm + (1 − β)g, starting from 0; x ← x − lr·((1 − ν)g + νm). With ν = 1 it is momentum whose first step is as
    small as (1 − β) makes it, which torch's SGD with dampening leaves out.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        beta: float = 0.9,
        nu: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "nu": nu, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad
                if group["weight_decay"]:
                    gradient = gradient.add(parameter, alpha=group["weight_decay"])
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                momentum: Tensor = state["momentum_buffer"]
                momentum.lerp_(gradient, 1 - group["beta"])
                parameter.add_(gradient, alpha=-group["lr"] * (1 - group["nu"]))
                parameter.add_(momentum, alpha=-group["lr"] * group["nu"])
        return loss


def build_optimizer(model: nn.Module, options: OptimizerOptions) -> Optimizer:
    """Build the optimiser of a model, with weight decay and layer-wise learning rates where they belong.

    Raises:
        ValueError: The model has no layers that learning rates could follow.
    """
    decay: dict[str, Any] = {
        "weight_decay": options.weight_decay,
        "no_weight_decay_list": undecayed(model),
        "weight_decay_exclude_1d": False,
    }
    if options.layer_decay == 1:
        groups = param_groups_weight_decay(model, **decay)
    elif hasattr(model, "group_matcher"):
        groups = param_groups_layer_decay(model, layer_decay=options.layer_decay, **decay)
    else:
        raise ValueError(f"optimizer.layer_decay={options.layer_decay}: is for classifiers; leave it at 1")
    match options.name:
        case "adamw":
            settings: dict[str, Any] = {"betas": options.betas, "weight_decay": options.weight_decay}
            # on GPUs in one kernel, not in several for each step of its arithmetic
            fused = True if all(parameter.is_cuda for parameter in model.parameters()) else None
            return AdamW(groups, lr=options.learning_rate, fused=fused, **settings)
        case "qhm":
            return QHM(groups, options.learning_rate, beta=options.momentum, nu=options.nu)
        case "sgd":
            return SGD(groups, lr=options.learning_rate, momentum=options.momentum, nesterov=options.momentum > 0)


def undecayed(model: nn.Module) -> list[str]:
    """Return the names of parameters without weight decay.

    Norms, the classifier's bias, and what the model names itself: position tables and global tokens of ours.
    """
    norms = [
        f"{name}.{parameter}" if name else parameter
        for name, module in model.named_modules()
        if "Norm" in type(module).__name__
        for parameter, _ in module.named_parameters(recurse=False)
    ]
    named = cast(Callable[[], Iterable[str]], getattr(model, "no_weight_decay", list))()
    get_classifier = getattr(model, "get_classifier", None)
    classifier = get_classifier() if get_classifier is not None else None
    head = [name for name, parameter in model.named_parameters() if parameter is getattr(classifier, "bias", None)]
    return sorted({*norms, *named, *head})


def build_schedule(
    optimizer: Optimizer, options: ScheduleOptions, *, learning_rate: float, steps_per_epoch: int
) -> CosineLRScheduler | MultiStepLRScheduler:
    """Build the schedule: linear warm-up, then a cosine or drops, by step.

    A step's learning rate follows from its number alone.
    """
    steps = options.epochs * steps_per_epoch
    warmup: dict[str, Any] = {
        "warmup_t": int(min(options.warmup_epochs, options.epochs) * steps_per_epoch),
        "warmup_lr_init": options.warmup_factor * learning_rate,
        "t_in_epochs": False,
    }
    if options.drops is not None:
        decay_t = [round(share * steps) + 1 for share in options.drops]  # timm counts steps from 1 here, and only here
        return MultiStepLRScheduler(optimizer, decay_t=decay_t, decay_rate=0.1, warmup_prefix=False, **warmup)
    final = min(options.final_learning_rate, learning_rate)
    return CosineLRScheduler(optimizer, t_initial=max(steps, 2), lr_min=final, **warmup)
