"""What is said of a prediction before it is begun is what is done then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prediction.cases import trained, write_weights
from vil import main
from vision_longformer.prediction.plans import plan_prediction
from vision_longformer.prediction.streaming import streaming_strategy
from vision_longformer.tiling.choosing import Tiling

SIZE = (3000, 2000)
WAYS = ["whole", "streamed", "spilled", "tiles"]


@pytest.mark.parametrize("task", ["detection", "instance_segmentation", "semantic_segmentation"])
def test_the_way_is_the_one_that_is_gone(task: str, tmp_path: Path) -> None:
    weights = trained(task, tmp_path)
    model: Any = weights.model
    config = model.config
    whole, streamed, spilled, tiles = plan_prediction(weights, SIZE, Tiling(model, memory=10**11), scale=1)
    assert [way.way for way in (whole, streamed, spilled, tiles)] == WAYS
    assert {way.obstacle for way in (whole, streamed, spilled, tiles)} == {""}
    assert streamed.memory > spilled.memory
    assert spilled.disk > streamed.disk == 0
    assert model.config is config
    for memory, expected in ((whole.memory, "whole"), (whole.memory - 1, "streamed"), (10**6, "")):
        tiling = Tiling(model, memory=memory)
        ways = plan_prediction(weights, SIZE, tiling, scale=1)
        assert next((way.way for way in ways if not way.obstacle), "") == expected
        strategy = streaming_strategy(model, SIZE, tiling)
        assert (strategy is not None) == (expected == "streamed")
    resized = plan_prediction(weights, SIZE, Tiling(model, memory=whole.memory // 2), scale=0.999)
    assert [way.obstacle for way in resized] == ["does not fit", *["the image is resized"] * 2, ""]
    assert resized[-1].tiles > 1


def test_plan_speaks_of_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = write_weights(tmp_path / "weights.safetensors", "semantic_segmentation")
    arguments = ["plan", "--checkpoint", str(weights), "--size", "3000x2000", "--device", "cpu"]
    assert main([*arguments, "--memory", "8GB", "--json"]) == 0
    (about,) = json.loads(capsys.readouterr().out)
    assert about["size"] == [3000, 2000]
    assert [way["way"] for way in about["ways"]] == WAYS
    assert about["chosen"] == "whole"
    assert main([*arguments, "--memory", f"{about['ways'][0]['memory'] - 1}B"]) == 0
    shown = capsys.readouterr().out
    assert "2000×3000 pixels within" in shown
    assert "streamed." in shown
    assert main([*arguments, "--memory", "1MB"]) == 1
    assert "the smallest it takes" in " ".join(capsys.readouterr().out.split())
    assert main([*arguments, "--training"]) == 2
    assert "--training: is for backbones and classifiers" in capsys.readouterr().err
