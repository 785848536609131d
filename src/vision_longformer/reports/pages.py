"""Pages made of templates: each is one file with its pictures inside, and nothing is loaded from elsewhere.

A page is an object that has what is shown, and a template that lays it out. Templates see the object as `page`, the
elements that pages share as `draw`, and the filters below. Whatever they show is escaped; bytes of a file name that are
no Unicode become question marks.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined

from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.words import counted, percent


class Page(Protocol):
    """What a template lays out."""

    @property
    def template(self) -> str:
        """Name of a file in `templates`."""


def write_page(target: Path, page: Page) -> None:
    """Write a page piece by piece, as those that it asks its object for may be many.

    Raises:
        OSError: The disk is full, or the place cannot be written; a previous page is as it was.
    """
    with replacing(target) as temporary, temporary.open("wb") as file:
        for piece in _environment().get_template(page.template).generate(page=page):
            file.write(piece.encode("utf-8", "replace"))


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vision_longformer.reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"counted": counted, "percent": percent, "px": lambda length: f"{length:.1f}"}
    environment.globals["draw"] = environment.get_template("elements.html").module
    return environment
