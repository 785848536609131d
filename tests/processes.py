"""Modules of tests that need a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def lines_of(module: str, folder: Path) -> list[str]:
    """Run a module with a folder as its argument, and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-m", module, folder],
        cwd=Path(__file__).parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()
