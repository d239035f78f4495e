"""What a classifier of two features says of the plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphjit.errors import ArgumentError, ShapeError
from graphjit.op import Array
from graphjit.plots.figure import COLORS, PathLike, legend, named, sheet
from graphjit.plots.series import short
from graphjit.tape import grad_mode

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = 200  # points along each side of the plane


def decision_boundary(predict: Callable[[Array], Any], x: Any, y: Sequence[int], path: PathLike | None = None, *,
                      classes: Sequence[str] | None = None, title: str = "Decision boundary") -> Figure:
    """The samples of two features, the regions in which a model says each class, and the line between them.

    Args:
        predict: gives for points (m, 2) of x's dtype one score each, (m,) or (m, 1), whose sign says the class, or
            the scores of k classes, (m, k), of which the largest counts. A model, compiled or not, is one.
        x: (n, 2) samples. y: (n,) their classes: for one score two values, the larger where the score is positive;
            else 0 .. k-1.
        path: a file to write: .png, .svg or .pdf.
        classes: names of the classes, in the order of their values.
        title: what stands above.

    Raises:
        ShapeError: samples or scores that do not fit. ArgumentError: more classes than scores tell apart; a file that
            cannot be written; matplotlib is not installed.

    >>> import graphjit as gj, numpy as np
    >>> x = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> gj.plots.decision_boundary(lambda points: points[:, 0] - points[:, 1], x, [-1, 1]).axes[0].get_title()
    'Decision boundary: 2 of 2 samples right (100.0 %)'
    """
    points, truth = np.asarray(x), np.asarray(y)
    if points.ndim != 2 or points.shape[1] != 2 or truth.shape != (len(points),) or not len(points):
        raise ShapeError(f"a decision boundary takes samples (n, 2) and classes (n,), not {points.shape} and "
                         f"{truth.shape}")
    low, high = points.min(0), points.max(0)
    edge = 0.12 * np.where(high > low, high - low, 1.0)
    side = [np.linspace(low[i] - edge[i], high[i] + edge[i], STEPS) for i in (0, 1)]
    plane = np.stack([g.ravel() for g in np.meshgrid(*side)], 1).astype(points.dtype if points.dtype.kind == "f" else
                                                                        np.float32)
    scores, own = _scores(predict, plane), _scores(predict, points.astype(plane.dtype))
    single = scores.shape[1] == 1
    values = np.unique(truth) if single else np.arange(scores.shape[1])
    if (single and len(values) > 2) or not np.isin(truth, values).all():
        raise ArgumentError(f"the classes {np.unique(truth).tolist()[:10]} are more than {scores.shape[1]} "
                            f"score{'s' * (not single)} can tell apart")
    regions, guesses = _places(scores, single), _places(own, single)
    places = np.searchsorted(values, truth)
    if single and len(values) == 1:
        values = np.array([0, 1]) if values[0] in (0, 1) else np.array([-values[0], values[0]])
        places = np.searchsorted(values, truth)
    right = int((guesses == places).sum())
    with sheet(7.2, 5.2, path) as figure:
        from matplotlib.colors import ListedColormap

        axes = figure.subplots()
        colors = [COLORS[i % len(COLORS)] for i in range(len(values))]
        shape = (STEPS, STEPS)
        axes.pcolormesh(*side, regions.reshape(shape), cmap=ListedColormap(colors), vmin=-0.5, vmax=len(values) - 0.5,
                        alpha=0.16, shading="nearest", rasterized=True, linewidth=0)
        for i in range(1 if single else len(values)):
            margin = scores[:, 0] if single else scores[:, i] - np.delete(scores, i, 1).max(1)
            if np.isfinite(margin).all() and margin.min() < 0 < margin.max():
                axes.contour(*side, margin.reshape(shape), levels=[0.0], colors="#323f4b", linewidths=1.3)
        handles = []
        for i, color in enumerate(colors):
            mine = points[places == i]
            handles.append(axes.scatter(mine[:, 0], mine[:, 1], 26.0, color=color, edgecolor="white", linewidth=0.6))
        axes.grid(visible=False)
        named(axes, f"{title}: {right} of {len(points)} samples right ({100 * right / len(points):.1f} %)",
              "first feature", "second feature")
        names = classes if classes is not None and len(classes) == len(values) else [f"class {v:g}" for v in values]
        legend(axes, handles, [short(str(name)) for name in names])
    return figure


def _scores(predict: Callable[[Array], Any], points: Array) -> Array:
    """What the model says of points, (m, k)."""
    with grad_mode(False):
        found = np.asarray(predict(points), np.float64)
    if found.ndim == 0 or found.ndim > 2 or len(found) != len(points) or found.size == 0:
        raise ShapeError(f"scores of shape {found.shape} for {len(points)} points: they are (m,), (m, 1) or (m, k)")
    return found.reshape(len(points), -1)


def _places(scores: Array, single: bool) -> Array:
    """The class of each point, counted from 0."""
    return (scores[:, 0] > 0).astype(np.intp) if single else scores.argmax(1)
