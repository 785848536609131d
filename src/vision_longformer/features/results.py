"""What became of an image, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from vision_longformer.features.figures import Figure
from vision_longformer.images.find import Source
from vision_longformer.memory.plans import Plan

Status = Literal["encoded", "skipped", "failed"]
OnBand = Callable[[Source, float, int], None]  # the image, the share of its work that is done, and its pixels


@dataclass(frozen=True)
class Result:
    """What became of one image.

    Attributes:
        source: The image.
        status: What was done.
        message: Why it failed, or what of the file was left out; "" if there is nothing to say.
        original_size: (height, width) in pixels as stored; None unless it was encoded.
        size: (height, width) in pixels as encoded, likewise.
        seconds: From opening the image to the features being safe on disk; of images in batches, its share of the time
            that they took together.
        peak_memory: Most bytes that the process held until then, where the system tells.
        identity: Changes with the contents of the image, with the model and with the settings; "" if it failed.
        plan: How it was encoded; None unless it was.
        figures: Pictures of it, if they were asked for.
    """

    source: Source
    status: Status
    message: str = ""
    original_size: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    seconds: float = 0.0
    peak_memory: int | None = None
    identity: str = ""
    plan: Plan | None = None
    figures: tuple[Figure, ...] = ()

    @property
    def megapixels(self) -> float:
        """Millions of pixels encoded."""
        return 0.0 if self.size is None else self.size[0] * self.size[1] / 1e6
