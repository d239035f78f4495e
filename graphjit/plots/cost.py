"""What a model costs and how its loss curves: step times, scaling, the Hessian's eigenvalues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphjit.errors import ArgumentError, ShapeError
from graphjit.plots.figure import COLORS, PathLike, legend, logarithmic, named, sheet
from graphjit.plots.series import numbers, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BARS = 40


def hessian_spectrum(eigenvalues: Sequence[float], path: PathLike | None = None, *,
                     title: str = "Largest eigenvalues of the loss Hessian") -> Figure:
    """Eigenvalues of a Hessian by size; positive (the loss curves up) and negative (it curves down) in two colours.

    The axis is logarithmic where all are positive and span more than a factor of 100.

    Args:
        eigenvalues: (k,), in any order.
        path: a file to write: .png, .svg or .pdf.
        title: what stands above.

    Raises:
        ArgumentError: no number among them; a file that cannot be written; matplotlib is not installed.

    >>> import graphjit as gj
    >>> gj.plots.hessian_spectrum([1.0, 12.5, -0.3]).axes[0].get_ylabel()
    'eigenvalue'
    """
    values = numbers(eigenvalues, "eigenvalues")
    values = np.sort(values[np.isfinite(values)])[::-1]
    if not len(values):
        raise ArgumentError("there are no finite eigenvalues to draw")
    with sheet(8.0, 4.2, path) as figure:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        place = np.arange(1, len(values) + 1)
        bars = len(values) <= MOST_BARS
        handles, names = [], []
        for sign, color, name in ((1, COLORS[0], "positive: the loss curves up"),
                                  (-1, COLORS[1], "negative: it curves down")):
            mine = values > 0 if sign > 0 else values <= 0
            if mine.any():
                handles.append(axes.bar(place[mine], values[mine], 0.7, color=color) if bars else
                               axes.plot(place[mine], values[mine], ".", color=color, markersize=5)[0])
                names.append(name)
        wide = values[-1] > 0 and values[0] > 100 * values[-1]
        if wide:
            logarithmic(axes, "y", values)
        axes.axhline(0.0, color="#52606d", linewidth=1.0)
        if bars and len(values) <= 15:
            for at, value in zip(place, values, strict=True):
                axes.annotate(f"{value:#.3g}".rstrip("."), (at, value), (0, 2 if value > 0 else -2), ha="center",
                              textcoords="offset points", va="bottom" if value > 0 else "top", size=8)
        axes.margins(y=0.1)
        axes.grid(axis="x", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=15, integer=True, min_n_ticks=1))
        named(axes, title, "rank, the largest first", "eigenvalue" + ", logarithmic" * bool(wide))
        legend(axes, handles, names)
    return figure


def scaling_curve(sizes: Sequence[float], seconds: Mapping[str, Sequence[float]], path: PathLike | None = None, *,
                  size_name: str = "number of parameters", time_name: str = "time of a step",
                  title: str = "Scaling") -> Figure:
    """Time over size, both logarithmic, with a line of proportional growth to compare with.

    Args:
        sizes: (n,) positive. seconds: label -> (n,) times in seconds.
        path: a file to write: .png, .svg or .pdf.
        size_name: what the sizes count. time_name: what the times are of.
        title: what stands above.

    Raises:
        ShapeError: lists of different lengths. ArgumentError: nothing to draw; numbers that are not positive; a file
            that cannot be written; matplotlib is not installed.

    >>> import graphjit as gj
    >>> gj.plots.scaling_curve([10, 100], {"eager": [2e-4, 3e-4]}).axes[0].get_ylabel()
    'time of a step (µs)'
    """
    at = numbers(sizes, "sizes")
    times = {str(label): numbers(values, f"seconds of {label}") for label, values in seconds.items()}
    wrong = [f"{label}: {len(values)}" for label, values in times.items() if len(values) != len(at)]
    if wrong:
        raise ShapeError(f"{len(at)} sizes need as many times", detail=tuple(wrong))
    every = np.concatenate([at, *times.values()])
    if not times or not len(at) or (every <= 0).any() or not np.isfinite(np.concatenate(list(times.values()))).any():
        raise ArgumentError("a scaling curve takes positive sizes and times, one of each at least")
    unit, scale = time_unit(min(float(np.nanmin(values)) for values in times.values() if np.isfinite(values).any()))
    with sheet(8.0, 4.6, path) as figure:
        axes = figure.subplots()
        order = np.argsort(at)
        handles = [axes.plot(at[order], scale * values[order], "o-", color=COLORS[i % len(COLORS)], markersize=5)[0]
                   for i, values in enumerate(times.values())]
        names = [short(label) for label in times]
        logarithmic(axes, "x", at)
        logarithmic(axes, "y", scale * np.concatenate(list(times.values())))
        if len(at) > 1:
            last = max(float(values[order[-1]]) for values in times.values())
            y = scale * last * at[order] / at[order[-1]]
            bottom = axes.get_ylim()[0]
            handles.append(axes.plot(at[order], y, ":", color="#7b8794", linewidth=1.4)[0])
            names.append("proportional to the size")
            axes.set_ylim(bottom=bottom)  # the measured times shall fill the axes
        axes.grid(which="minor", linewidth=0.4)
        named(axes, title, size_name, f"{time_name} ({unit})")
        legend(axes, handles, names)
    return figure


def step_times(seconds: Mapping[str, Mapping[str, float]], path: PathLike | None = None, *, samples: int | None = None,
               title: str = "Time of a training step") -> Figure:
    """A bar for each way to run a step, put together from its parts, the total at its end.

    Args:
        seconds: label ('eager', 'compiled') -> part ('forward', 'backward', 'update') -> time in seconds.
        path: a file to write: .png, .svg or .pdf.
        samples: how many samples a step takes; then samples per second stand beside the total.
        title: what stands above.

    Raises:
        ArgumentError: nothing to draw, or times that are not numbers of at least 0; a file that cannot be written;
            matplotlib is not installed.

    >>> import graphjit as gj
    >>> figure = gj.plots.step_times({"eager": {"forward": 1e-3, "backward": 2e-3}, "compiled": {"step": 4e-4}})
    >>> figure.axes[0].get_xlabel()
    'time (ms)'
    """
    rows = {str(label): {str(part): t for part, t in zip(parts, numbers(parts.values(), label), strict=True)}
            for label, parts in seconds.items()}
    every = [t for parts in rows.values() for t in parts.values()]
    if not every or not all(t >= 0 for t in every):
        raise ArgumentError("step times are numbers of seconds, 0 or more, one at least")
    totals = {label: sum(parts.values()) for label, parts in rows.items()}
    unit, scale = time_unit(max(totals.values()))
    names = list(dict.fromkeys(part for parts in rows.values() for part in parts))
    with sheet(8.0, 1.7 + 0.62 * len(rows), path) as figure:
        axes = figure.subplots()
        handles = {}
        for row, (label, parts) in enumerate(rows.items()):
            left = 0.0
            for part, t in parts.items():
                handles[part] = axes.barh(row, scale * t, 0.6, left=left, color=COLORS[names.index(part) % len(COLORS)])
                left += scale * t
            speed = f", {samples / totals[label]:,.0f} samples/s" if samples and totals[label] else ""
            axes.annotate(f"{left:.3g} {unit}{speed}", (left, row), (5, 0), textcoords="offset points", va="center",
                          size=9)
        axes.set_yticks(range(len(rows)), [short(label, 20) for label in rows])
        axes.invert_yaxis()
        axes.set_xlim(right=(1.6 if samples else 1.2) * scale * max(totals.values()) or 1.0)  # room for the totals
        axes.grid(axis="y", visible=False)
        named(axes, title, f"time ({unit})", "")
        legend(axes, [handles[n] for n in names], [short(n, 20) for n in names])
    return figure


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit in which a time is a number of at least 1, and how many of it are a second."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1:
            return unit, scale
    return "ns", 1e9
