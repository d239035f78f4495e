"""Results put together from their operands: which are computed in their place, and what fills the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from graphjit.codegen.access import Place
from graphjit.codegen.axes import fusable
from graphjit.codegen.library import stores_anywhere
from graphjit.ir import Apply, Const, Graph, Node, apply_op, users
from graphjit.op import TABLE, Assemble
from graphjit.types import contiguous_strides


def places(node: Apply) -> list[Place]:
    """Where each operand goes."""
    assert isinstance(node.op.lower, Assemble)
    found = node.op.lower.regions(node.type, *(a.type for a in node.args), **node.kwargs)
    return [Place(node, layout.offset, layout.strides) for layout in found]


def computed_in_place(graph: Graph) -> dict[Node, Place]:
    """Operands that nothing else reads: the kernel that computes them stores them where they go.

    They may be stored before the rest is filled, so only where that leaves them alone.
    """
    found: dict[Node, Place] = {}
    readers: Mapping[Node, list[Apply]] = users(graph)
    for node in graph.nodes:
        if isinstance(node, Apply) and isinstance(node.op.lower, Assemble) and _fills_around(node):
            for operand, place in zip(node.args, places(node), strict=True):
                if len(readers[operand]) == 1 and operand not in graph.outputs \
                        and (fusable(operand) or stores_anywhere(operand)):
                    found[operand] = place
    return found


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
