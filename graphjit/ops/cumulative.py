"""Running sums and products along an axis, and differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphjit.apply import apply
from graphjit.composed import composed
from graphjit.errors import ArgumentError, DTypeError
from graphjit.op import Array, Library, Op, register
from graphjit.ops.join import concat
from graphjit.ops.movement import PAD, cut, moveaxis
from graphjit.ops.rules import operands_text
from graphjit.ops.shape import like, operand
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import BOOL, FLOAT32, FLOAT64, TensorType, normalize_axis


def _infer_cumulative(name: str) -> Callable[..., TensorType]:
    def infer(x: TensorType, axis: int, reverse: bool = False) -> TensorType:
        if x.dtype == BOOL:
            raise DTypeError(f"{name} has no meaning for bool", detail=operands_text((x,)))
        normalize_axis(axis, x.ndim)
        return x.with_shape(x.shape)
    return infer


def _cumsum_eager(x: Array, axis: int, reverse: bool = False) -> Array:
    if reverse:
        return np.flip(_cumsum_eager(np.flip(x, axis), axis), axis)
    if x.dtype == FLOAT32:  # one by one, so with a wider accumulator, as in sum
        return x.cumsum(axis, FLOAT64).astype(FLOAT32)
    return x.cumsum(axis, x.dtype)


def _cumsum_vjp(g: Tensor, out: Tensor, x: Tensor, axis: int, reverse: bool = False) -> tuple[Tensor]:
    return (apply(CUMSUM, g, axis=axis, **({} if reverse else {"reverse": True})),)


# ``reverse``: each element with those after it, not before
CUMSUM = register(Op("cumsum", _cumsum_eager, _infer_cumulative("cumsum"), _cumsum_vjp,
                     Library("cumulative")))


def _cumprod_vjp(g: Tensor, out: Tensor, x: Tensor, axis: int) -> tuple[Tensor]:
    # with p_i the product before x_i, the gradient of x_i is p_i * s_i, s_i = g_i + x_{i+1} * s_{i+1}: a
    # linear recurrence, solved by doubling (Hillis & Steele 1986) in log2(n) steps without any division
    rows, grads = moveaxis(x, axis, -1), moveaxis(g, axis, -1)
    n = rows.shape[-1]
    if n == 0:
        return (g,)
    factors, sums = _ahead(rows, 1), grads
    distance = 1
    while distance < n:
        sums = sums + factors * _ahead(sums, distance)
        factors = factors * _ahead(factors, distance)
        distance *= 2
    return (moveaxis(before(rows) * sums, -1, axis),)


CUMPROD = register(Op("cumprod", lambda x, axis: x.cumprod(axis, x.dtype),
                      _infer_cumulative("cumprod"), _cumprod_vjp, Library("cumulative")))


def before(x: Tensor) -> Tensor:
    """For each element the product of those before it in its row."""
    last, n = x.ndim - 1, x.shape[-1]
    if n == 0:
        return x
    products = cut(apply(CUMPROD, x, axis=last), last, 0, like(n - 1, n))
    return _row_pad(products, 1, 0, 1.0)


def _ahead(x: Tensor, distance: int) -> Tensor:
    """Each element replaced by that ``distance`` (at most the length) further on in its row, 0 at the end."""
    last, n = x.ndim - 1, x.shape[-1]
    return _row_pad(cut(x, last, distance, like(n - distance, n)), 0, distance, 0.0)


def _row_pad(x: Tensor, low: int, high: int, value: float) -> Tensor:
    none = (0,) * (x.ndim - 1)
    return apply(PAD, x, low=(*none, low), high=(*none, high), interior=(*none, 0), value=value)


@composed
def diff(x: TensorLike, n: int = 1, axis: int = -1, prepend: TensorLike | None = None,
         append: TensorLike | None = None) -> Tensor:
    """The differences between neighbours along an axis, x[1:] - x[:-1], taken n times.

    Args:
        x: numbers, of at least one dimension.
        n: how often; each time the axis is one shorter, until nothing is left.
        prepend, append: what is put before and behind x first; of x's shape but for the axis.

    Raises:
        ArgumentError: n is no integer, or negative. DTypeError: bools.

    >>> import graphjit as gj
    >>> gj.diff([1.0, 4.0, 9.0, 16.0]).tolist(), gj.diff([1.0, 4.0, 9.0, 16.0], 2).tolist()
    ([3.0, 5.0, 7.0], [2.0, 2.0])
    """
    t = operand(x)
    axis = normalize_axis(axis, t.ndim)
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ArgumentError(f"diff takes an integer from 0 on as n, not {n!r}")
    parts = [operand(part) for part in (prepend, t, append) if part is not None]
    t = parts[0] if len(parts) == 1 else concat(parts, axis)
    for _ in range(n):
        size = t.shape[axis]
        if size == 0:
            break
        less = like(size - 1, size)
        t = cut(t, axis, 1, less) - cut(t, axis, 0, less)
    return t
