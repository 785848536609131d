from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model_helpers import noise
from vision_longformer.streaming.maps import FileMap, MemoryMap, StageMap, WorkFolderError
from vision_longformer.streaming.rows import Rows

SHAPE = (11, 5, 3)


@pytest.fixture(params=["memory", "file"])
def stage_map(request: pytest.FixtureRequest, tmp_path: Path) -> StageMap:
    device = torch.device("cpu")
    if request.param == "memory":
        return MemoryMap(SHAPE, torch.bfloat16, device)
    return FileMap(tmp_path / "a.map", SHAPE, torch.bfloat16, device)


def test_what_is_written_is_read(stage_map: StageMap) -> None:
    tokens, valid = noise(*SHAPE, dtype=torch.bfloat16), noise(11, 5) > 0
    for top, bottom in ((0, 4), (4, 5), (5, 11)):
        stage_map.write(Rows(top, tokens[top:bottom], None if top == 4 else valid[top:bottom]))
    valid[4] = True
    assert torch.equal(stage_map.read(3, 9), tokens[3:9])
    assert torch.equal(stage_map.tensor(), tokens.permute(2, 0, 1))
    assert stage_map.valid is not None
    assert torch.equal(stage_map.valid, valid)
    pieces = list(stage_map.stream(4))
    assert [(piece.top, piece.bottom) for piece in pieces] == [(0, 4), (4, 8), (8, 11)]
    assert torch.equal(torch.cat([piece.tokens for piece in pieces]), tokens)


def test_a_file_that_is_cut_short_is_a_sentence(tmp_path: Path) -> None:
    stage_map = FileMap(tmp_path / "a.map", SHAPE, torch.float32, torch.device("cpu"))
    with pytest.raises(WorkFolderError, match=r"a\.map: it is cut short"):
        stage_map.read(0, 1)


def test_a_file_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(WorkFolderError, match=r"a\.map: no such file or directory"):
        FileMap(tmp_path / "none" / "a.map", SHAPE, torch.float32, torch.device("cpu"))


def test_a_removed_map_leaves_nothing(tmp_path: Path) -> None:
    stage_map = FileMap(tmp_path / "a.map", SHAPE, torch.float32, torch.device("cpu"))
    stage_map.remove()
    stage_map.remove()
    assert not list(tmp_path.iterdir())
