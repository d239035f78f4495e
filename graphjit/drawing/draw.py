"""``draw_dot``: the graph behind a tensor, or of a compiled function, as a picture."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from graphjit.drawing.formats import to_dot, to_png, to_svg
from graphjit.drawing.graphs import of_graph
from graphjit.drawing.picture import Picture
from graphjit.drawing.shapes import Sheet, sheet
from graphjit.drawing.tensors import of_tensor
from graphjit.errors import ArgumentError
from graphjit.ir import Graph
from graphjit.plots.figure import write
from graphjit.tensor import Tensor

FORMATS = ("svg", "png", "dot")
LIMIT = 200  # values or nodes that are drawn unless told otherwise


class Drawing:
    """A graph as a picture; in a notebook it shows itself.

    Attributes:
        dot: the text in Graphviz's DOT language, ``str()`` gives it too. svg: an SVG document.
        format: what ``save`` writes when neither it nor the path says.
    """

    def __init__(self, picture: Picture, format: str = "svg", rankdir: str | None = None) -> None:
        if rankdir not in ("LR", "TB", None):
            raise ArgumentError(f"rankdir is 'LR', 'TB' or None, not {rankdir!r}")
        self._picture = picture
        self._rankdir = rankdir
        self.format = _known(format)

    @cached_property
    def dot(self) -> str:
        return to_dot(self._picture, self._rankdir or "LR")

    @cached_property
    def svg(self) -> str:
        return to_svg(self._sheet)

    @cached_property
    def _sheet(self) -> Sheet:
        return sheet(self._picture, self._rankdir)

    def png(self) -> bytes:
        """A PNG, at two pixels for one of the SVG's; less where it would get too large.

        Raises:
            ArgumentError: matplotlib is not installed.
        """
        return to_png(self._sheet)

    def save(self, path: str | os.PathLike[str], format: str | None = None) -> Path:
        """Write the picture to a file, and give its path.

        Args:
            path: the file; its folder is made if need be.
            format: 'svg', 'png' or 'dot'; by the end of the path when not given.

        Raises:
            ArgumentError: another format, a file that cannot be written, or PNG without matplotlib.
        """
        to = Path(path)
        end = to.suffix[1:].lower().replace("gv", "dot")
        kind = _known(format or end or self.format)
        content = self.png() if kind == "png" else (self.dot if kind == "dot" else self.svg).encode()
        return write(to, content)

    def _repr_svg_(self) -> str:
        return self.svg

    def __str__(self) -> str:
        return self.dot

    def __repr__(self) -> str:
        return f"<graph of {len(self._picture.nodes)} nodes; save('graph.svg') writes it>"


def draw_dot(graph: Tensor | Graph, path: str | os.PathLike[str] | None = None, format: str | None = None, *,
             rankdir: str | None = None, limit: int = LIMIT) -> Drawing:
    """Draw what a tensor was computed from, or the graph of a compiled function (``f.graph``).

    Values stand in boxes with label, number and gradient, larger tensors with shape and dtype in place of the
    number; ops stand between them. Gradients are ``.grad`` of leaves (its Euclidean norm, of an array), and for other
    numbers what the last ``backward()`` found; it may have released the tape. The Graphviz program is not needed.

    Args:
        graph: a tensor on the tape, or a graph.
        path: a file to write; the end of the name says the format: svg, png (needs matplotlib) or dot.
        format: the format, when the path does not say it.
        rankdir: 'LR' draws from left to right, 'TB' from top to bottom; None: wide graphs from top to bottom.
        limit: draw at most so many values, those nearest to the result.

    Raises:
        ArgumentError: something else to draw; another format; a file that cannot be written; a graph made by hand that
            has a cycle. GradientError: a tape made by hand has one; the tape was released too long ago.
        TraceError: inside a compiled function.

    >>> import graphjit as gj
    >>> a, b = (gj.tensor(v, requires_grad=True, label=name) for v, name in [(2.0, "a"), (-3.0, "b")])
    >>> e = a * b
    >>> e.label = "e"
    >>> e.backward()
    >>> [line for line in gj.draw_dot(e).dot.splitlines() if "label=" in line][0].split('"')[1]
    '{ e | data -6.0000 | grad 1.0000 }'
    """
    if not isinstance(limit, int) or limit < 1:
        raise ArgumentError(f"limit={limit!r} is not a number of values to draw")
    if isinstance(graph, Tensor):
        picture = of_tensor(graph, limit)
    elif isinstance(graph, Graph):
        picture = of_graph(graph, limit)
    else:
        raise ArgumentError(f"draw_dot draws a tensor or a graph, not {type(graph).__name__}",
                            hint="The graph of a compiled function f is f.graph, once f was called.")
    drawing = Drawing(picture, format or "svg", rankdir)
    if path is not None:
        drawing.save(path, format)
    return drawing


def _known(format: str) -> str:
    if format not in FORMATS:
        raise ArgumentError(f"there is no picture format {format!r}", hint=f"There are {', '.join(FORMATS)}.")
    return format
