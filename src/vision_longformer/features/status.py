"""How far a run of `vil encode` is: what was to be done, what is there, and what failed, whoever did it and was killed.

Below the output lies the folder `.run`: `run.json`, how features are made; `inputs.jsonl`, the names of the images; and
for each process that meets images which it cannot encode, a file of these with the reasons. What is done is seen from
the features themselves.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision_longformer.features.descriptions import is_made_with, reading_setting
from vision_longformer.features.failures import explaining
from vision_longformer.features.formats.parquet import Parts
from vision_longformer.features.formats.table import Choice
from vision_longformer.features.results import Result
from vision_longformer.features.writer import kinds_of, stored_descriptions
from vision_longformer.images import AS_STORED, Reading
from vision_longformer.images.find import Source
from vision_longformer.images.lists import AS_OTHERS
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.locks import Lock

FOLDER = ".run"
VERSION = 1


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Attributes:
        images: How many there are.
        done: How many have features.
        failed: Why others have none, by name.
    """

    images: int
    done: int
    failed: dict[str, str]

    @property
    def left(self) -> int:
        """How many are still to be encoded."""
        return self.images - self.done - len(self.failed)


class RunRecord:
    """Writes down what a run is to do, and what fails. Several processes may do one run.

    Args:
        output: Of the features.
        sources: All images of the run, those of other processes included.
        settings: All that features depend on beside the image.
        reading: How images are read of which no list says how.
        kind: The format.

    Raises:
        OutputError: It cannot be written.
    """

    def __init__(
        self,
        output: Path,
        sources: Sequence[Source],
        *,
        settings: dict[str, Any],
        reading: Reading = AS_STORED,
        kind: Choice,
    ) -> None:
        self._folder = output / FOLDER
        self._failed = self._folder / f"failed-{uuid.uuid4().hex[:12]}.jsonl"
        run = json.dumps({"version": VERSION, "format": kind, "settings": settings}, indent=1)
        with explaining(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            with Lock(self._folder, wait=True):
                if _text(self._folder / "run.json") != run:  # features are made otherwise: what failed may not
                    for file in self._folder.glob("failed-*.jsonl"):
                        file.unlink()
                    with replacing(self._folder / "run.json") as temporary:
                        temporary.write_text(run)
                with replacing(self._folder / "inputs.jsonl") as temporary, temporary.open("w") as lines:
                    lines.writelines(f"{json.dumps(_line(source, reading))}\n" for source in sources)

    def follow(self, results: Iterable[Result]) -> Iterator[Result]:
        """Pass results on, and write down those that failed.

        Raises:
            OutputError: They cannot be written down.
        """
        for result in results:
            if result.status == "failed":
                line = {"name": result.source.name, "reason": result.message, "time": time.time_ns()}
                with explaining(self._failed), self._failed.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            yield result


def read_status(output: Path) -> RunStatus:
    """Return how far the last run into a folder is.

    Raises:
        FileNotFoundError: There was none.
        ValueError: What was written down is damaged.
    """
    folder = output / FOLDER
    try:
        run = json.loads((folder / "run.json").read_text())
        with (folder / "inputs.jsonl").open() as lines:
            listed = [json.loads(line) for line in lines]
        own = {line["name"]: {"reading": line["reading"]} for line in listed if isinstance(line, dict)}
        names = [line["name"] if isinstance(line, dict) else line for line in listed]
        settings, kind = run["settings"], run["format"]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{output}: no run of `vil encode` is known of here") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: it is damaged ({error}); run the command again that made it") from error
    parts = Parts(output, set(names)) if kind == "parquet" else None
    failures = _failures(folder)
    done, failed = 0, {}
    for name in names:
        source = Source(output, name)
        found = stored_descriptions(output, source, kinds_of(kind), parts)
        reason, when = failures.get(name, ("", 0))
        made = settings | own.get(name, {})
        if any(is_made_with(metadata, made) for metadata in found) and when <= _written(output, source, kind):
            done += 1
        elif reason:
            failed[name] = reason
    return RunStatus(len(names), done, failed)


def _line(source: Source, reading: Reading) -> str | dict[str, Any]:
    """Return an image's name, and how it is read, if that is a matter of its own."""
    if source.asked == AS_OTHERS:
        return source.name
    return {"name": source.name, "reading": reading_setting(source.asked.on(reading))}


def _failures(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the last reason of each image, and when, in nanoseconds; a line that was cut short is left out."""
    found: dict[str, tuple[str, int]] = {}
    for file in folder.glob("failed-*.jsonl"):
        for line in (_text(file) or "").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                name, reason, when = str(entry["name"]), str(entry["reason"]), int(entry["time"])
                if when > found.get(name, ("", 0))[1]:
                    found[name] = (reason or "unknown", when)
    return found


def _written(output: Path, source: Source, kind: Choice) -> int:
    """Return when the newest features of an image were written, in nanoseconds."""
    files = [source.target(output, one) for one in kinds_of(kind)] or list(output.glob("part-*.parquet"))
    times = [0]
    for file in files:
        with contextlib.suppress(OSError):
            times.append(os.stat(file).st_mtime_ns)
    return max(times)


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
