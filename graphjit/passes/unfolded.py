"""Convolutions as plain matrix products: windows are copied out, one row each, and weights read as they lie.

The kernels of windows want a weight by taps, in an order for each direction: copies that cost more than they are worth
where few places share many weights. There the windows are copied instead, once for both directions; and products of
rows fill tiles that a few places do not. A window of one element is a row as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from graphjit.ir import Apply, Node, apply_op
from graphjit.ops.channels_last import OVERLAP_ADD
from graphjit.ops.windows import Ints
from graphjit.passes.build import applied, permuted, reshaped
from graphjit.types import Shape

WEIGHTS = 1 << 13  # numbers for each place of an image, at least
POINTWISE = 1 << 12  # numbers at least, where a window is one element


def unfolds(node: Apply) -> bool:
    """Whether a convolution, or a gradient of one, is best so."""
    how, (a, b) = node.kwargs, node.args
    match node.op.name:
        case "conv":
            places, weight = node.type.shape[2:], b.type.shape
        case "conv_input_grad":
            places, weight = a.type.shape[2:], b.type.shape
        case _:
            places, weight = a.type.shape[2:], node.type.shape
    return reads_rows(weight, prod(places), _pointwise(weight, how))


def reads_rows(weight: Shape, places: int, pointwise: bool) -> bool:
    """Whether a weight (O, C, *kernel) of so many places an image is best read by rows, and its windows copied out."""
    return prod(weight) >= (POINTWISE if pointwise else WEIGHTS * places)


def _pointwise(weight: Shape, how: Mapping[str, Any]) -> bool:
    """Whether each window is one element, and there is one for each element."""
    return set(weight[2:]) == {1} and set(how["stride"]) == {1} and not any(map(any, how["padding"]))


def product(windows: Node, weight: Node, bias: Node | None, where: Apply) -> Node:
    """Of windows (N, *places, *kernel, C) and a weight (O, C, *kernel): (N, *places, O), plus a bias (O,)."""
    rank = weight.type.ndim - 2
    out = applied("matmul", where, _rows(windows, rank + 1, where), _swapped(_by_taps(weight, where), where))
    if bias is not None:
        out = applied("add", where, out, bias)
    return reshaped(out, (*windows.type.shape[:rank + 1], weight.type.shape[0]), where)


def rectified(node: Node, where: Apply) -> Node | None:
    """relu of such a product with a bias, if it is one."""
    if not isinstance(node, Apply) or node.op.name != "reshape":
        return None
    plus = node.args[0]
    if not isinstance(plus, Apply) or plus.op.name != "add" or plus.args[0].type.ndim != 2:
        return None
    return reshaped(applied("relu", where, plus), node.type.shape, where)


def weight_gradient(windows: Node, cotangent: Node, where: Apply) -> Node:
    """Of windows (N, *places, *kernel, C) and a cotangent (N, *places, O): (O, C, *kernel)."""
    rank = cotangent.type.ndim - 2
    taps, o = windows.type.shape[rank + 1:], cotangent.type.shape[-1]
    out = applied("matmul", where, _swapped(_rows(cotangent, rank + 1, where), where), _rows(windows, rank + 1, where))
    return permuted(reshaped(out, (o, *taps), where), (0, rank + 1, *range(1, rank + 1)), where)


def input_gradient(cotangent: Node, weight: Node, size: Ints, where: Apply) -> Node:
    """Of a cotangent (N, *places, O) and a weight (O, C, *kernel): (N, *size, C)."""
    rank, kernel = len(size), weight.type.shape[2:]
    out = applied("matmul", where, _rows(cotangent, rank + 1, where), _by_taps(weight, where))
    if _pointwise(weight.type.shape, where.kwargs):
        return reshaped(out, (*cotangent.type.shape[:rank + 1], weight.type.shape[1]), where)
    parts = reshaped(out, (*cotangent.type.shape[:rank + 1], *kernel, weight.type.shape[1]), where)
    how = {name: where.kwargs[name] for name in ("stride", "padding", "dilation")}
    return apply_op(OVERLAP_ADD, (parts,), {"size": size, "kernel": kernel, **how}, where.where)


def _by_taps(weight: Node, where: Apply) -> Node:
    """(O, C, *kernel) as (O, kernel * C)."""
    rank = weight.type.ndim - 2
    return _rows(permuted(weight, (0, *range(2, rank + 2), 1), where), 1, where)


def _rows(x: Node, axes: int, where: Apply) -> Node:
    """As a matrix with a row for each element of the first axes."""
    return reshaped(x, (prod(x.type.shape[:axes], start=1), prod(x.type.shape[axes:], start=1)), where)


def _swapped(x: Node, where: Apply) -> Node:
    return permuted(x, (1, 0), where)
