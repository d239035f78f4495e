"""Tensors made from nothing but numbers: filled, counted, triangular."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from graphjit.apply import apply
from graphjit.arrays import default_dtype
from graphjit.composed import composed
from graphjit.convert import filled, scalar
from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.op import Indexed, Op, register
from graphjit.ops.elementwise import where
from graphjit.ops.movement import broadcast_to
from graphjit.ops.shape import expand_dims, operand, shape_argument, text
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import FLOAT32, FLOAT64, INT64, DType, Extent, Shape, TensorType, check_dtype, is_integer


def _infer_iota(shape: Shape) -> TensorType:
    if min(shape, default=0) < 0:
        raise ShapeError(f"a shape holds no negative lengths: {text(shape)}")
    return TensorType(shape, INT64)


# the row-major index of each element
IOTA = register(Op("iota", lambda shape: np.arange(math.prod(shape)).reshape(shape), _infer_iota, None,
                   Indexed(lambda types, out, params: "i64({i})"), why="its result is an index"))


def _shape(shape: Any) -> Shape:
    if type(shape) is int and shape >= 0:
        return (shape,)
    found = shape_argument((shape,), "a new tensor")
    if found and min(found) < 0:
        _infer_iota(found)
    return found


def full(shape: Any, fill_value: TensorLike, dtype: Any = None) -> Tensor:
    """A tensor of one repeated number.

    Args:
        shape: int or tuple of ints.
        fill_value: a number or a 0-d tensor.
        dtype: that of the number when not given: float32, int64 or bool.

    Raises:
        ShapeError: negative lengths.
    """
    lengths = _shape(shape)
    if isinstance(fill_value, (bool, int, float)):
        return filled(lengths, fill_value, default_dtype(fill_value) if dtype is None else check_dtype(dtype))
    t = operand(fill_value)
    return broadcast_to(t if dtype is None else t.astype(check_dtype(dtype)), lengths)


def zeros(shape: Any, dtype: Any = FLOAT32) -> Tensor:
    """A tensor of zeros.

    >>> import graphjit as gj
    >>> gj.zeros((2, 3)).dtype.name
    'float32'
    """
    return filled(_shape(shape), 0, check_dtype(dtype))


def ones(shape: Any, dtype: Any = FLOAT32) -> Tensor:
    """A tensor of ones."""
    return filled(_shape(shape), 1, check_dtype(dtype))


def full_like(x: TensorLike, fill_value: TensorLike, dtype: Any = None) -> Tensor:
    """A tensor of one repeated number, of the shape and (without ``dtype``) the dtype of x."""
    t = operand(x)
    return full(t.shape, fill_value, t.dtype if dtype is None else dtype)


def zeros_like(x: TensorLike, dtype: Any = None) -> Tensor:
    """Zeros of the shape and (without ``dtype``) the dtype of x."""
    return full_like(x, 0, dtype)


def ones_like(x: TensorLike, dtype: Any = None) -> Tensor:
    """Ones of the shape and (without ``dtype``) the dtype of x."""
    return full_like(x, 1, dtype)


def _number(x: Any, what: str) -> int | float:
    if isinstance(x, (Tensor, np.ndarray, np.generic)):
        x = x.item()  # in a trace: the error that says so
    if isinstance(x, bool) or not isinstance(x, (int, float)) or not math.isfinite(x):
        raise ArgumentError(f"{what} needs finite numbers, not {x!r}")
    return x


@composed
def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Tensor:
    """Evenly spaced numbers from ``start`` (0 when only one is given) up to but without ``stop``.

    Args:
        start, stop, step: numbers known when the program is traced.
        dtype: int64 when all are integers, float32 otherwise.

    Raises:
        ArgumentError: a step of zero, or numbers that are not finite.

    >>> import graphjit as gj
    >>> gj.arange(1, 7, 2).tolist()
    [1, 3, 5]
    """
    if stop is None:
        start, stop = 0, start
    if isinstance(stop, Extent) and start == 0 and step == 1:
        return _counted(stop, 0, 1, INT64 if dtype is None else check_dtype(dtype))
    a, b, k = (_number(x, "arange") for x in (start, stop, step))
    if k == 0:
        raise ArgumentError("arange with a step of 0")
    whole = all(isinstance(x, int) for x in (a, b, k))
    n = -((a - b) // k) if whole else math.ceil((b - a) / k)
    default = INT64 if whole else FLOAT32
    return _counted(max(int(n), 0), a, k, default if dtype is None else check_dtype(dtype))


def _counted(n: int, start: int | float, step: int | float, dtype: DType) -> Tensor:
    """start + i * step for i below n, computed in 64 bits."""
    i = apply(IOTA, shape=(n,))
    if isinstance(start, float) or isinstance(step, float):
        i = i.astype(FLOAT64)
    if step != 1:
        i = i * step
    if start != 0:
        i = i + start
    return i if dtype == i.dtype else i.astype(dtype)


@composed
def linspace(start: TensorLike, stop: TensorLike, num: int = 50, endpoint: bool = True,
             dtype: Any = FLOAT32) -> Tensor:
    """``num`` evenly spaced numbers from ``start`` to ``stop``, the end included or not; computed in float64.

    ``start`` and ``stop`` may be 0-d tensors and then have gradients.
    """
    count = operator.index(num)
    if count < 0:
        raise ArgumentError(f"linspace of {count} numbers")
    first, last = (scalar(x, FLOAT64) if isinstance(x, (int, float)) else operand(x).astype(FLOAT64)
                   for x in (start, stop))
    gaps = count - 1 if endpoint else count
    i = apply(IOTA, shape=(num if isinstance(num, Extent) else count,))
    out = i.astype(FLOAT64) * ((last - first) / max(gaps, 1)) + first
    if endpoint and count > 1:
        out = where(i == gaps, last, out)
    return out.astype(check_dtype(dtype))


@composed
def eye(n: int, m: int | None = None, k: int = 0, dtype: Any = FLOAT32) -> Tensor:
    """An (n, m) matrix with ones on the k-th diagonal and zeros elsewhere; square without ``m``.

    >>> import graphjit as gj
    >>> gj.eye(2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    rows, columns = _shape((n, n if m is None else m))
    return (_below(rows, columns) == k).astype(check_dtype(dtype))


def identity(n: int, dtype: Any = FLOAT32) -> Tensor:
    """The (n, n) identity matrix."""
    return eye(n, dtype=dtype)


def _below(rows: int, columns: int) -> Tensor:
    """column - row at each place of a matrix."""
    return arange(columns) - expand_dims(arange(rows), 1)


def _triangle(x: TensorLike, what: str) -> tuple[Tensor, Tensor]:
    t = operand(x)
    if t.ndim < 2:
        raise ShapeError(f"{what} needs at least two axes, not {t._type}")
    return t, _below(*t.shape[-2:])


@composed
def tril(x: TensorLike, k: int = 0) -> Tensor:
    """The lower triangle of the last two axes up to the k-th diagonal, 0 above.

    Raises:
        ShapeError: for less than two axes.
    """
    t, place = _triangle(x, "tril")
    return where(place <= k, t, scalar(0, t.dtype))


@composed
def triu(x: TensorLike, k: int = 0) -> Tensor:
    """The upper triangle of the last two axes from the k-th diagonal on, 0 below.

    Raises:
        ShapeError: for less than two axes.
    """
    t, place = _triangle(x, "triu")
    return where(place >= k, t, scalar(0, t.dtype))


@composed
def one_hot(x: TensorLike, n: int, dtype: Any = FLOAT32) -> Tensor:
    """1 at the place that each integer of x names along a new last axis of length n, 0 elsewhere.

    A number outside [0, n) names no place: its row is all 0.

    Raises:
        DTypeError: x is not of integers.

    >>> import graphjit as gj
    >>> gj.one_hot(gj.tensor([2, 0]), 3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    t = operand(x)
    if not is_integer(t.dtype):
        raise DTypeError(f"one_hot needs integers, not {t._type}")
    return (expand_dims(t, -1) == arange(n)).astype(check_dtype(dtype))


__all__ = [
    "arange", "eye", "full", "full_like", "identity", "linspace", "one_hot", "ones", "ones_like", "tril",
    "triu", "zeros", "zeros_like",
]
