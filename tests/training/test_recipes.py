from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vil import main
from vision_longformer.commands.common import UsageError
from vision_longformer.commands.options import COMMANDS
from vision_longformer.commands.train import configuration
from vision_longformer.datasets.options import AugmentationOptions
from vision_longformer.training.config import OptimizerOptions, TrainConfig, walk
from vision_longformer.training.recipes import SHIPPED, build, over, read_options, read_recipe, write_recipe

RECIPES = sorted(SHIPPED.glob("*.yaml"))


def test_every_option_has_a_help_of_one_sentence() -> None:
    for option in walk(TrainConfig()):
        assert option.help.endswith("."), option.path
        assert 5 < len(option.help) < 130, option.path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_configuration_is_written_and_read_back_as_it_is(path: Path, tmp_path: Path) -> None:
    for config in (TrainConfig(), build(read_recipe(path))):
        (tmp_path / "recipe.yaml").write_text(write_recipe(config))
        assert build(read_recipe(tmp_path / "recipe.yaml")) == config
        assert build(yaml.safe_load(write_recipe(config))) == config


def test_a_recipe_of_the_package_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_recipe("sign_digits_nano") == yaml.safe_load((SHIPPED / "sign_digits_nano.yaml").read_text())
    assert (
        main(["train", "--recipe", "sign_digits_nano", "--data", "none", "--output", "run"]) == 2
    )  # the data is missing


def test_a_file_comes_before_a_recipe_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sign_digits_nano").write_text("seed: 5")
    assert read_recipe("sign_digits_nano") == {"seed": 5}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sign_digit_nano", "did you mean sign_digits_nano?"),
        ("recipes/sign_digits_nano.yaml", "did you mean sign_digits_nano?"),
        ("../recipes/sign_digits_nano", "did you mean sign_digits_nano?"),
        ("x", "recipes of the package: bccd_retinanet_nano, coco_"),
    ],
)
def test_a_recipe_that_is_not_there_is_refused_with_those_that_are(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        read_recipe(name)
    assert f"{name}: no such recipe; {hint}" in str(error.value)


@pytest.mark.parametrize(
    ("values", "nearest"),
    [
        ({"optimiser": {"lr": 1}}, "optimiser: there is no such option; did you mean optimizer?"),
        ({"optimizer": {"lr": 1}}, "optimizer.lr: there is no such option"),
        ({"optimizer": {"learning_rat": 1}}, "did you mean optimizer.learning_rate?"),
        ({"schedule": {"epoch": 1}}, "schedule.epoch: there is no such option; did you mean schedule.epochs?"),
        ({"augmentaton": {}}, "augmentaton: there is no such option; did you mean augmentation?"),
        ({"sed": 1}, "sed: there is no such option; did you mean seed?"),
        ({"epochs": 3}, "epochs: there is no such option; did you mean schedule.epochs?"),
        ({"mixup": 0.1}, "did you mean augmentation.mixup?"),
        ({7: 1}, "7: there is no such option"),
    ],
)
def test_an_unknown_option_is_named_with_the_nearest_there_is(values: dict[str, Any], nearest: str) -> None:
    with pytest.raises(ValueError, match="there is no such option") as error:
        build(values)
    assert nearest in str(error.value)


@pytest.mark.parametrize(
    ("option", "nearest"),
    [
        ("--schedule.epoch", "schedule.epochs"),
        ("--augmentaton.mixup", "augmentation.mixup"),
        ("--optimiser.learning_rate", "optimizer.learning_rate"),
        ("--epochs", "schedule.epochs"),
    ],
)
@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_an_unknown_option_of_the_command_line_is_named_with_the_nearest_there_is(
    command: str, option: str, nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--data=x", "--output=y", option, "1"]) == 2
    assert f"did you mean --{nearest}?" in capsys.readouterr().err


WRONG: list[tuple[str, Any, str]] = [
    ("seed", "zero", "must be a whole number"),
    ("seed", 1.5, "must be a whole number"),
    ("seed", True, "must be a whole number"),
    ("seed", -1, "must not be negative"),
    ("task", "posing", "must be one of 'classification'"),
    ("model.name", 7, "must be text"),
    ("model.options", [1], "must be a mapping"),
    ("model.drop_path_rate", 1.0, "must be from 0 up to, but not including, 1"),
    ("input.size", 0, "must be at least 1"),
    ("input.crop_share", 0.0, "must be above 0 and at most 1"),
    ("input.interpolation", "cubic", "must be one of 'bicubic'"),
    ("augmentation.crop_scale", [1.0, 0.5], "the smaller first"),
    ("augmentation.crop_scale", [0.5], "must be two numbers"),
    ("augmentation.crop_scale", 0.5, "must be two numbers"),
    ("dense.sides", [], "must be whole numbers from 1 on"),
    ("dense.sides", [640, 0], "must be whole numbers from 1 on"),
    ("dense.sides", [640.5], "must be whole numbers from 1 on"),
    ("dense.sides", 640, "must be a list of numbers or null"),
    ("dense.scale", [2.0, 0.5], "the smaller first"),
    ("dense.crop", 0, "must be at least 1"),
    ("dense.head", [1], "must be a mapping"),
    ("schedule.drops", [0.9, 0.6], "in ascending order"),
    ("schedule.drops", [1.0], "between 0 and 1"),
    ("augmentation.horizontal_flip", 1.5, "must lie between 0 and 1"),
    ("augmentation.mixup", -0.1, "must not be negative"),
    ("augmentation.repeats", 0, "must be at least 1"),
    ("augmentation.rand_augment", "autumn", "RandAugment"),
    ("optimizer.learning_rate", "fast", "must be a number"),
    ("optimizer.learning_rate", 0.0, "must be above 0"),
    ("optimizer.learning_rate", float("nan"), "must be a number"),
    ("optimizer.learning_rate", float("inf"), "must be a number"),
    ("optimizer.betas", [0.9, 1.0], "from 0 up to, but not including, 1"),
    ("optimizer.nu", 1.1, "must lie between 0 and 1"),
    ("optimizer.clip_norm", -1, "must be above 0"),
    ("optimizer.ema_decay", 1.0, "but not including, 1"),
    ("schedule.random_shift", 1, "must be true or false"),
    ("schedule.epochs", None, "must be a whole number"),
    ("compute.precision", "float64", "must be one of 'float32'"),
    ("compute.workers", -1, "must not be negative"),
    ("compute.threads", 0, "must be at least 1"),
    ("compute.deterministic", "yes", "must be true or false or null"),
    ("logging.checkpoint_minutes", 0, "must be above 0"),
]


@pytest.mark.parametrize(("path", "value", "rule"), WRONG, ids=[f"{path}={value}" for path, value, _ in WRONG])
def test_an_impossible_value_is_refused_with_its_field_and_its_rule(path: str, value: Any, rule: str) -> None:
    group, _, name = path.rpartition(".")
    with pytest.raises(ValueError, match="must") as error:
        build({group: {name: value}} if group else {name: value})
    assert str(error.value).startswith(f"{path}=")
    assert rule in str(error.value)


def test_more_parts_than_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"compute\.accumulation=3: cuts a batch of 2 images"):
        build({"compute": {"batch_size": 2, "accumulation": 3}})


def test_a_group_must_be_a_mapping() -> None:
    with pytest.raises(ValueError, match="optimizer=3: must be a mapping of options"):
        build({"optimizer": 3})


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "+1e-3", ".1e-2", "0.001", "1.e-3"])
def test_numbers_are_numbers_however_they_are_written(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"optimizer:\n  learning_rate: {text}\n")
    assert build(read_recipe(tmp_path / "recipe.yaml")).optimizer.learning_rate == 0.001
    assert build(read_options({"optimizer": {"learning_rate": text}})).optimizer.learning_rate == 0.001


def test_text_that_looks_a_little_like_a_number_stays_text(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("model: {name: e1e, options: {a: 1e, b: e-3, c: 0x1e3z}}")
    assert read_recipe(tmp_path / "recipe.yaml")["model"]["options"] == {"a": "1e", "b": "e-3", "c": "0x1e3z"}
    assert yaml.safe_load("1e-3") == "1e-3"  # PyYAML's own loader is left alone


def configured(*options: str, command: str = "train", recipe: Path | None = None) -> TrainConfig:
    """Return the configuration that options of a command make, with a recipe."""
    arguments = COMMANDS[command]().parse_args(["--data=x", "--output=y", *options])
    arguments.recipe = recipe
    return configuration(arguments)


def test_options_of_the_command_line_override_those_of_a_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("schedule: {epochs: 3, warmup_epochs: 1}\nmodel: {options: {a: 1}}\n")
    options = ["--schedule.epochs", "7", "--seed=4", "--augmentation.crop_scale=[0.3, 1]", "--model.options={b: 2}"]
    expected = {
        "schedule": {"epochs": 7, "warmup_epochs": 1},
        "seed": 4,
        "augmentation": {"crop_scale": [0.3, 1]},
        "model": {"options": {"b": 2}},
    }
    assert configured(*options, recipe=recipe) == build(expected)
    assert configured("--optimizer.clip_norm", "null") == build({"optimizer": {"clip_norm": None}})
    assert configured("--optimizer.learning_rate=1e-3").optimizer.learning_rate == 0.001
    assert configured() == configured(command="pretrain") == TrainConfig()  # what is not given has no value
    recipe.write_text("optimizer: 3\n")
    with pytest.raises(UsageError, match=r"recipe\.yaml: optimizer=3: must be a mapping of options"):
        configured(recipe=recipe)


def test_values_are_put_over_others_which_stay_as_they_are() -> None:
    values = {"schedule": {"epochs": 3, "warmup_epochs": 1}, "seed": 1}
    found = over(values, {"schedule": {"epochs": 7}, "model": {"name": "x"}})
    assert found == {"schedule": {"epochs": 7, "warmup_epochs": 1}, "seed": 1, "model": {"name": "x"}}
    assert values == {"schedule": {"epochs": 3, "warmup_epochs": 1}, "seed": 1}
    assert over({"schedule": {"epochs": 3}}, {"schedule": 5}) == {"schedule": 5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["seed", "1"], "nrecognized arguments: seed 1"),
        (["--seed"], "--seed: expected one argument"),
        (["--seed", "--schedule.epochs=1"], "--seed: expected one argument"),
        (["--seed=[1"], "--seed [1: is not YAML"),
        (["--model.options=[1]"], "model.options=(1,): must be a mapping"),
        (["--model.options.attention=performer"], "write it as --model.options '{attention: performer}', which"),
    ],
)
def test_unclear_options_are_refused(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data=x", "--output=y", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not YAML: .* line 1"),
        ("- 1\n- 2\n", "must be a mapping of options"),
        ("3", "must be a mapping of options"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_its_name(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_recipe(path)
    assert str(error.value).startswith(str(path))
    with pytest.raises(FileNotFoundError, match="no such recipe"):
        read_recipe(tmp_path / "other.yaml")


def test_an_empty_recipe_has_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("# nothing\n")
    assert build(read_recipe(tmp_path / "recipe.yaml")) == TrainConfig()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**9),
    st.floats(1e-9, 10),
    st.none() | st.floats(1e-3, 100),
    st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1)),
    st.dictionaries(st.text(max_size=5), st.integers() | st.booleans() | st.lists(st.integers(), max_size=2)),
)
def test_any_configuration_survives_its_file(
    seed: int, rate: float, clip: float | None, scale: tuple[float, float], options: dict[str, Any]
) -> None:
    config = dataclasses.replace(
        TrainConfig(),
        seed=seed,
        optimizer=OptimizerOptions(learning_rate=rate, clip_norm=clip),
        augmentation=AugmentationOptions(crop_scale=scale),
        model=dataclasses.replace(TrainConfig().model, options=options),
    )
    assert build(yaml.safe_load(write_recipe(config))) == config
