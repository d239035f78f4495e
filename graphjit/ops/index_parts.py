"""An index taken apart: for each axis what its basic part takes, and the integer arrays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, BoundsError, DataDependentError, DTypeError
from graphjit.op import Array
from graphjit.ops.gather import out_of_range, places
from graphjit.ops.shape import text
from graphjit.tape import state
from graphjit.tensor import Tensor
from graphjit.types import BOOL, Extent, Shape

FAR = 1 << 40  # longer than any axis


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
        # the size is the caller's like the length, or a part of it as the end, unless longer ones would give the same
        if isinstance(n, Extent):
            part = isinstance(s.stop, Extent) and not isinstance(s.start, Extent)
            longer = slice(s.start, s.stop + FAR, s.step) if part else s
            if len(range(*longer.indices(n + FAR))) != size:
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
