"""Distillation: what is asked of the teacher, what is kept, continuation, and that a student learns."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from reports.pages import Page
from training.cases import CLASSES, asked_at, disturb, make_images, outcome, recipe, run, tiny
from vision_longformer.datasets import packed
from vision_longformer.reports.training_page import write_training_page
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.distillation import (
    LogitsAndFeatures,
    Student,
    features_loss,
    labels_loss,
    laid_out,
    logits_loss,
)
from vision_longformer.training.run_folder import RunFolder
from vision_longformer.training.tasks import build_task
from vision_longformer.training.tasks.base import Preparation
from vision_longformer.training.tasks.distillation import Distillation
from vision_longformer.training.teachers import Basis, load_teacher
from vision_longformer.training.weight_files import load_weights
from vision_longformer.utils.distributed import Processes

TEACHER_CLASSES = 7
POOLS_MAPS = {"options": {"config": tiny(num_global_tokens=0)}}  # and no global tokens
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained classifier in timm's hub layout; of steep logits, so that there is something to learn."""
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=TEACHER_CLASSES).train()
    with torch.no_grad():
        for _ in range(20):  # running statistics
            model(torch.randn(8, 3, 32, 32))
        model.classifier.weight *= 20
    save_file(model.state_dict(), folder / "model.safetensors")
    about = {"architecture": "test_efficientnet", "num_classes": TEACHER_CLASSES, "pretrained_cfg": {}}
    about["pretrained_cfg"] = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 32, 32]}
    (folder / "config.json").write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data")) / "train"  # 7 images of each of three classes


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "SHARD", 8)
    monkeypatch.setattr("vision_longformer.training.teachers.SHARD", 8)


def distilled(teacher: Path | str, **options: Any) -> TrainConfig:
    distillation = {
        "teacher": str(teacher),
        "views": 3,
        "sides": [24, 32],
        "final_sides": [40],
        "final_share": 0.4,
        "components": 5,
        "labels_weight": 0.5,
        "validation_share": 0.2,
        "mosaic_share": 0.0,
        "mosaics": [2],
        "mosaic_sides": [32],
    }
    others = {name: options.pop(name) for name in list(options) if name not in distillation and name != "cache"}
    augmentation = {"color_jitter": 0.2, "crop_scale": [0.5, 1.0]}
    groups: dict[str, Any] = {"augmentation": augmentation, **others}
    groups["optimizer"] = {"layer_decay": 1.0, **others.get("optimizer", {})}
    return recipe(task="distillation", distillation={**distillation, **options}, **groups)  # type: ignore[arg-type]


def prepared(config: TrainConfig, data: Path, folder: Path) -> Distillation:
    task = build_task(config, data)
    assert isinstance(task, Distillation)
    list(task.prepare(Preparation(RunFolder(folder), Processes(), CPU, None)))
    return task


# --- losses ---------------------------------------------------------------------------------------------------------


def test_the_loss_of_logits_is_the_divergence_of_probabilities() -> None:
    student, teacher = torch.randn(5, 7), torch.randn(5, 7)
    expected = F.kl_div(F.log_softmax(student / 2, 1), F.softmax(teacher / 2, 1), reduction="none").sum(1) * 4
    assert torch.allclose(logits_loss(student, teacher, temperature=2.0), expected, atol=1e-6)
    assert logits_loss(teacher, teacher, temperature=1.0).abs().max() < 1e-6


def test_features_that_are_the_mean_explain_nothing() -> None:
    basis = Basis.of(torch.randn(400, 11) * torch.arange(1.0, 12.0), 5)
    features = basis(torch.randn(4000, 11) * torch.arange(1.0, 12.0))
    assert features.shape == (4000, 5)
    assert float(features_loss(torch.zeros_like(features), features).mean()) == pytest.approx(1, abs=0.15)


def test_components_are_the_largest_and_independent() -> None:
    features = torch.randn(500, 6) @ torch.randn(6, 6)
    basis = Basis.of(features, 3)
    found = basis(features)
    covariance = found.T @ found / len(found)
    assert torch.allclose(covariance, torch.diag(covariance.diagonal()), atol=1e-4)
    assert float(covariance.diagonal().mean()) == pytest.approx(1, abs=1e-4)
    variances = torch.linalg.svdvals(features - features.mean(0)).square() / len(features)
    assert torch.allclose(covariance.diagonal() / covariance[0, 0], variances[:3] / variances[0], atol=1e-4)


def test_labels_are_told_apart_within_their_own_folder() -> None:
    logits = torch.randn(3, 5, requires_grad=True)
    folders = torch.tensor([0, 0, 1, 1, 1])
    losses = labels_loss(logits, torch.tensor([1, 3, -1]), folders)
    assert losses[0].item() == pytest.approx(F.cross_entropy(logits[0, :2], torch.tensor(1)).item())
    assert losses[1].item() == pytest.approx(F.cross_entropy(logits[1, 2:], torch.tensor(1)).item())
    assert losses[2].item() == 0
    losses.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 2:].eq(0).all()


# --- the teacher ----------------------------------------------------------------------------------------------------


def test_what_is_kept_is_what_the_teacher_says_of_each_view(teacher: Path, data: Path, tmp_path: Path) -> None:
    task = prepared(distilled(teacher), data, tmp_path)
    loaded = load_teacher(str(teacher), size=None)
    for view in range(3):
        for image in (0, 7, 8, 20):
            seen = task._views([image], [view], 32, CPU)
            with torch.no_grad():
                features = loaded.model.forward_features((seen - 0.5) / 0.5)  # type: ignore[operator]
                pooled = loaded.model.forward_head(features, pre_logits=True)  # type: ignore[operator]
                logits = loaded.model.get_classifier()(pooled)  # type: ignore[operator]
            said = task.said.gather([image], [view], CPU)
            assert torch.allclose(said.logits, logits, atol=2e-3 * float(logits.abs().max()))  # half precision
            assert torch.allclose(said.features, task.basis(pooled), atol=2e-3 * float(said.features.abs().max()))


def test_views_of_an_image_differ_and_the_first_is_its_centre(teacher: Path, data: Path, tmp_path: Path) -> None:
    task = prepared(distilled(teacher), data, tmp_path)
    views = task._views([3, 3, 3], [0, 1, 2], 24, CPU)
    assert not torch.allclose(views[1], views[2], atol=1e-2)
    assert task._boxes[0, 3].tolist() == pytest.approx([0, 1 / 12, 1, 20 / 24])


def test_several_processes_prepare_what_one_does(teacher: Path, data: Path, tmp_path: Path) -> None:
    alone = prepared(distilled(teacher), data, tmp_path / "alone")
    config = distilled(teacher, cache=str(tmp_path / "shared"))
    barrier = threading.Barrier(2, timeout=60)

    def prepare(rank: int) -> Distillation:
        task = build_task(config, data)
        assert isinstance(task, Distillation)
        processes = Ranks(2, rank)
        object.__setattr__(processes, "barrier", barrier)  # it is frozen
        for _ in task.prepare(Preparation(RunFolder(tmp_path), processes, CPU, None)):
            barrier.wait()  # as the trainer does, which asks all of them whether to stop
        return task

    with ThreadPoolExecutor(2) as pool:
        tasks = list(pool.map(prepare, range(2)))
    images, views = list(range(21)), [image % 3 for image in range(21)]
    for task in tasks:
        assert torch.equal(task.said.gather(images, views, CPU).logits, alone.said.gather(images, views, CPU).logits)


class Ranks(Processes):
    """Processes as threads of one."""

    barrier: threading.Barrier

    def wait(self) -> None:
        self.barrier.wait()


# --- mosaics --------------------------------------------------------------------------------------------------------


class Patches(torch.nn.Module):
    """A classifier that sees each patch of 8×8 pixels by itself, so that an image's neighbours change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Conv2d(3, 6, 8, 8)
        self.head = torch.nn.Linear(6, 4)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.embed(images)
        return maps.permute(0, 2, 3, 1)

    def forward_head(self, maps: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(maps.mean((1, 2)))
        return logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> torch.nn.Module:
        return self.head


@pytest.mark.parametrize("mosaic", [2, 3])
def test_images_of_a_mosaic_have_their_own_answers(mosaic: int) -> None:
    images = torch.randn(2 * mosaic**2, 3, 24, 24)
    pair = LogitsAndFeatures(Patches())

    for found, expected in zip(pair(images, mosaic), pair(images), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_mosaic_is_one_image_to_the_model() -> None:
    images = torch.arange(5.0, 9.0)[:, None, None, None].expand(4, 3, 8, 8)

    assert laid_out(images, 2)[0, 0, ::8, ::8].tolist() == [[5, 6], [7, 8]]


def test_a_share_of_the_batches_are_mosaics(
    teacher: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, int]] = []
    forward = Student.forward

    def watched(self: Student, images: torch.Tensor, mosaic: int) -> Any:
        seen.append((mosaic, len(images), images.shape[-1]))
        return forward(self, images, mosaic)

    monkeypatch.setattr(Student, "forward", watched)
    mosaics = {"mosaic_share": 0.5, "mosaics": [2], "mosaic_sides": [16, 48]}
    options: dict[str, Any] = {"compute": {"batch_size": 4}, "schedule": {"epochs": 4}, "final_share": 0.0}
    run(distilled(teacher, model=POOLS_MAPS, **mosaics, **options), data, tmp_path)

    assert {mosaic for mosaic, count, _ in seen if count == 4} == {1, 2}
    assert {side for mosaic, _, side in seen if mosaic == 2} == {16, 48}
    assert {side for mosaic, _, side in seen if mosaic == 1} == {24, 32}
    assert {mosaic for mosaic, count, _ in seen if count < 4} <= {1}  # too few


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mosaic_sides": [24]}, r"distillation.mosaic_sides=\(24,\): must be multiples of 16"),
        (
            {"model": {"name": "test_efficientnet", "options": {}}},
            "distillation.mosaic_share=0.5: only for models of this library",
        ),
        ({"model": {"options": {"config": tiny()}}}, "whose last stage has no global tokens"),
    ],
)
def test_mosaics_that_cannot_be_taken_apart_are_refused(
    options: dict[str, Any], message: str, teacher: Path, data: Path, tmp_path: Path
) -> None:
    config = distilled(teacher, **{"model": POOLS_MAPS, "mosaic_share": 0.5, **options})
    with pytest.raises(ValueError, match=message):
        run(config, data, tmp_path)


@pytest.mark.parametrize("name", ["no_such_model", "vision_longformer_nano_ful", ""])
def test_a_teacher_that_does_not_exist_is_named(name: str, data: Path) -> None:
    with pytest.raises(ValueError, match=r"teacher .*(cannot be loaded|name one)"):
        build_task(distilled(name), data)


def test_a_model_of_this_library_can_teach(data: Path, tmp_path: Path, teacher: Path) -> None:
    run(distilled(teacher, schedule={"epochs": 1}), data, tmp_path / "first")
    run(distilled(tmp_path / "first" / "best.safetensors", schedule={"epochs": 1}), data, tmp_path / "second")
    assert load_weights(tmp_path / "second" / "best.safetensors").model.num_classes == TEACHER_CLASSES


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_student_learns_what_its_teacher_says(teacher: Path, data: Path, tmp_path: Path) -> None:
    config = distilled(
        teacher,
        labels_weight=0.0,
        model={"drop_rate": 0.0, "drop_path_rate": 0.0},
        optimizer={"learning_rate": 5e-3},
        schedule={"epochs": 40, "random_shift": False},
        logging={"evaluate_every_epochs": 40},
    )
    events = run(config, data, tmp_path)
    steps = [event.values for event in events if event.kind == "step"]
    first, last = (sum(step["loss_logits"] for step in part) / len(part) for part in (steps[:6], steps[-6:]))
    assert last < 0.4 * first


def test_a_run_stopped_anywhere_ends_with_the_same_bits(teacher: Path, data: Path, tmp_path: Path) -> None:
    mosaics = {"mosaic_share": 0.5, "mosaic_sides": [16]}
    config = distilled(teacher, model=POOLS_MAPS, compute={"batch_size": 4}, **mosaics)
    run(config, data, tmp_path / "whole")
    for question in (2, 4, 7, 3, 5):  # in preparation and in training
        disturb()
        assert run(config, data, tmp_path / "parts", should_stop=asked_at(question))[-1].kind == "stopped"
    disturb()
    assert run(config, data, tmp_path / "parts")[-1].kind == "finished"
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_sides_are_drawn_by_step_and_the_last_epochs_have_their_own(
    teacher: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = Student.forward

    def watched(self: Student, images: torch.Tensor, mosaic: int) -> Any:
        seen.append(images.shape[-1])
        return forward(self, images, mosaic)

    monkeypatch.setattr(Student, "forward", watched)
    run(distilled(teacher, schedule={"epochs": 5}), data, tmp_path)
    steps_per_epoch = 3  # 17 images by 6
    assert set(seen[: 3 * steps_per_epoch]) == {24, 32}
    assert set(seen[3 * steps_per_epoch :]) == {40}


def test_new_views_at_every_step_need_no_kept_answers(teacher: Path, data: Path, tmp_path: Path) -> None:
    events = run(distilled(teacher, views=0, schedule={"epochs": 2}), data, tmp_path)
    assert events[-1].kind == "finished"
    assert not list((tmp_path / "cache" / "teacher").glob("logits-*"))


def test_the_weights_are_a_classifier_of_the_teachers_classes(teacher: Path, data: Path, tmp_path: Path) -> None:
    run(distilled(teacher), data, tmp_path)
    trained = load_weights(tmp_path / "best.safetensors")
    assert trained.classes == tuple(f"class {number}" for number in range(TEACHER_CLASSES))
    assert trained.model(torch.zeros(1, 3, 40, 56)).shape == (1, TEACHER_CLASSES)
    run(recipe(model={"checkpoint": str(tmp_path / "best.safetensors")}), data.parent, tmp_path / "tuned")
    assert load_weights(tmp_path / "tuned" / "best.safetensors").classes == CLASSES


def test_the_page_shows_agreement_curves_and_what_looks_alike(teacher: Path, data: Path, tmp_path: Path) -> None:
    config = distilled(teacher, validation_share=0.4)
    (event,) = [event for event in run(config, data, tmp_path) if event.kind == "result"]
    write_training_page(RunFolder(tmp_path), event.values["result"], config, event.values["progress"])
    page = Page(tmp_path / "report.html")
    result = event.values["result"].metrics()
    assert page.tiles["Agreement with the teacher"][0] == f"{result['agreement']:.1f}%"
    assert page.tiles["Divergence"][0] == f"{result['divergence']:.2f}"
    assert page.count("figure", "thumbnail") == 8 * 6  # 8 images, each with its nearest five
    assert page.count("svg", "chart") == 4
    page.assert_self_contained()


def test_unreadable_images_are_left_out_and_said(teacher: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "red" / "3.png").write_bytes(b"half an image")
    events = run(distilled(teacher, schedule={"epochs": 1}), tmp_path / "data", tmp_path / "run")
    remarks = [event.values["text"] for event in events if event.kind == "remark"]
    assert any("1 images left out" in text and "3.png" in text for text in remarks)
    assert events[-1].kind == "finished"


def test_several_folders_are_taken_together(teacher: Path, data: Path, tmp_path: Path) -> None:
    from vision_longformer.training.trainer import train

    folders = [data / "red", data / "blue"]
    events = list(train(distilled(teacher, schedule={"epochs": 1}), data=folders, output=tmp_path))
    begun = next(event for event in events if event.kind == "begun")
    assert begun.values["images"] + begun.values["validation_images"] == 14


def test_a_cache_of_other_images_is_refused(teacher: Path, data: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    run(distilled(teacher, cache=cache, schedule={"epochs": 1}), data, tmp_path / "first")
    with pytest.raises(ValueError, match=r"holds other images.*give another distillation\.cache"):
        run(distilled(teacher, cache=cache), data / "red", tmp_path / "second")
    with pytest.raises(ValueError, match=r"another teacher's answers, or other views"):
        run(distilled(teacher, cache=cache, views=2), data, tmp_path / "third")


def test_the_cache_may_move_while_a_run_is_stopped(teacher: Path, data: Path, tmp_path: Path) -> None:
    config = distilled(teacher, cache=str(tmp_path / "here"))
    run(config, data, tmp_path / "run", should_stop=asked_at(11))
    (tmp_path / "here").rename(tmp_path / "there")
    events = run(distilled(teacher, cache=str(tmp_path / "there")), data, tmp_path / "run")
    assert [event.kind for event in events if event.kind in ("begun", "continued", "finished")] == [
        "continued",
        "finished",
    ]
