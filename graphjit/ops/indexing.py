"""NumPy's indexing, read and written: ``t[1:, None, ::2]``, ``t[i, j]``, ``t[mask]``, ``t[idx] = v``.

An index is taken apart into a basic part (integers, slices, new axes), which is views, and the integer
arrays, which are one ``take`` along one axis: several arrays are made one by merging the axes they index.
Writing goes the same way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from graphjit.apply import apply, noted
from graphjit.composed import composed
from graphjit.convert import as_tensor
from graphjit.op import Host, Layout, Op, View
from graphjit.operators import attach
from graphjit.ops.gather import TAKE, TAKE_GRAD
from graphjit.ops.index_parts import Span, entries_of, fit_mask, take_apart
from graphjit.ops.movement import FLIP, SLICE, broadcast_to, permute_dims
from graphjit.ops.shape import RESHAPE, joined, operand, reshape_to
from graphjit.tape import Value, state
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import Shape, broadcast_shapes

# ---- reading

Step = tuple[Op, dict[str, Any]]  # a view's op and its parameters


def view(x: Tensor, spans: Sequence[Span]) -> Tensor:
    """The basic part."""
    for op, params in view_steps(spans):
        x = apply(op, x, **params)
    return x


def view_steps(spans: Sequence[Span]) -> list[Step]:
    """The basic part as ops."""
    steps: list[Step] = []
    axes = [s for s in spans if not s.new]
    if not all(s.whole for s in axes):
        steps.append((SLICE, {"starts": tuple([s.start for s in axes]), "sizes": tuple([s.size for s in axes]),
                              "steps": tuple([s.step for s in axes])}))
    flipped = tuple([i for i, s in enumerate(axes) if s.flip])
    if flipped:
        steps.append((FLIP, {"axes": flipped}))
    if any(s.new or s.dropped for s in spans):
        steps.append((RESHAPE, {"shape": view_shape(spans)}))
    return steps


def plain_key(index: Any) -> tuple[Any, ...] | None:
    """An index of ints, slices of ints, None and Ellipsis as something hashable; None for any other."""
    if type(index) is int:
        return (index,)
    key = []
    for e in index if type(index) is tuple else (index,):
        kind = type(e)
        if kind is slice:
            e = (e.start, e.stop, e.step)
            for part in e:
                if part is not None and type(part) is not int:
                    return None
        elif kind is not int and e is not None and e is not Ellipsis:
            if not isinstance(e, np.integer):
                return None
            e = int(e)
        key.append(e)
    return tuple(key)


@dataclass(frozen=True, slots=True, eq=False)
class Basic:
    """An index of integers, slices and None for tensors of one shape; one object for equal ones, as long as they are
    in use.

    Attributes:
        index: as NumPy takes it, which gives a view, of one element too.
        steps: the same as ops; none where it is all of the tensor.
        shape: of what it shows.
    """

    index: tuple[Any, ...]
    steps: tuple[Step, ...]
    shape: Shape


@lru_cache(maxsize=4096)
def basic(key: tuple[Any, ...], shape: Shape) -> Basic:
    """What a ``plain_key`` stands for."""
    index = tuple([slice(*e) if type(e) is tuple else e for e in key])
    spans = take_apart(entries_of(index, len(shape)), shape).spans
    return Basic(index if Ellipsis in key else (*index, Ellipsis), tuple(view_steps(spans)), view_shape(spans))


def _index_vjp(g: Tensor, out: Tensor, x: Tensor, at: Basic) -> tuple[Tensor]:
    shown = [x]
    for op, params in at.steps[:-1]:
        shown.append(apply(op, shown[-1], **params))
    for (op, params), y in zip(reversed(at.steps), reversed(shown), strict=True):
        assert op.vjp is not None, "views have a derivative"
        [g] = op.vjp(g, g, y, **params)
    return (g,)


def _index_layout(x: Layout, at: Basic) -> Layout | None:
    layout: Layout | None = x
    for op, params in at.steps:
        if layout is not None and isinstance(op.lower, View):
            layout = op.lower.layout(layout, **params)
    return layout


# the basic part as one step, for eager code; a trace records its steps, which the passes know
INDEX = Op("index", lambda x, at: x[at.index], lambda x, at: x.with_shape(at.shape), _index_vjp, View(_index_layout),
           view=True, text="{0}[{at}.index]")


def _masked_vjp(g: Tensor, out: Tensor, x: Tensor, mask: Tensor) -> tuple[Tensor, None]:
    at = Tensor._of(Value(mask.data.ravel().nonzero()[0]))
    rows = apply(TAKE_GRAD, at, g, axis=0, size=joined(x.shape[:mask.ndim]))
    return reshape_to(rows, x.shape), None


# the elements, or rows, where a mask of the first axes holds: in a trace no one knows how many
MASKED = Op("mask", lambda x, mask: x[mask], lambda x, mask: x, _masked_vjp, Host())


def view_shape(spans: Sequence[Span]) -> Shape:
    return tuple(s.size for s in spans if not s.dropped)


@dataclass(frozen=True, slots=True)
class Picked:
    """Several integer arrays made one: along axis ``at`` of a tensor with ``order`` of axes and shape
    ``merged``."""

    order: tuple[int, ...] | None
    moved: Shape           # after permuting
    merged: Shape          # after merging the indexed axes into one, ``at``
    at: int
    index: Tensor          # places along the merged axis, of the arrays' common shape


def pick(shape: Shape, arrays: Sequence[tuple[int, Tensor]]) -> Picked:
    axes = [axis for axis, _ in arrays]
    tensors = [t for _, t in arrays]
    common = broadcast_shapes(*(t.shape for t in tensors))
    index = tensors[0]
    for axis, t in arrays[1:]:
        index = index * int(shape[axis]) + t
    if index.shape != common:
        index = broadcast_to(index, common)
    order = None
    if axes != list(range(axes[0], axes[0] + len(axes))):
        order = (*axes, *(k for k in range(len(shape)) if k not in axes))
        shape, axes = tuple(shape[k] for k in order), list(range(len(axes)))
    at = axes[0]
    along = shape[at:at + len(axes)]
    return Picked(order, shape, (*shape[:at], joined(along) if len(along) > 1 else along[0],
                                 *shape[at + len(axes):]), at, index)


def merge(x: Tensor, picked: Picked) -> Tensor:
    if picked.order is not None:
        x = permute_dims(x, picked.order)
    return reshape_to(x, picked.merged) if picked.merged != picked.moved else x


def to_front(at: int, count: int, ndim: int) -> tuple[int, ...]:
    """The permutation that brings ``count`` axes from ``at`` on to the front."""
    return (*range(at, at + count), *range(at), *range(at + count, ndim))


def getitem(x: Tensor, index: Any) -> Tensor:
    """``x[index]`` as in NumPy; integers, slices and None give a view, arrays a copy.

    Raises:
        BoundsError: an integer out of range, or more entries than axes. DTypeError: floating indices.
        DataDependentError: a boolean mask in a compiled function.
    """
    now = state.now
    value = x._value
    if now is None or value.trace is not None:
        return _getitem(x, index)
    if isinstance(index, (Tensor, np.ndarray)):
        if index.dtype.kind == "b" and 0 < index.ndim <= x.ndim:
            fit_mask(index, x.shape[:index.ndim])
            return apply(MASKED, x, as_tensor(index))
        return _picked(x, index)
    key = plain_key(index)
    if key is None:
        return _getitem(x, index)
    data: Any = value.data
    at = basic(key, data.shape)
    return noted(INDEX, (value,), {"at": at}, data[at.index], value.requires_grad and now[1]) if at.steps else x


@composed
def _picked(x: Tensor, index: TensorLike) -> Tensor:
    """By one array of integers."""
    return _getitem(x, index)


@composed
def _getitem(x: Tensor, index: Any) -> Tensor:
    x = operand(x)
    found = take_apart(entries_of(index, x.ndim), x.shape)
    y = view(x, found.spans)
    if not found.arrays:
        return y
    picked = pick(y.shape, found.arrays)
    out = apply(TAKE, merge(y, picked), picked.index, axis=picked.at)
    if found.front and picked.at:
        out = permute_dims(out, to_front(picked.at, picked.index.ndim, out.ndim))
    return out


attach(__getitem__=getitem)

__all__: list[str] = []
