"""Lays out labelled images of many pixels, from public repositories, each set with a fixed split.

    python benchmarks/high_resolution_data.py --mirror MIRROR --out OUT

MIRROR holds bare git snapshots, as for `pretraining_data.py`. What comes out:

    OUT/xrays/{train,val}/CLASS/        chest X-rays of one megapixel and more (lecuong1502/BTL_Machine_Learning)
    OUT/seedlings/{train,val}/CLASS/    plant seedlings, the large ones (sergeyvilov/plant_seedings)
    OUT/coins/{train,val}/CLASS/        euro coins, as that set splits them (kaa/coins-dataset, MIT)
    OUT/weeds/{train,val}/, ..._labels/ crop and weed in a field, classes of pixels (cwfid/dataset, research only)
    OUT/sets.json                       what was laid out: images of each class, megapixels, what was left out

A quarter of the X-rays and seedlings is for validation, by digests: of the patient where the name has one, so that no
patient is in both parts; else of the file. Equal files are there once. Files keep their bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from pretraining_data import Entry, GitImages

XRAYS, SEEDLINGS = "lecuong1502/BTL_Machine_Learning", "sergeyvilov/plant_seedings"
COINS, WEEDS = "kaa/coins-dataset", "cwfid/dataset"
MEGAPIXEL = 10**6
VALIDATION = 0.25
PATIENT = re.compile(r"(person\d+|IM-\d+)")
WEED_CLASSES = {"soil": (0, 0, 0), "crop": (0, 255, 0), "weed": (255, 0, 0)}


@dataclass
class Laid:
    """What was laid out of a set."""

    images: Counter[str] = field(default_factory=Counter)  # by split/class
    left_out: Counter[str] = field(default_factory=Counter)  # by reason
    megapixels: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """What `sets.json` says of it."""
        least, median, most = np.percentile(self.megapixels, (0, 50, 100)).round(2).tolist()
        megapixels = {"least": least, "median": median, "most": most}
        return {"images": dict(sorted(self.images.items())), "megapixels": megapixels, "left out": dict(self.left_out)}


def split_of(key: str) -> str:
    """Return "train" or "val", always the same for a key."""
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return "val" if share < VALIDATION else "train"


def patient_of(entry: Entry) -> str:
    """Return what an X-ray's name says of its patient; the file itself where that is nothing."""
    found = PATIENT.search(Path(entry.path).name)
    return found.group(1) if found else entry.content


def lay_out_classes(
    source: GitImages,
    out: Path,
    *,
    below: re.Pattern[str],
    split: Callable[[Entry, re.Match[str]], str],
    least_pixels: int = 0,
) -> Laid:
    """Write class folders.

    Args:
        source: Of the files.
        out: Folder of the set.
        below: Matches the paths that are taken; its group "label" is the class.
        split: Says which part an entry belongs to.
        least_pixels: Leave out smaller images.
    """
    laid, seen = Laid(), set[str]()
    matches = {entry: match for entry in source.entries() if (match := below.fullmatch(entry.path))}
    for entry, data in source.read(list(matches)):
        try:
            with Image.open(io.BytesIO(data)) as image:
                pixels = image.width * image.height
                image.load()
        except OSError:
            laid.left_out["cannot be decoded"] += 1
            continue
        if pixels < least_pixels:
            laid.left_out[f"below {least_pixels:,} pixels"] += 1
        elif entry.content in seen:
            laid.left_out["equal to another"] += 1
        else:
            seen.add(entry.content)
            place = f"{split(entry, matches[entry])}/{matches[entry]['label']}"
            folder = out / place
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Path(entry.path).name).write_bytes(data)
            laid.images[place] += 1
            laid.megapixels.append(pixels / 1e6)
    return laid


def lay_out_weeds(source: GitImages, out: Path) -> Laid:
    """Write photographs of a field and index images of their classes; the split is the set's own.

    An image that its authors list in both parts is in the one for validation.
    """
    laid = Laid()
    parts = yaml.safe_load(source.text("train_test_split.yaml"))
    split = dict.fromkeys(parts["train"], "train") | dict.fromkeys(parts["test"], "val")
    laid.left_out["from train, as it is in val"] += len(set(parts["train"]) & set(parts["test"]))
    named = {entry.path: entry for entry in source.entries()}
    for number, part in sorted(split.items()):
        wanted = [named[f"images/{number:03}_image.png"], named[f"annotations/{number:03}_annotation.png"]]
        (_, image), (_, annotation) = source.read(wanted)
        colours = np.asarray(Image.open(io.BytesIO(annotation)).convert("RGB"))
        label = np.zeros(colours.shape[:2], np.uint8)
        for value, colour in enumerate(WEED_CLASSES.values()):
            label[(colours == colour).all(axis=2)] = value
        for folder, data in ((part, image), (f"{part}_labels", None)):
            (out / folder).mkdir(parents=True, exist_ok=True)
            path = out / folder / f"{number:03}.png"
            Image.fromarray(label).save(path) if data is None else path.write_bytes(data)
        laid.images[part] += 1
        laid.megapixels.append(label.size / 1e6)
    (out / "classes.txt").write_text("\n".join(WEED_CLASSES) + "\n")
    return laid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    def source(name: str) -> GitImages:
        return GitImages(options.mirror, name)

    sets = {
        "xrays": lay_out_classes(
            source(XRAYS),
            options.out / "xrays",
            below=re.compile(r"(?:train|val|test)/(?P<label>NORMAL|PNEUMONIA)/.*\.jpe?g"),
            split=lambda entry, _: split_of(patient_of(entry)),
            least_pixels=MEGAPIXEL,
        ),
        "seedlings": lay_out_classes(
            source(SEEDLINGS),
            options.out / "seedlings",
            below=re.compile(r"train_large_img/(?P<label>[^/]+)/.*\.png"),
            split=lambda entry, _: split_of(entry.content),
        ),
        "coins": lay_out_classes(
            source(COINS),
            options.out / "coins",
            below=re.compile(r"classified/(?P<part>train|test)/(?P<label>[^/]+)/.*\.jpg"),
            split=lambda _, match: "val" if match["part"] == "test" else "train",
        ),
        "weeds": lay_out_weeds(source(WEEDS), options.out / "weeds"),
    }
    summary = json.dumps({name: laid.summary() for name, laid in sets.items()}, indent=2)
    (options.out / "sets.json").write_text(summary + "\n")
    print(summary)


if __name__ == "__main__":
    main()
