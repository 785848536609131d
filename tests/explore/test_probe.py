from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import Ridge

from vision_longformer import VisionLongformer
from vision_longformer.datasets.classification import read_split
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.explore import probe
from vision_longformer.images import ImageError
from vision_longformer.variants import CONFIGS

CPU = torch.device("cpu")
SETUP = EvaluationSetup(batch_size=3, workers=0, device=CPU)


def _clouds(each: int, *, classes: int = 3, features: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(each)
    centres = 4 * torch.eye(features)[:classes]
    return centres[labels] + torch.randn(len(labels), features, generator=generator), labels


def test_a_linear_probe_is_the_ridge_of_standardised_features() -> None:
    features, labels = _clouds(20)
    features = 3 * features + 11

    found = probe.fit(features, labels, classes=3)

    standardised = (features.double() - features.double().mean(0)) / features.double().std(0)
    targets = torch.nn.functional.one_hot(labels, 3).double()
    candidates = [
        torch.from_numpy(Ridge(alpha).fit(standardised.numpy(), targets.numpy()).predict(standardised.numpy()))
        for alpha in probe.STRENGTHS
    ]
    assert min(float((found(features) - candidate).abs().max()) for candidate in candidates) < 1e-4


def test_both_measures_tell_clouds_apart_that_lie_apart_and_no_others() -> None:
    features, labels = _clouds(30)
    noise = torch.randn(90, 7, generator=torch.Generator().manual_seed(1))

    for given, lowest, highest in ((features, 0.9, 1.0), (noise, 0.1, 0.6)):
        scores = probe.judge(given, labels, list(probe.in_folds(labels)), classes=3)
        for found in (scores.neighbours, scores.linear):
            assert lowest <= float((found.argmax(1) == scores.truth).double().mean()) <= highest


def test_neighbours_vote_by_cosine_similarity() -> None:
    known = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [-0.9, -0.1]])

    votes = probe.nearest(known, torch.tensor([0, 0, 1, 1]), torch.tensor([[5.0, 0.1], [-0.2, 0.0]]), classes=2)

    assert votes.argmax(1).tolist() == [0, 1]


def test_folds_hold_every_image_once_and_every_class_evenly() -> None:
    labels = torch.tensor([0] * 10 + [1] * 15)

    folds = list(probe.in_folds(labels))

    assert sorted(int(n) for _, asked in folds for n in asked) == list(range(25))
    for known, asked in folds:
        assert not set(known.tolist()) & set(asked.tolist())
        assert torch.bincount(labels[asked]).tolist() == [2, 3]


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="all images are of one class: a probe needs two"):
        probe.fit(torch.randn(5, 3), torch.zeros(5, dtype=torch.long), classes=1)


def test_images_come_as_squares_and_in_their_order(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b") * 4):
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((20, 31, 3), 30 * number, np.uint8)
        pixels[:, :5], pixels[:, -5:] = 255, 255  # beside the square at the centre
        Image.fromarray(pixels).save(folder / f"{number}.png")
    samples = read_split(tmp_path, "train")

    found = probe.embed(samples, probe.colours, SETUP, size=16)

    assert found.shape == (8, 3 * 64)
    expected = torch.tensor([30 * int(path.stem) / 255 for path in samples.paths])
    torch.testing.assert_close(
        found, expected[:, None].expand(-1, 192), rtol=0, atol=0.01
    )  # resizing looks a little beyond


def test_features_are_those_that_the_classifier_sees() -> None:
    model = VisionLongformer(CONFIGS["vision_longformer_nano"]).eval()
    images = torch.rand(2, 3, 40, 40)

    with torch.inference_mode():
        found = probe.pooled(model, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), device=CPU)(images)
        normalised = (images - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[
            :, None, None
        ]
        torch.testing.assert_close(model.head(found), model(normalised))


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "x.png").write_bytes(b"no picture")

    with pytest.raises(ImageError, match=r"x\.png"):
        probe.embed(read_split(tmp_path, "train"), probe.colours, SETUP, size=16)
