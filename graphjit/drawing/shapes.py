"""A picture as boxes, words and lines in pixels, the same for every format."""

from __future__ import annotations

from typing import NamedTuple

from graphjit.drawing.layout import layout
from graphjit.drawing.picture import Node, Picture, columns

FONT = 12.0                # pixels
COLUMN = 0.602 * FONT      # width of a character: that of DejaVu Sans Mono, wider than the other fonts named
HEIGHT, PAD, MARGIN = 26.0, 9.0, 16.0
SCREEN = 1800.0            # a picture this wide still goes from left to right
INK, LINE, GRADIENT = "#1f2933", "#7b8794", "#a61b1b"
FILL = {"leaf": "#e3effc", "constant": "#f1f3f5", "value": "#ffffff", "op": "#fdebc8", "output": "#d9f2e0",
        "more": "#ffffff"}
EDGE = {"leaf": "#3b7dc4", "constant": "#9aa5b1", "value": "#52606d", "op": "#cf8a1d", "output": "#2f8f4e",
        "more": "#ffffff"}


Point = tuple[float, float]


class Box(NamedTuple):
    """A rounded rectangle by its upper left corner, with what the mouse shows over it."""

    x: float
    y: float
    width: float
    height: float
    radius: float
    fill: str
    edge: str
    about: str


class Line(NamedTuple):
    """A curve from the first point to the last, the two between its controls; straight if all are in line."""

    points: tuple[Point, Point, Point, Point]
    color: str


class Tip(NamedTuple):
    """The head of an arrow: a triangle."""

    points: tuple[Point, Point, Point]


class Words(NamedTuple):
    """A text by the middle of its width and of its height."""

    x: float
    y: float
    text: str
    color: str


Shape = Box | Line | Tip | Words


class Sheet(NamedTuple):
    """All there is to draw, in order."""

    width: float
    height: float
    shapes: list[Shape]


def sheet(picture: Picture, rankdir: str | None) -> Sheet:
    """Lay a picture out, its layers from left to right ('LR') or from top to bottom ('TB'); None: 'LR' if it fits
    on a screen, else the way whose longer side is the shorter."""
    cells = [[columns(cell) * COLUMN + 2 * PAD for cell in node.cells] or [HEIGHT] for node in picture.nodes]
    widths = [max(sum(w), HEIGHT) for w in cells]
    placed = layout([(w, HEIGHT) if rankdir != "TB" else (HEIGHT, w) for w in widths], picture.edges)
    if rankdir is None and placed.width > SCREEN:
        other = layout([(HEIGHT, w) for w in widths], picture.edges)
        if max(other.width, other.height) < max(placed.width, placed.height):
            placed, rankdir = other, "TB"
    shapes: list[Shape] = []

    def at(across: float, along: float) -> Point:
        x, y = (along, across) if rankdir == "TB" else (across, along)
        return x + MARGIN, y + MARGIN

    for a, b in placed.lines:
        begin, end, y0, y1 = placed.spans[a][1], placed.spans[b][0], placed.centers[a], placed.centers[b]
        if b < len(widths):
            shapes.append(Tip((at(end, y1), at(end - 8, y1 - 4), at(end - 8, y1 + 4))))
            end -= 5.0
        else:  # it goes on below the nodes of the layer
            over = placed.spans[b][1]
            shapes.append(Line((at(end, y1), at(end, y1), at(over, y1), at(over, y1)), LINE))
        middle = (begin + end) / 2
        shapes.append(Line((at(begin, y0), at(middle, y0), at(middle, y1), at(end, y1)), LINE))
    for n, node in enumerate(picture.nodes):
        x, y = at(sum(placed.spans[n]) / 2, placed.centers[n])
        shapes.extend(_box(node, cells[n], x - widths[n] / 2, y, widths[n]))
    width, height = (d + 2 * MARGIN for d in at(placed.width - MARGIN, placed.height - MARGIN))
    if picture.caption:
        width = max(width, columns(picture.caption) * COLUMN + 2 * MARGIN)
        height += 2 * FONT
        shapes.append(Words(width / 2, height - MARGIN, picture.caption, LINE))
    return Sheet(width, height, shapes)


def _box(node: Node, widths: list[float], left: float, middle: float, width: float) -> list[Shape]:
    radius = HEIGHT / 2 if node.kind == "op" else 4.0
    top = middle - HEIGHT / 2
    shapes: list[Shape] = [
        Box(left, top, width, HEIGHT, radius, FILL[node.kind], EDGE[node.kind], node.about)]
    x = left + (width - sum(widths)) / 2
    for i, (cell, w) in enumerate(zip(node.cells, widths, strict=False)):
        if i:
            shapes.append(Line(((x, top), (x, top), (x, top + HEIGHT), (x, top + HEIGHT)), EDGE[node.kind]))
        shapes.append(Words(x + w / 2, middle, cell, GRADIENT if cell.startswith(("grad ", "|grad| ")) and i else INK))
        x += w
    return shapes
