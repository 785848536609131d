"""Lays out the images that the small backbones are pretrained on: one folder a source, from public repositories.

The repositories are read as bare git snapshots, through `git cat-file --batch`, so that nothing is checked out; the
wallpaper packages of Debian are read where `dpkg-deb -x` unpacked them. What comes out:

    OUT/train/<source>/[<class>/]<image>            images to pretrain on, most of them unlabelled
    OUT/train_extra/<source>/[<class>/]<image>      more of them (`--part train_extra`)
    OUT/choose/<set>/<split>/<class>/<image>        labelled sets that choices are made on, never pretrained on
    OUT/index.csv                                   every file with its source, size and difference hash
    OUT/READY, OUT/READY_EXTRA                      a summary in JSON: counts, sizes, licences, what was left out

An image keeps its bytes where it is an upright RGB JPEG or PNG with a shorter side of at most 256 pixels; any other is
written anew as JPEG. Large photographs give crops as well. Left out of the training parts: what cannot be decoded, near
duplicates (across all sources, the first in the table stays), and near duplicates of any image of `choose` or of the
folders named with `--avoid`.

    python benchmarks/pretraining_data.py --mirror MIRROR --packages UNPACKED --out OUT --avoid HELD_OUT...
    python benchmarks/pretraining_data.py --mirror MIRROR --packages UNPACKED --out OUT --part train_extra
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import random
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from pretraining_sources import SOURCES, Part, Source

SIDE = 256  # pixels of the shorter side of what is written anew
QUALITY = 92
NEAR = 3  # bits in which the hashes of near duplicates differ at most
NOT_IN_NAMES = r"[^A-Za-z0-9._'-]+"  # what becomes an underscore in the names of files
IMAGES = re.compile(r"\.(jpe?g|png|webp|tiff?|bmp)$", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """One image as its source has it: the path, and the name of its content (git's, or a SHA-1)."""

    path: str
    content: str


@dataclass(frozen=True)
class Record:
    """One file laid out: `image` is the same for an image and its crops, `size` is (height, width) as written."""

    source: str
    part: str
    image: str
    file: str
    size: tuple[int, int]
    difference_hash: int


# ---------------------------------------------------------------------------------------------- reading the sources


class GitImages:
    """The images of a bare git snapshot's newest commit."""

    def __init__(self, mirror: Path, repository: str) -> None:
        folder = mirror / repository.replace("/", "+") / "repo"
        self.folder = folder / ".git" if (folder / ".git").is_dir() else folder

    def _git(self, *arguments: str) -> bytes:
        return subprocess.run(["git", "-C", str(self.folder), *arguments], check=True, capture_output=True).stdout

    def entries(self) -> list[Entry]:
        """All files, sorted by path."""
        lines = self._git("ls-tree", "-r", "-z", "HEAD").decode("utf-8", "replace").split("\0")
        fields = (line.split("\t", 1) for line in lines if line)
        return sorted((Entry(path, about.split()[2]) for about, path in fields), key=lambda entry: entry.path)

    def text(self, path: str) -> str:
        """The text of one file."""
        return self._git("show", f"HEAD:{path}").decode()

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """The bytes of files, in order; files that the snapshot lacks are passed over."""
        with tempfile.TemporaryFile() as names:
            names.write("".join(f"{entry.content}\n" for entry in entries).encode())
            names.seek(0)
            command = ["git", "-C", str(self.folder), "cat-file", "--batch"]
            with subprocess.Popen(command, stdin=names, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                for entry in entries:
                    header = process.stdout.readline().split()
                    if header[-1] == b"missing":
                        continue
                    data = process.stdout.read(int(header[2]))
                    process.stdout.read(1)  # the line's end after the content
                    yield entry, data


class FolderImages:
    """The images of folders, such as unpacked Debian packages."""

    def __init__(self, root: Path, folders: Iterable[str]) -> None:
        self.root, self.folders = root, tuple(folders)

    def entries(self) -> list[Entry]:
        """All files (not links), sorted by path."""
        paths = (path for folder in self.folders for path in (self.root / folder).rglob("*"))
        files = sorted(path for path in paths if path.is_file() and not path.is_symlink())
        return [Entry(str(path.relative_to(self.root)), hashlib.sha1(path.read_bytes()).hexdigest()) for path in files]

    def text(self, path: str) -> str:
        """The text of one file."""
        return (self.root / path).read_text()

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """The bytes of files, in order."""
        for entry in entries:
            yield entry, (self.root / entry.path).read_bytes()


def open_source(source: Source, mirror: Path, packages: Path) -> GitImages | FolderImages:
    """The reader of a source's files."""
    kind, name = source.origin.split(":", 1)
    return GitImages(mirror, name) if kind == "github" else FolderImages(packages, name.split())


def select(source: Source, entries: Iterable[Entry]) -> tuple[list[Entry], Counter[str]]:
    """The entries that a source uses, in order of path, and how many were left out for which reason."""
    pattern, left_out, seen, chosen = re.compile(source.pattern), Counter[str](), set[str](), []
    for entry in entries:
        if not (pattern.search(entry.path) and IMAGES.search(entry.path)):
            continue
        if entry.content in seen and source.part != "choose":
            left_out["the same bytes as another of this source"] += 1
            continue
        seen.add(entry.content)
        chosen.append(entry)
    if source.cap is not None and len(chosen) > source.cap:
        left_out[f"over the cap of {source.cap}"] = len(chosen) - source.cap
        kept = random.Random(source.name).sample(range(len(chosen)), source.cap)
        chosen = [chosen[index] for index in sorted(kept)]
    return chosen, left_out


# ------------------------------------------------------------------------------------------------------- the images


def open_image(data: bytes) -> Image.Image:
    """Decodes an image whole; `OSError`, `ValueError` or `SyntaxError` where that fails."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """The image upright, in RGB; what is transparent becomes white, 16-bit grey keeps its upper 8 bits."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def keeps_bytes(image: Image.Image) -> bool:
    """Whether a decoded image may stay as it is: an upright RGB JPEG or PNG of at most `SIDE` pixels."""
    upright = image.getexif().get(0x0112, 1) == 1
    return image.format in ("JPEG", "PNG") and image.mode == "RGB" and min(image.size) <= SIDE and upright


def shrink(image: Image.Image) -> Image.Image:
    """The image with a shorter side of at most `SIDE` pixels, antialiased, its aspect ratio kept."""
    scale = SIDE / min(image.size)
    if scale >= 1:
        return image
    width, height = (max(SIDE, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def detail(image: Image.Image) -> float:
    """How much neighbouring grey levels differ on average, from 0 (flat) to about 20 (grass, in focus)."""
    grey = np.asarray(image.convert("L"), dtype=np.float32)  # (H, W)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2


def crop(image: Image.Image, largest: int, draw: random.Random) -> Image.Image:
    """A square of `image` with a side drawn evenly in its logarithm, shrunk."""
    width, height = image.size
    side = round(SIDE * (min(largest, width, height) / SIDE) ** draw.random())
    left, top = draw.randint(0, width - side), draw.randint(0, height - side)
    return shrink(image.crop((left, top, left + side, top + side)))


def crops(image: Image.Image, source: Source, name: str) -> Iterator[Image.Image]:
    """The crops of one image: as many as `source` says, but fewer than its area holds twice over."""
    width, height = image.size
    if min(width, height) < SIDE:
        return
    draw = random.Random(name)
    for _ in range(min(source.crops, round(2 * width * height / SIDE**2))):
        square = crop(image, source.largest_crop, draw)
        if detail(square) >= source.least_detail:
            yield square


def difference_hash(image: Image.Image) -> int:
    """64 bits: whether each of 8 rows of 9 grey levels, the image made as small as that, rises from left to right."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)  # (8, 9)
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])  # (8,) bytes
    return int.from_bytes(bits.tobytes())


def hashes_to_avoid(image: Image.Image) -> list[int]:
    """Hashes of the image whole and of its central square, in which small copies of it often come."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return [difference_hash(image), difference_hash(image.crop((left, top, left + side, top + side)))]


# ------------------------------------------------------------------------------------------------------- duplicates


def near_pairs(hashes: npt.NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """All pairs i < j of distinct hashes that differ in at most `NEAR` bits, some of them more than once.

    Two such hashes agree in one of `NEAR` + 1 bands at least, so only hashes that share a band are compared.
    """
    width = 64 // (NEAR + 1)
    for band in range(NEAR + 1):
        keys = (hashes >> np.uint64(band * width)) & np.uint64(2**width - 1)
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order[:1]] + 1))
        for group in np.split(order, starts[1:]):
            for position, index in enumerate(group[:-1]):
                others = group[position + 1 :]
                near = others[np.bitwise_count(hashes[others] ^ hashes[index]) <= NEAR]
                yield from ((int(index), int(other)) for other in near)


def find_duplicates(known: Sequence[int], new: Sequence[int]) -> list[int | None]:
    """For each new hash, the position (in `known` followed by `new`) of a kept earlier near duplicate, or None."""
    every = np.array([*known, *new], dtype=np.uint64)
    unique, first, inverse = np.unique(every, return_index=True, return_inverse=True)
    neighbours: dict[int, set[int]] = {}
    for left, right in near_pairs(unique):
        one, other = sorted((int(first[left]), int(first[right])))
        neighbours.setdefault(other, set()).add(one)
    duplicate: list[int | None] = [None] * len(every)
    for position in range(len(known), len(every)):
        original = int(first[inverse[position]])
        if original < position:  # the same hash came before, kept or itself a duplicate
            duplicate[position] = original if duplicate[original] is None else duplicate[original]
            continue
        kept = (earlier for earlier in sorted(neighbours.get(position, ())) if duplicate[earlier] is None)
        duplicate[position] = next(kept, None)
    return duplicate[len(known) :]


# ------------------------------------------------------------------------------------------------------- laying out


def folder_of(source: Source, entry: Entry, classes: dict[str, str]) -> Path:
    """Where an entry's files go, below the output folder."""
    match = re.search(source.pattern, entry.path)
    groups = match.groupdict() if match else {}
    split = groups.get("split") or ("val" if source.part == "choose" else "")
    return Path(source.part, source.name, split, groups.get("class") or classes.get(Path(entry.path).name, ""))


def lay_out_image(source: Source, entry: Entry, data: bytes, out: Path, folder: Path) -> list[Record]:
    """Writes one image and its crops; returns a record of each file."""
    decoded = open_image(data)
    image = to_rgb(decoded)
    stem = f"{re.sub(NOT_IN_NAMES, '_', Path(entry.path).stem)}-{entry.content[:8]}"
    hashed = difference_hash(image)
    (out / folder).mkdir(parents=True, exist_ok=True)
    records = []

    def record(file: Path, size: tuple[int, int]) -> None:
        width, height = size
        records.append(Record(source.name, source.part, str(folder / stem), str(file), (height, width), hashed))

    if keeps_bytes(decoded):
        file = folder / f"{stem}.{'jpg' if decoded.format == 'JPEG' else 'png'}"
        (out / file).write_bytes(data)
        record(file, image.size)
        return records
    pictures = [("", shrink(image))]
    if source.crops:
        pictures += [(f"-crop{index:02}", square) for index, square in enumerate(crops(image, source, stem))]
    for suffix, picture in pictures:
        file = folder / f"{stem}{suffix}.jpg"
        picture.save(out / file, quality=QUALITY)
        record(file, picture.size)
    return records


def lay_out_source(source: Source, reader: GitImages | FolderImages, out: Path) -> tuple[list[Record], Counter[str]]:
    """Writes the images of one source; returns the records and what was left out for which reason."""
    shutil.rmtree(out / source.part / source.name, ignore_errors=True)
    entries = reader.entries()
    if source.listed:
        names = {line.split(",")[0] for line in reader.text(source.listed).splitlines()}
        entries = [entry for entry in entries if Path(entry.path).name in names]
    chosen, left_out = select(source, entries)
    lines = (line.split("\t") for line in reader.text(source.labels).splitlines()) if source.labels else ()
    classes = {line[0]: line[1] for line in lines}
    records: list[Record] = []
    for entry, data in reader.read(chosen):
        try:
            records += lay_out_image(source, entry, data, out, folder_of(source, entry, classes))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            left_out["cannot be decoded"] += 1
    if not records:
        raise ValueError(f"{source.name}: no image of {source.origin} matches {source.pattern!r}; change the pattern")
    return records, left_out


def folder_hashes(folder: Path) -> list[int]:
    """The hashes of the images of a folder and of their central squares."""
    files = sorted(path for path in folder.rglob("*") if IMAGES.search(path.name))
    return [hashed for path in files for hashed in hashes_to_avoid(to_rgb(open_image(path.read_bytes())))]


def remove_duplicates(
    records: Sequence[Record], avoid: Sequence[int], earlier: Sequence[Record], out: Path
) -> tuple[list[Record], dict[str, Counter[str]]]:
    """Deletes near duplicates among `records`; returns the rest, and for each source how many images went and why."""
    hashes = {record.image: record.difference_hash for record in records}
    owners = {record.image: record.source for record in records}
    known = {record.image: record.difference_hash for record in earlier}
    names = [*sources_of(known, earlier), *(owners[image] for image in hashes)]
    found = find_duplicates([*avoid, *known.values()], list(hashes.values()))
    removed: dict[str, Counter[str]] = {}
    gone = set()
    for image, position in zip(hashes, found, strict=True):
        if position is None:
            continue
        of = "an image to choose by or held out" if position < len(avoid) else names[position - len(avoid)]
        removed.setdefault(owners[image], Counter())[f"near duplicate of {of}"] += 1
        gone.add(image)
    for record in records:
        if record.image in gone:
            (out / record.file).unlink()
    return [record for record in records if record.image not in gone], removed


def sources_of(known: dict[str, int], records: Sequence[Record]) -> list[str]:
    """The sources of the images of `known`, in order."""
    owners = {record.image: record.source for record in records}
    return [owners[image] for image in known]


# -------------------------------------------------------------------------------------------------------- summaries


def summarize(source: Source, records: Sequence[Record], left_out: Counter[str]) -> dict[str, object]:
    """One source in numbers, for JSON."""
    sides = np.array([min(record.size) for record in records] or [0])
    classes = {Path(record.file).parent.name for record in records}
    bands = Counter(
        f"{low}-{high - 1}"
        for low, high in ((1, 64), (64, 128), (128, 224), (224, 257), (257, 10**5))
        for side in sides
        if low <= side < high
    )
    return {
        "repository": source.origin,
        "licence": source.licence,
        "what": source.what,
        "files": len(records),
        "images": len({record.image for record in records}),
        "classes": len(classes) if re.search(r"\?P<class>", source.pattern) or source.labels else 0,
        "shorter side": {"median": int(np.median(sides)), "least": int(sides.min()), "files by px": dict(bands)},
        "left out": dict(left_out),
    }


def write_index(path: Path, records: Sequence[Record]) -> None:
    """Writes the index of all files."""
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["part", "source", "image", "file", "height", "width", "difference_hash"])
        rows.writerows(
            [item.part, item.source, item.image, item.file, *item.size, f"{item.difference_hash:016x}"]
            for item in records
        )


def read_index(path: Path) -> list[Record]:
    """Reads the index; an empty list where there is none."""
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return [
            Record(
                row["source"],
                row["part"],
                row["image"],
                row["file"],
                (int(row["height"]), int(row["width"])),
                int(row["difference_hash"], 16),
            )
            for row in csv.DictReader(stream)
        ]


def write_imagenet_classes(out: Path, records: Sequence[Record]) -> None:
    """Writes the names of ImageNet's classes, a line each in order of the index, from the names of the sample's files.

    The folders are WordNet identifiers, and in their order lies ImageNet's index.
    """
    names = {}
    for record in records:
        stem = Path(record.image).name.rsplit("-", 1)[0]
        identifier, _, name = stem.partition("_")
        names[identifier] = name.replace("_", " ")
    (out / "classes.txt").write_text("".join(f"{names[identifier]}\n" for identifier in sorted(names)))


def lay_out(
    parts: Sequence[Part], only: Sequence[str], mirror: Path, packages: Path, avoid: Sequence[Path], out: Path
) -> dict[str, dict[str, object]]:
    """Lays out all sources of `parts` (or those named in `only`); returns their summaries."""
    out.mkdir(parents=True, exist_ok=True)
    sources = [source for source in SOURCES if source.part in parts and (not only or source.name in only)]
    again = {(source.part, source.name) for source in sources}
    earlier = [record for record in read_index(out / "index.csv") if (record.part, record.source) not in again]
    records: list[Record] = []
    left_out: dict[str, Counter[str]] = {}
    for source in sources:
        made, left_out[source.name] = lay_out_source(source, open_source(source, mirror, packages), out)
        print(f"{source.part}/{source.name}: {len(made)} files", flush=True)
        if source.name == "imagenet_sample":
            write_imagenet_classes(out / source.part / source.name, made)
        records += made
    hashes = [hashed for folder in (out / "choose", *avoid) for hashed in folder_hashes(folder)]
    chosen = [record for record in records if record.part == "choose"]
    hashes += [record.difference_hash for record in (*earlier, *chosen) if record.part == "choose"]
    new = [record for record in records if record.part != "choose"]
    kept, removed = remove_duplicates(new, hashes, [record for record in earlier if record.part != "choose"], out)
    for name, counts in removed.items():
        left_out[name] += counts
    write_index(out / "index.csv", [*earlier, *chosen, *kept])
    by_source: dict[str, list[Record]] = {source.name: [] for source in sources}
    for record in (*chosen, *kept):
        by_source[record.source].append(record)
    return {
        f"{source.part}/{source.name}": summarize(source, by_source[source.name], left_out[source.name])
        for source in sources
    }


def main() -> None:
    """Reads the command line, lays the images out and writes the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mirror", type=Path, required=True, help="folder of git snapshots, OWNER+NAME/repo")
    parser.add_argument("--packages", type=Path, required=True, help="folder of unpacked Debian packages")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--avoid", type=Path, nargs="*", default=[], help="folders of images to hold out")
    parser.add_argument("--part", choices=["main", "train_extra"], default="main", help="main: train and choose")
    parser.add_argument("--only", nargs="*", default=[], help="names of sources; all of the part by default")
    options = parser.parse_args()
    extra = options.part == "train_extra"
    parts: tuple[Part, ...] = ("train_extra",) if extra else ("choose", "train")
    summary = lay_out(parts, options.only, options.mirror, options.packages, options.avoid, options.out)
    ready = options.out / ("READY_EXTRA" if extra else "READY")
    earlier = json.loads(ready.read_text()) if ready.exists() else {}
    ready.write_text(json.dumps({**earlier, **summary}, indent=1) + "\n")


if __name__ == "__main__":
    main()
