"""The ready models that come with the package, on what comes with it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vision_longformer import load_predictor
from vision_longformer.commands.demo import demo_image
from vision_longformer.prediction.results import ObjectsResult
from vision_longformer.pretrained import ready_models


def test_there_are_models_for_nuclei_and_blood_cells() -> None:
    assert {name: entry.task for name, entry in ready_models().items()} == {
        "blood-cells": "detection",
        "nuclei": "instance_segmentation",
    }
    assert load_predictor("blood-cells", device="cpu").class_names == ("RBC", "WBC", "Platelets")


@pytest.mark.slow
def test_nuclei_are_found_where_there_are_many_more_than_a_small_image_has() -> None:
    """A quarter of the mosaic: about 300 were marked there, and a small image has at most 100."""
    with Image.open(demo_image()) as mosaic:
        part = mosaic.crop((768, 0, 1536, 768))
    found = load_predictor("nuclei", device="cpu")(part)
    assert isinstance(found, ObjectsResult)
    assert 150 < len(found) < 450
    light = np.asarray(part.convert("L"), float)
    inside = found.labels > 0
    assert light[inside].mean() > 1.4 * light[~inside].mean()  # most of these micrographs are of fluorescence
