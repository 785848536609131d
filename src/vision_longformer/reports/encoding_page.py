"""The page of a run of `vil encode`, index.html: each image beside its stages, with time and memory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vision_longformer.features.extract import Result, Status, explaining
from vision_longformer.features.figures import PHOTO_WIDTH, Figure
from vision_longformer.images.thumbnails import INFERNO, Picture, shrink_picture
from vision_longformer.memory.plans import Plan
from vision_longformer.reports.memory_chart import memory_part
from vision_longformer.reports.pages import write_page
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.memory_trace import MemoryTrace, Span, trace_memory
from vision_longformer.utils.words import counted

FULL_IMAGES = 12  # up to here pictures keep their size; a page of more images shows smaller ones
SMALL_WIDTH = 220
MAX_PICTURED = 300  # images beyond are only listed
CACHE = ".report"


@dataclass(frozen=True)
class Entry:
    """One image of the run; without sizes, one of which nothing more is known.

    Attributes:
        name: Its path below the folder that all images share.
        status: What was done.
        message: Why it failed, or what of it was left out.
        original_size: (height, width) in pixels as stored.
        size: (height, width) in pixels as encoded.
        seconds: From opening it to its features being on disk.
        peak_memory: Most bytes that the process held until then.
        identity: Of the features that the pictures show.
        figures: Its pictures.
    """

    name: str
    status: Status
    message: str = ""
    original_size: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    seconds: float = 0.0
    peak_memory: int | None = None
    identity: str = ""
    figures: tuple[Figure, ...] = ()

    @classmethod
    def of(cls, result: Result) -> Entry:
        """Return what a page tells of a result."""
        told = {field.name: getattr(result, field.name) for field in dataclasses.fields(cls) if field.name != "name"}
        return cls(name=result.source.name, **told)

    @property
    def cells(self) -> tuple[str, ...]:
        """Sizes as stored and as encoded, time, megapixels a second, and peak memory."""
        if self.size is None or self.original_size is None:
            return ("–",) * 5
        stored, encoded = (f"{width} × {height}" for height, width in (self.original_size, self.size))
        rate = self.size[0] * self.size[1] / 1e6 / self.seconds
        peak = "–" if self.peak_memory is None else f"{self.peak_memory / 1e9:.2f} GB"
        return stored, encoded, f"{self.seconds:.2f} s", f"{rate:.2f}", peak


class Report:
    """Collects the images of a run; their pictures wait on disk, so that a run of any length fits into memory.

    Args:
        output: Folder of the report, `index.html`, and of the waiting pictures, `.report`.
        title: Name of the model.
        remark: A sentence for the top of the page.
    """

    def __init__(self, output: Path, *, title: str, remark: str = "") -> None:
        self.output, self.title, self.remark = output, title, remark
        self._entries: list[Entry] = []  # without their figures

    def follow(self, results: Iterable[Result]) -> Iterator[Result]:
        """Pass results on as they come, without their figures, and write the page once they are over.

        Raises:
            OutputError: The page or its pictures cannot be written.
        """
        with trace_memory() as memory:
            start = memory.now()
            for result in results:
                memory.spans.append(_span(result.plan, start, memory.now()))
                self.add(result)
                yield dataclasses.replace(result, figures=())
                start = memory.now()
        self.write(memory)

    def add(self, result: Result) -> None:
        """Add an image. Its pictures are kept for this page and for those of later runs, which skip the image."""
        entry = Entry.of(result)
        if result.status == "encoded":
            waiting = self._waiting(entry.name)
            with explaining(waiting), replacing(waiting) as temporary:
                temporary.write_text(json.dumps(dataclasses.asdict(entry)))
        elif result.status == "skipped" and (kept := self._read(entry.name, entry.identity)) is not None:
            entry = dataclasses.replace(kept, status="skipped")
        self._entries.append(dataclasses.replace(entry, figures=()))

    def write(self, memory: MemoryTrace | None = None) -> Path:
        """Write the page.

        Args:
            memory: Of the run, to be drawn; by default it is not.

        Returns:
            Its path.
        """
        target = self.output / "index.html"
        done = [entry for entry in self._entries if entry.size is not None]
        is_large = len(done) <= FULL_IMAGES
        shown = {
            "title": self.title,
            "summary": _summary(self._entries),
            "remark": self.remark,
            "gradient": ", ".join(f"#{colour}" for colour in INFERNO),
            "max_pictured": MAX_PICTURED if len(done) > MAX_PICTURED else None,
            "is_large": is_large,
            "pictured": self._pictured(done[:MAX_PICTURED], max_width=PHOTO_WIDTH if is_large else SMALL_WIDTH),
            "memory": None if memory is None else memory_part(memory),
            "entries": self._entries,
        }
        with explaining(target):
            write_page(target, "encoding.html", shown)
        return target

    def _pictured(self, entries: Iterable[Entry], *, max_width: int) -> Iterator[tuple[Entry, list[Picture]]]:
        """Read images with their pictures, at most `max_width` wide, one after the other."""
        for entry in entries:
            kept = self._read(entry.name, entry.identity)
            if kept is not None:
                yield kept, [shrink_picture(figure.picture, max_width=max_width) for figure in kept.figures]

    def _waiting(self, name: str) -> Path:
        return self.output / CACHE / f"{name}.json"

    def _read(self, name: str, identity: str) -> Entry | None:
        """Return what is kept of an image; None if nothing is, it is damaged, or it shows other features."""
        try:
            stored = json.loads(self._waiting(name).read_text())
            sizes = {key: stored[key] and tuple(stored[key]) for key in ("original_size", "size")}
            figures = tuple(
                Figure(**{**figure, "picture": Picture(**figure["picture"])}) for figure in stored["figures"]
            )
            entry = Entry(**{**stored, **sizes, "figures": figures})
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return entry if entry.identity == identity else None


def _summary(entries: list[Entry]) -> str:
    count = {status: sum(entry.status == status for entry in entries) for status in ("skipped", "failed")}
    parts = [f"{counted(len(entries) - sum(count.values()), 'image')} encoded"]
    parts += [f"{count['skipped']} encoded earlier"] if count["skipped"] else []
    parts += [f"{count['failed']} failed"] if count["failed"] else []
    return ", ".join(parts) + "."


def _span(plan: Plan | None, start: float, end: float) -> Span:
    if plan is None:
        return Span(start, end, None, None)
    if plan.chosen.strategy == "whole":
        return Span(start, end, plan.chosen.memory, None)
    whole = next(forecast.memory for forecast in plan.forecasts if forecast.strategy == "whole")
    return Span(start, end, plan.chosen.memory, whole or None)
