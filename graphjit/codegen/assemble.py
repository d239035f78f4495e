"""Results put together from their operands: which are computed in their place, and what fills the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

import numpy as np

from graphjit.codegen.access import Place
from graphjit.codegen.axes import fusable
from graphjit.codegen.library import stores_at
from graphjit.ir import Apply, Const, Graph, Node, apply_op, users
from graphjit.op import TABLE, Assemble, Layout, View
from graphjit.types import contiguous_strides


def places(node: Apply, whole: Place | None = None) -> list[Place]:
    """Where each operand goes; ``whole``: where a concatenation goes, if not into a buffer of its own."""
    assert isinstance(node.op.lower, Assemble)
    if whole is not None:
        step = whole.strides[node.kwargs["axis"]]
        starts = accumulate((a.type.shape[node.kwargs["axis"]] for a in node.args), initial=0)
        return [Place(whole.buffer, whole.offset + start * step, whole.strides)
                for start, _ in zip(starts, node.args, strict=False)]
    found = node.op.lower.regions(node.type, *(a.type for a in node.args), **node.kwargs)
    return [Place(node, layout.offset, layout.strides) for layout in found]


def computed_in_place(graph: Graph) -> dict[Node, Place]:
    """Operands that nothing else reads: the kernel that computes them stores them where they go, through views too.

    They may be stored before the rest is filled, so only where that leaves them alone.
    """
    found: dict[Node, Place] = {}
    readers: Mapping[Node, list[Apply]] = users(graph)
    outputs = set(graph.outputs)

    def settle(x: Node, place: Place | None) -> None:
        """Find what is stored at a place on behalf of x, if it can be."""
        if place is None or len(readers[x]) > 1 or x in outputs or not isinstance(x, Apply):
            return
        if isinstance(x.op.lower, View):
            settle(x.args[0], _behind(x, place))
        elif fusable(x) or stores_at(x, place) or x.op.name == "concat":
            found[x] = place

    for node in reversed(graph.nodes):  # where a result goes is known before where its parts go
        if isinstance(node, Apply) and isinstance(node.op.lower, Assemble) and _fills_around(node):
            for operand, place in zip(node.args, places(node, found.get(node)), strict=True):
                settle(operand, place)
    return found


def _behind(view: Apply, place: Place) -> Place | None:
    """Where a view's operand goes when the view goes to a place; None for views that more than rename axes."""
    assert isinstance(view.op.lower, View)
    x = view.args[0].type
    match view.op.name:
        case "permute_dims":
            axes = view.kwargs["axes"]
            return Place(place.buffer, place.offset, tuple([place.strides[axes.index(i)] for i in range(x.ndim)]))
        case "reshape":
            layout = view.op.lower.layout(Layout(place.offset, view.type.shape, place.strides), shape=x.shape)
            return None if layout is None else Place(place.buffer, layout.offset, layout.strides)
        case _:
            return None


def _fills_around(node: Apply) -> bool:
    assert isinstance(node.op.lower, Assemble)
    return node.op.lower.fill is None or (node.op.name == "pad" and not any(node.kwargs["interior"]))


def fills(node: Apply) -> Iterator[tuple[Node, Place]]:
    """Constant parts and where they go: the borders alone where these are all there is to fill."""
    assert isinstance(node.op.lower, Assemble)
    if node.op.lower.fill is None:
        return
    value = node.kwargs[node.op.lower.fill]
    strides = contiguous_strides(node.type.shape)
    if not _fills_around(node):
        yield _full(value, node, node.type.shape), Place(node, 0, strides)
        return
    shape, begin = list(node.type.shape), 0
    inner = node.args[0].type.shape
    for axis, (low, high) in enumerate(zip(node.kwargs["low"], node.kwargs["high"], strict=True)):
        for width, start in ((low, 0), (high, int(shape[axis]) - int(high))):
            if width:
                slab = (*shape[:axis], width, *shape[axis + 1:])
                yield _full(value, node, slab), Place(node, begin + start * strides[axis], strides)
        shape[axis] = inner[axis]
        begin += low * strides[axis]


def _full(value: Any, node: Apply, shape: tuple[int, ...]) -> Node:
    scalar = Const(np.array(value, node.type.dtype))
    return apply_op(TABLE["broadcast_to"], (scalar,), {"shape": tuple(shape)}, node.where)
