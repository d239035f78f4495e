"""Reading what people pass to the plots: histories and lists of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphjit.errors import ArgumentError
from graphjit.op import Array

Run = Mapping[str, Sequence[float]]
Histories = Mapping[str, Run] | Run


def runs_of(histories: Histories) -> dict[str, Run]:
    """Histories by label; one history alone has an empty label.

    Raises:
        ArgumentError: neither a history nor a mapping of labels to histories, or empty.
    """
    if not isinstance(histories, Mapping) or not histories:
        raise ArgumentError("a plot takes a history, or a mapping of labels to histories",
                            detail=(f"this is {histories!r:.60}",))
    inner = [isinstance(found, Mapping) for found in histories.values()]
    if not any(inner):
        return {"": histories}  # type: ignore[dict-item]  # names to numbers
    if not all(inner):
        raise ArgumentError("a plot takes a history, or a mapping of labels to histories, not a mixture")
    return {str(label): run for label, run in histories.items()}  # type: ignore[misc]  # mappings


def numbers(values: Any, what: str) -> Array:
    """A list of numbers (n,), float64; None and what is not finite become NaN.

    Raises:
        ArgumentError: not numbers, or not one list of them.
    """
    try:
        array = np.array([np.nan if v is None else float(v) for v in values], np.float64)
    except (TypeError, ValueError):
        raise ArgumentError(f"{what} is not a list of numbers", detail=(f"it is {values!r:.60}",)) from None
    return np.where(np.isfinite(array), array, np.nan)


def series(run: Run, name: str) -> Array | None:
    """A series of a history, one number an epoch; None where it has none, or no number in it."""
    if name not in run:
        return None
    found = numbers(run[name], name)
    return found if np.isfinite(found).any() else None


def missing(names: Sequence[str], runs: Mapping[str, Run]) -> ArgumentError:
    """The error for histories of which none has what a plot shows."""
    there = sorted({name for run in runs.values() for name in run})
    where = "these histories" if len(runs) > 1 else "this history"
    return ArgumentError(f"there is no {' or '.join(names)} in {where}",
                         hint=f"There are {', '.join(there)}.")


def short(text: str, widest: int = 36) -> str:
    """A label on one line."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= widest else line[:widest - 1] + "…"
