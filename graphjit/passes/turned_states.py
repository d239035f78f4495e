"""Weights held in the order in which products read them, where nothing reads them in their own.

``x @ w.T`` with w (out, in) has to turn w at each step; with its elements lying as those of (in, out) it has not. Where
the gradient by x is wanted, w is read both ways, and nothing would be gained: a first layer's is not wanted. A
convolution wants its weight (O, C, *kernel) by taps, and has its gradient so: copies at each step, or none. What goes
with such a weight from step to step, element by element (momentum, moments), is held in the same order, and the
gradient is computed in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, TypeGuard

from graphjit.ir import Apply, Graph, Input, Node, apply_op, users
from graphjit.op import Elementwise, Reduction
from graphjit.passes.build import permuted
from graphjit.passes.layout import contiguous
from graphjit.passes.products import swapped
from graphjit.passes.simplify import same_shape
from graphjit.types import Order, Shape, TensorType, inverse, is_float, is_one

TURN = (1, 0)
SUMS = frozenset({"sum", "prod", "max", "min"})  # in any order
COPIES = frozenset({"turn", "copy"})  # see `products.turn_once`, `channels_last`


class Held(NamedTuple):
    """The input in a state's place, and the order of the state's axes in which it has them."""

    node: Input
    order: Order


def turn_states(graph: Graph, written: Sequence[Input], may: Collection[Input],
                found: Mapping[Input, Order]) -> tuple[Graph, dict[Input, Held]]:
    """The graph with some of its states as inputs with their axes in another order, and which these are.

    Args:
        graph: after all passes; its last outputs are written to the states ``written``, in their order.
        may: states that may be turned, of those that are written.
        found: states that lie in another order already, written or not: these always are.
    """
    if not found and not may:
        return graph, {}
    groups = _Groups(graph, written, may, found)
    chosen: dict[Node, Order] = {}
    for state, order in [*found.items(), *((s, groups.wanted(s)) for s in may if s not in found)]:
        if state not in chosen and order:
            group = groups.around(state, order) or ([state] if state in found else [])
            chosen |= dict.fromkeys(group, order)
    if not chosen:
        return graph, {}
    held = {n: Held(Input(_turned(n.type, order), _name(n.name, order)), order)
            for n, order in chosen.items() if isinstance(n, Input)}
    return contiguous(_rewritten(graph, written, chosen, held)), held


class _Groups:
    """What must lie in one order, as it is computed element by element of each other."""

    def __init__(self, graph: Graph, written: Sequence[Input], may: Collection[Input],
                 found: Mapping[Input, Order]) -> None:
        self.may, self.found = frozenset(may), found
        self.outputs = Counter(graph.outputs)
        self.users = users(graph)
        self.new = dict(zip(written, graph.outputs[len(graph.outputs) - len(written):], strict=True))

    def wanted(self, state: Input) -> Order:
        """The order in which products read a state, or () where nothing is gained by it."""
        if state.type.ndim < 2 or not is_float(state.type.dtype):
            return ()
        if state.type.ndim == 2:
            return TURN if self.pays(state) else ()
        copied = Counter(_canonical(r.kwargs["axes"], state.type.shape) for r in self.users.get(state, [])
                         if _permutes(r) and any(_is_copy(u) for u in self.users[r]))
        if len(copied) < 2:
            return next(iter(copied), ())
        return max(copied, key=lambda order: (copied[order], self.computed(state, order)))

    def computed(self, state: Input, order: Order) -> bool:
        """Whether what a state becomes is computed from what lies in this order."""
        group = self.around(state, order) or ()
        return any(_permutes(n) and _follows(n, order) for n in group)

    def pays(self, state: Input) -> bool:
        """Whether products read a matrix turned, none reads its rows, and its columns fill vectors as rows."""
        from graphjit.kernels.target import target
        lanes, (rows, columns) = target().lanes(state.type.dtype.itemsize), state.type.shape
        if (rows % lanes or rows < 2 * lanes) and (columns % lanes == 0 or rows <= columns):
            return False
        views = [r for r in self.users.get(state, []) if _permutes(r)]
        views += [u for v in views for u in self.users[v] if _is_copy(u)]
        readers = [u for v in views for u in self.users[v] if not _is_copy(u)]
        return bool(readers) and all(_is_product(r) and r.args[1] in views and r.args[0] not in views for r in readers)

    def around(self, state: Input, order: Order) -> list[Node] | None:
        """The states, products and element-wise nodes that go with a state, itself among them; None where one of them
        is read in another way than permuted, element by element or as a whole."""
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
                if not _sums_all(user) and not (isinstance(node, Input) and _permutes(user)):
                    near.append(user)
                    if not isinstance(user.op.lower, Elementwise):
                        return None
            for each in near:
                if each not in group:
                    if not (same_shape(each.type.shape, state.type.shape) and self.may_turn(each, order)):
                        return None
                    group[each] = None
                    open_ends.append(each)
        stored = Counter(self.new[n] for n in group if isinstance(n, Input) and n in self.new)
        return list(group) if all(self.outputs[n] == stored[n] for n in group) else None

    def may_turn(self, node: Node, order: Order) -> bool:
        match node:
            case Input():
                return self.found[node] == order if node in self.found else node in self.may
            case Apply():
                return isinstance(node.op.lower, Elementwise) or _permutes(node) \
                    or (_is_product(node) and node.type.ndim == 2)
        return False


def _rewritten(graph: Graph, written: Sequence[Input], chosen: Mapping[Node, Order],
               held: Mapping[Input, Held]) -> Graph:
    plain: dict[Node, Node] = {}
    turned: dict[Node, Node] = {state: it.node for state, it in held.items()}
    inputs = frozenset(turned.values())

    def in_order(x: Node) -> Node:
        if x not in plain:
            plain[x] = permuted(turned[x], inverse(chosen[x]), x)
        return plain[x]

    for node in graph.nodes:
        if node in held:
            continue
        order = chosen.get(node, ())
        if not isinstance(node, Apply):
            plain[node] = node
        elif order and _is_product(node):
            a, b = map(in_order, node.args)
            turned[node] = apply_op(node.op, (swapped(b, node), swapped(a, node)), {}, node.where)
        elif order and _permutes(node):
            turned[node] = permuted(in_order(node.args[0]), tuple(node.kwargs["axes"][a] for a in order), node)
        elif order:
            args = tuple([in_order(a) if _is_single(a.type.shape) else turned[a] for a in node.args])
            turned[node] = Apply(node.op, args, node.params, _turned(node.type, order), node.where)
        elif _permutes(node) and node.args[0] in turned:
            before = inverse(chosen[node.args[0]])
            plain[node] = permuted(turned[node.args[0]], tuple(before[a] for a in node.kwargs["axes"]), node)
        elif _is_copy(node) and _lies_in_order(plain.get(node.args[0], node), inputs):
            plain[node] = plain[node.args[0]]
        elif _sums_all(node) and node.args[0] in turned:
            plain[node] = Apply(node.op, (turned[node.args[0]],), node.params, node.type, node.where)
        else:
            args = tuple([in_order(a) for a in node.args])
            plain[node] = node if args == node.args else Apply(node.op, args, node.params, node.type, node.where)
    results = len(graph.outputs) - len(written)
    outputs = [in_order(o) for o in graph.outputs[:results]]
    for state, o in zip(written, graph.outputs[results:], strict=True):
        if state not in held:
            outputs.append(in_order(o))
        else:
            outputs.append(turned[o] if o in turned else permuted(in_order(o), held[state].order, o))
    return Graph(tuple(held[i].node if i in held else i for i in graph.inputs), tuple(outputs))


def _name(name: str, order: Order) -> str:
    return f"{name}.T" if order == TURN else f"{name}.permute_dims{order}"


def _canonical(order: Order, shape: Shape) -> Order:
    """An order with axes of one element first, which may stand anywhere."""
    return tuple(sorted(order, key=lambda a: not is_one(shape[a])))


def _turned(found: TensorType, order: Order) -> TensorType:
    return found.with_shape([found.shape[a] for a in order])


def _permutes(node: Node) -> TypeGuard[Apply]:
    return isinstance(node, Apply) and node.op.name == "permute_dims"


def _follows(node: Apply, order: Order) -> bool:
    """Whether the operand of such a node has the axes of its result in this order."""
    return _canonical(inverse(node.kwargs["axes"]), node.type.shape) == order


def _is_product(node: Node) -> bool:
    return isinstance(node, Apply) and node.op.name == "matmul"


def _is_copy(node: Node) -> bool:
    return isinstance(node, Apply) and node.op.name in COPIES


def _lies_in_order(node: Node, inputs: Collection[Node]) -> bool:
    """Whether a node is one of these inputs, or one with axes of one element elsewhere."""
    if not _permutes(node):
        return node in inputs
    shape = node.args[0].type.shape
    axes = [a for a in node.kwargs["axes"] if not is_one(shape[a])]
    return node.args[0] in inputs and axes == sorted(axes)


def _is_single(shape: Shape) -> bool:
    return all(is_one(n) for n in shape)


def _sums_all(node: Apply) -> bool:
    return isinstance(node.op.lower, Reduction) and node.op.name in SUMS \
        and len(node.kwargs["axis"]) == node.args[0].type.ndim
