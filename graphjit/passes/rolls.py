"""Two parts of an array that change places, as `roll` makes them and its gradient does, become one op.

Loops read it where it lies: a stencil with periodic borders stores no moved copies of its field.
"""

from __future__ import annotations

from graphjit.ir import Apply, Graph, Node, apply_op, rewrite
from graphjit.ir.verify import same_type
from graphjit.op import TABLE, Elementwise
from graphjit.passes.simplify import same_shape

FEW = 4  # steps of arithmetic that are sooner computed again


def rolls(graph: Graph) -> Graph:
    """The graph with such concatenations as ``rolled``."""
    if not any(isinstance(n, Apply) and n.op.name == "concat" for n in graph.nodes):
        return graph
    return rewrite(graph, _roll)


def _roll(node: Apply) -> Node:
    if node.op.name != "concat" or len(node.args) != 2:
        return node
    axis, (a, b) = node.kwargs["axis"], node.args
    if not (isinstance(a, Apply) and isinstance(b, Apply) and a.op.name == b.op.name == "slice"):
        return node
    x, n = a.args[0], node.type.shape[axis]
    if b.args[0] is not x or not same_type(x.type, node.type) or not same_shape(x.type.shape, node.type.shape):
        return node
    first, last = int(a.type.shape[axis]), int(b.type.shape[axis])
    if not _is_part(a, axis, last) or not _is_part(b, axis, 0) or 0 in (first, last) or first + last != n:
        return node
    shifts = [0] * node.type.ndim
    shifts[axis] = first if first <= last else -last
    return _rolled(x, tuple(shifts), node)


def _is_part(part: Apply, axis: int, start: int) -> bool:
    """Whether a slice starts there along one axis and takes all along the others."""
    shape = part.args[0].type.shape
    return all(step == 1 and begin == (start if i == axis else 0) and (i == axis or size == shape[i]) for i, (
        begin, size, step) in enumerate(zip(*(part.kwargs[k] for k in ("starts", "sizes", "steps")), strict=True)))


def _rolled(x: Node, shifts: tuple[int, ...], where: Apply) -> Node:
    """x rolled; what is rolled already is so only once, and numbers are multiplied after that: they need no memory."""
    after: list[tuple[Apply, int]] = []
    while isinstance(x, Apply) and isinstance(x.op.lower, Elementwise) and x.op.lower.cheap and len(after) < FEW:
        whole = [k for k, a in enumerate(x.args) if a.type.ndim]
        if len(whole) != 1 or not same_shape(x.args[whole[0]].type.shape, x.type.shape):
            break
        after.append((x, whole[0]))
        x = x.args[whole[0]]
    if isinstance(x, Apply) and x.op.name == "rolled":
        both = zip(x.kwargs["shifts"], shifts, x.type.shape, strict=True)
        shifts = tuple([_nearest(a + b, int(n)) for a, b, n in both])
        x = x.args[0]
    if any(shifts):
        x = apply_op(TABLE["rolled"], (x,), {"shifts": shifts}, where.where)
    for node, k in reversed(after):
        x = Apply(node.op, (*node.args[:k], x, *node.args[k + 1:]), node.params, node.type, node.where)
    return x


def _nearest(shift: int, n: int) -> int:
    """The shift of least size that moves as far round."""
    return (shift + (n - 1) // 2) % n - (n - 1) // 2
