"""Reading pages as a reader does: elements and their texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

HOSTILE = ("<script>alert(1)</script>", 'a & b "c"', "it's 🐈", "</title>")
INLINE = ("b", "code", "i", "span")
VOID = ("img", "meta", "input", "br")


class Element:
    """An element of a page, with its texts and the elements in it."""

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag, self.attributes = tag, attributes
        self.children: list[Element | str] = []

    def __getitem__(self, attribute: str) -> str:
        return self.attributes[attribute]

    @property
    def classes(self) -> list[str]:
        return self.attributes.get("class", "").split()

    @property
    def text(self) -> str:
        """All texts in it, with spaces as a browser shows them; not those of a style sheet."""
        return re.sub("[ \n]+", " ", "".join(self._texts())).strip(" ")

    def _texts(self) -> Iterator[str]:
        for child in self.children:
            if isinstance(child, str):
                yield child
            elif child.tag != "style":
                yield from child._texts()
        if self.tag not in INLINE:
            yield " "

    def all(self, tag: str, kind: str | None = None) -> list[Element]:
        """Return all elements of a tag, and of a class if one is given, in it."""
        inside = [child for child in self.children if isinstance(child, Element)]
        return [
            found
            for child in inside
            for found in ([child] if child.tag == tag and (kind is None or kind in child.classes) else [])
            + child.all(tag, kind)
        ]

    def rows(self) -> list[list[str]]:
        """Return the texts of the rows of the tables in it, without their headings."""
        return [
            [cell.text for cell in row.children if isinstance(cell, Element)]
            for body in self.all("tbody")
            for row in body.all("tr")
        ]


class Page(HTMLParser):
    """A page as a tree of elements."""

    def __init__(self, source: Path | str) -> None:
        super().__init__()
        self.source = source if isinstance(source, str) else source.read_text(encoding="utf-8")
        self.root = Element("", {})
        self._open = [self.root]
        self.feed(self.source)
        assert len(self._open) == 1, f"{self._open[-1].tag} is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            child = self._open[-1].children[-1]
            assert isinstance(child, Element)
            self._open.append(child)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"{tag} has an attribute twice"
        self._open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"{self._open[-1].tag} is closed by {tag}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)

    @property
    def text(self) -> str:
        return self.root.text

    def all(self, tag: str, kind: str | None = None) -> list[Element]:
        return self.root.all(tag, kind)

    def count(self, tag: str, kind: str | None = None) -> int:
        return len(self.all(tag, kind))

    @property
    def images(self) -> list[Element]:
        """Pictures but for those laid over others."""
        return [image for image in self.all("img") if "layer" not in image.classes]

    @property
    def points(self) -> list[Element]:
        """The points of charts, without those of their legends."""
        return [point for chart in self.all("svg", "chart") for point in chart.all("circle", "point")]

    @property
    def tiles(self) -> dict[str, tuple[str, str]]:
        """The main numbers by name, with their remarks."""
        tiles = [tile for of_all in self.all("dl", "tiles") for tile in of_all.all("div")]
        return {tile.all("dt")[0].text: (tile.all("dd", "value")[0].text, tile.all("dd")[-1].text) for tile in tiles}

    def section(self, title: str) -> Element:
        """Return the section whose heading begins so."""
        return next(part for part in self.all("section") if part.all("h2") and part.all("h2")[0].text.startswith(title))

    def assert_self_contained(self) -> None:
        """Make sure that nothing is loaded from elsewhere, and that nothing runs."""
        named = ("src", "href", "srcset", "data", "xlink:href", "action")
        every = self.all_elements(self.root)
        addresses = [value for one in every for name, value in one.attributes.items() if name in named]
        assert all(address.startswith("data:image/") for address in addresses)
        assert not {one.tag for one in every} & {"script", "link", "iframe", "object", "embed", "base", "foreignobject"}
        assert not [name for one in every for name in one.attributes if name.startswith("on")]
        for loading in ("url(", "@import"):
            assert loading not in self.source

    def all_elements(self, element: Element) -> list[Element]:
        """Return all elements in one."""
        inside = [child for child in element.children if isinstance(child, Element)]
        return [found for child in inside for found in [child, *self.all_elements(child)]]
