"""Detection and segmentation through the training loop: continuation, processes, weights, measures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.coco_cases import CATEGORY_IDS, CLASSES
from datasets.label_cases import label_image, make_instances, photograph
from detection.cases import BACKBONE
from training.cases import asked_at, disturb, largest_difference, metrics, outcome, run
from training.dense_cases import TASKS, dense_recipe, make_coco
from vision_longformer import VisionLongformer, save
from vision_longformer.datasets.dense_loaders import DenseImages
from vision_longformer.datasets.options import InputOptions
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.training.classifiers import build_model, save_weights
from vision_longformer.training.config import ModelOptions
from vision_longformer.training.tasks import build_task
from vision_longformer.training.weight_files import load_weights
from vision_longformer.utils.distributed import Processes

SETUP = EvaluationSetup(batch_size=2, workers=0, device=torch.device("cpu"))
ONCE: dict[str, Any] = {"schedule": {"epochs": 1}, "input": {"check": "auto"}}  # with the checks, which take time
MEASURES = {
    "detection": {"box_ap", "box_ap50"},
    "instance_segmentation": {"box_ap", "box_ap50", "mask_ap", "mask_ap50"},
    "semantic_segmentation": {"miou", "pixel_accuracy", "iou_background", "iou_cell"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what gives the folder of a finished run of a task."""
    folders: dict[str, Path] = {}

    def of(task: str) -> Path:
        if task not in folders:
            folders[task] = tmp_path_factory.mktemp(task) / "run"
            run(dense_recipe(task), data, folders[task])
        return folders[task]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("stop", [1, 4, 8])
def test_a_stopped_run_ends_as_one_that_was_not(
    task: str, stop: int, data: Path, finished: Callable[[str], Path], tmp_path: Path
) -> None:
    events = run(dense_recipe(task), data, tmp_path, should_stop=asked_at(stop))
    assert events[-1].kind == "stopped"
    disturb()
    assert run(dense_recipe(task, compute={"workers": 1}), data, tmp_path)[-1].kind == "finished"
    assert outcome(tmp_path) == outcome(finished(task))
    assert metrics(tmp_path) == metrics(finished(task))


@pytest.mark.parametrize("task", TASKS)
def test_weights_hold_all_that_is_needed_to_use_them(task: str, data: Path, finished: Callable[[str], Path]) -> None:
    """The best weights, measured from their file, give what the run has logged for them."""
    trained = load_weights(finished(task) / "best.safetensors")
    assert trained.task == task
    assert trained.classes == (("background", *CLASSES) if task == "semantic_segmentation" else CLASSES)
    result = trained.evaluate(trained.read(data, "val"), SETUP)
    assert result is not None
    measured = result.metrics()
    assert MEASURES[task] <= measured.keys()
    logged = [line for line in metrics(finished(task)) if "val_loss" in line or "epoch" in line]
    best = {"detection": "box_ap", "instance_segmentation": "mask_ap", "semantic_segmentation": "miou"}[task]
    scores = [line[f"val_{best}"] for line in logged if f"val_{best}" in line]
    assert len(scores) == 3
    assert measured[best] == pytest.approx(max(scores), abs=1e-12)
    if task != "semantic_segmentation":
        assert trained.preprocessing.get("min_score") == measured["best_score"]


@pytest.mark.parametrize("task", TASKS)
def test_the_parts_of_the_loss_add_up(task: str, finished: Callable[[str], Path]) -> None:
    steps = [line for line in metrics(finished(task)) if "loss" in line]
    assert len(steps) == 9
    for line in steps:
        parts = [value for name, value in line.items() if name.startswith("loss_")]
        assert len(parts) == {"detection": 2, "instance_segmentation": 5, "semantic_segmentation": 0}[task]
        if parts:
            assert line["loss"] == pytest.approx(sum(parts), rel=1e-5)


@pytest.mark.parametrize("task", ["detection", "semantic_segmentation"])
def test_parts_of_a_step_give_the_gradient_of_the_whole(task: str, data: Path) -> None:
    """Without padding between images, which changes nothing, and without dropout."""
    calm: dict[str, Any] = {
        "model": {"drop_path_rate": 0.0, "drop_rate": 0.0},
        "dense": {"sides": [24], "scale": [1.0, 1.0], "crop": 24},
    }
    ends = []
    for parts in (1, 2):
        config = dense_recipe(task, **calm, compute={"accumulation": parts, "batch_size": 4}, schedule={"epochs": 1})
        folder = data.parent / f"{task}-{parts}"
        shutil.rmtree(folder, ignore_errors=True)
        events = run(config, data, folder)
        ends.append([event.values["loss"] for event in events if event.kind == "step"])
    assert ends[0] == pytest.approx(ends[1], rel=1e-4)


class Apart(Processes):
    """One of two processes without the other: what it would gather is put together by the test."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def maximum(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def gather(self, value: Any) -> list[Any]:
        return [value]


def test_processes_see_every_image_once(data: Path, finished: Callable[[str], Path]) -> None:
    trained = load_weights(finished("detection") / "best.safetensors")
    found: dict[int, Any] = {}
    for rank in range(2):
        setup = EvaluationSetup(batch_size=1, workers=0, device=torch.device("cpu"), processes=Apart(2, rank))
        result: Any = trained.evaluate(trained.read(data, "val"), setup)
        assert not found.keys() & result.found.keys()
        found |= result.found
    whole: Any = trained.evaluate(trained.read(data, "val"), SETUP)
    assert found.keys() == whole.found.keys() == {0, 1, 2}
    for image, objects in found.items():
        np.testing.assert_allclose(objects.boxes, whole.found[image].boxes, atol=1e-2)


# --- starting from other weights --------------------------------------------------------------------------------


def test_a_backbone_starts_from_a_classifier(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    classifier = VisionLongformer(BACKBONE)
    save(classifier, tmp_path / "classifier.safetensors")
    config = dense_recipe("detection", model={"checkpoint": str(tmp_path / "classifier.safetensors")})
    task = build_task(config, data)
    model = task.build_model()
    remarks = task.start_from(model, str(tmp_path / "classifier.safetensors"))
    assert remarks == ["backbone.extra: untrained", "backbone.fpn: untrained"] + [
        f"head.{name}: untrained" for name in ("classification_head", "regression_head")
    ]
    own, given = model.state_dict(), classifier.state_dict()
    backbone = {name.removeprefix("backbone.features.model."): own[name] for name in own if "features.model." in name}
    assert backbone
    assert largest_difference(backbone, {name: given[name] for name in backbone}) == 0


def test_a_detector_starts_from_one_of_other_classes(
    data: Path, finished: Callable[[str], Path], tmp_path: Path
) -> None:
    content = json.loads((data / "train.json").read_text())
    content["categories"] = content["categories"][:2]  # the third has no object
    other = tmp_path / "data"
    shutil.copytree(data, other)
    for split in ("train", "val"):
        content = json.loads((data / f"{split}.json").read_text())
        content["categories"] = content["categories"][:2]
        (other / f"{split}.json").write_text(json.dumps(content))
    source = finished("detection") / "best.safetensors"
    task = build_task(dense_recipe("detection"), other)
    model = task.build_model()
    remarks = task.start_from(model, str(source))
    assert remarks == ["head.classification_head: untrained"]
    given = load_weights(source).model.state_dict()
    same = [name for name, tensor in model.state_dict().items() if tensor.shape == given[name].shape]
    own = model.state_dict()
    assert largest_difference({name: own[name] for name in same}, {name: given[name] for name in same}) == 0


def test_a_file_without_anything_that_fits_is_refused(data: Path, tmp_path: Path) -> None:
    save(VisionLongformer(BACKBONE), tmp_path / "x.safetensors")
    config = dense_recipe("detection", model={"name": "resnet10t", "options": {}, "drop_path_rate": 0.0})
    task = build_task(config, data)
    with pytest.raises(ValueError, match="has no weights that fit this model"):
        task.start_from(task.build_model(), str(tmp_path / "x.safetensors"))


def test_a_detector_on_a_backbone_of_timm_starts_from_a_classifier_of_it(data: Path, tmp_path: Path) -> None:
    options = ModelOptions(name="resnet10t", drop_path_rate=0.0)
    source = build_model(options, num_classes=4, size=32)
    path = tmp_path / "x.safetensors"
    save_weights(source, path, options=options, inputs=InputOptions(size=32), classes=("a", "b", "c", "d"))
    task = build_task(
        dense_recipe("detection", model={"name": "resnet10t", "options": {}, "drop_path_rate": 0.0}), data
    )
    model = task.build_model()
    assert task.start_from(model, str(path)) == ["all but the backbone: untrained"]
    own = {name.removeprefix("backbone.features.model."): tensor for name, tensor in model.state_dict().items()}
    kept = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("fc.")}
    assert largest_difference({name: own[name] for name in kept}, kept) == 0


# --- data -------------------------------------------------------------------------------------------------------


def test_index_images_are_labels_too(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        (tmp_path / split).mkdir()
        (tmp_path / f"{split}_labels").mkdir()
        for number in range(count):
            generator = np.random.default_rng([number, count])
            pixels = generator.integers(0, 256, (30, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / f"{number}.png")
            label = generator.integers(0, 3, (30, 40)).astype(np.uint8)
            label[0, 0] = 255
            Image.fromarray(label).save(tmp_path / f"{split}_labels" / f"{number}.png")
    (tmp_path / "classes.txt").write_text("sky\nsea\nland\n")
    config = dense_recipe("semantic_segmentation", dense={"labels": "index"}, schedule={"epochs": 1})
    assert run(config, tmp_path, tmp_path / "run")[-1].kind == "finished"
    trained = load_weights(tmp_path / "run/best.safetensors")
    assert trained.classes == ("sky", "sea", "land")
    result = trained.evaluate(trained.read(tmp_path, "val"), SETUP)
    assert result is not None
    assert {"iou_sky", "iou_sea", "iou_land"} <= result.metrics().keys()
    # Objects of a COCO file leave a background, which these weights do not know.
    (tmp_path / "val.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    again = trained.evaluate(trained.read(tmp_path, "val"), SETUP)
    assert again is not None
    assert again.metrics() == result.metrics()


@pytest.mark.parametrize("task", TASKS)
def test_label_images_of_objects_train_and_measure_every_model(task: str, tmp_path: Path) -> None:
    data = make_instances(tmp_path / "data")
    dense = {"class_name": "nucleus", "labels": "instances" if task == "semantic_segmentation" else "auto"}
    events = run(dense_recipe(task, dense=dense, **ONCE), data, tmp_path / "run")
    assert events[-1].kind == "finished"
    assert {event.values["what"] for event in events if event.kind == "preparing"} == {"labels read", "images checked"}
    trained = load_weights(tmp_path / "run/best.safetensors")
    assert trained.classes == (("background", "nucleus") if task == "semantic_segmentation" else ("nucleus",))
    result = trained.evaluate(trained.read(data, "val"), SETUP)
    assert result is not None
    logged = [line for line in metrics(tmp_path / "run") if "val_loss" in line or "epoch" in line][-1]
    assert (
        result.metrics().items()
        >= {name.removeprefix("val_"): value for name, value in logged.items() if name.startswith("val_")}.items()
    )


def binary(data: Path, *, value: int) -> Path:
    """Write photographs of a bright square, and masks that are 0 and `value`."""
    mask = np.zeros((30, 40), np.uint8)
    mask[8:20, 10:30] = value
    for split in ("train", "val"):
        for number in range(3):
            photograph(data / split / f"{number}.jpg", seed=number, size=mask.shape)
            label_image(data / f"{split}_labels" / f"{number}.png", mask)
    (data / "classes.txt").write_text("background\ncell\n")
    return data


def test_masks_of_0_and_255_are_refused_until_somebody_says_what_255_is(tmp_path: Path) -> None:
    """As 255 is ignored, every answer "background" would be right."""
    data, out = binary(tmp_path / "data", value=255), tmp_path / "run"
    with pytest.raises(ValueError, match=r"If 255 is cell, give --dense\.label_values '\[0, 255\]'"):
        run(dense_recipe("semantic_segmentation", **ONCE), data, out)
    assert not out.exists()
    config = dense_recipe("semantic_segmentation", dense={"label_values": [0, 255]}, **ONCE)
    assert run(config, data, out)[-1].kind == "finished"
    trained = load_weights(out / "best.safetensors")
    result = trained.evaluate(trained.read(data, "val"), SETUP)
    assert result is not None
    assert result.metrics()["iou_cell"] is not None
    assert int(result.confusion[1].sum()) == 3 * 12 * 20  # type: ignore[attr-defined]


def test_without_an_ignored_label_255_is_no_class(tmp_path: Path) -> None:
    data = binary(tmp_path / "data", value=255)
    head = dense_recipe("semantic_segmentation").dense.head | {"ignored_label": None}
    with pytest.raises(ValueError, match=r"has the value 255 at row 8, column 10; the 2 classes are 0 to 1; dense"):
        build_task(dense_recipe("semantic_segmentation", dense={"head": head}, **ONCE), data)
    config = dense_recipe("semantic_segmentation", dense={"head": head, "label_values": [0, 255]}, **ONCE)
    assert run(config, data, tmp_path / "run")[-1].kind == "finished"


def test_values_beyond_the_classes_are_found_before_the_first_step_and_leave_no_files(tmp_path: Path) -> None:
    data = binary(tmp_path / "data", value=1)
    label_image(data / "val_labels/2.png", np.full((30, 40), 7, np.uint8))
    with pytest.raises(ValueError, match=r"val_labels/2\.png: has the value 7 at row 0, column 0; the 2 classes are"):
        run(dense_recipe("semantic_segmentation", **ONCE), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_classes_that_do_not_occur_are_told_before_the_first_step(tmp_path: Path) -> None:
    data = binary(tmp_path / "data", value=1)
    (data / "classes.txt").write_text("background\ncell\ndust\nfibre\n")
    for number in range(3):
        label_image(data / f"val_labels/{number}.png", np.zeros((30, 40), np.uint8))
    events = run(dense_recipe("semantic_segmentation", **ONCE), data, tmp_path / "run")
    kinds = [event.kind for event in events]
    assert [event.values["text"] for event in events if event.kind == "remark"] == [
        "train has no pixel of dust, fibre: each cannot be learned",
        "val has no pixel of cell: it is learned, and not measured",
    ]
    assert kinds.index("remark") < kinds.index("step")


def broken(data: Path, folder: Path) -> Path:
    """Copy a data set and break one annotation of it."""
    shutil.copytree(data, folder)
    content = json.loads((folder / "train.json").read_text())
    content["annotations"][1]["bbox"] = [1.0, 2.0, 0.0, 3.0]
    (folder / "train.json").write_text(json.dumps(content))
    return folder


def test_what_cannot_be_used_stops_the_run_before_it_begins_or_is_counted(data: Path, tmp_path: Path) -> None:
    folder = broken(data, tmp_path / "data")
    with pytest.raises(ValueError, match=r"annotation 101"):
        build_task(dense_recipe("detection"), folder)
    task = build_task(dense_recipe("detection", dense={"skip_invalid": True}), folder)
    assert task.remarks == [
        "train: 1 left out (box without area)",
        "train has no object of unused: it cannot be learned",
    ]


def test_other_classes_in_val_are_refused(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    content = json.loads((data / "val.json").read_text())
    content["categories"][0]["name"] = "dragon"
    (tmp_path / "data/val.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="dragon"):
        build_task(dense_recipe("detection"), tmp_path / "data")


def test_changed_annotations_are_noticed_when_a_run_goes_on(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    run(dense_recipe("detection"), tmp_path / "data", tmp_path / "run", should_stop=asked_at(2))
    content = json.loads((data / "train.json").read_text())
    content["annotations"][0]["category_id"] = CATEGORY_IDS[content["annotations"][0]["category_id"] == CATEGORY_IDS[0]]
    (tmp_path / "data/train.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="not those that the run was begun with"):
        run(dense_recipe("detection"), tmp_path / "data", tmp_path / "run")


@pytest.mark.parametrize("task", TASKS)
def test_an_impossible_setting_of_the_head_is_named(task: str, data: Path) -> None:
    built = build_task(dense_recipe(task, dense={"head": {"pyramid_depth": 7}}), data)
    with pytest.raises(ValueError, match=r"dense.head=.*pyramid_depth"):
        built.build_model()


def test_a_detector_has_no_layers_for_layer_decay(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"layer_decay=0\.9: is for classifiers"):
        run(dense_recipe("detection", optimizer={"layer_decay": 0.9}), data, tmp_path / "run")


def test_images_of_a_step_are_all_wide_or_all_high(data: Path) -> None:
    task = build_task(dense_recipe("detection"), data)
    order = task.order(Processes())
    images = task.training_data(task.build_model())
    assert isinstance(images, DenseImages)
    mixed = 0
    for step in range(3 * order.steps_per_epoch):
        wide = {images.size(key.image)[1] > images.size(key.image)[0] for key in order.step(step)}
        mixed += len(wide) > 1
    assert mixed <= 3  # at most one batch of an epoch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
