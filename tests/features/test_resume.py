"""The folder of a spilled image: whose it is, and what stays in it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from vision_longformer.features.resume import WorkFolder
from vision_longformer.images import ImageError
from vision_longformer.streaming import WorkFolderError
from vision_longformer.streaming.checkpoint import FILE as CHECKPOINT

pytestmark = pytest.mark.process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "below" / "work"


def begin_and_fail(path: Path, error: BaseException, *, finished: bool) -> None:
    with contextlib.suppress(type(error)), WorkFolder(path, "one") as work:
        work.begin(123)
        (path / "held.map").touch()
        if finished:
            (path / CHECKPOINT).touch()
        raise error


def test_nothing_is_made_for_what_needs_no_folder(path: Path) -> None:
    with WorkFolder(path, "one") as work:
        assert work.band_bytes is None
    assert not path.parent.exists()


def test_a_finished_run_leaves_nothing(path: Path) -> None:
    with WorkFolder(path, "one") as work:
        work.begin(123)
        assert path.is_dir()
    assert not path.exists()


def test_a_stopped_run_is_gone_on_with(path: Path) -> None:
    begin_and_fail(path, KeyboardInterrupt(), finished=False)
    with contextlib.suppress(KeyboardInterrupt), WorkFolder(path, "one") as work:
        assert work.band_bytes == 123
        assert (path / "held.map").exists()
        raise KeyboardInterrupt
    with WorkFolder(path, "another") as work:
        assert work.band_bytes is None
        assert not (path / "held.map").exists()
    assert not path.exists()


@pytest.mark.parametrize("finished", [False, True])
def test_an_image_at_fault_leaves_what_was_finished(path: Path, finished: bool) -> None:
    begin_and_fail(path, ImageError("x.tif: it is damaged"), finished=finished)
    assert path.exists() == finished


def test_a_plan_that_cannot_be_read_begins_anew(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "plan.json").write_text("{")
    (path / "held.map").touch()
    with WorkFolder(path, "one") as work:
        assert work.band_bytes is None
        assert not (path / "held.map").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_two_runs_do_not_share_a_folder(path: Path) -> None:
    with WorkFolder(path, "one") as first:
        first.begin(123)
        with pytest.raises(WorkFolderError, match="work: another run is encoding this image: wait until it is over"):
            WorkFolder(path, "two").__enter__()
        assert (path / "plan.json").exists()
    with WorkFolder(path, "two") as second:
        second.begin(1)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_two_runs_that_begin_at_once_do_not_share_a_folder(path: Path) -> None:
    with WorkFolder(path, "one") as first, WorkFolder(path.parent / "other", "two") as second:
        second.path = path
        first.begin(123)
        with pytest.raises(WorkFolderError, match="another run is encoding this image"):
            second.begin(1)
        second.path = path.parent / "other"


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_a_killed_run_lets_go(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from vision_longformer.features.resume import WorkFolder\n"
        "work = WorkFolder(Path(sys.argv[1]), 'one').__enter__(); work.begin(123); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    with WorkFolder(path, "one") as work:
        assert work.band_bytes == 123


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(WorkFolderError, match=r"file/work: cannot be written \(not a directory\)"),
        WorkFolder(tmp_path / "file" / "work", "one") as work,
    ):
        work.begin(1)
