"""Tiny data sets, recipes and runs that the tests of training share."""

from __future__ import annotations

import copy
import csv
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vision_longformer import Full, ModelConfig, Performer, StageConfig, Windowed
from vision_longformer.config import Attention
from vision_longformer.training import checkpoints
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.events import Event
from vision_longformer.training.recipes import build
from vision_longformer.training.trainer import train
from vision_longformer.training.weight_files import load_weights
from vision_longformer.utils.distributed import Processes

CLASSES = ("blue", "green", "red")
HEIGHT, WIDTH = 20, 24
SIZE = 24
WHAT_TAKES_TIME = ("images_per_second",)


def make_images(folder: Path, *, train: int = 7, val: int = 3, classes: tuple[str, ...] = CLASSES) -> Path:
    """Write `train` and `val` images of coloured noise for each class, in class folders."""
    for split, count in (("train", train), ("val", val)):
        for number, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for image in range(count):
                generator = np.random.default_rng([number, image, split == "train"])
                pixels = generator.integers(0, 160, (HEIGHT, WIDTH, 3))
                pixels[..., number % 3] += 60
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{image}.png")
    return folder


def write_bands(path: Path, values: NDArray[np.uint16]) -> None:
    """Write (H, W, C) values as a TIFF of so many bands, none of which is opacity."""
    if values.shape[2] == 1:
        tifffile.imwrite(path, values[..., 0], photometric="minisblack")
        return
    others = [0] * (values.shape[2] - 1)
    tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig", extrasamples=others)


def make_csv(
    path: Path, rows: list[tuple[str, str, str]], header: tuple[str, ...] = ("path", "label", "split")
) -> Path:
    """Write a CSV file of labelled images."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([header, *rows])
    return path


def tiny(*attention: Attention, num_global_tokens: int = 1) -> dict[str, Any]:
    """Return the configuration of a model of three small stages, as a recipe has it."""
    mechanisms = attention or (Windowed(window_size=2), Performer(num_features=5), Full())
    stages = tuple(
        StageConfig(
            depth=1,
            width=8,
            num_heads=2,
            patch_size=4 if number == 0 else 2,
            num_global_tokens=num_global_tokens,
            position="none" if isinstance(mechanism, Performer) else "relative",
            attention=mechanism,
        )
        for number, mechanism in enumerate(mechanisms)
    )
    return json.loads(json.dumps(ModelConfig(stages, image_size=(SIZE, SIZE)).to_dict()))  # type: ignore[no-any-return]


def recipe(**groups: Mapping[str, Any] | int) -> TrainConfig:
    """Return the recipe of a short run in which every random stream matters; `groups` override its options.

    Three epochs of four steps: 21 images by 6, the last step of an epoch has 3.
    """
    values: dict[str, Any] = {
        "model": {
            "name": "vision_longformer_nano",
            "options": {"config": tiny()},
            "drop_rate": 0.1,
            "drop_path_rate": 0.3,
        },
        "input": {"size": SIZE, "check": "none"},
        "augmentation": {"erasing": 0.5},
        "optimizer": {"learning_rate": 1e-2, "clip_norm": 0.2, "ema_decay": 0.8, "layer_decay": 0.9},
        "schedule": {"epochs": 3, "warmup_epochs": 1, "random_shift": True, "random_shift_share": 0.6},
        "compute": {"batch_size": 6, "workers": 0, "threads": 1, "device": "cpu"},
        "logging": {"every_steps": 1},
    }
    values = copy.deepcopy(values)
    for group, options in groups.items():
        if isinstance(options, Mapping):
            values[group] = {**values.get(group, {}), **options}
        else:
            values[group] = options
    return build(values)


def plain(**groups: Mapping[str, Any] | int) -> TrainConfig:
    """Return a recipe without any randomness in the model or between images."""
    quiet: dict[str, dict[str, Any]] = {
        "model": {"drop_rate": 0.0, "drop_path_rate": 0.0},
        "augmentation": {"mixup": 0.0, "cutmix": 0.0, "rand_augment": None, "erasing": 0.0},
        "schedule": {"random_shift": False},
    }
    merged: dict[str, Any] = dict(groups)
    for group, options in quiet.items():
        merged[group] = {**options, **merged.get(group, {})}
    return recipe(**merged)


def run(
    config: TrainConfig,
    data: Path,
    output: Path,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    processes: Processes | None = None,
) -> list[Event]:
    """Train, and return all events."""
    return list(train(config, data=data, output=output, should_stop=should_stop, processes=processes))


def asked_at(number: int) -> Callable[[], bool]:
    """Return what says yes when it is asked for the `number`-th time, counted from 1, and from then on."""
    asked = 0

    def ask() -> bool:
        nonlocal asked
        asked += 1
        return asked >= number

    return ask


def disturb() -> None:
    """Leave every global generator in another state than a new process has."""
    torch.manual_seed(int(torch.randint(10**6, ()).item()))
    torch.rand(17)
    np.random.default_rng().random()
    np.random.seed(None)


def outcome(folder: Path) -> dict[str, str]:
    """Return digests of all that a run ends with: both files' tensors."""
    last = checkpoints.read(folder / "last.safetensors")
    parts = {part: weight_digest(last.part(part)) for part in ("model", "ema", "optimizer") if last.part(part)}
    return {**parts, "best": weight_digest(dict(load_weights(folder / "best.safetensors").model.state_dict()))}


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl, without what depends on time."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in WHAT_TAKES_TIME} for line in lines]


def largest_difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Return the largest difference between tensors of the same names."""
    assert first.keys() == second.keys()
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def weight_digest(state: dict[str, Tensor]) -> str:
    """Return a digest of weights, to tell whether two runs ended alike to the bit."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
