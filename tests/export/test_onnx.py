"""Models as ONNX files: ONNX Runtime gives what PyTorch does."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model_helpers import build, config, noise, relative_error
from vision_longformer import Full, VisionLongformer, Windowed, create_model
from vision_longformer.export import onnx
from vision_longformer.export.onnx import ExportError, export_onnx, metadata_of

pytestmark = pytest.mark.export

WINDOWED = Windowed(window_size=2)


def small(*attention: Any, **options: Any) -> VisionLongformer:
    """Return three stages of one block each: tracing takes its time block by block."""
    base = config(*attention, **{"num_global_tokens": (1, 2, 0), **options})
    stages = tuple(dataclasses.replace(stage, depth=1) for stage in base.stages)
    return build(dataclasses.replace(base, stages=stages), dtype=torch.float32)


def runtime(path: Path) -> Any:
    return pytest.importorskip("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])


def agree(session: Any, images: Tensor, expected: Sequence[Tensor]) -> None:
    actual = session.run(None, {"images": images.numpy()})
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == tuple(other.shape)
        assert relative_error(torch.from_numpy(one), other) <= 1e-4


@pytest.fixture(autouse=True)
def _needs_onnx(request: pytest.FixtureRequest) -> None:
    if "without_onnx" not in request.fixturenames:
        pytest.importorskip("onnx")
        pytest.importorskip("onnxscript")


@pytest.fixture
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))


def test_one_file_takes_any_number_and_size_of_images(tmp_path: Path) -> None:
    model = small(WINDOWED, Windowed(window_size=3, shape="exact"), Full())
    export_onnx(model, tmp_path / "model.onnx", image_size=(61, 88), batch_size=3)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    session = runtime(tmp_path / "model.onnx")
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert [output.name for output in session.get_outputs()] == ["logits"]
    with torch.no_grad():
        for batch, height, width in ((1, 61, 88), (2, 31, 146), (3, 7, 5), (1, 1, 1), (2, 96, 48)):
            images = noise(batch, 3, height, width, dtype=torch.float32)
            agree(session, images, [model(images)])


def test_features_are_the_maps_of_all_stages(tmp_path: Path) -> None:
    model = create_model("vision_longformer_nano", num_classes=0).eval()
    assert isinstance(model, VisionLongformer)
    images = noise(2, 3, 97, 131, dtype=torch.float32)
    export_onnx(model, tmp_path / "n.onnx", image_size=(97, 131), batch_size=2, dynamic=False, outputs="features")
    session = runtime(tmp_path / "n.onnx")
    assert [output.name for output in session.get_outputs()] == ["stage1", "stage2", "stage3", "stage4"]
    with torch.no_grad():
        agree(session, images, model.forward_intermediates(images, intermediates_only=True))


@pytest.mark.parametrize("size", [(61, 88), (9, 40)])
def test_every_window_for_one_size(size: tuple[int, int], tmp_path: Path) -> None:
    cyclic, own = Windowed(window_size=2, shape="cyclic"), Windowed(window_size=2, neighbours="own")
    model = small(cyclic, own, cyclic, position="none", num_global_tokens=(0, 2, 1))
    export_onnx(model, tmp_path / "m.onnx", image_size=size, dynamic=False)
    images = noise(1, 3, *size, dtype=torch.float32)
    with torch.no_grad():
        agree(runtime(tmp_path / "m.onnx"), images, [model(images)])


def test_a_file_that_gives_another_result_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    target, model = tmp_path / "model.onnx", small(WINDOWED, WINDOWED, WINDOWED).train()
    target.write_text("mine")
    trace = onnx.trace_onnx

    def trace_another(module: Any, images: Tensor, **options: Any) -> Any:
        other = small(WINDOWED, WINDOWED, WINDOWED)
        torch.nn.init.ones_(other.head.bias)  # type: ignore[arg-type]
        module = type(module)(other, "logits").eval()
        return trace(module, images, **options)

    monkeypatch.setattr(onnx, "trace_onnx", trace_another)
    with pytest.raises(ExportError, match="gives another result once exported"):
        export_onnx(model, target, image_size=(20, 30), dynamic=False)
    assert target.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"outputs": "maps"}, "outputs='maps': must be one of logits, features"),
        ({"image_size": (0, 5)}, r"image_size=\(0, 5\): height and width must be at least 1 pixel"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        export_onnx(small(WINDOWED, WINDOWED, WINDOWED), tmp_path / "model.onnx", **changes)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    model = small(WINDOWED, WINDOWED, WINDOWED)
    with pytest.raises(ValueError, match=r"parameters in torch.bfloat16: call model.float\(\) first"):
        export_onnx(model.bfloat16(), tmp_path / "model.onnx")
    cyclic = small(WINDOWED, WINDOWED, Windowed(window_size=2, shape="cyclic"))
    with pytest.raises(ValueError, match="cyclic windows can only be exported for one size: pass dynamic=False"):
        export_onnx(cyclic, tmp_path / "model.onnx")
    with pytest.raises(IsADirectoryError, match="is a folder, not a file"):
        export_onnx(model.float(), tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        export_onnx(model, tmp_path / "file" / "model.onnx")


@pytest.mark.usefixtures("without_onnx")
def test_missing_packages_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match=r"onnxscript.*pip install 'vision-longformer\[onnx\]'"):
        export_onnx(small(WINDOWED, WINDOWED, WINDOWED), tmp_path / "model.onnx")


def test_names_of_other_classes_are_left_out() -> None:
    model = create_model("vision_longformer_nano", num_classes=3, in_chans=4)
    assert isinstance(model, VisionLongformer)
    model.pretrained_cfg = dict(model.pretrained_cfg) | {"label_names": ["a", "b"]}
    said = metadata_of(model)
    assert "class_names" not in said
    assert len(said["mean"]) == len(said["std"]) == 4
