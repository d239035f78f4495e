"""Pooling: the largest, the sum or the mean in each window.

``max_pool`` picks the first largest element of a window (NaN counts as largest); ``max_pool_grad`` puts
cotangents at the picked places and ``max_pool_pick`` reads another tensor there, which makes the family
closed under differentiation. So are ``sum_pool`` and ``sum_pool_grad``. Padding is never picked and adds
nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from graphjit.apply import apply
from graphjit.composed import composed
from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.kernels.reference import select
from graphjit.op import Array, Library, Op, register
from graphjit.ops.contract import matmul
from graphjit.ops.gather import constant
from graphjit.ops.rules import operands_text
from graphjit.ops.shape import expand_dims, operand, reshape_to, squeeze
from graphjit.ops.statistics import floating
from graphjit.ops.windows import (
    Ints,
    Pads,
    check_cotangent,
    count,
    covered,
    inside,
    ints,
    padded,
    tap,
    type_of,
)
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import FLOAT64, Extent, TensorType

# ---- shape rules


def _infer_pool(name: str, x: TensorType, kernel: Ints, stride: Ints, padding: Pads,
                dilation: Ints) -> TensorType:
    if x.dtype.kind not in "fiu":
        raise DTypeError(f"{name} needs a numeric operand, not {x}", hint="Convert with x.astype(...).")
    if x.ndim != len(kernel) + 2:
        raise ShapeError(f"{name} with a window of {len(kernel)} axes needs an operand (N, C, *sizes), "
                         f"not {x}")
    return TensorType((*x.shape[:2], *count(name, x, kernel, stride, padding, dilation)), x.dtype)


def _infer_max(x: TensorType, **how: Any) -> TensorType:
    return _infer_pool("max_pool", x, **how)


def _infer_max_grad(x: TensorType, g: TensorType, **how: Any) -> TensorType:
    check_cotangent("max_pool_grad", g, _infer_max(x, **how))
    return TensorType(x.shape, x.dtype)


def _infer_max_pick(x: TensorType, h: TensorType, **how: Any) -> TensorType:
    if x.shape != h.shape or x.dtype != h.dtype:
        raise ShapeError("max_pool_pick needs two operands of one type", detail=operands_text((x, h)))
    return _infer_max(x, **how)


def _infer_sum(x: TensorType, kernel: Ints, stride: Ints, padding: Pads) -> TensorType:
    return _infer_pool("sum_pool", x, kernel, stride, padding, (1,) * len(kernel))


def _infer_sum_grad(g: TensorType, size: Ints, **how: Any) -> TensorType:
    x = TensorType((*g.shape[:2], *size), g.dtype)
    check_cotangent("sum_pool_grad", g, _infer_sum(x, **how))
    return x


# ---- eager rules: element by element of the window, all windows at once

def _lowest(dtype: Any) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _taps(x: Array, kernel: Ints, places: Ints, stride: Ints, dilation: Ints) -> Iterator[Array]:
    for at in itertools.product(*map(range, kernel)):
        yield x[tap(at, places, stride, dilation)]


def _max_pool(x: Array, kernel: Ints, stride: Ints, padding: Pads, dilation: Ints) -> Array:
    found = _infer_max(type_of(x), kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    parts = _taps(padded(x, padding, _lowest(x.dtype)), kernel, found.shape[2:], stride, dilation)
    out = next(parts).copy()
    for part in parts:
        np.maximum(out, part, out=out)
    return out


def _picked(x: Array, kernel: Ints, places: Ints, stride: Ints, padding: Pads, dilation: Ints) -> Array:
    """For each window the number of the element that ``max_pool`` picks; -1 where all is padding."""
    shape, some = (*x.shape[:2], *places), any(low or high for low, high in padding)
    best, picked = np.full(shape, _lowest(x.dtype), x.dtype), np.full(shape, -1, np.int32)
    values = _taps(padded(x, padding, _lowest(x.dtype)), kernel, places, stride, dilation)
    real = _taps(padded(np.ones((1, 1, *x.shape[2:]), bool), padding, False), kernel, places, stride, dilation)
    for k, (value, ok) in enumerate(zip(values, real, strict=True)):
        if k == 0 and not some:  # there is no padding to pass over
            best[...], picked[...] = value, 0
            continue
        better = value <= best  # not so for larger ones and NaN, of which the first stays
        np.logical_or(better, best != best, better)
        np.logical_not(better, better)
        if some:
            better = (better | (picked < 0)) & ok
        np.maximum(best, value, out=best)
        picked ^= (picked ^ k) & np.negative(better.view(np.int8))  # k where it is better, without branches
    return picked


def _max_pool_grad(x: Array, g: Array, kernel: Ints, stride: Ints, padding: Pads, dilation: Ints) -> Array:
    _infer_max_grad(type_of(x), type_of(g), kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    picked = _picked(x, kernel, g.shape[2:], stride, padding, dilation)
    out, zero = padded(np.zeros_like(x, order="C"), padding), np.zeros((), g.dtype)
    for k, at in enumerate(itertools.product(*map(range, kernel))):
        out[tap(at, g.shape[2:], stride, dilation)] += select(picked == k, g, zero)
    return np.ascontiguousarray(out[inside(x.shape[2:], padding)])


def _max_pool_pick(x: Array, h: Array, kernel: Ints, stride: Ints, padding: Pads, dilation: Ints) -> Array:
    found = _infer_max_pick(type_of(x), type_of(h), kernel=kernel, stride=stride, padding=padding,
                            dilation=dilation)
    picked = _picked(x, kernel, found.shape[2:], stride, padding, dilation)
    out = np.zeros(found.shape, h.dtype)
    for k, part in enumerate(_taps(padded(h, padding), kernel, found.shape[2:], stride, dilation)):
        out = select(picked == k, part, out)
    return out


def _wide(dtype: Any) -> Any:
    """Sums of large windows are kept in double precision."""
    return FLOAT64 if dtype.kind == "f" else dtype


def _sum_pool(x: Array, kernel: Ints, stride: Ints, padding: Pads) -> Array:
    found = _infer_sum(type_of(x), kernel, stride, padding)
    out = np.zeros(found.shape, _wide(x.dtype))
    for part in _taps(padded(x, padding), kernel, found.shape[2:], stride, (1,) * len(kernel)):
        out += part
    return out.astype(x.dtype, copy=False)


def _sum_pool_grad(g: Array, size: Ints, kernel: Ints, stride: Ints, padding: Pads) -> Array:
    _infer_sum_grad(type_of(g), size, kernel=kernel, stride=stride, padding=padding)
    out = padded(np.zeros((*g.shape[:2], *size), _wide(g.dtype)), padding)
    for at in itertools.product(*map(range, kernel)):
        out[tap(at, g.shape[2:], stride, (1,) * len(kernel))] += g
    return np.ascontiguousarray(out[inside(size, padding)]).astype(g.dtype, copy=False)


# ---- rows

MAX_POOL: Op = register(Op(
    "max_pool", _max_pool, _infer_max,
    lambda g, out, x, **how: (apply(MAX_POOL_GRAD, x, g, **how),), Library("max_pool")))
MAX_POOL_GRAD: Op = register(Op(
    "max_pool_grad", _max_pool_grad, _infer_max_grad,
    lambda h, out, x, g, **how: (None, apply(MAX_POOL_PICK, x, h, **how)), Library("max_pool_grad")))
MAX_POOL_PICK: Op = register(Op(
    "max_pool_pick", _max_pool_pick, _infer_max_pick,
    lambda g, out, x, h, **how: (None, apply(MAX_POOL_GRAD, x, g, **how)), Library("max_pool_pick")))
SUM_POOL: Op = register(Op(
    "sum_pool", _sum_pool, _infer_sum,
    lambda g, out, x, **how: (apply(SUM_POOL_GRAD, g, size=x.shape[2:], **how),), Library("sum_pool")))
SUM_POOL_GRAD: Op = register(Op(
    "sum_pool_grad", _sum_pool_grad, _infer_sum_grad,
    lambda h, out, g, size, **how: (apply(SUM_POOL, h, **how),), Library("sum_pool_grad")))


# ---- functions

def _operand(name: str, rank: int, x: TensorLike) -> tuple[Tensor, bool]:
    """The operand with its batch axis, and whether it came without."""
    t = operand(x)
    if t.ndim not in (rank + 1, rank + 2):
        raise ShapeError(f"{name} needs an operand of {rank + 2} dimensions ({rank + 1} without the batch), "
                         f"not {t._type}")
    return (expand_dims(t, 0), True) if t.ndim == rank + 1 else (t, False)


def _window(name: str, x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any,
            ceil_mode: bool) -> tuple[Ints, Ints, Pads, Ints]:
    """Kernel, stride, padding and dilation by axis; ``ceil_mode`` is padding at the end."""
    rank = x.ndim - 2
    sizes = ints(kernel, rank, f"{name}: kernel_size")
    steps = sizes if stride is None or stride == () else ints(stride, rank, f"{name}: stride")
    pads, apart = ints(padding, rank, f"{name}: padding", 0), ints(dilation, rank, f"{name}: dilation")
    spans = covered(sizes, apart)
    if any(2 * p > span for p, span in zip(pads, spans, strict=True)):
        raise ArgumentError(f"{name}: padding {pads} is more than half of a window that spans {spans}")
    out: list[tuple[int, int]] = []
    for n, span, s, p in zip(x.shape[2:], spans, steps, pads, strict=True):
        more = 0
        room = n + 2 * p - span
        if ceil_mode and room >= 0 and room % s and (room // s + 1) * s < n + p:
            more = s - room % s  # a window that starts within the input, or the padding before it, counts
        out.append((p, p + more))
    return sizes, steps, tuple(out), apart


@composed
def _max_pool_nd(name: str, rank: int, x: TensorLike, kernel: Any, stride: Any, padding: Any, dilation: Any,
                 ceil_mode: bool) -> Tensor:
    t, single = _operand(name, rank, x)
    sizes, steps, pads, apart = _window(name, t, kernel, stride, padding, dilation, ceil_mode)
    out = apply(MAX_POOL, t, kernel=sizes, stride=steps, padding=pads, dilation=apart)
    return squeeze(out, 0) if single else out


@composed
def _avg_pool_nd(name: str, rank: int, x: TensorLike, kernel: Any, stride: Any, padding: Any,
                 ceil_mode: bool, count_include_pad: bool) -> Tensor:
    t, single = _operand(name, rank, floating(x))
    sizes, steps, pads, _ = _window(name, t, kernel, stride, padding, 1, ceil_mode)
    out = apply(SUM_POOL, t, kernel=sizes, stride=steps, padding=pads)
    rows = [_counts(n, m, k, s, low, low if count_include_pad else 0) for n, m, k, s, (low, _) in zip(
        t.shape[2:], out.shape[2:], sizes, steps, pads, strict=True)]
    if all(np.all(row == k) for row, k in zip(rows, sizes, strict=True)):
        out = out / math.prod(sizes)
    else:
        held = rows[0] if rank == 1 else rows[0][:, None] * rows[1]
        out = out / constant(held.astype(out.dtype))
    return squeeze(out, 0) if single else out


def _counts(size: int, places: int, kernel: int, stride: int, low: int, counted: int) -> Array:
    """How many elements each window along an axis holds, ``counted`` of the padding on either side
    included."""
    start = np.arange(places) * stride - low
    return np.minimum(start + kernel, size + counted) - np.maximum(start, -counted)


def max_pool1d(x: TensorLike, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False) -> Tensor:
    """The largest element of each window along the last axis, as ``torch.nn.functional.max_pool1d``.

    Args:
        x: (N, C, L) or (C, L).
        kernel_size: length of a window.
        stride: step from window to window; that length when not given.
        padding: elements that are never picked, on both sides; at most half a window.
        dilation: step between the elements of a window.
        ceil_mode: count a last window that runs over the end.

    Returns:
        (N, C, places). NaN in a window gives NaN; of equal elements the first takes the gradient.

    >>> import graphjit.nn.functional as F
    >>> F.max_pool1d([[1.0, 3.0, 2.0, 5.0]], 2).tolist()
    [[3.0, 5.0]]
    """
    return _max_pool_nd("max_pool1d", 1, x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(x: TensorLike, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False) -> Tensor:
    """The largest element of each window of the last two axes, as ``torch.nn.functional.max_pool2d``.

    Args:
        x: (N, C, H, W) or (C, H, W).
        kernel_size, stride, padding, dilation: as in ``max_pool1d``, one int or two.
        ceil_mode: count last windows that run over the end.
    """
    return _max_pool_nd("max_pool2d", 2, x, kernel_size, stride, padding, dilation, ceil_mode)


def avg_pool1d(x: TensorLike, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True) -> Tensor:
    """The mean of each window along the last axis, as ``torch.nn.functional.avg_pool1d``.

    Args:
        x: (N, C, L) or (C, L); integers become floats.
        kernel_size: length of a window.
        stride: step from window to window; that length when not given.
        padding: zeros on both sides; at most half a window.
        ceil_mode: count a last window that runs over the end.
        count_include_pad: whether the padding counts in the mean.

    >>> import graphjit.nn.functional as F
    >>> F.avg_pool1d([[1.0, 3.0, 2.0, 5.0]], 2).tolist()
    [[2.0, 3.5]]
    """
    return _avg_pool_nd("avg_pool1d", 1, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(x: TensorLike, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True) -> Tensor:
    """The mean of each window of the last two axes, as ``torch.nn.functional.avg_pool2d``.

    Args:
        x: (N, C, H, W) or (C, H, W).
        kernel_size, stride, padding: as in ``avg_pool1d``, one int or two.
        ceil_mode, count_include_pad: as in ``avg_pool1d``.
    """
    return _avg_pool_nd("avg_pool2d", 2, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


@composed
def _adaptive(name: str, rank: int, x: TensorLike, output_size: Any) -> Tensor:
    t, single = _operand(name, rank, floating(x))
    wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * rank
    if len(wanted) != rank:
        raise ArgumentError(f"{name}: output_size is an integer or {rank} of them, not {output_size!r}")
    for axis, (n, out) in enumerate(zip(t.shape[2:], wanted, strict=True), 2):
        if out is None:
            continue
        (m,) = ints(out, 1, f"{name}: output_size")
        if n % m == 0 and n:
            parts = Extent(n // m) if isinstance(n, Extent) else n // m
            t = reshape_to(t, (*t.shape[:axis], m, parts, *t.shape[axis + 1:])).mean(axis=axis + 1)
        else:
            t = (matmul(t.swapaxes(axis, -1), constant(_means(n, m).astype(t.dtype)))).swapaxes(axis, -1)
    return squeeze(t, 0) if single else t


def _means(n: int, m: int) -> Array:
    """The matrix (n, m) that takes means of m parts, from floor(i * n / m) to ceil((i + 1) * n / m)."""
    i, place = np.arange(m), np.arange(n)[:, None]
    first, end = i * n // m, -(-(i + 1) * n // m)
    return ((place >= first) & (place < end)) / (end - first)


def adaptive_avg_pool1d(x: TensorLike, output_size: Any) -> Tensor:
    """The means of ``output_size`` parts of the last axis, as ``torch.nn.functional.adaptive_avg_pool1d``.

    Args:
        x: (N, C, L) or (C, L).
        output_size: how many; parts overlap where it does not divide L.

    >>> import graphjit.nn.functional as F
    >>> F.adaptive_avg_pool1d([[1.0, 3.0, 2.0, 5.0]], 1).tolist()
    [[2.75]]
    """
    return _adaptive("adaptive_avg_pool1d", 1, x, output_size)


def adaptive_avg_pool2d(x: TensorLike, output_size: Any) -> Tensor:
    """The means of parts of the last two axes, as ``torch.nn.functional.adaptive_avg_pool2d``.

    Args:
        x: (N, C, H, W) or (C, H, W).
        output_size: parts of either axis, one int or two; None leaves an axis as it is.
    """
    return _adaptive("adaptive_avg_pool2d", 2, x, output_size)


__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d",
]
