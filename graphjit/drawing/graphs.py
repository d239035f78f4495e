"""The picture of a compiled function's graph."""

from __future__ import annotations

from collections import deque

from graphjit.drawing.picture import Edge, Node, Picture, caption, plain
from graphjit.ir import Apply, Const, Graph, Input
from graphjit.ir import Node as GraphNode
from graphjit.ir.show import names, params_text


def of_graph(graph: Graph, limit: int) -> Picture:
    """Inputs (name, type), ops (name, type of the result), constants, and the outputs by their number.

    Raises:
        ArgumentError: the graph has a cycle.
    """
    name = names(graph)
    near = dict.fromkeys(_nearest(graph, limit)).keys()
    nodes: list[Node] = []
    edges: list[Edge] = []
    places: dict[GraphNode, int] = {}
    for node in near:
        if not _anonymous(node) or node in graph.outputs:
            places[node] = len(nodes)
            nodes.append(_box(node, name[node]))
    for node, place in places.items():
        for operand in dict.fromkeys(node.args) if isinstance(node, Apply) else ():
            if operand in places:
                edges.append((places[operand], place))
            elif operand in near:
                nodes.append(_box(operand, name[operand]))
                edges.append((len(nodes) - 1, place))
        if isinstance(node, Apply) and not set(node.args) <= near:
            nodes.append(Node("more", ("…",), "not drawn"))
            edges.append((len(nodes) - 1, place))
    for i, output in enumerate(graph.outputs):
        if output in places:
            nodes.append(Node("output", (f"output {i}",)))
            edges.append((places[output], len(nodes) - 1))
    return Picture(nodes, edges, caption(len(near), len({*graph.inputs, *graph.nodes}), "nodes"))


def _nearest(graph: Graph, limit: int) -> list[GraphNode]:
    """At most ``limit`` nodes by their distance to the outputs."""
    queue = deque(dict.fromkeys(graph.outputs))
    seen: set[GraphNode] = set(queue)
    near: list[GraphNode] = []
    left = deque(node for node in graph.inputs if node not in set(graph.nodes))
    while (queue or left) and len(near) < limit:
        node = queue.popleft() if queue else left.popleft()
        near.append(node)
        if isinstance(node, Apply):
            new = [a for a in dict.fromkeys(node.args) if a not in seen]
            queue.extend(new)
            seen.update(new)
    return near


def _anonymous(node: GraphNode) -> bool:
    """Whether this is a number in a formula: drawn anew at each use."""
    return isinstance(node, Const) and not node.type.shape


def _box(node: GraphNode, name: str) -> Node:
    match node:
        case Apply():
            about = ", ".join(filter(None, [params_text(node), str(node.where or "")]))
            return Node("op", (plain(node.op.name), str(node.type)), plain(about, 200))
        case Const():
            return Node("constant", (plain(name),) if node.type.shape else (plain(name), str(node.type)))
        case Input():
            return Node("leaf", (plain(name), str(node.type)))
