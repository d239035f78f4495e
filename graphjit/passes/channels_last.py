"""Convolutions with the channels last, and all between them kept so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphjit.ir import Apply, Graph, Node, apply_op
from graphjit.op import TABLE, Elementwise, Reduction
from graphjit.ops.channels_last import CONTRACT, INPUT_GRAD, POOLS, WINDOWS, border, to_first, to_last
from graphjit.ops.windows import Ints, Pads
from graphjit.types import Extent, is_float

CONVOLUTIONS = ("conv", "conv_input_grad", "conv_weight_grad")
RANKS = (1, 2)
NARROW = 8  # numbers of a window that lie together; windows of fewer are copied out, one product for all


def channels_last(graph: Graph) -> Graph:
    """Convolutions as products of windows whose channels lie last; what they feed is computed in that order too."""
    if not any(isinstance(n, Apply) and _rewrites(n) for n in graph.nodes):
        return graph
    return _Rewriter().run(graph)


def _rewrites(node: Apply) -> bool:
    """Whether a node is a convolution that becomes a product."""
    return (node.op.name in CONVOLUTIONS and node.kwargs["groups"] == 1 and is_float(node.type.dtype)
            and len(node.kwargs["stride"]) in RANKS and 0 not in node.type.shape
            and all(0 not in a.type.shape for a in node.args))


class _Rewriter:
    """Each node of the old graph has a new one in its own order, one with the channels last, or both."""

    def __init__(self) -> None:
        self.plain: dict[Node, Node] = {}
        self.last: dict[Node, Node] = {}

    def run(self, graph: Graph) -> Graph:
        for node in graph.nodes:
            if not isinstance(node, Apply):
                self.plain[node] = node
            elif (found := self.rewritten(node)) is not None:
                self.last[node] = found
            elif node not in self.plain:
                args = tuple(self.in_order(a) for a in node.args)
                same = all(a is b for a, b in zip(args, node.args, strict=True))
                self.plain[node] = node if same else Apply(node.op, args, node.params, node.type, node.where)
        return Graph(graph.inputs, tuple(self.in_order(o) for o in graph.outputs))

    # ---- the two forms of a node

    def in_order(self, node: Node) -> Node:
        if node not in self.plain:
            self.plain[node] = _permuted(self.last[node], to_first(node.type.ndim), node)
        return self.plain[node]

    def channels_last(self, node: Node, channels: int | None = None) -> Node:
        """With the channels last. ``channels`` is their number where a convolution knows it from its weight: there it
        is part of the model, while the operand's may be the caller's choice."""
        if node not in self.last:
            x = self.plain[node]
            if channels is not None and isinstance(x.type.shape[1], Extent) and not isinstance(channels, Extent):
                shape = (x.type.shape[0], channels, *x.type.shape[2:])
                x = apply_op(TABLE["reshape"], (x,), {"shape": shape}, getattr(node, "where", None))
            self.last[node] = _permuted(x, to_last(node.type.ndim), node)
        return self.last[node]

    # ---- rules: the new node with the channels last, or None

    def rewritten(self, node: Apply) -> Node | None:
        if node.op.name in CONVOLUTIONS:
            return getattr(self, node.op.name)(node, **node.kwargs) if _rewrites(node) else None
        if not any(a in self.last and self.came_last(a) for a in node.args):
            return None
        match node.op.lower:
            case Elementwise():
                return self.elementwise(node)
            case Reduction():
                return self.reduction(node)
        if node.op in POOLS:
            args = [self.channels_last(a) for a in node.args]
            return apply_op(POOLS[node.op], args, node.kwargs, node.where)
        rule = AXES_OF.get(node.op.name)
        if rule is None or any(a.type.ndim != node.type.ndim for a in node.args):
            return None
        params = {name: rule.get(name, _same)(value, to_last(node.type.ndim)) for name, value in node.params}
        return apply_op(node.op, [self.channels_last(a) for a in node.args], params, node.where)

    def came_last(self, node: Node) -> bool:
        """Whether a node was computed with the channels last, and is not merely read so."""
        found = self.last[node]
        return not (isinstance(found, Apply) and found.op.name == "permute_dims")

    def elementwise(self, node: Apply) -> Node | None:
        ndim = node.type.ndim
        if any(a in self.last and a.type.ndim != ndim for a in node.args):
            return None
        args: list[Node] = []
        for a in node.args:
            x = a
            if a.type.ndim == 0:
                args.append(self.in_order(a))
                continue
            if a.type.ndim < ndim:
                shape = (*(1,) * (ndim - a.type.ndim), *a.type.shape)
                x = apply_op(TABLE["reshape"], (self.in_order(a),), {"shape": shape}, node.where)
                args.append(_permuted(x, to_last(ndim), node))
            else:
                args.append(self.channels_last(x))
        shape = tuple(node.type.shape[i] for i in to_last(ndim))
        return Apply(node.op, tuple(args), node.params, node.type.with_shape(shape), node.where)

    def reduction(self, node: Apply) -> Node | None:
        (x,) = node.args
        order = to_last(x.type.ndim)
        axes = tuple(sorted(order.index(a) for a in node.kwargs["axis"]))
        out = apply_op(node.op, (self.channels_last(x),), {**node.kwargs, "axis": axes}, node.where)
        if node.kwargs["keepdims"]:
            return out
        left = [a for a in order if a not in node.kwargs["axis"]]
        self.plain[node] = _permuted(out, tuple(left.index(a) for a in sorted(left)), node)
        return None

    # ---- convolutions

    def windows(self, x: Node, channels: int, kernel: Ints, stride: Ints, padding: Pads, dilation: Ints,
                where: Apply) -> Node:
        """The windows (N, *places, *kernel, C) of x: a view, or copied out where they are narrow."""
        at = self.channels_last(x, channels)
        at = _padded(at, padding, where)
        out: Node = apply_op(WINDOWS, (at,), {"kernel": kernel, "stride": stride, "dilation": dilation}, where.where)
        rank = len(kernel)
        together = channels * (kernel[-1] if dilation[-1] == 1 else 1)
        if rank > 1 and together < NARROW and kernel[0] > 1:
            outward = (*range(1 + rank, 2 + 2 * rank), *range(1 + rank))
            copy = apply_op(TABLE["copy"], (_permuted(out, outward, where),), {}, where.where)
            out = _permuted(copy, tuple(outward.index(i) for i in range(len(outward))), where)
        return out

    def conv(self, node: Apply, stride: Ints, padding: Pads, dilation: Ints, groups: int) -> Node:
        x, w = node.args
        rank = len(stride)
        taps = self.windows(x, w.type.shape[1], w.type.shape[2:], stride, padding, dilation, node)
        weight = _copied(self.in_order(w), (*range(2, 2 + rank), 1, 0), node)
        return apply_op(CONTRACT, (taps, weight), {"axes": rank + 1, "leading": False}, node.where)

    def conv_weight_grad(self, node: Apply, kernel: Ints, stride: Ints, padding: Pads, dilation: Ints,
                         groups: int) -> None:
        g, x = node.args
        rank = len(stride)
        taps = self.windows(x, node.type.shape[1], kernel, stride, padding, dilation, node)
        out = apply_op(CONTRACT, (taps, self.channels_last(g, node.type.shape[0])),
                       {"axes": rank + 1, "leading": True}, node.where)
        self.plain[node] = _permuted(out, (rank + 1, rank, *range(rank)), node)

    def conv_input_grad(self, node: Apply, size: Ints, stride: Ints, padding: Pads, dilation: Ints,
                        groups: int) -> Node:
        g, w = node.args
        rank = len(stride)
        places, kernel = g.type.shape[2:], w.type.shape[2:]
        around = tuple(border(int(n), int(m), int(k), s, low, d) for n, m, k, s, (low, _), d in
                       zip(size, places, kernel, stride, padding, dilation, strict=True))
        wide = _padded(self.channels_last(g, w.type.shape[0]), around, node)
        weight = _copied(self.in_order(w), (*range(2, 2 + rank), 0, 1), node)
        return apply_op(INPUT_GRAD, (wide, weight), {
            "size": size, "places": places, "stride": stride, "padding": padding, "dilation": dilation,
            "around": around}, node.where)


def _permuted(x: Node, axes: Ints, where: Node) -> Node:
    if axes == tuple(range(len(axes))):
        return x
    return apply_op(TABLE["permute_dims"], (x,), {"axes": axes}, getattr(where, "where", None))


def _copied(x: Node, axes: Ints, where: Apply) -> Node:
    return apply_op(TABLE["copy"], (_permuted(x, axes, where),), {}, where.where)


def _padded(x: Node, padding: Pads, where: Apply) -> Node:
    if not any(low or high for low, high in padding):
        return x
    if isinstance(x, Apply) and isinstance(x.op.lower, Elementwise):
        x = apply_op(TABLE["copy"], (x,), {}, where.where)  # what computes x stores it into the middle as well
    low, high = zip((0, 0), *padding, (0, 0), strict=True)
    return apply_op(TABLE["pad"], (x,), {"low": low, "high": high, "interior": (0,) * x.type.ndim, "value": 0},
                    where.where)


# how the parameters of other ops follow the axes

def _same(value: Any, order: Ints) -> Any:
    return value


def _each(value: Any, order: Ints) -> Any:
    return tuple(value[a] for a in order)


AXES_OF: dict[str, dict[str, Callable[[Any, Ints], Any]]] = {
    "pad": {"low": _each, "high": _each, "interior": _each},
    "slice": {"starts": _each, "sizes": _each, "steps": _each},
    "flip": {"axes": lambda value, order: tuple(sorted(order.index(a) for a in value))},
    "concat": {"axis": lambda value, order: order.index(value)},
    "broadcast_to": {"shape": _each},
}
