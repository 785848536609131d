"""The command line without what only some systems have: as Windows has it, as far as Linux can play that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from vision_longformer.features.load import load_features

pytestmark = [pytest.mark.process, pytest.mark.slow]

MODULES = ("fcntl", "grp", "pwd", "resource", "syslog", "termios")
FUNCTIONS = (
    *("fchmod", "geteuid", "getuid", "pread", "preadv", "pwrite", "pwritev", "posix_fadvise", "posix_fallocate"),
    *("sched_getaffinity", "sysconf"),
)
SIGNALS = ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "pthread_sigmask", "setitimer")
PLAY = f"""
import contextlib, io, json, os, signal, sys
for name in {MODULES}:
    sys.modules[name] = None  # importing it is an ImportError
for name in {FUNCTIONS}:
    delattr(os, name)
for name in {SIGNALS}:
    delattr(signal, name)
system_open = os.open
def open_no_folder(path, *arguments, dir_fd=None, **options):
    if os.path.isdir(path) and dir_fd is None:
        raise PermissionError(13, "Permission denied", path)
    return system_open(path, *arguments, dir_fd=dir_fd, **options)
os.open = open_no_folder
from vil import main
done = []
for command in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(io.StringIO()) as told:
        code = main(command)
    done.append((code, said.getvalue(), told.getvalue()))
json.dump(done, sys.stdout)
"""
OPTIONS = ("--input.size", "32", "--compute.batch_size", "2", "--compute.workers", "0", "--schedule.epochs", "1")
COMMANDS = {
    "help": ["--help"],
    "doctor": ["doctor", "--json"],
    "whole": ["encode", "photo.png", "--output", "whole"],
    "spilled": ["encode", "photo.png", "--output", "spilled", "--way", "spilled", "--format", "safetensors"],
    "train": ["train", "--data", "data", "--output", "run", *OPTIONS],
}


class Done(NamedTuple):
    """What a command did."""

    code: int
    said: str
    told: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an image to encode, and some to learn from."""
    folder = tmp_path_factory.mktemp("elsewhere")
    Image.linear_gradient("L").resize((70, 40)).convert("RGB").save(folder / "photo.png")
    for split in ("train", "val"):
        for name, shade in (("dark", 30), ("light", 200)):
            (folder / "data" / split / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (32, 32), (shade + i,) * 3).save(folder / "data" / split / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def done(folder: Path) -> dict[str, Done]:
    """Return what became of all commands, which one process runs: importing takes longer than they do."""
    process = subprocess.run(
        [sys.executable, "-c", PLAY],
        input=json.dumps(list(COMMANDS.values())),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr
    return {name: Done(*each) for name, each in zip(COMMANDS, json.loads(process.stdout), strict=True)}


def test_help_is_printed(done: dict[str, Done]) -> None:
    assert done["help"].code == 0
    assert "encode" in done["help"].said


def test_the_doctor_looks_at_everything(done: dict[str, Done]) -> None:
    findings = {finding["topic"]: finding["state"] for finding in json.loads(done["doctor"].said)}
    assert "free" in findings["memory"]
    assert "free" in findings["disk"]


@pytest.mark.parametrize("way", ["whole", "spilled"])
def test_an_image_is_encoded(way: str, done: dict[str, Done], folder: Path) -> None:
    assert done[way].code == 0, done[way].told
    (features,) = (folder / way).rglob("*.safetensors")
    assert load_features(features).maps[-1].shape[-2:] == (2, 3)


def test_a_classifier_is_trained(done: dict[str, Done], folder: Path) -> None:
    assert done["train"].code == 0, done["train"].told
    assert (folder / "run" / "best.safetensors").exists()
