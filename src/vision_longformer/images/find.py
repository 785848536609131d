"""Which images are meant: files, folders with all that is below them, patterns, and lists of them."""

from __future__ import annotations

import contextlib
import functools
import glob
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import tifffile
from PIL import Image
from PIL.ImageFile import StubImageFile

from vision_longformer.images.lists import AS_OTHERS, SUFFIX, Asked, read_list
from vision_longformer.images.open import SLIDE_SUFFIXES, Reading, is_zarr
from vision_longformer.images.reader import identity
from vision_longformer.utils.remote import RemoteFile, is_url, list_files, local_copy, whole_url

FOLDERS = (".geotiff", ".zarr")  # of features
# Of Pillow's formats, what it cannot decode by itself: it knows the first by name alone, and runs Ghostscript for the
# second.
_NOT_DECODED = ("MPEG", "EPS")
_SHOWN = 5  # suffixes in a sentence


@dataclass(frozen=True)
class Source:
    """An image file, and its path below the folder that all images of a run share.

    Attributes:
        path: Of the file, or folder of a Zarr array.
        name: That path below the shared folder.
        remote: Where it lies, if it is not at `path`: see `at_hand`.
        asked: How a list says that it is read.
    """

    path: Path
    name: str
    remote: RemoteFile | None = None
    asked: Asked = AS_OTHERS

    @property
    def location(self) -> str:
        """Where it lies, for people: a path or URL."""
        return str(self.path) if self.remote is None else self.remote.url

    @property
    def state(self) -> str:
        """What changes when the file does; "" where that is not known before it is read.

        Raises:
            OSError: There is no such file.
        """
        return identity(self.path) if self.remote is None else self.remote.state

    @property
    def size(self) -> int | None:
        """Bytes of the file; None of a folder, and where a server does not say."""
        if self.remote is not None:
            return self.remote.size
        return None if self.path.is_dir() else self.path.stat().st_size

    @contextlib.contextmanager
    def at_hand(self) -> Iterator[Source]:
        """Have the file at `path`, a temporary copy if it lies elsewhere, as long as the context lasts.

        Raises:
            OSError: It cannot be copied.
        """
        if self.remote is None:
            yield self
        else:
            with local_copy(self.remote) as path:
                yield replace(self, path=path)

    def target(self, output: Path, kind: str = "safetensors") -> Path:
        """Return the feature file or folder: the image's name, suffix kept, so that x.jpg and x.png stay apart."""
        return output / f"{self.name}.{kind}"


@dataclass(frozen=True)
class ImagesBelow:
    """What a folder holds, with all that is below it.

    Attributes:
        images: Files, and folders of Zarr arrays, sorted.
        others: What was not taken: how many there are for each reason, in few words.
    """

    images: tuple[Path, ...]
    others: dict[str, int]

    def remark(self) -> str:
        """Return in few words what was not taken; "" if everything was."""
        by_number = sorted(self.others.items(), key=lambda pair: (-pair[1], pair[0]))
        listed = [f"{number} {reason}" for reason, number in by_number[:_SHOWN]]
        rest = sum(number for _, number in by_number[_SHOWN:])
        return ", ".join(listed + ([f"{rest} of other kinds"] if rest else []))


@functools.cache
def suffixes() -> frozenset[str]:
    """Return the endings, in lower case, by which images are found in folders: those that the readers read.

    These are the formats that Pillow decodes here, every kind of TIFF, slides, and arrays of NumPy and Zarr.
    """
    Image.init()
    pillow = {
        suffix
        for suffix, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in _NOT_DECODED and not _is_stub(Image.OPEN[kind][0])
    }
    tiff = {f".{suffix}" for suffix in tifffile.TIFF.FILE_EXTENSIONS}
    return frozenset(pillow | tiff | {*SLIDE_SUFFIXES, ".npy", ".zarr.zip"})


def is_image_name(name: str) -> bool:
    """Tell whether a file is an image by its name, which is not hidden: that of x.jpg is, ._x.jpg is a note on it."""
    name = name.lower()
    return not name.startswith(".") and (os.path.splitext(name)[1] in suffixes() or name.endswith(".zarr.zip"))


def images_below(folder: Path) -> ImagesBelow:
    """Find the images in a folder and in all below it, which links may lead to.

    Hidden files and folders and features are passed over, and so are links that lead back up, to a folder that is
    being searched.
    """
    images: list[Path] = []
    others = Counter[str]()
    to_search: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while to_search:
        here, above = to_search.pop()
        try:
            status, entries = here.stat(), list(os.scandir(here))
        except OSError:
            others["in a folder that cannot be opened"] += 1
            continue
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            others["link to a folder above it"] += 1
            continue
        for entry in entries:
            path = Path(entry.path)
            # an entry knows its kind without asking the file system, but raises where links lead in a circle
            known: os.DirEntry[str] | Path = path if entry.is_symlink() else entry
            if entry.name.startswith("."):
                others["hidden"] += 1
            elif known.is_dir():
                if is_features(path):
                    others["of features"] += 1
                elif is_zarr(path):
                    images.append(path)
                else:
                    to_search.append((path, above | {identity}))
            elif not is_image_name(entry.name):
                others[path.suffix.lower() or "without a suffix"] += 1
            elif known.is_file():
                images.append(path)
            else:
                others["that are no files, or links to nothing"] += 1
    return ImagesBelow(tuple(sorted(images)), dict(others))


def is_features(folder: Path) -> bool:
    """Tell whether a folder holds features, or began to: one of rasters, or one in Zarr that says so."""
    if folder.suffix != ".zarr" or not is_zarr(folder):
        return folder.suffix in FOLDERS
    try:
        attributes = json.loads((folder / "zarr.json").read_text(encoding="utf-8")).get("attributes", {})
        return "vision_longformer" in attributes
    except (OSError, ValueError, AttributeError, TypeError):
        return False  # of an older version of Zarr, or damaged, which reading it says


def no_image_in(folder: str | Path, found: ImagesBelow) -> str:
    """Return the sentence for a folder without images."""
    there = f" that can be read; it has {found.remark()}" if found.others else ""
    return f"{folder}: this folder holds no image{there}"


def find_images(
    arguments: Sequence[str], *, remark: Callable[[str], None] = lambda text: None, urls: bool = False
) -> list[Source]:
    """Find the images that files, folders and patterns mean, each once.

    Folders are searched with all that is below them for files of the kinds that can be read (see `suffixes`), hidden
    ones and features aside, which patterns pass over too. Files named by hand may be anything; a CSV file is a list of
    images (see `read_list`). Names are relative to the deepest folder that holds all arguments, or all images of a
    list, so no two are the same.

    Args:
        arguments: Files, folders, patterns and lists.
        remark: Called with a sentence for each folder, and each list, that holds something else too.
        urls: Whether arguments may be URLs, all of them then: of files, of folders, and patterns. Arrays in Zarr are
            not found so.

    Raises:
        FileNotFoundError: An argument means nothing, or a folder holds no image.
        OSError: A URL cannot be reached.
        ImportError: A package for URLs is missing.
        ValueError: Some arguments are URLs and some are not, or a list is damaged.
    """
    if urls and any(map(is_url, arguments)):
        return _find_remote(arguments)
    found: dict[Path, Asked] = {}  # in order, each once
    roots = []
    for argument in arguments:
        path = Path(os.path.abspath(argument))
        images: Sequence[Path]
        if is_zarr(path):
            roots.append(path.parent)
            images = [path]
        elif path.is_dir():
            roots.append(path)
            below = images_below(path)
            images = below.images
            if not images:
                raise FileNotFoundError(no_image_in(argument, below))
            if below.others:
                remark(f"{argument}: passed over {below.remark()}")
        elif path.suffix.lower() == SUFFIX and path.is_file():
            listed = read_list(path, remark=remark)
            roots.append(Path(os.path.commonpath([image.parent for image in listed])))
            found.update(listed)
            continue
        elif os.path.lexists(path):
            roots.append(path.parent)
            images = [path]
        else:
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            named = _in_features(path)  # the pattern itself names a folder of features
            images = [match for match in matches if _is_file(match) and (named or not _in_features(match))]
            if not images:
                raise FileNotFoundError(f"{argument}: there is no such file or folder")
            roots.append(Path(os.path.commonpath([image.parent for image in images])))
        found |= {image: found.get(image, AS_OTHERS) for image in images}
    common = os.path.commonpath(roots) if roots else ""
    return [Source(path, path.relative_to(common).as_posix(), asked=asked) for path, asked in found.items()]


def by_reading(sources: Sequence[Source], reading: Reading) -> dict[Reading, list[Source]]:
    """Return images by how they are read, in order.

    Args:
        sources: From `find_images`.
        reading: Of those of which no list says how.
    """
    found: dict[Reading, list[Source]] = {}
    for source in sources:
        found.setdefault(source.asked.on(reading), []).append(source)
    return found


def _find_remote(arguments: Sequence[str]) -> list[Source]:
    """Find the images that URLs mean. See `find_images`."""
    found: dict[str, RemoteFile] = {}
    folders: list[list[str]] = []
    for argument in arguments:
        if not is_url(argument):
            raise ValueError(f"{argument}: give either URLs or paths, not both")
        files, url = list_files(argument), whole_url(argument)
        below = len(files) > 1 or files[0].url != url
        if below and not any(sign in argument for sign in "*?["):
            files = [file for file in files if is_image_name(file.url.rpartition("/")[2])]
            if not files:
                raise FileNotFoundError(f"{argument}: this folder holds no image that can be read")
            folders.append(url.split("/"))
        else:
            folders += [file.url.split("/")[:-1] for file in files]
        found.update((file.url, file) for file in files)
    common = sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False)))
    return [Source(Path(url), "/".join(url.split("/")[common:]), file) for url, file in found.items()]


def _is_file(path: Path) -> bool:
    """Tell whether a pattern means a path: a file, or an array in Zarr that is no features."""
    return path.is_file() or (is_zarr(path) and not is_features(path))


def _in_features(name: Path) -> bool:
    return any(folder.suffix in FOLDERS for folder in name.parents)


def _is_stub(reader: object) -> bool:
    return isinstance(reader, type) and issubclass(reader, StubImageFile)
