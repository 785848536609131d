from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from reports.dense_cases import HEIGHT, WIDTH, A, Annotation, B, C, Detection, evaluated, found_on, make, step, write
from reports.pages import HOSTILE
from vision_longformer.datasets.options import InputOptions
from vision_longformer.evaluation.examples import SPREAD_IMAGES, WORST_IMAGES
from vision_longformer.training.config import ScheduleOptions, TrainConfig


def test_the_numbers_are_those_of_the_result(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0), (B, 1)], [(A, 0), (C, 1)], []])
    far = (0.0, 50.0, 9.0, 59.0)
    result = found_on(split, [[(A, 0, 0.9), (B, 1, 0.8)], [(far, 0, 0.95), (C, 1, 0.7)], []])
    page = write(tmp_path, result)
    box = result.scores.box
    for name, value in (("Box AP", box.ap), ("Box AP50", box.ap50), ("Box AP75", box.ap75)):
        assert page.tiles[name][0] == f"{value:.3f}"
    for part in (
        "1,402 images",
        "2.82 M",
        "1 h 12 min",
        "3 images with 4 objects",
        "side of 128 pixels",
        "best epoch 2",
    ):
        assert part in page.text
    assert page.section("Classes").rows() == [
        ["cat", "2", f"{box.class_ap[0]:.3f}", "", f"{box.class_ap50[0]:.3f}", "50.0%", "50.0%"],
        ["dog", "2", "1.000", "", "1.000", "100.0%", "100.0%"],
    ]
    assert "1 class without an object left out." in page.text
    assert page.section("Sizes").rows() == [
        ["small", "below 1,024", "4", f"{box.small:.3f}", "75.0%"],
        ["medium", "1,024 to 9,216", "0", "–", "–"],
        ["large", "from 9,216", "0", "–", "–"],
    ]
    assert "score of 0.70 or more are shown: the threshold with the best F1" in page.text
    assert page.count("svg", "square") == 2
    assert [page.count("g", kind) for kind in ("hit", "truth", "miss", "alarm")] == [3, 3, 1, 1]
    assert "1 of 2 objects found, 1 false alarm; F1\u00a00.50" in page.text
    captions = [caption.text for caption in page.section("Examples").all("figcaption")]
    assert captions[2] == "2.png 0 of 0 objects found, 0 false alarms"


def test_boxes_lie_where_they_are_in_the_image(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0)]])
    page = write(tmp_path, found_on(split, [[(B, 0, 0.9)]]))
    unit = 512 / WIDTH
    (drawing,) = [part.all("svg")[0] for part in page.all("div", "shot")]
    assert drawing["viewbox"] == f"0 0 512.0 {HEIGHT * unit:.1f}"
    for kind, (x1, y1, x2, y2) in (("miss", A), ("alarm", B)):
        (group,) = drawing.all("g", kind)
        for box in group.all("rect"):
            place = [float(box[name]) for name in ("x", "y", "width", "height")]
            assert place == [x1 * unit, y1 * unit, (x2 - x1) * unit, (y2 - y1) * unit]


def test_masks_are_measured_and_laid_over_the_images(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0), (B, 0)]])
    result = found_on(split, [[(A, 0, 0.9), (C, 0, 0.9)]], masks=True)
    page = write(tmp_path, result)
    assert result.scores.mask is not None
    assert page.tiles["Mask AP"][0] == f"{result.scores.mask.ap:.3f}"
    assert page.tiles["Box AP"][0] == f"{result.scores.box.ap:.3f}"
    assert [page.count("img", kind) for kind in ("truth", "hit", "alarm", "miss")] == [1, 1, 1, 1]
    assert page.count("g", "quiet") == 4  # no edges of boxes beside those of masks


def test_a_detector_that_finds_nothing_right_has_a_page(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0)], [(B, 1)]])
    cases: list[list[list[Detection]]] = [[[], []], [[(C, 0, 0.9)], []]]
    for detections in cases:
        page = write(tmp_path, found_on(split, detections))
        assert page.tiles["Box AP"][0] == "0.000"
        assert "0.5 was taken, as no detection is right." in page.text
        assert page.count("g", "miss") == 2
        assert page.count("g", "alarm") == len(detections[0])


def test_a_split_without_annotations_has_no_average_precision(tmp_path: Path) -> None:
    page = write(tmp_path, found_on(make(tmp_path, [[], []]), [[], [(A, 0, 0.9)]]))
    assert page.tiles["Box AP"][0] == "–"
    assert "No object is annotated in the split" in page.text
    assert page.count("svg", "square") == 0
    assert page.count("g", "alarm") == 1


def test_crowds_are_no_objects(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0), (B, 0)]], crowds=(1,))
    page = write(tmp_path, found_on(split, [[(A, 0, 0.9), (B, 0, 0.9)]]))
    assert "1 of 1 object found, 0 false alarms" in page.text


def test_a_single_class_needs_no_name_beside_its_boxes(tmp_path: Path) -> None:
    page = write(tmp_path, found_on(make(tmp_path, [[(A, 0)]], classes=("nucleus",)), [[(A, 0, 0.87)]]))
    (hit,) = page.all("g", "hit")
    assert [text.text for text in hit.all("text")] == ["0.87"]
    assert [title.text for title in hit.all("title")] == ["nucleus, found, score 0.87, overlap 1.00"]


def test_many_classes_are_listed_worst_first(tmp_path: Path) -> None:
    classes = tuple(f"class {number}" for number in range(80))
    split = make(tmp_path, [[(A, number), (B, number)] for number in range(0, 80)], classes=classes)
    detections: list[list[Detection]] = [[(A, n, 0.9), *([(B, n, 0.8)] if n != 41 else [])] for n in range(80)]
    page = write(tmp_path, found_on(split, detections))
    listed = page.section("Classes").rows()
    assert len(listed) == 80
    assert listed[0][0] == "class 41"
    assert page.count("svg", "square") == 24
    assert "56 better classes left out." in page.section("Precision").text


def test_names_are_shown_as_text(tmp_path: Path) -> None:
    boxes = [A, B, C, (60.0, 40.0, 79.0, 59.0)]
    split = make(tmp_path, [[(box, label) for label, box in enumerate(boxes)]], classes=HOSTILE)
    page = write(tmp_path, found_on(split, [[(box, (n + n // 2) % 4, 0.9) for n, box in enumerate(boxes)]]))
    page.assert_self_contained()
    assert [row[0] for row in page.section("Classes").rows()]
    for name in HOSTILE:
        assert name in page.text


@pytest.mark.parametrize("masks", [False, True])
def test_nothing_is_loaded_from_elsewhere(tmp_path: Path, masks: bool) -> None:
    page = write(tmp_path, found_on(make(tmp_path, [[(A, 0)]]), [[(A, 0, 0.9)]], masks=masks))
    assert page.images
    page.assert_self_contained()


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    split = make(tmp_path, [[(A, 0)]] * 4)
    result = found_on(split, [[(A, 0, 0.9)]] * 4)
    (tmp_path / "0.png").unlink()
    (tmp_path / "1.png").write_text("no image")
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(tmp_path / "2.png")
    page = write(tmp_path, result)
    assert [image["alt"] for image in page.images] == ["3.png"]
    assert "3 images could not be read any more." in page.text
    config = TrainConfig(input=InputOptions(max_pixels=100), schedule=ScheduleOptions(epochs=1))
    assert not write(tmp_path, result, config=config).images


def test_the_page_of_large_crowded_images_is_bounded(tmp_path: Path) -> None:
    size = (500, 640)
    boxes: list[Annotation] = [((x, y, x + 9.0, y + 8.0), 0) for x in range(0, 600, 40) for y in range(0, 480, 40)]
    split = make(tmp_path, [boxes] * 13, classes=("x" * 60,), size=size)
    own: list[Detection] = [((x1 + 1, y1, x2, y2), 0, 0.9) for (x1, y1, x2, y2), _ in boxes[::2]]
    page = write(tmp_path, found_on(split, [own] * 13))
    assert len(page.source) < 5_000_000
    assert len(page.images) == SPREAD_IMAGES + WORST_IMAGES
    assert "120 objects at the most are drawn" in page.text
    assert all(max(int(image["width"] or 0), int(image["height"] or 0)) <= 512 for image in page.images)


def test_the_course_shows_the_parts_of_the_loss_and_leaves_out_what_is_undefined(tmp_path: Path) -> None:
    metrics = [
        step(1, epoch=0.5, boxes=1.0, classification=1.0),
        evaluated(2, epoch=1, box_ap=0.2, box_ap50=None, box_ap75=0.1),
        step(3, epoch=1.5, boxes=0.5, classification=0.7),
        evaluated(4, epoch=2, box_ap=0.4, box_ap50=None, box_ap75=0.2),
    ]
    page = write(tmp_path, found_on(make(tmp_path, [[(A, 0)]]), [[]]), metrics=metrics)
    assert page.count("svg", "small") == 5  # loss, its parts, AP, learning rate, speed
    assert page.count("circle", "ring") == 1
    legends = [entry.text for entry in page.section("Course").all("span", "entry")]
    assert legends == ["boxes", "classification", "AP", "AP75"]
