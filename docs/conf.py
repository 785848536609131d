"""The documentation site: `make docs` builds it into docs/_build."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

from vision_longformer import __version__

ROOT = Path(__file__).parent.parent

project = "Vision Longformer"
author = "the vision-longformer developers"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build"]
nitpicky = False

html_math_renderer = "mathml"  # which browsers draw by themselves: MathJax would be loaded from the network
html_theme = "furo"
html_title = f"Vision Longformer {version}"
html_theme_options = {"sidebar_hide_name": False}
html_show_copyright = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_fence_as_directive = ["math"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True


def _name_sources(app: object, document: str, source: list[str]) -> None:
    """Replace links to files of the repository that are no pages of the site by the files' names."""

    def name(link: re.Match[str]) -> str:
        text, target = link.groups()
        place = (ROOT / "docs" / Path(document).parent / target.partition("#")[0]).resolve()
        if place.is_relative_to(ROOT / "docs"):
            return link.group()
        return text if text.startswith("`") else f"{text} (`{place.relative_to(ROOT)}`)" if "/" not in text else text

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\((\.\./[^)]+)\)", name, source[0])


def _write_math(writer: Any, node: Any) -> None:
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    writer.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def setup(app: Any) -> None:
    app.connect("source-read", _name_sources)
    app.add_html_math_renderer("mathml", inline_renderers=(_write_math, None), block_renderers=(_write_math, None))
