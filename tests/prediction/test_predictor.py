from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import vision_longformer
from prediction.cases import CLASSES, noise_image, random_classes, random_objects, write_weights
from vision_longformer import Encoder, VisionLongformer, create_model, load_predictor
from vision_longformer.images import ArrayReader, ImageError
from vision_longformer.prediction.predictor import PredictOptions, Predictor
from vision_longformer.prediction.results import ClassesResult, ObjectsResult, RegionsResult, SemanticResult
from vision_longformer.training.weight_files import load_weights

LOW: dict[str, Any] = {"device": "cpu", "min_score": 0.05}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("weights")
    for task in ("detection", "instance_segmentation", "semantic_segmentation"):
        write_weights(found / f"{task}.safetensors", task)
    return found


@pytest.fixture(scope="module")
def masks(folder: Path) -> Predictor:
    return load_predictor(folder / "instance_segmentation.safetensors", **LOW)


def test_every_kind_of_image_gives_the_same(masks: Predictor, tmp_path: Path) -> None:
    pixels = noise_image()
    Image.fromarray(pixels).save(tmp_path / "x.png")
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="rgb")
    data = [io.BytesIO((tmp_path / name).read_bytes()) for name in ("x.png", "x.tif")]
    data[0].seek(7)
    images = [tmp_path / "x.png", str(tmp_path / "x.tif"), pixels, Image.fromarray(pixels), *data, ArrayReader(pixels)]
    results = masks(images)
    assert len(results) == len(images)
    expected = masks(pixels)
    assert isinstance(expected, ObjectsResult)
    assert len(expected) > 3
    assert expected.masks is not None
    assert expected.masks[0].shape == (40, 56)
    assert set(expected.classes) <= set(CLASSES)
    for result in results:
        assert isinstance(result, ObjectsResult)
        np.testing.assert_array_equal(result.boxes, expected.boxes)
        np.testing.assert_array_equal(result.labels, expected.labels)
    assert results[0].image.name == str(tmp_path / "x.png")


def test_results_are_what_others_take(masks: Predictor, tmp_path: Path) -> None:
    result = masks(noise_image())
    assert isinstance(result, ObjectsResult)
    assert len(result.to_dataframe()) == len(result.to_coco()) == len(result.polygons()) == len(result)
    assert result.to_coco(image_id=7)[0]["image_id"] == 7
    assert result.plot().size == (56, 40)
    assert result.save(tmp_path / "x.jpg").exists()
    assert result.save(tmp_path / "x.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.jpg", "x.json"]
    with pytest.raises(ValueError, match=r"its ending must be one of \.geojson, "):
        result.save(tmp_path / "x.docx")
    with pytest.raises(ValueError, match="format=png: must be one of geojson, "):
        result.save(tmp_path / "x", format="png")


def test_supervision(masks: Predictor) -> None:
    supervision = pytest.importorskip("supervision")
    result = masks(noise_image())
    assert isinstance(result, ObjectsResult)
    detections = result.to_supervision()
    assert isinstance(detections, supervision.Detections)
    assert (len(detections), detections.mask.shape) == (len(result), (len(result), 40, 56))
    assert detections["class_name"].tolist() == list(result.classes)


def test_boxes_classes_of_pixels_and_classes(folder: Path, tmp_path: Path) -> None:
    boxes = load_predictor(folder / "detection.safetensors", **LOW)(noise_image())
    assert isinstance(boxes, ObjectsResult)
    assert boxes.masks is None
    assert [part.area for part in boxes.polygons()] == pytest.approx(boxes.measures.areas.tolist())
    pixels = load_predictor(folder / "semantic_segmentation.safetensors", device="cpu")(noise_image())
    assert isinstance(pixels, SemanticResult)
    assert pixels.labels.shape == (40, 56)
    assert pixels.pixels.sum() == 40 * 56
    assert sum(mask.sum() for mask in pixels.masks) == 40 * 56
    assert pixels.plot(legend=True).height >= pixels.plot().height == 40
    model = create_model("vision_longformer_nano", num_classes=3)
    assert isinstance(model, VisionLongformer)
    vision_longformer.save(model, tmp_path / "x.safetensors")
    named = load_predictor(tmp_path / "x.safetensors", device="cpu", top=2, size=64)(noise_image())
    assert isinstance(named, ClassesResult)
    assert (len(named.classes), len(named.scores)) == (2, 2)
    assert named.scores[0] >= named.scores[1]
    assert named.class_names[named.class_numbers[0]] == named.classes[0]


def test_pixels_that_an_image_lacks_have_no_class(folder: Path) -> None:
    image = np.dstack([noise_image(), np.full((40, 56), 255, np.uint8)])
    image[:7, :, 3] = 0
    result = load_predictor(folder / "semantic_segmentation.safetensors", device="cpu")(image)
    assert isinstance(result, SemanticResult)
    assert (result.labels[:7] == 255).all()
    assert (result.labels[7:] < 3).all()
    assert (result.no_data, result.pixels.sum()) == (255, 33 * 56)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"min_score": 2}, r"min_score=2: must lie between 0 and 1"),
        ({"scale": 0}, "scale=0: must be above 0"),
        ({"simplify": -1}, "simplify=-1: must be at least 0"),
        ({"classes": ["cat"]}, r"classes cat: the weights know cell, =1\+1, unused"),
        ({"top": 3}, "top: is not for weights that were trained for instance segmentation"),
        ({"tile": 4}, "tile=4: must be at least"),
    ],
)
def test_impossible_options_are_refused(asked: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_predictor(folder / "instance_segmentation.safetensors", device="cpu", **asked)


def test_options_are_heeded(folder: Path) -> None:
    weights = folder / "instance_segmentation.safetensors"
    every = load_predictor(weights, **LOW)(noise_image())
    few = load_predictor(weights, device="cpu", min_score=0.2, classes=["cell"], simplify=2.0)(noise_image())
    assert isinstance(every, ObjectsResult)
    assert isinstance(few, ObjectsResult)
    assert 0 < len(few) < len(every)
    assert set(few.classes) == {"cell"}
    assert few.scores.min() >= 0.2
    assert few.tolerance == 2


def test_images_that_cannot_be_read_are_named(masks: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"missing\.png"):
        masks(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="the image: it is not an image") as caught:
        masks(io.BytesIO(b"no image"))
    assert "tmp" not in str(caught.value)


def test_a_closed_reader_is_not_drawn_on(masks: Predictor) -> None:
    result = masks(ArrayReader(noise_image()))
    assert isinstance(result, RegionsResult)
    with pytest.raises(ValueError, match="its reader is closed; give the image to draw on"):
        result.plot()
    assert result.plot(Image.fromarray(noise_image())).size == (56, 40)


def test_bytes_can_be_encoded() -> None:
    model = create_model("vision_longformer_nano")
    file = io.BytesIO()
    Image.fromarray(noise_image()).save(file, "PNG")
    encoder = Encoder(model)  # type: ignore[arg-type]
    torch.testing.assert_close(encoder.encode(file).embedding, encoder.encode(noise_image()).embedding)


@pytest.mark.parametrize("result", [random_objects(0, size=(400, 600)), random_classes(0, size=(400, 600))])
def test_results_are_drawn_on_smaller_pictures(result: RegionsResult) -> None:
    small = Image.new("RGB", (150, 100), (90, 90, 90))
    drawn = np.asarray(result.plot(small))
    assert drawn.shape == (100, 150, 3)
    touched = (drawn != 90).any(axis=2)
    covered = np.asarray(Image.fromarray(result.label_rows(0, 400) > 0).resize((150, 100), Image.Resampling.BOX))
    assert touched.any()
    assert covered[touched].mean() > 0.9


@pytest.mark.parametrize("task", ["instance_segmentation", "semantic_segmentation"])
def test_flipped_images_give_flipped_results(task: str, folder: Path) -> None:
    predictor = load_predictor(folder / f"{task}.safetensors", device="cpu", flips="all")
    image = noise_image()
    found: Any = predictor(image)
    mirrored: Any = predictor(np.ascontiguousarray(image[:, ::-1]))
    assert (mirrored.labels[:, ::-1] == found.labels).mean() > 0.999  # rounding is another one


def test_the_score_that_training_chose_holds_unless_another_is_given(folder: Path) -> None:
    trained = load_weights(folder / "instance_segmentation.safetensors")
    chosen = replace(trained, preprocessing=trained.preprocessing | {"min_score": 0.15})
    assert [Predictor(one).min_score for one in (trained, chosen)] == [0.5, 0.15]
    assert Predictor(chosen, PredictOptions(min_score=0.4)).min_score == 0.4
    result = Predictor(chosen)(noise_image())
    assert isinstance(result, ObjectsResult)
    assert 0.15 <= result.scores.min() < 0.4
    assert Predictor(chosen).settings["min_score"] == 0.15
