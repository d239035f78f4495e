"""Sums of arrays padded with zeros, the gradient by slices that overlap, and of gradients by rows that were taken
several times, become one op that stores their sum."""

from __future__ import annotations

from collections.abc import Iterator

from graphjit.ir import Apply, Graph, Node, apply_op, users
from graphjit.ir.verify import same_type
from graphjit.op import TABLE
from graphjit.ops.regions import ADD_REGIONS, TAKE_GRADS
from graphjit.passes.simplify import same_shape, scalar_value
from graphjit.types import is_float

MOST = 16  # parts that one loop adds


def regions(graph: Graph) -> Graph:
    """Sums of at least two such arrays that nothing else reads, whatever else is added to them."""
    if max(sum(isinstance(n, Apply) and n.op.name == name for n in graph.nodes) for name in ("pad", "take_grad")) < 2:
        return graph
    count = {n: len(found) + graph.outputs.count(n) for n, found in users(graph).items()}
    sums = {n for n in graph.nodes if isinstance(n, Apply) and n.op.name == "add" and n.type.ndim
            and is_float(n.type.dtype)}
    inside: set[Node] = {a for n in sums for a in n.args
                         if a in sums and count[a] == 1 and same_shape(a.type.shape, n.type.shape)}
    found: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        if node not in sums or node in inside or not isinstance(node, Apply):
            continue
        terms = list(_terms(node, inside))
        kinds = [_kind(x, node) for x in terms if count[x] == 1]
        if any(kind is not None and kinds.count(kind) > 1 for kind in kinds):
            found[node] = terms
    if not found:
        return graph
    new: dict[Node, Node] = {}
    for node in graph.nodes:
        if isinstance(node, Apply):
            args = tuple([new[a] for a in node.args])
            again = node if args == node.args else Apply(node.op, args, node.params, node.type, node.where)
            new[node] = again if node not in found else _sum(node, [(x, new[x]) for x in found[node]], count)
        else:
            new[node] = node
    return graph.with_outputs([new[o] for o in graph.outputs])


def _terms(node: Apply, inside: set[Node]) -> Iterator[Node]:
    """What a sum of sums adds, in its order."""
    stack: list[Node] = [*reversed(node.args)]
    while stack:
        x = stack.pop()
        if x in inside and isinstance(x, Apply):
            stack.extend(reversed(x.args))
        else:
            yield x


def _kind(x: Node, whole: Apply) -> tuple[object, ...] | None:
    """What terms of a sum have in common that are added by one op; None for others."""
    if not isinstance(x, Apply) or not same_shape(x.type.shape, whole.type.shape) \
            or not same_type(x.type, whole.type):
        return None
    if x.op.name == "pad" and x.kwargs["value"] == 0 and not any(x.kwargs["interior"]):
        return ("pad",)
    return ("take_grad", x.kwargs["axis"]) if x.op.name == "take_grad" else None


def _sum(node: Apply, terms: list[tuple[Node, Node]], count: dict[Node, int]) -> Node:
    parts: list[Node] = []
    starts, factors, rest = [], [], []
    taken: dict[tuple[object, ...], list[Apply]] = {}
    for old, x in terms:
        kind = _kind(old, node) if count[old] == 1 and isinstance(x, Apply) else None
        if kind is None or not isinstance(x, Apply):
            rest.append(x)
        elif kind == ("pad",):
            part, factor = _scaled(x.args[0])
            parts.append(part)
            starts.append(x.kwargs["low"])
            factors.append(factor)
        else:
            taken.setdefault(kind, []).append(x)
    for grads in taken.values():
        for i in range(0, len(grads), MOST):
            one, *others = some = grads[i:i + MOST]
            operands = tuple([x for each in some for x in each.args])
            rest.append(apply_op(TAKE_GRADS, operands, {**one.kwargs}, node.where) if others else one)
    for i in range(0, len(parts), MOST):
        rest.append(apply_op(ADD_REGIONS, parts[i:i + MOST], {
            "size": node.type.shape, "starts": tuple(starts[i:i + MOST]), "factors": tuple(factors[i:i + MOST]),
        }, node.where))
    out, *more = rest
    for x in more:
        out = apply_op(TABLE["add"], (out, x), {}, node.where)
    return out


def _scaled(x: Node) -> tuple[Node, float]:
    """What times which number x is."""
    if isinstance(x, Apply) and x.op.name == "neg":
        inner, factor = _scaled(x.args[0])
        return inner, -factor
    if isinstance(x, Apply) and x.op.name == "mul":
        for a, b in (x.args, x.args[::-1]):
            value = scalar_value(b)
            if value is not None and same_shape(a.type.shape, x.type.shape) and a.type.dtype == x.type.dtype:
                return a, value
    return x, 1.0
