"""A web page that shows a run of `vil encode`: one file with its pictures inside, and nothing loaded from elsewhere."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vision_longformer.features.stage_pictures import StagePictures
from vision_longformer.images import Pixels
from vision_longformer.images.thumbnails import (
    INFERNO,
    Picture,
    encode_picture,
    heat_overlay,
    photograph,
    shrink_picture,
)
from vision_longformer.reports.memory_chart import STYLE as CHART_STYLE
from vision_longformer.reports.memory_chart import memory_section
from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.memory_trace import MemoryTrace

PHOTO_WIDTH = 960  # pixels of the photograph and of the attention laid over it
FULL_IMAGES = 12  # up to here pictures keep their size; a page of more images shows smaller ones
SMALL_WIDTH = 220
MAX_PICTURED = 300  # images beyond are only listed
CACHE = ".report"


@dataclass(frozen=True)
class Figure:
    """A picture, what it shows, and a sentence on how to read it.

    Attributes:
        title: What it shows.
        caption: How to read it.
        picture: The picture.
        extent: Its width over that of the image: the last tokens of a map may reach past the image's edge.
    """

    title: str
    caption: str
    picture: Picture
    extent: float = 1.0


@dataclass(frozen=True)
class Entry:
    """One image of the run; without figures, one that could not be shown.

    Attributes:
        name: Its path below the folder that all images share.
        message: Why it failed, or what of it was left out.
        original_size: (height, width) in pixels as stored; None if it failed.
        size: (height, width) in pixels as encoded; None if it failed.
        seconds: From opening it to its features being on disk.
        peak_memory: Largest resident size of the process until then, in bytes.
        figures: Its pictures.
        earlier: Whether it was encoded by an earlier run.
    """

    name: str
    message: str = ""
    original_size: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    seconds: float = 0.0
    peak_memory: int = 0
    figures: tuple[Figure, ...] = ()
    earlier: bool = False

    @property
    def megapixels(self) -> float:
        """Millions of pixels that were encoded."""
        return 0.0 if self.size is None else self.size[0] * self.size[1] / 1e6


def picture_entry(entry: Entry, pixels: Pixels, pictures: StagePictures) -> Entry:
    """Return `entry` with figures of the image, its stages and the attention of the global token."""
    photo = photograph(pixels.values, pixels.valid, max_width=PHOTO_WIDTH)
    height, width = pixels.valid.shape
    figures = [Figure("Image", "As the model sees it, turned upright.", encode_picture(photo, max_width=PHOTO_WIDTH))]
    for number, stage in enumerate(pictures.stages, start=1):
        rows, columns = stage.tokens
        caption = f"{columns} × {rows} tokens. Alike colours are alike features."
        figures.append(Figure(f"Stage {number}", caption, stage.picture, columns * stage.stride / width))
    if pictures.attention is not None:
        seen = pictures.attention[pictures.attention > 0]
        of_stage = pictures.stages[pictures.attention_stage - 1]
        covered = (height / (of_stage.tokens[0] * of_stage.stride), width / (of_stage.tokens[1] * of_stage.stride))
        overlay = heat_overlay(photo, pictures.attention, covered=covered)
        figures.append(
            Figure(
                f"Global token, stage {pictures.attention_stage}",
                f"Bright: much attention. From {float(seen.min()):.2g} to {float(seen.max()):.2g} times an even share.",
                encode_picture(overlay, max_width=PHOTO_WIDTH),
            )
        )
    return dataclasses.replace(entry, figures=tuple(figures))


class Report:
    """Collects the images of a run; their pictures wait on disk, so that a run of any length fits into memory.

    Args:
        output: Folder of the report, `index.html`, and of the waiting pictures, `.report`.
        title: Name of the model.
        remark: A sentence for the top of the page.
    """

    def __init__(self, output: Path, *, title: str, remark: str = "") -> None:
        self.output = output
        self.title = title
        self.remark = remark
        self._entries: list[Entry] = []  # without their figures

    def add(self, entry: Entry, *, keep: bool = False) -> None:
        """Add an image; `keep` its pictures for this run's page and for those of later runs."""
        if keep:
            with replacing(self._waiting(entry.name)) as temporary:
                temporary.write_text(json.dumps(dataclasses.asdict(entry)))
        self._entries.append(dataclasses.replace(entry, figures=()))

    def add_earlier(self, name: str) -> None:
        """Add an image that an earlier run encoded, with the pictures kept from then, if any."""
        entry = self._read(name) or Entry(name)
        self._entries.append(dataclasses.replace(entry, figures=(), earlier=True))

    def forget(self, name: str) -> None:
        """Drop pictures kept by an earlier run, which no longer show what is in the features."""
        self._waiting(name).unlink(missing_ok=True)

    def write(self, memory: MemoryTrace | None = None) -> Path:
        """Write the page.

        Args:
            memory: Of the run, to be drawn; by default it is not.

        Returns:
            Its path.
        """
        target = self.output / "index.html"
        with replacing(target) as temporary, temporary.open("w", encoding="utf-8") as page:
            page.writelines(self._page(memory))
        return target

    def _waiting(self, name: str) -> Path:
        return self.output / CACHE / f"{name}.json"

    def _read(self, name: str) -> Entry | None:
        try:
            stored = json.loads(self._waiting(name).read_text())
            sizes = {key: stored[key] and tuple(stored[key]) for key in ("original_size", "size")}
            figures = tuple(
                Figure(**{**figure, "picture": Picture(**figure["picture"])}) for figure in stored["figures"]
            )
            return Entry(**{**stored, **sizes, "figures": figures})
        except (OSError, ValueError, KeyError, TypeError):
            return None  # never kept, or damaged: the image is then listed without pictures

    def _page(self, memory: MemoryTrace | None) -> Iterator[str]:
        yield _HEAD.format(title=html.escape(self.title), style=_STYLE)
        yield f"<p class='lead'>{html.escape(_summary(self._entries))}</p>"
        if self.remark:
            yield f"<p class='remark'>{html.escape(self.remark)}</p>"
        yield _GUIDE
        done = [entry for entry in self._entries if entry.size is not None]
        if len(done) > MAX_PICTURED:
            yield f"<p>Pictures are shown for the first {MAX_PICTURED} images; the table lists all.</p>"
        width = PHOTO_WIDTH if len(done) <= FULL_IMAGES else SMALL_WIDTH
        for entry in done[:MAX_PICTURED]:
            shown = self._read(entry.name)
            if shown is not None:
                yield _section(shown, max_width=width)
        if memory is not None:
            yield memory_section(memory)
        yield _table(self._entries)
        yield "</main></body></html>\n"


def _summary(entries: list[Entry]) -> str:
    failed = sum(entry.size is None and not entry.earlier for entry in entries)
    earlier = sum(entry.earlier for entry in entries)
    parts = [f"{len(entries) - failed - earlier} images encoded"]
    parts += [f"{earlier} encoded earlier"] if earlier else []
    parts += [f"{failed} failed"] if failed else []
    return ", ".join(parts).replace("1 images", "1 image") + "."


def _section(entry: Entry, *, max_width: int) -> str:
    figures = "".join(_figure(entry, figure, max_width=max_width) for figure in entry.figures)
    note = f"<p class='note'>{html.escape(entry.message)}</p>" if entry.message else ""
    grid = "figures" if max_width == PHOTO_WIDTH else "figures small"
    return f"<section><h2>{html.escape(entry.name)}</h2>{note}<div class='{grid}'>{figures}</div></section>\n"


def _figure(entry: Entry, figure: Figure, *, max_width: int) -> str:
    assert entry.size is not None
    picture = shrink_picture(figure.picture, max_width=max_width)
    shows_tokens = figure.picture.width < PHOTO_WIDTH // 2 and max_width == PHOTO_WIDTH
    image = (
        f"<img src='{picture.uri}' alt='{html.escape(figure.title)} of {html.escape(entry.name)}' "
        f"width='{picture.width}' height='{picture.height}' style='width:{figure.extent:.4%}' loading='lazy'"
        f"{' class=tokens' if shows_tokens else ''}>"
    )
    frame = f"<div class='frame' style='aspect-ratio:{entry.size[1]}/{entry.size[0]}'>{image}</div>"
    caption = f"<figcaption><b>{html.escape(figure.title)}</b> {html.escape(figure.caption)}</figcaption>"
    return f"<figure>{frame}{caption}</figure>"


def _table(entries: list[Entry]) -> str:
    rows = "".join(_row(entry) for entry in entries)
    return (
        "<section><h2>Time and memory</h2><div class='scroll'><table><thead><tr><th>Image<th>Stored<th>Encoded"
        "<th>Time<th>Megapixels / s<th>Peak memory<th class='text'></tr></thead><tbody>"
        f"{rows}</tbody></table></div><p class='small'>Sizes are width × height in pixels. Time runs from opening the "
        "image to its features being on disk. Peak memory is the largest resident size of the whole process up to "
        "then.</p></section>"
    )


def _row(entry: Entry) -> str:
    name = f"<th scope='row'>{html.escape(entry.name)}"
    if entry.size is None or entry.original_size is None:
        state = (
            "encoded earlier" if entry.earlier else f"<span class='failed'>failed</span> {html.escape(entry.message)}"
        )
        return f"<tr>{name}<td>–<td>–<td>–<td>–<td>–<td class='text'>{state}</tr>\n"
    stored, encoded = (f"{width} × {height}" for height, width in (entry.original_size, entry.size))
    state = "encoded earlier" if entry.earlier else ""
    return (
        f"<tr>{name}<td>{stored}<td>{encoded}<td>{entry.seconds:.2f} s<td>{entry.megapixels / entry.seconds:.2f}"
        f"<td>{entry.peak_memory / 1e9:.2f} GB<td class='text'>{state}</tr>\n"
    )


_GUIDE = """<p class='guide'>Each stage turns the image into a map of feature vectors, coarser and deeper from one to
the next. A stage's picture shows the first three principal components of its vectors as red, green and blue, so
places of the same colour look alike to the model; colours of different pictures cannot be compared. The last picture,
of images that are encoded whole, shows where in the image a global token looks: <span class='bar'></span> from little
to much attention, in the last block of its stage, averaged over heads.</p>
"""

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: features</title><style>{style}</style></head><body><main>
<h1>Features of {title}</h1>
"""

_STYLE = (
    """
:root { color-scheme: light dark; --ground: #fbfbfa; --card: #fff; --ink: #1b1d21; --soft: #575d66; --line: #dfe1e5;
  --warn: #7a4a00; --warn-ground: #fff3dc; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ground: #141619; --card: #1c1f24; --ink: #e8eaed; --soft: #a7adb6;
  --line: #33373d; --warn: #ffd591; --warn-ground: #3a2c10; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 2rem clamp(1rem, 3vw, 2.5rem) 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .7rem; overflow-wrap: anywhere; }
.lead { margin: 0 0 1rem; color: var(--soft); }
.guide { max-width: 75ch; }
.remark { max-width: 75ch; padding: .6rem .9rem; border-radius: .4rem; color: var(--warn);
  background: var(--warn-ground); }
.note { margin: -.4rem 0 .7rem; color: var(--warn); }
.bar { display: inline-block; width: 6rem; height: .75rem; border-radius: .2rem; vertical-align: -1px;
  background: linear-gradient(90deg, BAR); }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 350px), 1fr)); }
.figures.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 180px), 1fr)); font-size: .8rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; overflow: hidden; }
.frame { overflow: hidden; }
.frame img { display: block; max-width: none; height: auto; }
.tokens { image-rendering: pixelated; }
figcaption { padding: .5rem .75rem .65rem; font-size: .88em; color: var(--soft); }
figcaption b { color: var(--ink); margin-right: .3em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem 1.6rem .4rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
thead th { color: var(--soft); font-weight: 500; }
th:first-child, .text { text-align: left; }
th[scope=row] { font-weight: 500; white-space: normal; overflow-wrap: anywhere; }
.text { white-space: normal; min-width: 12rem; }
.failed { color: var(--bad); font-weight: 600; }
.small { font-size: .85rem; color: var(--soft); }
""".replace("BAR", ", ".join(f"#{colour}" for colour in INFERNO))
    + CHART_STYLE
)
