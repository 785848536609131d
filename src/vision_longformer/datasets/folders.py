"""Images without labels, or with the names of folders as labels, in several folders together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vision_longformer.images.find import find_images


class FolderImages(NamedTuple):
    """The images of folders."""

    paths: list[Path]
    names: list[str]  # below their folder
    labels: list[int]  # −1 where there is none
    folder_of_label: list[int]


def find_folder_images(folders: Sequence[Path], *, labelled: bool) -> FolderImages:
    """Find the images of folders, and their labels if those are wanted."""
    found = FolderImages([], [], [], [])
    for number, folder in enumerate(folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
        paths = [source.path for source in find_images([str(folder)])]
        parts = [path.relative_to(folder.absolute()).parts for path in paths]
        classes = sorted({part[0] for part in parts})
        has_labels = labelled and len(classes) > 1 and all(len(part) > 1 for part in parts)
        label = {name: len(found.folder_of_label) + place for place, name in enumerate(classes)}
        found.paths.extend(paths)
        found.names.extend("/".join(part) for part in parts)
        found.labels.extend(label[part[0]] if has_labels else -1 for part in parts)
        found.folder_of_label.extend([number] * (len(classes) if has_labels else 0))
    return found
