from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from reports.pages import HOSTILE, Page
from vision_longformer.datasets.classification import Samples
from vision_longformer.datasets.options import InputOptions
from vision_longformer.evaluation.classification import Evaluation
from vision_longformer.evaluation.confusions import class_results, confused_pairs, count_pairs, wilson_interval
from vision_longformer.reports.classification_page import MAX_PAIRS, MAX_THUMBNAILS, THUMBNAIL
from vision_longformer.reports.matrix import MAX_WHOLE, OTHER, PICKED, choose_matrix, shorten
from vision_longformer.reports.run import MAX_ROWS
from vision_longformer.reports.training_page import write_training_page
from vision_longformer.training.checkpoints import Progress
from vision_longformer.training.config import ModelOptions, ScheduleOptions, TrainConfig
from vision_longformer.training.run_folder import RunFolder


def judged(
    answers: list[tuple[int, int, float]], *, classes: tuple[str, ...], paths: list[Path] | None = None
) -> Evaluation:
    """An evaluation of images with the given true class, predicted class and probability."""
    top = min(5, len(classes))
    ranking = [[predicted, *(c for c in range(top + 1) if c != predicted)][:top] for _, predicted, _ in answers]
    samples = Samples(
        tuple(paths or [Path("/data/val") / classes[truth].replace("/", "-") / "x.png" for truth, _, _ in answers]),
        tuple(truth for truth, _, _ in answers),
        classes,
    )
    probability = torch.tensor([p for _, _, p in answers])
    return Evaluation(samples, torch.tensor(ranking), probability, torch.full((len(answers),), 0.25))


def step(number: int, *, epoch: float, loss: float = 2.0) -> dict[str, Any]:
    return {"step": number, "epoch": epoch, "loss": loss, "learning_rate": 1e-3, "images_per_second": 7.0, "images": 3}


def evaluated(number: int, *, epoch: int, top1: float = 50.0) -> dict[str, Any]:
    return {"step": number, "epoch": epoch, "val_top1": top1, "val_top5": 90.0, "val_loss": 1.5}


def write(
    folder: Path,
    evaluation: Evaluation,
    *,
    metrics: list[dict[str, Any]] | None = None,
    config: TrainConfig | None = None,
    best_epoch: int = 1,
    about: dict[str, Any] | None = None,
) -> Page:
    run = RunFolder(folder)
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in metrics or []))
    if about is not None:
        run.write_about(about)
    progress = Progress(step=20, evaluated_epochs=2, best=90.0, best_epoch=best_epoch, seconds=4321.0)
    write_training_page(run, evaluation, config or TrainConfig(schedule=ScheduleOptions(epochs=2)), progress)
    return Page(run.report)


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(45, 50, 0.7864, 0.9565), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 2, 0.0945, 0.9055), (0, 0, 0.0, 1.0)],
)
def test_wilson_intervals_agree_with_published_values(correct: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


def test_pairs_are_sorted_by_images_and_then_by_how_sure_the_mistakes_were() -> None:
    answers = [(0, 1, 0.4), (0, 0, 0.9), (2, 0, 0.5), (0, 1, 0.8), (1, 2, 0.7), (2, 2, 0.9)]
    pairs = confused_pairs(judged(answers, classes=("a", "b", "c")))
    assert [(pair.truth, pair.predicted, pair.images) for pair in pairs] == [
        (0, 1, (3, 0)),
        (1, 2, (4,)),
        (2, 0, (2,)),
    ]


def test_classes_are_sorted_worst_first_and_those_without_images_are_absent() -> None:
    answers = [(0, 0, 0.9), (0, 1, 0.9), (0, 2, 0.9), (0, 2, 0.4), (2, 1, 0.9), (1, 1, 0.9), (1, 1, 0.9)]
    evaluation = judged(answers, classes=("a", "b", "c", "d"))
    results = class_results(evaluation, confused_pairs(evaluation))
    assert [(r.label, r.correct, r.total, r.accuracy) for r in results] == [(2, 0, 1, 0), (0, 1, 4, 0.25), (1, 2, 2, 1)]
    assert [None if r.taken_for is None else r.taken_for.predicted for r in results] == [1, 2, None]


def test_a_matrix_of_many_classes_holds_the_most_confused_and_sums_up_the_others() -> None:
    answers = [(5, 7, 0.5)] * 3 + [(5, 5, 0.5), (5, 39, 0.5), (5, 40, 0.5)]
    answers += [(c, c + 1, 0.5) for c in range(8, 34, 2) for _ in range(2)]
    evaluation = judged(answers, classes=tuple(map(str, range(MAX_WHOLE + 1))))
    matrix = choose_matrix(count_pairs(evaluation), confused_pairs(evaluation), evaluation.samples.classes)
    assert matrix.labels == (5, 7, *range(8, 8 + PICKED - 2))
    assert matrix.partial
    assert [matrix.counts[5, predicted] for predicted in (5, 7, 39, OTHER)] == [1, 3, 0, 2]
    assert matrix.totals[5] == 6


def test_a_matrix_of_few_classes_holds_all() -> None:
    evaluation = judged([(0, 1, 0.5), (1, 1, 0.5)], classes=tuple(map(str, range(MAX_WHOLE))))
    matrix = choose_matrix(count_pairs(evaluation), [], evaluation.samples.classes)
    assert matrix.labels == tuple(range(MAX_WHOLE))
    assert not matrix.partial


# --- pages ----------------------------------------------------------------------------------------------------------


def test_the_headline_says_what_was_trained_and_how_sure_its_accuracy_is(tmp_path: Path) -> None:
    answers = [(0, 0, 0.9)] * 45 + [(0, 1, 0.9)] * 5
    about = {"images": 1402, "parameters": 1_843_590, "device": "cpu", "threads": 2, "versions": {"torch": "9.8.7"}}
    page = write(tmp_path, judged(answers, classes=("a", "b")), about=about, best_epoch=2)
    assert page.tiles["Top-1 accuracy"] == ("90.0%", "95% interval 78.6–95.7%, 45 of 50 images; best epoch 2")
    for part in ("1,402 images", "1.84 M", "1 h 12 min", "/data/val", "vision_longformer_tiny", "0.250", "9.8.7"):
        assert part in page.text
    assert "independent" in page.text
    assert "Top-5" not in page.text  # of two classes it would always be 100%


def test_top_5_is_told_of_more_than_five_classes(tmp_path: Path) -> None:
    page = write(tmp_path, judged([(0, 0, 0.9)], classes=tuple("abcdefg")))
    assert "Top-5" in page.text


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("RGB", (30, 20), (200, 30, 30)).save(path)
    page = write(tmp_path, judged([(0, 1, 0.9)], classes=("a", "b"), paths=[path]))
    assert page.images
    page.assert_self_contained()


def test_names_are_shown_as_text(tmp_path: Path) -> None:
    paths = []
    for index, stem in enumerate(("<img src=x>", "' onload='y", 'a"b&c', "🐈")):
        paths.append(tmp_path / f"{stem}.png")
        Image.new("RGB", (20, 30), (index, 90, 90)).save(paths[-1])
    answers = [(truth, (truth + 1) % 4, 0.5) for truth in range(4)]
    config = TrainConfig(
        model=ModelOptions(name="<i>model</i>", options={"x": "</pre><b>"}), schedule=ScheduleOptions(epochs=1)
    )
    about = {"device": "<u>", "versions": {"<s>": "<q>"}}
    page = write(tmp_path, judged(answers, classes=HOSTILE, paths=paths), config=config, about=about)
    assert {image["alt"] for image in page.images} == {path.name for path in paths}
    page.assert_self_contained()
    assert not [tag for tag in ("i", "u", "s", "q") if page.all(tag)]
    assert len(page.images) == 4
    assert all(set(image.attributes) == {"src", "alt", "title", "width", "height", "loading"} for image in page.images)
    for name in HOSTILE:
        assert f"{name} → " in page.text
    assert "<i>model</i>" in page.text
    assert "</pre><b>" in page.text


def test_file_names_that_are_no_unicode_do_not_stop_the_page(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (20, 30)).save(path)
    page = write(tmp_path, judged([(0, 1, 0.9)], classes=("a", os.fsdecode(b"\xe9")), paths=[path]))
    assert [image["alt"] for image in page.images] == ["caf?.png"]


def test_confused_pairs_show_their_very_images_surest_first(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(9)]
    for path in paths:
        Image.new("RGB", (300, 200), (10, 200, 90)).save(path)
    answers = [(0, 1, 0.10 + 0.09 * number) for number in range(8)] + [(1, 0, 0.5)]
    page = write(tmp_path, judged(answers, classes=("a", "b"), paths=paths))
    assert [image["alt"] for image in page.images] == ["7.png", "6.png", "5.png", "4.png", "3.png", "2.png", "8.png"]
    captions = [caption.text for caption in page.section("Most confused").all("figcaption")]
    assert captions == ["73%", "64%", "55%", "46%", "37%", "28%", "50%"]
    assert f"8 images, 100.0% of the class, {MAX_THUMBNAILS} shown" in page.text
    assert all(
        (image["width"], image["height"]) == (str(THUMBNAIL), str(round(THUMBNAIL * 2 / 3))) for image in page.images
    )


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("good.png", "gone.png", "damaged.png", "large.png")]
    Image.new("RGB", (20, 30)).save(paths[0])
    paths[2].write_text("no image")
    Image.new("RGB", (50, 50)).save(paths[3])
    config = TrainConfig(input=InputOptions(max_pixels=1000), schedule=ScheduleOptions(epochs=1))
    page = write(tmp_path, judged([(0, 1, 0.5)] * 4, classes=("a", "b"), paths=paths), config=config)
    assert [image["alt"] for image in page.images] == ["good.png"]
    assert "4 images, 100.0% of the class, 1 shown" in page.text


def test_classes_are_listed_worst_first_with_intervals(tmp_path: Path) -> None:
    answers = [(0, 0, 0.9)] * 45 + [(0, 1, 0.9)] * 5 + [(1, 1, 0.9)] * 2 + [(1, 0, 0.9)] * 8
    page = write(tmp_path, judged(answers, classes=("first", "second", "never seen")))
    assert page.section("Accuracy by class").rows() == [
        ["second", "20.0%", "", "5.7–51.0%", "2 of 10", "first (8)"],
        ["first", "90.0%", "", "78.6–95.7%", "45 of 50", "second (5)"],
    ]
    assert "1 class without validation images left out." in page.text


def test_a_run_without_mistakes_says_so(tmp_path: Path) -> None:
    page = write(tmp_path, judged([(0, 0, 0.9), (1, 1, 0.9)], classes=("a", "b")), metrics=[evaluated(2, epoch=1)])
    assert "No image was mistaken." in page.text
    assert page.count("rect", "right") == 2
    assert page.count("rect", "wrong") == 0
    many = judged([(0, 0, 0.9), (1, 1, 0.9)], classes=tuple(map(str, range(100))))
    assert "nothing to show" in write(tmp_path, many).text


def test_single_points_of_a_short_run_are_visible(tmp_path: Path) -> None:
    config = TrainConfig(schedule=ScheduleOptions(epochs=1))
    evaluation = judged([(0, 0, 0.9)], classes=("a", "b"))
    page = write(tmp_path, evaluation, metrics=[step(1, epoch=0.5), evaluated(2, epoch=1)], config=config)
    assert page.count("svg", "chart") == 4
    assert len(page.points) == 5  # two of the loss, one of each of the others
    assert page.count("circle", "ring") == 1
    assert not [line for chart in page.all("svg", "chart") for line in chart.all("path", "line")]


def test_a_run_too_short_for_a_logged_step_has_no_empty_charts(tmp_path: Path) -> None:
    page = write(tmp_path, judged([(0, 0, 0.9)], classes=("a", "b")), metrics=[evaluated(2, epoch=1)])
    assert page.count("svg", "chart") == 2
    assert "No training step was logged" in page.text


def drawn(page: Page) -> list[dict[str, str]]:
    return [line.attributes for line in page.section("Course").all("path")]


def test_lines_that_a_continued_run_wrote_twice_count_once(tmp_path: Path) -> None:
    evaluation = judged([(0, 0, 0.9)], classes=("a", "b"))
    once = [step(1, epoch=0.0, loss=3.0), step(2, epoch=0.5), evaluated(2, epoch=1), step(3, epoch=1.0)]
    first = write(tmp_path, evaluation, metrics=once)
    twice = write(tmp_path, evaluation, metrics=[once[0], step(2, epoch=0.5, loss=9.0), once[3], once[1], *once[2:]])
    assert drawn(twice) == drawn(first)


def test_the_page_of_a_thousand_classes_is_bounded_and_says_what_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.effect_noise((400, 400), 90).save(path)
    answers = [(c, (c + k % 2 * (1 + c % 7)) % 1000, 0.5) for c in range(1000) for k in range(10)]
    evaluation = judged(answers, classes=tuple(f"class {c} " + "x" * 60 for c in range(1000)), paths=[path] * 10_000)
    metrics = [step(number, epoch=number / 100) for number in range(20_000)]
    page = write(tmp_path, evaluation, metrics=metrics, config=TrainConfig(schedule=ScheduleOptions(epochs=200)))
    assert len(page.source) < 1_500_000
    assert len(page.images) <= MAX_PAIRS * MAX_THUMBNAILS
    assert len(page.section("Accuracy").rows()) == MAX_ROWS
    for part in (
        "900 more classes left out, with accuracies from 50.0% to 50.0%.",
        "988 more pairs, of 4,940 images, left out.",
        "Of 1,000 classes the",
        "means of 84 logged steps",
    ):
        assert part in page.text


def test_a_page_is_written_without_what_other_files_would_say(tmp_path: Path) -> None:
    RunFolder(tmp_path).about.write_text("{cut sho")
    page = write(tmp_path, judged([(0, 0, 0.9)], classes=("a",)))
    assert "Parameters" not in page.text
    assert "Top-1" in page.text


def test_long_names_are_cut_by_their_width() -> None:
    assert shorten("a" * 20) == "a" * 20
    assert shorten("a" * 21) == "a" * 19 + "…"
    assert shorten("猫" * 20) == "猫" * 9 + "…"
