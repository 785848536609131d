from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vision_longformer.images.find import find_images
from vision_longformer.utils import remote

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("tenacity")


@pytest.fixture
def memory() -> Any:
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


@pytest.mark.parametrize(
    ("text", "expected"), [("s3://b/x.jpg", True), ("memory://x", True), ("c:\\x.jpg", False), ("a/b://c", False)]
)
def test_what_is_a_url(text: str, expected: bool) -> None:
    assert remote.is_url(text) == expected


def test_images_of_a_folder_are_named_below_it(memory: Any) -> None:
    for name in ("a/1.jpg", "a/b/2.PNG", "a/notes.txt", "a/._1.jpg"):
        memory.pipe(f"/set/{name}", b"bytes")
    assert [source.name for source in find_images(["memory://set/a"], urls=True)] == ["1.jpg", "b/2.PNG"]
    assert [source.name for source in find_images(["memory://set/a/*.txt"], urls=True)] == ["notes.txt"]
    both = find_images(["memory://set/a/1.jpg", "memory://set/a/b/2.PNG"], urls=True)
    assert [source.name for source in both] == ["1.jpg", "b/2.PNG"]


def test_urls_and_paths_are_not_mixed(memory: Any) -> None:
    memory.pipe("/set/1.jpg", b"bytes")
    with pytest.raises(ValueError, match="give either URLs or paths, not both"):
        find_images(["memory://set/1.jpg", "x.jpg"], urls=True)


def test_a_copy_is_at_hand_and_goes(memory: Any) -> None:
    memory.pipe("/set/1.jpg", b"bytes")
    (source,) = find_images(["memory://set/1.jpg"], urls=True)
    assert source.size == 5
    with source.at_hand() as near:
        assert near.path.read_bytes() == b"bytes"
        assert near.name == source.name
    assert not near.path.exists()


def test_the_state_changes_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"bytes")
    (before,) = find_images([f"file://{tmp_path}/1.jpg"], urls=True)
    (tmp_path / "1.jpg").write_bytes(b"others, more")
    (after,) = find_images([f"file://{tmp_path}/1.jpg"], urls=True)
    assert before.state
    assert before.state != after.state


def test_a_file_too_large_for_the_disk_is_not_begun() -> None:
    with (
        pytest.raises(OSError, match="set TMPDIR to a folder on a larger one"),
        remote.local_copy(remote.RemoteFile("memory://set/1.tif", 10**18)),
    ):
        pass


def test_what_fails_for_a_while_is_tried_again(memory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    memory.pipe("/set/1.jpg", b"bytes")
    failures = [ConnectionError("reset"), TimeoutError("busy")]
    whole = type(memory).get_file

    def failing(store: Any, *arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return whole(store, *arguments, **options)

    monkeypatch.setattr(type(memory), "get_file", failing)
    remote.download("memory://set/1.jpg", tmp_path / "1.jpg")
    assert (tmp_path / "1.jpg").read_bytes() == b"bytes"


def test_what_fails_for_good_names_the_url(memory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote, "TRIES", 2)
    memory.pipe("/set/1.jpg", b"bytes")

    def failing(*_arguments: Any, **_options: Any) -> None:
        raise ConnectionError("reset")

    monkeypatch.setattr(type(memory), "get_file", failing)
    with pytest.raises(OSError, match=r"memory://set/1\.jpg: reset"):
        remote.download("memory://set/1.jpg", tmp_path / "1.jpg")
    with pytest.raises(FileNotFoundError, match="memory://set/2"):
        remote.list_files("memory://set/2")


def test_a_file_in_a_folder_appears_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TRIES", 1)
    (tmp_path / "made").write_bytes(b"bytes")
    remote.upload(tmp_path / "made", f"file://{tmp_path}/out/1")
    assert (tmp_path / "out" / "1").read_bytes() == b"bytes"
    store = fsspec.filesystem("file")

    def half(_store: Any, _source: str, target: str, **_options: Any) -> None:
        Path(target).write_bytes(b"by")
        raise ConnectionError("reset")

    monkeypatch.setattr(type(store), "put_file", half)
    with pytest.raises(OSError, match="reset"):
        remote.upload(tmp_path / "made", f"file://{tmp_path}/out/2")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1"]
