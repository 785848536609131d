"""Runs with faults.c loaded before the C library: saves a checkpoint over another, with a fault at every call.

The library is loaded once; each fault happens in a fork. Prints one JSON line a fault.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

import torch

from vision_longformer.training import checkpoints
from vision_longformer.training.checkpoints import Checkpoint, Progress


def a_checkpoint(step: int) -> Checkpoint:
    """Return a checkpoint whose tensors hold its step."""
    tensors = {f"model.{name}": torch.full((50, 50), float(step)) for name in "ab"}
    return Checkpoint(tensors, Progress(step=step), {"step": step})


def save(path: Path, *, at: int, kill: bool) -> dict[str, object]:
    """Save with a fault at call number `at`; say what came of it."""
    checkpoints.write(path, a_checkpoint(1))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        message = ""
        shim.faults_begin(str(path.parent).encode(), at, int(kill))
        try:
            checkpoints.write(path, a_checkpoint(2))
        except OSError as error:
            message = str(error)
        except BaseException as error:
            message = f"not an OSError: {error!r}"
        calls, order = shim.faults_counted(), shim.faults_order().decode()
        shim.faults_begin(b"", 0, 0)
        os.write(writing, json.dumps({"message": message, "calls": calls, "order": order}).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    found = checkpoints.read(path)
    values = {float(value) for tensor in found.tensors.values() for value in (tensor.min(), tensor.max())}
    consistent = values == {float(found.progress.step)} and found.about["step"] == found.progress.step
    left = sorted(entry.name for entry in path.parent.iterdir() if entry != path)
    for name in left:
        (path.parent / name).unlink()
    return {
        "at": at,
        "kill": kill,
        "exit": os.waitstatus_to_exitcode(status),
        "step": found.progress.step if consistent else "a mixture",
        "left": left,
        **(json.loads(told) if told else {"message": "", "calls": 0}),
    }


if __name__ == "__main__":
    shim = ctypes.CDLL(sys.argv[1])
    shim.faults_order.restype = ctypes.c_char_p
    target = Path(sys.argv[2]) / "last.safetensors"
    print(json.dumps(whole := save(target, at=0, kill=False)))
    for number in range(1, int(str(whole["calls"])) + 1):
        for how in (True, False):
            print(json.dumps(save(target, at=number, kill=how)))
