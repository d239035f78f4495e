"""Convolutions in a few groups of several channels each become one for each group: products, as all others are."""

from __future__ import annotations

from math import prod

from graphjit.ir import Apply, Graph, Node, apply_op, rewrite
from graphjit.op import TABLE
from graphjit.types import is_float

MOST, CHANNELS = 32, 4  # groups, and the fewest channels in one that make a product of it


def groups(graph: Graph) -> Graph:
    """Split into parts of the channels, whose results are put side by side."""
    return rewrite(graph, _split)


def _split(node: Apply) -> Node:
    if node.op.name not in ("conv", "conv_input_grad", "conv_weight_grad") or not is_float(node.type.dtype):
        return node
    count = node.kwargs["groups"]
    a, b = node.args
    weight = node if node.op.name == "conv_weight_grad" else b
    o, c = weight.type.shape[:2]
    if not 1 < count <= MOST or min(o // count, c) < CHANNELS or 0 in (prod(node.type.shape), prod(a.type.shape)):
        return node
    # which axis of each operand, and of the result, the groups lie along
    along = {"conv": (1, 0, 1), "conv_input_grad": (1, 0, 1), "conv_weight_grad": (1, 1, 0)}[node.op.name]
    parts = [apply_op(node.op, (_part(a, along[0], i, count, node), _part(b, along[1], i, count, node)),
                      {**node.kwargs, "groups": 1}, node.where) for i in range(count)]
    return apply_op(TABLE["concat"], parts, {"axis": along[2]}, node.where)


def _part(x: Node, axis: int, i: int, count: int, where: Apply) -> Node:
    n = int(x.type.shape[axis]) // count
    starts, sizes = [0] * x.type.ndim, list(x.type.shape)
    starts[axis], sizes[axis] = i * n, n
    return apply_op(TABLE["slice"], (x,), {"starts": tuple(starts), "sizes": tuple(sizes), "steps": (1,) * x.type.ndim},
                    where.where)
