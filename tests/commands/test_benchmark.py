"""The command `vil benchmark`, with the processes that it starts replaced: each takes seconds to begin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reports.pages import Page
from vil import main
from vision_longformer.benchmarking import benchmark as side_by_side

TINY = ("--models", "vision_longformer_nano", "resnet50", "xcit_tiny_12_p16_224", "--sizes", "32", "40x64")


@pytest.fixture
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "run_child", lambda *_, **__: {"peak_memory": 5_000_000})


def run(*arguments: object) -> int:
    return main(["benchmark", *(str(argument) for argument in arguments)])


@pytest.mark.slow
@pytest.mark.usefixtures("_no_processes")
def test_models_are_measured_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert run(*TINY, "--training", "--batch", 2, "--repeats", 1, "--threads", 1, "--output", output) == 0
    shown = capsys.readouterr()
    for words in (
        "Inference, 2 images of 32 × 32 pixels",
        "Training, 2 images of 40 × 64 pixels",
        "× is the time over that of vision_longformer_nano",
        "Note: xcit_tiny_12_p16_224 does not take images of 40×64 pixels",
        f"Look at {output / 'index.html'}.",
    ):
        assert words in " ".join(shown.out.split()), words
    assert "vil: inference at 32: memory of vision_longformer_nano" in shown.err.splitlines()

    stored = json.loads((output / "benchmark.json").read_text())
    assert [(row["mode"], row["status"]) for row in stored["rows"]] == [
        (mode, status)
        for mode in ("inference", "training")
        for status in ("measured", "measured", "measured", "measured", "measured", "refused")
    ]
    row = stored["rows"][0]
    assert row["images_per_second"] == pytest.approx(2 / row["seconds"][0])
    assert row["megapixels_per_second"] == pytest.approx(2 * 32 * 32 / 1e6 / row["seconds"][0])
    assert row["gflops"] == pytest.approx(2 * 2 * row["multiply_adds"] / row["seconds"][0] / 1e9)
    assert row["share_of_peak"] == pytest.approx(
        row["gflops"] / (2 * 2048**3 / row["product_seconds"][0] / 1e9), rel=1e-6
    )
    assert stored["machine"]["matrix_product_gflops"] > 0
    assert stored["published_top1"]["resnet50"]["top1"] == 80.4
    assert stored["published_top1"]["vision_longformer_nano"] is None
    assert stored["command"].startswith("vil benchmark --models vision_longformer_nano resnet50")
    assert "--training" in stored["command"]

    page = Page(output / "index.html")
    page.assert_self_contained()
    assert "https://arxiv.org/abs/2110.00476" in page.text
    assert page.count("figure") == 3
    assert page.count("svg", "panel") == 4  # time and memory of both modes
    assert page.count("svg", "small") == 2  # accuracy at both sizes
    for name in ("inference", "training", "accuracy"):
        assert Page(output / f"{name}.svg").count("g") == 2
    assert [row[0] for row in page.section("Inference, 2 images of 32 × 32 pixels").rows()] == list(TINY[1:4])
