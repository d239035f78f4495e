"""Elements picked and placed by integer tensors: the rows behind indexing, and the functions made of them.

``check_index`` turns indices that count from the end into places and refuses those out of range; the other
rows take places. ``take`` and ``scatter_add`` are each other's gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.apply import apply
from graphjit.composed import composed
from graphjit.convert import as_tensor, filled
from graphjit.errors import BoundsError, DTypeError, ShapeError
from graphjit.op import Array, Gather, Library, Op, register
from graphjit.operators import attach
from graphjit.ops.creation import arange
from graphjit.ops.elementwise import where
from graphjit.ops.movement import broadcast_to
from graphjit.ops.rules import need_integer, operands_text
from graphjit.ops.shape import joined, operand, reshape_to
from graphjit.promotion import promoted
from graphjit.tape import state
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import (
    INT64,
    UINT64,
    Shape,
    TensorType,
    broadcast_shapes,
    contiguous_strides,
    is_one,
    normalize_axis,
)

# ---- indices to places


def out_of_range(found: int, size: int) -> BoundsError:
    return BoundsError(f"index {found} is out of range for an axis of length {int(size)}",
                       hint=f"It takes {-int(size)}, ..., {int(size) - 1}." if size else "It takes none.")


def _check_index(idx: Array, size: int, what: str = "") -> Array:
    if idx.dtype.kind not in "iu":
        raise TypeError("not integers")
    if idx.dtype == INT64 and idx.size:
        unsigned = idx.view(UINT64)  # negative ones are huge
        if unsigned.item(unsigned.argmax()) < size:
            return idx
    if idx.size:
        lowest, highest = int(idx.min()), int(idx.max())
        if what and (lowest < 0 or highest >= size):
            raise BoundsError(f"{what} {lowest if lowest < 0 else highest} is out of range",
                              hint=f"It takes 0, ..., {int(size) - 1}." if size else "It takes none.")
        if lowest < -size or highest >= size:
            raise out_of_range(lowest if lowest < -size else highest, size)
        if lowest < 0:
            places = idx.astype(np.int64)
            return np.where(places < 0, places + size, places)
    return idx.astype(np.int64, copy=False)


def _infer_check(idx: TensorType, size: int, what: str = "") -> TensorType:
    need_integer(what or "an index", idx)
    return TensorType(idx.shape, INT64)


# with ``what`` ("label", say) none counts from the end
CHECK_INDEX = register(Op("check_index", _check_index, _infer_check, None, Library("check_index"),
                          why="its result is integer"))


def constant(array: Array) -> Tensor:
    """An array known when the program is traced; not lifted to an input as an array of the user's would
    be."""
    return Tensor._of(state.trace.constant(array)) if state.trace is not None else as_tensor(array)


def places(indices: Any, size: int, what: str = "an index") -> Tensor:
    """Checked places int64 in [0, size) for indices that may count from the end.

    Raises:
        BoundsError: out of range: at once for Python numbers and lists, otherwise when the program runs.
        DTypeError: indices that are not integers.
    """
    if isinstance(indices, (list, tuple, range, int, np.integer)):
        try:
            array = np.asarray(indices)
        except (ValueError, TypeError):
            array = as_tensor(list(indices)).data  # type: ignore[arg-type]  # raises, and says why
        if not array.size:
            array = array.astype(np.int64)
        if array.dtype.kind in "iu":
            return constant(_check_index(array, size))
        indices = array
    t = as_tensor(indices)
    if t.dtype.kind not in "iu":
        raise DTypeError(f"{what} is an integer, not {t._type}", hint="Convert with x.astype(int).")
    return apply(CHECK_INDEX, t, size=size)


# ---- take and scatter

def _take(x: Array, idx: Array, axis: int) -> Array:
    if idx.dtype != np.int64 or not 0 <= axis < x.ndim:
        raise TypeError("not places")
    return x.take(idx, axis, None, "clip")  # the places were checked; "raise" would copy once more


def _infer_take(x: TensorType, idx: TensorType, axis: int) -> TensorType:
    _need_places("take", x, idx, axis)
    return x.with_shape((*x.shape[:axis], *idx.shape, *x.shape[axis + 1:]))


def _need_places(name: str, x: TensorType, idx: TensorType, axis: int) -> None:
    if idx.dtype != INT64:
        raise DTypeError(f"{name} needs places int64, not {idx}", hint="Convert with x.astype(int).")
    if not 0 <= axis < x.ndim:
        raise ShapeError(f"{name}: axis {axis} is out of range for {x}")


def _take_vjp(g: Tensor, out: Tensor, x: Tensor, idx: Tensor, axis: int) -> tuple[Any, None]:
    def scattered() -> Tensor:
        n = joined(idx.shape)
        flat = reshape_to(g, (*x.shape[:axis], n, *x.shape[axis + 1:]))
        return apply(TAKE_GRAD, reshape_to(idx, (n,)), flat, axis=axis, size=x.shape[axis])
    return scattered, None


TAKE = register(Op("take", _take, _infer_take, _take_vjp, Gather(), text="{0}.take({1}, {axis}, None, 'clip')"))


def _take_grad(idx: Array, src: Array, axis: int, size: int) -> Array:
    x = np.zeros(_scatter_shape(src.shape, (size,), axis), src.dtype)
    return _scatter_add(x, idx, src, axis)


def _infer_take_grad(idx: TensorType, src: TensorType, axis: int, size: int) -> TensorType:
    x = src.with_shape(_scatter_shape(src.shape, (size,), axis))
    return _infer_scatter("take_grad", x, idx, src, axis, numeric=True)


# ``scatter_add`` to zeros, which need not be stored first
TAKE_GRAD = register(Op(
    "take_grad", _take_grad, _infer_take_grad,
    lambda h, out, idx, src, axis, size: (None, lambda: apply(TAKE, h, idx, axis=axis)),
    Library("take_grad")))


def _scatter_shape(x: Shape, idx: Shape, axis: int) -> Shape:
    return (*x[:axis], *idx, *x[axis + 1:])


def _scatter_add(x: Array, idx: Array, src: Array, axis: int) -> Array:
    if (x.dtype != src.dtype or x.dtype.kind == "b" or idx.dtype != np.int64 or idx.ndim != 1
            or src.shape != _scatter_shape(x.shape, idx.shape, axis)):
        raise ValueError("operands do not fit")
    out = x.copy()
    if 0 in src.shape:
        return out
    where_to: Any = (*(slice(None),) * axis, idx) if axis else idx
    np.add.at(out, where_to, src)
    return out


def _infer_scatter(name: str, x: TensorType, idx: TensorType, src: TensorType, axis: int,
                   numeric: bool = False) -> TensorType:
    _need_places(name, x, idx, axis)
    if numeric and x.dtype.kind == "b":
        raise DTypeError(f"{name} needs numeric operands, not {x}", hint="Convert with x.astype(...).")
    if idx.ndim != 1 or src.shape != _scatter_shape(x.shape, idx.shape, axis):
        raise ShapeError(f"{name} along axis {axis} needs one place for each element of the source",
                         detail=operands_text((x, idx, src)))
    if x.dtype != src.dtype:
        raise DTypeError(f"{name} needs a source of the target's dtype", detail=operands_text((x, idx, src)))
    return x


SCATTER_ADD = register(Op(
    "scatter_add", _scatter_add,
    lambda x, idx, src, axis: _infer_scatter("scatter_add", x, idx, src, axis, numeric=True),
    lambda g, out, x, idx, src, axis: (g, None, lambda: apply(TAKE, g, idx, axis=axis)),
    Library("scatter_add")))


def _scatter_set(x: Array, idx: Array, src: Array, axis: int) -> Array:
    if (x.dtype != src.dtype or idx.dtype != np.int64 or idx.ndim != 1
            or src.shape != _scatter_shape(x.shape, idx.shape, axis)):
        raise ValueError("operands do not fit")
    out = x.copy()
    where_to: Any = (*(slice(None),) * axis, idx)
    out[where_to] = src  # NumPy keeps the last of equal places
    return out


def _scatter_set_vjp(g: Tensor, out: Tensor, x: Tensor, idx: Tensor, src: Tensor,
                     axis: int) -> tuple[Any, ...]:
    def kept() -> Tensor:
        return apply(SCATTER_SET, g, idx, filled(src.shape, 0, src.dtype), axis=axis)

    def written() -> Tensor:
        order = arange(idx.shape[0])
        blank = filled((x.shape[axis],), -1, INT64)
        last = apply(SCATTER_SET, blank, idx, order, axis=0)
        stays = apply(TAKE, last, idx, axis=0) == order  # not overwritten by a later element
        stays = reshape_to(stays, (idx.shape[0], *(1,) * (x.ndim - axis - 1)))
        return where(stays, apply(TAKE, g, idx, axis=axis), 0)
    return kept, None, written


SCATTER_SET = register(Op(
    "scatter_set", _scatter_set,
    lambda x, idx, src, axis: _infer_scatter("scatter_set", x, idx, src, axis), _scatter_set_vjp,
    Library("scatter_set")))


# ---- functions

@composed
def take(x: TensorLike, indices: TensorLike, axis: int | None = None) -> Tensor:
    """Elements (rows, columns, ...) of x at the given indices along an axis.

    Args:
        x: of any dtype.
        indices: integers of any shape; negative ones count from the end.
        axis: along which to pick; None: x is flattened first.

    Returns:
        x's shape with ``axis`` replaced by the axes of ``indices``.

    Raises:
        BoundsError: an index out of range. DTypeError: indices that are not integers.

    >>> import graphjit as gj
    >>> gj.take([10, 20, 30], [[2, 0], [-1, 1]]).tolist()
    [[30, 10], [30, 20]]
    """
    t = operand(x)
    if axis is None:
        t, axis = reshape_to(t, (joined(t.shape),)), 0
    axis = normalize_axis(axis, t.ndim)
    return apply(TAKE, t, places(indices, t.shape[axis]), axis=axis)


@composed
def take_along_axis(x: TensorLike, indices: TensorLike, axis: int = -1) -> Tensor:
    """For each position of ``indices`` the element of x there, but at the given index along ``axis``.

    Args:
        x: of any dtype.
        indices: integers with as many dimensions as x; all axes but ``axis`` broadcast with those of x.

    Returns:
        The shape of ``indices`` broadcast with x, of ``indices`` along ``axis``; what ``argsort`` and
        ``argmax`` (with keepdims) give picks the elements they stand for.

    Raises:
        BoundsError: an index out of range. ShapeError: shapes do not fit.

    >>> import graphjit as gj
    >>> gj.take_along_axis([[3, 1], [5, 7]], [[1], [0]], axis=1).tolist()
    [[1], [5]]
    """
    t = operand(x)
    axis = normalize_axis(axis, t.ndim)
    return along(t, places(indices, t.shape[axis]), axis)


def along(t: Tensor, idx: Tensor, axis: int) -> Tensor:
    """``take_along_axis`` by places that are known to be in range."""
    if idx.ndim != t.ndim:
        raise ShapeError(f"take_along_axis: indices of {idx.ndim} dimensions for an operand of {t.ndim}",
                         detail=operands_text((t._type, idx._type)))
    broadcast_shapes(t.shape[:axis] + t.shape[axis + 1:], idx.shape[:axis] + idx.shape[axis + 1:])
    if t.requires_grad and is_one(idx.shape[axis]):
        # one of each row, as of labels: its gradient is one number in a row of zeros, for which no scatter is needed
        n = t.shape[axis]
        place = reshape_to(arange(n), [n if i == axis else 1 for i in range(t.ndim)])
        return where(place == idx, t, 0).sum(axis=axis, keepdims=True)
    strides = contiguous_strides(t.shape)
    flat = idx * strides[axis]
    for k, (n, stride) in enumerate(zip(t.shape, strides, strict=True)):
        if k != axis and not is_one(n):
            flat = flat + reshape_to(arange(n) * stride, [n if i == k else 1 for i in range(t.ndim)])
    return apply(TAKE, reshape_to(t, (joined(t.shape),)), flat, axis=0)


@composed
def scatter_add(x: TensorLike, idx: TensorLike, src: TensorLike, axis: int = 0) -> Tensor:
    """x with the elements of ``src`` added at the given indices along an axis, one after another: what
    ``np.add.at`` does in place.

    Args:
        x: numeric.
        idx: integers of any shape; equal ones add up, negative ones count from the end.
        src: broadcasts to x's shape with ``axis`` replaced by the axes of ``idx``.

    Raises:
        BoundsError: an index out of range. ShapeError: ``src`` does not fit.

    >>> import graphjit as gj
    >>> gj.scatter_add([0, 0, 0], [0, 2, 2], [1, 10, 100]).tolist()
    [1, 0, 110]
    """
    t, s = promoted(x, src)
    t, s = operand(t), operand(s)
    axis = normalize_axis(axis, t.ndim)
    where_to = places(idx, t.shape[axis])
    wanted = _scatter_shape(t.shape, where_to.shape, axis)
    if s.shape != wanted:
        s = broadcast_to(s, wanted)
    n = joined(where_to.shape)
    if where_to.ndim != 1:
        s = reshape_to(s, (*t.shape[:axis], n, *t.shape[axis + 1:]))
    return apply(SCATTER_ADD, t, reshape_to(where_to, (n,)), s, axis=axis)


attach(take=take)

__all__ = ["scatter_add", "take", "take_along_axis"]
