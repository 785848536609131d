"""How much memory is free."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_MEMORY, _LIMITS = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
UNKNOWN = 2 * 10**9  # bytes that are taken to be free where the system does not tell


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be taken on a device.

    On a GPU, what PyTorch holds but does not use counts as free. On a CPU, limits of a container count.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    found = [number for number in (_of_system(), _of_container()) if number is not None]
    return min(found, default=UNKNOWN)


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
    """Return what is left below the limit of a Linux control group; None without a limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            left = int((_LIMITS / limit).read_text()) - int((_LIMITS / used).read_text())
        except (OSError, ValueError):  # no such group, or "max"
            continue
        return max(0, left)
    return None
