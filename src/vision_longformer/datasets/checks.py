"""What is found out about labelled images before they are learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vision_longformer.datasets.labels import Split
from vision_longformer.datasets.problems import some
from vision_longformer.datasets.semantic import SemanticSplit
from vision_longformer.images import AS_STORED, MAX_PIXELS, ImageError, Reading, read_raster
from vision_longformer.images.open import is_zarr
from vision_longformer.utils.steps import Steps, finish, in_threads

AUTO_DECODE_BYTES = 10**9


def check_images(
    paths: Sequence[Path], *, decode: bool | None = None, max_pixels: int = MAX_PIXELS, reading: Reading = AS_STORED
) -> None:
    """Make sure that all images can be decoded.

    Args:
        paths: What to check.
        decode: False checks nothing but that the files are there; None decodes up to a gigabyte of files.
        max_pixels: Refuse larger images.
        reading: How they are read.

    Raises:
        ValueError: Names the first few images that cannot be read, and says how many there are.
    """
    finish(checking_images(paths, decode=decode, max_pixels=max_pixels, reading=reading))


def checking_images(paths: Sequence[Path], *, decode: bool | None, max_pixels: int, reading: Reading) -> Steps[None]:
    """Do what `check_images` does, and say how far it is."""
    missing = [path for path in paths if not (path.is_file() or is_zarr(path))]
    if missing:
        raise ValueError(f"{some([str(path) for path in missing])}: no such file, or a pipe")
    if decode is None:
        decode = sum(path.stat().st_size for path in paths) <= AUTO_DECODE_BYTES
    if not decode:
        return

    def problem(path: Path) -> str | None:
        try:
            read_raster(path, reading=reading, max_pixels=max_pixels)
        except ImageError as error:
            return str(error)
        return None

    found = yield from in_threads("images checked", paths, problem)
    problems = [text for text in found if text is not None]
    if problems:
        rest = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ValueError(f"{problems[0]}{rest}; mend or remove it, and start again")


def absent_classes(counts: Mapping[str, Mapping[str, int]], unit: str) -> list[str]:
    """Return what a person should know of classes that do not occur, a sentence each.

    Args:
        counts: By split, "train" first, how often each class occurs.
        unit: What is counted: an image, an object, a pixel.
    """
    told = []
    for split, found in counts.items():
        known = found if split == "train" else counts["train"]
        absent = [name for name, count in found.items() if not count and (split == "train" or known.get(name))]
        if absent:
            so = "cannot be learned" if split == "train" else "is learned, and not measured"
            told.append(f"{split} has no {unit} of {some(absent)}: {'it' if len(absent) == 1 else 'each'} {so}")
    return told


def unmeasured(counts: Mapping[str, int], split: str, unit: str) -> list[str]:
    """Return what a person should know of classes of which a split that is measured has none: a sentence, or none."""
    absent = [name for name, count in counts.items() if not count]
    return [f"{split} has no {unit} of {some(absent)}: nothing is measured of that."] if absent else []


def only_class(classes: Sequence[str]) -> list[str]:
    """Return what a person should know of a single class that images or pixels can have: a sentence, or none."""
    if len(classes) > 1:
        return []
    return [f"there is one class alone, {classes[0]}: every answer will be right, and mean nothing"]


def refuse_nothing_to_learn(training: Split) -> None:
    """Refuse index images of but one class, where ignored pixels explain it: binary masks of 0 and 255.

    Raises:
        ValueError: Says how to read them.
    """
    if not isinstance(training, SemanticSplit) or training.counts is None:
        return
    *of_classes, ignored = training.counts.tolist()
    occurring = [name for name, count in zip(training.classes, of_classes, strict=True) if count]
    if not ignored or len(occurring) > 1:
        return
    label, value, classes = training.folder / training.labels[0], training.coding.ignored, training.classes
    only = f"pixels of {occurring[0]} alone" if occurring else "no pixel of any class"
    remedy = f"if {value} is a class, say which value each class has"
    if len(classes) == 2 and training.coding.values is None and value is not None:
        remedy = f"if {value} is {classes[1]}, give --dense.label_values '[0, {value}]'"
    raise ValueError(
        f"{label}: this and all other labels of the training images have {only}, as the value {value} is ignored; "
        f"nothing would be learned. {remedy[0].upper()}{remedy[1:]}; if {value} is nothing, label other classes"
    )
