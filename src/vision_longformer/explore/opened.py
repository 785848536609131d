"""One image on the page: its tiles, and its features once there are any."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vision_longformer.explore.tiles import ImageTiles
from vision_longformer.explore.tokens import Explored, backbone_of
from vision_longformer.features.load import StoredFeatures, load_features
from vision_longformer.images import AS_STORED, ImageError, Reader, Reading, open_reader
from vision_longformer.images.digest import content_digest
from vision_longformer.images.pixel_size import read_pixel_size
from vision_longformer.prediction.measures import ImageFacts


@dataclass(eq=False)
class OpenedImage:
    """An image on the page.

    Attributes:
        path: Of its file.
        name: For people.
        digest: Of its contents.
        reader: The image, open.
        reading: How it is read.
        tiles: Of it.
        explored: Its features; None until they are there.
        share: How much of encoding is done, from 0 to 1.
        problem: Why there are no features; "" if nothing is wrong.
    """

    path: Path
    name: str
    digest: str
    reader: Reader
    reading: Reading
    tiles: ImageTiles
    explored: Explored | None = None
    share: float = 0.0
    problem: str = ""
    facts: ImageFacts = field(init=False)

    def __post_init__(self) -> None:
        info = self.reader.info
        pixel_size = None if self.reading.level else read_pixel_size(self.path)
        self.facts = ImageFacts(self.name, info.size, info.georeference, pixel_size)

    def give(self, features: StoredFeatures) -> None:
        """Take the features of the image.

        Raises:
            ValueError: They are of another image, or of this one shrunk.
        """
        check_source(features.metadata, self.digest, self.path)
        explored = Explored(features)
        if explored.image_size != self.tiles.size:
            raise ValueError(f"{self.path}: its features are of an image of another size; encode it anew")
        self.explored, self.share = explored, 1.0

    def close(self) -> None:
        """Close the file."""
        self.reader.close()


def open_image(path: Path, *, reading: Reading = AS_STORED) -> OpenedImage:
    """Open an image to be looked at.

    Raises:
        ImageError: It cannot be read.
    """
    reader = open_reader(path, **vars(reading))
    try:
        return OpenedImage(
            path,
            path.name,
            content_digest(path),
            reader,
            reading,
            ImageTiles(reader, reading.model_channels),
        )
    except OSError as error:
        reader.close()
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error


def open_features(path: Path, *, image: Path | None = None) -> OpenedImage:
    """Open what `vil encode` wrote, and the image that it was made of.

    Args:
        path: A feature file or folder.
        image: The image; by default it is looked for by the name that the features have for it, in the folder of the
            features, in the one above, and where the command runs.

    Raises:
        FileNotFoundError: There are no such features, or the image is in none of these places.
        ValueError: They are no features, or of another image.
        ImageError: The image cannot be read.
    """
    features = load_features(path)
    about = features.metadata
    name = str(about.get("source", ""))
    places = [image] if image is not None else [folder / name for folder in (path.parent, path.parent.parent, Path())]
    found = next((place for place in places if place.exists() and place != path), None)
    if found is None:
        raise FileNotFoundError(
            f"{path}: its image, {name or 'which it does not name'}, is not beside it; say where with --image"
        )
    values = about.get("reading")
    opened = open_image(found, reading=AS_STORED if values is None else Reading.from_dict(values))
    try:
        opened.give(features)
    except BaseException:
        opened.close()
        raise
    return opened


def check_source(about: dict[str, Any], digest: str, path: Path) -> None:
    """Raise `ValueError` if features are of other bytes than an image's."""
    if about.get("source_sha256") != digest:
        raise ValueError(f"{path}: is not the image that the features were made of, or has changed since")


def check_same_backbone(images: Sequence[OpenedImage]) -> None:
    """Raise `ValueError` unless the features of all images are of the same backbone and stages."""
    known = [image for image in images if image.explored is not None]
    for image in known[1:]:
        assert image.explored is not None
        assert known[0].explored is not None
        if backbone_of(image.explored.features.metadata) != backbone_of(known[0].explored.features.metadata):
            raise ValueError(
                f"{image.name}: its features are of another model, or of other stages, than those of {known[0].name}: "
                "images on one page share both"
            )


def close_all(images: Sequence[OpenedImage]) -> None:
    """Close images, whatever happens."""
    with contextlib.ExitStack() as stack:
        for image in images:
            stack.callback(image.close)
