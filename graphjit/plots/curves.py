"""Curves of a training, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from graphjit.op import Array
from graphjit.plots.figure import COLORS, PathLike, legend, logarithmic, named, sheet
from graphjit.plots.series import Histories, Run, missing, runs_of, series, short

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 8.0, 4.2  # inches
FEW = 30                  # up to so many epochs each gets a mark


def loss_curves(histories: Histories, path: PathLike | None = None, *, title: str = "Loss") -> Figure:
    """``train_loss`` and ``val_loss`` of each epoch; logarithmic where they span more than a factor of 50.

    Args:
        histories: one history (name -> a number for each epoch), or label -> history. None, NaN: a gap.
        path: a file to write: .png, .svg or .pdf.
        title: what stands above.

    Raises:
        ArgumentError: no history has such a series; a file that cannot be written; matplotlib is not installed.

    >>> import graphjit as gj
    >>> figure = gj.plots.loss_curves({"relu": {"train_loss": [2.0, 1.1]}, "tanh": {"train_loss": [2.1, 1.3]}})
    >>> figure.axes[0].get_ylabel()
    'mean loss'
    """
    return _curves(histories, {"train_loss": "training", "val_loss": "validation"}, path, title, "mean loss",
                   _best_loss)


def accuracy_curves(histories: Histories, path: PathLike | None = None, *, title: str = "Accuracy") -> Figure:
    """``train_accuracy`` and ``val_accuracy`` (shares, 0 to 1) of each epoch, in percent.

    Arguments and errors are those of ``loss_curves``.
    """
    return _curves(histories, {"train_accuracy": "training", "val_accuracy": "validation"}, path, title,
                   "correct (%)", _best_accuracy, percent=True)


def test_loss(histories: Histories, path: PathLike | None = None, *, title: str = "Test loss") -> Figure:
    """``test_loss`` after each epoch. Arguments and errors are those of ``loss_curves``."""
    return _curves(histories, {"test_loss": "test"}, path, title, "mean loss on the test set", _last_loss)


def test_accuracy(histories: Histories, path: PathLike | None = None, *, title: str = "Test accuracy") -> Figure:
    """``test_accuracy`` (a share) after each epoch, in percent. Arguments and errors are those of ``loss_curves``."""
    return _curves(histories, {"test_accuracy": "test"}, path, title, "correct on the test set (%)", _last_accuracy,
                   percent=True)


def lr_schedule(histories: Histories, path: PathLike | None = None, *, title: str = "Learning-rate schedule") -> Figure:
    """``lr``, the learning rate of each epoch. Arguments and errors are those of ``loss_curves``."""
    return _curves(histories, {"lr": "learning rate"}, path, title, "learning rate", lambda values: "")


def overfitting_gap(histories: Histories, path: PathLike | None = None, *, title: str = "Overfitting gap") -> Figure:
    """How much worse the validation is than the training: ``val_loss - train_loss``, and, where there are
    accuracies, ``train_accuracy - val_accuracy`` in percentage points. Above zero the model overfits.

    Arguments and errors are those of ``loss_curves``.
    """
    runs = runs_of(histories)
    panels = {"validation loss less training loss": _gaps(runs, "val_loss", "train_loss", 1.0),
              "training less validation accuracy\n(percentage points)":
                  _gaps(runs, "train_accuracy", "val_accuracy", 100.0)}
    panels = {name: gaps for name, gaps in panels.items() if gaps}
    if not panels:
        raise missing(["val_loss with train_loss", "val_accuracy with train_accuracy"], runs)
    with sheet(WIDTH if len(panels) == 1 else 1.35 * WIDTH, HEIGHT, path) as figure:
        figure.suptitle(short(title, 80), x=0.01, ha="left", weight="bold", size=12)
        labels = list(runs)
        handles: dict[str, Artist] = {}
        for axes, (name, gaps) in zip(np.ravel(figure.subplots(1, len(panels))), panels.items(), strict=True):
            axes.axhline(0.0, color="#52606d", linewidth=1.0)
            for label, gap in gaps.items():
                handles[label] = _line(axes, gap, COLORS[labels.index(label) % len(COLORS)], "-")
            named(axes, "", "epoch", name)
            _whole_epochs(axes, list(gaps.values()))
        if list(handles) != [""]:
            legend(axes, list(handles.values()), [short(label) for label in handles])
    return figure


def _gaps(runs: dict[str, Run], above: str, below: str, scale: float) -> dict[str, Array]:
    found = {}
    for label, run in runs.items():
        a, b = series(run, above), series(run, below)
        if a is not None and b is not None:
            count = min(len(a), len(b))
            found[label] = scale * (a[:count] - b[:count])
    return found


def _curves(histories: Histories, names: dict[str, str], path: PathLike | None, title: str, y: str,
            remark: Callable[[Array], str], percent: bool = False) -> Figure:
    """One line for each run and name; the runs differ by colour, the names by dashes (of one run, by colour)."""
    runs = runs_of(histories)
    lines: list[tuple[list[str], str, str, Array]] = []
    for i, (label, run) in enumerate(runs.items()):
        for j, (name, what) in enumerate(names.items()):
            values = series(run, name)
            if values is None:
                continue
            values = 100.0 * values if percent else values
            text = ", ".join(filter(None, [short(label), what if len(names) > 1 or not label else ""]))
            same = [line for line in lines if np.array_equal(line[3], values, equal_nan=True)]
            if same:  # two lines in one place: one of two names
                same[0][0].append(text)
                continue
            color = COLORS[(j if len(runs) == 1 else i) % len(COLORS)]
            lines.append(([text], "" if j == 0 and len(names) > 1 else remark(values),
                          color + ("--" if j and len(runs) > 1 else "-"), values))
    if not lines:
        raise missing(list(names), runs)
    with sheet(WIDTH, HEIGHT, path) as figure:
        axes = figure.subplots()
        handles = [_line(axes, values, look[:7], look[7:]) for *_, look, values in lines]
        every = np.concatenate([values for *_, values in lines])
        wide = not percent and np.nanmin(every) > 0 and np.nanmax(every) > 50 * np.nanmin(every)
        if wide:
            logarithmic(axes, "y", every)
        elif np.nanmin(every) == np.nanmax(every) > 0:  # by itself the axis would show the last digits of one number
            axes.set_ylim(0.0, 1.1 * float(np.nanmax(every)))
        named(axes, title, "epoch", y + ", logarithmic" * bool(wide))
        _whole_epochs(axes, [values for *_, values in lines])
        texts = ["\n".join(filter(None, [",\n".join(text), note])) for text, note, *_ in lines]
        if not set(texts) <= set(names.values()) or len(lines) > 1:  # one line that the title names needs no legend
            legend(axes, handles, texts)
    return figure


def _line(axes: Axes, values: Array, color: str, dashes: str) -> Artist:
    return axes.plot(np.arange(1, len(values) + 1), values, dashes, color=color,
                     marker="o" if len(values) <= FEW else None, markersize=3.5)[0]


def _whole_epochs(axes: Axes, lines: list[Array]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0.5, max(len(values) for values in lines) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))


def _best_loss(values: Array) -> str:
    return f"best {np.nanmin(values):.4g} (epoch {np.nanargmin(values) + 1})"


def _best_accuracy(values: Array) -> str:
    return f"best {np.nanmax(values):.2f} % (epoch {np.nanargmax(values) + 1})"


def _last_loss(values: Array) -> str:
    return f"at the end {_last(values):.4g}"


def _last_accuracy(values: Array) -> str:
    return f"at the end {_last(values):.2f} %"


def _last(values: Array) -> float:
    return float(values[np.isfinite(values)][-1])
