"""Labelled images for classification: class folders, or a CSV of path, label, split."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vision_longformer.datasets.problems import some
from vision_longformer.images import AS_STORED, Reading
from vision_longformer.images.find import images_below

COLUMNS = ("path", "label", "split")


@dataclass(frozen=True)
class Samples:
    """One split of a data set.

    Attributes:
        paths: Image files.
        labels: Of each, an index into `classes`.
        classes: Names, in the order of the classifier's outputs.
        remarks: What of the data was not taken, a sentence each.
        reading: How the images are read.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    reading: Reading = AS_STORED

    def __len__(self) -> int:
        return len(self.paths)

    def counts(self) -> dict[str, int]:
        """Return how many images each class has."""
        found = Counter(self.labels)
        return {name: found[number] for number, name in enumerate(self.classes)}


def read_split(
    data: str | Path, split: str, *, classes: Sequence[str] | None = None, reading: Reading = AS_STORED
) -> Samples:
    """Find the images of a split and their labels.

    Args:
        data: A folder with SPLIT/CLASS/image files, or a CSV file with columns path, label and split, whose paths
            are relative to its own folder.
        split: "train", "val" or any other there is.
        classes: Names of the classes that a model knows; by default those found, sorted.
        reading: How the images are to be read.

    Raises:
        FileNotFoundError: There is no such folder or file.
        ValueError: A class has no image, a label is none of `classes`, a row is incomplete; names folder, file, line.
    """
    data = Path(data)
    if not data.exists():
        raise FileNotFoundError(f"{data}: no such folder or CSV file")
    found, remarks = (_read_csv(data, split), ()) if data.is_file() else _read_folders(data, split)
    names = sorted({label for _, label in found})
    if classes is None:
        classes = names
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise ValueError(
            f"{data}: split {split!r} has {some(unknown)}, which the model's {len(classes)} classes do not include "
            f"({some(list(classes))})"
        )
    number = {name: index for index, name in enumerate(classes)}
    return Samples(
        paths=tuple(path for path, _ in found),
        labels=tuple(number[label] for _, label in found),
        classes=tuple(classes),
        remarks=remarks,
        reading=reading,
    )


def _read_folders(data: Path, split: str) -> tuple[list[tuple[Path, str]], tuple[str, ...]]:
    folder = data / split
    if not folder.is_dir():
        there = sorted(entry.name for entry in data.iterdir() if entry.is_dir())
        hint = f"; {data} has {some(there)}" if there else f"; {data} has no folder at all"
        raise FileNotFoundError(f"{folder}: no such folder. Expected {data}/{split}/CLASS/images{hint}")
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise ValueError(f"{folder}: has no class folder in it; expected {folder}/CLASS/images")
    found: list[tuple[Path, str]] = []
    empty: list[Path] = []
    remarks: list[str] = []
    for entry in classes:
        below = images_below(entry)
        if not below.images:
            empty.append(entry)
        elif below.others:
            remarks.append(f"{entry}: passed over {below.remark()}")
        found += [(path, entry.name) for path in below.images]
    if empty:
        instead = f"; it has {images_below(empty[0]).remark()}" if images_below(empty[0]).others else ""
        raise ValueError(f"{some([str(entry) for entry in empty])}: no image in this class folder{instead}")
    return found, tuple(remarks)


def _read_csv(path: Path, split: str) -> list[tuple[Path, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            rows.fieldnames = [column.strip() for column in rows.fieldnames or ()]
            missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                raise ValueError(f"{path}: lacks the column {', '.join(missing)}; it must have {', '.join(COLUMNS)}")
            found, splits = list[tuple[Path, str]](), Counter[str]()
            for row in rows:
                file_name, label, its_split = ((row[column] or "").strip() for column in COLUMNS)
                if not (file_name and label and its_split):
                    raise ValueError(f"{path}, line {rows.line_num}: path, label and split must all be given")
                splits[its_split] += 1
                if its_split == split:
                    found.append((path.parent / file_name, label))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: is not a CSV file in UTF-8 ({error})") from error
    if not found:
        raise ValueError(f"{path}: no row has split {split!r}; it has {some(sorted(splits)) or 'no rows'}")
    return found
