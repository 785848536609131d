"""Measuring in a process of its own (`worker`), whose memory and time are watched."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from vision_longformer.benchmarking.worker import Task
from vision_longformer.utils.positioned import read_at
from vision_longformer.utils.system_memory import gigabytes

Status = Literal["measured", "refused", "too large", "killed", "timed out", "failed"]
POLL_SECONDS = 0.02
COMMAND = (sys.executable, "-m", "vision_longformer.benchmarking.worker")


class ChildEndedError(Exception):
    """A process was ended, or ended by itself, before it had measured."""

    def __init__(self, status: Status, sentence: str) -> None:
        super().__init__(sentence)
        self.status: Status = status


def run_child(task: Task, *, memory: int | None, time_limit: float, command: Sequence[str] = COMMAND) -> dict[str, Any]:
    """Measure in a fresh process, which never outlives this call.

    Args:
        task: What to measure.
        memory: Bytes that it may take once its model is loaded; None sets no bound.
        time_limit: Its seconds.
        command: What it runs.

    Returns:
        Its last line, such as `{"peak_memory": ...}` or `{"refused": ...}`.

    Raises:
        ChildEndedError: It took too much memory or time, or failed.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        given.write(task.to_json().encode())
        given.seek(0)
        process = subprocess.Popen(command, stdin=given, stdout=said, stderr=complained)
        try:
            _watch(process, said.fileno(), memory, time_limit)
        finally:
            process.kill()
            process.wait()
        lines = _lines(said.fileno())
        if process.returncode == 0 and lines and "loaded" not in lines[-1]:
            return lines[-1]
        complained.seek(0)
        last = complained.read().decode(errors="replace").strip().rpartition("\n")[2]
        raise ChildEndedError("failed", f"failed: {last or f'its process ended with code {process.returncode}'}")


def _watch(process: subprocess.Popen[bytes], said: int, memory: int | None, time_limit: float) -> None:
    """Wait for the end of a process, or raise as soon as it is beyond a bound."""
    end, loaded = time.monotonic() + time_limit, None
    while process.poll() is None:
        if time.monotonic() > end:
            raise ChildEndedError("timed out", f"took longer than {time_limit:g} s")
        if memory is not None:
            if loaded is None:  # loading the model is no part of what is bounded
                loaded = next((line["loaded"] for line in _lines(said) if "loaded" in line), None)
            resident = _resident(process.pid)
            if loaded is not None and resident is not None and resident - loaded > memory:
                raise ChildEndedError("killed", f"needs more than {gigabytes(memory)} for a pass")
        time.sleep(POLL_SECONDS)


def _lines(descriptor: int) -> list[dict[str, Any]]:
    whole, _, _ = read_at(descriptor, 1 << 20, 0).decode().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def _resident(process: int) -> int | None:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * mmap.PAGESIZE
    except (OSError, IndexError):  # it has ended, or this is not Linux
        return None
