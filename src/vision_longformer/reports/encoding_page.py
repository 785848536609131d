"""The page of a run of `vil encode`, index.html: each image beside its stages, with time and memory."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vision_longformer.features.failures import explaining
from vision_longformer.features.figures import MAX_PICTURED, PHOTO_WIDTH, Figure
from vision_longformer.features.results import Result
from vision_longformer.images.thumbnails import INFERNO, Picture, shrink_picture
from vision_longformer.memory.plans import Plan
from vision_longformer.reports.memory_chart import memory_part
from vision_longformer.reports.pages import write_page
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.memory_trace import MemoryTrace, Span, trace_memory
from vision_longformer.utils.words import counted

FULL_IMAGES = 12  # up to here pictures keep their size; a page of more images shows smaller ones
SMALL_WIDTH = 220
MAX_LISTED = 1000  # images, and as many failures beyond them: a million rows would be no page
CACHE = ".report"


class Report:
    """Collects the images of a run; their pictures wait on disk, so that a run of any length fits into memory.

    Args:
        output: Folder of the report, `index.html`, and of the waiting pictures, `.report`.
        title: Name of the model.
        remark: A sentence for the top of the page.
    """

    def __init__(self, output: Path, *, title: str, remark: str = "") -> None:
        self.output, self.title, self.remark = output, title, remark
        self._entries: list[dict[str, Any]] = []
        self._counts: Counter[str] = Counter()
        self._failures = 0  # listed beyond `MAX_LISTED`

    def follow(self, results: Iterable[Result]) -> Iterator[Result]:
        """Pass results on as they come, without their figures, and write the page once they are over.

        Raises:
            OutputError: The page or its pictures cannot be written.
        """
        with trace_memory() as memory:
            start = memory.now()
            for result in results:
                _add_span(memory.spans, _span(result.plan, start, memory.now()))
                self.add(result)
                yield dataclasses.replace(result, figures=())
                start = memory.now()
        self.write(memory)

    def add(self, result: Result) -> None:
        """Add an image. Its pictures are kept for this page and for those of later runs, which skip the image."""
        self._counts[result.status] += 1
        if len(self._entries) - self._failures >= MAX_LISTED:
            if result.status != "failed" or self._failures >= MAX_LISTED:
                return
            self._failures += 1
        entry = _entry(result)
        if result.status == "encoded":
            waiting = self._waiting(result.source.name)
            figures = [dataclasses.asdict(figure) for figure in result.figures]
            with explaining(waiting), replacing(waiting, lasting=False) as temporary:
                temporary.write_text(json.dumps({**entry, "figures": figures}))
        elif result.status == "skipped" and (kept := self._read(entry)) is not None:
            entry = {**kept[0], "status": "skipped"}
        self._entries.append(entry)

    def write(self, memory: MemoryTrace | None = None) -> Path:
        """Write the page.

        Args:
            memory: Of the run, to be drawn; by default it is not.

        Returns:
            Its path.
        """
        target = self.output / "index.html"
        done = [entry for entry in self._entries if entry["size"] is not None]
        is_large = len(done) <= FULL_IMAGES
        shown = {
            "title": self.title,
            "summary": _summary(self._counts),
            "remark": self.remark,
            "gradient": ", ".join(f"#{colour}" for colour in INFERNO),
            "max_pictured": MAX_PICTURED if len(done) > MAX_PICTURED else None,
            "is_large": is_large,
            "pictured": self._pictured(done[:MAX_PICTURED], max_width=PHOTO_WIDTH if is_large else SMALL_WIDTH),
            "max_listed": MAX_LISTED if self._counts.total() > len(self._entries) else None,
            "memory": None if memory is None else memory_part(memory),
            "entries": self._entries,
        }
        with explaining(target):
            write_page(target, "encoding.html", shown)
        return target

    def _pictured(
        self, entries: Iterable[dict[str, Any]], *, max_width: int
    ) -> Iterator[tuple[dict[str, Any], list[tuple[Figure, Picture]]]]:
        """Read images with their pictures, at most `max_width` wide, one after the other."""
        for entry in entries:
            kept = self._read(entry)
            if kept is not None:
                yield entry, [(one, shrink_picture(one.picture, max_width=max_width)) for one in kept[1]]

    def _waiting(self, name: str) -> Path:
        return self.output / CACHE / f"{name}.json"

    def _read(self, entry: dict[str, Any]) -> tuple[dict[str, Any], list[Figure]] | None:
        """Return what is kept of an image; None if nothing is, it is damaged, or it shows other features."""
        try:
            kept = json.loads(self._waiting(entry["name"]).read_text())
            figures = [Figure(**{**one, "picture": Picture(**one["picture"])}) for one in kept.pop("figures")]
            return (kept, figures) if kept["identity"] == entry["identity"] and kept.keys() == entry.keys() else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def _entry(result: Result) -> dict[str, Any]:
    """Return what a page tells of an image: sizes, time, megapixels a second and peak memory as text."""
    cells = ["–"] * 5
    if result.size is not None and result.original_size is not None:
        stored, encoded = (f"{width} × {height}" for height, width in (result.original_size, result.size))
        peak = "–" if result.peak_memory is None else f"{result.peak_memory / 1e9:.2f} GB"
        cells = [stored, encoded, f"{result.seconds:.2f} s", f"{result.megapixels / result.seconds:.2f}", peak]
    return {
        "name": result.source.name,
        "status": result.status,
        "message": result.message,
        "size": result.size,
        "identity": result.identity,
        "cells": cells,
    }


def _summary(counts: Counter[str]) -> str:
    parts = [f"{counted(counts['encoded'], 'image')} encoded"]
    parts += [f"{counts['skipped']:,} encoded earlier"] if counts["skipped"] else []
    parts += [f"{counts['failed']:,} failed"] if counts["failed"] else []
    return ", ".join(parts) + "."


def _add_span(spans: list[Span], span: Span) -> None:
    """Add a span; the last of many grows instead."""
    if len(spans) < MAX_LISTED:
        spans.append(span)
        return
    last = spans[-1]
    forecast = max(filter(None, (last.forecast, span.forecast)), default=None)
    spans[-1] = Span(last.start, span.end, forecast, max(filter(None, (last.whole, span.whole)), default=None))


def _span(plan: Plan | None, start: float, end: float) -> Span:
    if plan is None:
        return Span(start, end, None, None)
    if plan.chosen.strategy == "whole":
        return Span(start, end, plan.chosen.memory, None)
    whole = next(forecast.memory for forecast in plan.forecasts if forecast.strategy == "whole")
    return Span(start, end, plan.chosen.memory, whole or None)
