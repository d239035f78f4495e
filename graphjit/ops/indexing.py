"""NumPy's indexing, read and written: ``t[1:, None, ::2]``, ``t[i, j]``, ``t[mask]``, ``t[idx] = v``.

An index is taken apart into a basic part (integers, slices, new axes), which is views, and the integer
arrays, which are one ``take`` along one axis: several arrays are made one by merging the axes they index.
Writing goes the same way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from graphjit.apply import apply
from graphjit.composed import composed
from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, BoundsError, DataDependentError, DTypeError
from graphjit.op import Array, Host, Layout, Op, View
from graphjit.operators import attach
from graphjit.ops.gather import TAKE, TAKE_GRAD, out_of_range, places
from graphjit.ops.movement import FLIP, SLICE, broadcast_to, permute_dims
from graphjit.ops.shape import RESHAPE, joined, operand, reshape_to, text
from graphjit.tape import Value, state
from graphjit.tensor import Tensor
from graphjit.types import BOOL, Extent, Shape, broadcast_shapes


class Span(NamedTuple):
    """What the basic part takes of one axis of x: ``size`` elements from ``start`` on, ``step`` apart; the
    axis is then reversed (``flip``) or dropped (an integer index)."""

    start: int
    size: int
    step: int = 1
    flip: bool = False
    dropped: bool = False
    new: bool = False     # not an axis of x: a None in the index
    whole: bool = False   # all of the axis, in order


class Index(NamedTuple):
    """An index taken apart.

    Attributes:
        spans: of each axis of x and each new one, in the order of the index.
        arrays: the axis after the basic part, and places int64, of each integer array.
        front: NumPy puts the arrays' axes first, because other entries stand between them.
    """

    spans: tuple[Span, ...]
    arrays: tuple[tuple[int, Tensor], ...]
    front: bool


# ---- taking an index apart

def entries_of(index: Any, ndim: int) -> list[Any]:
    """One entry for each axis and each None; lists and arrays as arrays, Ellipsis written out."""
    given = list(index) if isinstance(index, tuple) else [index]
    entries = [_entry(e) for e in given]
    used = sum(_consumed(e) for e in entries)
    dots = [i for i, e in enumerate(entries) if e is Ellipsis]
    if len(dots) > 1:
        raise BoundsError("an index has at most one '...'")
    if used > ndim:
        raise BoundsError(f"an index for {used} axes of a tensor of {ndim}")
    at = dots[0] if dots else len(entries)
    return entries[:at] + [slice(None)] * (ndim - used) + entries[at + 1:]


def _entry(e: Any) -> Any:
    """Checked: None, Ellipsis, a slice, an int, or an array or tensor of integers or bools."""
    if e is None or e is Ellipsis or isinstance(e, slice):
        return e
    if isinstance(e, (bool, np.bool_)):
        return np.asarray(e)
    if isinstance(e, (int, np.integer)):
        return int(e)
    if isinstance(e, (list, tuple, range)):
        try:
            array = np.asarray(e)
        except (ValueError, TypeError):
            raise ArgumentError(f"{e!r} is not an index",
                                hint="Use gj.stack([...]) for a list of tensors.") from None
        e = array if array.size else array.astype(np.int64)
        static = True
    else:
        static = False
    if not isinstance(e, (np.ndarray, Tensor)):
        raise ArgumentError(f"{e!r} is not an index",
                            hint="It takes integers, slices, None, '...', and arrays of integers or bools.")
    if e.dtype.kind not in "iub":
        raise DTypeError(f"an index is made of integers or bools, not {e.dtype}",
                         hint="Convert with x.astype(int).")
    if e.dtype.kind == "b" and not static and state.trace is not None:
        return as_tensor(e)  # its elements are only known when the program runs
    return e.tolist() if static and e.dtype.kind != "b" else e


def is_mask(e: Any) -> bool:
    return isinstance(e, (np.ndarray, Tensor)) and e.dtype == BOOL


def _consumed(e: Any) -> int:
    """How many axes of x an entry indexes."""
    if e is None or e is Ellipsis:
        return 0
    return e.ndim if is_mask(e) else 1


def _span(s: slice, n: int) -> Span:
    try:
        start, stop, step = s.indices(n)
        size = len(range(start, stop, step))
        # the size is the caller's like the length, unless a longer axis would give the same
        if isinstance(n, Extent) and len(range(*s.indices(n + (1 << 40)))) != size:
            size = Extent(size)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{s!r} is not a slice: {error}") from None
    if step < 0:
        start, step = start + (size - 1) * step, -step
    whole = size == n and step == 1 and isinstance(size, Extent) == isinstance(n, Extent)
    return Span(start if size else 0, size, step, flip=s.step is not None and s.step < 0, whole=whole)


def _known(mask: Any, shape: Shape) -> Array:
    """A mask's array.

    Raises:
        DataDependentError: in a trace. BoundsError: the mask has another shape than the axes it stands for.
    """
    fit_mask(mask, shape)
    if isinstance(mask, Tensor) and state.trace is not None:
        raise DataDependentError(
            "the shape of t[mask] depends on data", detail=(f"the mask is {mask._type}",),
            hint="Use gj.where(mask, t, other), or compute t[mask] outside of the compiled function.")
    return mask.data if isinstance(mask, Tensor) else mask


def fit_mask(mask: Any, shape: Shape) -> None:
    if mask.shape != shape:
        raise BoundsError(f"a mask of shape {text(mask.shape)} does not fit axes of lengths {text(shape)}")


def take_apart(entries: Sequence[Any], shape: Shape) -> Index:
    spans: list[Span] = []
    arrays: list[tuple[int, Tensor]] = []
    advanced: list[int] = []  # positions, among the entries, of integers and arrays
    axis = position = kept = 0
    for e in entries:
        parts: list[Any] = [e]
        if is_mask(e) and e.ndim:
            parts = [p.tolist() if state.trace is not None else p
                     for p in np.nonzero(_known(e, shape[axis:axis + e.ndim]))]
        for part in parts:
            if part is None or is_mask(part):
                spans.append(Span(0, 1, new=True))
            elif isinstance(part, slice):
                spans.append(_span(part, shape[axis]))
            elif isinstance(part, int):
                n = shape[axis]
                if not -n <= part < n:
                    raise out_of_range(part, n)
                spans.append(Span(part % n, 1, dropped=True))
            else:
                spans.append(Span(0, shape[axis], whole=True))
                arrays.append((kept, places(part, shape[axis])))
            if is_mask(part):  # t[True] is t[None], t[False] the same with length 0
                arrays.append((kept, places([0] * int(_known(part, ())), 1)))
            if not isinstance(part, (slice, type(None))):
                advanced.append(position)
            axis += not spans[-1].new
            kept += not spans[-1].dropped
            position += 1
    apart = any(b - a > 1 for a, b in pairwise(advanced))
    return Index(tuple(spans), tuple(arrays), bool(arrays) and apart)


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
           view=True)


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
    if state.trace is None and (key := plain_key(index)) is not None:
        at = basic(key, x.shape)
        return apply(INDEX, x, at=at) if at.steps else x
    if state.trace is None and is_mask(index) and 0 < index.ndim <= x.ndim:
        fit_mask(index, x.shape[:index.ndim])
        return apply(MASKED, x, as_tensor(index))
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
