"""Modules of tests that need a process of their own, or several that find each other."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lines_of(module: str, folder: Path, *arguments: str) -> list[str]:
    """Run a module with a folder and more as its arguments, and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-m", module, folder, *arguments],
        cwd=Path(__file__).parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def in_ranks(count: int, folder: Path, work: Callable[[int], Any], *, killed: int | None = None) -> list[Any]:
    """Run `work` in forks of this process that `join` joins, and return what each makes, which is kept as JSON.

    Args:
        count: How many.
        folder: For what they make.
        work: Takes the number of the process, from 0.
        killed: The process that is expected to die of a signal, and so the others of an error; they make nothing.
    """
    port = free_port()
    folder.mkdir(exist_ok=True)
    children = []
    for rank in range(count):
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ.update(RANK=str(rank), WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
                (folder / f"rank-{rank}.json").write_text(json.dumps(work(rank)))
                code = 0
            except BaseException:
                if killed is None:
                    traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    ends = [os.waitpid(child, 0)[1] for child in children]
    if killed is not None:
        assert os.WIFSIGNALED(ends[killed]), ends
        return []
    assert ends == [0] * count
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(count)]
