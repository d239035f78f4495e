"""The graph: immutable nodes, each the one result of an input, a constant or an applied op."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphjit.errors import ArgumentError, Where
from graphjit.op import Array, Op
from graphjit.types import TensorType


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    """A value given when the program runs."""

    type: TensorType
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Const:
    """A value known when the graph is built.

    ``opaque``: it depends on a length the caller chose, so no pass and no kernel may depend on what it is.
    """

    value: Array
    opaque: bool = False
    type: TensorType = field(init=False)

    def __post_init__(self) -> None:
        if self.value.flags.writeable:
            self.value.flags.writeable = False
        object.__setattr__(self, "type", TensorType(self.value.shape, self.value.dtype))


@dataclass(frozen=True, slots=True, eq=False)
class Apply:
    """An op applied to nodes. ``params`` is its metadata, sorted by name.

    ``facts`` holds what passes and lowering found out about the node, each thing once.
    """

    op: Op
    args: tuple[Node, ...]
    params: tuple[tuple[str, Any], ...]
    type: TensorType
    where: Where | None = None
    facts: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def kwargs(self) -> dict[str, Any]:
        return dict(self.params)

    def __repr__(self) -> str:
        return f"<{self.op.name} {self.type}>"


Node = Input | Const | Apply


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A pure function from its inputs to its outputs."""

    inputs: tuple[Input, ...]
    outputs: tuple[Node, ...]
    _order: list[Node] = field(default_factory=list, init=False, repr=False)

    def __str__(self) -> str:
        from graphjit.ir.show import show
        return show(self)

    def to_dot(self) -> str:
        """The graph in Graphviz's DOT language."""
        from graphjit.ir.show import to_dot
        return to_dot(self)

    def with_outputs(self, outputs: Iterable[Node]) -> Graph:
        """The graph of other outputs: itself, its order known, where they are the same."""
        new = tuple(outputs)
        return self if new == self.outputs else Graph(self.inputs, new)

    @property
    def nodes(self) -> list[Node]:
        """Every node the outputs need, operands before users; found once, not to be changed."""
        if not self._order:
            self._order.extend(topological(self.outputs))
        return self._order


def topological(roots: Iterable[Node]) -> list[Node]:
    """Nodes below the roots, operands first; iterative, so that depth is no limit.

    Raises:
        ArgumentError: a graph made by hand has a cycle.
    """
    order: list[Node] = []
    done: dict[Node, bool] = {}  # False while the operands are being visited
    stack: list[Node] = list(roots)[::-1]
    while stack:
        node = stack[-1]
        state = done.get(node)
        if state is None and isinstance(node, Apply):
            done[node] = False
            for a in reversed(node.args):
                below = done.get(a)
                if below is None:
                    stack.append(a)
                elif not below:
                    raise ArgumentError(f"the graph has a cycle: {a} is computed from itself",
                                        hint="Graphs made by tracing have none: look where arguments were set by hand.")
        else:
            stack.pop()
            if not state:
                done[node] = True
                order.append(node)
    return order


def apply_op(op: Op, args: Sequence[Node], params: dict[str, Any], where: Where | None = None) -> Apply:
    """An Apply node, its type found by the op's shape rule.

    Raises:
        ShapeError, DTypeError: from the shape rule.
    """
    found = op.infer(*(a.type for a in args), **params)
    return Apply(op, tuple(args), tuple(sorted(params.items())), found, where)


def rewrite(graph: Graph, rule: Callable[[Apply], Node]) -> Graph:
    """The graph with every Apply, operands first, replaced by what ``rule`` makes of it."""
    new: dict[Node, Node] = {}
    for node in graph.nodes:
        if isinstance(node, Apply):
            args = tuple([new[a] for a in node.args])
            if args != node.args:
                new[node] = rule(Apply(node.op, args, node.params, node.type, node.where))
            else:
                new[node] = rule(node)
        else:
            new[node] = node
    return graph.with_outputs([new[o] for o in graph.outputs])


def users(graph: Graph) -> dict[Node, list[Apply]]:
    """For each node, the nodes that use it (once for each use)."""
    out: dict[Node, list[Apply]] = {n: [] for n in graph.nodes}
    for node in out:
        if isinstance(node, Apply):
            for a in node.args:
                out[a].append(node)
    return out


def constant(value: Any, dtype: np.dtype[Any]) -> Const:
    """A scalar constant."""
    return Const(np.array(value, dtype))
