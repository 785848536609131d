from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vision_longformer import VisionLongformer
from vision_longformer.features import extract
from vision_longformer.features.descriptions import read_metadata
from vision_longformer.features.encoder import Encoder
from vision_longformer.features.extract import encode_files
from vision_longformer.features.failures import OutputError
from vision_longformer.features.formats import table
from vision_longformer.features.load import load_features
from vision_longformer.features.results import Result
from vision_longformer.features.writer import Writer
from vision_longformer.images import Reading
from vision_longformer.images.find import find_images

HEIGHT, WIDTH = 45, 77


def save_photo(path: Path, *, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def encode(paths: list[Path], output: Path, model: VisionLongformer, **options: Any) -> list[Result]:
    own = {name: options.pop(name) for name in ("stages", "max_side", "precision") if name in options}
    encoder = Encoder(model, **own)
    settings: dict[str, Any] = {"model_name": "nano"} | options
    return list(encode_files(find_images([str(path) for path in paths]), output, encoder, **settings))


def statuses(results: list[Result]) -> list[str]:
    return [result.status for result in results]


# --- what is found ----------------------------------------------------------------------------------------------


def test_folders_are_searched_with_all_below_but_for_hidden_files_and_features(tmp_path: Path) -> None:
    features = ("out/x.tif.geotiff/stage4.tif", "out/x.png.zarr/picture.png")
    for name in ("b.JPG", "a/c.png", "a/.hidden.png", ".git/d.png", "notes.txt", *features):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [source.name for source in find_images([str(tmp_path)])] == ["a/c.png", "b.JPG"]
    found = find_images([str(tmp_path / "**" / "*.*")])
    assert not [source.name for source in found if source.name in features]
    by_name = str(tmp_path / "out" / "x.tif.geotiff" / "*.tif")
    assert [source.name for source in find_images([by_name])] == ["stage4.tif"]


def test_an_output_that_cannot_be_made_is_refused_before_work_begins(
    tmp_path: Path, model: VisionLongformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encoder, "encode", None)
    (tmp_path / "file").touch()
    photo = tmp_path / "x.png"
    Image.new("RGB", (40, 30)).save(photo)
    with pytest.raises(OutputError, match="file: cannot be written"):
        list(encode_files(find_images([str(photo)]), tmp_path / "file", Encoder(model), model_name="nano"))


def test_equal_names_of_different_folders_and_kinds_stay_apart(tmp_path: Path, output: Path) -> None:
    paths = [tmp_path / name for name in ("a/x.jpg", "b/x.jpg", "a/x.png")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    targets = [source.target(output) for source in find_images([str(path) for path in paths])]
    names = ("a/x.jpg.safetensors", "b/x.jpg.safetensors", "a/x.png.safetensors")
    assert targets == [output / name for name in names]


def test_patterns_are_followed_and_no_image_comes_twice(tmp_path: Path) -> None:
    for name in ("2020/a.jpg", "2021/b.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    found = find_images([str(tmp_path / "**" / "*.jpg"), str(tmp_path / "2020" / "a.jpg")])
    assert [source.name for source in found] == ["2020/a.jpg", "2021/b.jpg"]


def test_what_means_nothing_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.jpg: there is no such file or folder"):
        find_images([str(tmp_path / "none.jpg")])
    with pytest.raises(FileNotFoundError, match="this folder holds no image"):
        find_images([str(tmp_path)])


# --- what is written --------------------------------------------------------------------------------------------


def test_files_hold_the_features_and_all_about_them(tmp_path: Path, output: Path, model: VisionLongformer) -> None:
    photo = save_photo(tmp_path / "x.png")
    encode([photo], output, model, stages=[2, 4], dtype="float16")
    expected = Encoder(model, stages=[2, 4]).encode(photo)
    found = load_file(output / "x.png.safetensors")
    assert sorted(found) == ["embedding", "stage2", "stage4"]
    for name, tensor in (("stage2", expected.maps[0]), ("stage4", expected.maps[1]), ("embedding", expected.embedding)):
        assert torch.equal(found[name], tensor.half())

    with safe_open(output / "x.png.safetensors", framework="pt") as file:
        assert "vision_longformer" in file.metadata()
        metadata = json.loads(file.metadata()["vision_longformer"])
    assert metadata == read_metadata(output / "x.png.safetensors")
    for key in ("config_sha256", "weights_sha256", "source_sha256"):
        assert len(metadata.pop(key)) == 64
    assert metadata.pop("source_state") == f"{photo.stat().st_size}:{photo.stat().st_mtime_ns}"
    assert metadata.pop("versions").keys() == {"vision_longformer", "torch"}
    assert metadata.pop("mean") == pytest.approx([0.485, 0.456, 0.406])
    assert metadata.pop("std") == pytest.approx([0.229, 0.224, 0.225])
    assert metadata == {
        "format_version": 2,
        "content": "features",
        "source": "x.png",
        "original_size": [HEIGHT, WIDTH],
        "encoded_size": [HEIGHT, WIDTH],
        "model": "nano",
        "stages": [2, 4],
        "strides": [8, 32],
        "dtype": "float16",
        "max_side": None,
    }


@pytest.mark.parametrize("transparent", [[], [(0, 0)], [(3, 70), (44, 76)]])
def test_which_pixels_are_missing_is_kept_in_bits_where_some_are(
    tmp_path: Path, output: Path, model: VisionLongformer, transparent: list[tuple[int, int]]
) -> None:
    pixels = np.full((HEIGHT, WIDTH, 4), 255, np.uint8)
    for place in transparent:
        pixels[place] = 0
    Image.fromarray(pixels).save(tmp_path / "x.png")
    encode([tmp_path / "x.png"], output, model)
    stored = load_file(output / "x.png.safetensors").get("valid")
    assert (stored is None) == (not transparent)
    assert stored is None or stored.shape == (HEIGHT, 10)
    valid = load_features(output / "x.png.safetensors").valid
    assert valid.shape == (HEIGHT, WIDTH)
    assert np.array_equal(valid[...], pixels[..., 3] > 0)
    assert np.array_equal(valid[3:40, 60:], (pixels[..., 3] > 0)[3:40, 60:])
    assert np.array_equal(valid[44], pixels[44, :, 3] > 0)


def test_files_of_the_first_version_are_read_and_skipped(tmp_path: Path, output: Path, model: VisionLongformer) -> None:
    """They have `valid` as booleans, always, and do not say when the image was written."""
    photo = save_photo(tmp_path / "x.png")
    encode([photo], output, model, stages=[4])
    target = output / "x.png.safetensors"
    metadata = read_metadata(target)
    assert metadata is not None
    del metadata["source_state"]
    metadata["format_version"] = 1
    valid = torch.rand(HEIGHT, WIDTH) > 0.5
    about = {"vision_longformer": json.dumps(metadata)}
    save_file(load_file(target) | {"valid": valid}, target, metadata=about)
    assert np.array_equal(load_features(target).valid[...], valid.numpy())
    assert statuses(encode([photo], output, model, stages=[4])) == ["skipped"]


def test_full_precision_and_smaller_sizes_can_be_asked_for(
    tmp_path: Path, output: Path, model: VisionLongformer
) -> None:
    photo = save_photo(tmp_path / "x.png")
    encode([photo], output, model, dtype="float32", max_side=40)
    target = output / "x.png.safetensors"
    assert torch.equal(load_file(target)["stage1"], Encoder(model, max_side=40).encode(photo).maps[0])
    metadata = read_metadata(target)
    assert metadata is not None
    assert metadata["original_size"] == [HEIGHT, WIDTH]
    assert metadata["encoded_size"] == [23, 40]


def test_runs_repeat_to_the_bit(tmp_path: Path, model: VisionLongformer) -> None:
    photo = save_photo(tmp_path / "x.png")
    for folder in ("one", "two"):
        encode([photo], tmp_path / folder, model)
    one, two = (tmp_path / folder / "x.png.safetensors" for folder in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


# --- batches ----------------------------------------------------------------------------------------------------


def test_images_of_like_size_go_together_and_come_in_order(
    tmp_path: Path, output: Path, model: VisionLongformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(40, 50), (90, 30), (41, 50), (40, 48), (88, 31), (200, 200)]
    paths = [tmp_path / f"{number}.png" for number in range(len(sizes))]
    for path, (height, width) in zip(paths, sizes, strict=True):
        pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    batches: list[list[tuple[int, ...]]] = []
    plain = Encoder.encode_batch

    def noted(self: Encoder, pixels: Any) -> Any:
        batches.append([tuple(one.valid.shape) for one in pixels])
        return plain(self, pixels)

    monkeypatch.setattr(Encoder, "encode_batch", noted)
    results = encode(paths, output, model, dtype="float32", stages=[2, 4])
    assert [result.source.path for result in results] == paths
    assert statuses(results) == ["encoded"] * len(paths)
    assert batches == [[(40, 48), (40, 50), (41, 50)], [(88, 31), (90, 30)], [(200, 200)]]
    for path in paths:
        alone, found = Encoder(model, stages=[2, 4]).encode(path), load_file(output / f"{path.name}.safetensors")
        torch.testing.assert_close(found["stage2"], alone.maps[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found["embedding"], alone.embedding, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_is_no_larger_than_asked_for(
    tmp_path: Path, output: Path, model: VisionLongformer, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    paths = [save_photo(tmp_path / f"{number}.png") for number in range(5)]
    counts: list[int] = []
    plain = Encoder.encode_batch

    def noted(self: Encoder, pixels: Any) -> Any:
        counts.append(len(pixels))
        return plain(self, pixels)

    monkeypatch.setattr(Encoder, "encode_batch", noted)
    encode(paths, output, model, batch=batch)
    assert max(counts) == batch
    with pytest.raises(ValueError, match="batch=0: must be at least 1"):
        encode(paths, output, model, batch=0)


def test_what_the_model_is_called_changes_nothing(tmp_path: Path, output: Path, model: VisionLongformer) -> None:
    photo = save_photo(tmp_path / "x.png")
    encode([photo], output, model, model_name="weights.safetensors")
    assert statuses(encode([photo], output, model, model_name="./weights.safetensors")) == ["skipped"]
    metadata = read_metadata(output / "x.png.safetensors")
    assert metadata is not None
    assert metadata["model"] == "weights.safetensors"


@pytest.mark.parametrize(
    "change", ["stages", "dtype", "max_side", "weights", "normalisation", "image", "damage", "reading", "precision"]
)
def test_whatever_changes_the_result_encodes_again(
    tmp_path: Path, output: Path, model: VisionLongformer, change: str
) -> None:
    photo = save_photo(tmp_path / "x.png")
    encode([photo], output, model, stages=[4])
    options: dict[str, Any] = {"stages": [4]}
    match change:
        case "stages":
            options["stages"] = [3, 4]
        case "dtype":
            options["dtype"] = "float32"
        case "precision":
            options["precision"] = "bf16"
        case "max_side":
            options["max_side"] = 40
        case "weights":
            with torch.no_grad():
                model.norm.bias[0] += 1  # type: ignore[index, operator]
        case "normalisation":
            vars(model)["pretrained_cfg"] = {"mean": (0.5, 0.5, 0.5)}
        case "image":
            save_photo(photo, seed=1)
        case "reading":
            options["reading"] = Reading(channels=(2, 1, 0))
        case "damage":
            os.truncate(output / "x.png.safetensors", 1000)
    assert statuses(encode([photo], output, model, **options)) == ["encoded"]
    assert statuses(encode([photo], output, model, **options)) == ["skipped"]


def test_images_read_in_another_way_are_not_taken_for_others(
    tmp_path: Path, output: Path, model: VisionLongformer
) -> None:
    photo = save_photo(tmp_path / "x.png")
    encode([photo], output, model, reading=Reading(value_range=(0, 100)))
    assert statuses(encode([photo], output, model)) == ["encoded"]


# --- what goes wrong --------------------------------------------------------------------------------------------


def test_broken_images_are_reported_and_the_others_encoded(
    tmp_path: Path, output: Path, model: VisionLongformer
) -> None:
    paths = [tmp_path / "text.png", save_photo(tmp_path / "cut.png"), save_photo(tmp_path / "good.png")]
    paths[0].write_text("not an image")
    paths[1].write_bytes(paths[1].read_bytes()[:1000])
    results = encode(paths, output, model)
    assert statuses(results) == ["failed", "failed", "encoded"]
    assert results[0].message == "it is not an image that can be read"
    assert "damaged" in results[1].message
    assert [path.name for path in output.iterdir()] == ["good.png.safetensors"]


def test_running_out_of_memory_fails_one_image(
    tmp_path: Path, output: Path, model: VisionLongformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [save_photo(tmp_path / name) for name in ("a.png", "b.png")]
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory")
    answers: Iterator[Exception | None] = iter([error, error, None])  # both together, and each alone
    plain = Encoder.encode_batch

    def sometimes(self: Encoder, pixels: Any) -> Any:
        error = next(answers)
        if error:
            raise error
        return plain(self, pixels)

    monkeypatch.setattr(Encoder, "encode_batch", sometimes)
    results = encode(paths, output, model)
    assert statuses(results) == ["failed", "encoded"]
    assert "not enough memory" in results[0].message


@pytest.mark.parametrize(
    ("owner", "name", "of"),  # `of` gives the name of the image from the arguments
    [
        (extract, "content_digest", lambda path: path.name),
        (Encoder, "encode_batch", lambda *_: "b.png"),  # all together, and the first of them alone
        (Writer, "write", lambda writer, source, *_: source.name),
    ],
)
def test_an_error_that_should_not_be_fails_one_image_and_asks_to_report_it(
    tmp_path: Path,
    output: Path,
    model: VisionLongformer,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    of: Any,
) -> None:
    paths = [save_photo(tmp_path / name) for name in ("a.png", "b.png", "c.png")]
    plain, failures = getattr(owner, name), iter([KeyError("no such"), KeyError("no such")])

    def broken(*arguments: Any, **options: Any) -> Any:
        if of(*arguments) == "b.png" and (error := next(failures, None)):
            raise error
        return plain(*arguments, **options)

    monkeypatch.setattr(owner, name, broken)
    results = encode(paths, output, model)
    assert sorted(statuses(results)) == ["encoded", "encoded", "failed"]
    (message,) = [result.message for result in results if result.status == "failed"]
    assert message == "(internal error: KeyError: 'no such'; please report it)"


@pytest.mark.parametrize("before", ["absent", "old"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_write_leaves_the_target_as_it_was(
    tmp_path: Path,
    output: Path,
    model: VisionLongformer,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    before: str,
) -> None:
    photo, target = save_photo(tmp_path / "x.png"), output / "x.png.safetensors"
    if before == "old":
        output.mkdir()
        target.write_text("old")

    def half(path: Path, *_arguments: object, **_options: object) -> None:
        path.write_text("half of a fi")
        raise error

    monkeypatch.setattr(table, "write_safetensors", half)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt) as raised:
        encode([photo], output, model)
    if isinstance(error, OSError):
        assert "the disk is full" in str(raised.value)
    assert [path.read_text() for path in output.iterdir()] == (["old"] if before == "old" else [])
