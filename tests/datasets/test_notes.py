from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vision_longformer.datasets import notes
from vision_longformer.images import AS_STORED
from vision_longformer.prediction.classes import predict

SAID = "only the first picture of several was read"


def write(folder: Path, name: str, *, pictures: int) -> Path:
    first, *others = [Image.fromarray(np.full((8, 9, 3), value, np.uint8)) for value in range(pictures)]
    first.save(folder / name, save_all=True, append_images=others)
    return folder / name


def test_files_that_are_read_in_part_are_named_once_for_each_thing_that_is_left_out(tmp_path: Path) -> None:
    paths = [write(tmp_path, f"{number}.tif", pictures=1 + number % 2) for number in range(5)]
    (tmp_path / "no.png").write_bytes(b"no image")
    (tmp_path / "deep.ppm").write_bytes(b"P6 1 1 65535\n" + bytes(6))
    others = [tmp_path / "no.png", tmp_path / "deep.ppm"]
    assert notes.remarks_on_notes([*paths, *others], AS_STORED, max_pixels=10**6) == [
        f"{tmp_path}/1.tif and 1 more: {SAID}",
        f"{tmp_path}/deep.ppm: 16-bit values were read with 8 bits",
    ]
    assert notes.remarks_on_notes([], AS_STORED, max_pixels=10**6) == []


def test_of_many_files_some_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "LOOKED_AT", 3)
    paths = [write(tmp_path, f"{number}.tif", pictures=2) for number in range(7)]
    (said,) = notes.remarks_on_notes(paths, AS_STORED, max_pixels=10**6)
    assert said == f"{tmp_path}/0.tif and 2 more among the 3 looked at: {SAID}"


def test_a_prediction_says_what_of_its_file_was_left_out(tmp_path: Path) -> None:
    class Model(nn.Module):
        num_classes = 2

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(images), 2)

    trained: Any = SimpleNamespace(
        model=Model(),
        classes=("a", "b"),
        reading=AS_STORED,
        transform=lambda: lambda image: torch.from_numpy(np.array(image)),
    )
    paths = [write(tmp_path, f"{number}.tif", pictures=number) for number in (1, 2)]
    found = predict(trained, paths, top=1, device=torch.device("cpu"))
    assert [(prediction.note, prediction.error) for prediction in found] == [("", ""), (SAID, "")]
