"""Convolutions with the channels last, and all between them kept so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphjit.ir import Apply, Graph, Node, apply_op, users
from graphjit.op import TABLE, Elementwise, Library, Reduction
from graphjit.ops.channels_last import CONTRACT, INPUT_GRAD, POOLS, WINDOWS, border, to_first, to_last
from graphjit.ops.windows import Ints, Pads
from graphjit.passes import depthwise, interleaved, unfolded
from graphjit.passes.build import permuted, reshaped
from graphjit.passes.depthwise import is_depthwise
from graphjit.passes.simplify import same_shape
from graphjit.passes.unfolded import unfolds
from graphjit.types import DType, Extent, Shape, is_float, is_one

CONVOLUTIONS = ("conv", "conv_input_grad", "conv_weight_grad")
RANKS = (1, 2)
CHANNELS = 8  # that are worth a loop along them
LATENCY = 4  # cycles from a multiply-add to the next that adds to its sum


def channels_last(graph: Graph) -> Graph:
    """Convolutions as products of windows whose channels lie last; what they feed is computed in that order too, and so
    are pools that gain more by it than turning their operands takes."""
    if not any(isinstance(n, Apply) and (_rewrites(n) or _turns(n)) for n in graph.nodes):
        return graph
    return _Rewriter().run(graph)


def _rewrites(node: Apply) -> bool:
    """Whether a node is a convolution that is computed with the channels last."""
    return (node.op.name in CONVOLUTIONS and (node.kwargs["groups"] == 1 or is_depthwise(node))
            and is_float(node.type.dtype) and len(node.kwargs["stride"]) in RANKS and 0 not in node.type.shape
            and all(0 not in a.type.shape for a in node.args))


def _is_product(node: Apply) -> bool:
    """Whether it becomes a matrix product."""
    return _rewrites(node) and not is_depthwise(node)


def _turns(node: Apply) -> bool:
    """Whether a pool is best computed along channels wherever they lie: windows overlap, or it looks for the largest
    again."""
    if node.op not in POOLS or len(node.kwargs["stride"]) not in RANKS or node.type.shape[1] < CHANNELS \
            or 0 in node.type.shape or not is_float(node.type.dtype):
        return False
    overlap = any(k > s for k, s in zip(node.kwargs["kernel"], node.kwargs["stride"], strict=True))
    return overlap or node.op.name == "max_pool_grad"


class _Rewriter:
    """Each node of the old graph has a new one in its own order, one with the channels last, or both."""

    def __init__(self) -> None:
        self.plain: dict[Node, Node] = {}
        self.last: dict[Node, Node] = {}
        self.wide: dict[tuple[Node, Pads], Node] = {}  # with the channels last and zeros around

    def run(self, graph: Graph) -> Graph:
        self.readers = {n: len(found) + graph.outputs.count(n) for n, found in users(graph).items()}
        self.onward = {n.args[0]: n for n in graph.nodes
                       if isinstance(n, Apply) and n.op.name == "conv_input_grad" and _is_product(n)
                       and not unfolds(n)}
        self.cotangents = {n.args[0] for n in graph.nodes
                           if isinstance(n, Apply) and n.op.name in CONVOLUTIONS[1:] and _rewrites(n)}
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
            self.plain[node] = permuted(self.last[node], to_first(node.type.ndim), node)
        return self.plain[node]

    def channels_last(self, node: Node, channels: int | None = None) -> Node:
        """With the channels last. ``channels`` is their number where a convolution knows it from its weight: there it
        is part of the model, while the operand's may be the caller's choice."""
        if node not in self.last:
            x = self.plain[node]
            if channels is not None and isinstance(x.type.shape[1], Extent) and not isinstance(channels, Extent):
                shape = (x.type.shape[0], channels, *x.type.shape[2:])
                x = apply_op(TABLE["reshape"], (x,), {"shape": shape}, getattr(node, "where", None))
            self.last[node] = permuted(x, to_last(node.type.ndim), node)
        return self.last[node]

    # ---- rules: the new node with the channels last, or None

    def rewritten(self, node: Apply) -> Node | None:
        if node.op.name in CONVOLUTIONS:
            if not _rewrites(node):
                return None
            return self.depthwise(node) if is_depthwise(node) else getattr(self, node.op.name)(node, **node.kwargs)
        if isinstance(node.op.lower, Reduction) and node.args[0] in self.cotangents:
            return self.reduction(node)
        if not any(a in self.last and self.came_last(a) for a in node.args) and not _turns(node):
            return None
        match node.op.lower:
            case Elementwise():
                return self.elementwise(node)
            case Reduction():
                return self.reduction(node)
        if node.op in POOLS:
            args = [self.channels_last(a) for a in node.args]
            return apply_op(POOLS[node.op], args, node.kwargs, node.where)
        if node.op.name == "reshape":
            return self.reshaped(node)
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
        for rule in (self.biased, self.rectified):
            if (fused := rule(node)) is not None:
                return fused
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
                args.append(permuted(x, to_last(ndim), node))
            else:
                args.append(self.channels_last(x))
        shape = tuple(node.type.shape[i] for i in to_last(ndim))
        return Apply(node.op, tuple(args), node.params, node.type.with_shape(shape), node.where)

    def biased(self, node: Apply) -> Node | None:
        """The sum of a convolution that nothing else reads and one number for each channel, as one product."""
        if node.op.name != "add":
            return None
        for conv, bias in (node.args, node.args[::-1]):
            if (isinstance(conv, Apply) and conv.op.name == "conv" and _is_product(conv) and self.readers[conv] == 1
                    and bias.type.dtype == conv.type.dtype and _of_channels(bias.type.shape, conv.type.shape)
                    and same_shape(node.type.shape, conv.type.shape)):
                return self.conv(conv, **conv.kwargs, bias=bias)
        return None

    def rectified(self, node: Apply) -> Node | None:
        """relu of such a sum that nothing else reads, as one product too."""
        if node.op.name != "relu" or self.readers[node.args[0]] != 1:
            return None
        x = self.last[node.args[0]]
        if (fused := unfolded.rectified(x, node)) is not None:
            return fused
        if not (isinstance(x, Apply) and x.op is CONTRACT and len(x.args) == 3):
            return None
        return apply_op(CONTRACT, x.args, {**x.kwargs, "relu": True}, node.where)

    def reshaped(self, node: Apply) -> Node | None:
        """What only parts axes of places, or joins them, as a larger image is made, does so before the channels too."""
        (x,), shape = node.args, node.type.shape
        if min(len(shape), x.type.ndim) < 3 or not same_shape(x.type.shape[:2], shape[:2]):
            return None
        return reshaped(self.channels_last(x), (shape[0], *shape[2:], shape[1]), node)

    def reduction(self, node: Apply) -> Node | None:
        (x,) = node.args
        order = to_last(x.type.ndim)
        axes = tuple(sorted(order.index(a) for a in node.kwargs["axis"]))
        out = apply_op(node.op, (self.channels_last(x),), {**node.kwargs, "axis": axes}, node.where)
        if node.kwargs["keepdims"] or (node.type.ndim > 2 and not {0, 1} & set(node.kwargs["axis"])):
            return out
        left = [a for a in order if a not in node.kwargs["axis"]]
        self.plain[node] = permuted(out, tuple(left.index(a) for a in sorted(left)), node)
        return None

    # ---- convolutions

    def depthwise(self, node: Apply) -> Node | None:
        a, b = node.args
        match node.op.name:
            case "conv":
                return depthwise.forward(self.with_border(a, b.type.shape[0], node), self.in_order(b), node)
            case "conv_input_grad":
                return depthwise.input_gradient(self.channels_last(a, b.type.shape[0]), self.in_order(b), node)
        o = node.type.shape[0]
        self.plain[node] = depthwise.weight_gradient(self.with_border(b, o, node), self.channels_last(a, o), node)
        return None

    def with_border(self, x: Node, channels: int, where: Apply) -> Node:
        """x with the channels last and zeros around, one for all that read it so."""
        padding = where.kwargs["padding"]
        inner = self.channels_last(x, channels)
        at = self.wide.get((x, padding))
        if at is None:
            at = self.wide[x, padding] = _padded(inner, padding, where)
            if at is not inner and isinstance(inner, Apply) and isinstance(inner.op.lower, Library):
                self.last[x] = _inside(at, inner, padding, where)  # it need not lie anywhere else
        return at

    def windows(self, x: Node, channels: int, kernel: Ints, stride: Ints, dilation: Ints, where: Apply) -> Node:
        """The windows (N, *places, *kernel, C) of x, a view."""
        at = self.with_border(x, channels, where)
        return apply_op(WINDOWS, (at,), {"kernel": kernel, "stride": stride, "dilation": dilation}, where.where)

    def conv(self, node: Apply, stride: Ints, padding: Pads, dilation: Ints, groups: int,
             bias: Node | None = None) -> Node:
        x, w = node.args
        rank = len(stride)
        taps = self.windows(x, w.type.shape[1], w.type.shape[2:], stride, dilation, node)
        flat = None if bias is None else reshaped(self.in_order(bias), w.type.shape[:1], node)
        if unfolds(node):
            return unfolded.product(taps, self.in_order(w), flat, node)
        weight = _copied(self.in_order(w), (*range(2, 2 + rank), 1, 0), node)
        args = [taps, weight] if flat is None else [taps, weight, flat]
        return apply_op(CONTRACT, args, {"axes": rank + 1, "leading": False}, node.where)

    def conv_weight_grad(self, node: Apply, kernel: Ints, stride: Ints, padding: Pads, dilation: Ints,
                         groups: int) -> None:
        g, x = node.args
        rank, (o, c) = len(stride), node.type.shape[:2]
        if unfolds(node):
            taps = self.windows(x, c, kernel, stride, dilation, node)
            self.plain[node] = unfolded.weight_gradient(taps, self.channels_last(g, o), node)
            return
        # where the gradient by the input reads the cotangent with a border, there need be no other of it
        onward = self.onward.get(g)
        cotangent = self.bordered(onward, interleaved.form(onward))[1] if onward else self.channels_last(g, o)
        places, apart, last = int(g.type.shape[-1]), stride[-1], int(kernel[-1])
        f = neighbours(int(o), int(c), last, apart, places, node.type.dtype) if dilation[-1] == 1 else 1
        wide = (*kernel[:-1], last + apart * (f - 1))
        taps = self.windows(x, c, wide, (*stride[:-1], apart * f), dilation, node)
        if f > 1:
            cotangent = reshaped(cotangent, (*taps.type.shape[:rank + 1], f * o), node)
        out: Node = apply_op(CONTRACT, (taps, cotangent), {"axes": rank + 1, "leading": True}, node.where)
        if f > 1:
            shape = (*kernel, c, o)
            each = reshaped(out, (*wide, c, f, o), node)
            out, *more = (reshaped(apply_op(TABLE["slice"], (each,), {
                "starts": (*(0,) * (rank - 1), apart * p, 0, p, 0), "sizes": (*kernel, c, 1, o),
                "steps": (1,) * (rank + 3)}, node.where), shape, node) for p in range(f))
            for part in more:
                out = apply_op(TABLE["add"], (out, part), {}, node.where)
        self.plain[node] = permuted(out, (rank + 1, rank, *range(rank)), node)

    def bordered(self, node: Apply, axes: Sequence[interleaved.Axis]) -> tuple[Node, Node, Pads]:
        """The cotangent that a gradient by the input reads, with zeros around it, what lies inside, and how many."""
        g, w = node.args
        around = tuple(border(int(a.size), int(m), int(a.kernel), a.stride, a.padding[0], d) for a, m, d in
                       zip(axes, g.type.shape[2:], node.kwargs["dilation"], strict=True))
        wide = self.wide.get((g, around))
        if wide is None:
            wide = self.wide[g, around] = _padded(self.channels_last(g, w.type.shape[0]), around, node)
        return wide, _inside(wide, self.channels_last(g, w.type.shape[0]), around, node), around

    def conv_input_grad(self, node: Apply, size: Ints, stride: Ints, padding: Pads, dilation: Ints,
                        groups: int) -> Node:
        g, w = node.args
        if unfolds(node):
            return unfolded.input_gradient(self.channels_last(g, w.type.shape[0]), self.in_order(w), size, node)
        axes = interleaved.form(node)
        wide, _, around = self.bordered(node, axes)
        out = apply_op(INPUT_GRAD, (wide, interleaved.weight(self.in_order(w), axes, node)), {
            "size": tuple([a.size for a in axes]), "places": g.type.shape[2:],
            "stride": tuple([a.stride for a in axes]), "padding": tuple([a.padding for a in axes]),
            "dilation": dilation, "around": around}, node.where)
        return interleaved.in_turn(out, axes, node)


def neighbours(o: int, c: int, kernel: int, stride: int, places: int, dtype: DType) -> int:
    """How many places next to each other a weight's gradient best takes as one of as many times the channels.

    Few channels leave lanes idle, and few rows of the product leave multiply-adds waiting for the sum before. The price
    is a wider window, of whose products not all are wanted.
    """
    from graphjit.kernels.target import target
    lanes = target().lanes(dtype.itemsize)

    def cycles(f: int) -> float:
        return max(LATENCY, 0.5 * c * (kernel + stride * (f - 1)) * -(-o * f // lanes)) / f

    return min((f for f in range(1, 1 + max(1, 2 * lanes // o)) if places % f == 0), key=cycles, default=1)


def _of_channels(shape: Shape, whole: Shape) -> bool:
    """Whether an operand of this shape has one number for each channel of another of shape ``whole``."""
    full = (*(1,) * (len(whole) - len(shape)), *shape)
    return full[1] == whole[1] and all(is_one(n) for i, n in enumerate(full) if i != 1)


def _copied(x: Node, axes: Ints, where: Apply) -> Node:
    return apply_op(TABLE["copy"], (permuted(x, axes, where),), {}, where.where)


def _padded(x: Node, padding: Pads, where: Apply) -> Node:
    if not any(low or high for low, high in padding):
        return x
    if isinstance(x, Apply) and isinstance(x.op.lower, Elementwise):
        x = apply_op(TABLE["copy"], (x,), {}, where.where)  # what computes x stores it into the middle as well
    low, high = zip((0, 0), *padding, (0, 0), strict=True)
    return apply_op(TABLE["pad"], (x,), {"low": low, "high": high, "interior": (0,) * x.type.ndim, "value": 0},
                    where.where)


def _inside(wide: Node, x: Node, padding: Pads, where: Apply) -> Node:
    """x as a part of what it became with a border."""
    if wide is x:
        return x
    return apply_op(TABLE["slice"], (wide,), {"starts": (0, *(low for low, _ in padding), 0), "sizes": x.type.shape,
                                              "steps": (1,) * x.type.ndim}, where.where)


# how the parameters of other ops follow the axes

def _same(value: Any, order: Ints) -> Any:
    return value


def _each(value: Any, order: Ints) -> Any:
    return tuple(value[a] for a in order)


AXES_OF: dict[str, dict[str, Callable[[Any, Ints], Any]]] = {
    "pad": {"low": _each, "high": _each, "interior": _each},
    "slice": {"starts": _each, "sizes": _each, "steps": _each},
    "flip": {"axes": lambda value, order: tuple(sorted(order.index(a) for a in value))},
    "rolled": {"shifts": _each},
    "concat": {"axis": lambda value, order: order.index(value)},
    "broadcast_to": {"shape": _each},
}
