"""Architecture strings, options and files of the published code."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vision_longformer.published.parse import (
    ReferenceEntries,
    ReferenceOptions,
    load_reference_checkpoint,
    parse_architecture,
)

# --- what an architecture string means ---------------------------------------------------------------------------


def test_missing_letters_take_the_published_defaults() -> None:
    stage = parse_architecture("l1")[0]
    assert (stage.heads, stage.width, stage.blocks, stage.use_attn_type) == (3, 192, 1, 1)
    assert (stage.global_tokens, stage.patch, stage.window, stage.absolute) == (1, 2, 7, 1)


def test_published_option_defaults() -> None:
    assert ReferenceOptions() == ReferenceOptions(
        num_classes=1000,
        norm_embed=True,
        sharew=True,
        share_kv=True,
        attn_type="longformerhand",
        sw_exact=0,
        mode=0,
        only_glo=False,
        avg_pool=False,
    )


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("l1,x4", "'x4' in stage 1 is not a letter and a number"),
        ("l1,h3_l2,h", "'h' in stage 2"),
        ("", "'' in stage 1"),
        ("l1,h3,h4", "stage 1 sets 'h' twice"),
        ("l1_l3", "stage 2 must start with 'l2'"),
    ],
)
def test_bad_architecture_strings(arch: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_architecture(arch)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"attn_type": "mamba"}, "attn_type='mamba'"), ({"sw_exact": 2}, "sw_exact=2"), ({"mode": -3}, "mode=-3")],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReferenceOptions(**options)


# --- files -------------------------------------------------------------------------------------------------------


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
