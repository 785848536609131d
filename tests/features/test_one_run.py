"""Several runs into one folder: the work is done once, and threads may share an encoder."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vil import main
from vision_longformer import VisionLongformer
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.extract import encode_files
from vision_longformer.features.one_run import one_run
from vision_longformer.images.find import find_images
from vision_longformer.variants import CONFIGS


def write_images(folder: Path, count: int = 4) -> Path:
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def vil_encode(images: Path, output: Path) -> int:
    options = "--model", "vision_longformer_nano", "--device", "cpu", "--no-report"
    return main(["encode", str(images), "--output", str(output), *options])


@pytest.mark.process
def test_two_processes_encode_each_image_once(tmp_path: Path) -> None:
    images, output = write_images(tmp_path / "in"), tmp_path / "out"
    options = ("--model", "vision_longformer_nano", "--device", "cpu", "--no-report", "--output", str(output))
    command = [sys.executable, "-m", "vil", "encode", str(images), *options]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=alone) for _ in range(2)]
    said = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sorted(text.split(" (")[0].split(".")[0] for text in said) == ["0 encoded, 4 done before", "4 encoded"]
    assert not list(output.glob(".*.lock"))


def test_a_command_waits_for_another_run_of_the_same_images_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, output = write_images(tmp_path / "in"), tmp_path / "out"
    names = [source.name for source in find_images([str(images)])]
    entered, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with one_run(output, names, on_wait=pytest.fail):
            entered.set()
            go_on.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait()

    def let_go(_arguments: object) -> str:
        go_on.set()
        return "waits"

    monkeypatch.setattr("vision_longformer.commands.encode._waits", let_go)
    assert vil_encode(images, output) == 0
    holder.join()
    assert "vil: waits" in capsys.readouterr().err
    assert not list(output.glob(".*.lock"))


def test_runs_of_other_images_do_not_wait(tmp_path: Path) -> None:
    with one_run(tmp_path, ["a"], on_wait=pytest.fail), one_run(tmp_path, ["b"], on_wait=pytest.fail):
        assert len(list(tmp_path.glob(".*.lock"))) == 2
    assert not list(tmp_path.iterdir())


def in_threads(count: int, do: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(do, range(count)))


@pytest.mark.parametrize("pictures", [False, True])
def test_threads_share_an_encoder(tmp_path: Path, pictures: bool) -> None:
    sources = find_images([str(write_images(tmp_path / "in"))])
    encoder = Encoder(VisionLongformer(CONFIGS["vision_longformer_nano"]), stages=[3, 4])

    def encode(number: int) -> None:
        options: dict[str, Any] = {"model_name": "nano", "pictures": pictures, "batch": 1}  # which rounds always alike
        results = list(encode_files(sources, tmp_path / f"{number}", encoder, **options))
        assert [result.status for result in results] == ["encoded"] * len(sources)

    in_threads(3, encode)
    for source in sources:
        contents = {(tmp_path / f"{number}" / f"{source.name}.safetensors").read_bytes() for number in range(3)}
        assert len(contents) == 1
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in encoder.model.modules())
