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

from graphjit.kernels.segment_loops import emit, heights, tallest_tiles
from graphjit.kernels.target import Element, target
from graphjit.kernels.tiles import balanced
from graphjit.runtime.compiler import IRKernel

BATCH_DIMS = 3
SEGMENT_DIMS = 2
BLOCK = 48  # most rows of C whose segments are added up together, if they are of one matrix
GROUP = 96  # and if they are of several
SWEPT = 256 << 10  # most bytes of C that all are added to with each outer segment, which then is read once
STEPS = 160  # and most of the steps that such a segment then has, if it can be cut
SHALLOW = 3  # fewest steps of a segment whose lanes are chosen
WORTH = 0.8  # of the work without, at most, where rows are computed together
NAMES = (
    "a", "b", "c", "bias", "workspace", "start", "m", "n", "k", "block", "blocks", "group", "groups", "heights",
    "together", "shift", "taps", "one", "w_row", "w_segment0", "w_tap", "relu", "sweeps",
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
    moves = tuple(b_batch) or (0,) * len(batch)
    swept = prod(length for length, step in zip(batch, moves, strict=True) if step == 0) * m * n * size
    sweeps = together == 1 and swept <= SWEPT
    if sweeps and len(segments) == 1:
        (count,), (a_segment,), (b_segment,) = segments, a_segments, b_segments
        inner = max(d for d in range(1, max(STEPS // max(k, 1), 1) + 1) if count % d == 0)
        segments, a_segments, b_segments = (count // inner, inner), (a_segment * inner, a_segment), \
            (b_segment * inner, b_segment)
    block = balanced(m, tallest_tiles()[0] if sweeps else BLOCK)
    no_batch, no_segment = (0,) * (BATCH_DIMS - len(batch)), (0,) * (SEGMENT_DIMS - len(segments))
    sizes = (*(1 for _ in no_batch), *batch)
    steps = (*(1 for _ in no_segment), *segments)
    group = 1 if sweeps or any(moves) else max(1, min(GROUP // max(m, 1), sizes[2]))
    named: dict[str, int | str] = {
        "a": "a", "b": "b", "c": "c", "bias": "bias" if bias else 0,
        "workspace": "workspace", "start": 2 * bias, "m": m, "n": n, "k": k, "block": block,
        "blocks": ceil(m / block), "group": group, "groups": ceil(sizes[2] / group), "heights": heights(block),
        "sweeps": steps[0] if sweeps else 1,
        "a_row": a_strides[0] * size, "a_col": a_strides[1] * size, "b_row": b_row * size, "c_row": c_row * size,
        "batch1": sizes[1], "batch2": sizes[2], "segments0": steps[0], "segments1": steps[1],
    }  # fmt: skip
    for name, strides in (("a_batch", (*no_batch, *a_batch)), ("b_batch", (*no_batch, *moves)),
                          ("c_batch", (*no_batch, *c_batch)),
                          ("a_segment", (*no_segment, *a_segments)), ("b_segment", (*no_segment, *b_segments))):
        named |= {f"{name}{i}": stride * size for i, stride in enumerate(strides)}
    taps, shift, width, workspace = steps[1], 0, element.lanes * size, 0
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
    shift, tallest = a_row // a_segment, tallest_tiles()[0]

    def cycles(f: int) -> float:
        """Of a step: a multiply-add waits four for the one before it, and no tile does two each."""
        return max(4 * ceil(m / f / tallest), 0.55 * m / f) * (taps + shift * (f - 1))

    best = min((f for f in range(1, lanes // max(n, 1) + 1) if m % f == 0), key=cycles, default=1)
    return best if cycles(best) < WORTH * cycles(1) else 1


@functools.cache
def segment_kernel(element: Element) -> IRKernel:
    """The compiled variant for a dtype."""
    key = (element.suffix, tallest_tiles(), target().assembly)
    return IRKernel(f"segments_{element.suffix}", key, len(NAMES), functools.partial(emit, element, NAMES))
