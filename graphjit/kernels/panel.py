"""Products of one panel, of which nothing is packed: C is no broader than a register tile, k is one block.

All that the loops of a blocked product work out in 300 instructions is known beforehand then: the tiles' frame is among
the kernel's arguments, and what is left is to find the rows. A product of a few numbers, of a batch maybe, takes half
the time. Only for tiles in assembly: they need no other memory, and add a bias themselves.
"""

import functools
from collections.abc import Sequence
from typing import Any

from graphjit.kernels.blocked_loops import fetch_flags
from graphjit.kernels.emit import Int, call, loop
from graphjit.kernels.epilogue import NUMBERS
from graphjit.kernels.microkernel import Frame
from graphjit.kernels.packing import Packing
from graphjit.kernels.problem import Problem
from graphjit.kernels.slots import ADDRESSES, BATCH, STRIDES, Slots, matrices, of_matrix
from graphjit.kernels.target import Element, target
from graphjit.kernels.tiles import FrameArray, panel_function, tile_shape
from graphjit.runtime.compiler import IRKernel

_FRAME = {"b_row": Frame.B_ROW, "c_row": Frame.C_ROW, "depth": Frame.K, "tail": Frame.K_TAIL, "mask": Frame.MASK,
          "accumulate": Frame.ADD, "step": Frame.A_STEP}  # fmt: skip
NAMES = (*ADDRESSES, *BATCH, *STRIDES, "units", "depth", "tail", "mask", "step", "breadth", "tallest", "fetch",
         "bias", "accumulate", "epilogue")  # fmt: skip

Made = tuple[dict[str, Any], int, int]


def arguments(problem: Problem, made: Made) -> Made | None:
    """What `blocked.arguments` made, as this kernel's arguments; None if the product is not one for it."""
    blocked, _, _ = made
    k, vectors, breadth, unsafe = (blocked[name] for name in ("k", "vectors", "panel_vectors", "unsafe"))
    packs = blocked["b_packing"] != Packing.NONE or blocked["a_packing"] != Packing.NONE
    whole = vectors <= breadth and k <= blocked["k_block"] and not blocked["edge"] and problem.c.col == 1
    if packs or not whole or (problem.operands and not blocked["bias"]) or not target().assembly:
        return None
    tallest = blocked["heights"] >> 8 * (breadth - 1) & 255
    return {
        "units": max(1, blocked["m"]), "depth": k - unsafe, "tail": unsafe, "mask": (1 << blocked["last_lanes"]) - 1,
        "step": blocked["tile_a_row"] * tallest, "breadth": breadth, "tallest": tallest, "fetch": blocked["fetch"],
        "bias": blocked["bias"],
    }, 0, tallest  # fmt: skip


@functools.cache
def panel_kernel(element: Element) -> IRKernel:
    """The kernel for a dtype."""
    shape = tile_shape()
    key = (element.suffix, shape.heights, shape.packing, target().assembly)
    return IRKernel(f"panel_{element.name}", key, len(NAMES), functools.partial(_emit, element))


def _emit(element: Element, builder: Any, values: Sequence[Any]) -> None:
    """The loop over the batch."""
    at, (start, stop) = Slots(builder, NAMES), (Int(builder, value) for value in values[-2:])
    frame, units = FrameArray.new(builder), at["units"]
    frame.set_a(at["a_row"], at["a_col"])
    for name, field in _FRAME.items():
        frame[field] = at[name]
    frame[Frame.RELU] = start.flag(at["epilogue"] == NUMBERS["bias_relu"])
    frame[Frame.BIAS_OF_ROWS] = start.flag(at["bias"] == 2)
    with loop(*matrices(at, start, stop)) as matrix:
        a, b, c, bias = of_matrix(at, matrix)
        first, last = (start - matrix * units).max(0), (stop - matrix * units).min(units)
        frame[Frame.FETCH] = fetch_flags(at["fetch"].max(at["accumulate"]), c, at["c_row"])
        frame[Frame.BIAS] = bias + at["e0_row"] * first
        call(panel_function(builder.module, element), builder,
             [frame.address, at["breadth"], at["tallest"], last - first, a + at["a_row"] * first, b,
              c + at["c_row"] * first])  # fmt: skip
