"""Compute now what depends on constants alone."""

from __future__ import annotations

import numpy as np

from graphjit.ir import Apply, Const, Graph, Node, rewrite
from graphjit.op import Host
from graphjit.types import Extent

LARGEST = 1024  # elements; larger results cost more to hold than to compute


def fold(graph: Graph) -> Graph:
    """Ops on small constants become constants."""
    return rewrite(graph, _fold)


def _fold(node: Apply) -> Node:
    if not node.args or not all(isinstance(a, Const) for a in node.args):
        return node
    if node.type.size > LARGEST or isinstance(node.op.lower, Host) or node.op.name == "check_index":
        return node
    if any(isinstance(n, Extent) for n in node.type.shape):
        return node  # at every batch size the same graph
    if node.op.name == "broadcast_to" and node.type.ndim:
        return node  # a scalar and a stride of 0 say more than an array
    consts = [a for a in node.args if isinstance(a, Const)]
    with np.errstate(all="ignore"):
        value = node.op.eager(*(c.value for c in consts), **node.kwargs)
    return Const(np.array(value, node.type.dtype), opaque=any(c.opaque for c in consts))
