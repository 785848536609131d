"""A run that was stopped goes on where it was, and gives the same bits."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from model_helpers import MODELS, build
from streaming.streaming_helpers import holes, picture, reader, streamed_tensors
from vision_longformer.streaming import Progress, StreamedFeatures, WorkFolderError, stream
from vision_longformer.streaming.checkpoint import FILE


class StoppedError(Exception):
    pass


class Stop:
    """Stops a run after some bands, or at a block, and counts the bands."""

    def __init__(self, after: int | None = None, *, at: tuple[int, int] | None = None) -> None:
        self.after, self.at, self.calls = after, at, 0
        self.first: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        self.first = self.first or progress
        self.calls += 1
        if self.calls == self.after or (progress.stage, progress.block) == self.at:
            raise StoppedError


@pytest.mark.parametrize("every_block", [False, True])
def test_a_stopped_run_goes_on_at_any_point(tmp_path: Path, every_block: bool) -> None:
    model, array, valid = build(MODELS["windowed"]), picture(100, 50), holes(100, 50)

    def run(folder: Path, stop: Stop) -> dict[str, torch.Tensor]:
        features = stream(
            model,
            reader(array, valid),
            stages=(2, 3),
            work_folder=folder,
            resume=True,
            every_block=every_block,
            band_rows=3,
            progress=stop,
        )
        return streamed_tensors(features)

    counter = Stop()
    expected = run(tmp_path / "whole", counter)
    again = []
    for after in range(1, counter.calls + 1, 5):
        folder = tmp_path / str(after)
        with pytest.raises(StoppedError):
            run(folder, Stop(after))
        rest = Stop()
        found = run(folder, rest)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert sorted(path.name for path in folder.iterdir()) == [FILE, "stage2.map", "stage3.map"]
        again.append(rest.calls)
    assert again == sorted(again, reverse=True)
    assert again[0] == counter.calls
    assert again[-1] < counter.calls / 2  # what was finished is not done again


def test_a_finished_run_gives_its_result_again_while_its_maps_are_there(tmp_path: Path) -> None:
    model, array, valid = build(MODELS["windowed"]), picture(60, 50), holes(60, 50)

    def run(bands: Stop) -> StreamedFeatures:
        return stream(
            model, reader(array, valid), stages=(2, 3), work_folder=tmp_path, resume=True, band_rows=1, progress=bands
        )

    first, again = Stop(), Stop()
    expected, found = (streamed_tensors(run(bands)) for bands in (first, again))
    assert first.calls > 0
    assert again.calls == 0
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    run(Stop()).maps[0].remove()
    run(again)
    assert again.calls == first.calls


def test_another_image_or_model_begins_anew(tmp_path: Path) -> None:
    model, array = build(MODELS["windowed"]), picture(60, 50)

    def first_block(changed: torch.nn.Module, size: tuple[int, int]) -> tuple[int, int]:
        begun = Stop()
        stream(changed, reader(picture(*size)), work_folder=tmp_path, resume=True, band_rows=1, progress=begun)  # type: ignore[arg-type]
        assert begun.first is not None
        return begun.first.stage, begun.first.block

    def stop_late() -> None:
        (tmp_path / FILE).unlink(missing_ok=True)
        with pytest.raises(StoppedError):
            stream(model, reader(array), work_folder=tmp_path, resume=True, band_rows=1, progress=Stop(at=(2, 2)))
        assert (tmp_path / FILE).exists()

    stop_late()
    assert first_block(model, (60, 50)) == (2, 2)
    stop_late()
    assert first_block(build(MODELS["windowed"], seed=1), (60, 50)) == (1, 1)
    stop_late()
    assert first_block(model, (60, 51)) == (1, 1)


def test_maps_that_another_run_may_have_overwritten_are_not_taken(tmp_path: Path) -> None:
    model, other = (build(MODELS["windowed"], seed=seed) for seed in (0, 1))
    array, bands = picture(60, 50), Stop()
    stream(model, reader(array), work_folder=tmp_path, resume=True, band_rows=1)
    with pytest.raises(StoppedError):
        stream(other, reader(array), work_folder=tmp_path, resume=True, band_rows=1, progress=Stop(after=3))
    stream(model, reader(array), work_folder=tmp_path, resume=True, band_rows=1, progress=bands)
    assert bands.first is not None
    assert (bands.first.stage, bands.first.block) == (1, 1)


@pytest.mark.parametrize("harm", ["remove", "cut", "a bit"])
def test_a_checkpoint_without_its_map_is_none(tmp_path: Path, harm: str) -> None:
    model, array = build(MODELS["windowed"]), picture(60, 50)
    with pytest.raises(StoppedError):
        stream(
            model, reader(array), stages=(), work_folder=tmp_path, resume=True, band_rows=1, progress=Stop(at=(2, 2))
        )
    held = next(tmp_path.glob("held-*.map"))
    if harm == "remove":
        held.unlink()
    elif harm == "a bit":
        data = bytearray(held.read_bytes())
        data[len(data) // 2] ^= 1
        held.write_bytes(bytes(data))
    else:
        os.truncate(held, held.stat().st_size - 1)
    begun = Stop()
    stream(model, reader(array), stages=(), work_folder=tmp_path, resume=True, band_rows=1, progress=begun)
    assert begun.first is not None
    assert (begun.first.stage, begun.first.block) == (1, 1)


def test_a_full_disk_is_a_sentence_and_leaves_what_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, array = build(MODELS["windowed"]), picture(120, 83)
    expected = stream(model, reader(array), band_rows=2)
    write = os.pwritev

    def full(file: int, buffers: Sequence[memoryview], place: int) -> int:
        if (tmp_path / FILE).exists() and place:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, buffers, place)

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(WorkFolderError, match=r"stage3\.map: the disk is full; make room there"):
        stream(model, reader(array), stages=(3,), work_folder=tmp_path, resume=True, band_rows=2)
    assert (tmp_path / FILE).exists()
    monkeypatch.undo()
    rest = Stop()
    features = stream(model, reader(array), stages=(3,), work_folder=tmp_path, resume=True, band_rows=2, progress=rest)
    assert torch.equal(features.embedding, expected.embedding)
    assert rest.first is not None
    assert (rest.first.stage, rest.first.block) == (2, 2)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
@pytest.mark.parametrize("resume", [False, True])
def test_two_runs_do_not_share_a_work_folder(tmp_path: Path, resume: bool) -> None:
    model, array, valid = build(MODELS["windowed"]), picture(60, 50), holes(60, 50)

    def run(progress: Callable[[Progress], None] | None) -> dict[str, torch.Tensor]:
        options: dict[str, Any] = {"work_folder": tmp_path, "resume": resume, "progress": progress}
        return streamed_tensors(stream(model, reader(array, valid), band_rows=3, **options))

    def begin_another(_progress: Progress) -> None:
        with pytest.raises(WorkFolderError, match="another run is at work there: wait until it is over, or choose"):
            run(None)

    found, expected = run(begin_another), streamed_tensors(stream(model, reader(array, valid), band_rows=3))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    run(None)  # which is let in now
