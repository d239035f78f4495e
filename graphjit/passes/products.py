"""Matrix products in the order their result is wanted."""

from __future__ import annotations

from collections import Counter
from typing import TypeGuard

from graphjit.ir import Apply, Graph, Node, apply_op, rewrite, users
from graphjit.op import TABLE
from graphjit.types import is_float

MANY = 4  # products, for which it pays to turn an operand before


def transpose_products(graph: Graph) -> Graph:
    """(A B)ᵀ is Bᵀ Aᵀ: a product wanted only transposed is computed so, its operands' views being free."""
    count = {n: len(u) for n, u in users(graph).items()}
    outputs = frozenset(graph.outputs)
    wanted = {n for n in count if isinstance(n, Apply) and n.op.name == "permute_dims"
              and count[n.args[0]] == 1 and n.args[0] not in outputs and _swaps_last(n)}
    new: dict[Node, Node] = {}
    for node in graph.nodes:
        if not isinstance(node, Apply):
            new[node] = node
            continue
        args = tuple([new[a] for a in node.args])
        product = args[0] if args else None
        if node in wanted and isinstance(product, Apply) and product.op.name == "matmul":
            a, b = product.args
            new[node] = apply_op(product.op, (swapped(b, node), swapped(a, node)), {}, product.where)
        elif args == node.args:
            new[node] = node
        else:
            new[node] = Apply(node.op, args, node.params, node.type, node.where)
    return graph.with_outputs([new[o] for o in graph.outputs])


def turn_once(graph: Graph) -> Graph:
    """A matrix that many products read transposed, as a recurrent net's weight at each step, is put into that order
    once: each product would turn it for itself."""
    readers = Counter(node.args[1] for node in graph.nodes if _reads_turned(node))
    turned = {x: apply_op(TABLE["turn"], (x,), {}, x.where) for x, count in readers.items()
              if count >= MANY and isinstance(x, Apply)}
    if not turned:
        return graph

    def rule(node: Apply) -> Node:
        if not _reads_turned(node) or node.args[1] not in turned:
            return node
        return Apply(node.op, (node.args[0], turned[node.args[1]]), node.params, node.type, node.where)
    return rewrite(graph, rule)


def _reads_turned(node: Node) -> TypeGuard[Apply]:
    if not (isinstance(node, Apply) and node.op.name == "matmul" and is_float(node.type.dtype)):
        return False
    x = node.args[1]
    return isinstance(x, Apply) and x.op.name == "permute_dims" and x.type.ndim == 2


def _swaps_last(node: Apply) -> bool:
    axes = node.kwargs["axes"]
    n = len(axes)
    return n >= 2 and axes == (*range(n - 2), n - 1, n - 2)


def swapped(x: Node, node: Apply) -> Node:
    n = x.type.ndim
    axes = (*range(n - 2), n - 1, n - 2)
    if isinstance(x, Apply) and x.op.name == "permute_dims" and x.kwargs["axes"] == axes:
        return x.args[0]
    return apply_op(TABLE["permute_dims"], (x,), {"axes": axes}, node.where)
