"""How well a detector does on a split, by COCO's measures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from vision_longformer.datasets.coco import CocoSplit
from vision_longformer.datasets.dense_loaders import DenseBatch, DenseImages, Preprocessing
from vision_longformer.datasets.normalising import images_of
from vision_longformer.detection.boxes import Detections, FoundObjects
from vision_longformer.detection.missing import where_pixels_are
from vision_longformer.evaluation.coco import CocoScores, coco_results, evaluate
from vision_longformer.evaluation.detection_confusions import best_threshold, match
from vision_longformer.evaluation.flips import with_flips
from vision_longformer.evaluation.loop import EvaluationSetup, for_each_batch
from vision_longformer.masks.rle import soft_mask_to_rle
from vision_longformer.padding import Size


@dataclass(frozen=True, eq=False)
class DetectionResult:
    """What was found on a split, and how good it is.

    Attributes:
        split: The images and their annotations.
        found: On each image, by its place in the split.
        scores: COCO's measures.
    """

    split: CocoSplit
    found: dict[int, FoundObjects]
    scores: CocoScores

    @property
    def left_out(self) -> int:
        """Objects that were found beyond the model's limit for an image, on all images."""
        return sum(found.left_out for found in self.found.values())

    def metrics(self) -> dict[str, Any]:
        """Return "box_ap", "box_ap50" and so on, and "mask_ap" and so on where there are masks; None for undefined.

        "best_score" is the score above which objects have the best F1, and "best_f1" that; see `best`.
        """
        score, f1 = self.best or (None, None)
        return {**self.scores.metrics(), "best_f1": f1, "best_score": score}

    @cached_property
    def best(self) -> tuple[float, float] | None:
        """The score above which objects have the best F1, of boxes at IoU 0.5, and that F1; None if none is right.

        The score is rounded down to thousandths, so that what has it is not lost to rounding.
        """
        matchings = [match(self.split, image, self.found.get(image)) for image in range(len(self.split))]
        score = math.floor(best_threshold(matchings) * 1000) / 1000
        hits = sum(len(matching.hits(score)) for matching in matchings)
        wrong = sum(len(matching.false_alarms(score)) for matching in matchings)
        objects = sum(len(matching.places) for matching in matchings)
        return (score, 2 * hits / (hits + wrong + objects)) if hits else None


@torch.inference_mode()
def evaluate_detector(
    model: nn.Module, split: CocoSplit, preprocessing: Preprocessing, how: EvaluationSetup, *, max_pixels: int
) -> DetectionResult | None:
    """Detect objects on every image of a split, and compare them with its annotations.

    As in prediction, nothing is found where an image has no pixels.

    Args:
        model: RetinaNet or Mask R-CNN; put into evaluation mode.
        split: Its classes are the model's.
        preprocessing: See `dense_loaders`.
        how: Batches, the device, and the processes that share the work.
        max_pixels: Refuse larger images.

    Returns:
        None if `how.should_stop` said so in any process.

    Raises:
        ImageError: An image cannot be read.
    """
    seen: Any = with_flips(model.eval(), how.flips)
    images = DenseImages(split, None, preprocessing, max_pixels=max_pixels)
    own: dict[int, FoundObjects] = {}

    def take(batch: DenseBatch) -> None:
        with how.autocast():
            detections = seen.detect(images_of(batch, how.device), batch.sizes)
        for index, size, valid, found in zip(batch.indices, batch.sizes, batch.valid, detections, strict=True):
            own[index] = where_pixels_are(in_image(found, size, images.size(index)), valid)

    if not for_each_batch(images, how, take):
        return None
    everything: dict[int, FoundObjects] = {}
    for found in how.processes.gather(own):
        everything |= found
    with_masks = any(found.masks is not None for found in everything.values())
    scores = evaluate(split, coco_results(split, everything), masks=with_masks)
    return DetectionResult(split, everything, scores)


def in_image(detections: Detections, size: Size, image_size: Size) -> FoundObjects:
    """Return detections in the pixels of the image file.

    Args:
        detections: In an image of (height, width) `size`.
        size: What the image was resized to.
        image_size: (height, width) of the file.
    """
    factors = torch.tensor([image_size[1] / size[1], image_size[0] / size[0]] * 2, dtype=torch.float64)
    boxes = detections.boxes.double().cpu() * factors
    masks = None
    if detections.masks is not None:
        masks = [
            soft_mask_to_rle(mask.numpy(), box, size=image_size)
            for mask, box in zip(_on_cpu(detections.masks), boxes.tolist(), strict=True)
        ]
    scores, labels = _on_cpu(detections.scores), detections.labels.cpu()
    left_out = 0 if detections.left_out is None else detections.left_out.count()
    return FoundObjects(boxes.numpy(), scores.double().numpy(), labels.numpy(), masks, left_out)


def _on_cpu(values: Tensor) -> Tensor:
    return values.float().cpu()
