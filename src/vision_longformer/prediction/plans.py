"""What looking at an image with a dense model will take, and which way it goes, before it is begun."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from vision_longformer.fpn.streamed.memory import forecast_streamed
from vision_longformer.memory.streaming import Needs, choose_band_bytes
from vision_longformer.padding import Size
from vision_longformer.prediction.streaming import LEVEL_BYTES, streamable
from vision_longformer.tiling.choosing import Tiling
from vision_longformer.training.trained import Trained

Way = Literal["whole", "streamed", "spilled", "tiles"]


@dataclass(frozen=True)
class WayForecast:
    """What one way of looking at an image takes.

    Attributes:
        way: Which.
        memory: Bytes beside the loaded model and, where it is whole or in tiles, the image; 0 where that is not known.
        disk: Bytes of files in the work folder.
        obstacle: Why it cannot be gone; "" if it can.
        tiles: How many parts the image is looked at in.
    """

    way: Way
    memory: int
    disk: int = 0
    obstacle: str = ""
    tiles: int = 1


def plan_prediction(trained: Trained, size: Size, tiling: Tiling, *, scale: float) -> list[WayForecast]:
    """Return the ways of looking at an image, best first: the first without an obstacle is the one that is gone.

    Args:
        trained: A detector or a segmentation model.
        size: (height, width) of the image in pixels.
        tiling: Of the run.
        scale: Factor that the image is resized by first.
    """
    model: Any = trained.model
    seen = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    with tiling.limits(size):
        streamed = _streamed(model, size, tiling, scale=scale)
    ways = [_whole(seen, tiling), *streamed]
    try:
        tiles = tiling.cut(seen)
        return [*ways, WayForecast("tiles", tiling.forecast(tiles[0].size), tiles=len(tiles))]
    except ValueError as error:
        return [*ways, WayForecast("tiles", 0, obstacle=str(error))]


def _whole(size: Size, tiling: Tiling) -> WayForecast:
    try:
        memory = tiling.forecast(size)
    except ValueError as error:
        return WayForecast("whole", 0, obstacle=str(error))
    return WayForecast("whole", memory, obstacle="" if tiling.fits_whole(size) else "does not fit")


def _streamed(model: Any, size: Size, tiling: Tiling, *, scale: float) -> list[WayForecast]:
    ways: tuple[tuple[Way, bool], ...] = (("streamed", False), ("spilled", True))
    if not streamable(model):
        return [WayForecast(way, 0, obstacle="this model cannot be streamed") for way, _ in ways]
    found = []
    for way, spilled in ways:
        of_levels = partial(LEVEL_BYTES[type(model)], model, size)
        forecast = partial(forecast_streamed, model.backbone, size, of_levels, spilled=spilled)
        needs: Needs = choose_band_bytes(forecast, memory=tiling.memory)[1]
        obstacle = "the image is resized" if scale != 1 else "" if needs.memory <= tiling.memory else "does not fit"
        found.append(WayForecast(way, needs.memory, needs.disk, obstacle))
    return found
