"""Annotation files spoilt at random: `python tests/datasets/mutations.py [NUMBER] [SEED]` tries many of them.

Whatever is done to a file, reading it gives a split, or a ValueError that names the file and the image, annotation or
category concerned; and with `skip_invalid` all else is read.
"""

from __future__ import annotations

import copy
import json
import math
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from datasets.coco_cases import random_content, write_images
from vision_longformer.datasets.coco import CocoSplit, read_coco
from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.evaluation.coco import coco_results, evaluate
from vision_longformer.masks.rle import segmentation_to_rle

ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    "",
    "x",
    "\ud800",
    "\0",
    "7",
    [],
    {},
    [[]],
    [None],
    {"size": [3, 4], "counts": [12]},
    0,
    -1,
    0.5,
    1e9,
    1e300,
    math.nan,
    math.inf,
    -math.inf,
    2**31,
    2**63,
    10**400,
)
NAMES_AN_ENTRY = re.compile(r"\b(image|annotation|category)\b")


def somewhere(content: Any, generator: random.Random) -> tuple[Any, Any]:
    """Return a (container, key) within a file, but not one of its three lists as a whole; often in a segmentation."""
    container = content[generator.choice([name for name in (*content, "annotations") if content[name]])]
    while True:
        key = generator.choice(list(container) if isinstance(container, dict) else range(len(container)))
        if "segmentation" in container and generator.random() < 0.4:
            key = "segmentation"
        if not isinstance(container[key], list | dict) or not container[key] or generator.random() < 0.3:
            return container, key
        container = container[key]


def spoil(content: Any, generator: random.Random) -> None:
    """Change one thing, somewhere in the entries of a file."""
    container, key = somewhere(content, generator)
    value = container[key]
    kind = generator.choice(["delete", "odd", "number", "number", "text", "text", "twice", "exchange", "length"])
    if kind == "delete":
        del container[key]
    elif kind == "number" and isinstance(value, int | float):
        container[key] = generator.choice([-value, value + 1, value * 1000, value / 3, float(value), str(value)])
    elif kind == "text" and isinstance(value, str):
        cut = generator.randrange(len(value) + 1)
        container[key] = value[:cut] + generator.choice(["", chr(generator.randrange(33, 127)), "~", "é", value])
    elif kind == "twice" and isinstance(container, list):
        container.insert(generator.randrange(len(container) + 1), copy.deepcopy(value))
    elif kind == "exchange":
        other, place = somewhere(content, generator)
        container[key] = copy.deepcopy(other[place])
    elif kind == "length" and isinstance(value, list):
        del value[generator.randrange(len(value) + 1) :]
    else:
        container[key] = copy.deepcopy(generator.choice(ODD_VALUES))


def check_mutation(folder: Path, valid: dict[str, Any], seed: int) -> str:
    """Read a spoilt copy of a file, and do all that compiled code does with it; return what happened."""
    generator = random.Random(seed)
    content = copy.deepcopy(valid)
    for _ in range(generator.choice([1, 1, 1, 1, 1, 1, 2, 4])):
        spoil(content, generator)
    file = folder / f"{seed}.json"
    text = json.dumps(content)
    if generator.random() < 0.03:  # the file as a whole is cut short
        text = text[: generator.randrange(len(text))]
    file.write_text(text)
    try:
        use(read_coco(file, folder, with_masks=True))
        outcome = "read"
    except ValueError as error:
        message = str(error)
        assert message.startswith(f"{file}: "), message
        assert message.isascii() or all(character.isprintable() or character == "\n" for character in message), message
        assert NAMES_AN_ENTRY.search(message) or "is not JSON" in message or "the list" in message, message
        assert len(message) < 4000, len(message)
        outcome = "refused"
    split, error_of_all = read_all_else(file, folder)
    file.unlink()
    if split is None:
        whole = ("is not JSON", "the list", "has no image that can be used", "has no category that can be used")
        assert any(reason in error_of_all for reason in whole), error_of_all
        return f"{outcome}, nothing left"
    use(split)
    assert bool(split.skipped) == (outcome == "refused")
    counted = sum(split.skipped.values()) + len(split) + len(split.labels) + len(split.classes)
    assert counted == sum(len(content[name]) for name in ("images", "annotations", "categories"))
    return outcome


def read_all_else(file: Path, folder: Path) -> tuple[CocoSplit | None, str]:
    """Return what is left of a file, or why nothing is."""
    try:
        return read_coco(file, folder, with_masks=True, skip_invalid=True), ""
    except ValueError as error:
        return None, str(error)


def use(split: CocoSplit) -> None:
    """Rasterise every mask, and evaluate the annotations as detections of themselves."""
    assert split.segmentations is not None
    found = {}
    for image in range(len(split)):
        indices = list(split.annotations(image))
        rles = [segmentation_to_rle(split.segmentations, place, split.size(image)) for place in indices]
        scores = (split.annotation_ids[indices] % 7 + 1.0) / 8
        found[image] = FoundObjects(split.boxes[indices], scores, split.labels[indices], rles)
    evaluate(split, coco_results(split, found), masks=True)


def main(number: int = 2000, seed: int = 0) -> None:
    """Try many spoilt files and say what became of them."""
    outcomes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        content = random_content()
        folder = write_images(Path(name), content)
        for trial in range(number):
            try:
                outcome = check_mutation(folder, content, seed * number + trial)
            except BaseException:
                print(f"trial {seed * number + trial}:")
                raise
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    print(outcomes)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
