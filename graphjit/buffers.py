"""Buffers: who shares one, and what happens to views when it is overwritten."""

from __future__ import annotations

import sys
import weakref

import numpy as np

from graphjit.arrays import lasting_copy
from graphjit.op import Array
from graphjit.tape import Value, clock
from graphjit.types import Order, inverse


def overwrite(value: Value, array: Array) -> None:
    """Copy ``array`` into the buffer of a leaf; views taken of it keep what they showed."""
    if value.views:
        protect_views(value)
    value.data[...] = array  # type: ignore[index]  # an array outside of traces
    mark_written(value)


def protect_views(value: Value) -> None:
    """Give every live view of this buffer its own copy, as the buffer is about to change."""
    if value.views:
        for ref in value.views:
            view = ref()
            if view is not None:
                view.data = view.data.copy()  # type: ignore[union-attr]  # an array outside of traces
                clock.structure += 1  # compiled functions may read or write it
        value.views = None


def mark_written(value: Value) -> None:
    (value._home or value.home).written = clock.tick()


def guard_view(base: Value, view: Value) -> None:
    """Remember that ``view`` shares the buffer of ``base``; a family of views has one list."""
    if base.trace is None:
        clock.views += 1
        views = base.views
        if views is None:
            views = base.views = []
        elif (n := len(views)) >= 64 and n & (n - 1) == 0:  # now and then, so that many live views stay cheap
            views[:] = [r for r in views if r() is not None]
        views.append(weakref.ref(view))
        view.views = views


def order_of(array: Array) -> Order:
    """The order in which a dense array has its axes in memory, those of one element first; () where it is their own, or
    where the array is not dense."""
    if array.flags.c_contiguous or not array.dtype.isnative:
        return ()
    order = tuple(sorted(range(array.ndim), key=lambda a: (array.shape[a] != 1, -array.strides[a])))
    return order if array.transpose(order).flags.c_contiguous else ()


def order_kept(value: Value) -> Order:
    """The order in which compiled functions take the array of a leaf as it lies: a matrix, or what one of them writes.
    Other arrays are put in order once: they may be data that are read in any way, at each call."""
    array: Array = value.data  # type: ignore[assignment]  # an array outside of traces
    return order_of(array) if array.ndim == 2 or value.writers else ()


def turn(value: Value, order: Order) -> None:
    """Have a leaf lie with its axes in this order, in memory of its own."""
    array: Array = value.data  # type: ignore[assignment]  # an array outside of traces
    value.data = lasting_copy(array.transpose(order)).transpose(inverse(order))
    clock.structure += 1  # compiled functions may read or write it


def is_held_elsewhere(value: Value) -> bool:
    """Whether someone else has the array of a leaf or a NumPy view of it, and would no longer see what is written to
    the leaf if that had another array.

    Views of graphjit's own do not count: they keep what they showed anyway. Nor does an array of the caller's, of which
    the first write takes a copy (see `shared`).
    """
    if value.views and any(ref() is value for ref in value.views):
        return False
    if sys.getrefcount(value.data) > _ALONE:
        return True
    base = value.data.base is not None  # type: ignore[union-attr]  # an array outside of traces
    return base and sys.getrefcount(value.data.base) > _ALONE  # type: ignore[union-attr]  # an array outside of traces


_fresh = Value(np.empty(1))
_ALONE = sys.getrefcount(_fresh.data)  # of an array that nothing else holds, asked in this way
