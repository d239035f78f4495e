"""Rows that are taken, and added up at other places, are added from where they lie.

That is what edges carry from the nodes of a graph to their neighbours, and back in its gradient. A weight for each row
may come with them.
"""

from __future__ import annotations

from graphjit.ir import Apply, Graph, Node, apply_op, users
from graphjit.op import TABLE
from graphjit.types import is_float, is_one


def added_rows(graph: Graph) -> Graph:
    """The graph with sums of rows that nothing else reads made of the rows that they were taken from."""
    names = {n.op.name for n in graph.nodes if isinstance(n, Apply)}
    if not {"take", "take_grad"} <= names:
        return graph
    count = {n: len(found) + graph.outputs.count(n) for n, found in users(graph).items()}
    alone = {n for n in graph.nodes if isinstance(n, Apply) and n.op.name == "take_grad" and count[n.args[1]] == 1}
    new: dict[Node, Node] = {}
    for node in graph.nodes:
        if isinstance(node, Apply):
            args = tuple([new[a] for a in node.args])
            again = node if args == node.args else Apply(node.op, args, node.params, node.type, node.where)
            new[node] = _added(again) if node in alone else again
        else:
            new[node] = node
    return graph.with_outputs([new[o] for o in graph.outputs])


def _added(node: Apply) -> Node:
    places, rows = node.args
    if node.kwargs["axis"] != 0 or not is_float(node.type.dtype):
        return node
    weights: tuple[Node, ...] = ()
    if isinstance(rows, Apply) and rows.op.name == "mul":
        for x, w in (rows.args, rows.args[::-1]):
            if _is_taken(x, rows) and w.type.dtype == x.type.dtype and w.type.ndim == x.type.ndim and all(
                    is_one(n) for n in w.type.shape[1:]) and not is_one(w.type.shape[0]):
                rows, weights = x, (w,)
                break
    if not _is_taken(rows, node.args[1]):
        return node
    assert isinstance(rows, Apply)
    return apply_op(TABLE["added_rows"], (places, *rows.args, *weights), {"size": node.kwargs["size"]}, node.where)


def _is_taken(x: Node, rows: Node) -> bool:
    """Whether x is one row of a matrix for each of these."""
    return (isinstance(x, Apply) and x.op.name == "take" and x.kwargs["axis"] == 0 and x.args[1].type.ndim == 1
            and x.type.ndim == rows.type.ndim and int(x.type.shape[0]) == int(rows.type.shape[0]))
