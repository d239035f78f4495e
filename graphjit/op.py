"""``Op``: one row of the table, all that is known of an operation, and the kinds of lowering."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphjit.types import Shape, TensorType

INTERNAL = "the compiler makes it, after derivatives are taken"  # why a row has no derivative

Params = Mapping[str, Any]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """How the elements of a tensor lie in a buffer: element (i, j, ...) is at offset + i*strides[0] + ..."""

    offset: int
    shape: Shape
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Elementwise:
    """One scalar expression per element, ``{0}``, ``{1}`` the operands; names are those of kernels.scalar.

    ``cheap`` says that computing it twice costs less than storing and loading it; ``apart``, that it is for the sake of
    where it lies in memory: no loop that reads it computes it.
    """

    expr: str | Callable[[tuple[TensorType, ...], TensorType], str]
    cheap: bool = True
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Indexed:
    """An element-wise expression of the element's own row-major index ``{i}`` and scalar operands."""

    expr: str | Callable[[tuple[TensorType, ...], TensorType, Params], str]


@dataclass(frozen=True, slots=True)
class Reduction:
    """A fold along ``axis`` (a tuple in the params, ``keepdims`` beside it) by an associative function:
    'sum', 'prod', 'max', 'min', 'any' or 'all'."""

    kind: str


@dataclass(frozen=True, slots=True)
class View:
    """Another reading of the same memory: a new layout, or None where the elements must be copied."""

    layout: Callable[..., Layout | None]


@dataclass(frozen=True, slots=True)
class Assemble:
    """A result put together from its operands: operand i goes to the i-th region, the rest is ``fill``.

    ``regions(out_type, *operand_types, **params)`` gives a Layout in the contiguous result for each operand.
    """

    regions: Callable[..., tuple[Layout, ...]]
    fill: str | None = None  # name of the parameter that holds the fill value; None: regions cover all


@dataclass(frozen=True, slots=True)
class Gather:
    """``take``: elements of operand 0 picked along ``axis`` by the integers of operand 1."""


@dataclass(frozen=True, slots=True)
class Rolled:
    """Elements of operand 0, each axis read on from its start when its end is reached: ``shifts``, one for each axis,
    say how far on each element is found in the result."""


@dataclass(frozen=True, slots=True)
class Library:
    """A hand-made kernel, found by this name in ``codegen.library``."""

    kernel: str


@dataclass(frozen=True, slots=True)
class Host:
    """The eager rule itself, run between kernels: NumPy and LAPACK calls no kernel of ours would beat.

    ``small``: but for small matrices, which a loop kernel computes (``codegen.small_matrices``).
    """

    small: bool = False


Lowering = Elementwise | Indexed | Reduction | View | Assemble | Gather | Rolled | Library | Host


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """A row of the op table.

    Attributes:
        name: what prints and errors call it.
        eager: ``eager(*arrays, **params) -> array``; the meaning.
        infer: ``infer(*types, **params) -> TensorType``; raises ShapeError or DTypeError.
        vjp: ``vjp(g, out, *inputs, **params) -> tuple`` of one cotangent (or None for zero) per input, in
            Tensor operations; broadcasting is undone by the caller. None: no derivative exists, see ``why``.
        lower: how kernels compute it.
        why: for ops without vjp, the reason told to the user.
        view: the eager result may share memory with its operand.
        text: the eager rule without its checks as a Python expression, for functions that are written down for known
            types: ``{0}``, ``{1}`` the operands, ``{axis}`` a parameter, NumPy's names. "": the rule is called.
    """

    name: str
    eager: Callable[..., Array]
    infer: Callable[..., TensorType]
    vjp: Callable[..., tuple[Any, ...]] | None
    lower: Lowering
    why: str = ""
    view: bool = False
    text: str | Callable[[Sequence[TensorType], Params], str] = ""

    def __repr__(self) -> str:
        return f"Op({self.name})"


TABLE: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Add a row to the table.

    Raises:
        ValueError: when the name is taken.
    """
    if op.name in TABLE:
        raise ValueError(f"op {op.name!r} is in the table already")
    TABLE[op.name] = op
    return op
