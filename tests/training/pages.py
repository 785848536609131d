"""Reading the pages of runs."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

HOSTILE = ("<script>alert(1)</script>", 'a & b "c"', "it's 🐈", "</title>")


class Page(HTMLParser):
    """What a page shows, its elements, and every address in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.images: list[dict[str, str | None]] = []
        self.elements: list[tuple[str, str]] = []  # tag and class
        self.addresses: list[str] = []
        self.text = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "img":
            self.images.append(values)
        self.elements.append((tag, values.get("class") or ""))
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str, kind: str) -> int:
        return sum(element == tag and kind in classes.split() for element, classes in self.elements)

    def section(self, title: str) -> str:
        """Return the source of a section."""
        return next(part for part in self.source.split("<section>") if part.startswith(f"<h2>{title}"))
