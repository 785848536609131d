from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from vision_longformer.explore.encoding import encode_behind
from vision_longformer.explore.opened import check_same_backbone, open_features, open_image
from vision_longformer.explore.strokes import Project
from vision_longformer.features.encoder import Encoder

from . import exploring
from .exploring import HALVES


def test_the_image_of_features_is_found_beside_or_above_them(tmp_path: Path) -> None:
    exploring.opened(tmp_path).close()
    features = tmp_path / "features" / "picture0.png.safetensors"

    with pytest.raises(FileNotFoundError, match=r"its image, picture0\.png, is not beside it; say where with --image"):
        open_features(Path(shutil.copy(features, tmp_path / "features" / "deep.safetensors")).rename(_deeper(tmp_path)))
    opened = open_features(_deeper(tmp_path), image=tmp_path / "picture0.png")

    assert opened.explored is not None
    assert opened.explored.image_size == exploring.SIZE


def _deeper(folder: Path) -> Path:
    (folder / "a" / "b" / "c").mkdir(parents=True, exist_ok=True)
    return folder / "a" / "b" / "c" / "deep.safetensors"


def test_another_image_than_that_of_the_features_is_refused(tmp_path: Path) -> None:
    exploring.opened(tmp_path).close()
    Image.fromarray(exploring.picture(seed=8)).save(tmp_path / "picture0.png")

    with pytest.raises(ValueError, match="is not the image that the features were made of, or has changed since"):
        open_features(tmp_path / "features" / "picture0.png.safetensors")


def test_images_of_one_page_share_their_backbone(tmp_path: Path) -> None:
    images = [exploring.opened(tmp_path), exploring.opened(tmp_path, backbone=exploring.model(seed=3), seed=1)]

    with pytest.raises(ValueError, match=r"picture1\.png: its features are of another model, or of other stages"):
        check_same_backbone(images)


def test_an_image_is_encoded_behind_the_page(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(exploring.picture()).save(path)
    session = exploring.session(tmp_path, open_image(path))
    with pytest.raises(ValueError, match=r"picture\.png is still being encoded"):
        session.explored(0)

    encode_behind(session, tmp_path / "out", Encoder(exploring.model()), model_name="small").join()

    assert session.images[0].problem == ""
    assert session.explored(0).grid.size == (50, 74)


def test_strokes_are_found_again_after_the_image_moved(tmp_path: Path) -> None:
    session = exploring.session(tmp_path, exploring.opened(tmp_path))
    for stroke in HALVES:
        session.paint(0, stroke)
    (tmp_path / "elsewhere").mkdir()
    moved = Path(shutil.move(tmp_path / "picture0.png", tmp_path / "elsewhere" / "other.png"))

    again = open_features(tmp_path / "features" / "picture0.png.safetensors", image=moved)

    assert Project.load(tmp_path / "strokes.json").of(again.digest) == HALVES
