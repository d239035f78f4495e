"""Terms of a sum that are alike become one op, which stores their sum.

Arrays padded with zeros: the gradient by slices that overlap. Gradients by rows that were taken several times. Outer
products, the gradient by a matrix that was multiplied with several vectors: one product of all vectors side by side.
Folds of as many numbers, the gradient by a bias that each turn of a loop adds: the fold of what is added up before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

from graphjit.ir import Apply, Graph, Node, apply_op, users
from graphjit.ir.graph import constant
from graphjit.ir.verify import same_type
from graphjit.op import TABLE
from graphjit.ops.regions import ADD_REGIONS, TAKE_GRADS
from graphjit.passes.simplify import same_shape, scalar_value
from graphjit.types import is_float, is_one

MOST = 16  # parts that one loop adds
NEAR = 1 << 18  # bytes of an array at most that is added to from time to time: it stays in the cache meanwhile
LITTLE = 2048   # where all of it is folded to one number: most often loops do that where they compute it


def sums(graph: Graph) -> Graph:
    """Sums of enough such terms that nothing else reads, whatever else is added to them."""
    names = [n.op.name for n in graph.nodes if isinstance(n, Apply)]
    if not any(names.count(name) >= least for name, (least, _) in KINDS.items()):
        return graph
    count = {n: len(found) + graph.outputs.count(n) for n, found in users(graph).items()}
    sums = {n for n in graph.nodes if isinstance(n, Apply) and n.op.name == "add" and is_float(n.type.dtype)}
    inside: set[Node] = {a for n in sums for a in n.args
                         if a in sums and count[a] == 1 and same_shape(a.type.shape, n.type.shape)}
    found: dict[Node, tuple[list[Node], dict[Kind, list[Node]]]] = {}
    for total in sums - inside:
        assert isinstance(total, Apply)
        terms = list(_terms(total, inside))
        alike: dict[Kind, list[Node]] = {}
        for x in terms:
            if count[x] == 1 and (kind := _kind(x, total, count)):
                alike.setdefault(kind, []).append(x)
        alike = {kind: some for kind, some in alike.items() if len(some) >= KINDS[kind[0]][0]}
        if alike:
            found[total] = terms, alike
    if not found:
        return graph
    new: dict[Node, Node] = {}
    for node in graph.nodes:
        if isinstance(node, Apply):
            args = tuple([new[a] for a in node.args])
            again = node if args == node.args else Apply(node.op, args, node.params, node.type, node.where)
            new[node] = again if node not in found else _sum(node, *found[node], new)
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


def _kind(x: Node, whole: Apply, count: Mapping[Node, int]) -> Kind | None:
    """What terms of a sum have in common that are added by one op; None for others."""
    if not isinstance(x, Apply) or not same_shape(x.type.shape, whole.type.shape) \
            or not same_type(x.type, whole.type):
        return None
    match x.op.name:
        case "pad" if x.kwargs["value"] == 0 and not any(x.kwargs["interior"]):
            return ("pad",)
        case "take_grad":
            return "take_grad", x.kwargs["axis"]
        case "matmul" if x.type.ndim == 2 and is_one(x.args[0].type.shape[1]):
            return ("matmul",)
        case "sum" | "mul" | "neg":
            fold, factor = _scaled(x)
            if not isinstance(fold, Apply) or fold.op.name != "sum" or count[fold] > 1:
                return None
            shape, dtype, _ = of = fold.args[0].type
            room = LITTLE if all(is_one(n) for n in fold.type.shape) else NEAR
            return ("sum", fold.params, factor, shape, tuple(map(type, shape)), dtype) if of.nbytes <= room else None
        case _:
            return None


def _sum(node: Apply, terms: Sequence[Node], alike: dict[Kind, list[Node]], new: dict[Node, Node]) -> Node:
    one_of_them = {x for found in alike.values() for x in found}
    rest = [new[x] for x in terms if x not in one_of_them]
    for kind, found in alike.items():
        rest += KINDS[kind[0]][1](node, [x for old in found if isinstance(x := new[old], Apply)])
    out, *more = rest
    for x in more:
        out = apply_op(TABLE["add"], (out, x), {}, node.where)
    return out


def _regions(node: Apply, pads: Sequence[Apply]) -> Iterator[Node]:
    for i in range(0, len(pads), MOST):
        some = pads[i:i + MOST]
        parts, factors = zip(*[_scaled(x.args[0]) for x in some], strict=True)
        yield apply_op(ADD_REGIONS, parts, {
            "size": node.type.shape, "starts": tuple([x.kwargs["low"] for x in some]), "factors": factors}, node.where)


def _takes(node: Apply, grads: Sequence[Apply]) -> Iterator[Node]:
    for i in range(0, len(grads), MOST):
        one, *others = some = grads[i:i + MOST]
        operands = tuple([x for each in some for x in each.args])
        yield apply_op(TAKE_GRADS, operands, {**one.kwargs}, node.where) if others else one


def _products(node: Apply, products: Sequence[Apply]) -> Iterator[Node]:
    def beside(vectors: Sequence[Node], length: int) -> Node:
        """As the rows of a matrix."""
        rows = tuple([apply_op(TABLE["reshape"], (x,), {"shape": (1, length)}, node.where) for x in vectors])
        return apply_op(TABLE["concat"], rows, {"axis": 0}, node.where)

    columns, rows = (beside([x.args[k] for x in products], node.type.shape[k]) for k in (0, 1))
    turned = apply_op(TABLE["permute_dims"], (columns,), {"axes": (1, 0)}, node.where)
    yield apply_op(TABLE["matmul"], (turned, rows), {}, node.where)


def _folded(node: Apply, folds: Sequence[Apply]) -> Iterator[Node]:
    (fold, factor), *others = map(_scaled, folds)
    assert isinstance(fold, Apply)
    whole = fold.args[0]
    for other, _ in others:
        assert isinstance(other, Apply)
        whole = apply_op(TABLE["add"], (whole, other.args[0]), {}, node.where)
    out = apply_op(TABLE["sum"], (whole,), fold.kwargs, node.where)
    yield out if factor == 1 else apply_op(TABLE["mul"], (out, constant(factor, out.type.dtype)), {}, node.where)


Kind = tuple[str, *tuple[Hashable, ...]]

# of each kind of terms how many are enough, and the terms that take their place
KINDS: dict[str, tuple[int, Callable[[Apply, Sequence[Apply]], Iterator[Node]]]] = {
    "pad": (2, _regions), "take_grad": (2, _takes), "matmul": (4, _products), "sum": (4, _folded)}


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
