from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vision_longformer.utils import locks
from vision_longformer.utils.atomic_files import replacing, replacing_folder

pytestmark = pytest.mark.process


def test_a_folder_appears_only_once_it_is_finished(tmp_path: Path) -> None:
    target = tmp_path / "new" / "x"
    with replacing_folder(target) as temporary:
        (temporary / "below").mkdir()
        (temporary / "below" / "a").write_text("1")
        assert not target.exists()
    assert (target / "below" / "a").read_text() == "1"
    assert list(target.parent.iterdir()) == [target]


def test_what_was_there_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with replacing_folder(tmp_path / "x") as temporary:
            (temporary / name).touch()
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "x") as temporary:
        (temporary / "a").touch()
    with contextlib.suppress(KeyError), replacing_folder(tmp_path / "x") as temporary:
        (temporary / "b").touch()
        raise KeyError
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["a"]
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_what_need_not_last_is_replaced_as_a_whole_without_a_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int] = []
    monkeypatch.setattr(os, "fsync", waited.append)
    (tmp_path / "x").write_text("old")
    with contextlib.suppress(KeyError), replacing(tmp_path / "x", lasting=False) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert (tmp_path / "x").read_text() == "old"
    with replacing(tmp_path / "x", lasting=False) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "x").read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]
    assert waited == []
    with replacing(tmp_path / "x") as temporary:
        temporary.write_text("newer")
    assert len(waited) == 2  # for the bytes, and for the name


# A process that writes a file or a folder, says so, and waits.
WRITER = """
import sys, time
from pathlib import Path
from vision_longformer.utils import atomic_files
with getattr(atomic_files, sys.argv[1])(Path(sys.argv[2])) as temporary:
    (temporary if temporary.is_file() else temporary / "a").write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["replacing", "replacing_folder"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(kind: str, target: Path, text: str) -> None:
    if kind == "replacing":
        with replacing(target) as temporary:
            temporary.write_text(text)
    else:
        with replacing_folder(target) as temporary:
            (temporary / "a").write_text(text)


def read(target: Path) -> str:
    return (target / "a" if target.is_dir() else target).read_text()


@contextlib.contextmanager
def another_writer(kind: str, target: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", WRITER, kind, target], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        try:
            yield writer
        finally:
            writer.kill()


def test_what_a_killed_process_left_goes_when_the_same_is_written_again(kind: str, tmp_path: Path) -> None:
    with another_writer(kind, tmp_path / "x"):
        pass
    assert len(list(tmp_path.iterdir())) == 1
    write(kind, tmp_path / "y", "of another name")
    assert len(list(tmp_path.iterdir())) == 2
    write(kind, tmp_path / "x", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "y"]
    assert read(tmp_path / "x") == "whole"


def test_what_another_process_is_writing_stays(kind: str, tmp_path: Path) -> None:
    with another_writer(kind, tmp_path / "x"):
        write(kind, tmp_path / "x", "whole")
        assert sorted(path.name for path in tmp_path.iterdir())[1:] == ["x"]
        assert len(list(tmp_path.iterdir())) == 2


def test_of_two_that_write_at_once_the_last_one_stays(kind: str, tmp_path: Path) -> None:
    replace: Any = replacing if kind == "replacing" else replacing_folder
    with replace(tmp_path / "x") as temporary:
        (temporary if kind == "replacing" else temporary / "a").write_text("last")
        write(kind, tmp_path / "x", "first")
        assert read(tmp_path / "x") == "first"
    assert read(tmp_path / "x") == "last"
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_files_of_other_programs_stay(tmp_path: Path) -> None:
    names = (".x.notes.tmp", ".x.tmp", "x.abcdefgh.tmp", ".x.abcdefgh.tmp")
    for name in names:
        (tmp_path / name).touch()
    write("replacing", tmp_path / "x", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "x"])


def test_writing_a_file_takes_as_long_whatever_else_is_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, lambda *_: pytest.fail("looks at the whole folder"))
    write("replacing", tmp_path / "x", "whole")
    monkeypatch.undo()
    assert read(tmp_path / "x") == "whole"


def test_what_two_killed_processes_left_goes(kind: str, tmp_path: Path) -> None:
    with another_writer(kind, tmp_path / "x"), another_writer(kind, tmp_path / "x"):
        assert len(list(tmp_path.iterdir())) == 2
    write(kind, tmp_path / "x", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_where_there_are_no_locks_nothing_is_taken_for_left_behind(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    with another_writer(kind, tmp_path / "x"):
        write(kind, tmp_path / "x", "whole")
        assert read(tmp_path / "x") == "whole"
        assert len(list(tmp_path.iterdir())) == 2


def test_threads_that_still_write_leave_nothing(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        for number in range(20):
            (folder / str(number)).mkdir(parents=True, exist_ok=True)
            time.sleep(0.01)

    with contextlib.suppress(KeyError), replacing_folder(tmp_path / "x") as temporary:
        thread = threading.Thread(target=write, args=[temporary])
        thread.start()
        time.sleep(0.05)
        raise KeyError
    thread.join()
    assert list(tmp_path.iterdir()) == []


SAVER = """
import sys, torch
from pathlib import Path
from vision_longformer.utils.tensor_files import read_tensors, write_tensors
for number in range(10):
    write_tensors(Path(sys.argv[1]), {"a": torch.full((300_000,), float(number))}, {})
    read_tensors(Path(sys.argv[1]))
"""


def test_several_processes_save_tensors_to_one_path(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAVER, str(tmp_path / "x.safetensors")]
    savers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [(saver.communicate(timeout=300)[1], saver.returncode) for saver in savers] == [("", 0)] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_new_files_get_the_rights_of_others_without_a_change_of_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("other threads would make files with it"))
        with replacing(tmp_path / "x") as temporary:
            temporary.write_text("1")
        with replacing(tmp_path / "y", private=True) as temporary:
            temporary.write_text("1")
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "y").stat().st_mode) == 0o600
