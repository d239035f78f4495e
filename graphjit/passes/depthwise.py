"""Convolutions of each channel by itself: with the channels last, sums of shifted products that loops fuse.

There is nothing to multiply matrices with: an output is as many products as a window has taps. As elementwise ops
they run along the channels, and with what comes before and behind.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from math import prod

import numpy as np

from graphjit.ir import Apply, Const, Node, apply_op
from graphjit.op import TABLE
from graphjit.ops.channels_last import Phase, border, phases, to_last
from graphjit.ops.windows import Ints
from graphjit.passes.build import applied, copied, permuted, reshaped
from graphjit.types import Shape

MOST = 25  # taps of a window that stand in a loop's source, and parts of a gradient
CHANNELS = 8  # that are worth a loop along them


def is_depthwise(node: Apply) -> bool:
    """Whether a convolution, or a gradient of one, has a window of few taps for each channel."""
    weight = node.type.shape if node.op.name == "conv_weight_grad" else node.args[1].type.shape
    return (node.kwargs["groups"] == weight[0] >= CHANNELS and weight[1] == 1
            and max(prod(weight[2:]), prod(node.kwargs["stride"])) <= MOST)


def forward(wide: Node, weight: Node, where: Apply) -> Node:
    """Of x (N, *sizes, C) with its border and a weight (C, 1, *kernel): (N, *places, C)."""
    how, kernel = where.kwargs, weight.type.shape[2:]
    shape = _last(where.type.shape)
    taps = [_part(wide, tuple(t * d for t, d in zip(tap, how["dilation"], strict=True)), shape, how["stride"], where)
            for tap in _taps(kernel)]
    return _sum([applied("mul", where, x, w) for x, w in zip(taps, _by_taps(weight, where), strict=True)], where)


def input_gradient(cotangent: Node, weight: Node, where: Apply) -> Node:
    """Of a cotangent (N, *places, C): (N, *size, C), a part for each rest of a place by the stride, side by side."""
    how, kernel, shape = where.kwargs, weight.type.shape[2:], cotangent.type.shape
    lengths = [-(-n // s) for n, s in zip(how["size"], how["stride"], strict=True)]
    axes = [(n * s, k, s, low, d) for n, k, s, (low, _), d in zip(lengths, kernel, how["stride"], how["padding"],
                                                                how["dilation"], strict=True)]
    around = [border(n, int(m), k, s, low, d) for m, (n, k, s, low, d) in zip(shape[1:-1], axes, strict=True)]
    low, high = zip((0, 0), *around, (0, 0), strict=True)
    wide = cotangent
    if any((*low, *high)):
        wide = apply_op(TABLE["pad"], (cotangent,), {"low": low, "high": high, "interior": (0,) * len(shape),
                                                     "value": 0}, where.where)
    weights = dict(zip(_taps(kernel), _by_taps(weight, where), strict=True))
    part = (shape[0], *lengths, shape[-1])

    def of(found: Sequence[Phase]) -> Node:
        terms = []
        for steps in _taps(tuple(p.taps for p in found)):
            tap = tuple(p.tap - i * p.tap_step for p, i in zip(found, steps, strict=True))
            start = tuple(before + p.place + i * p.place_step
                          for p, i, (before, _) in zip(found, steps, around, strict=True))
            terms.append(applied("mul", where, _part(wide, start, part, (1,) * len(kernel), where), weights[tap]))
        if terms:
            return _sum(terms, where)
        zero = Const(np.zeros((), where.type.dtype))
        return apply_op(TABLE["broadcast_to"], (zero,), {"shape": part}, where.where)

    out = _side_by_side([phases(*axis) for axis in axes], of, part, where)
    if tuple(n for n, *_ in axes) == tuple(how["size"]):
        return out
    return _part(out, (0,) * len(kernel), _last(where.type.shape), (1,) * len(kernel), where)


def _side_by_side(axes: Sequence[Sequence[Phase]], of: Callable[[Sequence[Phase]], Node], part: Shape,
                  where: Apply) -> Node:
    """Parts (N, *lengths, C), one for each choice of a phase of each axis, whose elements take turns along the axes."""
    if all(len(axis) == 1 for axis in axes):
        return of([axis[0] for axis in axes])
    apart = (part[0], *(n for length in part[1:-1] for n in (length, 1)), part[-1])

    def along(i: int, chosen: tuple[Phase, ...]) -> Node:
        if i == len(axes):
            return reshaped(of(chosen), apart, where)
        return apply_op(TABLE["concat"], [along(i + 1, (*chosen, p)) for p in axes[i]], {"axis": 2 + 2 * i},
                        where.where)

    sizes = (length * len(axis) for length, axis in zip(part[1:-1], axes, strict=True))
    return reshaped(along(0, ()), (part[0], *sizes, part[-1]), where)


def weight_gradient(wide: Node, cotangent: Node, where: Apply) -> Node:
    """Of x (N, *sizes, C) with its border and a cotangent (N, *places, C): (C, 1, *kernel)."""
    how, kernel, shape = where.kwargs, where.type.shape[2:], cotangent.type.shape
    parts: list[Node] = []
    for tap in _taps(kernel):
        start = tuple(t * d for t, d in zip(tap, how["dilation"], strict=True))
        x = _part(wide, start, shape, how["stride"], where)
        total = apply_op(TABLE["sum"], (applied("mul", where, x, cotangent),),
                         {"axis": tuple(range(len(shape) - 1)), "keepdims": False}, where.where)
        parts.append(reshaped(total, (1, shape[-1]), where))
    out = apply_op(TABLE["concat"], parts, {"axis": 0}, where.where)
    rank = len(kernel)
    return permuted(reshaped(out, (*kernel, 1, shape[-1]), where), (rank + 1, rank, *range(rank)), where)


def _taps(kernel: Ints) -> Iterator[Ints]:
    return itertools.product(*map(range, kernel))


def _by_taps(weight: Node, where: Apply) -> list[Node]:
    """For each tap its weights (1, ..., C)."""
    rank, c = weight.type.ndim - 2, weight.type.shape[0]
    turned = copied(permuted(weight, (*range(2, rank + 2), 1, 0), where), where)
    rows = reshaped(turned, (prod(weight.type.shape[2:]), c), where)
    return [reshaped(apply_op(TABLE["slice"], (rows,), {"starts": (i, 0), "sizes": (1, c), "steps": (1, 1)},
                              where.where), (*(1,) * (rank + 1), c), where) for i in range(rows.type.shape[0])]


def _part(x: Node, start: Ints, shape: Shape, steps: Ints, where: Apply) -> Node:
    """From an element of the spatial axes on, as many as ``shape`` tells, so far apart."""
    return apply_op(TABLE["slice"], (x,), {"starts": (0, *start, 0), "sizes": shape, "steps": (1, *steps, 1)},
                    where.where)


def _last(shape: Shape) -> Shape:
    return tuple(shape[a] for a in to_last(len(shape)))


def _sum(terms: list[Node], where: Apply) -> Node:
    return reduce(lambda a, b: applied("add", where, a, b), terms)
