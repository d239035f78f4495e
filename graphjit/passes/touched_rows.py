"""The gradient by a table of which few rows were taken stays those rows.

All other rows of it are zeros. Stored and read in full, they cost as much as the table itself: of an update by Adam a
third of what moves through memory. So the rows that were taken are numbered, and their gradients added up one behind
the other, after a row of zeros; a gradient that is only read element by element reads each of its rows there:

    take_grad(places, g)  is  take(take_grad(numbers[places], g), numbers)

where ``numbers`` holds for each row of the table 1 + the last place at which it was taken, or 0. A norm, to clip by,
is that of these rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphjit.ir import Apply, Graph, Node, apply_op, users
from graphjit.ir.graph import constant
from graphjit.op import TABLE, Elementwise, Reduction
from graphjit.passes.layout import base
from graphjit.passes.simplify import same_shape
from graphjit.types import INT64

LEAST = 1 << 21  # bytes of a gradient: smaller ones stay in the second-level cache
FEW = 4  # rows for each that may have been taken
ROW = 64  # bytes of a row: of shorter ones its number is a large part
GRADIENTS = ("take_grad", "take_grads")


def touched_rows(graph: Graph) -> Graph:
    """Gradients by large tables that only loops read, and at most a quarter of whose rows were taken."""
    large = [n for n in graph.nodes if isinstance(n, Apply) and _is_large(n) and n not in graph.outputs]
    if not large:
        return graph
    readers = users(graph)
    found = {n: each for n in large if (each := _Gradient(n, readers, graph)).fits}
    alone = {n for each in found.values() for n in each.alone}
    folds = {n for each in found.values() for n in each.folds}
    rows: dict[Node, Node] = {}  # what follows from a gradient alone, of its rows
    new: dict[Node, Node] = {}
    for node in graph.nodes:
        new[node] = node
        if not isinstance(node, Apply):
            continue
        args = tuple([new[a] for a in node.args])
        if node in found:
            new[node], rows[node] = _by_rows(node, args)
        elif node in folds:
            new[node] = apply_op(node.op, (rows[node.args[0]],), node.kwargs, node.where)
        elif args != node.args:
            new[node] = Apply(node.op, args, node.params, node.type, node.where)
        if node in alone:
            rows[node] = apply_op(node.op, [rows.get(a, new[a]) for a in node.args], node.kwargs, node.where)
    return graph.with_outputs([new[o] for o in graph.outputs])


def _is_large(node: Apply) -> bool:
    if node.op.name not in GRADIENTS or node.kwargs["axis"] != 0:
        return False
    rows, nbytes = node.type.shape[0], node.type.nbytes
    return nbytes >= LEAST and nbytes >= ROW * rows and FEW * sum(x.type.shape[0] for x in node.args[::2]) <= rows


def _by_rows(node: Apply, args: Sequence[Node]) -> tuple[Node, Node]:
    """A gradient as the rows that it picks, and these."""
    def made(name: str, *args: Node, **params: Any) -> Apply:
        return apply_op(TABLE[name], args, params, node.where)

    each, gradients = args[::2], args[1::2]
    places = made("concat", *each, axis=0) if len(each) > 1 else each[0]
    count = places.type.shape[0]
    none = made("copy", made("broadcast_to", constant(0, INT64), shape=(node.type.shape[0],)))
    order = made("add", made("iota", shape=(count,)), constant(1, INT64))
    numbers = made("scatter_set", none, places, order, axis=0)
    numbered = [x for found, g in zip(each, gradients, strict=True)
                for x in (made("take", numbers, found, axis=0), g)]
    rows = made(node.op.name, *numbered, axis=0, size=count + 1)
    return made("take", rows, numbers, axis=0), rows


def _is_product(node: Node) -> bool:
    """A dense gradient, of a table that also multiplies: what is added to it takes little, and a loop over whole arrays
    may follow the product."""
    below = base(node)
    return isinstance(below, Apply) and below.op.name == "matmul"


class _Gradient:
    """What is computed from a large gradient element by element.

    Attributes:
        fits: whether all that reads it can do with its rows.
        alone: what follows from it and single numbers, and nothing else, operands first.
        folds: reductions of these.
    """

    def __init__(self, node: Apply, readers: Mapping[Node, Sequence[Apply]], graph: Graph) -> None:
        self.fits = True
        self.folds: list[Apply] = []
        follows: set[Node] = {node}
        stack: list[Node] = [node]
        while stack:
            below = stack.pop()
            for user in readers[below]:
                if isinstance(user.op.lower, Reduction):
                    self.folds.append(user)
                elif not isinstance(user.op.lower, Elementwise):
                    self.fits &= below is not node
                elif user not in follows:
                    self.fits &= same_shape(user.type.shape, node.type.shape)
                    self.fits &= below is not node or not any(map(_is_product, user.args))
                    follows.add(user)
                    stack.append(user)
        self.alone: list[Apply] = []
        self._known: set[Node] = {node}
        self._zero: set[Node] = {node}  # zero, or not a number, where the gradient is zero
        for n in graph.nodes if self.folds else ():
            if isinstance(n, Apply) and n in follows and n is not node \
                    and all(not a.type.ndim or a in self._known for a in n.args):
                self.alone.append(n)
                self._known.add(n)
                if self._keeps_zero(n):
                    self._zero.add(n)
        self.fits &= all(map(self._fits, self.folds))

    def _fits(self, fold: Apply) -> bool:
        """Whether rows of zeros may be left out, but for one."""
        assert isinstance(fold.op.lower, Reduction)
        [x] = fold.args
        if x not in self._known or 0 not in fold.kwargs["axis"]:
            return False
        return fold.op.lower.kind in ("max", "min", "any", "all") or (fold.op.lower.kind == "sum" and x in self._zero)

    def _keeps_zero(self, node: Apply) -> bool:
        match node.op.name:
            case "mul":
                return any(a in self._zero for a in node.args)
            case "add" | "sub" | "neg" | "abs" | "square":
                return all(a in self._zero for a in node.args)
            case "div":
                return node.args[0] in self._zero
            case _:
                return False
