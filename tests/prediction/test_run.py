"""Runs over many images: nothing lost, nothing twice, nothing mixed."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import random
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pandas
import pytest
from PIL import Image

from prediction.cases import noise_image, write_weights
from prediction.run_cases import predict_all
from vision_longformer.images.find import find_images
from vision_longformer.prediction.journal import JournalError
from vision_longformer.prediction.predictor import PredictOptions, Predictor
from vision_longformer.prediction.run import Outcome, PredictionRun
from vision_longformer.training.trained import Trained
from vision_longformer.training.weight_files import load_weights

OUTPUTS = ("geojson", "labels", "csv", "coco", "parquet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return load_weights(write_weights(tmp_path_factory.mktemp("weights") / "x.safetensors", "instance_segmentation"))


@pytest.fixture(scope="module")
def semantic(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return load_weights(write_weights(tmp_path_factory.mktemp("weights") / "x.safetensors", "semantic_segmentation"))


def write_images(folder: Path, names: tuple[str, ...] = ("a/1.png", "b/1.png", "b/1.tif")) -> Path:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise_image(24, 40, seed=seed)).save(folder / name)
    return folder


def predict(
    trained: Trained,
    images: Path,
    output: Path,
    *,
    outputs: tuple[str, ...] = OUTPUTS,
    min_score: float | None = 0.3,
    pictures: bool = True,
    stop_after: int | None = None,
) -> list[Outcome]:
    predictor = Predictor(trained, PredictOptions(min_score=min_score))
    sources = find_images([str(images)])
    finished: list[Outcome] = []
    with (
        contextlib.suppress(KeyboardInterrupt),
        PredictionRun(output, predictor, root=images, outputs=outputs, pictures=pictures) as run,
    ):
        for outcome in run.predict(sources, on_band=lambda source, share, pixels: None):
            finished.append(outcome)
            if len(finished) == stop_after:
                raise KeyboardInterrupt
    return finished


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return all files of a run, but for the times that its journal notes."""
    found: dict[str, bytes | None] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.is_relative_to(folder / "journal") and path.suffix == ".json":
            data = json.dumps({**json.loads(data), "seconds": 0}).encode()
        found[path.relative_to(folder).as_posix()] = data
    return found


def test_equal_names_stay_apart(trained: Trained, tmp_path: Path) -> None:
    finished = predict(trained, write_images(tmp_path / "in"), tmp_path / "out")
    assert [outcome.status for outcome in finished] == ["predicted"] * 3
    names = ["a/1.png", "b/1.png", "b/1.tif"]
    for folder, suffix in (("geojson", ".geojson"), ("labels", ".tif"), ("pictures", ".jpg"), ("journal", ".json")):
        files = (tmp_path / "out" / folder).rglob(f"*{suffix}")
        assert sorted(path.relative_to(tmp_path / "out" / folder).as_posix() for path in files) == [
            f"{name}{suffix}" for name in names
        ]
    objects = pandas.read_csv(tmp_path / "out/objects.csv")
    counts = {source.source.name: sum(source.found) for source in finished}
    assert objects["image"].value_counts().to_dict() == counts
    images = pandas.read_csv(tmp_path / "out/images.csv")
    assert images["objects"].tolist() == list(counts.values())
    assert (images["count cell"] + images["count =1+1"] + images["count unused"]).tolist() == list(counts.values())
    parquet = pandas.read_parquet(tmp_path / "out/objects.parquet")
    assert parquet["class"].str.lstrip("'").tolist() == objects["class"].str.lstrip("'").tolist()
    entries = json.loads((tmp_path / "out/results.json").read_text())
    assert {entry["image_id"] for entry in entries} == {1, 2, 3}
    assert len(entries) == len(objects)


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_run_goes_on_after_a_stop_and_has_tables_of_what_is_done(
    trained: Trained, stop_after: int, tmp_path: Path
) -> None:
    images = write_images(tmp_path / "in")
    predict(trained, images, tmp_path / "whole")
    predict(trained, images, tmp_path / "out", stop_after=stop_after)
    assert len(pandas.read_csv(tmp_path / "out/images.csv")) == stop_after
    finished = predict(trained, images, tmp_path / "out")
    assert [outcome.status for outcome in finished] == ["skipped"] * stop_after + ["predicted"] * (3 - stop_after)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_changes_is_done_again(trained: Trained, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in")
    predict(trained, images, tmp_path / "out")
    before = contents(tmp_path / "out")
    Image.fromarray(noise_image(30, 50, seed=9)).save(images / "b/1.png")
    finished = predict(trained, images, tmp_path / "out")
    assert [outcome.status for outcome in finished] == ["skipped", "predicted", "skipped"]
    after = contents(tmp_path / "out")
    changed = {name for name in after if after[name] != before[name]}
    assert changed >= {"geojson/b/1.png.geojson", "objects.csv", "results.json"}
    assert not any("a/1.png" in name for name in changed)


def test_formats_that_come_later_are_made_of_what_is_known(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_images(tmp_path / "in")
    predict(trained, images, tmp_path / "whole")
    predict(trained, images, tmp_path / "out", outputs=("csv",), pictures=False)
    monkeypatch.setattr(Predictor, "predict", None)
    finished = predict(trained, images, tmp_path / "out")
    assert [outcome.status for outcome in finished] == ["skipped"] * 3
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_label_image_that_is_gone_is_made_again(semantic: Trained, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in")
    predict(semantic, images, tmp_path / "out", outputs=("labels", "csv"), min_score=None)
    before = contents(tmp_path / "out")
    (tmp_path / "out/labels/b/1.png.png").unlink()
    finished = predict(semantic, images, tmp_path / "out", outputs=("labels", "csv"), min_score=None)
    assert [outcome.status for outcome in finished] == ["skipped", "predicted", "skipped"]
    assert contents(tmp_path / "out") == before
    classes = pandas.read_csv(tmp_path / "out/classes.csv")
    assert classes.groupby("image")["area_px"].sum().tolist() == [24 * 40] * 3
    shares = pandas.read_csv(tmp_path / "out/images.csv")[["share cell", "share =1+1", "share unused"]]
    assert shares.sum(axis=1).tolist() == pytest.approx([1, 1, 1])


def test_another_run_is_refused(trained: Trained, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in")
    predict(trained, images, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(JournalError, match=r"out: holds results of another run \(min score was 0.3 and is 0.4\)"):
        predict(trained, images, tmp_path / "out", min_score=0.4)
    others = write_images(tmp_path / "others")
    with pytest.raises(JournalError, match=rf"images was {images} and is {others}"):
        predict(trained, others, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_one_process_at_a_time(trained: Trained, tmp_path: Path) -> None:
    def run() -> PredictionRun:
        return PredictionRun(tmp_path, Predictor(trained), root=tmp_path, outputs=("csv",))

    with run(), pytest.raises(JournalError, match="another run is writing its results there"), run():
        pass
    with run():
        pass


def test_a_damaged_description_is_named(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(JournalError, match=r"run\.json: is damaged, or of another program"):
        predict(trained, write_images(tmp_path / "in"), tmp_path)


def test_what_fails_is_told_and_tried_again(trained: Trained, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in")
    whole = (images / "b/1.png").read_bytes()
    (images / "b/1.png").write_bytes(whole[:50])
    finished = predict(trained, images, tmp_path / "out")
    assert [outcome.status for outcome in finished] == ["predicted", "failed", "predicted"]
    assert "damaged" in finished[1].message
    table = pandas.read_csv(tmp_path / "out/images.csv")
    assert table["error"].notna().tolist() == [False, True, False]
    (images / "b/1.png").write_bytes(whole)
    assert [outcome.status for outcome in predict(trained, images, tmp_path / "out")][1] == "predicted"
    assert "error" not in pandas.read_csv(tmp_path / "out/images.csv").columns


@pytest.mark.process
@pytest.mark.parametrize(
    ("kills", "count"), [(3, 6), pytest.param(20, 40, marks=pytest.mark.long, id="20 kills over 40 images")]
)
def test_killed_runs_end_as_if_they_had_not_been(kills: int, count: int, trained: Trained, tmp_path: Path) -> None:
    """Each process is killed at some moment; the next one goes on, and the last may end."""
    weights = write_weights(tmp_path / "x.safetensors", "instance_segmentation")
    images = write_images(tmp_path / "in", tuple(f"{number % 3}/{number}.png" for number in range(count)))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["prediction.run_cases"])  # imported once for all processes

    def start(output: Path) -> ForkServerProcess:
        process = context.Process(target=predict_all, args=(weights, images, output, (*OUTPUTS, "gpkg", "zarr")))
        process.start()
        return process

    generator = random.Random(0)
    done = 0
    for _ in range(kills):
        process = start(tmp_path / "out")
        wait_until(lambda: entries(tmp_path / "out") > done or not process.is_alive())  # noqa: B023
        time.sleep(generator.uniform(0, 0.15))
        process.kill()
        process.join()
        done = entries(tmp_path / "out")
    for output in ("out", "undisturbed"):
        process = start(tmp_path / output)
        process.join()
        assert process.exitcode == 0
    assert comparable(tmp_path / "out") == comparable(tmp_path / "undisturbed")
    table = pandas.read_csv(tmp_path / "out/images.csv")
    assert (len(table), table["image"].is_unique) == (count, True)
    context.set_forkserver_preload(["__main__"])


def comparable(folder: Path) -> dict[str, bytes | None]:
    """Return what a run leaves: of GeoPackages, which note the time, the names."""
    return {name: None if name.endswith(".gpkg") else data for name, data in contents(folder).items()}


def entries(output: Path) -> int:
    return len(list((output / "journal").rglob("*.json")))


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.01)


def test_an_error_that_should_not_be_fails_one_image_and_asks_to_report_it(
    tmp_path: Path, semantic: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_images(tmp_path / "images")
    plain = Predictor.predict

    def broken(self: Predictor, path: Path, **options: Any) -> Any:
        if path.name == "1.tif":
            raise ZeroDivisionError("division by zero")
        return plain(self, path, **options)

    monkeypatch.setattr(Predictor, "predict", broken)
    finished = predict(semantic, images, tmp_path / "out", outputs=("csv",), min_score=None, pictures=False)
    assert [outcome.status for outcome in finished] == ["predicted", "predicted", "failed"]
    assert finished[2].message == "(internal error: ZeroDivisionError: division by zero; please report it)"
