"""Views of what is computed element by element, and read nowhere else, become views of its operands.

A slice then leaves out what nothing reads, and meets what it may undo: a part of a concatenation is that part, the
inside of what was padded is what was padded. A reshape is moved where it undoes others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from graphjit.ir import Apply, Graph, Node, apply_op, users
from graphjit.op import TABLE, Elementwise, Library
from graphjit.ops.windows import Ints
from graphjit.passes.layout import base
from graphjit.passes.simplify import same_shape
from graphjit.types import Shape

VIEWS = ("slice", "reshape")
FEW = 4  # parts that are sooner computed each by itself


class Region(NamedTuple):
    """Along each axis so many elements from a start on in steps: what a slice takes."""

    starts: Ints
    sizes: Ints
    steps: Ints

    def of(self, other: Region) -> Region:
        """This region of a region."""
        starts = [a + b * step for a, b, step in zip(other.starts, self.starts, other.steps, strict=True)]
        return Region(tuple(starts), self.sizes, tuple([a * b for a, b in zip(other.steps, self.steps, strict=True)]))

    def last(self) -> list[int]:
        return [start + (size - 1) * step for start, size, step in zip(*self, strict=True)]


Seen = TypeVar("Seen", Region, Shape)  # how a node is seen: a region of it, or all in another shape


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
                found = self.part(node, node.args[0], Region(**node.kwargs))
            elif node.op.name == "reshape" and node.args[0].type.ndim and self.alone(node.args[0]):
                found = self.undone(node.args[0], node.type.shape)
            if found is None:
                args = tuple([self.new[a] for a in node.args])
                found = node if args == node.args else Apply(node.op, args, node.params, node.type, node.where)
            self.new[node] = found
        return self.graph.with_outputs([self.new[o] for o in self.graph.outputs])

    def alone(self, x: Node) -> bool:
        """Whether x is computed element by element, and one node reads it, or few slices that together are no more: all
        steps of a loop are better computed at once. What a product may do to its result is left to it."""
        if not isinstance(x, Apply) or not isinstance(x.op.lower, Elementwise) or not x.args or any(
                isinstance(a, Apply) and isinstance(a.op.lower, Library) for a in map(base, x.args)):
            return False
        found = self.readers[x]
        return self.count[x] == 1 or (self.count[x] == len(found) <= FEW and all(n.op.name == "slice" for n in found)
                                      and sum(n.type.size for n in found) <= x.type.size)

    def part(self, where: Apply, x: Node, region: Region) -> Node:
        """A region of x."""
        def end(x: Node, region: Region) -> Node:
            if same_shape(region.sizes, x.type.shape):
                return self.new[x]
            return apply_op(TABLE["slice"], (self.new[x],), region._asdict(), where.where)

        root = self.reached(x, region)
        found = self.again(root, end, lambda x, a, region: self.reached(a, _of_operand(x, a, region)),
                           lambda region: region.sizes)
        assert found is not None
        return found

    def reached(self, x: Node, region: Region) -> tuple[Node, Region]:
        """What a region of x is a region of: what was sliced, padded, put together there."""
        while isinstance(x, Apply) and not self.alone(x):
            inside = None
            if x.op.name == "slice":
                inside = x.args[0], region.of(Region(**x.kwargs))
            elif x.op.name in INSIDE and 0 not in region.sizes:
                inside = INSIDE[x.op.name](x, region)
                if inside is not None and not self.may_read(x, inside[0]):
                    inside = None
            if inside is None:
                break
            x, region = inside
        return x, region

    def may_read(self, x: Node, operand: Node) -> bool:
        """Whether an operand may be read beside what it is stored into: it has memory of its own, or will not be."""
        return self.count[x] == 1 or self.count[operand] > 1 or not isinstance(operand, Apply)

    def undone(self, x: Node, shape: Shape) -> Node | None:
        """x in another shape, if that undoes reshapes of all that it is computed from."""
        def end(x: Node, shape: Shape) -> Node | None:
            if not x.type.ndim:
                return self.new[x]
            undoes = isinstance(x, Apply) and x.op.name == "reshape" and same_shape(x.args[0].type.shape, shape)
            return self.new[x.args[0]] if undoes and isinstance(x, Apply) else None

        return self.again((x, shape), end, lambda x, a, shape: (a, shape), lambda shape: shape)

    def again(self, root: tuple[Node, Seen], end: Callable[[Node, Seen], Node | None],
              below: Callable[[Apply, Node, Seen], tuple[Node, Seen]], shape: Callable[[Seen], Shape]) -> Node | None:
        """What is computed element by element at ``root``, computed again as it is seen there; None where that ends in
        a None. (Without recursion: a graph may be deeper than Python's stack.)

        Args:
            end: how a node is seen that is not computed so.
            below: an operand of a node that is seen so, and how it is seen.
            shape: of a node that is seen so.
        """
        done: dict[tuple[Node, Seen], Node] = {}
        stack = [root]
        while stack:
            x, seen = at = stack[-1]
            if at in done:
                stack.pop()
            elif isinstance(x, Apply) and x.type.ndim and self.alone(x):
                operands = [below(x, a, seen) for a in x.args]
                missing = [each for each in operands if each not in done]
                stack.extend(missing)
                if not missing:
                    done[at] = Apply(x.op, tuple([done[each] for each in operands]), x.params,
                                     x.type.with_shape(shape(seen)), x.where)
            else:
                found = end(x, seen)
                if found is None:
                    return None
                done[at] = found
        return done[root]


def _of_operand(x: Apply, a: Node, region: Region) -> Region:
    """What an element-wise op needs of an operand for a region of its result: all along axes that are stretched."""
    lead, shape = x.type.ndim - a.type.ndim, a.type.shape
    starts, sizes, steps = (values[lead:] for values in region)
    whole = [n == m for n, m in zip(shape, x.type.shape[lead:], strict=True)]
    return Region(tuple([s if w else 0 for s, w in zip(starts, whole, strict=True)]),
                  tuple([m if w else n for m, n, w in zip(sizes, shape, whole, strict=True)]),
                  tuple([s if w else 1 for s, w in zip(steps, whole, strict=True)]))


def _padded(x: Apply, region: Region) -> tuple[Node, Region] | None:
    """The region of what was padded that a region is, if it lies inside."""
    low, inner = x.kwargs["low"], x.args[0]
    if any(x.kwargs["interior"]) or any(start < a or end >= a + n for start, end, a, n in zip(
            region.starts, region.last(), low, inner.type.shape, strict=True)):
        return None
    return inner, region._replace(starts=tuple([start - a for start, a in zip(region.starts, low, strict=True)]))


def _rolled(x: Apply, region: Region) -> tuple[Node, Region] | None:
    """The region of what was rolled that a region is, if it does not go round."""
    starts: list[int] = []
    for start, end, shift, n in zip(region.starts, region.last(), x.kwargs["shifts"], x.type.shape, strict=True):
        round_ = n if end < shift % n else 0
        if round_ == 0 and start < shift % n:
            return None
        starts.append(start - shift % n + round_)
    return x.args[0], region._replace(starts=tuple(starts))


def _concatenated(x: Apply, region: Region) -> tuple[Node, Region] | None:
    """The region of one operand of a concatenation that a region is, if it lies in one."""
    axis, begin = x.kwargs["axis"], 0
    starts, last = region.starts, region.last()
    for part in x.args:
        end = begin + part.type.shape[axis]
        if begin <= starts[axis] and last[axis] < end:
            return part, region._replace(starts=(*starts[:axis], starts[axis] - begin, *starts[axis + 1:]))
        begin = end
    return None


INSIDE = {"pad": _padded, "concat": _concatenated, "rolled": _rolled}  # what a region of these lies in
