"""Weights held column by column, where products read them so and nothing reads them by rows.

``x @ w.T`` with w (out, in) has to turn w at each step; with its elements lying as those of (in, out) it has not. Where
the gradient by x is wanted, w is read both ways, and nothing would be gained: a first layer's is not wanted. What goes
with such a weight from step to step, element by element (momentum, moments), is held in the same order, and the
gradient is computed in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from graphjit.ir import Apply, Graph, Input, Node, apply_op, users
from graphjit.op import Elementwise, Reduction
from graphjit.passes.build import permuted
from graphjit.passes.layout import contiguous
from graphjit.passes.products import swapped
from graphjit.passes.simplify import same_shape
from graphjit.types import Shape, TensorType, is_float, is_one

TURN = (1, 0)
SUMS = frozenset({"sum", "prod", "max", "min"})  # in any order


def turn_states(graph: Graph, written: Sequence[Input], may: Collection[Input],
                found: Collection[Input]) -> tuple[Graph, dict[Input, Input]]:
    """The graph with some of its states as inputs of the turned shape, and these by those in whose place they are.

    Args:
        graph: after all passes; its last outputs are written to the states ``written``, in their order.
        may: states that may be turned, of those that are written.
        found: states that lie turned already, written or not: these always are.
    """
    if not found and not any(s.type.ndim == 2 for s in may):
        return graph, {}
    groups = _Groups(graph, written, may, found)
    chosen: dict[Node, None] = {}
    for state in [*found, *(s for s in may if groups.pays(s))]:
        if state not in chosen:
            chosen |= groups.around(state) or ({state: None} if state in found else {})
    if not chosen:
        return graph, {}
    held = {n: Input(_turned(n.type), f"{n.name}.T") for n in chosen if isinstance(n, Input)}
    return contiguous(_rewritten(graph, written, chosen, held)), held


class _Groups:
    """What must lie in one order, as it is computed element by element of each other."""

    def __init__(self, graph: Graph, written: Sequence[Input], may: Collection[Input],
                 found: Collection[Input]) -> None:
        self.turnable = {*may, *found}
        self.outputs = Counter(graph.outputs)
        self.users = users(graph)
        self.new = dict(zip(written, graph.outputs[len(graph.outputs) - len(written):], strict=True))

    def pays(self, state: Input) -> bool:
        """Whether products read a state turned, none reads its rows, and its columns fill vectors as rows."""
        from graphjit.kernels.target import target
        if state.type.ndim != 2 or not is_float(state.type.dtype):
            return False
        lanes, (rows, columns) = target().lanes(state.type.dtype.itemsize), state.type.shape
        if (rows % lanes or rows < 2 * lanes) and (columns % lanes == 0 or rows <= columns):
            return False
        views = [r for r in self.users.get(state, []) if _turns(r)]
        views += [u for v in views for u in self.users[v] if _is_copy(u)]
        readers = [u for v in views for u in self.users[v] if not _is_copy(u)]
        return bool(readers) and all(_is_product(r) and r.args[1] in views and r.args[0] not in views for r in readers)

    def around(self, state: Input) -> dict[Node, None] | None:
        """The states, products and element-wise nodes that go with a state, itself among them; None where one of them
        is read in another way than turned, element by element or as a whole."""
        group: dict[Node, None] = {state: None}
        open_ends: list[Node] = [state]
        while open_ends:
            node = open_ends.pop()
            near: list[Node] = []
            if isinstance(node, Input):
                near += [self.new[node]] if node in self.new else []
            elif isinstance(node, Apply) and isinstance(node.op.lower, Elementwise):
                near += [a for a in node.args if not _is_single(a.type.shape)]
            for user in self.users.get(node, []):
                if not _sums_all(user) and not (isinstance(node, Input) and _turns(user)):
                    near.append(user)
                    if not isinstance(user.op.lower, Elementwise):
                        return None
            for each in near:
                if each not in group:
                    if not (same_shape(each.type.shape, state.type.shape) and self.may_turn(each)):
                        return None
                    group[each] = None
                    open_ends.append(each)
        stored = Counter(self.new[n] for n in group if isinstance(n, Input) and n in self.new)
        return group if all(self.outputs[n] == stored[n] for n in group) else None

    def may_turn(self, node: Node) -> bool:
        match node:
            case Input():
                return node in self.turnable
            case Apply():
                return isinstance(node.op.lower, Elementwise) or (_is_product(node) and node.type.ndim == 2)
        return False


def _rewritten(graph: Graph, written: Sequence[Input], chosen: Collection[Node], held: dict[Input, Input]) -> Graph:
    plain: dict[Node, Node] = {}
    turned: dict[Node, Node] = dict(held.items())
    inputs = frozenset(held.values())

    def in_rows(x: Node) -> Node:
        if x not in plain:
            plain[x] = permuted(turned[x], TURN, x)
        return plain[x]

    for node in graph.nodes:
        if node in held:
            continue
        if not isinstance(node, Apply):
            plain[node] = node
        elif node in chosen and _is_product(node):
            a, b = map(in_rows, node.args)
            turned[node] = apply_op(node.op, (swapped(b, node), swapped(a, node)), {}, node.where)
        elif node in chosen:
            args = tuple([in_rows(a) if _is_single(a.type.shape) else turned[a] for a in node.args])
            turned[node] = Apply(node.op, args, node.params, _turned(node.type), node.where)
        elif _turns(node) and node.args[0] in turned:
            plain[node] = turned[node.args[0]]
        elif _is_copy(node) and plain.get(node.args[0]) in inputs:
            plain[node] = plain[node.args[0]]
        elif _sums_all(node) and node.args[0] in turned:
            plain[node] = Apply(node.op, (turned[node.args[0]],), node.params, node.type, node.where)
        else:
            args = tuple([in_rows(a) for a in node.args])
            plain[node] = node if args == node.args else Apply(node.op, args, node.params, node.type, node.where)
    results = len(graph.outputs) - len(written)
    outputs = [in_rows(o) for o in graph.outputs[:results]]
    for state, o in zip(written, graph.outputs[results:], strict=True):
        outputs.append(in_rows(o) if state not in held else turned[o] if o in turned else permuted(in_rows(o), TURN, o))
    return Graph(tuple(held.get(i, i) for i in graph.inputs), tuple(outputs))


def _turned(found: TensorType) -> TensorType:
    return found.with_shape(found.shape[::-1])


def _turns(node: Node) -> bool:
    return isinstance(node, Apply) and node.op.name == "permute_dims" and node.kwargs["axes"] == TURN


def _is_product(node: Node) -> bool:
    return isinstance(node, Apply) and node.op.name == "matmul"


def _is_copy(node: Node) -> bool:
    """See `products.turn_once`."""
    return isinstance(node, Apply) and node.op.name == "turn"


def _is_single(shape: Shape) -> bool:
    return all(is_one(n) for n in shape)


def _sums_all(node: Apply) -> bool:
    return isinstance(node.op.lower, Reduction) and node.op.name in SUMS \
        and len(node.kwargs["axis"]) == node.args[0].type.ndim
