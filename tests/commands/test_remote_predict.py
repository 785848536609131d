"""`vil predict` of images in object stores: as of the same images on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from prediction.cases import noise_image, write_weights
from vil import main
from vision_longformer import VisionLongformer, create_model, save
from vision_longformer.utils import remote

fsspec = pytest.importorskip("fsspec")
NAMES = ("a/1.png", "b/1.png", "b/2.png")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    store = fsspec.filesystem("memory")
    for number, name in enumerate(NAMES):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise_image(24 + 8 * number, 40, seed=number)).save(path)
        store.pipe_file(f"/in/{name}", path.read_bytes())
    store.pipe_file("/in/b/bad.png", b"no image")
    (tmp_path / "in" / "b" / "bad.png").write_bytes(b"no image")
    yield store
    store.rm("/in", recursive=True)


def predict(*arguments: object) -> int:
    return main(["predict", *map(str, arguments), "--device", "cpu"])


def test_classes(store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = create_model("vision_longformer_nano", num_classes=3).eval()
    assert isinstance(model, VisionLongformer)
    save(model, tmp_path / "weights.safetensors")
    found = []
    for place in ("memory:///in", tmp_path / "in"):
        options = ("--checkpoint", tmp_path / "weights.safetensors", "--size", 32, "--format", "json")
        assert predict(place, *options) == 1
        said = capsys.readouterr()
        assert said.err == f"vil: failed: {place}/b/bad.png: it is not an image that can be read\n"
        rows = json.loads(said.out)
        assert [row.pop("path") for row in rows] == [f"{place}/{name}" for name in (*NAMES, "b/bad.png")]
        found.append([row.get("classes") for row in rows])
    assert found[0] == found[1]


def test_classes_of_pixels(
    store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = write_weights(tmp_path / "weights.safetensors", "semantic_segmentation")
    for place, output in (("memory:///in", "remote"), (tmp_path / "in", "local")):
        assert predict(place, "--checkpoint", weights, "--output", tmp_path / output) == 1
        assert "3 predicted, 1 failed." in capsys.readouterr().out
    for name in ("classes.csv", *(f"labels/{name}.png" for name in NAMES), *(f"pictures/{name}.jpg" for name in NAMES)):
        assert (tmp_path / "remote" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    fetched: list[str] = []
    download = remote.download

    def counted(url: str, target: Path) -> None:
        fetched.append(url)
        download(url, target)

    monkeypatch.setattr(remote, "download", counted)
    assert predict("memory:///in", "--checkpoint", weights, "--output", tmp_path / "remote") == 1
    assert "0 predicted, 3 done before, 1 failed." in capsys.readouterr().out
    assert fetched == ["memory:///in/b/bad.png"]  # what is done is seen from what the store says of it
