"""``History``: what a training was like, epoch by epoch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from graphjit.errors import ArgumentError

Row = Mapping[str, float]


class History(Mapping[str, list[float]]):
    """A mapping of names to lists, one number for each epoch.

    ``train_loss`` is always there; ``val_loss`` and ``test_loss`` where there are such samples; with metrics
    ``train_accuracy``, ``val_accuracy`` and the like; ``lr`` (of the first group, at the last step of the epoch);
    ``seconds`` of the whole epoch and ``step_seconds``, the median over its training steps.

    Args:
        series: name -> a number for each epoch.

    Attributes:
        stopped: why the training ended before its last epoch; empty if it did not.

    Raises:
        ArgumentError: lists of different lengths.

    >>> from graphjit.training import History
    >>> history = History({"train_loss": [2.0, 1.5], "val_loss": [1.9, 2.1]})
    >>> history.epochs, history["train_loss"][-1], history.best("val_loss")
    (2, 1.5, (1, 1.9))
    >>> History.from_json(history.to_json()) == history
    True
    """

    def __init__(self, series: Mapping[str, Sequence[float]] | None = None) -> None:
        self._series = {name: [float(v) for v in values] for name, values in (series or {}).items()}
        self.stopped = ""
        if len({len(values) for values in self._series.values()}) > 1:
            raise ArgumentError("a history has a number for each epoch under every name",
                                detail=tuple(f"{name}: {len(v)}" for name, v in self._series.items()))

    def __getitem__(self, name: str) -> list[float]:
        return self._series[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._series)

    def __len__(self) -> int:
        return len(self._series)

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={values[-1]:.6g}" for name, values in self.items() if values)
        return f"History({self.epochs} epochs" + (f", last {last}" if last else "") + ")"

    @property
    def epochs(self) -> int:
        """How many epochs there are."""
        return max((len(values) for values in self._series.values()), default=0)

    def append(self, row: Row) -> None:
        """One more epoch. A name that it lacks, or that was not there before, is NaN where it is missing."""
        before = self.epochs
        for name in dict.fromkeys((*self._series, *row)):
            self._series.setdefault(name, [math.nan] * before).append(float(row.get(name, math.nan)))

    def best(self, name: str, mode: str | None = None) -> tuple[int, float]:
        """The epoch (from 1) with the best value, the first of equal ones, and that value.

        Args:
            name: which series. mode: 'min' or 'max'; None: 'min' for names that end in 'loss', else 'max'.

        Raises:
            ArgumentError: no such series, or no number in it.
        """
        sign = direction(name, mode)
        found = [(sign * v, i) for i, v in enumerate(self._series.get(name, ())) if not math.isnan(v)]
        if not found:
            raise ArgumentError(f"there is no {name!r} in this history", hint=f"There are {', '.join(self)}.")
        best = min(found)[1]
        return best + 1, self._series[name][best]

    def asdict(self) -> dict[str, list[float]]:
        """A copy of plain dict and lists."""
        return {name: list(values) for name, values in self.items()}

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """An object of lists as JSON text, null for what is not finite; also written to ``path`` if given."""
        finite = {name: [v if math.isfinite(v) else None for v in values] for name, values in self.items()}
        text = json.dumps(finite, indent=2) + "\n"
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @staticmethod
    def from_json(source: str | os.PathLike[str]) -> History:
        """The history in a JSON text, or in a file of it; null is NaN.

        Raises:
            ArgumentError: no such file, or not a JSON object of lists of numbers.
        """
        try:
            text = source if isinstance(source, str) and source.lstrip().startswith("{") else (
                Path(source).read_text(encoding="utf-8"))
            return History({name: [math.nan if v is None else float(v) for v in values]
                            for name, values in json.loads(text).items()})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ArgumentError(f"no history in {str(source)[:60]!r}: {error}") from error


def direction(name: str, mode: str | None) -> int:
    """1 where smaller is better, -1 where larger is.

    Raises:
        ArgumentError: a mode other than 'min', 'max', None.
    """
    if mode not in ("min", "max", None):
        raise ArgumentError(f"mode is 'min', 'max' or None, not {mode!r}")
    return 1 if mode == "min" or (mode is None and name.endswith("loss")) else -1
