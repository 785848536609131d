"""Which images are meant: files, folders with all that is below them, and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vision_longformer.images.open import is_zarr

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")  # that folders are searched for
FOLDERS = (".geotiff", ".zarr")  # of features


@dataclass(frozen=True)
class Source:
    """An image file, and its path below the folder that all images of a run share."""

    path: Path
    name: str

    def target(self, output: Path, kind: str = "safetensors") -> Path:
        """Return the feature file or folder: the image's name, suffix kept, so that x.jpg and x.png stay apart."""
        return output / f"{self.name}.{kind}"


def find_images(arguments: Sequence[str]) -> list[Source]:
    """Find the images that files, folders and patterns mean, each once.

    Folders are searched with all that is below them for JPEG, PNG, WebP and TIFF files, hidden ones and what lies in
    folders of features aside, which patterns pass over too. Files named by hand may be anything. Names are relative to
    the deepest folder that holds all arguments, so no two are the same.

    Raises:
        FileNotFoundError: An argument means nothing, or a folder holds no image.
    """
    found: dict[Path, None] = {}  # in order, each once
    roots = []
    for argument in arguments:
        path = Path(os.path.abspath(argument))
        if is_zarr(path):
            roots.append(path.parent)
            images = [path]
        elif path.is_dir():
            roots.append(path)
            images = sorted(file for file in path.rglob("*") if _is_image(file.relative_to(path), file))
            if not images:
                raise FileNotFoundError(f"{argument}: this folder holds no image ({', '.join(SUFFIXES)})")
        elif path.exists():
            roots.append(path.parent)
            images = [path]
        else:
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            named = _in_features(path)  # the pattern itself names a folder of features
            images = [match for match in matches if match.is_file() and (named or not _in_features(match))]
            if not images:
                raise FileNotFoundError(f"{argument}: there is no such file or folder")
            roots.append(Path(os.path.commonpath([image.parent for image in images])))
        found.update(dict.fromkeys(images))
    common = os.path.commonpath(roots) if roots else ""
    return [Source(path, path.relative_to(common).as_posix()) for path in found]


def _is_image(name: Path, file: Path) -> bool:
    hidden = any(part.startswith(".") for part in name.parts)
    return name.suffix.lower() in SUFFIXES and not hidden and not _in_features(name) and file.is_file()


def _in_features(name: Path) -> bool:
    return any(folder.suffix in FOLDERS for folder in name.parents)
