"""Weight files from strangers: whatever they say of themselves, one sentence, before memory is taken for it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vision_longformer import ModelConfig, StageConfig, VisionLongformer, load, save
from vision_longformer.training.classifiers import load_timm
from vision_longformer.utils.tensor_files import read_tensors, write_tensors
from vision_longformer.weights import check_options, describe
from vision_longformer.weights.checks import expected_state

CONFIG = ModelConfig(
    stages=tuple(StageConfig(2, 8 * number, 2, 2) for number in (1, 2, 3)), image_size=(24, 40), num_classes=2
)
KEY = "vision_longformer"
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return save(VisionLongformer(CONFIG), tmp_path_factory.mktemp("saved") / "x.safetensors", class_names=["a", "b"])


def changed(saved: Path, target: Path, change: Change) -> Path:
    """Write a file anew, with right digests, and another description."""
    tensors, metadata = read_tensors(saved)
    about = json.loads(metadata[KEY])
    change(about)
    write_tensors(target, tensors, {KEY: json.dumps(about)})
    return target


def in_stages(**values: Any) -> Change:
    return lambda about: [stage.update(values) for stage in about["config"]["stages"]]


def in_attention(**values: Any) -> Change:
    return in_stages(attention={"kind": "windowed", **values})


def in_config(**values: Any) -> Change:
    return lambda about: about["config"].update(values)


def in_preprocessing(**values: Any) -> Change:
    return lambda about: about["preprocessing"].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (in_stages(depth=10**9), "depth=1000000000: must be at most 512"),
        (in_stages(depth=512), "does not fit the model"),
        (in_stages(width=10**18, num_heads=2), "must be at most 65536"),
        (in_stages(patch_size=10**9), "must be at most 1024"),
        (in_stages(num_global_tokens=10**9), "must be at most 65536"),
        (in_attention(window_size=10**6), "must be at most 1024"),
        (in_attention(window_size=1000), "does not fit the model"),
        (in_config(image_size=[10**9, 10**9]), "must be at most 1048576"),
        (in_config(num_classes=10**9), "must be at most 1048576"),
        (in_config(in_chans=10**9), "must be at most 65536"),
        (in_config(drop_rate=float("nan")), "drop_rate=nan"),
        (lambda about: about["config"].update(stages=about["config"]["stages"] * 1000), "stages=3000: must be 3 or 4"),
        (lambda about: about["config"]["stages"][0].pop("depth"), "depth: StageConfig needs this field"),
        (lambda about: about.update(config=None), "description in its metadata is damaged"),
        (lambda about: about.update(class_names=["a"] * 3), "class_names: 3 names for 2 classes"),
        (lambda about: about.update(class_names=[{}, {}]), "must be a list of texts"),
        (lambda about: about.update(preprocessing=None), "preprocessing=None: must be an object"),
        (in_preprocessing(mean="x"), "mean='x': must be a list of numbers"),
        (in_preprocessing(mean=[0, 0, float("inf")]), "must be a list of numbers"),
        (in_preprocessing(mean=[10**400, 0, 0]), "must be a list of numbers"),
        (in_preprocessing(mean=[0.5] * 7), "mean has 7 numbers for 3 channels"),
        (in_preprocessing(std=[1, 0, 1]), "must be above 0"),
        (in_preprocessing(crop_pct=float("nan")), "crop_pct=nan"),
        (in_preprocessing(interpolation=5), "interpolation=5: must be one of"),
        (in_preprocessing(url="http://x"), "has 'url', which is none of"),
    ],
)  # fmt: skip
def test_a_description_that_cannot_be_is_one_sentence(
    saved: Path, tmp_path: Path, change: Change, message: str
) -> None:
    path = changed(saved, tmp_path / "x.safetensors", change)
    began = time.process_time()
    with pytest.raises(ValueError, match=message) as raised:
        load(path)
    assert time.process_time() - began < 2
    assert str(raised.value).startswith(str(path))
    assert len(str(raised.value)) < 10_000


@pytest.mark.parametrize(("old", "new"), [('"num_classes": 2', f'"num_classes": {"9" * 5000}'), ("{", "[" * 100_000)])
def test_text_that_is_no_json_to_read(saved: Path, tmp_path: Path, old: str, new: str) -> None:
    tensors, metadata = read_tensors(saved)
    assert old in metadata[KEY]
    write_tensors(tmp_path / "x.safetensors", tensors, {KEY: metadata[KEY].replace(old, new, 1)})
    with pytest.raises(ValueError, match="the description in its metadata is damaged"):
        load(tmp_path / "x.safetensors")
    assert describe(tmp_path / "x.safetensors") == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(saved: Path, tmp_path: Path, value: float) -> None:
    tensors, metadata = read_tensors(saved)
    tensors["norm.weight"][3] = value
    write_tensors(tmp_path / "x.safetensors", tensors, metadata)
    with pytest.raises(ValueError, match=r"norm\.weight holds values that are not finite numbers"):
        load(tmp_path / "x.safetensors")


def test_weights_whose_sum_is_beyond_their_type_are_not(saved: Path, tmp_path: Path) -> None:
    tensors, metadata = read_tensors(saved)
    tensors["norm.weight"] = torch.full_like(tensors["norm.weight"], 3e38)
    write_tensors(tmp_path / "x.safetensors", tensors, metadata)
    assert float(load(tmp_path / "x.safetensors").state_dict()["norm.weight"][0]) == pytest.approx(3e38)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool])
def test_weights_of_another_kind_are_refused(saved: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    tensors, metadata = read_tensors(saved)
    tensors["norm.weight"] = tensors["norm.weight"].to(dtype)
    write_tensors(tmp_path / "x.safetensors", tensors, metadata)
    with pytest.raises(ValueError, match=rf"of another type: norm\.weight is {dtype}, expected torch\.float32"):
        load(tmp_path / "x.safetensors")


def test_what_a_model_needs_is_known_without_building_its_blocks(saved: Path) -> None:
    built = {name: (tuple(x.shape), x.dtype) for name, x in VisionLongformer(CONFIG).state_dict().items()}
    assert expected_state(CONFIG) == built


def test_many_mismatches_are_not_all_listed(saved: Path, tmp_path: Path) -> None:
    tensors, metadata = read_tensors(saved)
    more = {f"{'n' * 1000}{number}": torch.zeros(1) for number in range(200)}
    write_tensors(tmp_path / "x.safetensors", tensors | more, metadata)
    with pytest.raises(ValueError, match="and 150 more") as raised:
        load(tmp_path / "x.safetensors")
    assert len(str(raised.value)) < 20_000


def test_options_of_a_file_neither_read_others_nor_fill_memory() -> None:
    given = {"pretrained": True, "checkpoint_path": "/tmp/x.pth", "pretrained_cfg": {"hf_hub_id": "x/y"}, "depth": 3}
    assert check_options(given, field="options") == {"depth": 3}
    for options in ({"width": 10**9}, {"widths": [8, [10**9]]}, {"rate": float("nan")}):
        with pytest.raises(ValueError, match=r"options: .* holds a number beyond 8192"):
            check_options(options, field="options")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "no_such_model"}, "timm has no such model"),
        ({"options": {"num_classes": 3}}, "does not fit the model"),
        ({"options": {"num_classes": 2, "no_such_option": 1}}, "cannot be built with the options in its metadata"),
        ({"class_names": 7}, "must be a list of texts"),
        ({"preprocessing": {"size": 10**9}}, "must be a number of pixels"),
        ({"format_version": 9}, "format_version is 9"),
    ],
)
def test_models_of_others_from_strangers(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    about = {
        "format_version": 1,
        "content": "timm",
        "name": "resnet10t",
        "options": {"num_classes": 2},
        "class_names": ["a", "b"],
        "preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3, "size": 32},
    } | values
    if len(values.get("options", {})) == 1:
        about["class_names"] = ["a", "b", "c"]
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"fc.weight": torch.zeros(2, 512)}, {KEY: json.dumps(about)})
    with pytest.raises(ValueError, match=message):
        load_timm(path, describe(path))


@pytest.mark.parametrize("count", [150, pytest.param(4000, marks=pytest.mark.long)])
def test_rot_of_a_weight_file_is_noticed_or_changes_nothing(count: int, saved: Path, tmp_path: Path) -> None:
    whole, path = saved.read_bytes(), tmp_path / "x.safetensors"
    expected, about = load(saved).state_dict(), load(saved).pretrained_cfg
    random.seed(1)
    silent = 0
    for _ in range(count):
        data = bytearray(whole)
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        path.write_bytes(bytes(data))
        try:
            found = load(path)
        except ValueError:
            continue
        silent += 1
        assert found.config == CONFIG
        assert found.pretrained_cfg == about
        assert all(torch.equal(tensor, expected[name]) for name, tensor in found.state_dict().items())
    assert silent < count // 30
