"""The pages of runs of dense prediction: each one file with its pictures inside, and nothing loaded from elsewhere."""

from __future__ import annotations

from vision_longformer.evaluation.detection import DetectionResult
from vision_longformer.evaluation.detection_confusions import NO_THRESHOLD, best_threshold, match
from vision_longformer.evaluation.iou import scores
from vision_longformer.evaluation.segmentation import SemanticResult
from vision_longformer.reports.dense_parts import DENSE_STYLE, dense_curves, lead
from vision_longformer.reports.detection_examples import examples
from vision_longformer.reports.detection_page import (
    class_section,
    count,
    kinds,
    measure_tiles,
    recall_section,
    size_section,
)
from vision_longformer.reports.semantic_page import class_table, confusion, semantic_examples, semantic_tiles
from vision_longformer.reports.training_parts import Course, counted, headline, page, read_about, recipe, training_tiles
from vision_longformer.training.checkpoints import Progress
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.run_folder import RunFolder

CHOSEN_ON_THESE = "The best epoch was chosen on these same images, which flatters the numbers a little."


def write_detection_report(folder: RunFolder, result: DetectionResult, config: TrainConfig, progress: Progress) -> None:
    """Write report.html of detection or of instance segmentation.

    Args:
        folder: Of the run; its metrics.jsonl and run.json are read.
        result: Of the best weights.
        config: Of the run.
        progress: At its end.

    Raises:
        OSError: The disk is full, or the place cannot be written; a previous report is as it was.
    """
    split, about = result.split, read_about(folder)
    matchings = [match(split, image, result.found.get(image)) for image in range(len(split))]
    threshold = best_threshold(matchings)
    counts = count(result, matchings, threshold)
    objects = int(counts.objects.sum())
    how = f"Detections with a score of {threshold:.2f} or more are shown: " + (
        "the threshold with the best F1 over the split."
        if any(len(matching.hits(threshold)) for matching in matchings)
        else f"{NO_THRESHOLD} was taken, as no detection is right."
    )
    measured = [kind for kind, _ in kinds(result)]
    measures = [
        (f"{kind.title()} AP", [(f"val_{kind}_{name}", name.upper()) for name in ("ap", "ap50", "ap75")])
        for kind in measured
    ]
    guide = (
        "Average precision as COCO has it, a fraction: the mean over recalls and classes, and AP over the IoU "
        f"thresholds 0.50, 0.55 to 0.95. {CHOSEN_ON_THESE}"
    )
    parts = [
        headline(
            lead(split.classes, split, config, about, on=f" with {counted(objects, 'object')}"),
            [*measure_tiles(result, progress.best_epoch, objects=objects), *training_tiles(progress, about)],
            guide,
        ),
        dense_curves(Course.of(folder.read_metrics()), measures, config, progress, best=f"val_{measured[0]}_ap"),
        class_section(result, counts, threshold),
        size_section(result, counts),
        recall_section(result, counts, threshold),
        examples(result, matchings, threshold, how, max_pixels=config.input.max_pixels),
        recipe(config, about),
    ]
    folder.write_text(folder.report, page(config.model.name, parts, style=DENSE_STYLE))


def write_semantic_report(folder: RunFolder, result: SemanticResult, config: TrainConfig, progress: Progress) -> None:
    """Write report.html of semantic segmentation; see `write_detection_report`."""
    about, measured = read_about(folder), scores(result.confusion)
    measures = [("Classes of pixels", [("val_miou", "mIoU"), ("val_pixel_accuracy", "pixel accuracy")])]
    guide = (
        "The IoU of a class is its pixels that were recognised over those that are of it or were taken for it; mIoU is "
        f"the mean over the classes that occur. Both are fractions. {CHOSEN_ON_THESE}"
    )
    parts = [
        headline(
            lead(result.classes, result.split, config, about, on=""),
            [*semantic_tiles(result, measured, progress.best_epoch), *training_tiles(progress, about)],
            guide,
        ),
        dense_curves(Course.of(folder.read_metrics()), measures, config, progress, best="val_miou"),
        class_table(result, measured),
        confusion(result),
        semantic_examples(result, max_pixels=config.input.max_pixels),
        recipe(config, about),
    ]
    folder.write_text(folder.report, page(config.model.name, parts, style=DENSE_STYLE))
