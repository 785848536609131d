"""Training on images of any number of channels and any range of values, which weights remember."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from training.cases import SIZE, plain, run, write_bands
from training.dense_cases import dense_recipe
from vision_longformer.datasets.loaders import Key, batches
from vision_longformer.datasets.normalising import images_of
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.images import Reading
from vision_longformer.prediction.classes import predict
from vision_longformer.training.channels import for_channels
from vision_longformer.training.classifiers import build_model, start_from
from vision_longformer.training.config import ModelOptions, TrainConfig
from vision_longformer.training.tasks import build_task
from vision_longformer.training.weight_files import load_weights
from vision_longformer.utils.steps import finish
from vision_longformer.weights import save

SETUP = EvaluationSetup(batch_size=2, workers=0, device=torch.device("cpu"))
BANDS = {"channels": [3, 0, 1, 2], "value_range": [0, 4000]}
READING = Reading(channels=(3, 0, 1, 2), value_range=(0.0, 4000.0))
MEAN, STD = 0.449, 0.226  # ImageNet's over its three channels


def write(path: Path, *, seed: int, bright: bool, channels: int = 4) -> None:
    """Write an image whose last channel alone is bright or dark."""
    values = np.random.default_rng(seed).integers(500, 1500, (SIZE, SIZE, channels)).astype(np.uint16)
    values[..., -1] += 2000 * bright
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bands(path, values)


def make_classes(folder: Path, **options: Any) -> Path:
    for split, count in (("train", 4), ("val", 2)):
        for bright, name in enumerate(("soil", "forest")):
            for number in range(count):
                write(
                    folder / split / name / f"{number}.tif", seed=10 * number + bright, bright=bool(bright), **options
                )
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classes(tmp_path_factory.mktemp("bands"))


def of_bands(**groups: Any) -> TrainConfig:
    return plain(input={"size": SIZE, "check": "auto", "crop_share": 1.0, **BANDS}, **groups)


def test_a_classifier_of_four_channels_is_trained_and_reads_as_it_was_trained(data: Path, tmp_path: Path) -> None:
    events = run(of_bands(schedule={"epochs": 1, "warmup_epochs": 0}), data, tmp_path)
    assert events[-1].kind == "finished"
    trained = load_weights(tmp_path / "best.safetensors")
    assert trained.reading == READING
    assert trained.model.in_chans == 4
    assert trained.preprocessing["mean"] == pytest.approx([MEAN] * 4, abs=1e-3)
    (logged,) = [event.values for event in events if event.kind == "evaluated"]
    result = trained.evaluate(trained.read(data, "val"), SETUP)
    assert result is not None
    assert result.metrics()["loss"] == pytest.approx(logged["val_loss"], abs=1e-6)
    path = data / "val" / "soil" / "0.tif"
    (prediction,) = predict(trained, [path], top=1, device=torch.device("cpu"))  # type: ignore[arg-type]
    values = tifffile.imread(path)[..., [3, 0, 1, 2]] / 4000
    pixels = torch.from_numpy((values.transpose(2, 0, 1) - MEAN) / STD).float()[None]
    with torch.inference_mode():
        expected = float(trained.model(pixels).softmax(dim=1).max())
    assert prediction.probabilities[0] == pytest.approx(expected, abs=1e-3)


def test_augmented_images_have_the_chosen_channels_in_their_order(data: Path) -> None:
    config = of_bands(augmentation={"crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "horizontal_flip": 0.0})
    task = build_task(config, data)
    images = task.training_data(task.build_model())
    (batch,) = batches(images, [[Key(0, 0, 0)]], workers=0, pin=False)
    assert task.files(batch.indices) == [str(data / "train" / "forest" / "0.tif")]
    values = tifffile.imread(data / "train" / "forest" / "0.tif")[..., [3, 0, 1, 2]] / 4000
    np.testing.assert_allclose(
        images_of(batch, torch.device("cpu"))[0].numpy() * STD + MEAN, values.transpose(2, 0, 1), atol=2e-3
    )


def test_a_segmentation_of_four_channels_reads_as_it_was_trained(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / f"{split}_labels").mkdir()
        for number in range(2):
            write(tmp_path / split / f"{number}.tif", seed=number, bright=False)
            label = (np.random.default_rng(number).random((SIZE, SIZE)) < 0.5).astype(np.uint8)
            Image.fromarray(label).save(tmp_path / f"{split}_labels" / f"{number}.png")
    (tmp_path / "classes.txt").write_text("soil\nforest\n")
    config = dense_recipe(
        "semantic_segmentation",
        input=BANDS,
        augmentation={"color_jitter": 0.0},
        dense={"labels": "index", "sides": None, "head": {"pyramid_width": 8, "strides": [4, 8]}},
    )
    events = run(config, tmp_path, tmp_path / "run")
    trained = load_weights(tmp_path / "run/best.safetensors")
    assert trained.reading == READING
    logged = max(event.values["val_miou"] for event in events if event.kind == "evaluated")
    result = trained.evaluate(trained.read(tmp_path, "val"), SETUP)
    assert result is not None
    assert result.metrics()["miou"] == pytest.approx(logged, abs=1e-6)


def test_a_level_of_a_pyramid_is_trained_evaluated_and_predicted(tmp_path: Path) -> None:
    """Full resolution is black, and level 1 shows what is to be learned: all are at that level."""
    for split, count in (("train", 4), ("val", 2)):
        for bright, name in enumerate(("soil", "forest")):
            for number in range(count):
                path = tmp_path / split / name / f"{number}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                low = np.random.default_rng(number).integers(0, 60, (SIZE, SIZE, 3)) + 190 * bright
                with tifffile.TiffWriter(path) as file:
                    black = np.zeros((2 * SIZE, 2 * SIZE, 3), np.uint8)
                    file.write(black, subifds=1, tile=(16, 16), photometric="rgb")
                    file.write(low.astype(np.uint8), subfiletype=1, tile=(16, 16), photometric="rgb")
    config = plain(
        input={"size": SIZE, "crop_share": 1.0, "level": 1},
        schedule={"epochs": 8, "warmup_epochs": 0},
        optimizer={"learning_rate": 1e-2},
    )
    events = run(config, tmp_path, tmp_path / "run")
    trained = load_weights(tmp_path / "run/best.safetensors")
    assert trained.reading == Reading(level=1)
    logged = [event.values["val_loss"] for event in events if event.kind == "evaluated"]
    result = trained.evaluate(trained.read(tmp_path, "val"), SETUP)
    assert result is not None
    assert result.metrics()["top1"] == 100
    assert min(abs(result.metrics()["loss"] - loss) for loss in logged) < 1e-3
    paths = sorted(tmp_path.glob("val/*/*.tif"))
    found = predict(trained, paths, top=1, device=torch.device("cpu"))  # type: ignore[arg-type]
    assert [prediction.classes[0] for prediction in found] == [path.parent.name for path in paths]
    full = trained.with_reading(Reading())
    assert len({prediction.classes for prediction in predict(full, paths, top=1, device=torch.device("cpu"))}) == 1  # type: ignore[arg-type]


def test_weights_of_three_channels_begin_those_of_four(tmp_path: Path) -> None:
    options = ModelOptions(options=plain().model.options)
    classes = ("a", "b")
    torch.manual_seed(0)
    photographs = build_model(options, num_classes=2, size=SIZE)
    save(photographs, tmp_path / "rgb.safetensors", class_names=classes)  # type: ignore[arg-type]
    model = build_model(options, num_classes=2, size=SIZE, in_chans=4)
    name = "stages.0.patch_embed.proj.weight"
    remarks = start_from(model, tmp_path / "rgb.safetensors", classes=classes)
    assert remarks == [f"{name}: from 3 channels to 4, by repeating red, green and blue"]
    before, after = photographs.state_dict(), model.state_dict()
    torch.testing.assert_close(after[name], before[name][:, [0, 1, 2, 0]] * 3 / 4)
    assert all(torch.equal(after[other], before[other]) for other in after if other != name)


def test_other_channels_are_normalised_by_the_mean_of_those_described() -> None:
    assert for_channels([0.1, 0.2, 0.6], 4) == pytest.approx([0.3] * 4)
    assert for_channels([0.1, 0.2, 0.6], 3) == [0.1, 0.2, 0.6]


def test_weights_refuse_another_number_of_channels(data: Path, tmp_path: Path) -> None:
    task = build_task(of_bands(), data)
    task.save_weights(task.build_model(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="channels: the weights take 4 of them, not 3"):
        load_weights(tmp_path / "w.safetensors").with_reading(Reading(channels=(0, 1, 2)))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            {"input": {"channels": [0, 0]}},
            "input.channels=(0, 0): must be numbers of channels",
        ),
        ({"input": {"value_range": [5, 5]}}, "input.value_range=5, 5: must be two numbers, the lower one first"),
        ({"input": {"level": -1}}, "input.level=-1: must not be negative"),
        ({"model": {"options": {"in_chans": 4}}}, "the model takes 3 channels, as many as input.channels chooses"),
        (
            {"input": {"channels": [0, 1, 2, 3]}, "augmentation": {"color_jitter": 0.4}},
            "augmentation.color_jitter=0.4: is for images of three channels",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(groups: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        plain(**groups)


def test_images_that_use_little_of_16_bits_are_pointed_out(tmp_path: Path) -> None:
    data = make_classes(tmp_path, channels=1)
    dark, stated = (plain(input={"size": SIZE, "check": "auto", **given}) for given in ({}, {"value_range": [0, 4095]}))
    found = []
    for config in (dark, stated):
        task = build_task(config, data)
        finish(task.check())
        found.append(list(task.remarks))
    (sentence,) = found[0]
    assert "the images have 16 bits, and no value above 3,499 of 65,535 in 8 of them" in sentence
    assert "--value-range 0 4095" in sentence
    assert not found[1]
