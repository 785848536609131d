"""COCO's measures of detections, by faster-coco-eval, and COCO's files of results.

Average precision (AP) is the mean over IoU thresholds 0.50, 0.55, ..., 0.95, over 101 recalls, and over classes, of at
most 100 detections of an image and class. It is a fraction. What pycocotools gives as -1, because there is nothing to
be found, is NaN here, but for the measures over all sizes and classes: these are then 0, as they are without any
detection, so that they can always be compared.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.problems import printable
from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.masks.rle import library, rle_area, segmentation_to_rle
from vision_longformer.utils.atomic_files import replacing

MAX_DETECTIONS = 100  # of an image and class
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # COCO's ranges of area


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """AP of boxes or of masks, as fractions.

    Attributes:
        ap: Over all IoU thresholds; `ap50` and `ap75` at one.
        small: Of objects of an area below 32² pixels; NaN without any, as `medium` and `large` (from 96² on).
        class_ap: Of each class, NaN for those without an object; `class_ap50` at IoU 0.5.
        recalls: (101,) the recalls that `precisions` stands at.
        precisions: (K, 101) best precision at IoU 0.5 for each class at each recall or a higher one; NaN for classes
            without an object.
        score_thresholds: (K, 101) the scores that reach these recalls; 0 where none does, NaN without an object.
    """

    ap: float
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float
    class_ap: tuple[float, ...]
    class_ap50: tuple[float, ...]
    recalls: NDArray[np.float64]
    precisions: NDArray[np.float64]
    score_thresholds: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CocoScores:
    """AP of a split.

    Attributes:
        classes: Names.
        box: Of boxes.
        mask: Of masks; None where there are none.
    """

    classes: tuple[str, ...]
    box: AveragePrecision
    mask: AveragePrecision | None

    def metrics(self) -> dict[str, float | None]:
        """Return "box_ap", "box_ap50", "box_ap75", "box_ap_small" and so on, and "mask_ap" and so on; None for NaN."""
        result: dict[str, float | None] = {}
        for kind, scores in (("box", self.box), ("mask", self.mask)):
            if scores is not None:
                named = {
                    "ap": scores.ap,
                    "ap50": scores.ap50,
                    "ap75": scores.ap75,
                    "ap_small": scores.small,
                    "ap_medium": scores.medium,
                    "ap_large": scores.large,
                }
                result |= {f"{kind}_{name}": None if math.isnan(value) else value for name, value in named.items()}
        return result


def coco_results(split: CocoSplit, detections: Mapping[int, FoundObjects]) -> list[dict[str, Any]]:
    """Return detections as entries of COCO's result files: with the file's ids, boxes as x, y, width, height.

    Args:
        split: The images.
        detections: By the image's place in the split. Those of a class that the annotation file lacks are left out:
            it has no id for them.
    """
    results = []
    for image in sorted(detections):
        found = detections[image]
        boxes = np.asarray(found.boxes, np.float64).reshape(-1, 4)
        boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        for place, (box, score, label) in enumerate(
            zip(boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        ):
            category = int(split.category_ids[label])
            if category < 0:
                continue
            entry: dict[str, Any] = {
                "image_id": int(split.image_ids[image]),
                "category_id": category,
                "bbox": box,
                "score": score,
            }
            if found.masks is not None:
                entry["segmentation"] = found.masks[place]
            results.append(entry)
    return results


def write_results(path: str | Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Write results as JSON, all of them or none."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(json.dumps(results, allow_nan=False), encoding="utf-8")


def evaluate(split: CocoSplit, results: Sequence[Mapping[str, Any]], *, masks: bool) -> CocoScores:
    """Compare results with the annotations of all images of a split.

    Args:
        split: The annotations.
        results: In COCO's form, as `coco_results` gives them.
        masks: Measure masks too.

    Raises:
        ValueError: A result is malformed, or points to an image that the split lacks; names it.
        ImportError: faster-coco-eval is not installed; says how to.
    """
    library()
    if masks and split.segmentations is None:
        raise ValueError(f"{split.file}: was read without masks; read_coco(..., with_masks=True) reads them")
    checked = _checked(split, results, masks=masks)
    return CocoScores(
        classes=split.classes,
        box=_average_precision(split, checked, "bbox"),
        mask=_average_precision(split, checked, "segm") if masks else None,
    )


# --- to and from the library ------------------------------------------------------------------------------------


def _checked(split: CocoSplit, results: Sequence[Mapping[str, Any]], *, masks: bool) -> list[dict[str, Any]]:
    """Return results with image and category numbers of ours in place of the file's ids, safe for compiled code."""
    # Equal scores are ranked by image id: numbers in the order of ids rank alike, and are small.
    numbers = {int(image_id): number + 1 for number, image_id in enumerate(np.sort(split.image_ids))}
    places = {int(image_id): place for place, image_id in enumerate(split.image_ids)}
    labels = {int(category_id): label for label, category_id in enumerate(split.category_ids)}
    checked = []
    for number, result in enumerate(results):
        where = f"result {number} (image {printable(result.get('image_id'))})"
        image_id, category_id = result.get("image_id"), result.get("category_id")
        box, score = result.get("bbox"), result.get("score")
        if type(image_id) is not int or image_id not in numbers:
            raise ValueError(f"{where}: {split.file} has no such image")
        if type(category_id) is not int or category_id not in labels or category_id < 0:
            raise ValueError(f"{where}: {split.file} has no category {printable(category_id)}")
        if not _are_numbers([score], 1) or not _are_numbers(box, 4):
            raise ValueError(
                f"{where}: has the score {printable(score)} and the bbox {printable(box)}, which are not numbers"
            )
        entry = {"image_id": numbers[image_id], "category_id": labels[category_id] + 1, "bbox": box, "score": score}
        if masks:
            entry["segmentation"] = _checked_mask(result.get("segmentation"), split.size(places[image_id]), where)
        checked.append(entry)
    return checked


def _are_numbers(values: Any, length: int) -> bool:
    if not isinstance(values, list | tuple) or len(values) != length:
        return False
    return all(type(number) in (int, float) and abs(number) < 1e15 for number in values)  # false for NaN


def _checked_mask(mask: Any, size: tuple[int, int], where: str) -> dict[str, Any]:
    if not isinstance(mask, dict) or mask.get("size") != list(size) or not isinstance(mask.get("counts"), str | bytes):
        raise ValueError(f"{where}: needs a mask of size {list(size)} in compressed run lengths")
    try:
        rle_area(mask)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    counts = mask["counts"]
    return {"size": list(size), "counts": counts.encode() if isinstance(counts, str) else counts}


def _ground_truth(split: CocoSplit, kind: str) -> dict[str, Any]:
    """Return the annotations as the library takes them, numbered from 1: it takes 0 for "none"."""
    numbers = np.empty(len(split), np.int64)
    numbers[np.argsort(split.image_ids)] = np.arange(1, len(split) + 1)
    images, annotations = [], []
    for image, number in enumerate(numbers.tolist()):
        height, width = split.size(image)
        images.append({"id": number, "height": height, "width": width})
        for place in split.annotations(image):
            entry = {
                "id": place + 1,
                "image_id": number,
                "category_id": int(split.labels[place]) + 1,
                "bbox": split.boxes_xywh[place].tolist(),
                "area": float(split.areas[place]),
                "iscrowd": int(split.is_crowd[place]),
            }
            if kind == "segm":
                assert split.segmentations is not None
                rle = segmentation_to_rle(split.segmentations, place, (height, width))
                entry["segmentation"] = {"size": rle["size"], "counts": rle["counts"].encode()}
            annotations.append(entry)
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(split.classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _average_precision(split: CocoSplit, results: Iterable[dict[str, Any]], kind: str) -> AveragePrecision:
    from faster_coco_eval import COCO, COCOeval_faster

    # With a box in a result, its area would decide which masks are small, medium and large.
    wanted = ("image_id", "category_id", "score", "bbox" if kind == "bbox" else "segmentation")
    found = [{name: result[name] for name in wanted} for result in results]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth = COCO(_ground_truth(split, kind))
        evaluation = COCOeval_faster(truth, truth.loadRes(found), iouType=kind)
        evaluation.evaluate()
        evaluation.accumulate()
    # (IoU thresholds, recalls, classes, ranges of area), of the largest number of detections; -1: nothing to be found
    precision = np.asarray(evaluation.eval["precision"])[..., -1]
    precision = np.where(precision < 0, np.nan, precision)
    score = np.asarray(evaluation.eval["scores"])[0, :, :, _ALL, -1]
    at_half = precision[0, :, :, _ALL]  # (recalls, classes)
    return AveragePrecision(
        ap=_mean_or_zero(precision[..., _ALL]),
        ap50=_mean_or_zero(at_half),
        ap75=_mean_or_zero(precision[5, ..., _ALL]),
        small=_mean(precision[..., _SMALL]),
        medium=_mean(precision[..., _MEDIUM]),
        large=_mean(precision[..., _LARGE]),
        class_ap=tuple(_mean(precision[:, :, label, _ALL]) for label in range(len(split.classes))),
        class_ap50=tuple(_mean(at_half[:, label]) for label in range(len(split.classes))),
        recalls=np.asarray(evaluation.params.recThrs, np.float64),
        precisions=at_half.T.copy(),
        score_thresholds=np.where(np.isnan(at_half), np.nan, score).T.copy(),
    )


def _mean(values: NDArray[np.float64]) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else math.nan


def _mean_or_zero(values: NDArray[np.float64]) -> float:
    mean = _mean(values)
    return 0.0 if math.isnan(mean) else mean
