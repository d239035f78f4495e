"""One node for equal computations."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from graphjit.ir import Apply, Const, Graph, Node
from graphjit.types import Extent


def cse(graph: Graph) -> Graph:
    """Nodes of the same op, operands and params become one; so do equal constants."""
    new: dict[Node, Node] = {}
    known: dict[Hashable, Node] = {}
    for node in graph.nodes:
        match node:
            case Const(value, opaque) if value.size <= 16:
                new[node] = known.setdefault((value.tobytes(), value.dtype.str, value.shape, opaque), node)
            case Apply():
                args = tuple([new[a] for a in node.args])
                candidate = node if args == node.args else Apply(node.op, args, node.params, node.type, node.where)
                key = (node.op, args, tuple(map(_exact, node.params)),
                       tuple([isinstance(n, Extent) for n in node.type.shape]))
                new[node] = known.setdefault(key, candidate)
            case _:
                new[node] = node
    return graph.with_outputs([new[o] for o in graph.outputs])


def _exact(param: tuple[str, Any]) -> Hashable:
    """A parameter that equals itself alone: -0.0 is not 0.0."""
    name, value = param
    return name, repr(value) if isinstance(value, float) else value
