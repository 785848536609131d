from __future__ import annotations

import os
from pathlib import Path

from vision_longformer.images.reader import identity


def test_identity_changes_with_any_file_of_a_folder(tmp_path: Path) -> None:
    chunk, other = tmp_path / "a.zarr" / "c" / "0", tmp_path / "a.zarr" / "zarr.json"
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(b"12345")
    other.write_bytes(b"{}")
    folder_status = (tmp_path / "a.zarr").stat()
    found = [identity(tmp_path / "a.zarr")]
    assert identity(tmp_path / "a.zarr") == found[0]
    chunk.write_bytes(b"123456")
    found.append(identity(tmp_path / "a.zarr"))
    os.utime(chunk, ns=(0, chunk.stat().st_mtime_ns + 1))  # the same size, a moment later
    found.append(identity(tmp_path / "a.zarr"))
    chunk.rename(chunk.with_name("1"))
    found.append(identity(tmp_path / "a.zarr"))
    assert len(set(found)) == len(found)
    assert (tmp_path / "a.zarr").stat().st_mtime_ns == folder_status.st_mtime_ns
    assert identity(other) != identity(chunk.with_name("1"))
