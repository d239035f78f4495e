"""Products with what was flattened in another order than it lies in: the small operand is put in order instead."""

from __future__ import annotations

from collections.abc import Mapping

from graphjit.ir import Apply, Graph, Node, apply_op, users
from graphjit.passes.build import copied, permuted, reshaped
from graphjit.types import Extent, is_float

FEW = 32  # columns that are sooner put in order than the activations they are multiplied with
Ints = tuple[int, ...]


def flattened(graph: Graph) -> Graph:
    """reshape(permute(z)) @ w is reshape(z) @ (w with its rows permuted), for few columns; both gradients likewise."""
    if not any(isinstance(n, Apply) and n.op.name == "matmul" for n in graph.nodes):
        return graph
    count = {n: len(found) + graph.outputs.count(n) for n, found in users(graph).items()}
    new: dict[Node, Node] = {}
    for node in graph.nodes:
        new[node] = node
        if isinstance(node, Apply):
            args = tuple(new[a] for a in node.args)
            same = all(a is b for a, b in zip(args, node.args, strict=True))
            again = node if same else Apply(node.op, args, node.params, node.type, node.where)
            new[node] = _unflattened(again) if node.op.name == "permute_dims" and _alone(node, count) else \
                _product_in_order(again)
    outputs = tuple(new[o] for o in graph.outputs)
    return graph if outputs == graph.outputs else Graph(graph.inputs, outputs)


def _alone(node: Apply, count: Mapping[Node, int]) -> bool:
    """Whether nothing else reads what a permutation of a reshape reads."""
    below = node.args[0]
    return isinstance(below, Apply) and count[below] == 1 and bool(below.args) and count[below.args[0]] == 1


def _product_in_order(node: Apply) -> Node:
    if node.op.name != "matmul" or node.type.ndim != 2 or not is_float(node.type.dtype):
        return node
    a, b = node.args
    if not _few(b.type.shape[1]):
        return node
    found = _flat(a)
    if found is not None:
        x, shape, axes = found
        rows = permuted(reshaped(b, (*shape, b.type.shape[1]), node), (*axes, len(axes)), node)
        return apply_op(node.op, (x, reshaped(copied(rows, node), b.type.shape, node)), {}, node.where)
    found = _flat(a.args[0]) if isinstance(a, Apply) and a.op.name == "permute_dims" else None
    if found is not None:
        x, shape, axes = found
        product = apply_op(node.op, (permuted(x, (1, 0), node), b), {}, node.where)
        apart = reshaped(product, (*(shape[i] for i in axes), b.type.shape[1]), node)
        return reshaped(copied(permuted(apart, (*_inverse(axes), len(axes)), node), node), node.type.shape, node)
    return node


def _flat(node: Node) -> tuple[Node, Ints, Ints] | None:
    """Of reshape(permute(z)) of two axes: z flattened, the shape that is flattened, and its axes in the order of z."""
    if not isinstance(node, Apply) or node.op.name != "reshape" or node.type.ndim != 2:
        return None
    x = node.args[0]
    if not isinstance(x, Apply) or x.op.name != "permute_dims" or x.type.ndim < 3:
        return None
    axes = x.kwargs["axes"]
    if axes[0] != 0 or x.type.shape[0] != node.type.shape[0] or 0 in x.type.shape:
        return None
    return reshaped(x.args[0], node.type.shape, node), x.type.shape[1:], _inverse(tuple(i - 1 for i in axes[1:]))


def _unflattened(node: Apply) -> Node:
    """permute(reshape(a @ b)): the product with the columns of b in the order wanted."""
    x, axes = node.args[0], node.kwargs["axes"]
    if axes[0] != 0 or not isinstance(x, Apply) or x.op.name != "reshape" or x.type.ndim < 3:
        return node
    product = x.args[0]
    if (not isinstance(product, Apply) or product.op.name != "matmul" or product.type.ndim != 2
            or not is_float(product.type.dtype) or product.type.shape[0] != x.type.shape[0] or 0 in x.type.shape
            or not _few(product.args[0].type.shape[1])):
        return node
    a, b = product.args
    columns = permuted(reshaped(b, (b.type.shape[0], *x.type.shape[1:]), node), axes, node)
    out = apply_op(product.op, (a, reshaped(copied(columns, node), b.type.shape, node)), {}, product.where)
    return reshaped(out, node.type.shape, node)


def _few(n: int) -> bool:
    return not isinstance(n, Extent) and n <= FEW


def _inverse(axes: Ints) -> Ints:
    return tuple(axes.index(i) for i in range(len(axes)))
