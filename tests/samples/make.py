"""How samples are written down: one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .base import ERRORS, SAMPLES, ErrorSample, Sample

Make = Callable[[np.random.Generator], tuple[Any, ...]]
Shape = tuple[int, ...]

INF, NAN = np.inf, np.nan


def sample(
    op: str, id: str, function: Callable[..., Any], args: Make, reference: Callable[..., Any], **more: Any
) -> None:
    """A sample of one op; ``more`` are further fields of the record."""
    SAMPLES.append(Sample(id, (op,), function, args, reference, **more))


def error(op: str, id: str, function: Callable[..., Any], args: Make, kind: type[Exception]) -> None:
    """A call that must raise."""
    ERRORS.append(ErrorSample(id, (op,), function, args, kind))


def fixed(*arrays: Any) -> Make:
    """The same arrays, whatever the generator."""
    return lambda rng: arrays


def normal(*shapes: Shape) -> Make:
    return lambda rng: tuple(np.asarray(rng.normal(size=s)) for s in shapes)


def between(low: float, high: float, *shapes: Shape) -> Make:
    return lambda rng: tuple(np.asarray(rng.uniform(low, high, s)) for s in shapes)


def integers(dtype: str, low: int, high: int, *shapes: Shape) -> Make:
    return lambda rng: tuple(rng.integers(low, high, s).astype(dtype) for s in shapes)


def whole(dtype: str, *shape: int) -> Make:
    """Not negative integers, or bools."""
    return integers(dtype, 0, 2 if dtype == "bool" else 99, shape)


def name(*parts: Any) -> str:
    """An id of shapes and static arguments."""
    return " ".join(str(p).replace(" ", "") for p in parts)
