"""Samples with what a model says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphjit.errors import ArgumentError, ShapeError
from graphjit.op import Array
from graphjit.plots.figure import PathLike, sheet
from graphjit.plots.series import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 100  # samples in a grid
RIGHT, WRONG = "#1e7a3c", "#b3261e"


def sample_grid(images: Any, labels: Sequence[int], predictions: Sequence[int] | None = None,
                classes: Sequence[str] | None = None, path: PathLike | None = None, *,
                title: str = "") -> Figure:
    """A grid of samples, above each its class; with predictions, in green what is right, in red what is wrong.

    Args:
        images: (n, height, width) grey, or (n, height, width, 3) coloured, of any range (0 to 1, 0 to 255, ...); or
            series (n, length), drawn as curves. At most 100.
        labels: (n,) the true classes. predictions: (n,) what the model says.
        classes: the names of the classes; their numbers when not given.
        path: a file to write: .png, .svg or .pdf.
        title: what stands above; how many predictions are right when not given.

    Raises:
        ShapeError: arrays that do not fit. ArgumentError: none or more than 100; a class without a name; a file that
            cannot be written; matplotlib is not installed.

    >>> import graphjit as gj, numpy as np
    >>> figure = gj.plots.sample_grid(np.zeros((2, 8, 8)), [3, 5], [3, 8])
    >>> [axes.get_title() for axes in figure.axes]
    ['3', '8 (is 5)']
    """
    pictures, truth = np.asarray(images, np.float64), np.asarray(labels)
    guesses = None if predictions is None else np.asarray(predictions)
    count = len(pictures) if pictures.ndim else 0
    if pictures.ndim not in (2, 3, 4) or (pictures.ndim == 4 and pictures.shape[3] not in (1, 3)):
        raise ShapeError(f"samples of shape {pictures.shape} are no images (n, height, width) or "
                         "(n, height, width, 3) and no series (n, length)")
    if truth.shape != (count,) or (guesses is not None and guesses.shape != (count,)):
        raise ShapeError(f"{count} samples have labels of shape {truth.shape}"
                         + (f" and predictions of shape {guesses.shape}" if guesses is not None else ""))
    if not 1 <= count <= MOST:
        raise ArgumentError(f"a grid shows 1 to {MOST} samples, not {count}")
    wide = pictures.ndim == 2
    across = min(count, 4 if wide else 5 if count <= 25 else 10)
    down = math.ceil(count / across)
    with sheet(across * (2.4 if wide else 1.5), 0.5 + down * 1.75, path) as figure:
        if not title:
            title = f"{count} samples" if guesses is None else \
                f"{int((truth == guesses).sum())} of {count} predictions right"
        figure.suptitle(short(title, 80), weight="bold", size=11)
        cells = np.ravel(figure.subplots(down, across, squeeze=False))
        for axes in cells[count:]:
            figure.delaxes(axes)
        for i, axes in enumerate(cells[:count]):
            _show(axes, pictures[i])
            text = _name(truth[i], classes)
            color = "#1f2933"
            if guesses is not None:
                color = RIGHT if guesses[i] == truth[i] else WRONG
                text = text if guesses[i] == truth[i] else f"{_name(guesses[i], classes)} (is {text})"
            axes.set_title(text, size=9, color=color, loc="center", pad=4, weight="normal")
    return figure


def _show(axes: Any, sample: Array) -> None:
    if sample.ndim == 1:
        axes.plot(sample, color="#0072B2", linewidth=1.2)
        axes.tick_params(labelsize=7)
        return
    low, high = np.nanmin(sample), np.nanmax(sample)
    if low < 0 or high > 1:  # to 0..1, as matplotlib wants colours
        sample = (sample - min(low, 0.0)) / (max(high, 1e-12) - min(low, 0.0))
    axes.imshow(sample[..., 0] if sample.ndim == 3 and sample.shape[2] == 1 else sample, cmap="gray", vmin=0.0,
                vmax=1.0 if high > 1 or low < 0 else max(high, 1e-12), interpolation="nearest")
    axes.set_axis_off()


def _name(label: Any, classes: Sequence[str] | None) -> str:
    if classes is None:
        return str(label)
    try:
        if label < 0:
            raise IndexError
        return short(str(classes[int(label)]), 16)
    except IndexError:
        raise ArgumentError(f"class {label} has no name: there are {len(classes)}") from None
