"""What a run of predictions has done: one file of results for each image, and the settings that they were made with.

The folder of a run holds `run.json`, its settings, and `journal/`, with `NAME.json` for the image NAME. A file of the
journal is written when all other files of its image are: what has one is done, whenever the run was stopped.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from vision_longformer.detection.boxes import FoundObjects
from vision_longformer.features.failures import explaining
from vision_longformer.prediction.measures import ImageFacts
from vision_longformer.prediction.results import ObjectsResult, RegionsResult, SemanticResult
from vision_longformer.utils.atomic_files import check_writable, replacing
from vision_longformer.utils.locks import Lock, LockedError

RUN, ENTRIES, LOCK, WORK = "run.json", "journal", ".lock", ".work"
VERSION = 2
LONGEST = 200  # characters of a setting that is told

Entry = dict[str, Any]


class JournalError(ValueError):
    """The folder is another run's; the message says how they differ and what to do."""


class Journal:
    """The folder of a run, which one process uses at a time; a context manager.

    Args:
        output: The folder; made if need be.
        settings: All that results depend on besides the images' contents, as JSON.
        helping: Whether another process has the folder, and this one does some of its images.

    Raises:
        JournalError: On entering: the folder has results of other settings, or another process is at work there.
        OSError: On entering: it cannot be written.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any], *, helping: bool = False) -> None:
        self.output, self.settings = output, json.loads(json.dumps(settings))
        self._helping = helping
        self.work_folder = output / WORK / (uuid.uuid4().hex if helping else "")
        self._entries = output / ENTRIES
        self._lock: Lock | None = None

    def __enter__(self) -> Self:
        self._check_settings()
        check_writable(self.output)
        self._entries.mkdir(parents=True, exist_ok=True)
        if self._helping:
            self.work_folder.mkdir(parents=True)
            return self
        lock = self._entries / LOCK
        lock.touch()
        try:
            self._lock = Lock(lock)
        except LockedError as error:
            raise JournalError(
                f"{self.output}: another run is writing its results there: wait until it is over, or choose another "
                "folder"
            ) from error
        self._check_settings()
        with replacing(self.output / RUN) as temporary:
            temporary.write_text(json.dumps({"version": VERSION, "settings": self.settings}, indent=1) + "\n")
        shutil.rmtree(self.work_folder, ignore_errors=True)  # of a run that was killed
        self.work_folder.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        shutil.rmtree(self.work_folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()

    def read(self, name: str) -> Entry | None:
        """Return what is known of an image; None if nothing is, or its file is damaged."""
        try:
            entry = json.loads(self._path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return entry if isinstance(entry, dict) and entry.get("version") == VERSION else None

    def write(self, name: str, entry: Entry) -> None:
        """Note that an image is done.

        Raises:
            OutputError: It cannot be written.
        """
        path = self._path(name)
        with explaining(path), replacing(path) as temporary:
            temporary.write_text(json.dumps({"version": VERSION, **entry}, allow_nan=False), encoding="utf-8")

    def entries(self) -> Iterator[Entry]:
        """Yield what is known of all images, by name."""
        files = sorted(path.relative_to(self._entries).as_posix() for path in self._entries.rglob("*.json"))
        for file in files:
            if (entry := self.read(file.removesuffix(".json"))) is not None:
                yield entry

    def _path(self, name: str) -> Path:
        return self._entries / f"{name}.json"

    def _check_settings(self) -> None:
        path = self.output / RUN
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["settings"]
            differing = [key for key in {**found, **self.settings} if found.get(key) != self.settings.get(key)]
        except FileNotFoundError:
            return
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise JournalError(
                f"{path}: is damaged, or of another program: remove it, or choose another folder"
            ) from error
        if differing:
            how = "; ".join(_difference(key, found.get(key), self.settings.get(key)) for key in differing)
            raise JournalError(
                f"{self.output}: holds results of another run ({how}): choose another folder, or remove this one"
            )


def entry_of(result: RegionsResult, *, path: str, identity: str, seconds: float) -> Entry:
    """Return what the journal keeps of a result: all of an object, and how many pixels each class has."""
    image = result.image
    entry: Entry = {
        "identity": identity,
        "name": image.name,
        "path": path,
        "kind": result.kind,
        "size": list(image.size),
        "georeference": image.georeference,
        "pixel_size": None if image.pixel_size is None else list(image.pixel_size),
        "downsample": list(image.downsample),
        "full_size": list(image.full_size or image.size),
        "tiles": result.tiles,
        "streamed": result.streamed,
        "seconds": seconds,
        "rows": list(result.rows()),
    }
    if isinstance(result, ObjectsResult):
        masks = result.objects.masks
        entry["boxes"] = np.asarray(result.boxes, float).tolist()  # of the pixels that were looked at
        entry |= {"left_out": result.objects.left_out, "masks": None if masks is None else list(masks)}
    else:
        assert isinstance(result, SemanticResult)
        entry["pixels"] = result.pixels.tolist()
    return entry


def objects_of(entry: Entry, class_names: tuple[str, ...]) -> ObjectsResult:
    """Return the objects that the journal keeps of an image."""
    rows = entry["rows"]
    found = FoundObjects(
        np.array(entry["boxes"], float).reshape(-1, 4),
        np.array([row["score"] for row in rows], float),
        np.array([row["class_number"] for row in rows], int),
        entry["masks"],
        entry["left_out"],
    )
    result = ObjectsResult(image=facts_of(entry), class_names=class_names, objects=found)
    return replace(result, tiles=entry["tiles"], streamed=entry["streamed"])


def facts_of(entry: Entry) -> ImageFacts:
    """Return what the journal knows of an image."""
    height, width = entry["size"]
    pixel_size = entry["pixel_size"]
    known = None if pixel_size is None else (pixel_size[0], pixel_size[1])
    (down, across), (full_height, full_width) = entry["downsample"], entry["full_size"]
    return ImageFacts(
        entry["name"], (height, width), entry["georeference"], known, (down, across), (full_height, full_width)
    )


def _difference(key: str, before: Any, now: Any) -> str:
    texts = [value if isinstance(value, str) else json.dumps(value) for value in (before, now)]
    if key.endswith("sha256"):
        texts = [text[:12] for text in texts]
    name = key.replace("_", " ")
    return f"{name} was {texts[0]} and is {texts[1]}" if max(map(len, texts)) <= LONGEST else f"{name} differs"
