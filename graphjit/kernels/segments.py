"""Matrix products summed over segments: C[..., m, n] = sum over s, t of A[..., s, t, m, k] @ B[..., s, t, k, n].

This is convolution without im2col. Rows of A may overlap: they are windows into the input. Where the elements of a
window do not lie evenly (the lines of a kernel of two axes, the images of a batch in the gradient by the weight) each
even part is a segment; all segments of a block of C are added up while it stays in the cache.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np
from llvmlite import ir

from graphjit.kernels import segment_tiles
from graphjit.kernels.emit import I64, Int, call, load, loop, store
from graphjit.kernels.microkernel import Frame
from graphjit.kernels.packing import Packing, copy_function, pack_function
from graphjit.kernels.target import Element, target
from graphjit.kernels.tiles import FrameArray, array, balanced, call_panel, panel_row, tile_heights, tile_shape
from graphjit.runtime.compiler import IRKernel

BATCH_DIMS = 3
SEGMENT_DIMS = 2
BLOCK = 48  # most rows of C whose segments are added up together, if they are of one matrix
GROUP = 96  # and if they are of several
SWEPT = 256 << 10  # most bytes of C that all are added to with each outer segment, which then is read once
STEPS = 160  # and most of the steps that such a segment then has, if it can be cut
SHORT = 64  # segments of fewer steps are copied together where that makes long ones
COPIED = 1024  # most steps of a copy
SHALLOW = 3  # fewest steps of a segment whose lanes are chosen
WORTH = 0.8  # of the work without, at most, where rows are computed together
TALL = 32  # rows from which on the copy pays
NAMES = (
    "a", "b", "c", "bias", "workspace", "start", "m", "n", "k", "block", "blocks", "group", "groups", "packs", "line",
    "heights", "together", "shift", "taps", "one", "w_row", "w_segment0", "w_tap", "relu",
    "sweeps",
    "a_row", "a_col", "b_row", "c_row",
    "batch1", "batch2", "a_batch0", "a_batch1", "a_batch2", "b_batch0", "b_batch1", "b_batch2",
    "c_batch0", "c_batch1", "c_batch2",
    "segments0", "segments1", "a_segment0", "a_segment1", "b_segment0", "b_segment1",
)  # fmt: skip


@dataclass(frozen=True)
class SegmentPlan:
    """A kernel, its arguments ('a', 'b', 'c', 'workspace' stand for addresses), the units it may be split in, and the
    bytes of scratch memory that each concurrent call needs for itself."""

    kernel: IRKernel
    slots: tuple[int | str, ...]
    extent: int
    workspace: int
    flops: int


def plan_segments(m: int, n: int, k: int, dtype: Any, a_strides: tuple[int, int], b_row: int, c_row: int,
                  batch: Sequence[int], a_batch: Sequence[int], c_batch: Sequence[int], segments: Sequence[int],
                  a_segments: Sequence[int], b_segments: Sequence[int], bias: bool = False,
                  together: int = 1, relu: bool = False, b_batch: Sequence[int] = ()) -> SegmentPlan:
    """Plan the product. Strides are in elements; columns of B and C are contiguous. B is the same for all the batch
    unless it has strides there too. ``bias``: the sums start from n numbers, the same for all rows. ``relu``: what is
    negative becomes 0. ``together``: so many rows of C, as ``rows_together`` found, are computed in one vector.

    Raises:
        ValueError: more than three batch axes or two axes of segments.
    """
    if len(batch) > BATCH_DIMS or len(segments) > SEGMENT_DIMS:
        raise ValueError(f"a product over batch axes {tuple(batch)} and segments {tuple(segments)}")
    size = np.dtype(dtype).itemsize
    element = Element(np.dtype(dtype).name, size, target().lanes(size))
    flops, one, m, n = 2 * m * n * k * prod(batch) * prod(segments), n, m // together, n * together
    assembly = target().assembly
    moves = tuple(b_batch) or (0,) * len(batch)
    swept = prod(length for length, step in zip(batch, moves, strict=True) if step == 0) * m * n * size
    sweeps = assembly and together == 1 and swept <= SWEPT
    if sweeps and len(segments) == 1:
        (count,), (a_segment,), (b_segment,) = segments, a_segments, b_segments
        inner = max(d for d in range(1, max(STEPS // max(k, 1), 1) + 1) if count % d == 0)
        segments, a_segments, b_segments = (count // inner, inner), (a_segment * inner, a_segment), \
            (b_segment * inner, b_segment)
    block = balanced(m, segment_tiles.HEIGHTS[0] if sweeps else BLOCK)
    no_batch, no_segment = (0,) * (BATCH_DIMS - len(batch)), (0,) * (SEGMENT_DIMS - len(segments))
    sizes = (*(1 for _ in no_batch), *batch)
    steps = (*(1 for _ in no_segment), *segments)
    joined = k * steps[1]
    packs = (not assembly and a_strides[0] == 1 and block >= TALL and k < SHORT and k < joined <= COPIED
             and b_segments[-1] == k * b_row)  # fmt: skip
    group = 1 if packs or sweeps or any(moves) else max(1, min(GROUP // max(m, 1), sizes[2]))
    line = -(-block * size // 64) * 64 + 64
    named: dict[str, int | str] = {
        "a": "a", "b": "b", "c": "c", "bias": "bias" if bias else 0,
        "workspace": "workspace", "start": 2 * bias, "m": m, "n": n, "k": k, "block": block,
        "blocks": ceil(m / block), "group": group, "groups": ceil(sizes[2] / group), "packs": int(packs), "line": line,
        "heights": segment_tiles.heights(block) if assembly else tile_heights(block),
        "sweeps": steps[0] if sweeps else 1,
        "a_row": a_strides[0] * size, "a_col": a_strides[1] * size, "b_row": b_row * size, "c_row": c_row * size,
        "batch1": sizes[1], "batch2": sizes[2], "segments0": steps[0], "segments1": steps[1],
    }  # fmt: skip
    for name, strides in (("a_batch", (*no_batch, *a_batch)), ("b_batch", (*no_batch, *moves)),
                          ("c_batch", (*no_batch, *c_batch)),
                          ("a_segment", (*no_segment, *a_segments)), ("b_segment", (*no_segment, *b_segments))):
        named |= {f"{name}{i}": stride * size for i, stride in enumerate(strides)}
    workspace = line * joined if packs else 0
    taps, shift, width = steps[1], 0, element.lanes * size
    if together > 1:
        shift = a_strides[0] // a_segments[-1]
        wide = taps + shift * (together - 1)
        named |= {"a_row": together * a_strides[0] * size, "c_row": together * c_row * size, "segments1": wide,
                  "b_row": width, "b_segment0": wide * (k + 1) * width, "b_segment1": k * width}  # fmt: skip
        workspace = (1 + steps[0] * wide * (k + 1)) * width
    named |= {"relu": int(relu), "together": together, "shift": shift, "taps": taps, "one": one, "w_row": b_row * size,
              "w_segment0": (*no_segment, *b_segments)[0] * size, "w_tap": (*no_segment, *b_segments)[1] * size}
    extent = ceil(m / block) * ceil(sizes[2] / group) * sizes[1] * sizes[0] if n else 0
    return SegmentPlan(segment_kernel(element), tuple(named[name] for name in NAMES), extent, workspace, flops)


def rows_together(m: int, n: int, k: int, a_row: int, a_segment: int, c_row: int, taps: int, dtype: Any) -> int:
    """How many rows of C are best computed in one vector, where they would leave most of its lanes idle.

    They can be where a row of A is the one above moved on by whole segments (taps of a window): all then read the same
    numbers of A, each its own B.
    """
    lanes = target().lanes(np.dtype(dtype).itemsize)
    if not target().assembly or c_row != n or a_segment <= 0 or a_row <= 0 or a_row % a_segment or k < SHALLOW:
        return 1
    shift, tallest = a_row // a_segment, segment_tiles.HEIGHTS[0]

    def cycles(f: int) -> float:
        """Of a step: a multiply-add waits four for the one before it, and no tile does two each."""
        return max(4 * ceil(m / f / tallest), 0.55 * m / f) * (taps + shift * (f - 1))

    best = min((f for f in range(1, lanes // max(n, 1) + 1) if m % f == 0), key=cycles, default=1)
    return best if cycles(best) < WORTH * cycles(1) else 1


@functools.cache
def segment_kernel(element: Element) -> IRKernel:
    """The compiled variant for a dtype."""
    shape = tile_shape()
    key = (element.suffix, shape.heights, shape.packing, target().masks, target().assembly)
    emit = functools.partial(segment_tiles.emit, element, NAMES) if target().assembly else \
        functools.partial(_emit, element)
    return IRKernel(f"segments_{element.suffix}", key, len(NAMES), emit)


def _emit(element: Element, builder: Any, values: Sequence[Any]) -> None:
    """The loops over groups of the batch and blocks of rows, segments, panels of columns."""
    *given, start, stop = (Int(builder, value) for value in values)
    at = dict(zip(NAMES, given, strict=True))
    lanes, size, module, shape = element.lanes, element.size, builder.module, tile_shape()
    pack, copy = pack_function(module, element), copy_function(module, element)
    frame, tall = FrameArray.new(builder), max(shape.heights)
    frame[Frame.TAIL] = array(builder, element.type, lanes * shape.packing[1] * lanes)
    tile_c = array(builder, element.type, tall * panel_row(element) // size)
    packs = at["packs"] != 0
    frame.set_a(at["a_row"], at["line"].where(packs, at["a_col"]))
    frame[Frame.B_ROW] = at["b_row"]
    depth = at["k"] * at["segments1"].where(packs, 1)
    zero, one, widest = Int(builder, 0), Int(builder, 1), shape.packing[1]
    frame[Frame.PANEL] = zero
    vectors = (at["n"] + (lanes - 1)) // lanes
    panels = (vectors + (widest - 1)) // widest
    share, larger = vectors // panels.max(1), vectors % panels.max(1)
    with loop(start, stop) as unit:
        i0 = unit % at["blocks"] * at["block"]
        outer = unit // at["blocks"]
        first = outer % at["groups"] * at["group"]
        outer = outer // at["groups"]
        height = at["block"].min(at["m"] - i0)
        a, c = at["a"] + at["a_row"] * i0, at["c"] + at["c_row"] * i0
        b = at["b"] + at["b_batch2"] * first
        for axis, index in enumerate((outer // at["batch1"], outer % at["batch1"])):
            a, c = a + at[f"a_batch{axis}"] * index, c + at[f"c_batch{axis}"] * index
            b = b + at[f"b_batch{axis}"] * index
        end = (first + at["group"]).min(at["batch2"])
        with (builder.if_then(at["start"] != 0), loop(first, end) as z, loop(zero, height) as i,
              loop(zero, at["n"]) as j):  # fmt: skip
                store(load(at["bias"] + j * size, element.type, size),
                      c + at["c_batch2"] * z + at["c_row"] * i + j * size, size)  # fmt: skip
        with loop(zero, at["segments0"]) as s:
            from_a = a + at["a_segment0"] * s
            with builder.if_then(packs), loop(zero, at["segments1"]) as t:
                call(pack, builder, [Int(builder, Packing.COPY), from_a + at["a_batch2"] * first + at["a_segment1"] * t,
                                     at["a_col"], at["a_col"], at["workspace"] + at["line"] * at["k"] * t, at["line"],
                                     at["k"], height])  # fmt: skip
            with loop(zero, panels) as p, loop(zero, one.where(packs, at["segments1"])) as t:
                breadth = share + p.flag(p < larger)
                j0 = (share * p + p.min(larger)) * lanes
                columns = (breadth * lanes).min(at["n"] - j0)
                live = columns - (breadth - 1) * lanes
                frame[Frame.MASK] = Int(builder, builder.sub(builder.shl(I64(1), live.value), I64(1)))
                frame[Frame.ADD] = frame[Frame.FETCH] = zero.flag(s + t + at["start"] > 0)
                from_b = b + j0 * size + at["b_segment0"] * s + at["b_segment1"] * t
                # the last rows, whose last vector may end behind B, are read from a copy
                behind = breadth * (lanes * size) - columns * size
                unsafe = ((behind + at["b_row"] - 1) // at["b_row"]).min(depth).where(behind > 0, 0)
                with builder.if_then(unsafe > 0):
                    call(copy, builder, [from_b + at["b_row"] * (depth - unsafe), at["b_row"], frame[Frame.TAIL],
                                         breadth * (lanes * size), unsafe, columns])  # fmt: skip
                frame[Frame.K], frame[Frame.K_TAIL] = depth - unsafe, unsafe
                frame[Frame.C_ROW] = at["c_row"]
                detours = None if target().masks else behind > 0
                tallest = at["heights"] >> (breadth - 1) * 8 & 255
                frame[Frame.A_STEP] = at["a_row"] * tallest
                with loop(first, (first + at["group"]).min(at["batch2"])) as z:
                    there = at["workspace"].where(packs, from_a + at["a_batch2"] * z + at["a_segment1"] * t)
                    call_panel(element, detours, [frame.address, breadth, tallest, height, there, from_b,
                                                  c + at["c_batch2"] * z + j0 * size],
                               [at["c_row"], Int(builder, size), tile_c, columns])  # fmt: skip
        with (builder.if_then(at["relu"] != 0), loop(first, end) as z, loop(zero, height) as i,
              loop(zero, at["n"]) as j):  # fmt: skip
                to = c + at["c_batch2"] * z + at["c_row"] * i + j * size
                x, none = load(to, element.type, size), ir.Constant(element.type, 0.0)
                store(builder.select(builder.fcmp_ordered("<=", x, none), none, x), to, size)
