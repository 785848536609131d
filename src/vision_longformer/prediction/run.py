"""Predictions of many image files into a folder: each image's files, then tables of all; never half of one."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from vision_longformer.features.failures import OutputError, explaining, reason_of
from vision_longformer.images import describe_image, open_reader
from vision_longformer.images.digest import content_digest
from vision_longformer.images.find import Source
from vision_longformer.images.lists import AS_OTHERS
from vision_longformer.padding import Size
from vision_longformer.prediction.dense import OnProgress
from vision_longformer.prediction.formats import FORMATS, TABLES, format_of, write_result
from vision_longformer.prediction.formats.coco import write_coco_run
from vision_longformer.prediction.formats.tables import write_csv, write_parquet
from vision_longformer.prediction.journal import Entry, Journal, entry_of, facts_of, objects_of
from vision_longformer.prediction.predictor import PICTURE_WIDTH, Predictor, read_picture
from vision_longformer.prediction.results import RegionsResult
from vision_longformer.streaming.maps import WorkFolderError

Status = Literal["predicted", "skipped", "failed"]
FOLDERS = {
    "picture": "pictures",
    "zoom": "zoom",
    "tiff": "labels",
    "geotiff": "labels",
    "png": "labels",
    "zarr": "labels",
}
OBJECT_COLUMNS = ("image", "id", "class_number", "class", "score", "x1", "y1", "x2", "y2", "centroid_x", "centroid_y")
CLASS_COLUMNS = ("image", "class_number", "class", "area_px", "share")
IMAGE_COLUMNS = ("image", "path", "width", "height")


@dataclass(frozen=True)
class Outcome:
    """What became of one image.

    Attributes:
        source: The image.
        status: What was done.
        message: Why it failed, or what was left out; "" if there is nothing to say.
        size: (height, width) in pixels; (0, 0) if it failed.
        seconds: From opening the image to its files being safe on disk; of an image done before, 0.
        found: Objects, or pixels, of each class.
        tiles: How many parts it was looked at in.
        streamed: Whether it went through the model band by band.
        left_out: How many more objects were found, at least, than a limit allows.
    """

    source: Source
    status: Status
    message: str = ""
    size: Size = (0, 0)
    seconds: float = 0.0
    found: tuple[int, ...] = ()
    tiles: int = 0
    streamed: bool = False
    left_out: int = 0

    @property
    def megapixels(self) -> float:
        """Millions of pixels looked at."""
        return self.size[0] * self.size[1] / 1e6 if self.status == "predicted" else 0.0


class PredictionRun:
    """Predictions into one folder, by one process at a time; a context manager.

    On leaving, also after Ctrl-C or SIGTERM, tables are made of all images that are done. The same run goes on from
    there. Images are named by their path below the folder that all share, so that equal names stay apart.

    Args:
        output: The folder; made if need be.
        predictor: A detector or a segmentation model.
        root: The folder that all images share; a run of another one's is not continued.
        outputs: Names of `FORMATS`, `TABLES`, and "labels".
        pictures: Whether to draw what was found.
        helping: Whether another run has the folder, for which this one does some images; it writes no tables.

    Raises:
        JournalError: On entering: the folder has results of another run, or another process is at work there.
        OSError: On entering: it cannot be written.
    """

    def __init__(
        self,
        output: Path,
        predictor: Predictor,
        *,
        root: Path,
        outputs: Sequence[str],
        pictures: bool = True,
        helping: bool = False,
    ) -> None:
        self.output, self.predictor, self._helping = output, predictor, helping
        self.tables = [name for name in outputs if name in TABLES]
        self._formats, self._pictures = [name for name in outputs if name not in TABLES], pictures
        self.journal = Journal(output, {**predictor.settings, "images": str(root)}, helping=helping)

    def __enter__(self) -> Self:
        self.journal.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if not self._helping and not isinstance(error, Exception):  # nothing, or somebody wants it to stop
                self.write_tables()
        finally:
            self.journal.__exit__(kind, error, traceback)

    def predict(self, sources: Iterable[Source], *, on_band: Callable[[Source, float, int], None]) -> Iterator[Outcome]:
        """Look at images, one after the other; those that are done with these settings are skipped.

        Args:
            sources: From `find_images`.
            on_band: Called with an image, the share of its work that is done, and its pixels.

        Raises:
            OutputError: Results cannot be written, for instance because the disk is full.
        """
        for source in sources:
            identity, path = "", source.path
            try:
                if skipped := self._done(source, state=_state(source)):
                    yield skipped
                    continue
                with source.at_hand() as near:
                    path = near.path
                    about = [content_digest(path), self.journal.settings]
                    about += [] if source.asked == AS_OTHERS else [vars(source.asked)]
                    identity = hashlib.sha256(json.dumps(about).encode()).hexdigest()
                    outcome = self._done(near, identity=identity) or self._predict(near, identity, on_band)
                yield replace(outcome, source=source)
            except OutputError:
                raise
            except Exception as error:
                message = str(error) if isinstance(error, WorkFolderError) else reason_of(error, path)
                failed = {"identity": identity, "name": source.name, "path": source.location, "error": message}
                self.journal.write(source.name, failed)
                yield Outcome(source, "failed", message)

    def _done(self, source: Source, *, state: str = "", identity: str = "") -> Outcome | None:
        """Return that an image was done before; else None.

        Args:
            source: The image, whose file is there if `identity` is given.
            state: Of its file, if that is to say whether it is the same; "" if not.
            identity: Of its contents and all settings, if that is to say so.
        """
        kept = self.journal.read(source.name)
        if kept is None or "error" in kept:
            return None
        if not (identity and kept["identity"] == identity) and not (state and kept.get("state") == state):
            return None
        missing = [name for name in self.formats(kept) if not self.target(name, kept).exists()]
        if missing and (kept["kind"] != "objects" or not identity):
            return None
        if missing:
            objects = objects_of(kept, self.predictor.class_names)
            tolerance = self.predictor.options.simplify or 0.0
            reading = source.asked.on(self.predictor.trained.reading)
            image: dict[str, Any] = {"picture": partial(read_picture, source.path, reading)}
            image["reader"] = partial(open_reader, source.path, **vars(reading))
            self._write(replace(objects, tolerance=tolerance, **image), kept, missing)
        if identity and kept.get("state") != _state(source):  # a file that was touched
            self.journal.write(source.name, kept | {"state": _state(source)})
        return self._outcome(source, "skipped", kept)

    def _predict(self, source: Source, identity: str, on_band: Callable[[Source, float, int], None]) -> Outcome:
        start, pixels = time.perf_counter(), 0
        reading = source.asked.on(self.predictor.trained.reading)

        def begin(size: Size) -> None:
            nonlocal pixels
            pixels = size[0] * size[1]

        def tile(done: int, total: int) -> None:
            if total > 1:
                on_band(source, done / total, pixels)

        progress = OnProgress(begin=begin, tile=tile, band=lambda share: on_band(source, share, pixels))
        result = self.predictor.predict(
            source.path, name=source.name, reading=reading, work_folder=self.journal.work_folder, progress=progress
        )
        assert isinstance(result, RegionsResult)
        entry = entry_of(result, path=source.location, identity=identity, seconds=0.0) | {"state": _state(source)}
        self._write(result, entry, self.formats(entry))
        entry["seconds"] = time.perf_counter() - start
        self.journal.write(source.name, entry)
        note = describe_image(source.path, reading=reading).note
        return replace(self._outcome(source, "predicted", entry), message=note)

    def formats(self, entry: Entry) -> list[str]:
        """Return the formats of an image; one that its picture does not show as it is can be zoomed into."""
        zoomed = ["zoom"] if max(entry["size"]) > PICTURE_WIDTH else []
        return self._formats + (["picture", *zoomed] if self._pictures else [])

    def target(self, name: str, entry: Entry) -> Path:
        """Return the file or folder of a format of an image: its name, suffix kept, so that x.jpg and x.png stay apart.

        Args:
            name: Of the format.
            entry: Of the image, from the journal.
        """
        name = format_of(name, entry["kind"], facts_of(entry))
        return self.output / FOLDERS.get(name, name) / f"{entry['name']}{FORMATS[name].suffix}"

    def write_tables(self) -> None:
        """Write the tables of all images that are done.

        Raises:
            OutputError: They cannot be written; those that were there are as they were.
        """
        is_objects = self.predictor.trained.gives == "objects"
        name, columns = ("objects", OBJECT_COLUMNS) if is_objects else ("classes", CLASS_COLUMNS)
        for form, write in (("csv", write_csv), ("parquet", write_parquet)):
            if form in self.tables:
                for table, rows, least in ((name, self._rows, columns), ("images", self._image_rows, IMAGE_COLUMNS)):
                    path = self.output / f"{table}.{form}"
                    with explaining(path):
                        write(path, rows, columns=least)
        if "coco" in self.tables:
            with explaining(self.output / "results.json"):
                write_coco_run(self.output, self._objects(), self.predictor.class_names)

    def _write(self, result: RegionsResult, entry: Entry, formats: Sequence[str]) -> None:
        for name in formats:
            target = self.target(name, entry)
            with explaining(target):
                write_result(target, result, format=format_of(name, result.kind, result.image))

    def _outcome(self, source: Source, status: Status, entry: Entry) -> Outcome:
        height, width = entry["size"]
        about: dict[str, Any] = {"tiles": entry["tiles"], "streamed": entry["streamed"]}
        about |= {"seconds": entry["seconds"] if status == "predicted" else 0.0}
        found = tuple(found_of(entry, len(self.predictor.class_names)))
        return Outcome(source, status, "", (height, width), found=found, left_out=entry.get("left_out", 0), **about)

    def _rows(self) -> Iterator[dict[str, Any]]:
        for entry in self.journal.entries():
            yield from entry.get("rows", ())

    def _image_rows(self) -> Iterator[dict[str, Any]]:
        names = self.predictor.class_names
        for entry in self.journal.entries():
            row: dict[str, Any] = {"image": entry["name"], "path": entry["path"]}
            if "error" in entry:
                yield row | {"error": entry["error"]}
                continue
            row |= {"width": entry["full_size"][1], "height": entry["full_size"][0]}
            found = found_of(entry, len(names))
            if entry["kind"] == "objects":
                row |= {"objects": sum(found), "left_out": entry["left_out"]}
                row |= {f"count {name}": count for name, count in zip(names, found, strict=True)}
            else:
                total = sum(found)
                shares = ((name, count / total if total else None) for name, count in zip(names, found, strict=True))
                row |= {f"share {name}": share for name, share in shares}
            yield row

    def _objects(self) -> Iterator[tuple[int, str, Any]]:
        for number, entry in enumerate(self.journal.entries(), start=1):
            if "error" not in entry:
                yield number, entry["path"], objects_of(entry, self.predictor.class_names)


def _state(source: Source) -> str:
    """Return what changes when a file does, or how a list says that it is read; "" where that is not known."""
    state = source.state
    return state if not state or source.asked == AS_OTHERS else f"{state} {json.dumps(vars(source.asked))}"


def found_of(entry: Entry, classes: int) -> list[int]:
    """Return how many objects, or pixels, of each class the journal counts in an image."""
    if entry["kind"] == "pixels":
        return list(entry["pixels"])
    counts = [0] * classes
    for row in entry["rows"]:
        counts[row["class_number"]] += 1
    return counts
