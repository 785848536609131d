"""Pages made of templates: each is one file with its pictures inside, and nothing is loaded from elsewhere.

A page module gathers what is to be shown, by name; a template of `templates` lays it out. Templates share the elements
of `draw` and the filters below. Whatever they show is escaped; bytes of a file name that are no Unicode become question
marks.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from vision_longformer.utils.atomic_files import replacing
from vision_longformer.utils.words import counted, percent


def write_page(target: Path, template: str, shown: Mapping[str, Any]) -> None:
    """Write a page piece by piece, as what iterators in `shown` give may be much.

    Raises:
        OSError: The disk is full, or the place cannot be written; a previous page is as it was.
    """
    with replacing(target) as temporary, temporary.open("wb") as file:
        for piece in environment().get_template(template).generate(shown):
            file.write(piece.encode("utf-8", "replace"))


@functools.cache
def environment() -> Environment:
    """Return what finds templates and fills them."""
    found = Environment(
        loader=PackageLoader("vision_longformer.reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    found.filters |= {
        "counted": counted,
        "percent": percent,
        "grouped": lambda number: f"{number:,}",
        "px": lambda length: f"{length:.1f}",
    }
    found.globals["draw"] = found.get_template("elements.html").module
    return found
