"""Reductions: folds along axes and the positions of extremes.

Gradient conventions: ``max`` and ``min`` share the gradient evenly among ties; ``prod`` is exact where
factors are zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphjit.apply import apply
from graphjit.composed import composed
from graphjit.errors import DTypeError, ShapeError
from graphjit.op import Array, Library, Op, Params, Reduction, register
from graphjit.operators import attach
from graphjit.ops.cumulative import CUMPROD, CUMSUM, before
from graphjit.ops.elementwise import where
from graphjit.ops.logic import equal
from graphjit.ops.movement import flip, moveaxis, stretch_to
from graphjit.ops.rules import operands_text
from graphjit.ops.shape import joined, operand, reshape_to
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import (
    BOOL,
    FLOAT32,
    FLOAT64,
    INT64,
    UINT64,
    Shape,
    TensorType,
    check_dtype,
    normalize_axes,
    normalize_axis,
)

Axes = tuple[int, ...]
Axis = int | Sequence[int] | None


def _kept(shape: Shape, axis: Axes) -> Shape:
    """The shape with reduced axes of length one."""
    return tuple([1 if i in axis else n for i, n in enumerate(shape)])


def _left(shape: Shape, axis: Axes, keepdims: bool) -> Shape:
    return _kept(shape, axis) if keepdims else tuple([n for i, n in enumerate(shape) if i not in axis])


def _spread(g: Tensor, x: Tensor, axis: Axes, keepdims: bool) -> Tensor:
    """A reduced tensor with its axes back, of length one."""
    return g if keepdims else reshape_to(g, _kept(x.shape, axis))


def _aligned(g: Tensor, x: Tensor, axis: Axes, keepdims: bool) -> Tensor:
    """A reduced tensor that broadcasts to x as it is: leading axes need not be put back."""
    return g if axis == tuple(range(len(axis))) else _spread(g, x, axis, keepdims)


def _infer(name: str, kinds: str, empty: bool = True) -> Callable[..., TensorType]:
    """Shape rule of a fold; ``empty`` says whether it has a value for no elements."""
    def infer(x: TensorType, axis: Axes, keepdims: bool) -> TensorType:
        if x.dtype.kind not in kinds:
            raise DTypeError(f"{name} has no meaning for {x.dtype}", detail=operands_text((x,)),
                             hint="Convert with x.astype(...).")
        axes = normalize_axes(axis, x.ndim)
        shape = _left(x.shape, axes, keepdims)
        if not empty and math.prod(shape) > 0:
            _need_elements(name, x, axes)
        return x.with_shape(shape)
    return infer


def _need_elements(name: str, x: TensorType, axis: Axes) -> None:
    for i in axis:
        if x.shape[i] == 0:
            raise ShapeError(f"{name} along axis {i} of {x}: there is no element to choose from")


# ---- sum and product

# np.sum and its like without their wrappers
_add_reduce: Callable[..., Any] = np.add.reduce
_multiply_reduce: Callable[..., Any] = np.multiply.reduce


def _sum_eager(x: Array, axis: Axes, keepdims: bool) -> Array:
    # NumPy sums pairwise along memory but one by one across it: there float32 needs a wider accumulator
    dtype, n = x.dtype, x.ndim
    if dtype == FLOAT32 and not (x.flags.c_contiguous and axis[:1] == (n - len(axis),)):
        return _add_reduce(x, axis, FLOAT64, None, keepdims).astype(FLOAT32)  # type: ignore[no-any-return]
    return _add_reduce(x, axis, dtype, None, keepdims)  # type: ignore[no-any-return]


def _sum_text(types: Sequence[TensorType], how: Params) -> str:
    [x] = types
    if x.dtype == FLOAT64:
        return "add_reduce({0}, {axis}, None, None, {keepdims})"
    if x.dtype == FLOAT32 and how["axis"][:1] != (x.ndim - len(how["axis"]),):
        return "add_reduce({0}, {axis}, np.float64, None, {keepdims}).astype(np.float32)"
    return ""  # it depends on the memory's order


SUM = register(Op(
    "sum", _sum_eager, _infer("sum", "fiu"),
    lambda g, out, x, axis, keepdims: (stretch_to(_aligned(g, x, axis, keepdims), x.shape),),
    Reduction("sum"), text=_sum_text))


def _prod_vjp(g: Tensor, out: Tensor, x: Tensor, axis: Axes, keepdims: bool) -> tuple[Tensor]:
    # the product of all others = of those before times of those after: no division, so zeros are exact
    n = x.ndim
    places = tuple(range(n - len(axis), n))
    moved = moveaxis(x, axis, places)
    flat = reshape_to(moved, (*moved.shape[:n - len(axis)], joined(moved.shape[n - len(axis):])))
    others = before(flat) * flip(before(flip(flat, -1)), -1)
    return (_spread(g, x, axis, keepdims) * moveaxis(reshape_to(others, moved.shape), places, axis),)


PROD = register(Op(
    "prod", lambda x, axis, keepdims: _multiply_reduce(x, axis, x.dtype, None, keepdims),
    _infer("prod", "fiu"), _prod_vjp, Reduction("prod")))


# ---- extremes

def _extreme(name: str, function: Callable[..., Any]) -> Op:
    def eager(x: Array, axis: Axes, keepdims: bool) -> Array:
        if x.size == 0 and math.prod(_left(x.shape, axis, keepdims)) == 0:
            return np.empty(_left(x.shape, axis, keepdims), x.dtype)
        return np.asarray(function(x, axis, keepdims=keepdims))

    def vjp(g: Tensor, out: Tensor, x: Tensor, axis: Axes, keepdims: bool) -> tuple[Tensor]:
        ties = equal(x, _spread(out, x, axis, keepdims))
        count = apply(SUM, ties.astype(x.dtype), axis=axis, keepdims=True)
        return (where(ties, _spread(g, x, axis, keepdims) / count, 0),)

    def text(types: Sequence[TensorType], how: Params) -> str:
        return "np." + name + "imum.reduce({0}, {axis}, None, None, {keepdims})" if types[0].size else ""

    return register(Op(name, eager, _infer(name, "fiub", empty=False), vjp, Reduction(name), text=text))


MAX = _extreme("max", np.maximum.reduce)
MIN = _extreme("min", np.minimum.reduce)


def _truth(name: str, function: Callable[..., Any]) -> Op:
    return register(Op(name, lambda x, axis, keepdims: np.asarray(function(x, axis, keepdims=keepdims)),
                       _infer(name, "b"), None, Reduction(name), why="its result is a truth value"))


ANY = _truth("any", np.logical_or.reduce)
ALL = _truth("all", np.logical_and.reduce)


def _position(name: str, function: Callable[..., Any]) -> Op:
    def infer(x: TensorType, axis: int, keepdims: bool) -> TensorType:
        shape = _left(x.shape, (normalize_axis(axis, x.ndim),), keepdims)
        if math.prod(shape) > 0:
            _need_elements(name, x, (axis,))
        return TensorType(shape, INT64)

    def eager(x: Array, axis: int, keepdims: bool) -> Array:
        if x.size == 0 and math.prod(_left(x.shape, (axis,), keepdims)) == 0:
            return np.empty(_left(x.shape, (axis,), keepdims), INT64)
        return np.asarray(function(x, axis, keepdims=keepdims), INT64)

    return register(Op(name, eager, infer, None, Library("argreduce"), why="its result is an index"))


ARGMAX = _position("argmax", np.ndarray.argmax)
ARGMIN = _position("argmin", np.ndarray.argmin)


# ---- functions

def wide(x: TensorLike) -> Tensor:
    """As a tensor to be summed: bools and small integers become 64 bits wide, as in NumPy."""
    if isinstance(x, Tensor) and x._value.trace is None and x.dtype.kind == "f":
        return x
    t = operand(x)
    dtype = t.dtype
    if dtype.kind == "f" or dtype.itemsize == 8:
        return t
    return t.astype(UINT64 if dtype.kind == "u" else INT64)


def _fold(op: Op, t: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    axes = normalize_axes(axis, t.ndim)
    return apply(op, t, axis=axes, keepdims=bool(keepdims)) if axes else reshape_to(t, t.shape)


@composed
def sum(x: TensorLike, axis: Axis = None, keepdims: bool = False, dtype: Any = None) -> Tensor:
    """The sum along the given axes, or of all elements; 0 where there are none.

    Args:
        x: of any dtype; bools and integers are summed in 64 bits.
        axis: int, tuple of ints, or None for all.
        keepdims: whether reduced axes stay, of length one.
        dtype: element type to convert to first.

    Raises:
        ShapeError: when an axis does not exist.

    >>> import graphjit as gj
    >>> gj.sum(gj.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0).tolist()
    [4.0, 6.0]
    """
    return _fold(SUM, wide(x) if dtype is None else operand(x).astype(check_dtype(dtype)), axis, keepdims)


@composed
def prod(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The product along the given axes, or of all elements; 1 where there are none. Ints as in ``sum``."""
    return _fold(PROD, wide(x), axis, keepdims)


@composed
def max(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element along the given axes, NaN if one is; ties share the gradient evenly.

    Raises:
        ShapeError: when there is no element to choose from.
    """
    return _fold(MAX, operand(x), axis, keepdims)


@composed
def min(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element along the given axes, NaN if one is; ties share the gradient evenly.

    Raises:
        ShapeError: when there is no element to choose from.
    """
    return _fold(MIN, operand(x), axis, keepdims)


@composed
def any(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether an element is true (not zero) along the given axes."""
    return _fold(ANY, operand(x).astype(BOOL), axis, keepdims)


@composed
def all(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether all elements are true (not zero) along the given axes."""
    return _fold(ALL, operand(x).astype(BOOL), axis, keepdims)


@composed
def count_nonzero(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The number of elements that are not zero, int64."""
    return _fold(SUM, operand(x).astype(BOOL).astype(INT64), axis, keepdims)


def _index(op: Op, t: Tensor, axis: int | None, keepdims: bool) -> Tensor:
    if axis is not None:
        return apply(op, t, axis=normalize_axis(axis, t.ndim), keepdims=bool(keepdims))
    flat = apply(op, reshape_to(t, (joined(t.shape),)), axis=0, keepdims=False)
    return reshape_to(flat, (1,) * t.ndim) if keepdims else flat


@composed
def argmax(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The place of the largest element (or the first NaN) along an axis, or in the flattened x; int64.

    The first of several. It has no derivative.

    Raises:
        ShapeError: when there is no element to choose from.
    """
    return _index(ARGMAX, operand(x), axis, keepdims)


@composed
def argmin(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The place of the smallest element (or the first NaN) along an axis, or in the flattened x; int64.

    The first of several. It has no derivative.

    Raises:
        ShapeError: when there is no element to choose from.
    """
    return _index(ARGMIN, operand(x), axis, keepdims)


@composed
def cumsum(x: TensorLike, axis: int | None = None) -> Tensor:
    """Running sums along an axis, or of the flattened x. Integers as in ``sum``."""
    return _running(CUMSUM, wide(x), axis)


@composed
def cumprod(x: TensorLike, axis: int | None = None) -> Tensor:
    """Running products along an axis, or of the flattened x. Integers as in ``sum``."""
    return _running(CUMPROD, wide(x), axis)


def _running(op: Op, t: Tensor, axis: int | None) -> Tensor:
    if axis is None:
        t, axis = reshape_to(t, (joined(t.shape),)), 0
    return apply(op, t, axis=normalize_axis(axis, t.ndim))


attach(sum=sum, prod=prod, max=max, min=min, any=any, all=all, argmax=argmax, argmin=argmin,
       cumsum=cumsum, cumprod=cumprod)

__all__ = [
    "all", "any", "argmax", "argmin", "count_nonzero", "cumprod", "cumsum", "max", "min", "prod", "sum",
]
