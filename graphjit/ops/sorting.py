"""Sorting, searching and quantiles. The rows give places; values follow by ``take_along_axis``, and so do gradients."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from graphjit.apply import apply
from graphjit.composed import composed
from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.op import Array, Host, Library, Op, register
from graphjit.operators import attach
from graphjit.ops.elementwise import floor, where
from graphjit.ops.gather import along, take
from graphjit.ops.logic import isnan
from graphjit.ops.movement import cut, moveaxis
from graphjit.ops.rules import operands_text
from graphjit.ops.shape import operand, ravel
from graphjit.ops.statistics import floating
from graphjit.promotion import promoted
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import FLOAT64, INT64, TensorType, normalize_axis

FAST = 1 << 10  # elements, fewer of which NumPy orders sooner than they are packed


def _argsort(x: Array, axis: int, descending: bool) -> Array:
    """A stable order. NumPy sorts numbers many times as fast as it finds one: where a key and a place fit into an
    integer, these are sorted, and elsewhere the order that it finds fastest is stable if no two are equal."""
    n = x.shape[axis]
    if x.size < FAST:
        return _stable(x, axis, descending)
    keys = _keys(x) if n < 1 << 32 else None
    if keys is not None:
        if descending:
            keys = ~keys
        packed = np.ascontiguousarray(np.moveaxis(keys, axis, -1))
        packed <<= 32
        packed |= np.arange(n)
        packed.sort()
        packed &= (1 << 32) - 1
        return np.ascontiguousarray(np.moveaxis(packed, -1, axis))
    order = x.argsort(axis)
    rows = np.moveaxis(np.take_along_axis(x, order, axis), axis, 0)
    nan = x.dtype.kind == "f" and n > 1 and np.isnan(rows[-2]).any()
    if nan or (rows[1:] == rows[:-1]).any():
        return _stable(x, axis, descending)
    return np.ascontiguousarray(np.flip(order, axis) if descending else order).astype(np.int64, copy=False)


def _stable(x: Array, axis: int, descending: bool) -> Array:
    if not descending:
        return x.argsort(axis, "stable").astype(np.int64, copy=False)
    # the reverse of an ascending order, equal elements kept in theirs
    reverse = (*(slice(None),) * axis, slice(None, None, -1))
    back: Array = (x.shape[axis] - 1 - x[reverse].argsort(axis, "stable"))[reverse]
    return np.ascontiguousarray(back).astype(np.int64, copy=False)


def _keys(x: Array) -> Array | None:
    """Integers of 32 bits, in int64, in the order of the elements, NaN last; None where there is no room for that."""
    if x.dtype == np.float32:
        x = x + np.float32(0)  # there is one zero
        nan = np.isnan(x)
        if nan.any():
            x[nan] = np.nan  # and one NaN
        bits = x.view(np.int32)
        signs = bits >> 31
        signs &= 0x7FFFFFFF
        bits ^= signs
        return bits.astype(np.int64)
    if x.dtype.itemsize < 4 or x.dtype == np.int32:  # a copy, as are the others
        return x.astype(np.int64)
    if x.dtype == np.uint32:
        return x.astype(np.int64) - (1 << 31)
    if x.dtype == np.int64 and x.size:
        least = int(x.min())
        if int(x.max()) - least < 1 << 31:
            return x - least
    return None


def _infer_argsort(x: TensorType, axis: int, descending: bool) -> TensorType:
    normalize_axis(axis, x.ndim)
    return TensorType(x.shape, INT64)


ARGSORT = register(Op("argsort", _argsort, _infer_argsort, None, Host(), why="its result is integer"))


def _first_places(x: Array, axis: int, k: int) -> Array:
    return np.ascontiguousarray(_argsort(x, axis, True).take(range(k), axis))


def _infer_largest(x: TensorType, axis: int, k: int) -> TensorType:
    axis = normalize_axis(axis, x.ndim)
    if not 0 < k <= x.shape[axis]:
        raise ShapeError(f"no {k} largest of {int(x.shape[axis])} elements")
    return TensorType((*x.shape[:axis], k, *x.shape[axis + 1:]), INT64)


LARGEST = register(Op("largest", _first_places, _infer_largest, None, Library("largest"), why="its result is integer"))
FEW = 64  # largest elements; for more of them sorting all is faster


@composed
def argsort(x: TensorLike, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The places that put x in order along an axis.

    Args:
        x: of at least one dimension, any dtype.
        axis: along which to sort.
        descending: from the largest to the smallest.
        stable: equal elements always keep their order, ascending and descending; the argument is there for
            the array API's sake.

    Returns:
        int64 of x's shape. NaN counts as larger than any number: last when ascending, first when descending.

    >>> import graphjit as gj
    >>> gj.argsort([30, 10, 20]).tolist()
    [1, 2, 0]
    """
    t = operand(x)
    return apply(ARGSORT, t, axis=normalize_axis(axis, t.ndim), descending=bool(descending))


@composed
def sort(x: TensorLike, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """x in order along an axis; NaN counts as larger than any number, equal elements keep their order.

    >>> import graphjit as gj
    >>> gj.sort([3.0, 1.0, 2.0], descending=True).tolist()
    [3.0, 2.0, 1.0]
    """
    t = operand(x)
    axis = normalize_axis(axis, t.ndim)
    return along(t, argsort(t, axis, descending), axis)


class TopK(NamedTuple):
    """What ``topk`` gives."""

    values: Tensor
    indices: Tensor


def topk(x: TensorLike, k: int, axis: int = -1) -> TopK:
    """The k largest elements along an axis, largest first, and where they stand.

    Args:
        x: of at least one dimension.
        k: a Python integer, at most the length of the axis.

    Returns:
        ``values`` of x's dtype and ``indices`` int64, both of length k along ``axis``. NaN counts as largest;
        of equal elements the first comes first.

    Raises:
        ArgumentError: k is negative or larger than the axis is long.

    >>> import graphjit as gj
    >>> values, indices = gj.topk([1.0, 5.0, 3.0], 2)
    >>> values.tolist(), indices.tolist()
    ([5.0, 3.0], [1, 2])
    """
    return TopK(*_largest(x, k, axis))


@composed
def _largest(x: TensorLike, k: int, axis: int) -> tuple[Tensor, Tensor]:
    t = operand(x)
    axis = normalize_axis(axis, t.ndim)
    if isinstance(k, (bool, Tensor)) or not isinstance(k, (int, np.integer)) or not 0 <= k <= t.shape[axis]:
        raise ArgumentError(f"topk: no {k!r} largest of {int(t.shape[axis])} elements")
    if 0 < k <= FEW:
        indices = apply(LARGEST, t, axis=axis, k=int(k))
    else:
        indices = cut(argsort(t, axis, descending=True), axis, 0, int(k))
    return along(t, indices, axis), indices


def _searchsorted(x: Array, v: Array, side: str) -> Array:
    if x.dtype != v.dtype or x.ndim != 1:
        raise TypeError("operands do not fit")
    return np.asarray(np.searchsorted(x, v, side=side)).astype(np.int64, copy=False)  # type: ignore[call-overload]


def _infer_searchsorted(x: TensorType, v: TensorType, side: str) -> TensorType:
    if x.ndim != 1:
        raise ShapeError(f"searchsorted looks in a 1-d tensor, not {x}")
    if x.dtype != v.dtype:
        raise DTypeError("searchsorted needs operands of one dtype", detail=operands_text((x, v)))
    return TensorType(v.shape, INT64)


SEARCHSORTED = register(Op("searchsorted", _searchsorted, _infer_searchsorted, None, Host(),
                           why="its result is integer"))


@composed
def searchsorted(x: TensorLike, values: TensorLike, side: Any = "left") -> Tensor:
    """Where each value would have to be put into x to keep x in order.

    Args:
        x: 1-d, ascending (not checked).
        values: of any shape; dtypes are promoted.
        side: "left": before equal elements, "right": after them.

    Returns:
        int64 of the shape of ``values``, from 0 to len(x).

    >>> import graphjit as gj
    >>> gj.searchsorted([1.0, 2.0, 3.0], [2.0, 9.0]).tolist()
    [1, 3]
    """
    if side not in ("left", "right"):
        raise ArgumentError(f"searchsorted: side is 'left' or 'right', not {side!r}")
    a, b = (operand(t) for t in promoted(x, values))
    return apply(SEARCHSORTED, a, b, side=side)


@composed
def quantile(x: TensorLike, q: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """What a share q of the elements does not exceed, between two of them by linear interpolation.

    Args:
        x: numbers; integers become float64.
        q: from 0 to 1, a number or several; in tensors not checked, but held there. No gradient goes to it.
        axis: along which; all elements by default.
        keepdims: keep the axis, or all of them, with length 1.

    Returns:
        Of the shape of q, then that of x without the axis. NaN where there is one. Gradients go to the two elements,
        where they are equal to the first.

    Raises:
        ShapeError: there is no element. ArgumentError: a number q outside [0, 1].

    >>> import graphjit as gj
    >>> gj.quantile([4.0, 1.0, 3.0, 2.0], [0.0, 0.5]).tolist()
    [1.0, 2.5]
    """
    t, shares = floating(x), floating(q).detach() if isinstance(q, Tensor) else as_tensor(_shares(q))
    ndim = t.ndim
    if axis is None:
        t, axis = ravel(t), 0
    else:
        axis = normalize_axis(axis, ndim)
    if t.shape[axis] == 0:
        raise ShapeError("the quantile of no elements", detail=(f"operand: {operand(x)._type}",))
    rows = moveaxis(sort(t, axis), axis, 0)
    last = rows.shape[0] - 1
    at = (shares.astype(FLOAT64) * last).clip(0, last)
    place = floor(at)
    first = place.astype(INT64)
    low, high = take(rows, first, 0), take(rows, (first + 1).clip(max=last), 0)
    apart = (at - place).astype(t.dtype).reshape((*shares.shape, *[1] * (rows.ndim - 1)))
    found = where((low == high) | (apart == 0), low, low + (high - low) * apart)
    found = where(isnan(rows[-1]), math.nan, found)
    if keepdims:
        kept = [1] * ndim if rows.ndim == 1 else [*t.shape[:axis], 1, *t.shape[axis + 1:]]
        found = found.reshape((*shares.shape, *kept))
    return found


def _shares(q: Any) -> Any:
    shares = np.asarray(q, FLOAT64)
    if not ((shares >= 0) & (shares <= 1)).all():
        raise ArgumentError(f"quantile: shares are from 0 to 1, not {q!r}")
    return shares


def median(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The middle of the elements in order, the mean of the two in the middle if their number is even: see ``quantile``.

    >>> import graphjit as gj
    >>> gj.median([[1.0, 5.0, 2.0], [4.0, 0.0, 8.0]], axis=1).tolist()
    [2.0, 4.0]
    """
    return quantile(x, 0.5, axis, keepdims)


attach(sort=sort, argsort=argsort, topk=topk, median=median, quantile=quantile)

__all__ = ["TopK", "argsort", "median", "quantile", "searchsorted", "sort", "topk"]
