"""What is done already is not done again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from features.test_extract import encode, save_photo, statuses
from vision_longformer import VisionLongformer
from vision_longformer.features import extract
from vision_longformer.images.digest import content_digest


def test_a_second_run_skips_what_is_done(tmp_path: Path, output: Path, model: VisionLongformer) -> None:
    photo = save_photo(tmp_path / "x.png")
    assert statuses(encode([photo], output, model)) == ["encoded"]
    before = (output / "x.png.safetensors").stat().st_mtime_ns
    assert statuses(encode([photo], output, model)) == ["skipped"]
    assert (output / "x.png.safetensors").stat().st_mtime_ns == before


def test_an_image_is_known_by_size_and_time_and_else_read(
    tmp_path: Path, output: Path, model: VisionLongformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = save_photo(tmp_path / "x.png")
    encode([photo], output, model)
    read: list[Path] = []

    def noted(path: Path) -> str:
        read.append(path)
        return content_digest(path)

    monkeypatch.setattr(extract, "content_digest", noted)
    assert statuses(encode([photo], output, model)) == ["skipped"]
    assert read == []
    assert statuses(encode([photo], output, model, verify=True)) == ["skipped"]
    assert read == [photo]
    os.utime(photo, ns=(0, 0))
    assert statuses(encode([photo], output, model)) == ["skipped"]
    assert read == [photo, photo]


def test_a_done_image_costs_no_look_at_work_folders_where_there_are_none(
    tmp_path: Path, output: Path, model: VisionLongformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = save_photo(tmp_path / "x.png")
    encode([photo], output, model)
    monkeypatch.setattr(extract, "work_folder_of", None)
    assert statuses(encode([photo], output, model)) == ["skipped"]


def test_verifying_finds_other_bytes_of_the_same_size_and_time(
    tmp_path: Path, output: Path, model: VisionLongformer
) -> None:
    photo = tmp_path / "x.npy"
    np.save(photo, np.zeros((40, 50), np.uint8))
    encode([photo], output, model)
    status = photo.stat()
    np.save(photo, np.ones((40, 50), np.uint8))
    os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert statuses(encode([photo], output, model)) == ["skipped"]
    assert statuses(encode([photo], output, model, verify=True)) == ["encoded"]
