"""What the README and the pages of docs/ show: their Python runs and prints what they say, their commands exist."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from prediction.cases import write_weights
from vil import main
from vision_longformer import VisionLongformer, create_model, save
from vision_longformer.commands.common import UsageError
from vision_longformer.commands.options import COMMANDS
from vision_longformer.datasets.coco import read_coco
from vision_longformer.training.recipes import read_recipe

ROOT = Path(__file__).parent.parent.parent
PAGES = tuple(str(page.relative_to(ROOT)) for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))))
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
PRINTED = re.compile(r"^ *print\(.*\)(?:  # (?P<beside>.+))?\n(?P<below>(?:# .*\n)*)", re.MULTILINE)
NEEDS = {
    "docs/deployment.md": ("onnx", "onnxscript", "onnxruntime", "openvino"),
    "docs/guides/deploy_onnx.md": ("onnx", "onnxscript", "onnxruntime"),
    "docs/labels.md": ("supervision",),
}


def _blocks(page: str, *languages: str) -> Iterator[str]:
    for indent, language, text in BLOCK.findall((ROOT / page).read_text()):
        if language in languages:
            yield re.sub(f"^{indent}", "", text, flags=re.MULTILINE)


def _photo() -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (450, 610, 3), dtype=np.uint8)).save("photo.jpg")


def _encode(*arguments: str) -> None:
    assert main(["encode", *arguments, "--output", "features", "--no-report"]) == 0


def _features_of_the_photograph() -> None:
    _encode("examples", "--max-side", "1024")


def _features_of_a_photo_and_a_scene() -> None:
    _photo()
    _encode("photo.jpg", "--format", "zarr")
    _encode("photo.jpg", "--format", "parquet")
    transform = rasterio.transform.from_origin(500_000, 5_400_000, 1, 1)
    raster = {"driver": "GTiff", "height": 600, "width": 800, "count": 3, "dtype": "uint8"}
    with rasterio.open("scene.tif", "w", **raster, crs="EPSG:32632", transform=transform) as scene:
        scene.write(np.random.default_rng(0).integers(0, 255, (3, 600, 800), dtype=np.uint8))
    _encode("scene.tif", "--format", "geotiff", "--stages", "3", "4")


def _features_of_all_stages() -> None:
    _photo()
    _encode("photo.jpg", "--stages", "1", "2", "3", "4")


def _trained_classifier() -> None:
    _photo()
    Path("runs/signs").mkdir(parents=True)
    model = create_model("vision_longformer_nano", num_classes=10)
    assert isinstance(model, VisionLongformer)
    save(model, "runs/signs/best.safetensors", class_names=[str(n) for n in range(10)])


def _trained_detector() -> None:
    _photo()
    Path("runs/cells").mkdir(parents=True)
    write_weights(Path("runs/cells/best.safetensors"), "instance_segmentation")


def _boxes_of_yolo_and_voc() -> None:
    for split in ("train", "val"):
        for kind, labels in (("yolo", "labels"), ("voc", "annotations")):
            for name in ("images", labels):
                Path(kind, split, name).mkdir(parents=True)
            Image.new("RGB", (80, 60)).save(f"{kind}/{split}/images/a.png")
        Path(f"yolo/{split}/labels/a.txt").write_text("1 0.5 0.5 0.25 0.5\n")
        Path(f"voc/{split}/annotations/a.xml").write_text(
            "<annotation><filename>a.png</filename><size><width>80</width><height>60</height><depth>3</depth></size>"
            "<object><name>cat</name><bndbox><xmin>31</xmin><ymin>16</ymin><xmax>50</xmax><ymax>45</ymax></bndbox>"
            "</object></annotation>"
        )
    Path("yolo/data.yaml").write_text("names: [dog, cat]\n")


def _boxes_became_coco() -> None:
    for folder, classes in (("coco", ("dog", "cat")), ("coco_voc", ("cat",))):
        split = read_coco(f"{folder}/val.json", f"{folder}/val", with_masks=False)
        assert split.classes == classes
        assert split.boxes.tolist() == [[30, 15, 50, 45]]
        assert [split.classes[label] for label in split.labels] == ["cat"]


def _trained_on_pictures() -> None:
    Path("runs/pictures").mkdir(parents=True)
    model = create_model("vision_longformer_nano", num_classes=2)
    assert isinstance(model, VisionLongformer)
    save(model, "runs/pictures/best.safetensors", class_names=["grass", "seeds"])


def _counted_nuclei() -> None:
    Path("found").mkdir()
    Path("found/images.csv").write_text(
        "image,path,width,height,objects,left_out,count nucleus\n"
        "1.png,new/1.png,128,128,8,0,8\n0.png,new/0.png,128,128,7,0,7\n"
    )


def _mapped_scenes() -> None:
    drawn = next(_blocks("docs/guides/rasters.md", "python"))
    exec(compile(drawn, "docs/guides/rasters.md", "exec"), {})
    Path("found/labels").mkdir(parents=True)
    with rasterio.open("scenes/0.tif") as scene:
        red, infrared = scene.read(3).astype(int), scene.read(4)
        with rasterio.open("found/labels/0.tif.tif", "w", **scene.profile | {"count": 1, "dtype": "uint8"}) as labels:
            labels.write((infrared > red + 1000).astype(np.uint8), 1)


def _features_of_a_slide() -> None:
    Path("slides").mkdir()
    Image.new("RGB", (512, 288), (90, 60, 120)).save("slides/a.ome.tif")
    _encode("slides", "--stages", "3", "4", "--format", "zarr")


PREPARATIONS: dict[str, Callable[[], None]] = {
    "docs/architecture.md": _features_of_the_photograph,
    "docs/exploring.md": _features_of_all_stages,
    "docs/guides/classify.md": _trained_on_pictures,
    "docs/guides/count_nuclei.md": _counted_nuclei,
    "docs/guides/rasters.md": _mapped_scenes,
    "docs/guides/slides.md": _features_of_a_slide,
    "docs/predictions.md": _trained_detector,
    "docs/labels.md": _boxes_of_yolo_and_voc,
    "docs/outputs.md": _features_of_a_photo_and_a_scene,
    "docs/training.md": _trained_classifier,
}
OUTCOMES: dict[str, Callable[[], None]] = {"docs/labels.md": _boxes_became_coco}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:OpenCV")  # which supervision does without
@pytest.mark.parametrize("page", [p for p in PAGES if any(_blocks(p, "python"))], ids=str)
def test_python_runs_and_prints_what_is_said(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing := [module for module in NEEDS.get(page, ()) if importlib.util.find_spec(module) is None]:
        pytest.skip(f"{page} needs {', '.join(missing)}")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    PREPARATIONS.get(page, lambda: None)()
    names: dict[str, object] = {}
    for block in _blocks(page, "python"):
        torch.manual_seed(0)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(block, page, "exec"), names)
        printed = plain(output.getvalue())
        for said in said_of(block):
            assert said in printed
    OUTCOMES.get(page, lambda: None)()


def test_what_is_said_of_output_is_found_and_held_against_it() -> None:
    block = "print(1 + 1)  # 2\nprint('a')\n# a b\n#  c\nx = 3  # not printed\n"

    assert list(said_of(block)) == ["2", "a b c"]


@pytest.mark.parametrize("page", [p for p in PAGES if any(_blocks(p, "sh", "bash"))], ids=str)
def test_commands_and_their_options_exist(page: str) -> None:
    for block in _blocks(page, "sh", "bash"):
        for line in commands(block):
            words = line[line.index("vil") :] if "-m" in line and "vil" in line else line  # torchrun ... -m vil
            if words[0] != "vil" or words[1].startswith("-") or "..." in words:
                continue
            try:
                arguments = COMMANDS[words[1]]().parse_args(words[2:])
                if "recipe" in arguments and arguments.recipe is not None:
                    read_recipe(arguments.recipe)
            except (UsageError, OSError, ValueError) as error:
                pytest.fail(f"{page}: {shlex.join(words)}: {error}")


def commands(block: str) -> Iterator[list[str]]:
    """Yield the words of each command, which may go over several lines."""
    command = ""
    for line in block.replace("\\\n", " ").splitlines():
        command += f"{line}\n"
        try:
            words = shlex.split(command, comments=True)
        except ValueError:  # a quotation goes on
            continue
        command = ""
        if words:
            yield words


def said_of(block: str) -> Iterator[str]:
    """Yield what the comments beside and below a `print` say that it prints."""
    for found in PRINTED.finditer(block):
        below = " ".join(line.removeprefix("#").strip() for line in found["below"].splitlines())
        if said := plain(below or found["beside"] or ""):
            yield said


def plain(text: str) -> str:
    return " ".join(text.split())
