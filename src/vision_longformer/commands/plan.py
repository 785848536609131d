"""`vil plan`: what encoding, training or predicting will take, before it is begun."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from vision_longformer.backbone import VisionLongformer
from vision_longformer.commands.common import Arguments, UsageError
from vision_longformer.commands.encode import chosen_model
from vision_longformer.commands.plan_prediction import plan_images
from vision_longformer.commands.reading import check_max_side, chosen_reading
from vision_longformer.commands.terminal import give, tell
from vision_longformer.features.strategies import Limits
from vision_longformer.images import MAX_SIDE, ImageError, ImageInfo, Reading, describe_image
from vision_longformer.images.find import find_images
from vision_longformer.images.pixels import shrunk_size
from vision_longformer.images.reader import check_pixels
from vision_longformer.images.values import check_fits
from vision_longformer.memory.plans import STRATEGIES, Forecast, Plan, PlanError, free_disk, plan
from vision_longformer.memory.speed import Speed, measure_speed
from vision_longformer.memory.training import TrainingForecast, TrainingPlan, plan_training
from vision_longformer.pretrained import find_weights
from vision_longformer.training.trained import Trained
from vision_longformer.training.weight_files import load_weights
from vision_longformer.utils.devices import choose_device
from vision_longformer.utils.system_memory import gigabytes, parse_bytes
from vision_longformer.utils.words import duration
from vision_longformer.weights import describe, reading_of

DENSE = ("detection", "instance_segmentation", "semantic_segmentation")  # tasks
Shown = list[tuple[dict[str, Any], str, Table]]  # of each image: as JSON, a sentence, and a table
SIZE = re.compile(r"([1-9]\d*)[x×]([1-9]\d*)")


def run(arguments: Arguments) -> int:
    warnings.filterwarnings("ignore", module="PIL")  # about odd or broken files, which errors explain
    try:
        if (trained := _dense(arguments)) is not None:
            images, found = _images(arguments, trained.reading, trained.reading.model_channels)
            found += plan_images(trained, images, arguments, choose_device(arguments.device)) if images else []
            return _show(found, arguments)
        _, model = chosen_model(arguments)
        images, found = _images(arguments, reading_of(model), model.in_chans)
        model = model.to(choose_device(arguments.device)).eval()
        device = next(model.parameters()).device
        limit = Limits(memory=None if arguments.memory is None else parse_bytes(arguments.memory)).bytes(device)
        shown = _plan_training if arguments.training else _plan_encoding
        found += shown(model, images, limit, arguments) if images else []
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    return _show(found, arguments)


def _dense(arguments: Arguments) -> Trained | None:
    """Return the trained detector or segmentation model that is meant; None for others.

    Raises:
        ValueError: It was asked for a step of its training.
    """
    if not arguments.checkpoint:
        return None
    about = describe(find_weights(arguments.checkpoint))
    if about.get("task") not in DENSE or about.get("content") == "training":
        return None
    if arguments.training:
        raise ValueError("--training: is for backbones and classifiers; leave it out to plan predictions")
    return load_weights(arguments.checkpoint)


def _show(found: Shown, arguments: Arguments) -> int:
    shown = [part for _, lines, table in found for part in (lines, table)]
    give(arguments, [about for about, _, _ in found], *shown)
    return int(any("refusal" in about for about, _, _ in found))


def _images(arguments: Arguments, trained: Reading, channels: int) -> tuple[list[ImageInfo], Shown]:
    """Return what is known of the images, the size alone where there is none; and which of them cannot be read."""
    if bool(arguments.images) == (arguments.size is not None):
        raise ValueError("give images, or the --size of one, such as 32768x32768")
    images: list[ImageInfo] = []
    refused: Shown = []
    if arguments.size is not None:
        match = SIZE.fullmatch(arguments.size)
        if match is None:
            raise ValueError(f"--size {arguments.size}: write height and width in pixels, such as 32768x32768")
        height, width = int(match[1]), int(match[2])
        if max(height, width) > MAX_SIDE:
            raise ValueError(f"--size {arguments.size}: height and width must be at most {MAX_SIDE:,} pixels")
        images.append(ImageInfo("an image", height, width, channels, np.dtype(np.uint8), preferred_rows=256))
        return images, refused
    reading = chosen_reading(arguments, trained=trained, tell=tell)
    if arguments.max_side is not None:
        check_max_side(arguments.max_side, reading)
    for source in find_images(arguments.images, remark=tell):
        try:
            image = describe_image(source.path, reading=source.asked.on(reading), max_pixels=arguments.max_pixels)
            check_fits(image, channels)
            if arguments.max_side is not None:
                check_pixels(image.name, image.size, arguments.max_pixels)
            images.append(image)
        except ImageError as error:
            refused.append(({"image": str(source.path), "refusal": str(error)}, f"{error}.", Table()))
    return images, refused


def _plan_encoding(model: VisionLongformer, images: list[ImageInfo], limit: int, arguments: Arguments) -> Shown:
    speed = _speed(model, Path(arguments.work_folder))
    shown: Shown = []
    for image in images:
        chosen: Plan | None = None
        refusal = ""
        height, width = shrunk_size(image.size, arguments.max_side)
        try:
            chosen = plan(
                model,
                height,
                width,
                memory=limit,
                outputs=arguments.stages,
                strategies=STRATEGIES if arguments.max_side is None else ("whole",),
                image=image,
                disk=free_disk(Path(arguments.work_folder)),
                speed=speed,
            )
            forecasts = chosen.forecasts
        except PlanError as error:
            refusal, forecasts = str(error), error.forecasts
        about: dict[str, Any] = {"image": image.name, "size": [height, width], "limit": limit}
        about |= {"ways": [_described(forecast) for forecast in forecasts]}
        about |= {"chosen": chosen.chosen.strategy} if chosen else {"refusal": refusal}
        reason = f"{chosen.chosen.strategy}, the fastest way that fits" if chosen else refusal
        line = f"{image.name}: {width}×{height} pixels within {gigabytes(limit)}: {reason}."
        shown.append((about, line, _ways(forecasts, None if chosen is None else chosen.chosen)))
    return shown


def _described(forecast: Forecast) -> dict[str, Any]:
    """Return a forecast under the names that `--json` has for it."""
    names = {"strategy": "way", "reason": "obstacle"}
    return {names.get(name, name): value for name, value in dataclasses.asdict(forecast).items()}


def _speed(model: VisionLongformer, work_folder: Path) -> Speed:
    """Measure the disk where the work folder is, or would be made."""
    there = next(folder for folder in (work_folder, *work_folder.absolute().parents) if folder.exists())
    try:
        return measure_speed(model, there)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OSError(f"--work-folder {work_folder}: cannot be written ({reason})") from error


def _ways(forecasts: tuple[Forecast, ...], chosen: Forecast | None) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("way", "memory", "disk", "time"):
        table.add_column(name, justify="left" if name == "way" else "right")
    table.add_column("", overflow="fold")
    for one in forecasts:
        seconds = "–" if one.seconds is None else duration(one.seconds)
        remark = "chosen" if one is chosen else one.reason or "fits, but is slower"
        memory, disk = (gigabytes(size) if size else "–" for size in (one.memory, one.disk))
        table.add_row(one.strategy, memory, disk, seconds, remark)
    return table


def _plan_training(model: VisionLongformer, images: list[ImageInfo], limit: int, arguments: Arguments) -> Shown:
    shown: Shown = []
    for image in images:
        height, width = shrunk_size(image.size, arguments.max_side)
        try:
            found = plan_training(model, height, width, memory=limit)
        except PlanError as error:
            shown.append(({"image": image.name, "refusal": str(error)}, f"{image.name}: {error}.", Table()))
            continue
        about = {"image": image.name, **dataclasses.asdict(found)}
        line = f"{image.name}: {width}×{height} pixels within {gigabytes(limit)}: {_advice(found)}."
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for name in ("activation checkpointing", "largest batch", "memory", "each image"):
            table.add_column(name, justify="right")
        for one in found.forecasts:
            table.add_row(*_training_row(one))
        shown.append((about, line, table))
    return shown


def _advice(found: TrainingPlan) -> str:
    images = f"{found.chosen.batch} images" if found.chosen.batch > 1 else "1 image"
    needed = "needed" if found.chosen.checkpointing else "not needed"
    return f"a batch of {images} in float32 with AdamW; activation checkpointing is {needed}"


def _training_row(one: TrainingForecast) -> tuple[str, str, str, str]:
    return "on" if one.checkpointing else "off", str(one.batch or "–"), gigabytes(one.memory), gigabytes(one.image)
