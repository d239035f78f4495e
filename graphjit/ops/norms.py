"""Norms, traces and diagonals."""

from __future__ import annotations

import math
from typing import Any

from graphjit.composed import composed
from graphjit.errors import ArgumentError, ShapeError
from graphjit.ops.decompose import svd
from graphjit.ops.elementwise import where
from graphjit.ops.linalg import matrices
from graphjit.ops.movement import moveaxis, slice_axes
from graphjit.ops.shape import expand_dims, joined, operand, reshape_to
from graphjit.ops.statistics import floating
from graphjit.ops.transcendental import sqrt
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import Extent, normalize_axes


@composed
def norm(x: TensorLike, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Tensor:
    """A norm of vectors or matrices, as ``numpy.linalg.norm``.

    Args:
        x: integers become float64.
        ord: of vectors: any number p, for (sum |x|**p) ** (1/p); inf, -inf: the largest, the smallest |x|; 0:
            how many are not 0. Of matrices: "fro", "nuc" (the sum of the singular values), 2, -2 (the
            largest, the smallest of them), 1, -1, inf, -inf (the largest, the smallest sum of |x| over a
            column, a row). None is 2 for vectors and "fro" for matrices.
        axis: an int: norms of vectors along it; two ints: of matrices; None: of x as a whole, flattened if
            ``ord`` is None.
        keepdims: keep the axes, with length one.

    Returns:
        The norm; its gradient where it is 0 is 0.

    >>> import graphjit as gj
    >>> gj.linalg.norm([[3.0, 4.0], [0.0, 5.0]], axis=1).tolist()
    [5.0, 5.0]
    """
    t = floating(x)
    axes = normalize_axes(axis, t.ndim)
    if axis is None and ord is None:
        return _euclidean(t, axes, keepdims)
    if len(axes) == 1:
        return _vector(t, 2 if ord is None else ord, axes, keepdims)
    if len(axes) != 2:
        raise ShapeError(f"norm of order {ord!r} along {len(axes)} axes of {t._type}",
                         hint="Give one axis for vectors, two for matrices.")
    if isinstance(axis, (tuple, list)):  # rows and columns as they are named
        axes = tuple(int(a) % t.ndim for a in axis)
    return _matrix(t, ord, axes, keepdims)


def _euclidean(t: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    total = (t * t).sum(axis=axes, keepdims=keepdims)
    zero = total == 0
    return where(zero, 0, sqrt(where(zero, 1, total)))  # a slope of 0, not of infinity, at 0


def _vector(t: Tensor, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    if isinstance(ord, bool) or not isinstance(ord, (int, float)):
        raise ArgumentError(f"norm of vectors: ord is a number, not {ord!r}")
    size = t.abs()
    if ord == math.inf:
        return size.max(axis=axes, keepdims=keepdims)
    if ord == -math.inf:
        return size.min(axis=axes, keepdims=keepdims)
    if ord == 0:
        return (t != 0).astype(t.dtype).sum(axis=axes, keepdims=keepdims)
    if ord == 1:
        return size.sum(axis=axes, keepdims=keepdims)
    if ord == 2:
        return _euclidean(t, axes, keepdims)
    total = (size ** float(ord)).sum(axis=axes, keepdims=keepdims)
    zero = total == 0
    return where(zero, 0, where(zero, 1, total) ** (1 / float(ord)))


def _matrix(t: Tensor, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    if ord is None or ord == "fro":
        return _euclidean(t, axes, keepdims)
    if ord == "nuc" or ord in (2, -2):
        values = svd(moveaxis(t, axes, (-2, -1))).S
        out = values.sum(-1) if ord == "nuc" else values.max(-1) if ord == 2 else values.min(-1)
        return expand_dims(out, tuple(sorted(axes))) if keepdims else out
    if ord not in (1, -1, math.inf, -math.inf):
        raise ArgumentError(f"norm of matrices: ord is 'fro', 'nuc', 1, -1, 2, -2, inf or -inf, not {ord!r}")
    along, across = (axes[0], axes[1]) if abs(ord) == 1 else (axes[1], axes[0])
    sums = t.abs().sum(axis=along, keepdims=True)
    out = sums.max(axis=across, keepdims=True) if ord > 0 else sums.min(axis=across, keepdims=True)
    return out if keepdims else out.squeeze(axes)


def vector_norm(x: TensorLike, axis: Any = None, keepdims: bool = False, ord: float = 2) -> Tensor:
    """The norm of vectors along any number of axes (None: all), as in the array API; orders as for
    ``norm``."""
    t = floating(x)
    return _vector(t, ord, normalize_axes(axis, t.ndim), keepdims)


def matrix_norm(x: TensorLike, keepdims: bool = False, ord: Any = "fro") -> Tensor:
    """The norm of each matrix in the last two axes, as in the array API; orders as for ``norm``."""
    t = matrices(x, "matrix_norm")
    return _matrix(t, ord, (t.ndim - 2, t.ndim - 1), keepdims)


@composed
def diagonal(x: TensorLike, offset: int = 0) -> Tensor:
    """The elements [..., i, i + offset] of (stacks of) matrices.

    >>> import graphjit as gj
    >>> gj.linalg.diagonal([[1, 2], [3, 4]]).tolist()
    [1, 4]
    """
    t = operand(x)
    if t.ndim < 2:
        raise ShapeError(f"diagonal needs at least two axes, not {t._type}")
    rows, columns = t.shape[-2:]
    above, below = max(offset, 0), max(-offset, 0)
    n = max(min(rows - below, columns - above), 0)
    if isinstance(rows, Extent) or isinstance(columns, Extent):
        n = Extent(n)
    flat = reshape_to(t, (*t.shape[:-2], joined((rows, columns))))
    start = below * columns + above if n else 0
    return slice_axes(flat, (*(0,) * (t.ndim - 2), start), (*t.shape[:-2], n), (*(1,) * (t.ndim - 2), columns + 1))


@composed
def trace(x: TensorLike, offset: int = 0) -> Tensor:
    """The sum of the diagonal of each matrix in the last two axes; integers are summed in 64 bits.

    >>> import graphjit as gj
    >>> gj.linalg.trace([[1, 2], [3, 4]]).item()
    5
    """
    return diagonal(x, offset).sum(-1)


__all__ = ["diagonal", "matrix_norm", "norm", "trace", "vector_norm"]
