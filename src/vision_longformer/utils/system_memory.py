"""How much memory is free, and amounts of it as text."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

import torch

_MEMORY, _LIMITS = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
UNITS = {
    "": 1,
    "B": 1,
    **{letter + rest: 1000**power for power, letter in enumerate("KMGT", start=1) for rest in ("", "B")},
    **{f"{letter}IB": 1024**power for power, letter in enumerate("KMGT", start=1)},
}
CACHED = ("active_file", "inactive_file")  # in the statistics of a control group; "total_" with its children
SHARE_OF_FREE = 0.6
UNKNOWN = 2 * 10**9  # bytes that are taken to be free where the system does not tell
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be taken on a device.

    On a GPU, what PyTorch holds but does not use counts as free. On a CPU, limits of a container count.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    found = [number for number in (_of_system(), _of_container()) if number is not None]
    return min(found, default=UNKNOWN)


def default_bound(device: torch.device) -> int:
    """Return the bytes that a pass may take on a device if nobody gives a bound."""
    return int(SHARE_OF_FREE * free_memory(device))


def _of_system() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # macOS tells no more
    except (AttributeError, OSError, ValueError):
        return None


def _of_container() -> int | None:
    """Return what is left below the limit of a Linux control group; None without a limit.

    What the system keeps of files it gives up when the memory is needed: that is free, as it is in `MemAvailable`.
    """
    for limit, used, statistics in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            left = int((_LIMITS / limit).read_text()) - int((_LIMITS / used).read_text())
        except (OSError, ValueError):  # no such group, or "max"
            continue
        return max(0, left + _of_files(_LIMITS / statistics))
    return None


def _of_files(statistics: Path) -> int:
    """Return the bytes of files that a control group has in memory, without those that exist nowhere else."""
    try:
        found = dict(line.split() for line in statistics.read_text().splitlines())
        return sum(int(found[f"total_{name}" if f"total_{name}" in found else name]) for name in CACHED)
    except (OSError, KeyError, ValueError):
        return 0


def parse_bytes(text: str) -> int:
    """Return the bytes that a text such as "8GB", "8G", "1.5 GiB" or "500000000" stands for.

    Raises:
        ValueError: It stands for none.
    """
    number = text.strip().rstrip("BKMGTIbkmgti").strip()
    unit = text.strip()[len(number) :].strip().upper()
    try:
        value = float(number) * UNITS[unit]
    except (ValueError, KeyError):
        value = math.nan
    if not (math.isfinite(value) and value >= 1):
        raise ValueError(f"{text!r} is no amount of memory: write a number and a unit, such as 8GB or 500MB")
    return int(value)


def gigabytes(size: float) -> str:
    """Return bytes as text, in gigabytes, or in a smaller unit if that is less than a tenth of one."""
    if size < 1e3:
        return f"{size:.0f} bytes"
    if size < 1e5:
        return f"{size / 1e3:.1f} KB"
    if size < 1e8:
        return f"{size / 1e6:.1f} MB"
    return f"{size / 1e9:.2f} GB" if size < 1e10 else f"{size / 1e9:.1f} GB"


def resident_memory() -> int | None:
    """Return the bytes of memory that this process holds now; None where the system does not tell."""
    return _status("VmRSS")


def peak_memory() -> int | None:
    """Return the most bytes that this process held since the last reset."""
    return _status("VmHWM")


def _status(field: str) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(lines[field].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def reset_peak() -> None:
    """Let `peak_memory` start from what this process holds now."""
    with contextlib.suppress(OSError):  # the peak then includes loading, which needs less than a pass that matters
        _CLEAR.write_text("5")
