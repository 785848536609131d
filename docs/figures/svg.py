"""A few shapes as SVG text, in colours for light and dark pages that colour-blind readers can tell apart.

Lengths are in pixels, x to the right and y down. The colours are those of Okabe and Ito.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

STYLE = """
text { font-family: "Segoe UI", "Helvetica Neue", Helvetica, Arial, "DejaVu Sans", sans-serif; font-size: 15px;
  fill: #1f2328 }
.small { font-size: 13px }
.soft { fill: #57606a }
.bold { font-weight: 600 }
.middle { text-anchor: middle }
.end { text-anchor: end }
.light { fill: #ffffff }
.page { fill: #ffffff; stroke: #d0d7de }
.line { stroke: #57606a; stroke-width: 1.5; fill: none }
.thin { stroke: #d0d7de; fill: none }
.box { fill: #f6f8fa; stroke: #57606a; stroke-width: 1.5 }
.tip { fill: #57606a }
.unseen { fill: #e4e7eb }
.padding { fill: none; stroke: #8c959f; stroke-dasharray: 2 2 }
.chunk { fill: none; stroke: #1f2328; stroke-width: 1.5 }
.query { fill: #d55e00 }
.own { fill: #0072b2 }
.near { fill: #7cc4ee }
.mixed { fill: #bfe3d6 }
.wrapped { fill: url(#stripes) }
.stripe { stroke: #1f2328; stroke-width: 2 }
.stripes { fill: #f0c04a }
.global { fill: #f3dbe8; stroke: #a4487c; stroke-width: 1.5 }
.global-line { stroke: #a4487c; stroke-width: 1.5; fill: none }
.global-tip { fill: #a4487c }
.map { fill: #d7ebf8; stroke: #0072b2; stroke-width: 1.5 }
.map-line { stroke: #0072b2; stroke-width: 1.5; fill: none }
.map-tip { fill: #0072b2 }
.band { fill: none; stroke: #d55e00; stroke-width: 3 }
.reach { fill: none; stroke: #d55e00; stroke-width: 2; stroke-dasharray: 6 4 }
.keys0 { fill: #f2f7fb } .keys1 { fill: #d3e6f4 } .keys2 { fill: #a3cfea } .keys3 { fill: #6fb2dc }
.curve0 { stroke: #d55e00; stroke-width: 2.5; fill: none; stroke-dasharray: 2 4; stroke-linecap: round }
.curve1 { stroke: #009e73; stroke-width: 2.5; fill: none; stroke-dasharray: 10 5 }
.curve2 { stroke: #0072b2; stroke-width: 2.5; fill: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .soft { fill: #9da7b3 }
  .dark { fill: #1f2328 }
  .page { fill: #0d1117; stroke: #30363d }
  .line { stroke: #9da7b3 }
  .thin { stroke: #30363d }
  .box { fill: #161b22; stroke: #9da7b3 }
  .tip { fill: #9da7b3 }
  .unseen { fill: #2b323a }
  .padding { stroke: #7d8590 }
  .chunk { stroke: #e6edf3 }
  .own { fill: #2f8fd0 }
  .mixed { fill: #1d5c4a }
  .query { fill: #f0803c }
  .global { fill: #4a2a3d; stroke: #d48ab4 }
  .global-line { stroke: #d48ab4 }
  .global-tip { fill: #d48ab4 }
  .map { fill: #12324a; stroke: #56b4e9 }
  .map-line { stroke: #56b4e9 }
  .map-tip { fill: #56b4e9 }
  .keys0 { fill: #14202b } .keys1 { fill: #17324a } .keys2 { fill: #1d4a6e } .keys3 { fill: #246596 }
  .band, .reach { stroke: #f0803c }
  .curve0 { stroke: #f0803c }
  .curve1 { stroke: #2cc295 }
  .curve2 { stroke: #56b4e9 }
}
"""
STRIPES = (
    '<pattern id="stripes" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="stripes" width="5" height="5"/><line class="stripe" x1="0" y1="0" x2="0" y2="5"/></pattern>'
)


class Drawing:
    """Shapes on a page with a border."""

    def __init__(self, width: float, height: float, *, title: str) -> None:
        self.width = width
        self.height = height
        self.title = title
        self.parts: list[str] = []

    def rectangle(self, x: float, y: float, width: float, height: float, kind: str, *, round_: float = 0) -> None:
        """Draw a rectangle; `kind` is a class of `STYLE`, here and below."""
        corner = f' rx="{round_:g}"' if round_ else ""
        self.parts.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"{corner}/>')

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        """Write a line, its baseline at `y`."""
        self.parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>')

    def path(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Draw a line through points."""
        steps = " L".join(f"{x:.1f} {y:.1f}".replace(".0", "") for x, y in points)
        self.parts.append(f'<path class="{kind}" d="M{steps}"/>')

    def arrow(self, points: Sequence[tuple[float, float]], kind: str = "") -> None:
        """Draw a line through points that ends in a tip, along an axis."""
        line, tip = (f"{kind}-line", f"{kind}-tip") if kind else ("line", "tip")
        (x0, y0), (x, y) = points[-2:]
        along_x, along_y = (x > x0) - (x < x0), (y > y0) - (y < y0)
        back_x, back_y = x - 9 * along_x, y - 9 * along_y
        self.path([*points[:-1], (back_x, back_y)], line)
        sides = [(back_x + 5 * along_y, back_y + 5 * along_x), (back_x - 5 * along_y, back_y - 5 * along_x)]
        self.path([(x, y), *sides, (x, y)], tip)

    def plus(self, x: float, y: float, kind: str = "box") -> None:
        """Draw a circle with a plus in it."""
        self.parts.append(f'<circle class="{kind}" cx="{x:g}" cy="{y:g}" r="11"/>')
        self.path([(x - 6, y), (x + 6, y)], "line")
        self.path([(x, y - 6), (x, y + 6)], "line")

    def write(self, path: Path) -> None:
        """Write the file."""
        size = f'width="{self.width:g}" height="{self.height:g}" viewBox="0 0 {self.width:g} {self.height:g}"'
        page = f'<rect class="page" x="0.5" y="0.5" width="{self.width - 1:g}" height="{self.height - 1:g}" rx="8"/>'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(self.title)}</title>",
            f"<style>{STYLE}</style>",
            f"<defs>{STRIPES}</defs>",
            page,
            *self.parts,
            "</svg>",
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
