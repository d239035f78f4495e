"""Pictures written as DOT, SVG and PNG; the Graphviz program is not needed for any of them."""

from __future__ import annotations

import io
import warnings
from xml.sax.saxutils import escape, quoteattr

from graphjit.drawing.picture import Node, Picture
from graphjit.drawing.shapes import EDGE, FILL, FONT, INK, LINE, Box, Line, Sheet, Tip, Words
from graphjit.ir.show import dot_text
from graphjit.plots.figure import matplotlib_or_say

LONGEST_SIDE, MOST_PIXELS = 20_000, 40_000_000  # of a PNG; a larger picture is scaled down
SCALE = 2.0                                     # pixels of a PNG for one of ours, on screens of today

_DOT_SHAPE = {"op": "ellipse", "more": "plaintext"}


def to_dot(picture: Picture, rankdir: str) -> str:
    """The picture in Graphviz's DOT language."""
    lines = ["digraph graph_ {", f"  rankdir={rankdir};",
             f'  node [fontname="monospace", fontsize=10, style=filled, fontcolor="{INK}"];',
             f'  edge [color="{LINE}", arrowsize=0.7];']
    if picture.caption:
        lines.append(f'  label="{dot_text(picture.caption)}";')
    for i, node in enumerate(picture.nodes):
        lines.append(f'  n{i} [label="{_dot_label(node, rankdir)}", shape={_DOT_SHAPE.get(node.kind, "record")}, '
                     f'fillcolor="{FILL[node.kind]}", color="{EDGE[node.kind]}"];')
    lines.extend(f"  n{a} -> n{b};" for a, b in picture.edges)
    return "\n".join([*lines, "}"])


def _dot_label(node: Node, rankdir: str) -> str:
    if node.kind in _DOT_SHAPE:
        return "\\n".join(dot_text(cell) for cell in node.cells)
    row = " | ".join(dot_text(cell, special="{}|<>") for cell in node.cells)
    return f"{{ {row} }}" if rankdir == "LR" else row


def to_svg(sheet: Sheet) -> str:
    """The picture as an SVG document."""
    size = f'width="{sheet.width:.0f}" height="{sheet.height:.0f}" viewBox="0 0 {sheet.width:.0f} {sheet.height:.0f}"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
             f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{FONT:g}" text-anchor="middle">',
             '<rect width="100%" height="100%" fill="#ffffff"/>']
    for shape in sheet.shapes:
        match shape:
            case Box(x, y, w, h, radius, fill, edge, about):
                title = f"<title>{escape(about)}</title>" if about else ""
                lines.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{radius:g}" '
                             f'fill="{fill}" stroke="{edge}">{title}</rect>')
            case Line(points, color):
                begin, *controls, end = (f"{x:.1f},{y:.1f}" for x, y in points)
                lines.append(f'<path d="M{begin}C{controls[0]} {controls[1]} {end}" fill="none" stroke="{color}"/>')
            case Tip(corners):
                lines.append(f'<path d="M{"L".join(f"{x:.1f},{y:.1f}" for x, y in corners)}z" fill="{LINE}"/>')
            case Words(x, y, text, color):
                lines.append(f'<text x="{x:.1f}" y="{y + 0.35 * FONT:.1f}" fill={quoteattr(color)} '
                             f'xml:space="preserve">{escape(text)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def to_png(sheet: Sheet) -> bytes:
    """The picture as a PNG, drawn by matplotlib.

    Raises:
        ArgumentError: matplotlib is not installed.
    """
    matplotlib_or_say("a PNG")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
    from matplotlib.path import Path

    scale = min(SCALE, LONGEST_SIDE / max(sheet.width, sheet.height),
                (MOST_PIXELS / (sheet.width * sheet.height)) ** 0.5)
    figure = Figure(figsize=(sheet.width / 72, sheet.height / 72), dpi=72 * scale, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, sheet.width)
    axes.set_ylim(sheet.height, 0)
    axes.axis("off")
    for shape in sheet.shapes:
        match shape:
            case Box(x, y, w, h, radius, fill, edge, _):
                axes.add_patch(FancyBboxPatch((x, y), w, h, f"round,pad=0,rounding_size={radius:g}", fc=fill, ec=edge,
                                              lw=1))
            case Line(points, color):
                way = Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
                axes.add_patch(PathPatch(way, fc="none", ec=color, lw=1, capstyle="butt"))
            case Tip(corners):
                axes.add_patch(Polygon(corners, fc=LINE, ec="none"))
            case Words(x, y, text, color):
                axes.text(x, y, text, color=color, fontsize=FONT, family="DejaVu Sans Mono", ha="center",
                          va="center_baseline", parse_math=False)
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # drawn as an empty box
        figure.savefig(target, format="png")
    return target.getvalue()
