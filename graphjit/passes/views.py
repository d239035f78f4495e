"""Views of what is computed element by element, and read nowhere else, become views of its operands.

A slice then leaves out what nothing reads, and meets what it may undo: a part of a concatenation is that part, the
inside of what was padded is what was padded. A reshape is moved where it undoes others.
"""

from __future__ import annotations

from collections.abc import Callable

from graphjit.ir import Apply, Graph, Node, apply_op, users
from graphjit.op import TABLE, Elementwise, Library
from graphjit.ops.windows import Ints
from graphjit.passes.layout import base
from graphjit.passes.simplify import same_shape
from graphjit.types import Shape

VIEWS = ("slice", "reshape")


def views_below(graph: Graph) -> Graph:
    """The graph with such views as far below as that goes."""
    if not any(isinstance(n, Apply) and n.op.name in VIEWS for n in graph.nodes):
        return graph
    return _Rewriter(graph).run()


class _Rewriter:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.readers = users(graph)
        self.count = {n: len(found) + graph.outputs.count(n) for n, found in self.readers.items()}
        self.new: dict[Node, Node] = {}

    def run(self) -> Graph:
        for node in self.graph.nodes:
            if not isinstance(node, Apply):
                self.new[node] = node
                continue
            found = None
            if node.op.name == "slice":
                how = node.kwargs
                found = self.part(node, node.args[0], how["starts"], how["sizes"], how["steps"])
            elif node.op.name == "reshape" and node.args[0].type.ndim and self.alone(node.args[0]):
                found = self.undone(node.args[0], node.type.shape)
            if found is None:
                args = tuple([self.new[a] for a in node.args])
                found = node if args == node.args else Apply(node.op, args, node.params, node.type, node.where)
            self.new[node] = found
        return self.graph.with_outputs([self.new[o] for o in self.graph.outputs])

    def alone(self, x: Node) -> bool:
        """Whether x is computed element by element, and one node reads it, or slices that together are no more. What a
        product may do to its result is left to it."""
        if not isinstance(x, Apply) or not isinstance(x.op.lower, Elementwise) or not x.args or any(
                isinstance(a, Apply) and isinstance(a.op.lower, Library) for a in map(base, x.args)):
            return False
        found = self.readers[x]
        return self.count[x] == 1 or (self.count[x] == len(found) and all(n.op.name == "slice" for n in found)
                                      and sum(n.type.size for n in found) <= x.type.size)

    def again(self, x: Apply, shape: Shape, operand: Callable[[Node], Node]) -> Node:
        return Apply(x.op, tuple(map(operand, x.args)), x.params, x.type.with_shape(shape), x.where)

    def part(self, where: Apply, x: Node, starts: Ints, sizes: Ints, steps: Ints) -> Node:
        """A slice of x."""
        if isinstance(x, Apply) and self.alone(x):
            return self.again(x, sizes, lambda a: self.part_of_operand(where, x, a, starts, sizes, steps))
        if isinstance(x, Apply) and x.op.name == "slice":
            how = x.kwargs
            first = tuple([a + b * step for a, b, step in zip(how["starts"], starts, how["steps"], strict=True)])
            apart = tuple([a * b for a, b in zip(how["steps"], steps, strict=True)])
            return self.part(where, x.args[0], first, sizes, apart)
        if isinstance(x, Apply) and x.op.name in ("pad", "concat") and 0 not in sizes:
            last = [start + (size - 1) * step for start, size, step in zip(starts, sizes, steps, strict=True)]
            inside = _padded(x, starts, last) if x.op.name == "pad" else _concatenated(x, starts, last)
            if inside is not None and self.may_read(x, inside[0]):
                return self.part(where, inside[0], inside[1], sizes, steps)
        if same_shape(sizes, x.type.shape):
            return self.new[x]
        return apply_op(TABLE["slice"], (self.new[x],), {"starts": starts, "sizes": sizes, "steps": steps}, where.where)

    def part_of_operand(self, where: Apply, x: Apply, a: Node, starts: Ints, sizes: Ints, steps: Ints) -> Node:
        """What an element-wise op needs of an operand for a slice of its result."""
        lead, shape = x.type.ndim - a.type.ndim, a.type.shape
        whole = [n == m for n, m in zip(shape, x.type.shape[lead:], strict=True)]  # else it is stretched
        return self.part(where, a, tuple([s if w else 0 for s, w in zip(starts[lead:], whole, strict=True)]),
                         tuple([m if w else n for m, n, w in zip(sizes[lead:], shape, whole, strict=True)]),
                         tuple([s if w else 1 for s, w in zip(steps[lead:], whole, strict=True)]))

    def may_read(self, x: Node, operand: Node) -> bool:
        """Whether an operand may be read beside what it is stored into: it has memory of its own, or will not be."""
        return self.count[x] == 1 or self.count[operand] > 1 or not isinstance(operand, Apply)

    def undone(self, x: Node, shape: Shape) -> Node | None:
        """x in another shape, if that undoes reshapes of all that it is computed from."""
        if not x.type.ndim:
            return self.new[x]
        if isinstance(x, Apply) and x.op.name == "reshape":
            return self.new[x.args[0]] if same_shape(x.args[0].type.shape, shape) else None
        if not isinstance(x, Apply) or not self.alone(x):
            return None
        found = {a: self.undone(a, shape) for a in x.args}
        if any(a is None for a in found.values()):
            return None
        return self.again(x, shape, lambda a: found[a] or a)


def _padded(x: Apply, starts: Ints, last: list[int]) -> tuple[Node, Ints] | None:
    """What was padded, and where in it a slice starts that lies inside; None where it does not."""
    low, inner = x.kwargs["low"], x.args[0]
    if any(x.kwargs["interior"]) or any(start < a or end >= a + n for start, end, a, n in
                                        zip(starts, last, low, inner.type.shape, strict=True)):
        return None
    return inner, tuple([start - a for start, a in zip(starts, low, strict=True)])


def _concatenated(x: Apply, starts: Ints, last: list[int]) -> tuple[Node, Ints] | None:
    """The one operand of a concatenation in which a slice lies, and where in it that starts; None if there is none."""
    axis, begin = x.kwargs["axis"], 0
    for part in x.args:
        end = begin + part.type.shape[axis]
        if begin <= starts[axis] and last[axis] < end:
            return part, (*starts[:axis], starts[axis] - begin, *starts[axis + 1:])
        begin = end
    return None
