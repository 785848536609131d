"""Whether an image is streamed, and what is then found in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detection.cases import retinanet
from streaming.streaming_helpers import picture
from vision_longformer.detection import RetinaNet
from vision_longformer.detection.streamed.find_objects import find_objects_streamed
from vision_longformer.detection.tiled import find_objects
from vision_longformer.fpn.streamed.memory import Streaming
from vision_longformer.images import ArrayReader
from vision_longformer.streaming import WorkFolderError
from vision_longformer.tiling.choosing import Tiling

COLOURS: dict[str, Any] = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
SPILLED = Streaming(0, 50_000, True)


@pytest.fixture(scope="module")
def model() -> RetinaNet:
    return retinanet(torch.float32)


@pytest.mark.parametrize("spilled", [False, True])
def test_what_is_found_is_what_a_whole_pass_finds(model: RetinaNet, spilled: bool, tmp_path: Path) -> None:
    pixels = picture(203, 150)
    expected = find_objects(model, pixels, tiling=Tiling(model, tile=256), **COLOURS)
    strategy = Streaming(0, 50_000, spilled)
    found = find_objects_streamed(model, ArrayReader(pixels), strategy, work_folder=tmp_path, **COLOURS)
    assert not list(tmp_path.iterdir())
    assert found.left_out == expected.left_out > 0
    assert len(found.boxes) == len(expected.boxes) == model.config.detections
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert found.labels.tolist() == expected.labels.tolist()
    assert found.masks is None


def test_filters_drop_what_is_uncertain_or_of_other_classes(model: RetinaNet, tmp_path: Path) -> None:
    pixels = picture(203, 150)
    everything = find_objects_streamed(model, ArrayReader(pixels), SPILLED, work_folder=tmp_path, **COLOURS)
    middle = float(everything.scores[50])
    found = find_objects_streamed(model, ArrayReader(pixels), SPILLED, min_score=middle, classes={0, 2}, **COLOURS)
    wanted = (everything.scores >= middle) & np.isin(everything.labels, [0, 2])
    assert 0 < wanted.sum() < 51
    np.testing.assert_array_equal(found.boxes, everything.boxes[wanted])
    assert everything.left_out > found.left_out == 0  # the least certain that was given is below the filter


def test_maps_that_cannot_be_kept_are_one_sentence(model: RetinaNet, tmp_path: Path) -> None:
    with pytest.raises(WorkFolderError, match="nowhere: no such file or directory"):
        find_objects_streamed(model, ArrayReader(picture(20, 30)), SPILLED, work_folder=tmp_path / "nowhere", **COLOURS)


def test_running_out_of_memory_names_a_remedy(model: RetinaNet, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **options: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(RetinaNet, "choose", fail)
    with pytest.raises(MemoryError, match=r"not enough memory for 30×20 .* choose smaller tiles"):
        find_objects_streamed(model, ArrayReader(picture(20, 30)), Streaming(0, 1, False), **COLOURS)
