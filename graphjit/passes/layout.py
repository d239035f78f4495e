"""Where elements lie: layouts of views, and copies where a kernel needs its operand in order."""

from __future__ import annotations

from graphjit.ir import Apply, Const, Graph, Input, Node, apply_op, rewrite
from graphjit.op import TABLE, Layout, Library, View
from graphjit.types import contiguous_strides, is_float, is_one

STRIDED = frozenset({"matmul"})  # library kernels that read floats of any strides
STRIDED_FIRST = frozenset({"contract"})  # those that read their first operand so, and the second if its rows lie even


def base(node: Node) -> Node:
    """The node below any views."""
    while isinstance(node, Apply) and isinstance(node.op.lower, View):
        node = node.args[0]
    return node


def base_layout(node: Node) -> tuple[Node, Layout]:
    """The node whose buffer holds this one's elements, and how they lie there.

    A view's operand must be viewable, which the ``contiguous`` pass has made sure of.
    """
    chain: list[Apply] = []
    while isinstance(node, Apply) and isinstance(node.op.lower, View) and "layout" not in node.facts:
        chain.append(node)
        node = node.args[0]
    if isinstance(node, Apply) and "layout" in node.facts:
        node, layout = node.facts["layout"]
    else:
        layout = Layout(0, node.type.shape, contiguous_strides(node.type.shape))
    for view in reversed(chain):
        assert isinstance(view.op.lower, View)
        layout = view.op.lower.layout(layout, **view.kwargs)
        assert layout is not None, "a view that needs a copy slipped through"
        view.facts["layout"] = node, layout
    return node, layout


def is_contiguous(layout: Layout) -> bool:
    want = contiguous_strides(layout.shape)
    return all(is_one(n) or s == w for n, s, w in zip(layout.shape, layout.strides, want, strict=True))


def contiguous(graph: Graph) -> Graph:
    """A copy before each reshape that strides cannot express and each library kernel that reads in order."""
    return rewrite(graph, _contiguous)


def _copy(node: Node, where: Apply) -> Node:
    """The node in order; a product or an assembled result as a concatenation of one part, so that it is stored there
    to begin with."""
    below = node
    while isinstance(below, Apply) and isinstance(below.op.lower, View):
        below = below.args[0]
    product = isinstance(below, Apply) and below.op.name == "matmul" and is_float(below.type.dtype)
    if node.type.ndim and (product or (isinstance(below, Apply) and below.op.name == "concat")):
        return apply_op(TABLE["concat"], (node,), {"axis": 0}, where.where)
    return apply_op(TABLE["copy"], (node,), {}, where.where)


def _contiguous(node: Apply) -> Node:
    lower = node.op.lower
    if isinstance(lower, View):
        _, layout = base_layout(node.args[0])
        if lower.layout(layout, **node.kwargs) is None:
            return Apply(node.op, (_copy(node.args[0], node),), node.params, node.type, node.where)
    elif isinstance(lower, Library) and not (lower.kernel in STRIDED and is_float(node.type.dtype)):
        free = lower.kernel in STRIDED_FIRST
        args = tuple(a if (free and (i == 0 or (i == 1 and _even_rows(a)))) or _in_order(a) else _copy(a, node)
                     for i, a in enumerate(node.args))
        if any(a is not b for a, b in zip(args, node.args, strict=True)):
            return Apply(node.op, args, node.params, node.type, node.where)
    return node


def _even_rows(node: Node) -> bool:
    layout = base_layout(node)[1]
    return is_one(layout.shape[-1]) or layout.strides[-1] == 1


def _in_order(node: Node) -> bool:
    if isinstance(node, (Input, Const)):
        return True
    return is_contiguous(base_layout(node)[1]) if isinstance(node.op.lower, View) else True
