"""Reshape and the functions made of it.

Lengths that came from the caller (``types.Extent``) keep that mark where they pass through, and no view is
left out because a length happens to be one: the program for a batch of one is that for a batch of many.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from graphjit.apply import apply
from graphjit.composed import composed
from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, ShapeError
from graphjit.op import Layout, Op, View, register
from graphjit.operators import attach
from graphjit.tape import state
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import (
    FLOAT32,
    DType,
    Extent,
    Shape,
    TensorType,
    contiguous_strides,
    is_one,
    normalize_axes,
    normalize_axis,
    same_number,
)


def operand(x: TensorLike) -> Tensor:
    """A tensor for whatever stands for one; a run-time Python float becomes float32, as it is eagerly."""
    if state.trace is None:
        return x if isinstance(x, Tensor) else as_tensor(x)
    t = as_tensor(x)
    return t.astype(FLOAT32) if t._type.weak else t


def text(shape: Sequence[int]) -> str:
    """A shape as errors print it."""
    return str(tuple(map(int, shape)))


def joined(lengths: Sequence[int]) -> int:
    """The length of several axes made one."""
    return like(math.prod(lengths), *lengths)


def like(n: int, *sources: int) -> int:
    """``n``, marked as the caller's when a length it was computed from is."""
    return Extent(n) if any(isinstance(m, Extent) for m in sources) else n


# ---- reshape

def _reshape_layout(x: Layout, shape: Shape) -> Layout | None:
    """The strides of another shape over the same elements in row-major order, None where there are none.

    Axes are matched in groups of equal size, each of which must be evenly strided. Only a
    length that is one by construction is skipped, so that the answer does not depend on the batch size.
    """
    strides = list(contiguous_strides(shape))
    if math.prod(shape) == 0:
        return Layout(x.offset, shape, tuple(strides))
    old = [(n, s) for n, s in zip(x.shape, x.strides, strict=True) if not is_one(n)]
    new = [i for i, n in enumerate(shape) if not is_one(n)]
    first = last = 0  # a group: axes new[first:i] lie where old[last:j] did
    while first < len(new) and last < len(old):
        i, j = first + 1, last + 1
        size_new, size_old = shape[new[first]], old[last][0]
        while size_new != size_old:
            if size_new < size_old:
                size_new *= shape[new[i]]
                i += 1
            else:
                size_old *= old[j][0]
                j += 1
        if not all(same_number(old[k][1], old[k + 1][0] * old[k + 1][1]) for k in range(last, j - 1)):
            return None
        step = old[j - 1][1]
        for axis in reversed(new[first:i]):
            strides[axis] = step
            step *= shape[axis]
        first, last = i, j
    return Layout(x.offset, shape, tuple(strides))


def _infer_reshape(x: TensorType, shape: Shape) -> TensorType:
    if any(n < 0 for n in shape) or math.prod(shape) != x.size:
        raise ShapeError(f"reshape of {x} ({x.size} elements) to {text(shape)} ({math.prod(shape)} elements)",
                         hint="Use -1 for one length to have it computed.")
    return x.with_shape(shape)


RESHAPE = register(Op("reshape", lambda x, shape: x.reshape(shape), _infer_reshape,
                      lambda g, out, x, shape: (reshape_to(g, x.shape),), View(_reshape_layout), view=True,
                      text="{0}.reshape({shape})"))


def reshape_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Reshape to lengths that are all known."""
    return apply(RESHAPE, x, shape=tuple(shape))


def _length(n: Any, what: str) -> int:
    if isinstance(n, Extent):
        return n
    try:
        return operator.index(n)
    except TypeError:
        raise ArgumentError(f"a shape for {what} holds integers, not {n!r}") from None


def shape_argument(shape: tuple[Any, ...], what: str) -> Shape:
    """``f(2, 3)`` and ``f((2, 3))`` alike as a tuple of ints, marks of the caller's lengths kept."""
    if len(shape) == 1 and isinstance(shape[0], (tuple, list, np.ndarray)):
        shape = shape[0] if type(shape[0]) is tuple else tuple(shape[0])
    for n in shape:
        if type(n) is not int:
            return tuple([n if type(n) is int else _length(n, what) for n in shape])
    return shape


@composed
def reshape(x: TensorLike, shape: int | Sequence[int], *more: int) -> Tensor:
    """The same elements, in row-major order, in another shape.

    Args:
        x: of any shape and dtype.
        shape: one tuple, or ints one after another; one of them may be -1 and is computed.

    Raises:
        ShapeError: when the number of elements differs.

    >>> import graphjit as gj
    >>> gj.reshape(gj.arange(6), (2, -1)).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    t = operand(x)
    lengths = shape_argument((shape, *more) if more else (shape,), "reshape")
    if state.trace is not None:
        lengths = _resolved(lengths, t._type)
    elif -1 in lengths:
        lengths = _computed(lengths, t.shape, t.dtype)
    if lengths and min(lengths) < 0:
        _infer_reshape(t._type, lengths)
    return apply(RESHAPE, t, shape=lengths)


@lru_cache(maxsize=512)
def _computed(shape: Shape, given: Shape, dtype: DType) -> Shape:
    """``_resolved``, for eager code."""
    return _resolved(shape, TensorType(given, dtype))


def _resolved(shape: Shape, x: TensorType) -> Shape:
    """``shape`` with -1 computed and the caller's lengths marked."""
    unmatched = False
    if state.trace is not None:
        spare = Counter(n for n in x.shape if isinstance(n, Extent))
        spare.subtract(n for n in shape if isinstance(n, Extent))
        unmatched = any(count > 0 for count in spare.values())
    if -1 in shape:
        i = shape.index(-1)
        rest = math.prod(shape[:i] + shape[i + 1:])
        if shape.count(-1) > 1 or rest == 0 or x.size % rest:
            raise ShapeError(f"reshape of {x} ({x.size} elements) to {text(shape)}: -1 cannot be computed")
        n = x.size // rest
        return (*shape[:i], Extent(n) if unmatched else n, *shape[i + 1:])
    if not unmatched or Extent in map(type, shape):
        return shape
    # a number that stands where an axis of the caller's length stood is that axis
    starts = {math.prod(x.shape[:j]): n for j, n in enumerate(x.shape) if isinstance(n, Extent)}
    return tuple(Extent(n) if starts.get(math.prod(shape[:i])) == n else n for i, n in enumerate(shape))


def ravel(x: TensorLike) -> Tensor:
    """All elements in row-major order, 1-d."""
    return reshape(x, -1)


@composed
def flatten(x: TensorLike, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes ``start_dim`` to ``end_dim`` (both included) made one, as in PyTorch; a 0-d tensor becomes 1-d."""
    t = operand(x)
    shape = t.shape
    if not shape:
        return reshape_to(t, (1,))
    first = normalize_axis(start_dim, len(shape), "start_dim")
    last = normalize_axis(end_dim, len(shape), "end_dim")
    if first > last:
        raise ShapeError(f"flatten from axis {first} to axis {last} of a tensor {t._type}")
    return reshape_to(t, (*shape[:first], joined(shape[first:last + 1]), *shape[last + 1:]))


@composed
def squeeze(x: TensorLike, axis: int | Sequence[int] | None = None) -> Tensor:
    """Without the given axes, or all axes, of length one.

    Raises:
        ShapeError: when a given axis is longer.
    """
    t = operand(x)
    shape = t.shape
    axes = [i for i, n in enumerate(shape) if n == 1] if axis is None else normalize_axes(axis, len(shape))
    for i in axes:
        if shape[i] != 1:
            raise ShapeError(f"squeeze of axis {i} of {t._type}: its length is not 1")
    return reshape_to(t, [n for i, n in enumerate(shape) if i not in axes])


@composed
def expand_dims(x: TensorLike, axis: int | Sequence[int] = 0) -> Tensor:
    """With new axes of length one at the given places of the result.

    >>> import graphjit as gj
    >>> gj.expand_dims(gj.zeros((2, 3)), (0, -1)).shape
    (1, 2, 3, 1)
    """
    t = operand(x)
    count = len(axis) if isinstance(axis, (tuple, list)) else 1
    axes = normalize_axes(axis, t.ndim + count)
    lengths = iter(t.shape)
    return reshape_to(t, [1 if i in axes else next(lengths) for i in range(t.ndim + count)])


attach(reshape=reshape, flatten=flatten, squeeze=squeeze, expand_dims=expand_dims)

__all__ = ["expand_dims", "flatten", "ravel", "reshape", "squeeze"]
