"""Buffers: who shares one, and what happens to views when it is overwritten."""

from __future__ import annotations

import weakref

from graphjit.op import Array
from graphjit.tape import Value, clock


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
