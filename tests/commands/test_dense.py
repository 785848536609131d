"""`vil train`, `vil evaluate` and `vil predict` of detectors and segmentation models, from the command line on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from datasets.coco_cases import CLASSES, SIZES
from training.dense_cases import TASKS, dense_recipe, make_coco
from vil import main
from vision_longformer.commands import evaluate
from vision_longformer.datasets.coco import read_coco
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.images import rasters
from vision_longformer.masks.rle import rle_to_mask
from vision_longformer.memory.dense import forecast_dense_memory
from vision_longformer.prediction import predictor
from vision_longformer.training.recipes import write_recipe
from vision_longformer.training.weight_files import load_weights

LOW = "0.000001"  # what an untrained model is sure of


class Shown:
    """What a command showed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in err


@pytest.fixture
def vil(capsys: pytest.CaptureFixture[str]) -> Callable[..., Shown]:
    def run(*arguments: object) -> Shown:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Shown(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what gives the folder of a run of one epoch, beside its data."""
    folders: dict[str, Path] = {}

    def of(task: str) -> Path:
        if task not in folders:
            folder = tmp_path_factory.mktemp(task)
            make_coco(folder / "data")
            head = {**dense_recipe(task).dense.head, **({} if task.startswith("sem") else {"score_threshold": 0.0})}
            config = dense_recipe(task, schedule={"epochs": 1}, dense={"head": head})
            (folder / "recipe.yaml").write_text(write_recipe(config))
            places = [f"--recipe={folder}/recipe.yaml", f"--data={folder}/data", f"--output={folder}/run"]
            assert main(["train", *places]) == 0
            folders[task] = folder
        return folders[task]

    return of


@pytest.mark.parametrize("task", TASKS)
def test_evaluation_writes_the_measures_of_the_task(
    task: str, finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path
) -> None:
    folder = finished(task)
    shown = vil(
        "evaluate", folder / "run/best.safetensors", "--data", folder / "data", "--json", tmp_path / "x.json",
        "--workers", 0,
    )  # fmt: skip
    assert shown.code == 0, shown.err
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["images"] == 3
    assert ("left_out" in found) == (task != "semantic_segmentation")
    names = {
        "detection": ["box_ap", "box_ap50", "box_ap75"],
        "instance_segmentation": ["box_ap", "mask_ap", "mask_ap50"],
        "semantic_segmentation": ["miou", "pixel_accuracy"],
    }[task]
    for name in names:
        assert 0 <= found[name] <= 1
    assert ("mIoU" if task.startswith("sem") else "box AP50") in shown.out


def test_evaluation_says_how_many_objects_a_limit_left_out(
    finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path
) -> None:
    folder = finished("detection")
    weights, file = folder / "run/best.safetensors", tmp_path / "x.json"
    arguments = ("evaluate", weights, "--data", folder / "data", "--workers", 0, "--json", file)
    few, every = [(vil(*arguments, "--detections", number), json.loads(file.read_text())) for number in (2, 100_000)]
    assert few[1]["left_out"] > every[1]["left_out"] == 0
    assert f"{few[1]['left_out']} more objects were left out, as an image gives at most 2" in few[0].out
    assert "left out" not in every[0].out
    assert vil(*arguments, "--detections", 0).code == 2
    semantic = finished("semantic_segmentation")
    refused = vil("evaluate", semantic / "run/best.safetensors", "--data", semantic / "data", "--detections", 7)
    assert refused.code == 2
    assert "detections=7: is for detectors, not for semantic segmentation" in refused.err


@pytest.mark.parametrize("task", ["detection", "instance_segmentation"])
def test_prediction_draws_objects_and_writes_cocos_results(
    task: str, finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path
) -> None:
    folder = finished(task)
    shown = vil(
        "predict", folder / "run/best.safetensors", folder / "data/val", "--output", tmp_path, "--min-score", LOW
    )
    assert shown.code == 0, shown.err
    about = json.loads((tmp_path / "images.json").read_text())
    results = json.loads((tmp_path / "results.json").read_text())
    assert [Path(image["file_name"]).name for image in about["images"]] == ["0.png", "1.png", "2.png"]
    assert [(image["height"], image["width"]) for image in about["images"]] == list(SIZES)
    assert [category["name"] for category in about["categories"]] == list(CLASSES)
    assert results
    for image, result in ((image, result) for image in about["images"] for result in results):
        if result["image_id"] == image["id"]:
            x, y, width, height = result["bbox"]
            assert -1e-3 <= x <= x + width <= image["width"] + 1e-3
            assert -1e-3 <= y <= y + height <= image["height"] + 1e-3
            if task == "instance_segmentation":
                assert rle_to_mask(result["segmentation"]).shape == (image["height"], image["width"])
    for number, size in enumerate(SIZES):
        with Image.open(tmp_path / f"pictures/{number}.png.jpg") as picture:
            assert (picture.height, picture.width) == size
        features = json.loads((tmp_path / f"geojson/{number}.png.geojson").read_text())["features"]
        assert len(features) == sum(result["image_id"] == number + 1 for result in results)
    assert len((tmp_path / "objects.csv").read_text().splitlines()) == 1 + len(results)
    assert "0.png" in (tmp_path / "index.html").read_text()


def test_prediction_of_classes_of_pixels_writes_index_images(
    finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path
) -> None:
    folder = finished("semantic_segmentation")
    shown = vil("predict", folder / "run/best.safetensors", folder / "data/val/1.png", "--output", tmp_path)
    assert shown.code == 0, shown.err
    with Image.open(tmp_path / "labels/1.png.png") as label:
        assert (label.height, label.width) == SIZES[1]
        assert np.asarray(label).max() <= len(CLASSES)
    assert (tmp_path / "pictures/1.png.jpg").exists()
    assert "%" in shown.out
    assert (tmp_path / "classes.csv").exists()


def test_filters_choose_classes_and_scores(
    finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path
) -> None:
    folder = finished("detection")
    base = ("predict", folder / "run/best.safetensors", folder / "data/val/0.png")

    def found(number: int, *options: object) -> list[dict[str, float]]:
        return results(vil, tmp_path / str(number), *base, "--output", tmp_path / str(number), *options)

    everything = found(0, "--min-score", LOW)
    leaves = found(1, "--min-score", LOW, "--classes", "leaf")
    assert {result["category_id"] for result in everything} >= {1, 2}
    assert {result["category_id"] for result in leaves} == {2}
    middle = sorted(result["score"] for result in everything)[len(everything) // 2]
    better = found(2, "--min-score", middle)
    assert 0 < len(better) < len(everything)
    assert min(result["score"] for result in better) >= middle


@pytest.mark.slow
def test_an_image_that_does_not_fit_is_streamed(
    finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path
) -> None:
    """It gets the detections of a pass over the whole image."""
    weights, size = tmp_path / "lively.safetensors", (700, 520)
    write_lively(finished("detection") / "run/best.safetensors", weights)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    base = ("predict", weights, tmp_path / "large.png", "--min-score", LOW, "--scale", 1, "--device", "cpu")
    needed = forecast_dense_memory(load_weights(weights).model, size)

    expected = results(vil, tmp_path / "whole", *base, "--output", tmp_path / "whole", "--memory", f"{needed}B")
    shown = vil(*base, "--output", tmp_path / "bands", "--memory", f"{needed - 1}B", "--precision", "bf16")
    assert shown.code == 0, shown.err
    assert "streamed" in shown.out  # which is in float32 always
    (image,) = json.loads((tmp_path / "bands/images.json").read_text())["images"]
    said = f"at least {image['left_out']} more objects were left out, as an image gives at most 100; --detections"
    assert said in " ".join(shown.err.split())
    found = json.loads((tmp_path / "bands/results.json").read_text())
    assert len(found) == len(expected) > 50
    assert not (tmp_path / "bands/.work").exists()
    for name, tolerance in (("bbox", 0.02), ("score", 1e-5), ("category_id", 0)):
        wanted = [entry[name] for entry in expected]
        np.testing.assert_allclose([entry[name] for entry in found], wanted, rtol=0, atol=tolerance)

    more = results(
        vil, tmp_path / "more", *base, "--output", tmp_path / "more", "--memory", f"{needed - 1}B", "--detections", 250
    )
    assert [entry["bbox"] for entry in more[:100]] == [entry["bbox"] for entry in found]
    (image_of_more,) = json.loads((tmp_path / "more/images.json").read_text())["images"]
    assert len(more) + image_of_more["left_out"] >= 100 + image["left_out"]
    assert len(more) == 250

    tiled = vil(*base, "--output", tmp_path / "tiles", "--memory", f"{needed - 1}B", "--tile", 512)
    assert "streamed" not in tiled.out


def test_a_streamed_image_is_read_by_rows_and_drawn_smaller(
    finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, size = tmp_path / "lively.safetensors", (700, 520)
    write_lively(finished("detection") / "run/best.safetensors", weights)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "large.tif", pixels, photometric="rgb", rowsperstrip=32)
    base = ("predict", weights, tmp_path / "large.tif", "--min-score", LOW, "--scale", 1, "--device", "cpu")
    needed = forecast_dense_memory(load_weights(weights).model, size)
    expected = results(vil, tmp_path / "whole", *base, "--output", tmp_path / "whole", "--memory", f"{needed}B")

    monkeypatch.setattr(rasters, "raster_and_valid", None)
    monkeypatch.setattr(predictor, "PICTURE_WIDTH", 130)
    shown = vil(*base, "--output", tmp_path / "bands", "--memory", f"{needed - 1}B")
    assert shown.code == 0, shown.err
    assert "520×700" in shown.out
    found = json.loads((tmp_path / "bands/results.json").read_text())
    boxes = np.array([entry["bbox"] for entry in found])
    np.testing.assert_allclose(boxes, [entry["bbox"] for entry in expected], atol=0.02)
    (image,) = json.loads((tmp_path / "bands/images.json").read_text())["images"]
    assert (image["height"], image["width"]) == size
    with Image.open(tmp_path / "bands/pictures/large.tif.jpg") as picture:
        assert picture.size == (130, 175)


def write_lively(source: Path, target: Path) -> None:
    """Copy weights with a head whose scores are all over the range: after one epoch they are all alike.

    They say that they learned from images of a megapixel, for which 100 objects are the limit.
    """
    with safe_open(source, framework="pt") as file:
        description = json.loads(file.metadata()["vision_longformer"])  # without digests, which are of other tensors
    description["preprocessing"] |= {"side": 1000, "crop": 1000}
    about = {"vision_longformer": json.dumps(description)}
    tensors, generator = load_file(source), torch.Generator().manual_seed(1)
    for name, tensor in tensors.items():
        if name.startswith("head.") and tensor.ndim > 1:
            last = "cls_logits" in name or "bbox_reg" in name
            scale = (0.5 if last else 2.0) / tensor[0].numel() ** 0.5
            tensors[name] = torch.randn(tensor.shape, generator=generator) * scale
    save_file(tensors, target, metadata=about)


def results(vil: Callable[..., Shown], folder: Path, *arguments: object) -> list[dict[str, float]]:
    shown = vil(*arguments)
    assert shown.code == 0, shown.err
    found: list[dict[str, float]] = json.loads((folder / "results.json").read_text())
    return found


def test_results_can_be_compared_with_the_annotations(
    finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path
) -> None:
    """At the size of evaluation, prediction finds what evaluation finds."""
    folder = finished("detection")
    scale = 32 / min(SIZES[0])
    assert load_weights(folder / "run/best.safetensors").preprocessing["scale"] == 1  # the median of three sizes
    found = results(
        vil, tmp_path, "predict", folder / "run/best.safetensors", folder / "data/val/0.png", "--output", tmp_path,
        "--min-score", LOW, "--scale", scale,
    )  # fmt: skip

    trained = load_weights(folder / "run/best.safetensors")
    result = trained.evaluate(trained.read(folder / "data", "val"), EvaluationSetup(1, 0, torch.device("cpu")))
    expected = result.found[0]  # type: ignore[union-attr]
    boxes = np.array([entry["bbox"] for entry in found])
    boxes[:, 2:] += boxes[:, :2]
    order = np.argsort(-expected.scores, kind="stable")[: len(boxes)]
    np.testing.assert_allclose([entry["score"] for entry in found], expected.scores[order], atol=1e-5)
    np.testing.assert_allclose(boxes, expected.boxes[order], atol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--top", 3), "--top: is not for"),
        (("--size", 3), "--size: is not for"),
        (("--classes", "cat"), "--classes cat: the weights know cell, leaf, unused"),
        (("--tile", 4), "tile=4: must be at least"),
        (("--tile", 256, "--overlap", 256), "overlap=256"),
        (("--memory", "lots"), "'lots' is no amount of memory"),
        (("--detections", 0), "detections=0: must be an integer of at least 1"),
        (("--detections", 10**21), "detections=1000000000000000000000: must be at most 1,000,000"),
        (("--detections", "many"), "--detections many: must be a whole number"),
        (("--min-score", "half"), "--min-score half: must be a number"),
        (("--scale", 0), "--scale 0.0: must be above 0"),
        (("--min-score", 2), "--min-score 2.0: must lie between 0 and 1"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(
    options: tuple[object, ...],
    message: str,
    finished: Callable[[str], Path],
    vil: Callable[..., Shown],
    tmp_path: Path,
) -> None:
    folder = finished("detection")
    arguments = ("predict", folder / "run/best.safetensors", folder / "data/val", "--output", tmp_path / "out")
    shown = vil(*arguments, *options)
    assert shown.code == 2
    assert message in shown.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [("--min-score", 0.9), ("--classes", "cell"), ("--detections", 3)])
def test_options_of_detectors_are_refused_with_other_weights(
    option: tuple[object, ...], finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path
) -> None:
    folder = finished("semantic_segmentation")
    shown = vil("predict", folder / "run/best.safetensors", folder / "data/val", "--output", tmp_path, *option)
    assert shown.code == 2
    assert f"{option[0]}: is not for " in shown.err
    assert "trained for semantic segmentation" in shown.err


@pytest.mark.parametrize(("task", "name"), [("detection", "x.jpg"), ("semantic_segmentation", "x.png")])
def test_results_never_take_the_place_of_images(
    task: str, name: str, finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    arguments = ("predict", finished(task) / "run/best.safetensors", tmp_path, "--output", tmp_path)
    assert vil(*arguments).code == 0
    again = vil(*arguments)  # which finds pictures of its own now
    assert (again.code, "1 done before" in again.out) == (0, True)
    assert (tmp_path / name).read_bytes() == before
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == [f"{name}.jpg"]


@pytest.mark.parametrize("scale", ["1e4", "1e300"])
def test_a_scale_that_makes_images_too_large_is_said(
    scale: str, finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path
) -> None:
    folder = finished("detection")
    arguments = ("predict", folder / "run/best.safetensors", folder / "data/val/0.png", "--output", tmp_path)
    shown = vil(*arguments, "--scale", scale)
    assert shown.code == 1
    assert "would be more than the limit of 500,000,000; choose a smaller scale" in shown.err


def test_images_that_cannot_be_read_are_named_and_passed_over(
    finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path
) -> None:
    folder = finished("detection")
    shutil.copytree(folder / "data/val", tmp_path / "images")
    (tmp_path / "images/1.png").write_text("no image")
    shown = vil("predict", folder / "run/best.safetensors", tmp_path / "images", "--output", tmp_path / "out")
    assert shown.code == 1
    assert f"failed: {tmp_path}/images/1.png" in shown.err
    assert {image["id"] for image in json.loads((tmp_path / "out/images.json").read_text())["images"]} == {1, 3}


def test_names_of_files_are_shown_as_they_are(
    finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")
    folder = finished("detection")
    (tmp_path / "a[").mkdir()
    for name in ("a[/b].png", "[red]c.png"):
        shutil.copy(folder / "data/val/0.png", tmp_path / name)
    odd = os.fsdecode(b"\xff.png")
    shutil.copy(folder / "data/val/0.png", tmp_path / odd)
    shown = vil("predict", folder / "run/best.safetensors", "a[", "[red]c.png", odd, "--output", "out")
    assert shown.code == 0, shown.err
    for name in ("a[/b].png", "[red]c.png", "\\udcff.png"):
        assert name in shown.out


def test_names_of_classes_are_shown_as_they_are(
    finished: Callable[[str], Path], vil: Callable[..., Shown], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished("semantic_segmentation")
    monkeypatch.setattr(evaluate, "name_of", lambda measure: "IoU of [/b]")
    shown = vil("evaluate", folder / "run/best.safetensors", "--data", folder / "data", "--workers", 0)
    assert shown.code == 0
    assert "IoU of [/b]" in shown.out


def test_where_no_image_can_be_read_the_table_says_why(
    finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path
) -> None:
    (tmp_path / "x.png").write_text("no image")
    best = finished("detection") / "run/best.safetensors"
    shown = vil("predict", best, tmp_path / "x.png", "--output", tmp_path / "out")
    assert (shown.code, shown.out) == (1, "")
    assert "failed: " in shown.err
    assert "not an image" in (tmp_path / "out/images.csv").read_text()
    assert json.loads((tmp_path / "out/results.json").read_text()) == []


def test_outputs_are_chosen(finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path) -> None:
    folder = finished("instance_segmentation")
    base = ("predict", folder / "run/best.safetensors", folder / "data/val", "--min-score", LOW)
    shown = vil(*base, "--output", tmp_path / "a", "--outputs", "gpkg", "labels", "parquet", "--no-pictures")
    assert shown.code == 0, shown.err
    found = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert found == ["gpkg", "images.parquet", "journal", "labels", "objects.parquet", "run.json"]
    more = vil(*base, "--output", tmp_path / "a")
    assert (more.code, "3 done before" in more.out) == (0, True)
    assert {"geojson", "pictures", "objects.csv", "index.html"} <= {path.name for path in (tmp_path / "a").iterdir()}
    for options, message in (
        (("--outputs", "png"), "png: is no format of objects; choose of labels, geojson"),
        (("--outputs", "csv", "shapefile"), "shapefile: is no format of objects"),
        (("--simplify", -1), "--simplify -1.0: must be at least 0"),
    ):
        refused = vil(*base, "--output", tmp_path / "b", *options)
        assert (refused.code, message in refused.err) == (2, True), refused.err
    assert not (tmp_path / "b").exists()


def test_ctrl_c_keeps_what_was_finished(
    finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished("detection")
    base = ("predict", folder / "run/best.safetensors", folder / "data/val", "--output", tmp_path)
    whole = predictor.Predictor.predict

    def interrupted(self: predictor.Predictor, image: Path, **options: Any) -> object:
        if image.name == "1.png":
            raise KeyboardInterrupt
        return whole(self, image, **options)

    monkeypatch.setattr(predictor.Predictor, "predict", interrupted)
    shown = vil(*base)
    assert (shown.code, "running again goes on from there" in shown.err) == (130, True)
    assert len((tmp_path / "images.csv").read_text().splitlines()) == 2
    monkeypatch.setattr(predictor.Predictor, "predict", whole)
    again = vil(*base)
    assert (again.code, "2 predicted, 1 done before" in again.out) == (0, True)


def test_another_run_into_the_same_folder_is_refused(
    finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path
) -> None:
    folder = finished("detection")
    base = ("predict", folder / "run/best.safetensors", folder / "data/val", "--output", tmp_path)
    assert vil(*base).code == 0
    shown = vil(*base, "--min-score", 0.9)
    assert shown.code == 2
    chosen = load_weights(folder / "run/best.safetensors").preprocessing["min_score"]
    said = (
        f"holds results of another run (min score was {chosen} and is 0.9): choose another folder, or remove this one"
    )
    assert f"--output {tmp_path}: {said}" in shown.err


def test_a_setting_of_the_head_alone_says_how_to_write_it(
    finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path
) -> None:
    data = finished("detection") / "data"
    shown = vil("train", "--data", data, "--output", tmp_path / "run", "--dense.head.pyramid_width", 9)
    assert shown.code == 2
    assert "write it as --dense.head '{pyramid_width: 9}'" in shown.err


def test_too_little_memory_is_said_with_numbers(
    finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path
) -> None:
    folder = finished("detection")
    shown = vil(
        "predict", folder / "run/best.safetensors", folder / "data/val/0.png", "--output", tmp_path, "--memory", "1KB"
    )
    assert shown.code == 1
    assert "memory=1,000: this model needs about" in shown.err


def test_skipped_annotations_are_counted(
    finished: Callable[[str], Path], vil: Callable[..., Shown], tmp_path: Path
) -> None:
    folder = finished("detection")
    shutil.copytree(folder / "data", tmp_path / "data")
    content = json.loads((tmp_path / "data/val.json").read_text())
    content["annotations"][0]["image_id"] = 12345
    (tmp_path / "data/val.json").write_text(json.dumps(content))
    arguments = ("evaluate", folder / "run/best.safetensors", "--data", tmp_path / "data", "--workers", 0)
    refused = vil(*arguments)
    assert refused.code == 2
    assert "12345" in refused.err
    shown = vil(*arguments, "--skip-invalid")
    assert shown.code == 0
    assert "left out: 1 (" in shown.err
    assert read_coco(tmp_path / "data/val.json", tmp_path / "data/val", with_masks=False, skip_invalid=True).skipped
