"""Images that several processes share are written as one process writes them; see `split_ranks`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tifffile
import torch

from features.split_ranks import encoder
from processes import lines_of
from streaming.streaming_helpers import picture
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.split import encode_split
from vision_longformer.utils.distributed import Processes

STATUSES = {"damaged.tif": "failed", "large.tif": "encoded", "small.tif": "encoded"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return [json.loads(line) for line in lines_of("features.split_ranks", tmp_path_factory.mktemp("split"))]


def assert_same(differences: dict[str, float]) -> None:
    assert {f"{name}/{array}" for name in ("large", "small") for array in ("stage1", "stage3_valid", "valid")} <= set(
        differences
    )
    for name, difference in differences.items():
        assert difference <= (1.0 if "/view/" in name else 1e-5), name  # of 255 levels of a colour


@pytest.mark.process
@pytest.mark.parametrize("run", [0, 1], ids=["two processes, large chunks", "three processes, small chunks"])
def test_what_several_processes_write_is_what_one_writes(run: int, runs: list[Any]) -> None:
    seen = runs[run]
    assert seen["alone"] == STATUSES
    for number, lives in enumerate(seen["ranks"]):
        assert {result["name"]: result["status"] for result in lives[0]} == STATUSES
        assert [result["status"] for result in lives[1]] == ["failed", "skipped", "skipped"]
        assert lives[0][0]["message"] == "it is damaged or cut short"
        assert [result["figures"] for result in lives[0]] == ([0, 3, 3] if number == 0 else [0, 0, 0])
    assert seen["left"] == ["large.tif.zarr", "small.tif.zarr"]
    assert_same(seen["differences"])


@pytest.mark.process
def test_a_disk_that_is_full_for_one_process_stops_all_and_leaves_nothing(runs: list[Any]) -> None:
    said = runs[2]
    assert len(said) == 2
    assert said[0] == said[1]
    assert said[0].endswith("large.tif.zarr: the disk is full; make room and run again to go on")


@pytest.mark.process
def test_after_one_process_was_killed_all_go_on_to_the_same_bits(runs: list[Any]) -> None:
    run = runs[3]
    assert ".work" in run["before"]
    assert "large.tif.zarr" not in run["before"]
    for rank in run["ranks"]:
        assert {result["name"]: result["status"] for result in rank["results"]} == STATUSES
        assert rank["first"] > 0.5
    assert run["left"] == ["large.tif.zarr", "ranks", "small.tif.zarr"]
    assert max(run["differences"].values()) == 0


def test_images_that_are_shrunk_are_not_split(tmp_path: Path) -> None:
    shrinking = Encoder(encoder().model, max_side=100)
    with pytest.raises(ValueError, match=r"shrunk \(max_side\) cannot be split"):
        next(encode_split([], tmp_path, shrinking, Processes(), model_name=""))


@pytest.mark.process
@pytest.mark.long
def test_torchrun_starts_again_what_was_killed(tmp_path: Path) -> None:
    """A process of `vil encode --split` that dies once is started again with all others, and they go on."""
    tifffile.imwrite(tmp_path / "large.tif", picture(1000, 200), photometric="rgb", rowsperstrip=16)
    folder = Path(__file__).parents[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--max-restarts=1"]
    command += ["-m", "features.split_once", str(tmp_path)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 encoded" in done.stdout
    assert (tmp_path / "killed").exists()
    assert torch.load(tmp_path / "first-share.pt") > 0.3
