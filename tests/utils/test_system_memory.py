"""How much memory is free."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vision_longformer.utils import system_memory
from vision_longformer.utils.system_memory import free_memory

LIMIT, USED, ACTIVE, INACTIVE = 8_000_000, 6_000_000, 500_000, 3_000_000


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of control groups, none yet, on a system with much memory."""
    (tmp_path / "meminfo").write_text("MemTotal: 99000 kB\nMemAvailable: 90000 kB\n")
    monkeypatch.setattr(system_memory, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(system_memory, "_LIMITS", tmp_path)
    return tmp_path


def test_without_a_container_the_system_says_what_is_free(groups: Path) -> None:
    assert free_memory(torch.device("cpu")) == 90_000 * 1024


def test_in_a_container_what_files_take_is_free(groups: Path) -> None:
    (groups / "memory.max").write_text(f"{LIMIT}\n")
    (groups / "memory.current").write_text(f"{USED}\n")
    (groups / "memory.stat").write_text(
        f"anon 2400000\nfile 3600000\nshmem 100000\ninactive_file {INACTIVE}\nactive_file {ACTIVE}\n"
    )
    assert free_memory(torch.device("cpu")) == LIMIT - USED + ACTIVE + INACTIVE


def test_in_a_container_of_the_first_version_children_count(groups: Path) -> None:
    folder = groups / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text(f"{LIMIT}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{USED}\n")
    (folder / "memory.stat").write_text(
        f"active_file 1\ninactive_file 2\ntotal_active_file {ACTIVE}\ntotal_inactive_file {INACTIVE}\n"
    )
    assert free_memory(torch.device("cpu")) == LIMIT - USED + ACTIVE + INACTIVE


def test_a_container_that_tells_nothing_of_files_has_what_is_below_its_limit(groups: Path) -> None:
    (groups / "memory.max").write_text(f"{LIMIT}\n")
    (groups / "memory.current").write_text(f"{USED}\n")
    assert free_memory(torch.device("cpu")) == LIMIT - USED


def test_a_container_without_a_limit_has_what_the_system_has(groups: Path) -> None:
    (groups / "memory.max").write_text("max\n")
    (groups / "memory.current").write_text(f"{USED}\n")
    assert free_memory(torch.device("cpu")) == 90_000 * 1024
