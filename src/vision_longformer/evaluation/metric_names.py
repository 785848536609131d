"""How measures are shown to people: files and logs have their names and numbers as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORDS = {
    "top1": "top-1",
    "top5": "top-5",
    "loss": "loss",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "agreement": "agreement with the teacher",
    "divergence": "divergence",
    "best_f1": "best F1 at IoU 0.5",
    "best_score": "score of the best F1",
}
_PERCENT = ("top1", "top5", "agreement")
_IN_A_LINE = (
    *("top1", "top5", "loss", "box_ap", "box_ap50", "mask_ap", "mask_ap50", "miou", "pixel_accuracy"),
    *("agreement", "divergence"),
)


def name_of(measure: str) -> str:
    """Return a measure's name in words."""
    if measure.startswith("iou_"):
        return f"IoU of {measure.removeprefix('iou_')}"
    return _WORDS.get(measure) or measure.replace("_ap", " AP").replace("_", " ")


def shown(measure: str, value: float | None) -> str:
    """Return a measure's value as text."""
    if value is None:
        return "–"
    return f"{value:.2f}%" if measure in _PERCENT else f"{value:.3f}"


def in_a_line(metrics: Mapping[str, Any]) -> str:
    """Return the main measures in one line."""
    return ", ".join(f"{name_of(name)} {shown(name, metrics[name])}" for name in _IN_A_LINE if name in metrics)
