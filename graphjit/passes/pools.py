"""What commutes with picking the largest of each window is done once for the window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphjit.ir import Apply, Graph, Node, apply_op, users
from graphjit.op import TABLE
from graphjit.passes.simplify import scalar_value

Readers = Mapping[Node, Sequence[Apply]]


def pools(graph: Graph) -> Graph:
    """max_pool(relu(x)) is relu(max_pool(x)), its gradient too; the sum of max_pool_grad(x, g) is the sum of g.

    The gradient keeps every bit: where the largest element of a window is positive, the first such is the same before
    and behind relu; elsewhere relu lets no gradient pass.
    """
    if not any(isinstance(n, Apply) and n.op.name.startswith("max_pool") for n in graph.nodes):
        return graph
    readers = users(graph)
    late = {n for n in graph.nodes if n not in graph.outputs and _only_pooled(n, readers)}
    new: dict[Node, Node] = {}
    pooled: dict[object, Node] = {}

    def relu_of_pool(relu: Node, pool: Apply) -> Node:
        key = (relu, pool.params)
        if key not in pooled:
            assert isinstance(relu, Apply)
            largest = apply_op(TABLE["max_pool"], (new[relu.args[0]],), pool.kwargs, pool.where)
            pooled[key] = apply_op(relu.op, (largest,), relu.kwargs, relu.where)
        return pooled[key]

    for node in graph.nodes:
        if not isinstance(node, Apply):
            new[node] = node
        elif node.op.name == "max_pool" and node.args[0] in late:
            new[node] = relu_of_pool(node.args[0], node)
        elif (gradient := _masked_gradient(node)) is not None and gradient.args[0] in late:
            mask, relu = node.args[0], gradient.args[0]
            assert isinstance(mask, Apply) and isinstance(relu, Apply)
            out = relu_of_pool(relu, gradient)
            passes = apply_op(mask.op, (out, mask.args[1]), {}, mask.where)
            g = apply_op(node.op, (passes, new[gradient.args[1]], node.args[2]), {}, node.where)
            new[node] = apply_op(gradient.op, (new[relu.args[0]], g), gradient.kwargs, gradient.where)
        else:
            args = tuple(new[a] for a in node.args)
            if _sums_gradient(node, args):
                assert isinstance(args[0], Apply)
                args = args[0].args[1:]
            same = all(a is b for a, b in zip(args, node.args, strict=True))
            new[node] = node if same else Apply(node.op, args, node.params, node.type, node.where)
    outputs = tuple(new[o] for o in graph.outputs)
    return graph if outputs == graph.outputs else Graph(graph.inputs, outputs)


def _only_pooled(node: Node, readers: Readers) -> bool:
    """Whether a node is a rectified value that only pools and gradients through pool and rectifier read."""
    if not (isinstance(node, Apply) and node.op.name == "relu"):
        return False
    for reader in readers[node]:
        match reader.op.name:
            case "max_pool":
                continue
            case "max_pool_grad" if reader.args[1] is not node:
                onward = readers[reader]
            case "greater" if reader.args[0] is node:
                onward = readers[reader]
            case _:
                return False
        if not onward or not all(_masks(r, node) for r in onward):
            return False
    return True


def _masked_gradient(node: Apply) -> Apply | None:
    """max_pool_grad(relu, g) where ``node`` is where(relu > 0, it, 0)."""
    if node.op.name != "where" or scalar_value(node.args[2]) != 0:
        return None
    mask, gradient = node.args[:2]
    found = (isinstance(gradient, Apply) and gradient.op.name == "max_pool_grad" and isinstance(mask, Apply)
             and mask.op.name == "greater" and mask.args[0] is gradient.args[0] and scalar_value(mask.args[1]) == 0)
    return gradient if found else None  # type: ignore[return-value]  # mypy does not follow ``found``


def _masks(node: Apply, relu: Node) -> bool:
    gradient = _masked_gradient(node)
    return gradient is not None and gradient.args[0] is relu


def _sums_gradient(node: Apply, args: Sequence[Node]) -> bool:
    """Whether a node sums up a max_pool_grad over all places of which every window picks one."""
    if node.op.name != "sum" or not isinstance(args[0], Apply) or args[0].op.name != "max_pool_grad":
        return False
    gradient = args[0]
    x, g = (a.type.shape[2:] for a in gradient.args)
    how = gradient.kwargs
    if not set(range(2, 2 + len(x))) <= set(node.kwargs["axis"]):
        return False
    return all((low == 0 and high == 0) or (d == 1 and low < k and (places - 1) * s - low < size)
               for size, places, k, s, d, (low, high) in
               zip(x, g, how["kernel"], how["stride"], how["dilation"], how["padding"], strict=True))
