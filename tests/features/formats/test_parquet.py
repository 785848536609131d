from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from features.test_extract import encode, save_photo, statuses
from vision_longformer import VisionLongformer
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.extract import encode_files
from vision_longformer.features.formats import parquet
from vision_longformer.features.formats.parquet import load_embeddings
from vision_longformer.images.find import find_images

pyarrow_parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return [save_photo(tmp_path / "in" / f"{number}.png", seed=number) for number in range(5)]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(photos: list[Path], output: Path, model: VisionLongformer, **options: Any) -> list[str]:
    return statuses(encode(photos, output, model, stages=[], kind="parquet", **options))


def rows(output: Path) -> list[str]:
    """The names in all parts, each as often as it is there."""
    tables = [pyarrow_parquet.read_table(path) for path in output.glob("*.parquet")]
    return sorted(name for table in tables for name in table.column("source").to_pylist())


def names(photos: list[Path]) -> list[str]:
    return [photo.name for photo in photos]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_embeddings_of_many_images_come_back(
    photos: list[Path], output: Path, model: VisionLongformer, dtype: Any
) -> None:
    assert run(photos, output, model, dtype=dtype) == ["encoded"] * 5
    assert len(list(output.iterdir())) == 1
    found = load_embeddings(output)
    assert found.names == tuple(names(photos))
    assert found.metadata["dtype"] == dtype
    expected = torch.stack([Encoder(model).encode(photo).embedding for photo in photos])
    torch.testing.assert_close(found.embeddings, expected.to(found.embeddings.dtype), rtol=1e-3, atol=1e-3)
    table = pyarrow_parquet.read_table(next(output.iterdir()))
    assert table.column("height").to_pylist() == [45] * 5
    assert table.column("original_width").to_pylist() == [77] * 5


def test_parts_have_so_many_rows(
    photos: list[Path], output: Path, model: VisionLongformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROWS", 2)
    run(photos, output, model)
    assert len(list(output.iterdir())) == 3
    assert rows(output) == names(photos)


def test_what_is_done_is_skipped_and_what_is_new_is_added(
    photos: list[Path], output: Path, model: VisionLongformer
) -> None:
    run(photos[:3], output, model)
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    assert run(photos, output, model) == ["skipped"] * 3 + ["encoded"] * 2
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert rows(output) == names(photos)


@pytest.mark.parametrize("change", ["image", "weights"])
def test_of_an_image_that_is_encoded_anew_the_older_row_goes(
    photos: list[Path], output: Path, model: VisionLongformer, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROWS", 3)
    run(photos, output, model)
    if change == "image":
        for photo in photos[1:4]:
            save_photo(photo, seed=99)
        assert run(photos, output, model) == ["skipped", "encoded", "encoded", "encoded", "skipped"]
        found = dict(zip(load_embeddings(output).names, load_embeddings(output).embeddings, strict=True))
        assert torch.equal(found["1.png"], found["2.png"])
    else:
        with torch.no_grad():
            model.norm.bias[0] += 1  # type: ignore[index, operator]
        assert run(photos, output, model) == ["encoded"] * 5
    assert rows(output) == names(photos)


def test_parts_of_other_images_are_not_read(
    photos: list[Path], output: Path, model: VisionLongformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(photos[:2], output, model)
    run(photos[2:4], output, model)
    run(photos[4:], output, model)
    (output / "part-damaged.parquet").write_bytes(b"nothing")
    read: list[Path] = []
    read_descriptions = parquet.read_descriptions

    def counted(path: Path) -> Any:
        read.append(path)
        return read_descriptions(path)

    monkeypatch.setattr(parquet, "read_descriptions", counted)
    assert run(photos[1:3], output, model) == ["skipped", "skipped"]
    assert len(read) == 3  # two that have them, and one that says nothing of itself


def test_rows_of_another_model_are_not_mixed_in(photos: list[Path], output: Path, model: VisionLongformer) -> None:
    run(photos[:2], output, model)
    with torch.no_grad():
        model.norm.bias[0] += 1  # type: ignore[index, operator]
    run(photos[2:], output, model)
    with pytest.raises(ValueError, match=r"part-\w+\.parquet: it was made with another weights than part-"):
        load_embeddings(output)


def test_what_is_finished_is_kept_when_a_run_is_stopped(
    photos: list[Path], output: Path, model: VisionLongformer
) -> None:
    results = encode_files(
        find_images([str(photo) for photo in photos]),
        output,
        Encoder(model, stages=[]),
        model_name="nano",
        kind="parquet",
        batch=1,
    )
    next(results)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert set(names(photos[:2])) <= set(rows(output))
    run(photos, output, model)
    assert rows(output) == names(photos)


def test_a_folder_without_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there are no embeddings"):
        load_embeddings(tmp_path)
    (tmp_path / "part-0.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"part-0\.parquet: it is damaged"):
        load_embeddings(tmp_path)


def test_a_damaged_part_is_encoded_again(photos: list[Path], output: Path, model: VisionLongformer) -> None:
    run(photos, output, model)
    os.truncate(next(output.iterdir()), 100)
    assert run(photos, output, model) == ["encoded"] * 5
    assert rows(output) == names(photos)


# A process that is killed as it writes its second part.
KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from vision_longformer import create_model
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.extract import encode_files
from vision_longformer.features.formats import parquet
from vision_longformer.images.find import find_images

write, calls = parquet._write_table, []
def killed(path, table):
    calls.append(path)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, table)
parquet._write_table, parquet.ROWS = killed, 2
torch.manual_seed(0)
encoder = Encoder(create_model("vision_longformer_nano", num_classes=0), stages=[])
list(encode_files(find_images([sys.argv[1]]), Path(sys.argv[2]), encoder, model_name="nano", kind="parquet", batch=2))
"""


@pytest.mark.process
@pytest.mark.slow
def test_a_killed_process_leaves_whole_parts_and_the_next_goes_on(
    photos: list[Path], output: Path, model: VisionLongformer
) -> None:
    command = [sys.executable, "-c", KILLED, str(photos[0].parent), str(output)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(rows(output)) == 2
    found = run(photos, output, model)
    assert sorted(found) == ["encoded"] * 3 + ["skipped"] * 2
    assert rows(output) == names(photos)
