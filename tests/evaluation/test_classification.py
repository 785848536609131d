from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vision_longformer.datasets.classification import Samples
from vision_longformer.evaluation.classification import Evaluation, evaluate
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.utils.distributed import Processes

# Of six images: the number that the image holds, and its class.
LOGITS = [
    [3.0, 1.0, 0.0, -1.0, -2.0, -3.0],
    [0.0, 5.0, 1.0, 2.0, 3.0, 4.0],
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
    [5.0, 4.0, 3.0, 2.0, 1.0, 0.0],
    [1.0, 9.0, 1.5, 2.0, 2.5, 3.0],
    [7.0, 0.0, 1.0, 2.0, 3.0, 4.0],
]
LABELS = (0, 0, 1, 5, 1, 5)


class LookUp(nn.Module):
    """Gives the image whose red value is i row i of a table."""

    def __init__(self, rows: list[list[float]]) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(rows))

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        return self.rows[images[:, 0, 0, 0].long()]


def read(image: Image.Image) -> Tensor:
    return torch.full((3, 2, 2), float(image.getpixel((0, 0))[0]))  # type: ignore[index]


def a_split(folder: Path, labels: tuple[int, ...], classes: int) -> Samples:
    paths = tuple(folder / f"{number}.png" for number in range(len(labels)))
    for number, path in enumerate(paths):
        Image.new("RGB", (2, 2), (number, 9, 9)).save(path)
    return Samples(paths, labels, tuple(f"class {number}" for number in range(classes)))


def evaluated(samples: Samples, rows: list[list[float]], **options: Any) -> Evaluation | None:
    how: dict[str, Any] = {"batch_size": 4, "workers": 0, "device": torch.device("cpu")}
    return evaluate(LookUp(rows), samples, read, EvaluationSetup(**how | options), max_pixels=100)


@pytest.mark.parametrize("batch_size", [1, 4, 6, 100])
def test_figures_are_those_of_a_computation_by_hand(batch_size: int, tmp_path: Path) -> None:
    result = evaluated(a_split(tmp_path, LABELS, 6), LOGITS, batch_size=batch_size)
    assert result is not None
    # ranks of the true classes, from 1: 1, 6, 5, 6, 1, 2
    losses = [-torch.tensor(row).log_softmax(0)[label].item() for row, label in zip(LOGITS, LABELS, strict=True)]
    assert result.metrics() == pytest.approx({"top1": 100 * 2 / 6, "top5": 100 * 4 / 6, "loss": sum(losses) / 6})
    assert result.loss.tolist() == pytest.approx(losses)
    assert result.ranking[1].tolist() == [1, 5, 4, 3, 2]
    assert result.probability.tolist() == pytest.approx([torch.tensor(row).softmax(0).max().item() for row in LOGITS])
    confusion = torch.zeros(6, 6, dtype=torch.long)
    for true, predicted in ((0, 0), (0, 1), (1, 5), (5, 0), (1, 1), (5, 0)):
        confusion[true, predicted] += 1
    assert torch.equal(result.confusion(), confusion)


def test_with_fewer_than_five_classes_top_5_is_all_of_them(tmp_path: Path) -> None:
    result = evaluated(a_split(tmp_path, (0, 1, 2), 3), [[0.0, 1.0, 2.0]] * 3)
    assert result is not None
    assert result.metrics()["top1"] == pytest.approx(100 / 3)
    assert result.metrics()["top5"] == 100
    assert result.ranking.shape == (3, 3)
    assert result.confusion().tolist() == [[0, 0, 1]] * 3


def test_progress_adds_up_to_all_images(tmp_path: Path) -> None:
    told: list[int] = []
    evaluated(a_split(tmp_path, LABELS, 6), LOGITS, advance=told.append)
    assert told == [4, 2]


@pytest.mark.parametrize("batch", [1, 2])
def test_evaluation_stops_before_a_batch_and_has_no_result(batch: int, tmp_path: Path) -> None:
    told: list[int] = []
    stopped = evaluated(
        a_split(tmp_path, LABELS, 6), LOGITS, advance=told.append, should_stop=lambda: len(told) == batch - 1
    )
    assert stopped is None
    assert len(told) == batch - 1


@pytest.mark.parametrize("count", [2, 3, 4, 7])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_processes_see_every_image_once_and_ask_each_other_equally_often(
    count: int, batch_size: int, tmp_path: Path
) -> None:
    """Sums over processes are put together here; each must be asked for the same number of them."""

    class Apart(Processes):
        def sum(self, values: Tensor) -> Tensor:
            calls[self.rank].append("sum")
            return values

        def maximum(self, values: Tensor) -> Tensor:
            calls[self.rank].append("maximum")
            return values

    calls: list[list[str]] = [[] for _ in range(count)]
    samples = a_split(tmp_path, LABELS, 6)
    whole = evaluated(samples, LOGITS)
    shares = [evaluated(samples, LOGITS, batch_size=batch_size, processes=Apart(count, rank)) for rank in range(count)]
    assert whole is not None
    for name in ("ranking", "probability", "loss"):
        together = torch.stack([getattr(share, name) for share in shares]).sum(dim=0)
        assert torch.allclose(together, getattr(whole, name))
    assert all(own == calls[0] for own in calls)
