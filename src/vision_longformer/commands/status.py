"""`vil status`: how far a run of `vil encode` is, whoever did it."""

from __future__ import annotations

from pathlib import Path

from vision_longformer.commands.common import Arguments, UsageError
from vision_longformer.commands.terminal import give
from vision_longformer.features.status import read_status
from vision_longformer.utils.words import visible

SHOWN = 20  # failures that are named


def run(arguments: Arguments) -> int:
    try:
        status = read_status(Path(arguments.folder))
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    counts = {"images": status.images, "done": status.done, "failed": len(status.failed), "left": status.left}
    failed = [{"image": name, "reason": reason} for name, reason in status.failed.items()]
    lines = [visible(f"failed: {name}: {reason}") for name, reason in list(status.failed.items())[:SHOWN]]
    if len(status.failed) > SHOWN:
        lines.append(f"and {len(status.failed) - SHOWN} more, which --json lists")
    lines.append(f"{status.images} images: {status.done} done, {len(status.failed)} failed, {status.left} left.")
    give(arguments, {**counts, "failed": failed}, *lines)
    return int(status.done < status.images)
