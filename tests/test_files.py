from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from vision_longformer.files import replacing_folder


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


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    (tmp_path / ".x.tmp").mkdir()
    (tmp_path / ".x.tmp" / "old").touch()
    with replacing_folder(tmp_path / "x") as temporary:
        (temporary / "a").touch()
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["a"]


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
