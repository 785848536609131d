"""Images with a label image each: where both lie, and whether their sizes agree.

DIR/SPLIT/images and DIR/SPLIT/masks (or labels) hold files of the same names; or DIR/SPLIT and DIR/SPLIT_masks (or
SPLIT_labels) do; or a label lies beside its image. A label is a PNG or a TIFF, and its name is that of the image, or
that name and one of `ENDINGS`, as Cellpose and others write it: cell_masks.tif for cell.png, and cell_img.png. Beside
its image, a label without such an ending must be a PNG, and the image none.

Labels refer to the pixels of an image as stored or upright, whichever their size fits, as those of COCO files do
(see `datasets.coco`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import tifffile

from vision_longformer.datasets.problems import Problems, some
from vision_longformer.images import AS_STORED, MAX_PIXELS, ImageError, Reading, describe_image, read_indices
from vision_longformer.images.errors import image_errors
from vision_longformer.images.find import images_below
from vision_longformer.images.reader import Array, Window, check_pixels
from vision_longformer.images.tiff import read_stored
from vision_longformer.utils.steps import Steps, in_threads
from vision_longformer.utils.words import counted

FOLDERS = ("masks", "labels")
SUFFIXES = (".png", ".tif", ".tiff")
ENDINGS = ("_cp_masks", "_masks", "_mask", "_labels", "_label")
IMAGE_ENDINGS = ("_img", "_image")
BLOCK_PIXELS = 2**22  # that are looked at together
Found = TypeVar("Found")
NO_IMAGES = ("_flows", "_cp_output")  # that Cellpose leaves beside images


class Pair(NamedTuple):
    """An image, and the files that can be its label: one, if all is well."""

    image: Path
    labels: tuple[Path, ...]
    expected: Path  # where there is none


def find_pairs(data: Path, split: str) -> tuple[list[Pair], tuple[str, ...]]:
    """Find the images of a split, in the order of their names, the label of each, and say what was passed over.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: There is more than one folder of labels.
    """
    images, folder = folder_of_images(data, split), data / split
    places = [place for name in FOLDERS for place in (folder / name, data / f"{split}_{name}") if place.is_dir()]
    if len(places) > 1:
        raise ValueError(f"{folder}: has several folders of labels, {some([str(place) for place in places])}; keep one")
    below = images_below(images)
    files = [path for path in below.images if not any(place in path.parents for place in places)]
    if places:
        root = places[0]
        labels = _by_name(root, [path for path in images_below(root).images if path.suffix.lower() in SUFFIXES])
        taken: set[Path] = set()
    else:
        labels, root = _beside(images, files), images
        taken = {label for found in labels.values() for label in found}
    pairs = []
    for image in files:
        if image in taken or image.stem.endswith(NO_IMAGES):
            continue
        names = [image.relative_to(images).parent / f"{stem}{end}" for stem in _stems(image) for end in ("", *ENDINGS)]
        found = tuple(label for name in names for label in labels.get(name, ()) if label != image)
        expected = root / image.relative_to(images).with_suffix(".png")
        pairs.append(Pair(image, found, expected.with_stem(f"{image.stem}_masks") if expected == image else expected))
    remarks = [f"{images}: passed over {below.remark()}"] if below.others else []
    used = {label for pair in pairs for label in pair.labels}
    if unused := sorted(label for found in labels.values() for label in found if label not in used):
        shown = some([str(label.relative_to(root)) for label in unused])
        remarks.append(f"{root}: {counted(len(unused), 'label')} without an image: {shown}")
    return pairs, tuple(remarks)


class Labelled(NamedTuple, Generic[Found]):
    """An image with a label that fits.

    Attributes:
        image: The file.
        label: The file.
        size: (height, width) of both.
        turned: Whether this is the image's size once it is turned upright by a quarter.
        found: What was found in the label.
    """

    image: Path
    label: Path
    size: tuple[int, int]
    turned: bool
    found: Found


class LabelledImages(NamedTuple, Generic[Found]):
    """The images of a split, and what of it was left out and passed over."""

    images: list[Labelled[Found]]
    skipped: dict[str, int]
    remarks: tuple[str, ...]


def labelled_images(
    data: Path, split: str, read: Callable[[Path], Found], *, reading: Reading, skip_invalid: bool
) -> Steps[LabelledImages[Found]]:
    """Find the images of a split, and read the label of each.

    Args:
        data: A folder.
        split: "train", "val" or any other there is.
        read: Returns what is to be known of a label, or raises an `ImageError`; called from threads.
        reading: How the images are to be read.
        skip_invalid: Leave out images whose label is missing, unreadable or of another size.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: An image has no label that fits and `skip_invalid` is false, or there is no image at all.
    """
    pairs, remarks = find_pairs(data, split)

    def look(pair: Pair) -> Labelled[Found] | ImageError:
        try:
            size, turned = fitted(pair, reading)
            return Labelled(pair.image, pair.labels[0], size, turned, read(pair.labels[0]))
        except ImageError as error:
            return error

    problems, kept = Problems(data / split), list[Labelled[Found]]()
    for result in (yield from in_threads("labels read", pairs, look)):
        if isinstance(result, ImageError):
            problems.add("image without a label that fits", str(result))
        else:
            kept.append(result)
    if not skip_invalid:
        problems.raise_any()
    if not kept:
        raise ValueError(f"{data / split}: has no image with a label; expected, in {data}: {layouts(split)}")
    return LabelledImages(kept, problems.skipped(), remarks)


def folder_of_images(data: Path, split: str) -> Path:
    """Return the folder that the images of a split lie in.

    Raises:
        FileNotFoundError: There is none.
    """
    folder = data / split
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of images")
    return folder / "images" if (folder / "images").is_dir() else folder


def fitted(pair: Pair, reading: Reading = AS_STORED) -> tuple[tuple[int, int], bool]:
    """Return a label's (height, width), and whether it is that of the image turned upright by a quarter.

    Raises:
        ImageError: There is no label or more than one, or its size is another.
    """
    image, labels, expected = pair
    if not labels:
        raise ImageError(f"{image}: its label {expected} is missing")
    if len(labels) > 1:
        raise ImageError(f"{image}: has several labels, {some([str(label) for label in labels])}; keep one")
    stored = describe_image(image, reading=reading, upright=False).size
    size = describe_image(labels[0], upright=False).size
    if stored == size:
        return size, False
    if describe_image(image, reading=reading).size == size:
        return size, True
    raise ImageError(f"{image}: has {stored[1]}×{stored[0]} pixels, and its label {labels[0]} has {size[1]}×{size[0]}")


def read_whole_numbers(path: Path, *, max_pixels: int = MAX_PIXELS, window: Window | None = None) -> Array:
    """Return the (H, W) whole numbers of a label image: gray values of 8 to 32 bits, or a palette's indices.

    Rows and columns are as the file has them, whatever it says of its orientation.

    Args:
        path: Of the file.
        max_pixels: Refuse larger ones; of a TIFF of which a window is read, larger windows.
        window: The part to return, (h, w); of a TIFF, only the tiles or strips that it touches are decoded.

    Raises:
        ImageError: It cannot be read, or has several channels or fractions.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        values = read_indices(path, max_pixels=max_pixels)
        return values if window is None else values[window.top : window.bottom, window.left : window.right]
    # not by a reader of pixels, which stretches few bits, inverts where white is zero, and looks palettes up
    with image_errors(str(path)), tifffile.TiffFile(path) as file:
        series = file.series[0]
        if series.ndim != 2 or series.dtype.kind not in "iub":
            raise ImageError(
                f"{path}: has the shape {series.shape} and the type {series.dtype}, expected one channel of whole "
                "numbers"
            )
        size = (series.shape[0], series.shape[1]) if window is None else (window.height, window.width)
        check_pixels(str(path), size, max_pixels)
        return np.asarray(series.asarray()) if window is None else read_stored(series.pages[0].aspage(), window)


def blocks_of(path: Path, size: tuple[int, int], *, multiple: int, most: int = BLOCK_PIXELS) -> list[Window]:
    """Return windows that cover a label image, each of which is cheap to read: together they decode all of it once.

    Args:
        path: Of the file.
        size: (height, width) of it.
        multiple: Divides their tops and lefts.
        most: Pixels of a window, about.

    Raises:
        ImageError: It cannot be read.
    """
    height, width = size
    rows, columns = height, width  # of what is no TIFF, and decoded as a whole
    if path.suffix.lower() in (".tif", ".tiff"):
        with image_errors(str(path)), tifffile.TiffFile(path) as file:
            page = file.series[0].pages[0].aspage()
            piece = page.tilelength if page.is_tiled else page.rowsperstrip
            columns = min(width, _rounded(page.tilewidth * 4, multiple)) if page.is_tiled else width
            rows = _rounded(max(piece, min(height, most // columns)), multiple)
    return [
        Window(top, left, min(rows, height - top), min(columns, width - left))
        for top in range(0, height, rows)
        for left in range(0, width, columns)
    ]


def _rounded(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def layouts(split: str) -> str:
    """Return where label images may lie, for messages."""
    return f"{split}/images/ and {split}/masks/, {split}/ and {split}_masks/, or NAME_masks.png beside NAME in {split}/"


def _by_name(folder: Path, files: Sequence[Path]) -> dict[Path, list[Path]]:
    found: dict[Path, list[Path]] = {}
    for path in files:
        found.setdefault(path.relative_to(folder).with_suffix(""), []).append(path)
    return found


def _beside(folder: Path, files: Sequence[Path]) -> dict[Path, list[Path]]:
    """Return the labels among files that are images and labels."""
    by_name = _by_name(folder, files)

    def is_label(path: Path) -> bool:
        name = path.relative_to(folder).with_suffix("")
        if path.suffix.lower() == ".png" and any(other.suffix.lower() != ".png" for other in by_name[name]):
            return True
        stems = [name.name.removesuffix(end) for end in ENDINGS if name.name.endswith(end)]
        images = (name.with_name(stem + end) for stem in stems if stem for end in ("", *IMAGE_ENDINGS))
        return path.suffix.lower() in SUFFIXES and any(image in by_name for image in images)

    return _by_name(folder, [path for path in files if is_label(path)])


def _stems(image: Path) -> list[str]:
    """Return the names that a label may begin with."""
    return [image.stem, *(image.stem.removesuffix(end) for end in IMAGE_ENDINGS if image.stem.endswith(end))]
