"""Products over several axes, and what convolutions are made of them: axes sorted into batch, rows and segments."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from graphjit.codegen.access import Place
from graphjit.codegen.call import Address, KernelCall, Scratch, Slot
from graphjit.ir import Apply, Node
from graphjit.kernels.problem import Axis, Windows
from graphjit.ops.channels_last import phases
from graphjit.passes.layout import base_layout
from graphjit.types import DType, contiguous_strides

if TYPE_CHECKING:
    from graphjit.runtime.compiler import IRKernel

SMALL = 1 << 15  # numbers of B that stay in the cache while all rows of A pass
LONG = 7  # rows, or steps of the sum, that fill a register tile well enough
PARTS = 4, 6, 5, 8, 7, 3, 2  # into how many parts, added up at the end, a long sum is cut, the best first
WORK = 1 << 19  # fewest multiply-adds of a product whose sum is cut
LANES = 16
MANY = 16  # channels that keep the tile unit busy
CHAINS, CHAINS_OF_PLACES = 56, 50  # operations in a cycle of a product over segments whose vectors are full
WORTH = 0.9  # of such a product's time, at most, is what goes to the tile unit


def contract_calls(node: Apply, place: Place | None = None) -> list[KernelCall]:
    """sum over summed axes of A[kept, summed] B[summed, n], plus bias[n] if there is one, stored as C[kept, n]."""
    from graphjit.kernels.parts import adding_kernel
    a, b, *bias = node.args
    _, at = base_layout(a)
    axes, leading = node.kwargs["axes"], bool(node.kwargs["leading"])
    pairs = list(zip(at.shape, at.strides, strict=True))
    split = axes if leading else len(pairs) - axes
    inner, outer = (pairs[:split], pairs[split:]) if leading else (pairs[split:], pairs[:split])
    place = place or _own(node)
    b_strides, c_strides = base_layout(b)[1].strides, place.strides
    kept = [Axis(int(n), s, c) for (n, s), c in zip(outer, c_strides, strict=False)]
    summed = [Axis(int(n), s, r) for (n, s), r in zip(inner, b_strides, strict=False)]
    parts = _parts(node, kept, summed) if leading and place == _own(node) else 1
    if parts == 1:
        call = _product(node, place, a, b, kept, summed, 0, 0, 0, bias)
        call.also += (adding_kernel(node.type.dtype),) if leading else ()
        return [call]
    room = Scratch(parts * node.type.nbytes, common=True)
    each = _of_one_part(summed, parts)
    steps = Axis(parts, *(each[0].length * stride for stride in each[0][1:]))
    return [_product(node, place, a, b, kept, each, 0, 0, 0, parts=(steps, room)), adding(node, room, parts)]


def adding(node: Apply, room: Scratch, parts: int) -> KernelCall:
    """Adds up the parts of a sum, which lie one behind the other."""
    from graphjit.kernels.parts import adding_kernel
    size = node.type.size
    return KernelCall(adding_kernel(node.type.dtype), ("int64",) * 4, (Address(room), Address(node), parts, size),
                      size, reads=(), writes=(node,), title=f"add {parts} parts",
                      where=(node.where,) if node.where else (), flops=parts * size,
                      nbytes=(1 + parts) * node.type.nbytes, align=64, cost=0.05 * parts * node.type.nbytes)


def _parts(node: Apply, kept: Sequence[Axis], summed: Sequence[Axis]) -> int:
    """Into how many parts the sum of a gradient by a convolution's weight is cut, which is a small result of a sum over
    all that lies in memory. Threads share the parts, and each then reads what is its own. It follows from lengths
    alone, so that the result has the same bits on any number of threads."""
    from graphjit.kernels.segments import BATCH_DIMS
    kept = _merged(kept)
    m, n, size = kept[_inner(kept)], int(node.type.shape[-1]), node.type.size
    if size * prod(axis.length for axis in summed) < WORK or len(kept) > BATCH_DIMS:
        return 1
    # a part's result is written and read once more: that has to be little beside the operands
    read = sum(base_layout(a)[0].type.size for a in node.args)
    parts = next((p for p in PARTS if summed[0].length % p == 0 and p * size <= read // 4), 1)
    together = _sorted(m, _of_one_part(summed, parts), n, node.type.dtype)[2]
    return parts if together == 1 else 1


def _of_one_part(summed: Sequence[Axis], parts: int) -> list[Axis]:
    first, *others = summed
    return [Axis(first.length // parts, first.first, first.second), *others]


def input_grad_calls(node: Apply, place: Place | None = None) -> list[KernelCall]:
    """The gradient of a convolution by its input: for each phase a dense convolution of the cotangent."""
    g, w = node.args
    how = node.kwargs
    rank = len(how["size"])
    kernel, o = w.type.shape[:rank], w.type.shape[rank]
    by_axis = [phases(int(n), int(k), s, low, d) for n, k, s, (low, _), d in
               zip(how["size"], kernel, how["stride"], how["padding"], how["dilation"], strict=True)]
    place = place or _own(node)
    g_at, w_at, out_at = contiguous_strides(g.type.shape), contiguous_strides(w.type.shape), place.strides
    low = [low for low, _ in how["around"]]
    calls = []
    for combination in itertools.product(*by_axis):
        reached = all(p.taps for p in combination)
        kept = [Axis(int(g.type.shape[0]), g_at[0], out_at[0])]
        summed = [Axis(int(o) if reached else 0, 1, w_at[rank])]
        from_g = from_w = to = 0
        for i, p in enumerate(combination):
            kept.append(Axis(p.length, g_at[1 + i], out_at[1 + i] * how["stride"][i]))
            summed.insert(i, Axis(p.taps, g_at[1 + i] * p.place_step, -w_at[i] * p.tap_step))
            from_g += (low[i] + p.place) * g_at[1 + i] if reached else 0
            from_w += p.tap * w_at[i]
            to += p.first * out_at[1 + i]
        calls.append(_product(node, place, g, w, kept, summed, from_g, from_w, to))
    return calls


def _own(node: Apply) -> Place:
    return Place(node, 0, contiguous_strides(node.type.shape))


def _product(node: Apply, place: Place, a: Node, b: Node, kept: Sequence[Axis], summed: Sequence[Axis], from_a: int,
             from_b: int, to: int, bias: Sequence[Node] = (), parts: tuple[Axis, Scratch] | None = None) -> KernelCall:
    """One kernel call; offsets are in elements, A's and B's on top of where their views begin, C's of its place.

    ``parts``: compute parts of the sum one by one, as far apart in A and B as the axis says, into this memory.
    """
    from graphjit.kernels.gemm import CYCLE, plan
    from graphjit.kernels.segments import plan_segments
    from graphjit.runtime.threads import get_num_threads
    (a_base, a_at), (b_base, b_at) = base_layout(a), base_layout(b)
    dtype, n, relu = node.type.dtype, int(node.type.shape[-1]), bool(node.kwargs.get("relu"))
    leading, given = bool(node.kwargs.get("leading")), (kept, summed)
    kept = _merged(kept)
    rows = _inner(kept)
    m, batch = kept[rows], _without(kept, rows)
    k, segments, together = _sorted(m, summed, n, dtype)
    lengths, a_batch, c_batch = _columns(batch)
    b_batch, result = (0,) * len(batch), Address(place.buffer, (place.offset + to) * dtype.itemsize)
    if parts is not None:
        steps, room = parts
        lengths, a_batch, c_batch = (steps.length, *lengths), (steps.first, *a_batch), (node.type.size, *c_batch)
        b_batch, result = (steps.second, *b_batch), Address(room)
    if segments or (bias and k.length * n <= SMALL):
        found = plan_segments(m.length, n, k.length, dtype, (m.first, k.first), k.second, m.second, lengths, a_batch,
                              c_batch, *_columns(segments), bias=bool(bias), together=together, relu=relu,
                              b_batch=b_batch)
        kernel, plan_slots, extent, flops = found.kernel, found.slots, found.extent, found.flops
        workspace, align, cycles = found.workspace, 1, -(-n // LANES) * LANES / n * flops
        cycles /= CHAINS_OF_PLACES if leading else CHAINS
    else:
        whole = plan(m.length, n, k.length, dtype, (m.first, k.first), (k.second, 1), (m.second, 1), lengths, a_batch,
                     b_batch, c_batch, epilogue="bias_relu" if relu else "bias" if bias else "store",
                     cores=get_num_threads())
        kernel, plan_slots, extent, flops = whole.kernel, whole.slots, whole.extent, whole.flops
        workspace, align, cycles = whole.workspace, whole.align, whole.nanoseconds / CYCLE
    tiled = None
    if together == 1 and (windows := _windows(*(given[::-1] if leading else given), n, dtype)) is not None:
        if leading:
            from graphjit.kernels.tile_window_sums import plan_sums
            step, size_of_part = (parts[0], node.type.size) if parts else (Axis(1, 0, 0), 0)
            tiled = plan_sums(windows, step, size_of_part, WORTH * cycles)
        else:
            from graphjit.kernels.tile_windows import plan_windows
            tiled = plan_windows(windows, bool(bias), relu, WORTH * cycles)
    also: tuple[IRKernel, ...] = ()
    cost = flops * 0.0055
    if tiled and tiled.at_best < WORTH * cycles:  # larger batches may take the tile unit, smaller ones not
        also = (tiled.kernel, kernel)
    if tiled and tiled.cycles < WORTH * cycles:
        kernel, plan_slots, extent, workspace = tiled.kernel, tiled.slots, tiled.extent, tiled.workspace
        align, cost = max(1, min(tiled.least, extent // get_num_threads())), CYCLE * tiled.cycles
    size = dtype.itemsize
    address: dict[str, Slot] = {
        "a": Address(a_base, (a_at.offset + from_a) * size), "b": Address(b_base, (b_at.offset + from_b) * size),
        "c": result}
    reads = [a_base, b_base]
    for each in bias:
        base, at = base_layout(each)
        address["bias"] = address["e0"] = Address(base, at.offset * size)
        reads.append(base)
    if "workspace" in plan_slots:
        address["workspace"] = Address(Scratch(max(workspace, 64)))
    slots = tuple(address.get(s, 0) if isinstance(s, str) else s for s in plan_slots)
    times = "".join(f"{length}x" for length in lengths)
    by = f" by {together}" if together > 1 else ""
    return KernelCall(kernel, ("int64",) * len(slots), slots, extent, reads=tuple(reads), writes=(place.buffer,),
                      title=f"{node.op.name} {times}{m.length}x{prod(s.length for s in summed)}x{n}{by}",
                      where=(node.where,) if node.where else (), flops=flops,
                      nbytes=node.type.nbytes + a_base.type.nbytes + b_base.type.nbytes, cost=cost,
                      align=align, also=also)


def _windows(kept: Sequence[Axis], summed: Sequence[Axis], n: int, dtype: DType) -> Windows | None:
    """A convolution's axes of places, and of taps and channels, if it may pay to compute it on the tile unit."""
    from graphjit.kernels.target import target
    *taps, channels = summed
    if not target().tile_unit or min(n, channels.length) < MANY:
        return None
    *batch, places = _merged(kept)
    one = Axis(1, 0, 0)
    *batch, lines = batch or [one]
    taps = [axis for axis in taps if axis.length != 1]
    if dtype.itemsize != 4 or len(taps) > 2:
        return None
    if len(taps) == 1 and 0 < lines.first <= taps[0].first:
        taps.append(one)
    across, along = [one] * (2 - len(taps)) + taps
    return Windows(tuple(batch), lines, places, across, along, channels, n)


def _sorted(m: Axis, summed: Sequence[Axis], n: int, dtype: DType) -> tuple[Axis, list[Axis], int]:
    """The innermost summed axis, the others, and how many rows are computed together: the last then counts taps."""
    from graphjit.kernels.segments import SEGMENT_DIMS, rows_together
    if any(axis.length == 0 for axis in summed):
        return Axis(0, 1, n), [], 1
    for i, taps in enumerate(summed):
        rest = _merged(_without(summed, i))
        depth = _inner(rest)
        k, outer = rest[depth], _without(rest, depth)
        if taps.length > 1 and len(outer) < SEGMENT_DIMS:
            together = rows_together(m.length, n, k.length, m.first, taps.first, m.second, taps.length, dtype)
            if together > 1:
                return k, [*outer, taps], together
    summed = _merged(summed)
    depth = _inner(summed)
    return summed[depth], _without(summed, depth), 1


def _merged(axes: Sequence[Axis]) -> list[Axis]:
    """Neighbours that lie evenly in both buffers joined, those of length one left out."""
    out: list[Axis] = []
    for axis in axes:
        if axis.length == 1:
            continue
        last = out[-1] if out else None
        if last is not None and last.first == axis.first * axis.length and last.second == axis.second * axis.length:
            out[-1] = Axis(last.length * axis.length, axis.first, axis.second)
        else:
            out.append(axis)
    return out or [Axis(1, 1, 1)]


def _inner(axes: Sequence[Axis]) -> int:
    """The innermost axis that is long enough for the loop of a tile, or else the longest."""
    long = [i for i, axis in enumerate(axes) if axis.length >= LONG]
    return long[-1] if long else max(range(len(axes)), key=lambda i: (axes[i].length, i))


def _without(axes: Sequence[Axis], i: int) -> list[Axis]:
    return [*axes[:i], *axes[i + 1:]]


def _columns(axes: Sequence[Axis]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    return tuple(a.length for a in axes), tuple(a.first for a in axes), tuple(a.second for a in axes)
