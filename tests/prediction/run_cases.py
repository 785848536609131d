"""A run of predictions in a process of its own, which a test may kill."""

from __future__ import annotations

from pathlib import Path

from vision_longformer.images.find import find_images
from vision_longformer.prediction.predictor import load_predictor
from vision_longformer.prediction.run import PredictionRun


def predict_all(weights: Path, images: Path, output: Path, outputs: tuple[str, ...]) -> None:
    """Predict all images of a folder into another."""
    predictor = load_predictor(weights, device="cpu", min_score=0.3)
    with PredictionRun(output, predictor, root=images, outputs=outputs) as run:
        for _ in run.predict(find_images([str(images)]), on_band=lambda source, share, pixels: None):
            pass
