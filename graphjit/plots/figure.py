"""Figures in graphjit's one style, and how they get to files; matplotlib is imported here and only when used."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphjit.errors import ArgumentError
from graphjit.plots.series import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PathLike = str | os.PathLike[str]

FORMATS = ("png", "svg", "pdf")
# Okabe and Ito (2008): told apart by colour-blind people too
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#4D4D4D")
INK = "#1f2933"

STYLE: Any = {
    "figure.facecolor": "white", "figure.dpi": 100, "savefig.dpi": 160,
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 10,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": "#7b8794",
    "axes.titlesize": 12, "axes.titleweight": "bold", "axes.titlepad": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": "#e4e7eb", "grid.linewidth": 0.8,
    "lines.linewidth": 1.8, "legend.frameon": False, "legend.fontsize": 9, "text.parse_math": False,
    "svg.fonttype": "path", "axes.formatter.useoffset": False,
}


def matplotlib_or_say(what: str) -> None:
    """Nothing, if matplotlib is there.

    Raises:
        ArgumentError: it is not; how to install it.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ArgumentError(f"{what} is drawn by matplotlib, which is not installed",
                            hint="Install it: pip install 'graphjit[plots]'") from None


@contextmanager
def sheet(width: float, height: float, path: PathLike | None) -> Iterator[Figure]:
    """A figure of this size (inches) to draw on; written to ``path`` at the end, if there is one.

    The user's own settings of matplotlib neither matter nor change, and pyplot knows nothing of the figure.

    Raises:
        ArgumentError: no matplotlib, an unknown format, a file that cannot be written.
    """
    matplotlib_or_say("a plot")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if path is not None:
        _format(path)
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # drawn as an empty box
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        if path is not None:
            target = io.BytesIO()
            figure.savefig(target, format=_format(path))
            write(path, target.getvalue())


def _format(path: PathLike) -> str:
    end = Path(path).suffix[1:].lower()
    if end not in FORMATS:
        raise ArgumentError(f"{os.fspath(path)!r} does not end like a picture",
                            hint=f"Let it end in {', '.join('.' + f for f in FORMATS)}.")
    return end


def write(path: PathLike, content: bytes) -> Path:
    """Write a file whole or not at all; its folder is made if need be.

    Raises:
        ArgumentError: it cannot be written.
    """
    to = Path(path)
    part = to.with_name(f".{to.name}.{os.getpid()}.part")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(to)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise ArgumentError(f"{to} cannot be written: {error.strerror or error}") from error
    return to


def named(axes: Axes, title: str, x: str, y: str) -> None:
    """Title and the names of both axes."""
    axes.set_title(short(title, 80), loc="center", x=0.0, ha="left")  # where get_title() looks
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def legend(axes: Axes, handles: list[Any], labels: list[str]) -> None:
    """A legend beside the axes that takes each label as it is."""
    if not handles:
        return
    made = axes.legend(handles, [" "] * len(labels), loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
    for text, label in zip(made.get_texts(), labels, strict=True):
        text.set_text(label)  # matplotlib would drop labels that begin with an underscore


def logarithmic(axes: Axes, which: str, values: Any) -> None:
    """Make the 'x' or 'y' axis logarithmic, its marks plain numbers; ``values`` are what it shows."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    decades = math.log10(np.nanmax(values) / np.nanmin(values))
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}" if 1e-4 < x < 1e7 else f"{x:.0e}"))
    axis.set_minor_formatter(NullFormatter())
