"""Operands of folding loops that lie apart in memory along the innermost one: turned before, a line at a time.

A loop without folds reads such an operand in blocks (`rows.py`). One with folds would load each line of memory for one
number, and again for the next. Whether lines displace each other depends on lengths, also those that the caller chose:
here a new batch size may need new kernels.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphjit.codegen.access import LINE, Access, Loop, access
from graphjit.codegen.axes import NONE, operand_map
from graphjit.codegen.cluster import Cluster
from graphjit.codegen.fusions import Fused
from graphjit.codegen.nest import Nest
from graphjit.ir import Apply, Graph, Node, apply_op
from graphjit.op import TABLE, View
from graphjit.passes.layout import base, base_layout, is_contiguous
from graphjit.types import is_one

MANY = 192  # lines that the cache may not hold, if they lie unluckily,
APART = 512  # which is by multiples of this, in bytes

Use = tuple[Apply, int]  # a node, and which of its operands


def turned(graph: Graph, fused: Fused) -> tuple[Graph, Fused]:
    """The graph with such operands turned, and its clusters."""
    found: dict[Use, tuple[int, ...]] = {}
    outputs = {base(n) for n in graph.outputs}
    for cluster in fused.clusters:
        operands = _operands(cluster) if cluster.reduced else []
        if operands:
            stored = [n for n in cluster.members
                      if n in outputs or any(fused.of.get(user) is not cluster for user, _ in fused.readers(n))]
            found.update(_apart(cluster, operands, Nest(cluster, stored, frozenset(), {})))
    if not found:
        return graph, fused
    new: dict[Node, Node] = {}
    for node in graph.nodes:
        if isinstance(node, Apply):
            args = tuple([_in_order(new[a], found[node, k]) if (node, k) in found else new[a]
                          for k, a in enumerate(node.args)])
            new[node] = node if args == node.args else Apply(node.op, args, node.params, node.type, node.where)
        else:
            new[node] = node
    graph = graph.with_outputs([new[o] for o in graph.outputs])
    return graph, Fused(graph)


def _operands(cluster: Cluster) -> list[Use]:
    """Where members read matrices from memory, if some of these are read in another order than others."""
    found: list[Use] = []
    orders: set[tuple[int, ...]] = set()
    for node, imap in cluster.members.items():
        for k, operand in enumerate(node.args):
            implied = operand_map(node, k, imap) if operand.type.ndim > 1 else None
            if implied is None or base(operand) in cluster.members:
                continue
            found.append((node, k))
            orders.add(tuple([axis for axis in implied if axis != NONE]))
            if isinstance(operand, Apply) and isinstance(operand.op.lower, View) \
                    and not is_contiguous(base_layout(operand)[1]):
                orders.add(())  # an order of its own
    return found if len(orders) > 1 else []


def _apart(cluster: Cluster, operands: list[Use], nest: Nest) -> Iterator[tuple[Use, tuple[int, ...]]]:
    """Operands read apart, and in which order of their axes they would not be."""
    if nest.row_lanes:
        return
    position = {axis: i for i, axis in enumerate(a for loop in nest.loops for a in loop.axes)}
    inner = nest.loops[nest.inner]
    position[inner.axes[-1]] = len(position)
    for node, k in operands:
        implied = operand_map(node, k, cluster.members[node])
        if implied is None:
            continue
        at = access(node.args[k], implied, len(cluster.extents))
        if _crowded(at, inner, cluster):
            order = sorted(range(len(implied)), key=lambda j: -1 if implied[j] == NONE else position[implied[j]])
            yield (node, k), tuple(order)


def _crowded(at: Access, inner: Loop, cluster: Cluster) -> bool:
    """Whether lines of memory hold numbers for many turns of another loop, and displace each other before."""
    stride = at.strides[inner.axes[-1]]
    near = any(is_one(s) and n >= LINE for n, s in zip(cluster.extents, at.strides, strict=True))
    return near and inner.extent >= MANY and stride != 0 and stride * at.buffer.type.dtype.itemsize % APART == 0


def _in_order(x: Node, order: tuple[int, ...]) -> Node:
    where = x.where if isinstance(x, Apply) else None
    copy = apply_op(TABLE["turn"], (apply_op(TABLE["permute_dims"], (x,), {"axes": order}, where),), {}, where)
    back = tuple(order.index(i) for i in range(len(order)))
    return apply_op(TABLE["permute_dims"], (copy,), {"axes": back}, where)
