"""`vil train`, `vil evaluate` and `vil predict`, from the command line to what they print and write."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from training.cases import CLASSES, make_csv, make_images, outcome, plain, recipe
from vil import main
from vision_longformer import VisionLongformer, create_model
from vision_longformer.training import checkpoints
from vision_longformer.training.classification_loss import Objective
from vision_longformer.training.recipes import write_recipe
from vision_longformer.training.sampler import Sampler
from vision_longformer.weights import save


class Shown:
    """What a command showed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in err

    @property
    def sentence(self) -> str:
        """The one line of standard error."""
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("vil: ")
        return self.err


class Terminal:
    """Runs commands."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.data, self.output, self.recipe = folder / "data", folder / "run", folder / "recipe.yaml"
        make_images(self.data, train=3, val=2)
        self.recipe.write_text(write_recipe(plain(schedule={"epochs": 1}, compute={"batch_size": 5})))

    def vil(self, *arguments: object) -> Shown:
        self.capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Shown(code, *self.capsys.readouterr())

    def train(self, *options: object, data: Path | None = None, output: Path | None = None) -> Shown:
        places = ("--recipe", self.recipe, "--data", data or self.data, "--output", output or self.output)
        return self.vil("train", *places, *options)


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path, capsys)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("finished")
    make_images(folder / "data", train=3, val=2)
    (folder / "recipe.yaml").write_text(write_recipe(recipe(schedule={"epochs": 1})))
    assert main(["train", f"--recipe={folder}/recipe.yaml", f"--data={folder}/data", f"--output={folder}/run"]) == 0
    return folder


# --- training ---------------------------------------------------------------------------------------------------


def test_training_says_what_it_does_and_what_came_of_it(terminal: Terminal) -> None:
    shown = terminal.train()
    assert shown.code == 0
    assert shown.err.startswith("Training: 9 images of 3 classes, 2 steps of 2 an epoch, ")
    assert "epoch 1: top-1 " in shown.err
    assert shown.out.startswith("Finished: ")
    assert f"{terminal.output}/best.safetensors" in shown.out
    names = {entry.name for entry in terminal.output.iterdir()}
    assert {"recipe.yaml", "run.json", "last.safetensors", "best.safetensors", "metrics.jsonl", "report.html"} <= names
    about = json.loads((terminal.output / "run.json").read_text())
    assert about["classes"] == list(CLASSES)
    assert about["versions"]["torch"] == torch.__version__
    again = terminal.train()
    assert again.code == 0
    assert again.err.startswith("Continuing after step 2: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--schedule.epoch=3"], "did you mean --schedule.epochs?"),
        (["--schedule.epochs=0"], "schedule.epochs=0: must be at least 1"),
        (["--schedule.epochs=many"], "schedule.epochs='many': must be a whole number"),
        (["--model.name=vision_longformer_nono"], "did you mean 'vision_longformer_nano'"),
        (["--model.checkpoint=nothing.safetensors"], "nothing.safetensors: no such file"),
        (["--compute.device=cuda:77"], "device 'cuda:77' is not available"),
        (["--recipe=nothing.yaml"], "nothing.yaml: no such recipe"),
        (["--data=nothing"], "nothing: no such folder or CSV file"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_with_one_sentence(
    options: list[str], message: str, terminal: Terminal
) -> None:
    shown = terminal.train(*options)
    assert shown.code == 2
    assert message in shown.sentence
    assert not terminal.output.exists()


def spoil(terminal: Terminal, what: str) -> tuple[Path, str]:
    """Make the data unfit; return them, and what is to be said."""
    data = terminal.data
    path = data / "list.csv"
    rows = [(f"{split}/{name}/0.png", name, split) for split in ("train", "val") for name in CLASSES]
    match what:
        case "empty class folder":
            (data / "train" / "violet").mkdir()
            message = f"{data}/train/violet: no image in this class folder"
        case "no val folder":
            shutil.rmtree(data / "val")
            message = f"{data}/val: no such folder"
        case "class that only val has":
            (data / "val" / "red").rename(data / "val" / "violet")
            message = "split 'val' has violet, which the model's 3 classes do not include (blue, green, red)"
        case "broken image":
            (data / "val" / "red" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
            message = f"{data}/val/red/1.png: "
        case "missing column":
            data, message = make_csv(path, rows, ("path", "name", "split")), "lacks the column label"
        case "unknown label in val":
            data = make_csv(path, [*rows, ("val/red/1.png", "violet", "val")])
            message = "split 'val' has violet"
        case "missing file":
            data = make_csv(path, [*rows, ("train/red/77.png", "red", "train")])
            message = "77.png: no such file"
        case "empty cell":
            data = make_csv(path, [*rows, ("train/red/1.png", "", "train")])
            message = "line 8: path, label and split must all"
        case _:
            raise AssertionError(what)
    return data, message


UNFIT = (
    "empty class folder",
    "no val folder",
    "class that only val has",
    "broken image",
    "missing column",
    "unknown label in val",
    "missing file",
    "empty cell",
)


@pytest.mark.parametrize("what", UNFIT)
def test_data_that_do_not_fit_are_refused_before_training(what: str, terminal: Terminal) -> None:
    data, message = spoil(terminal, what)
    shown = terminal.train("--input.check=auto", data=data)
    assert shown.code == 2
    assert message in shown.sentence
    assert not terminal.output.exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_while_training_stops_it_and_the_last_checkpoint_is_kept(
    workers: int, terminal: Terminal
) -> None:
    more = (f"--compute.workers={workers}", "--logging.checkpoint_minutes=1e-9", "--schedule.epochs=1")
    broken = terminal.data / "train" / "red" / "1.png"
    whole = broken.read_bytes()
    # The order of an epoch decides which step meets it: all images of the second step break.
    second = Sampler(9, 5, 1, 0, 1, 0, 1).step(1)
    paths = sorted((terminal.data / "train").rglob("*.png"))
    contents = {paths[key.image]: paths[key.image].read_bytes() for key in second}
    for path in contents:
        path.write_bytes(whole[:50])
    shown = terminal.train(*more)
    assert shown.code == 1
    last = shown.err.splitlines()[-1]
    assert any(str(path) in last for path in contents)
    assert last.endswith("the last checkpoint is kept")
    assert checkpoints.read(terminal.output / "last.safetensors").progress.step == 1
    for path, content in contents.items():
        path.write_bytes(content)
    assert terminal.train(*more).code == 0


def test_an_image_that_breaks_before_evaluation_stops_the_run_which_is_saved(terminal: Terminal) -> None:
    broken = terminal.data / "val" / "red" / "1.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:50])
    shown = terminal.train()
    assert shown.code == 1
    last = shown.err.splitlines()[-1]
    assert str(broken) in last
    assert last.endswith("the run is saved, mend this and run the same command to continue")
    assert checkpoints.read(terminal.output / "last.safetensors").progress.step == 2
    broken.write_bytes(content)
    terminal.train()
    assert terminal.train(output=terminal.output.with_name("whole")).code == 0
    assert outcome(terminal.output) == outcome(terminal.output.with_name("whole"))


def test_a_loss_that_is_no_number_stops_training_and_names_step_and_files(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    original = Objective.__call__

    def later_not_a_number(self: Objective, *arguments: Any, **options: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return original(self, *arguments, **options) * (float("nan") if calls == 3 else 1)

    monkeypatch.setattr(Objective, "__call__", later_not_a_number)
    shown = terminal.train("--schedule.epochs=2")
    assert shown.code == 1
    last = shown.err.splitlines()[-1]
    assert last.startswith("vil: step 3: the loss is nan; training stopped, and ")
    assert last.count(str(terminal.data / "train")) == 5
    assert "Try a smaller optimizer.learning_rate" in last
    kept = checkpoints.read(terminal.output / "last.safetensors")
    assert kept.progress.step == 2
    assert all(tensor.isfinite().all() for tensor in kept.tensors.values())
    monkeypatch.undo()
    assert terminal.train("--schedule.epochs=2").code == 0


def test_weights_that_are_no_numbers_are_never_saved(terminal: Terminal) -> None:
    """A loss can still be a number when the step that follows from it spoils the weights."""
    options = ("--optimizer.learning_rate=1e38", "--optimizer.name=sgd", "--optimizer.momentum=0")
    more = ("--schedule.warmup_epochs=0", "--compute.batch_size=9", "--optimizer.weight_decay=1e3")
    shown = terminal.train(*options, *more, "--optimizer.clip_norm=null", "--optimizer.ema_decay=null")
    assert shown.code == 1
    last = shown.err.splitlines()[-1]
    assert last.startswith("vil: step 1: ")
    assert "training stopped, and nothing was saved" in last
    assert not list(terminal.output.glob("*.safetensors"))


def test_another_recipe_in_the_same_folder_is_refused_with_the_field(terminal: Terminal) -> None:
    assert terminal.train().code == 0
    shown = terminal.train("--optimizer.learning_rate=0.5")
    assert shown.code == 2
    assert "was begun with optimizer.learning_rate=0.01, not 0.5: repeat that to continue it" in shown.sentence
    assert terminal.train("--compute.workers=1", "--logging.every_steps=2", "--input.check=decode").code == 0


def test_a_refused_run_leaves_what_was_there_before(terminal: Terminal) -> None:
    terminal.output.mkdir()
    (terminal.output / "notes.txt").write_text("mine")
    assert terminal.train(data=terminal.data / "nothing").code == 2
    assert [path.name for path in terminal.output.iterdir()] == ["notes.txt"]
    deep = terminal.output.parent / "new" / "deep" / "run"
    assert terminal.train(data=terminal.data / "nothing", output=deep).code == 2
    assert not deep.parent.parent.exists()


def test_a_refused_continuation_leaves_the_run(terminal: Terminal) -> None:
    assert terminal.train().code == 0
    before = sorted(path.name for path in terminal.output.iterdir())
    assert terminal.train("--seed=9").code == 2
    assert sorted(path.name for path in terminal.output.iterdir()) == before


def test_other_training_images_are_refused(terminal: Terminal) -> None:
    assert terminal.train().code == 0
    shutil.copy(terminal.data / "train/red/0.png", terminal.data / "train/red/7.png")
    shown = terminal.train()
    assert shown.code == 2
    assert "the training images are not those that the run was begun with" in shown.sentence


def test_an_output_that_is_a_file_is_refused(terminal: Terminal) -> None:
    terminal.output.write_text("mine")
    shown = terminal.train()
    assert shown.code == 2
    assert "run: is a file; give a folder for the run" in shown.sentence
    assert terminal.output.read_text() == "mine"
    below = terminal.train(output=terminal.output / "below")
    assert below.code == 2
    assert "below" in below.sentence


# --- evaluating -------------------------------------------------------------------------------------------------


@pytest.fixture
def vil(capsys: pytest.CaptureFixture[str]) -> Callable[..., Shown]:
    def run(*arguments: object) -> Shown:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Shown(code, *capsys.readouterr())

    return run


def test_evaluation_repeats_what_training_found(finished: Path, tmp_path: Path, vil: Callable[..., Shown]) -> None:
    path = tmp_path / "metrics.json"
    shown = vil("evaluate", finished / "run/best.safetensors", "--data", finished / "data", "--json", path)
    assert shown.code == 0
    assert shown.err == ""
    lines = [json.loads(line) for line in (finished / "run/metrics.jsonl").read_text().splitlines()]
    (trained,) = (line for line in lines if "val_top1" in line)
    found = json.loads(path.read_text())
    assert found.keys() == {"top1", "top5", "loss", "images"}
    assert found["images"] == 6
    assert found["top1"] == trained["val_top1"]
    assert found["top5"] == trained["val_top5"] == 100
    assert found["loss"] == pytest.approx(trained["val_loss"], rel=1e-5)
    assert f"{found['top1']:.2f}" in shown.out


def test_half_precision_is_used_where_it_is_asked_for(
    finished: Path, tmp_path: Path, vil: Callable[..., Shown], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, seen = finished / "run/best.safetensors", list[torch.dtype]()
    linear = torch.nn.functional.linear

    def noted(*arguments: Any) -> torch.Tensor:
        out = linear(*arguments)
        seen.append(out.dtype)
        return out

    monkeypatch.setattr(torch.nn.functional, "linear", noted)
    for options, expected in (((), torch.float32), (("--precision", "bf16"), torch.bfloat16)):
        path, found = tmp_path / f"{expected}.json", []
        for command in (
            ("evaluate", weights, "--data", finished / "data"),
            ("predict", weights, finished / "data/val"),
        ):
            seen.clear()
            output = "--json" if command[0] == "evaluate" else "--output"
            form = () if command[0] == "evaluate" else ("--format", "json")
            assert vil(*command, output, path, *form, *options).code == 0
            assert set(seen) == {expected}
            found.append(json.loads(path.read_text()))
        total = sum(entry["probability"] for entry in found[1][0]["classes"])
        assert total == pytest.approx(1, abs=1e-6)  # softmax is in float32


def test_evaluation_of_train_and_of_a_csv(finished: Path, tmp_path: Path, vil: Callable[..., Shown]) -> None:
    data = make_csv(tmp_path / "list.csv", [(str(finished / "data/val/red/0.png"), "red", "test")])
    arguments = ("--data", data, "--split", "test", "--json", tmp_path / "a.json", "--workers", 0)
    assert vil("evaluate", finished / "run/best.safetensors", *arguments).code == 0
    assert json.loads((tmp_path / "a.json").read_text())["images"] == 1


def test_the_checkpoint_to_continue_from_is_not_the_one_to_use(finished: Path, vil: Callable[..., Shown]) -> None:
    last = finished / "run/last.safetensors"
    for command in (("evaluate", last, "--data", finished / "data"), ("predict", last, finished / "data/val")):
        shown = vil(*command)
        assert shown.code == 2
        assert "is a checkpoint to continue training from; the weights to use are in" in shown.sentence
        assert "run/best.safetensors" in shown.sentence


def test_evaluation_of_other_classes_is_refused(finished: Path, tmp_path: Path, vil: Callable[..., Shown]) -> None:
    data = make_images(tmp_path / "data", train=1, val=1, classes=("blue", "violet", "red"))
    shown = vil("evaluate", finished / "run/best.safetensors", "--data", data)
    assert shown.code == 2
    assert "has violet, which the model's 3 classes do not include (blue, green, red)" in shown.sentence


@pytest.mark.parametrize(("classes", "words"), [(7, "have 7 classes"), (2, "have 2 classes"), (0, "have no classes")])
def test_evaluation_of_unnamed_classes_needs_as_many(
    classes: int, words: str, finished: Path, tmp_path: Path, vil: Callable[..., Shown]
) -> None:
    model = create_model("vision_longformer_nano", num_classes=classes, img_size=32)
    assert isinstance(model, VisionLongformer)
    save(model, tmp_path / "x.safetensors")
    shown = vil("evaluate", tmp_path / "x.safetensors", "--data", finished / "data")
    assert shown.code == 2
    assert f"{words}, without names, and {finished}/data has 3" in shown.sentence


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size=0"], "--batch-size 0: must be at least 1"),
        (["--workers=-1"], "--workers -1: must not be negative"),
        (["--split=test"], "test: no such folder"),
        (["--device=tpu"], "device 'tpu' is not available"),
    ],
)
def test_evaluation_that_cannot_be_carried_out_is_refused(
    options: list[str], message: str, finished: Path, vil: Callable[..., Shown]
) -> None:
    shown = vil("evaluate", finished / "run/best.safetensors", "--data", finished / "data", *options)
    assert shown.code == 2
    assert message in shown.sentence


def test_evaluation_of_a_broken_image_names_it(finished: Path, tmp_path: Path, vil: Callable[..., Shown]) -> None:
    data = make_images(tmp_path / "data", train=1, val=1)
    (data / "val/green/0.png").write_text("no image")
    shown = vil("evaluate", finished / "run/best.safetensors", "--data", data, "--workers", 1)
    assert shown.code == 1
    assert "val/green/0.png: it is not an image that can be read" in shown.sentence


# --- predicting -------------------------------------------------------------------------------------------------


def test_predictions_as_a_table_as_json_and_as_csv(finished: Path, tmp_path: Path, vil: Callable[..., Shown]) -> None:
    images = [finished / "data/val/red/0.png", finished / "data/val/blue/1.png"]
    checkpoint = finished / "run/best.safetensors"
    table = vil("predict", checkpoint, *images, "--top", 1)
    assert table.code == 0
    assert table.err == ""
    found = json.loads(vil("predict", checkpoint, *images, "--format", "json").out)
    assert [entry["path"] for entry in found] == [str(path) for path in images]
    for entry in found:
        probabilities = [each["probability"] for each in entry["classes"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1)
        assert sorted(each["name"] for each in entry["classes"]) == list(CLASSES)
        best = entry["classes"][0]
        assert f"{best['probability']:.4f}" in table.out
    assert vil("predict", checkpoint, *images, "--format", "csv", "--output", tmp_path / "p.csv").out == ""
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["rank"]) for row in rows] == [(str(path), str(n)) for path in images for n in (1, 2, 3)]
    expected = [each for entry in found for each in entry["classes"]]
    assert [row["class"] for row in rows] == [each["name"] for each in expected]
    assert [float(row["probability"]) for row in rows] == pytest.approx([e["probability"] for e in expected], abs=1e-6)


def test_an_image_that_cannot_be_read_fails_alone(finished: Path, tmp_path: Path, vil: Callable[..., Shown]) -> None:
    (tmp_path / "a.png").write_text("no image")
    shutil.copy(finished / "data/val/red/0.png", tmp_path / "b.png")
    shown = vil("predict", finished / "run/best.safetensors", tmp_path, "--format", "json")
    assert shown.code == 1
    assert "failed: " in shown.sentence
    assert "a.png: it is not an image that can be read" in shown.sentence
    first, second = json.loads(shown.out)
    assert first["classes"] == []
    assert "not an image" in first["error"]
    assert len(second["classes"]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.png"], "nothing.png: there is no such file or folder"),
        (["{}", "--top=0"], "--top 0: must be at least 1"),
        (["{}", "--format=xml"], "xml"),
    ],
)
def test_predictions_that_cannot_be_made_are_refused(
    arguments: list[str], message: str, finished: Path, vil: Callable[..., Shown]
) -> None:
    image = str(finished / "data/val/red/0.png")
    shown = vil("predict", finished / "run/best.safetensors", *(a.replace("{}", image) for a in arguments))
    assert shown.code == 2
    assert message in shown.sentence


def test_a_file_that_is_no_checkpoint_is_refused(finished: Path, tmp_path: Path, vil: Callable[..., Shown]) -> None:
    (tmp_path / "x.safetensors").write_text("nothing of the kind")
    for checkpoint in (tmp_path / "x.safetensors", tmp_path / "y.safetensors"):
        shown = vil("predict", checkpoint, finished / "data/val")
        assert shown.code == 2
        assert str(checkpoint) in shown.sentence
