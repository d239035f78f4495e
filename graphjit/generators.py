"""The global random generators of NumPy and Python: whether a traced function draws from them."""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphjit.errors import TraceWarning

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


@contextmanager
def generators_watched(name: str) -> Iterator[None]:
    """Warn when a function, while it is traced, draws numbers that every call of the program would repeat."""
    before = _places()
    yield
    if _places() != before:
        warnings.warn(f"{name} draws from NumPy's or Python's global random generator: the numbers are constants of "
                      "the compiled program, the same in every call. Use gj.random.", TraceWarning, _depth())


def _places() -> tuple[Any, ...]:
    """Where the generators stand."""
    numpy_state: Any = np.random.get_state(legacy=False)
    inner = numpy_state["state"]
    key = inner.get("key")
    return inner.get("pos"), None if key is None else int(key[0]), numpy_state["has_gauss"], hash(random.getstate())


def _depth() -> int:
    """Which frame above the caller is the first outside of this package."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and ("contextlib" in frame.f_code.co_filename
                                        or frame.f_code.co_filename.startswith(_HERE)):
        depth, frame = depth + 1, frame.f_back
    return depth
