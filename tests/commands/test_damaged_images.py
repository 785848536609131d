"""A run over many images of which most are damaged: each is encoded or failed, and the good ones are as if alone."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from images.damage import damaged, originals
from vil import main
from vision_longformer.commands import encode
from vision_longformer.features.extract import encode_files
from vision_longformer.features.results import Result

MAX_PIXELS = 10**6  # whatever a damaged header says
LONGEST = 10  # seconds of processor time for an image


def vil_encode(images: Path, output: Path) -> int:
    options = ["--no-report", "--stages", "4", "--max-pixels", str(MAX_PIXELS), "--device", "cpu"]
    return main(["encode", str(images), "--output", str(output), *options])


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.long)])
def test_damaged_images_neither_end_a_run_nor_hold_it_up_nor_change_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], count: int
) -> None:
    files, rng, results = list(originals().items()), random.Random(count), list[Result]()
    mixed, good = tmp_path / "mixed", tmp_path / "good"
    for folder in (mixed, good):
        folder.mkdir()
    for number in range(count):
        name, data = files[number % len(files)]
        (mixed / f"{number:05}{name}").write_bytes(damaged(data, rng))
        if number % 10 == 0:
            name, data = files[number // 10 % len(files)]
            for folder in (mixed, good):
                (folder / f"good{number:05}{name}").write_bytes(data)

    def watched(*arguments: Any, **options: Any) -> Iterator[Result]:
        before = time.process_time()
        for result in plain(*arguments, **options):
            assert time.process_time() - before < LONGEST, result
            results.append(result)
            yield result
            before = time.process_time()

    plain = encode_files
    monkeypatch.setattr(encode, "encode_files", watched)
    assert vil_encode(mixed, tmp_path / "of mixed") == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if "untrained" not in line]
    assert [line for line in lines if not line.startswith("vil: ")] == []
    assert {result.status for result in results} == {"encoded", "failed"}
    assert len(results) == len(list(mixed.iterdir()))
    assert [result.message for result in results if "internal error" in result.message] == []
    assert vil_encode(good, tmp_path / "of good") == 0
    for path in (tmp_path / "of good").glob("good*"):
        assert path.read_bytes() == (tmp_path / "of mixed" / path.name).read_bytes()
    encoded = {f"{result.source.name}.safetensors" for result in results if result.status == "encoded"}
    assert {path.name for path in (tmp_path / "of mixed").iterdir() if path.suffix == ".safetensors"} == encoded
