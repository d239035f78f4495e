"""One record per sample of an op."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = tuple[Any, ...]


@dataclass(frozen=True)
class Sample:
    """A call whose result NumPy knows.

    ops: names of the table's rows it exercises, the one under test first.
    function: of Tensors, the public function with its static arguments bound.
    args: makes the arrays from a random generator; floating ones are float64 and are cast to each of
        ``dtypes`` in turn, others are kept.
    reference: of NumPy arrays; gives the expected value (checked at the precision of the dtype).
    dtypes: floating dtypes to test; () where no argument is floating.
    grad: the first derivative is checked (with respect to all floating arguments); second: the second too.
    """

    id: str
    ops: tuple[str, ...]
    function: Callable[..., Any]
    args: Callable[[np.random.Generator], Arrays]
    reference: Callable[..., Any]
    dtypes: tuple[str, ...] = ("float32", "float64")
    grad: bool = True
    second: bool = True
    rtol: float = 0.0  # 0: 20 eps of the dtype; a multiple of eps otherwise


@dataclass(frozen=True)
class ErrorSample:
    """A call that must raise: the same error kind, eagerly and compiled."""

    id: str
    ops: tuple[str, ...]
    function: Callable[..., Any]
    args: Callable[[np.random.Generator], Arrays]
    error: type[Exception]


SAMPLES: list[Sample] = []
ERRORS: list[ErrorSample] = []
