from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vision_longformer
from vil import main
from vision_longformer import VisionLongformer, create_model
from vision_longformer.commands import encode as encode_command
from vision_longformer.commands.options import COMMANDS, images
from vision_longformer.features.descriptions import read_metadata
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.formats import FORMATS, table
from vision_longformer.features.load import load_features
from vision_longformer.images import MAX_PIXELS
from vision_longformer.memory.plans import STRATEGIES
from vision_longformer.pretrained import shipped
from vision_longformer.published import family
from vision_longformer.weights import save

HEIGHT, WIDTH = 45, 77
NANO = "--model=vision_longformer_nano_ape"  # nano itself has weights


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    path = tmp_path / "x.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def encode(*arguments: object) -> int:
    return main(["encode", *(str(argument) for argument in arguments)])


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    assert text.startswith("vil: ")
    return text


def test_an_image_becomes_the_last_map_in_half_precision_and_a_report(
    photo: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(photo, "--output", output, NANO) == 0
    features = load_file(output / "x.png.safetensors")
    assert features["stage4"].shape == (256, 2, 3)
    assert features["stage4"].dtype == torch.float16
    assert features.keys() == {"stage4", "embedding"}
    shown = capsys.readouterr()
    assert shown.out.startswith("1 encoded (")
    assert str(output / "index.html") in shown.out
    assert "no trained weights" in one_line(shown.err)
    assert "no trained weights" in (output / "index.html").read_text()


def test_every_option_reaches_the_work(photo: Path, output: Path) -> None:
    what = ("--stages", 1, 3, "--dtype", "float32", "--max-side", 40, "--max-pixels", 4000)
    assert encode(photo, "--output", output, NANO, *what, "--device", "cpu", "--no-report", "--seed", 3) == 0
    torch.manual_seed(3)
    network = create_model("vision_longformer_nano_ape")
    assert isinstance(network, VisionLongformer)
    expected = Encoder(network, stages=[1, 3], max_side=40).encode(photo)
    features = load_file(output / "x.png.safetensors")
    assert torch.equal(features["stage1"], expected.maps[0])
    assert torch.equal(features["stage3"], expected.maps[1])
    assert not (output / "index.html").exists()


def test_untrained_runs_repeat_and_other_seeds_do_not(photo: Path, tmp_path: Path) -> None:
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert encode(photo, "--output", tmp_path / folder, NANO, "--no-report", "--seed", seed) == 0
    a, b, c = ((tmp_path / folder / "x.png.safetensors").read_bytes() for folder in "abc")
    assert a == b
    assert a != c


def test_the_seed_leaves_other_random_numbers_alone(photo: Path, output: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    encode(photo, "--output", output, NANO, "--no-report")
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_says_its_model(
    photo: Path, output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = create_model("vision_longformer_nano_ape", num_classes=3)
    assert isinstance(network, VisionLongformer)
    save(network, tmp_path / "weights.safetensors")
    assert encode(photo, "--output", output, "--checkpoint", tmp_path / "weights.safetensors") == 0
    assert capsys.readouterr().err == ""
    found = load_file(output / "x.png.safetensors")["stage4"]
    torch.testing.assert_close(found.float(), Encoder(network).encode(photo).maps[3], atol=2e-3, rtol=2e-3)


def test_a_second_run_has_nothing_to_do(photo: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encode(photo, "--output", output, NANO)
    capsys.readouterr()
    assert encode(photo, "--output", output, NANO) == 0
    assert capsys.readouterr().out.startswith("0 encoded, 1 done before.")
    assert encode(photo, "--output", output, NANO, "--seed", 1) == 0
    assert capsys.readouterr().out.startswith("1 encoded (")


def test_the_same_weights_by_another_path_are_done_before(
    photo: Path, output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo.parent)
    network = create_model("vision_longformer_nano_ape")
    assert isinstance(network, VisionLongformer)
    save(network, "weights.safetensors")
    encode(photo, "--output", output, "--checkpoint", "weights.safetensors", "--no-report")
    capsys.readouterr()
    assert encode(photo, "--output", output, "--checkpoint", "./weights.safetensors", "--no-report") == 0
    assert capsys.readouterr().out.startswith("0 encoded, 1 done before.")


def test_a_broken_image_gets_one_line_and_the_others_are_encoded(
    photo: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photo.parent / "a.png").write_text("not an image")
    assert encode(photo.parent, "--output", output, NANO) == 1
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if "warning" not in line]
    assert lines == [f"vil: failed: {photo.parent / 'a.png'}: it is not an image that can be read"]
    assert "1 encoded (" in shown.out
    assert "1 failed." in shown.out
    assert (output / "x.png.safetensors").exists()


def test_too_many_pixels_are_refused(photo: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert encode(photo, "--output", output, NANO, "--max-pixels", 1000) == 1
    assert "77×45 pixels by its header, more than the limit of 1,000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.png"], "none.png: there is no such file or folder"),
        (["."], "this folder holds no image"),
        (["x.png", "--model", "vision_longformer_tinny"], "did you mean 'vision_longformer_tiny'?"),
        (["x.png", "--checkpoint", "none.safetensors"], "none.safetensors: no such file"),
        (["x.png", "--checkpoint", "x.png"], "x.png"),
        (["x.png", NANO, "--stages", "5"], "there is no stage 5"),
        (["x.png", NANO, "--max-side", "0"], "max_side=0: must be at least 1"),
        (["x.png", NANO, "--level", "-1"], "level=-1: must be 0"),
        (["x.png", NANO, "--channels", "0", "x"], "--channels x: must be a whole number"),
        (["x.png", NANO, "--value-range", "0", "x"], "--value-range x: must be a number"),
        (["x.png", NANO, "--value-range", "5", "1"], "value_range=5, 1: must be two numbers, the lower one first"),
        (["x.png", NANO, "--value-range", "5"], "--value-range"),
        (
            ["x.png", NANO, "--level", "1", "--max-side", "9"],
            "--max-side goes with no option that says how images are read",
        ),
        (["x.png", NANO, "--device", "abacus"], "device 'abacus' is not available here"),
        (["x.png", "--dtype", "int8"], "int8"),
        (["x.png", "--format", "jpeg"], "jpeg"),
        (["x.png", "--batch", "0"], '--batch 0: must be a whole number, 1 or more, or "auto"'),
        (["x.png", "--shard", "0/4"], "shard 0/4: the first number must lie between 1 and the second"),
        (["x.png", "--shard", "third"], "'third' is no share: write which of how many, such as 3/16"),
        (["x.png", "--stages", "four"], "--stages four: must be a whole number"),
        (["x.png", "--max-side", "many"], "--max-side many: must be a whole number"),
        (["x.png", "--sages", "4"], "--sages"),
        ([], "IMAGES is missing (see vil encode --help)"),
    ],
)
def test_usage_errors_are_one_sentence(
    arguments: list[str],
    sentence: str,
    photo: Path,
    output: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = photo.parent
    if arguments == ["."]:
        folder = photo.parent / "empty"
        folder.mkdir()
    monkeypatch.chdir(folder)
    assert encode(*arguments, "--output", output) == 2
    assert sentence in one_line(capsys.readouterr().err)
    assert not output.exists()


@pytest.mark.parametrize("way", ["whole", "streamed"])
def test_channels_and_their_range_are_chosen(photo: Path, output: Path, way: str) -> None:
    """Five channels of signed values, three of which are those of a photograph."""
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(photo)
    stored = np.zeros((70, 90, 5), np.int16)
    stored[..., [3, 0, 4]] = pixels.astype(np.int16) * 10 - 500
    np.save(photo.with_name("y.npy"), stored)
    chosen = ["--channels", 3, 0, 4, "--value-range", -500, 2050]
    assert encode(photo, "--output", output, NANO, "--no-report") == 0
    assert encode(photo.with_name("y.npy"), "--output", output, NANO, *chosen, "--way", way) == 0
    expected, found = (load_file(output / f"{name}.safetensors") for name in ("x.png", "y.npy"))
    torch.testing.assert_close(found["embedding"].float(), expected["embedding"].float(), rtol=2**-9, atol=1e-4)


def test_a_level_that_is_not_there_is_a_sentence(photo: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert encode(photo, "--output", output, NANO, "--level", 2) == 1
    assert "it has a single level of resolution, and no number 2" in capsys.readouterr().err


def test_warnings_are_sentences(
    photo: Path, output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen_model(_arguments: object) -> None:
        warnings.warn("it is late", UserWarning, stacklevel=1)
        raise ValueError("and nothing was done")

    monkeypatch.setattr(encode_command, "chosen_model", chosen_model)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        encode(photo, "--output", output)
    assert capsys.readouterr().err.startswith("vil: warning: it is late\nvil: and nothing was done")


def test_features_can_be_written_as_zarr(photo: Path, output: Path) -> None:
    pytest.importorskip("zarr")
    assert encode(photo, "--output", output, NANO, "--stages", 3, "--format", "zarr") == 0
    found = load_features(output / f"{photo.name}.zarr")
    assert found.stages == (3,)
    assert found.metadata["encoded_size"] == [45, 77]


def test_a_package_that_a_format_needs_is_named(
    photo: Path, output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    for kind, extra in (("zarr", "zarr"), ("geotiff", "geo"), ("parquet", "parquet")):
        assert encode(photo, "--output", output, NANO, "--format", kind) == 2
        assert f"pip install 'vision-longformer[{extra}]'" in one_line(capsys.readouterr().err)
    assert not output.exists()


def test_a_photograph_is_no_geotiff(photo: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rasterio")
    assert encode(photo, "--output", output, NANO, "--format", "geotiff", "--no-report") == 1
    assert "it does not say where on earth it lies" in capsys.readouterr().err
    assert [entry.name for entry in output.iterdir()] == [".run"]


@pytest.mark.parametrize("argv", [[], ["sing"], ["encode"]])
def test_a_missing_or_unknown_command_is_one_sentence(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    one_line(capsys.readouterr().err)


def test_an_unwritable_output_is_one_sentence(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert encode(photo, "--output", photo, NANO) == 2
    assert "is a file; name a folder for the features" in capsys.readouterr().err.splitlines()[-1]


def test_interrupting_leaves_no_half_file(
    photo: Path, output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(table, "write_safetensors", interrupted)
    assert encode(photo, "--output", output, NANO) == 130
    assert "interrupted" in capsys.readouterr().err.splitlines()[-1]
    assert [entry.name for entry in output.iterdir()] == [".run"]


@pytest.mark.slow
def test_sigterm_ends_in_order_and_what_was_spilled_goes_on(photo: Path, tmp_path: Path) -> None:
    """Also if it comes twice."""
    program = (
        "import os, signal, sys\n"
        "import vil\n"
        "from vision_longformer.features import writer\n"
        "def stop(*arguments, **options):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    finally:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "writer.write_features = stop\n"
        "sys.exit(vil.main(sys.argv[1:]))\n"
    )
    command = ["encode", str(photo), "--output", str(tmp_path / "out"), NANO, "--way=spilled", "--no-report"]
    command += ["--format=safetensors"]
    stopped = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, check=False)
    assert (stopped.returncode, stopped.stdout) == (75, "")
    sentence = "vil: stopped by SIGTERM; what was finished is kept, and running again goes on from there"
    assert stopped.stderr.splitlines()[-1] == sentence
    assert "Traceback" not in stopped.stderr
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [".run", ".work"]
    assert main(command) == 0
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [".run", "x.png.safetensors"]


def test_sigterm_does_what_it_did_once_the_work_is_over(photo: Path, output: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert encode(photo, "--output", output, NANO) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_models_are_listed_with_their_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--size", "448", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    published = rows["vision_longformer_tiny_ape_full"]
    assert published["parameters"] == pytest.approx(6.7e6, rel=0.01)
    assert published["multiply_adds"]["224"] == pytest.approx(1.43e9, rel=0.01)
    assert (
        rows["vision_longformer_tiny"]["multiply_adds"]["448"] > rows["vision_longformer_tiny"]["multiply_adds"]["224"]
    )
    assert (published["top1_absolute"], published["top1_relative"]) == (76.3, 76.65)
    assert rows["vision_longformer_nano"]["top1_absolute"] is None


def test_the_table_of_models_fits_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("tiny", "medium_deep", "base_deep")  # with the widest cells
    shown = [f"vision_longformer_{name}{form}" for name in names for form in ("", "_ape_full")]
    monkeypatch.setattr(family, "list_models", lambda: shown)
    assert main(["models"]) == 0
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines())) <= 80
    for cell in ("tiny", "6.7", "33.6", "85.8", "76.30", "76.65", "86.11*", *shipped()):
        assert cell in table
    assert "…" not in table
    forms, sides = (line.split() for line in table.splitlines()[2:4])
    assert forms == ["MACs", "MACs", "_ape_full", "_ape_full"]
    assert sides == ["NAME", "params", *("at", "224", "at", "1024") * 2, "APE", "RPE"]
    assert main(["models", "--size", "0"]) == 2


def test_help_exits_well_and_python_m_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "--help"]) == 0
    assert "--max-side" in capsys.readouterr().out
    ran = subprocess.run([sys.executable, "-m", "vil", "--help"], check=True, capture_output=True, text=True)
    assert "encode" in ran.stdout


@pytest.mark.parametrize(
    ("argv", "code"),
    [("--help", 0), ("--version", 0), ("--wrong", 2), ("sing", 2), ("train --help", 0), ("train --seeds=1", 2)],
)
def test_what_needs_no_work_is_answered_without_the_package(argv: str, code: int) -> None:
    program = (
        "import resource, sys, vil\n"
        "code = vil.script()\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print([used.ru_utime + used.ru_stime, code, *({'torch', 'timm', 'numpy', 'rich'} & sys.modules.keys())])\n"
    )
    ran = subprocess.run([sys.executable, "-c", program, *argv.split()], check=True, capture_output=True, text=True)
    seconds, *others = ran.stdout.splitlines()[-1].strip("[]").split(", ")
    assert others == [str(code)]
    assert float(seconds) < 1


@pytest.mark.slow
def test_a_command_that_runs_has_the_whole_package() -> None:
    program = "import sys, vil; vil.script(); import timm; print(timm.is_model('vision_longformer_tiny'))"
    command = [sys.executable, "-c", program, "plan", "--size=0"]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ran.stdout == "True\n"
    assert one_line(ran.stderr).startswith("vil: --size 0: ")


def test_choices_are_those_of_the_rooms_that_have_them() -> None:
    assert ("auto", *FORMATS, "parquet") == images.FORMATS
    assert ("auto", *STRATEGIES) == images.WAYS
    assert COMMANDS["encode"]().get_defaults().max_pixels == COMMANDS["plan"]().get_defaults().max_pixels == MAX_PIXELS


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vil {vision_longformer.__version__}\n"


@pytest.mark.parametrize("argv", [["--version"], ["models"], ["models", "--json"]])
def test_a_reader_that_stops_early_is_no_cause_for_a_traceback(
    argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family, "list_models", lambda: ["vision_longformer_nano"])
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed_pipe:
        monkeypatch.setattr(sys, "stdout", closed_pipe)
        assert main(argv) == 1
        print("whatever Python still has to flush at exit", file=closed_pipe)
    monkeypatch.undo()
    assert capsys.readouterr().err == ""


def test_metadata_names_the_checkpoint_or_the_model(photo: Path, output: Path) -> None:
    encode(photo, "--output", output, NANO, "--no-report")
    metadata = read_metadata(output / "x.png.safetensors")
    assert metadata is not None
    assert metadata["model"] == "vision_longformer_nano_ape"
