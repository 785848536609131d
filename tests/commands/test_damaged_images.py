"""A run over many images of which most are damaged: each is encoded or failed, and the good ones are as if alone."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from images.damage import damaged, originals
from vil import main
from vision_longformer.commands import encode
from vision_longformer.features.extract import encode_files
from vision_longformer.features.results import Result

MAX_PIXELS = 10**6  # whatever a damaged header says
LONGEST = 10  # seconds of processor time for an image


def vil_encode(images: Path, output: Path, *, batch: str) -> int:
    options = ["--batch", batch, "--no-report", "--stages", "4", "--max-pixels", str(MAX_PIXELS), "--device", "cpu"]
    return main(["encode", str(images), "--output", str(output), *options])


@pytest.mark.parametrize("batch", ["1", "auto"])
@pytest.mark.parametrize("count", [40, pytest.param(10_000, marks=pytest.mark.long)])
def test_damaged_images_neither_end_a_run_nor_hold_it_up_nor_change_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], count: int, batch: str
) -> None:
    files, rng, results = list(originals().items()), random.Random(count), list[Result]()
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number in range(count):
        name, data = files[number % len(files)]
        (mixed / f"{number:05}{name}").write_bytes(damaged(data, rng))
        if number % 10 == 0:
            name, data = files[number // 10 % len(files)]
            (mixed / f"good{number:05}{name}").write_bytes(data)

    def watched(*arguments: Any, **options: Any) -> Iterator[Result]:
        before = time.process_time()
        for result in plain(*arguments, **options):
            assert time.process_time() - before < LONGEST, result
            results.append(result)
            yield result
            before = time.process_time()

    plain = encode_files
    monkeypatch.setattr(encode, "encode_files", watched)
    assert vil_encode(mixed, tmp_path / "of mixed", batch=batch) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if "untrained" not in line]
    assert [line for line in lines if not line.startswith("vil: ")] == []
    assert {result.status for result in results} == {"encoded", "failed"}
    assert len(results) == len(list(mixed.iterdir()))
    assert [result.message for result in results if "internal error" in result.message] == []
    encoded = {f"{result.source.name}.safetensors" for result in results if result.status == "encoded"}
    assert {path.name for path in (tmp_path / "of mixed").iterdir() if path.suffix == ".safetensors"} == encoded
    assert vil_encode(mixed / "good*", tmp_path / "of good", batch=batch) == 0
    alone = sorted((tmp_path / "of good").glob("good*"))
    assert len(alone) == count // 10
    for path in alone:
        if batch == "1":
            assert path.read_bytes() == (tmp_path / "of mixed" / path.name).read_bytes()
        else:  # sums are rounded as the size of a batch has it
            one, other = load_file(path), load_file(tmp_path / "of mixed" / path.name)
            torch.testing.assert_close(one, other, rtol=0.01, atol=0.002)
