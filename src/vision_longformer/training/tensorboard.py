"""The lines of metrics.jsonl for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def require_tensorboard() -> Any:
    """Return what writes TensorBoard's events.

    Raises:
        ValueError: TensorBoard is not installed; says how to.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            'logging.tensorboard=True: needs TensorBoard: pip install "vision-longformer[train]"'
        ) from error
    return SummaryWriter


class Scalars:
    """Writes numbers as TensorBoard's events.

    Args:
        folder: Of the events.
        step: Where the run stands: what events of an interrupted run say about later steps, TensorBoard forgets.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        self.writer = require_tensorboard()(str(folder), purge_step=step + 1 if step else None)

    def write(self, values: dict[str, Any]) -> None:
        """Write a line of metrics.jsonl: measures of evaluations under val/, the rest under train/."""
        for name, value in values.items():
            if name not in ("step", "images") and value is not None:
                tag = f"val/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}"
                self.writer.add_scalar(tag, value, values["step"])
        self.writer.flush()
