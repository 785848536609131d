"""`--engine ray` on a cluster of this machine alone: results are those of one process, whoever is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from prediction.cases import write_weights
from vil import main
from vision_longformer import VisionLongformer, create_model, save
from vision_longformer.commands import predict_classes
from vision_longformer.commands.encode import begin_work
from vision_longformer.commands.on_ray import for_actors
from vision_longformer.commands.options import COMMANDS
from vision_longformer.engines import ray_data
from vision_longformer.engines.ray_data import EngineError, RayOptions, over_ray
from vision_longformer.features.results import Result
from vision_longformer.images.find import Source, find_images

ray = pytest.importorskip("ray")

pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("ignore")]
COUNT = 6
KILLED = "2.png"  # over which an actor dies, once it is written


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Start a cluster of two CPUs, which the tests share, and which is left without a trace."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        patch.setenv("RAY_worker_niceness", "0")  # else actors come last on a busy machine
        # Actors can't import this file: what they are given of it travels with its code.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        try:
            ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=2**27, log_to_driver=False)
        except Exception as error:  # for instance where processes may not talk to each other
            pytest.skip(f"Ray cannot start a cluster here: {error}")
        yield
        ray.shutdown()
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = generator.integers(0, 256, (40 + number, 33, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def alone(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the features of one process."""
    output = tmp_path_factory.mktemp("alone")
    assert main(arguments(pictures, output, "--batch", "1", "--no-report")) == 0
    return output


def arguments(pictures: Path, output: Path, *options: str) -> list[str]:
    return ["encode", str(pictures), "--output", str(output), "--device", "cpu", *options]


def files(output: Path) -> dict[str, tuple[int, int]]:
    """Return which features there are, and what changes where one is written again."""
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in output.glob("[!.]*.safetensors")}


def assert_as_alone(output: Path, alone: Path) -> None:
    assert files(output).keys() == files(alone).keys()
    assert not list(output.glob(".*.tmp*"))
    for name in files(alone):
        found, expected = load_file(output / name), load_file(alone / name)
        assert found.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in found.items())


def begin_and_die(typed: Sequence[str], folder: Path, sharing: int) -> Callable[[Sequence[Source]], Iterator[Result]]:
    """Begin as `vil encode` does; the first actor that has written `KILLED` dies before it can say so."""
    work = begin_work(COMMANDS["encode"]().parse_args(list(typed)), "nano", sharing)

    def mortal(sources: Sequence[Source]) -> Iterator[Result]:
        for result in work(sources):
            with (folder / "calls.txt").open("a") as calls:
                calls.write(f"{result.source.name} {result.status}\n")
            if result.source.name == KILLED and result.status == "encoded":
                os.kill(os.getpid(), signal.SIGKILL)
            yield result

    return mortal


def test_an_actor_that_is_killed_after_it_wrote_costs_a_skip(pictures: Path, alone: Path, tmp_path: Path) -> None:
    typed = arguments(pictures, tmp_path / "out", "--batch", "1")[1:]
    begin: Any = partial(begin_and_die, typed, tmp_path)
    results: list[Result] = list(over_ray(find_images([str(pictures)]), begin, RayOptions(actors=2)))
    assert {result.source.name: result.status for result in results} == {
        f"{number}.png": "skipped" if f"{number}.png" == KILLED else "encoded" for number in range(COUNT)
    }
    assert len(results) == COUNT
    assert_as_alone(tmp_path / "out", alone)
    calls = (tmp_path / "calls.txt").read_text().splitlines()
    assert sorted(line for line in calls if line.endswith(" encoded")) == [f"{n}.png encoded" for n in range(COUNT)]
    assert f"{KILLED} skipped" in calls


def begin_to_die(_sharing: int) -> Callable[[Sequence[Source]], Iterator[str]]:
    """Begin work that one of the images is too much for, each time."""

    def work(sources: Sequence[Source]) -> Iterator[str]:
        for source in sources:
            if source.name == KILLED:
                os.kill(os.getpid(), signal.SIGKILL)
            yield source.name

    return work


@pytest.mark.long
def test_actors_that_die_again_and_again_end_it_with_a_sentence(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_data, "TRIES", 2)
    with pytest.raises(EngineError, match="died 2 times, perhaps for want of memory; what was finished is kept"):
        list(over_ray(find_images([str(pictures)]), begin_to_die, RayOptions(actors=1)))


class OnlyHere:
    """Begins work with code that the machines of the cluster do not have."""

    def __call__(self, _sharing: int) -> Callable[[Sequence[Source]], Iterator[str]]:
        raise AssertionError("it cannot arrive")

    def __reduce__(self) -> tuple[Any, ...]:
        return import_module, ("only_on_this_machine",)


def test_actors_that_lack_what_they_need_are_named_as_such(pictures: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot begin .*No module named 'only_on_this_machine'"):
        list(over_ray(find_images([str(pictures)]), OnlyHere(), RayOptions(actors=1)))


def test_predictions_are_those_of_one_process(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path / "weights.safetensors", "semantic_segmentation")
    (tmp_path / "in").mkdir()
    for name in ("0.png", "1.png"):
        shutil.copy(pictures / name, tmp_path / "in")
    (tmp_path / "in" / "bad.png").write_bytes(b"no image")
    typed = ["predict", str(tmp_path / "in"), "--checkpoint", str(weights), "--device", "cpu", "--no-pictures"]
    for name, options in (("alone", ()), ("ray", ("--engine", "ray", "--actors", "1"))):
        assert main([*typed, "--output", str(tmp_path / name), *options]) == 1
        said = capsys.readouterr()
        assert "2 predicted, 1 failed." in said.out
        assert "bad.png: it is not an image" in said.err
    for name in ("labels/0.png.png", "labels/1.png.png", "classes.csv", "images.csv"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    assert main([*typed, "--output", str(tmp_path / "ray")]) == 1
    assert "0 predicted, 2 done before, 1 failed." in capsys.readouterr().out


def test_an_actor_names_the_classes_of_its_images(pictures: Path, tmp_path: Path) -> None:
    model = create_model("vision_longformer_nano", num_classes=3).eval()
    assert isinstance(model, VisionLongformer)
    save(model, tmp_path / "weights.safetensors")
    typed = [str(pictures), "--checkpoint", str(tmp_path / "weights.safetensors"), "--size", "32", "--device", "cpu"]
    sources = find_images([str(pictures)])
    arguments = for_actors(COMMANDS["predict"]().parse_args(typed))
    found = list(predict_classes.begin_work(arguments, 2, 1)(sources[3:]))
    found += predict_classes.begin_work(arguments, 2, 1)(sources[:3])
    assert [name for name, _ in found] == [f"{number}.png" for number in (3, 4, 5, 0, 1, 2)]
    in_order = list(predict_classes._in_order(found, sources))
    assert [prediction.path for prediction in in_order] == [source.path for source in sources]
    assert {len(prediction.classes) for prediction in in_order} == {2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--address", "auto"), "--address: goes with --engine ray"),
        (("--engine", "ray", "--actors", "0"), "--actors=0: must be at least 1"),
        (("--engine", "ray", "--actor-cpus", "-1"), "--actor-cpus=-1: must be above 0"),
        (("--engine", "ray", "--shard", "1/2"), "--shard does not go with --engine ray"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert main(arguments(pictures, tmp_path, *options)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.long
def test_a_command_that_was_killed_redoes_nothing(
    pictures: Path, alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    typed = [*arguments(pictures, output, "--batch", "1"), "--engine", "ray"]
    run = subprocess.Popen([sys.executable, "-m", "vil", *typed], stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 600
    while not files(output) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    deadline, before = time.monotonic() + 60, None
    while before != (before := files(output)) or time.monotonic() > deadline:  # its actors end a moment later
        time.sleep(5)
    assert before
    assert main(typed) == 0
    assert f"{len(before)} done before" in capsys.readouterr().out
    assert {name: mark for name, mark in files(output).items() if name in before} == before
    assert_as_alone(output, alone)
