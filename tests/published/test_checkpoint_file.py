"""Files of the published code: what is read, and what is refused of files that are damaged or made to do harm."""

from __future__ import annotations

import contextlib
import io
import random
import sys
import time
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vision_longformer.published.checkpoint_file import load_reference_checkpoint
from vision_longformer.published.parse import ReferenceEntries


def test_checkpoint_with_numpy_scalars_and_yacs_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("yacs.config")

    class CfgNode(dict[str, Any]):
        pass

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module.CfgNode = CfgNode  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    config = CfgNode(lr=0.1, nested=CfgNode(seed=3))
    config.__dict__["__immutable__"] = True
    path = tmp_path / "model_best.pth"
    torch.save({"net": {"x": torch.ones(3)}, "config": config, "best": np.float64(82.4), "epoch": 299}, path)
    monkeypatch.delitem(sys.modules, "yacs.config")
    checkpoint = load_reference_checkpoint(path)
    assert checkpoint["epoch"] == 299
    assert torch.equal(ReferenceEntries(checkpoint).tensors["x"], torch.ones(3))


class Harmful:
    def __reduce__(self) -> Any:
        return print, ("harm done",)


def test_code_in_a_pickle_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.pth"
    torch.save({"net": {}, "extra": Harmful()}, path)
    with pytest.raises(ValueError, match=r"bad\.pth: holds print, which is not a tensor"):
        load_reference_checkpoint(path)
    assert "harm" not in capsys.readouterr().out


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pth: no such file"):
        load_reference_checkpoint(tmp_path / "none.pth")
    for name, content in {"text.pth": b"hello", "empty.pth": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: is not a PyTorch checkpoint"):
            load_reference_checkpoint(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list"):
        load_reference_checkpoint(tmp_path / "list.pth")
    torch.save({"net": {"x": torch.ones(1000)}}, tmp_path / "cut.pth")
    data = (tmp_path / "cut.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"cut\.pth: is not a PyTorch checkpoint, or is damaged"):
        load_reference_checkpoint(tmp_path / "cut.pth")


def saved(**entries: Any) -> dict[str, bytes]:
    """Return the records of a checkpoint's archive."""
    stream = io.BytesIO()
    torch.save({"net": OrderedDict(a=torch.arange(4.0), b=torch.ones(2, 3)), "epoch": 3, **entries}, stream)
    with zipfile.ZipFile(stream) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, records: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    return path


def of_pickle(data: bytes) -> dict[str, bytes]:
    """Return the records of an archive whose pickle is `data`."""
    return {name: data if name.endswith("data.pkl") else kept for name, kept in saved().items()}


def test_both_formats_of_archives_give_the_same_tensors(tmp_path: Path) -> None:
    state = {"net": OrderedDict(a=torch.arange(4.0), b=torch.ones(2, 3).t())}
    for zipped in (True, False):
        torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        found = load_reference_checkpoint(tmp_path / "x.pth")["net"]
        assert torch.equal(found["a"], torch.arange(4.0))
        assert torch.equal(found["b"], torch.ones(3, 2))


def test_what_is_larger_than_its_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    bomb = pack(tmp_path / "bomb.pth", saved() | {"archive/data/9": bytes(2**26)}, compression=zipfile.ZIP_DEFLATED)
    long = b"\x80\x02" + b"]" * 2**22 + b"."
    calls = b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R."
    files: dict[str, tuple[Path, str]] = {
        "compressed": (bomb, r"bomb\.pth: would become 67,\d{3},\d{3} bytes, but has \d+,\d{3}"),
        "a call": (pack(tmp_path / "call.pth", of_pickle(calls)), r"call\.pth: holds bytearray, which is not a tensor"),
        "a long pickle": (
            pack(tmp_path / "long.pth", of_pickle(b"\x80\x02" + b"]" * 2**22 + b".")),
            "a pickle of more",
        ),
    }
    (tmp_path / "old.pth").write_bytes(long)
    files["a long old pickle"] = tmp_path / "old.pth", r"old\.pth: is not a PyTorch checkpoint, or is damaged"
    start = time.process_time()
    for path, message in files.values():
        with pytest.raises(ValueError, match=message):
            load_reference_checkpoint(path)
    assert time.process_time() - start < 2 * len(files)


def test_a_tensor_with_more_elements_than_its_storage_is_refused(tmp_path: Path) -> None:
    torch.save({"net": {"x": torch.ones(1).expand(2**40)}}, tmp_path / "wide.pth")
    with pytest.raises(ValueError, match=r"wide\.pth: holds a tensor of shape \(1099511627776,\), more than is stored"):
        load_reference_checkpoint(tmp_path / "wide.pth")


def test_a_record_shorter_than_the_pickle_says_is_not_read_beyond_the_file(tmp_path: Path) -> None:
    data = next(data for name, data in saved().items() if name.endswith("data.pkl"))
    longer = data.replace(b"K\x04tq", b"J\x00\x00\x00\x10tq", 1)  # 2^28 elements in a record of 4
    assert longer != data
    path = pack(tmp_path / "longer.pth", of_pickle(longer))
    tensor = load_reference_checkpoint(path)["net"]["a"]
    assert torch.equal(tensor, torch.arange(4.0))
    assert tensor.untyped_storage().nbytes() <= path.stat().st_size


OPERATIONS = b"(.0122FGIJKLMNPQRSTUVX]ab}cdeghijlopqrstu\x80\x81\x85\x86\x87\x88\x89\x8a"


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return data with some bytes changed to others, to operations of pickles, or cut."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        place = rng.randrange(len(changed))
        match rng.choice(["byte", "operation", "cut", "end"]):
            case "byte":
                changed[place] = rng.randrange(256)
            case "operation":
                changed[place] = rng.choice(
                    b"(.0122FGIJKLMNPQRSTUVX]ab}cdeghijlopqrstu\x80\x81\x85\x86\x87\x88\x89\x8a"
                )
            case "cut":
                del changed[place : place + rng.randrange(1, 8)]
            case "end":
                del changed[place + 1 :]
        changed = changed or bytearray(b"x")
    return bytes(changed)


@pytest.mark.parametrize("count", [100, pytest.param(5000, marks=pytest.mark.long)])
def test_mutants_are_read_or_refused_in_a_sentence(tmp_path: Path, count: int) -> None:
    rng, path = random.Random(count), tmp_path / "mutant.pth"
    records = saved()
    name = next(name for name in records if name.endswith("data.pkl"))
    torch.save({"net": {"a": torch.arange(4.0)}}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    old = (tmp_path / "old.pth").read_bytes()
    whole = pack(tmp_path / "whole.pth", records).read_bytes()
    for _ in range(count):
        pack(path, records | {name: mutated(records[name], rng)})
        kinds: list[Callable[[], Any]] = [
            lambda: None,
            lambda: path.write_bytes(mutated(old, rng)),
            lambda: path.write_bytes(mutated(whole, rng)),
        ]
        rng.choice(kinds)()
        with contextlib.suppress(ValueError):
            load_reference_checkpoint(path)
