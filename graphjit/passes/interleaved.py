"""Gradients by the input of a convolution with a stride, and few channels: transposed convolutions to an image.

Neighbours along an axis come from different taps, `stride` kinds of them in turn. Each kind would be a product of its
own, with as few columns as there are channels. Side by side they are one with so many more columns, of stride 1;
windows reach a little farther, and weights are zero where a kind has no tap.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod

from graphjit.ir import Apply, Node, apply_op
from graphjit.kernels.target import target
from graphjit.op import TABLE
from graphjit.ops.channels_last import Phase, phases
from graphjit.ops.windows import Ints
from graphjit.passes.build import copied, permuted, reshaped


@dataclass(frozen=True, slots=True)
class Axis:
    """Along one axis, the convolution whose gradient is computed: as it is, or of several ``kinds`` of neighbours."""

    size: int
    kernel: int
    stride: int
    padding: tuple[int, int]
    kinds: tuple[Phase, ...] = ()
    start: int = 0  # the first place that any kind reads, from the one of its own number on


def form(node: Apply) -> list[Axis]:
    """How a gradient by an input is best computed: of kinds where their channels fit a vector, innermost axes first."""
    g, w = node.args
    how, room = node.kwargs, target().lanes(node.type.dtype.itemsize) // int(w.type.shape[1])
    found: list[Axis] = []
    for i in reversed(range(len(how["size"]))):
        axis = Axis(how["size"][i], w.type.shape[2 + i], how["stride"][i], how["padding"][i])
        if how["dilation"][i] == 1 and 1 < axis.stride <= room:
            axis = _of_kinds(axis, int(g.type.shape[2 + i]))
            room //= max(1, len(axis.kinds))
        found.append(axis)
    return found[::-1]


def _of_kinds(axis: Axis, places: int) -> Axis:
    n, s = axis.size, axis.stride
    if n % s or n < s:
        return axis
    kinds = _kinds(int(n), int(axis.kernel), s, axis.padding[0])
    start = min(kind.place for kind in kinds)
    wide = max(kind.place + kind.taps for kind in kinds) - start
    before, rows = start + wide - 1, n // s
    if before < 0 or not all(kind.taps for kind in kinds):
        return axis
    return Axis(rows, wide, 1, (before, max(0, places + wide - 1 - int(rows) - before)), kinds, start)


@cache
def _kinds(n: int, kernel: int, stride: int, low: int) -> tuple[Phase, ...]:
    return tuple(phases(n, kernel, stride, low, 1))


def weight(w: Node, axes: list[Axis], where: Apply) -> Node:
    """The weight (*kernel, O, kinds x C) of that convolution."""
    rank, (o, c) = len(axes), w.type.shape[:2]
    turned = permuted(w, (*range(2, 2 + rank), 0, 1), where)
    parts = [_of_one(turned, axes, kinds, where) for kinds in product(*[axis.kinds or (None,) for axis in axes])]
    if len(parts) == 1:
        return copied(turned, where)
    shape = *[axis.kernel for axis in axes], o
    one_by_one = [reshaped(part, (*shape, 1, c), where) for part in parts]
    side_by_side = apply_op(TABLE["concat"], one_by_one, {"axis": rank + 1}, where.where)
    return reshaped(side_by_side, (*shape, len(parts) * c), where)


def _of_one(w: Node, axes: list[Axis], kinds: tuple[Phase | None, ...], where: Apply) -> Node:
    """The taps of one kind of neighbours, and zeros around them."""
    starts, low, high = ([0] * w.type.ndim for _ in range(3))
    sizes, steps = list(w.type.shape), [1] * w.type.ndim
    for i, (axis, kind) in enumerate(zip(axes, kinds, strict=True)):
        if kind is not None:
            steps[i], sizes[i] = where.kwargs["stride"][i], kind.taps
            starts[i] = kind.tap - steps[i] * (kind.taps - 1)
            high[i] = kind.place - axis.start
            low[i] = axis.kernel - high[i] - kind.taps
    taps = apply_op(TABLE["slice"], (w,), {
        "starts": tuple(starts), "sizes": tuple(sizes), "steps": tuple(steps)}, where.where)
    if not any(low) and not any(high):
        return taps
    return apply_op(TABLE["pad"], (taps,), {
        "low": tuple(low), "high": tuple(high), "interior": (0,) * w.type.ndim, "value": 0}, where.where)


def in_turn(out: Node, axes: list[Axis], node: Apply) -> Node:
    """Neighbours of all kinds where they belong, of a result that has them beside each other."""
    counts = [max(1, len(axis.kinds)) for axis in axes]
    if prod(counts) == 1:
        return out
    n, c = node.type.shape[:2]
    rank = len(axes)
    each = reshaped(out, (n, *[axis.size for axis in axes], *counts, c), node)
    order: Ints = (0, *[k for i in range(1, rank + 1) for k in (i, rank + i)], 2 * rank + 1)
    return reshaped(permuted(each, order, node), (n, *node.type.shape[2:], c), node)
