"""Drop and replace ops that do nothing, or that another op does better."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphjit.errors import Where
from graphjit.ir import Apply, Const, Graph, Node, apply_op, rewrite
from graphjit.ir.verify import same_type
from graphjit.op import TABLE, Elementwise
from graphjit.types import Extent, Shape, is_float, is_one


def simplify(graph: Graph) -> Graph:
    """-(-x) is x; x * 1 and x / 1 are x; x ** 2 is square(x), x ** 3 a product; views that change
    nothing go, chains of views join; pools of one window are sums."""
    return rewrite(graph, _simplify)


def _simplify(node: Apply) -> Node:
    for rule in _RULES.get(node.op.name, _ELEMENTWISE if isinstance(node.op.lower, Elementwise) else ()):
        new = rule(node)
        if new is not node:
            return new
    return node


def same_shape(a: Shape, b: Shape) -> bool:
    """Equal, and with the same axes of length one by construction."""
    return a == b and all(is_one(n) == is_one(m) for n, m in zip(a, b, strict=True))


def _scalar_operands(node: Apply) -> Node:
    """An element-wise op takes a scalar constant itself instead of its broadcast."""
    if not isinstance(node.op.lower, Elementwise) or len(node.args) < 2:
        return node
    args = list(node.args)
    for i, a in enumerate(args):
        if isinstance(a, Apply) and a.op.name == "broadcast_to" and isinstance(a.args[0], Const) \
                and a.args[0].value.ndim == 0 \
                and any(same_shape(b.type.shape, node.type.shape) for j, b in enumerate(args) if j != i):
            args[i] = a.args[0]
    if all(a is b for a, b in zip(args, node.args, strict=True)):
        return node
    return _simplify(Apply(node.op, tuple(args), node.params, node.type, node.where))


def _identity(node: Apply) -> Node:
    """Casts to the same dtype, views to the same shape, identity and double negation."""
    if not node.args:
        return node
    x = node.args[0]
    match node.op.name:
        case "identity":
            return x
        case "cast" if x.type.dtype == node.type.dtype and not x.type.weak:
            return x
        case "reshape" | "broadcast_to" | "slice" | "pad" if same_shape(x.type.shape, node.type.shape):
            return x
        case "permute_dims" if node.kwargs["axes"] == tuple(range(x.type.ndim)):
            return x
        case "neg" | "bitwise_not" | "flip" if isinstance(x, Apply) and x.op is node.op and x.params == node.params:
            return x.args[0]
        case "concat" if len(node.args) == 1:
            return x
        case _:
            return node


def _is(node: Node, value: float) -> bool:
    return (isinstance(node, Const) and not node.opaque and node.value.ndim == 0 and bool(node.value == value)
            and not (value == 0 and np.signbit(node.value.astype(float))))


def _neutral(node: Apply) -> Node:
    """x * 1, 1 * x, x / 1 and x - 0."""
    if node.op.name not in ("mul", "div", "sub"):
        return node
    x, y = node.args
    neutral = 0.0 if node.op.name == "sub" else 1.0
    if _is(y, neutral) and same_type(x.type, node.type) and same_shape(x.type.shape, node.type.shape):
        return x
    if node.op.name == "mul" and _is(x, 1.0) and same_type(y.type, node.type) \
            and same_shape(y.type.shape, node.type.shape):
        return y
    return node


def _chosen(node: Apply) -> Node:
    """where(True, x, y) is x."""
    condition, *branches = node.args
    if isinstance(condition, Const) and not condition.opaque and condition.value.ndim == 0:
        x = branches[not condition.value]
        if same_type(x.type, node.type) and same_shape(x.type.shape, node.type.shape):
            return x
    return node


def _power(node: Apply) -> Node:
    """Powers with a small constant exponent."""
    if node.op.name != "pow" or node.type.dtype.kind != "f" or not same_shape(node.args[0].type.shape,
                                                                             node.type.shape):
        return node
    x, y = node.args
    # NumPy takes these ways too; x ** -0.5 is left to pow, which differs from rsqrt at -0.0 and -inf
    for exponent, name in ((2.0, "square"), (0.5, "sqrt"), (-1.0, "reciprocal")):
        if _is(y, exponent):
            return apply_op(TABLE[name], (x,), {}, node.where)
    if _is(y, 1.0):
        return x
    for n in (-3, -2, 3, 4, 5, 6):  # few enough factors that they are about as exact as pow
        if _is(y, n):
            return _product(x if n > 0 else apply_op(TABLE["reciprocal"], (x,), {}, node.where), abs(n), node.where)
    return node


def _product(x: Node, n: int, where: Where | None) -> Node:
    """n factors x, by squares."""
    if n == 1:
        return x
    squared = apply_op(TABLE["square"], (_product(x, n // 2, where),), {}, where)
    return squared if n % 2 == 0 else apply_op(TABLE["mul"], (squared, x), {}, where)


def _join_views(node: Apply) -> Node:
    """A reshape of a reshape, a permutation of a permutation."""
    x = node.args[0] if node.args else None
    if not isinstance(x, Apply) or x.op is not node.op:
        return node
    match node.op.name:
        case "reshape":
            return _identity(Apply(node.op, x.args, node.params, node.type, node.where))
        case "permute_dims":
            outer, inner = node.kwargs["axes"], x.kwargs["axes"]
            axes = tuple(inner[a] for a in outer)
            return _identity(Apply(node.op, x.args, (("axes", axes),), node.type, node.where))
        case "broadcast_to" if not any(isinstance(n, Extent) and n == 1 and not isinstance(m, Extent) for n, m in zip(
                x.type.shape, node.type.shape[node.type.ndim - x.type.ndim:], strict=True)):
            return Apply(node.op, x.args, node.params, node.type, node.where)
        case _:
            return node


def _join_pads(node: Apply) -> Node:
    """A sum of arrays that are zero but for neighbouring regions, the gradient of slices, is one concatenation."""
    x, y = node.args
    new = _beside(x, y) or _beside(y, x)
    for total, pad in () if new is not None else ((x, y), (y, x)):
        if isinstance(total, Apply) and total.op is node.op:  # (a + b) + pad is a + (b + pad): no digit is lost
            for a, b in (total.args, total.args[::-1]):
                inner = _beside(b, pad) or _beside(pad, b)
                if inner is not None and same_type(inner.type, pad.type):
                    new = Apply(node.op, (a, inner), node.params, node.type, node.where)
    if new is not None and same_type(new.type, node.type) and same_shape(new.type.shape, node.type.shape):
        return new
    return node


def _beside(x: Node, y: Node) -> Node | None:
    """The sum of two zero-padded arrays whose insides are neighbours along an axis, x's first."""
    first, second = _inside(x), _inside(y)
    if first is None or second is None or x.type.shape != y.type.shape:
        return None
    (before, axis, start, stop), (after, other, begin, end) = first, second
    if axis != other or stop != begin:
        return None
    parts: list[Node] = []
    for inner in (before, after):
        together = isinstance(inner, Apply) and inner.op.name == "concat" and inner.kwargs["axis"] == axis
        parts += inner.args if isinstance(inner, Apply) and together else [inner]
    where = y.where if isinstance(y, Apply) else None
    joined = apply_op(TABLE["concat"], tuple(parts), {"axis": axis}, where)
    none = (0,) * x.type.ndim
    low, high = list(none), list(none)
    low[axis], high[axis] = start, x.type.shape[axis] - end
    return _identity(apply_op(TABLE["pad"], (joined,), {
        "low": tuple(low), "high": tuple(high), "interior": none, "value": 0}, where))


def _inside(node: Node) -> tuple[Node, int, int, int] | None:
    """What an array padded with zeros along one axis holds: it, the axis, where it starts and stops."""
    if not isinstance(node, Apply) or node.op.name != "pad" or node.kwargs["value"] != 0 \
            or any(node.kwargs["interior"]):
        return None
    low, high = node.kwargs["low"], node.kwargs["high"]
    axes = [i for i in range(node.type.ndim) if low[i] or high[i]]
    if len(axes) != 1:
        return None
    (axis,) = axes
    return node.args[0], axis, low[axis], low[axis] + node.args[0].type.shape[axis]


def _to_nothing(node: Apply) -> Node:
    """What is added to zeros, which need not be stored first."""
    x, places, rows = node.args
    zero = x.args[0] if isinstance(x, Apply) and x.op.name == "broadcast_to" else x
    if not is_float(node.type.dtype) or scalar_value(zero) != 0:
        return node
    how = {"axis": node.kwargs["axis"], "size": x.type.shape[node.kwargs["axis"]]}
    new = apply_op(TABLE["take_grad"], (places, rows), how, node.where)
    return new if same_type(new.type, node.type) and same_shape(new.type.shape, node.type.shape) else node


def _whole(node: Apply) -> Node:
    """A pool of one window that is all there is, and its gradient: a sum and a broadcast, which fuse."""
    x, how = node.args[0], node.kwargs
    size = how["size"] if "size" in how else x.type.shape[2:]
    if how["kernel"] != tuple(size) or any(map(any, how["padding"])) or not is_float(node.type.dtype) \
            or any(isinstance(n, Extent) for n in size):
        return node
    if "size" in how:
        return apply_op(TABLE["broadcast_to"], (x,), {"shape": node.type.shape}, node.where)
    return apply_op(TABLE["sum"], (x,), {"axis": tuple(range(2, x.type.ndim)), "keepdims": True}, node.where)


Rule = Callable[[Apply], Node]
_ELEMENTWISE: tuple[Rule, ...] = (_scalar_operands,)
_RULES: dict[str, tuple[Rule, ...]] = {
    **dict.fromkeys(("identity", "cast", "slice", "pad", "neg", "bitwise_not", "flip", "concat"),
                    (_scalar_operands, _identity)),
    **dict.fromkeys(("reshape", "broadcast_to", "permute_dims"), (_identity, _join_views)),
    **dict.fromkeys(("mul", "div", "sub"), (_scalar_operands, _neutral)),
    "scatter_add": (_to_nothing,),
    "pow": (_scalar_operands, _power),
    "where": (_scalar_operands, _chosen),
    "add": (_scalar_operands, _join_pads),
    **dict.fromkeys(("sum_pool", "sum_pool_grad"), (_whole,)),
}


def scalar_value(node: Node) -> float | None:
    """The number a scalar constant holds, None for anything else (opaque ones too)."""
    if isinstance(node, Const) and not node.opaque and node.value.ndim == 0:
        return float(np.asarray(node.value))
    return None
