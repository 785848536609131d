"""The time of a training step of every model of the study, in one process and in turn, so that a busy moment of the
machine strikes all of them alike."""

from __future__ import annotations

import functools
import json
import statistics
from pathlib import Path

import torch
from study_models import CLASSES, MODELS, SIZE
from torch import Tensor, nn

from vision_longformer.backbone import VisionLongformer
from vision_longformer.benchmarking.machine import machine_line
from vision_longformer.benchmarking.timing import interleaved
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.optimizers import build_optimizer
from vision_longformer.training.recipes import build, read_recipe

REPEATS = 9


def measure_steps(recipe: Path, output: Path) -> None:
    """Time forward, backward, clipping and update as the recipe has them; write OUTPUT/steps.json."""
    config = build(read_recipe(recipe))
    torch.set_num_threads(config.compute.threads or torch.get_num_threads())
    torch.use_deterministic_algorithms(True)
    images = torch.randn(config.compute.batch_size, 3, SIZE, SIZE)
    labels = torch.arange(config.compute.batch_size) % CLASSES
    steps = {}
    for name, entry in MODELS.items():
        model = entry.build().train()
        if entry.random_shift and isinstance(model, VisionLongformer):
            model.set_neighbours("random")
        optimizer = build_optimizer(model, config.optimizer)
        steps[name] = functools.partial(_step, model, optimizer, images, labels, config)
    seconds = interleaved(steps, repeats=REPEATS)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    found = {"machine": machine_line(), "batch_size": config.compute.batch_size, "seconds": medians}
    (output / "steps.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, config: TrainConfig
) -> None:
    smoothing, clip_norm = config.optimizer.label_smoothing, config.optimizer.clip_norm
    nn.functional.cross_entropy(model(images), labels, label_smoothing=smoothing).backward()
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
