"""Putting tensors together and taking them apart: the concat row, and functions made of it and of views."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from graphjit.apply import apply
from graphjit.composed import composed
from graphjit.convert import filled
from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.op import INTERNAL, Array, Assemble, Layout, Op, Rolled, register
from graphjit.operators import attach
from graphjit.ops.elementwise import where
from graphjit.ops.movement import PAD, broadcast_to, cut, slice_axes
from graphjit.ops.rules import operands_text
from graphjit.ops.shape import expand_dims, joined, like, operand, reshape_to, shape_argument, text
from graphjit.promotion import promoted
from graphjit.tape import state
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import BOOL, TensorType, contiguous_strides, normalize_axis

# ---- concat

def _concat_eager(*xs: Array, axis: int) -> Array:
    return np.concatenate(xs, axis)


def _infer_concat(*types: TensorType, axis: int) -> TensorType:
    first = types[0]
    for t in types:
        if t.dtype != first.dtype:
            raise DTypeError("concat needs operands of one dtype", detail=operands_text(types))
        if t.ndim != first.ndim or not 0 <= axis < t.ndim or any(
                n != m for i, (n, m) in enumerate(zip(t.shape, first.shape, strict=True)) if i != axis):
            raise ShapeError(f"concat along axis {axis}: shapes must agree in all other axes",
                             detail=operands_text(types))
    lengths = [t.shape[axis] for t in types]
    total = sum(lengths)
    shape = [like(column[0], *column) for column in zip(*(t.shape for t in types), strict=True)]
    shape[axis] = like(total, *lengths)
    return first.with_shape(shape)


def _concat_vjp(g: Tensor, out: Tensor, *xs: Tensor, axis: int) -> tuple[Any, ...]:
    starts = accumulate((x.shape[axis] for x in xs), initial=0)
    return tuple([partial(cut, g, axis, start, x.shape[axis]) for x, start in zip(xs, starts, strict=False)])


def _concat_regions(out: TensorType, *types: TensorType, axis: int) -> tuple[Layout, ...]:
    strides = contiguous_strides(out.shape)
    starts = accumulate((t.shape[axis] for t in types), initial=0)
    return tuple([Layout(start * strides[axis], t.shape, strides)
                  for t, start in zip(types, starts, strict=False)])


def _concat_text(n: int) -> str:
    return "np.concatenate((" + "".join(f"{{{i}}}, " for i in range(n)) + "), {axis})"


CONCAT = register(Op("concat", _concat_eager, _infer_concat, _concat_vjp, Assemble(_concat_regions),
                     text=lambda types, how: _concat_text(len(types))))


def _operands(xs: Sequence[TensorLike], what: str) -> list[Tensor]:
    if not isinstance(xs, Tensor) and not isinstance(xs, (tuple, list, np.ndarray)):
        raise ArgumentError(f"{what} needs a sequence of tensors, not {type(xs).__name__}")
    if not len(xs):
        raise ArgumentError(f"{what} needs at least one tensor")
    ts = promoted(*xs)
    return ts if state.trace is None else [operand(t) for t in ts]


@composed
def concat(xs: Sequence[TensorLike], axis: int | None = 0) -> Tensor:
    """Tensors one after another along an axis (each flattened first when axis is None).

    Args:
        xs: tensors of equal shape but for ``axis``; dtypes are promoted.

    Raises:
        ShapeError: when the other axes differ or there is no such axis.

    >>> import graphjit as gj
    >>> gj.concat([gj.ones((2, 3)), gj.zeros((1, 3))]).shape
    (3, 3)
    """
    ts = _operands(xs, "concat")
    if axis is None:
        return apply(CONCAT, *[reshape_to(t, (joined(t.shape),)) for t in ts], axis=0)
    return apply(CONCAT, *ts, axis=normalize_axis(axis, ts[0].ndim))


concatenate = concat


@composed
def stack(xs: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new axis.

    Raises:
        ShapeError: when the shapes differ.
    """
    ts = _operands(xs, "stack")
    if any(t.shape != ts[0].shape for t in ts):
        raise ShapeError("stack needs tensors of one shape", detail=operands_text(tuple(t._type for t in ts)))
    new = normalize_axis(axis, ts[0].ndim + 1)
    return apply(CONCAT, *[expand_dims(t, new) for t in ts], axis=new)


# ---- apart

@composed
def split(x: TensorLike, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Pieces along an axis: so many equal ones, or cut at the given indices, as ``numpy.split``.

    Raises:
        ShapeError: when equal pieces do not come out even.

    >>> import graphjit as gj
    >>> [p.tolist() for p in gj.split(gj.arange(5), [1, 3])]
    [[0], [1, 2], [3, 4]]
    """
    t = operand(x)
    axis = normalize_axis(axis, t.ndim)
    n = t.shape[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        count = int(indices_or_sections)
        if count < 1 or n % count:
            raise ShapeError(f"split of axis {axis} of {t._type} in {count} equal pieces")
        piece = like(n // count, n)
        return [cut(t, axis, i * piece, piece) for i in range(count)]
    places = [slice(0, operator.index(i)).indices(n)[1] for i in indices_or_sections]
    starts = [0, *places]
    sizes = [max(b - a, 0) for a, b in zip(starts, places, strict=False)]
    return [cut(t, axis, a, m) for a, m in zip(starts, [*sizes, like(n - starts[-1], n)], strict=True)]


@composed
def unstack(x: TensorLike, axis: int = 0) -> tuple[Tensor, ...]:
    """The parts along an axis, each without it: the inverse of ``stack``."""
    t = operand(x)
    axis = normalize_axis(axis, t.ndim)
    rest = t.shape[:axis] + t.shape[axis + 1:]
    return tuple([reshape_to(cut(t, axis, i, 1), rest) for i in range(t.shape[axis])])


# ---- around

@composed
def pad(x: TensorLike, widths: Any, constant_values: TensorLike = 0) -> Tensor:
    """x surrounded by a constant.

    Args:
        x: of any dtype; the constant takes it.
        widths: elements to add: one int for all sides, ``(before, after)`` for all axes, or
            ``((before, after), ...)`` for each axis, as in ``numpy.pad``.
        constant_values: the number to fill with.

    Raises:
        ArgumentError: widths that are negative, not integers, or not of one of these forms.

    >>> import graphjit as gj
    >>> gj.pad(gj.ones((2,)), (1, 2)).tolist()
    [0.0, 1.0, 1.0, 0.0, 0.0]
    """
    t = operand(x)
    try:
        pairs = np.broadcast_to(np.asarray(widths), (t.ndim, 2))
    except ValueError:
        pairs = np.zeros((0, 2))
    if pairs.dtype.kind not in "iu" or len(pairs) != t.ndim or (pairs < 0).any():
        raise ArgumentError(f"pad of {t._type} by widths {widths!r}",
                            hint="Give a non-negative int, (before, after), or such a pair for each axis.")
    low, high = tuple(pairs[:, 0].tolist()), tuple(pairs[:, 1].tolist())

    def padded(y: Tensor, value: Any) -> Tensor:
        return apply(PAD, y, low=low, high=high, interior=(0,) * y.ndim, value=value)

    if isinstance(constant_values, (bool, int, float)):
        return padded(t, fill_value(constant_values, t))
    inside = padded(filled(t.shape, True, BOOL), False)
    return where(inside, padded(t, fill_value(0, t)), operand(constant_values).astype(t.dtype))


def fill_value(number: bool | int | float, t: Tensor) -> Any:
    """A Python number as the elements of ``t`` hold it.

    Raises:
        DTypeError: when they cannot.
    """
    kind = np.min_scalar_type(number).kind
    try:
        if kind == "f" and t.dtype.kind != "f":
            raise OverflowError
        return np.array(number, t.dtype).item()
    except OverflowError:
        raise DTypeError(f"{number!r} does not fit {t._type}") from None


@composed
def roll(x: TensorLike, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Tensor:
    """Elements moved along an axis, those that leave at the end coming in again at the start.

    Args:
        shift: how far, one for each axis when axes are several.
        axis: without one, x is rolled as if flattened.
    """
    t = operand(x)
    if axis is None:
        flat = roll(reshape_to(t, (joined(t.shape),)), shift, 0)
        return reshape_to(flat, t.shape)
    axes: list[Any] = list(axis) if isinstance(axis, Sequence) else [axis]
    shifts: list[Any] = list(shift) if isinstance(shift, Sequence) else [shift] * len(axes)
    if len(shifts) != len(axes):
        raise ShapeError(f"roll by {len(shifts)} shifts along {len(axes)} axes")
    for a, s in zip(axes, shifts, strict=True):
        place = normalize_axis(a, t.ndim)
        n = t.shape[place]
        if operator.index(s) == 0 and any(shifts):
            continue
        k = operator.index(s) % max(n, 1)
        parts = cut(t, place, n - k, like(k, n)), cut(t, place, 0, like(n - k, n))
        t = apply(CONCAT, *parts, axis=place)
    return t


def _infer_rolled(x: TensorType, shifts: tuple[int, ...]) -> TensorType:
    return x.with_shape(x.shape)


ROLLED = register(Op("rolled", lambda x, shifts: np.roll(x, shifts, tuple(range(x.ndim))), _infer_rolled, None,
                     Rolled(), INTERNAL))  # see ``passes.rolls``


@composed
def repeat(x: TensorLike, repeats: int, axis: int | None = None) -> Tensor:
    """Each element ``repeats`` times in a row, along an axis or of the flattened x.

    >>> import graphjit as gj
    >>> gj.repeat(gj.arange(3), 2).tolist()
    [0, 0, 1, 1, 2, 2]
    """
    t = operand(x)
    if axis is None:
        t, axis = reshape_to(t, (joined(t.shape),)), 0
    if isinstance(repeats, bool) or not isinstance(repeats, (int, np.integer)) or repeats < 0:
        raise ArgumentError(f"repeat needs a non-negative integer, not {repeats!r}",
                            hint="For different counts use gj.take(x, np.repeat(range(n), counts), axis).")
    axis = normalize_axis(axis, t.ndim)
    shape = list(t.shape)
    wide = broadcast_to(expand_dims(t, axis + 1), (*shape[:axis + 1], int(repeats), *shape[axis + 1:]))
    shape[axis] = like(shape[axis] * int(repeats), shape[axis])
    return reshape_to(wide, shape)


@composed
def tile(x: TensorLike, reps: int | Sequence[int]) -> Tensor:
    """The whole of x repeated along each axis; ``reps`` is matched from the right, as in ``numpy.tile``."""
    t = operand(x)
    counts = shape_argument((reps,), "tile")
    counts = (1,) * (t.ndim - len(counts)) + counts
    if min(counts, default=0) < 0:
        raise ShapeError(f"tile of {t._type} by {text(counts)}")
    shape = (1,) * (len(counts) - t.ndim) + t.shape
    apart = reshape_to(t, [m for n in shape for m in (1, n)])
    wide = broadcast_to(apart, tuple([m for c, n in zip(counts, shape, strict=True) for m in (c, n)]))
    return reshape_to(wide, [joined(pair) for pair in zip(counts, shape, strict=True)])


@composed
def diag(x: TensorLike, k: int = 0) -> Tensor:
    """The k-th diagonal of a matrix, or for a vector the matrix with it there and 0 elsewhere.

    Raises:
        ShapeError: for other than one or two axes.
    """
    t = operand(x)
    above, below = max(k, 0), max(-k, 0)
    if t.ndim == 1:  # in the flattened square, neighbours on a diagonal are size + 1 apart
        n = t.shape[0]
        size = like(n + above + below, n)
        low = below * size + above
        high = size * size - low - ((n - 1) * (size + 1) + 1 if n else 0)
        flat = apply(PAD, t, low=(low,), high=(like(high, n),), interior=(size,), value=fill_value(0, t))
        return reshape_to(flat, (size, size))
    if t.ndim != 2:
        raise ShapeError(f"diag needs a vector or a matrix, not {t._type}")
    rows, columns = t.shape
    n = like(max(min(rows - below, columns - above), 0), rows, columns)
    flat = reshape_to(t, (joined(t.shape),))
    return slice_axes(flat, (below * columns + above if n else 0,), (n,), (columns + 1,))


@composed
def meshgrid(*xs: TensorLike, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Coordinate arrays of the grid spanned by vectors; "xy" swaps the first two axes, "ij" does not.

    Raises:
        ShapeError: for operands that are not vectors. ArgumentError: another ``indexing``.
    """
    if indexing not in ("xy", "ij"):
        raise ArgumentError(f"indexing is 'xy' or 'ij', not {indexing!r}")
    ts = [operand(x) for x in xs]
    for t in ts:
        if t.ndim > 1:
            raise ShapeError(f"meshgrid needs vectors, not {t._type}")
    places = list(range(len(ts)))
    if indexing == "xy" and len(ts) > 1:
        places[:2] = [1, 0]
    shape = [1] * len(ts)
    for t, place in zip(ts, places, strict=True):
        shape[place] = joined(t.shape)
    return tuple([
        broadcast_to(reshape_to(t, [n if i == place else 1 for i, n in enumerate(shape)]), tuple(shape))
        for t, place in zip(ts, places, strict=True)])


attach(repeat=repeat, split=split)

__all__ = [
    "concat", "concatenate", "diag", "meshgrid", "pad", "repeat", "roll", "split", "stack", "tile", "unstack",
]
