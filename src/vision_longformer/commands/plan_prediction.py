"""The part of `vil plan` that is for detectors and segmentation models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from vision_longformer.commands.common import Arguments
from vision_longformer.images import ImageInfo
from vision_longformer.prediction.limits import limits_of
from vision_longformer.prediction.plans import WayForecast, plan_prediction
from vision_longformer.tiling.choosing import Tiling
from vision_longformer.training.trained import Trained
from vision_longformer.utils.system_memory import gigabytes, parse_bytes


def plan_images(
    trained: Trained, images: Sequence[ImageInfo], arguments: Arguments, device: torch.device
) -> list[tuple[dict[str, Any], str, Table]]:
    """Return of each image what predicting takes: as JSON, a sentence, and a table."""
    trained.model.to(device).eval()
    memory = None if arguments.memory is None else parse_bytes(arguments.memory)
    tiling = Tiling(trained.model, memory=memory, limits=limits_of(trained))
    scale = float(trained.preprocessing.get("scale", 1.0))
    shown = []
    for image in images:
        ways = plan_prediction(trained, image.size, tiling, scale=scale)
        chosen = next((way for way in ways if not way.obstacle), None)
        about: dict[str, Any] = {"image": image.name, "size": list(image.size), "limit": tiling.memory}
        about |= {"ways": [dataclasses.asdict(way) for way in ways]}
        about |= {"chosen": chosen.way} if chosen else {"refusal": ways[-1].obstacle}
        goes = ways[-1].obstacle if chosen is None else chosen.way
        of_tiles = f" ({chosen.tiles})" if chosen is not None and chosen.way == "tiles" else ""
        within = f"{gigabytes(tiling.memory)} beside the model"
        line = f"{image.name}: {image.width}×{image.height} pixels within {within}: {goes}{of_tiles}."
        shown.append((about, line, _table(ways, chosen)))
    return shown


def _table(ways: Sequence[WayForecast], chosen: WayForecast | None) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("way", "memory", "disk"):
        table.add_column(name, justify="left" if name == "way" else "right")
    table.add_column("", overflow="fold")
    for way in ways:
        remark = "chosen" if way is chosen else way.obstacle or "not needed"
        table.add_row(way.way, *(gigabytes(size) if size else "–" for size in (way.memory, way.disk)), remark)
    return table
