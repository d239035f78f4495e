"""Products of which nothing is packed or cut: rows of C in panels, k in one block.

All that the loops of a blocked product work out, in 300 instructions before the first tile and 100 for each panel, is
known beforehand then, and the tiles' frame is among the kernel's arguments. Small products, of a batch maybe, take as
little as half the time. Only for tiles in assembly: they need no other memory, and add a bias themselves.
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
from graphjit.kernels.slots import ADDRESSES, BATCH, BATCH_STRIDES, STRIDES, Slots, matrices, of_matrix
from graphjit.kernels.target import Element, target
from graphjit.kernels.tiles import FrameArray, panel_function, tile_shape
from graphjit.runtime.compiler import IRKernel

# of a panel: its vectors, rows of its tiles, and what these are told; all panels but the last are alike
_EACH = {"breadth": None, "tallest": None, "step": Frame.A_STEP, "mask": Frame.MASK, "depth": Frame.K,
         "tail": Frame.K_TAIL}  # fmt: skip
NAMES = (*ADDRESSES, *BATCH, *STRIDES, "units", "panels", "line", "fetch", "bias", "accumulate", "epilogue",
         *(f"{name}{i}" for i in (1, 0) for name in _EACH), *BATCH_STRIDES)  # fmt: skip

SMALL = 1 << 18  # multiply-adds of a product that nobody shares out by columns

Made = tuple[dict[str, Any], int, int]


def arguments(problem: Problem, element: Element, made: Made) -> Made | None:
    """What `blocked.arguments` made, as this kernel's arguments; None if the product is not one for it."""
    at, _, _ = made
    k, vectors, breadth = (at[name] for name in ("k", "vectors", "panel_vectors"))
    packs = at["b_packing"] != Packing.NONE or at["a_packing"] != Packing.NONE
    whole = k <= at["k_block"] and (at["m"] <= at["a_block"] or vectors <= breadth) and not at["edge"]
    in_rows = problem.c.col == 1 and (at["by_rows"] or vectors <= breadth or at["m"] * at["n"] * k < SMALL)
    adds = at["bias"] or not problem.operands
    if packs or not (whole and in_rows and adds and vectors and target().assembly):
        return None
    panels = (vectors - 1) // breadth
    named = {"units": max(1, at["m"]), "panels": panels, "line": breadth * target().vector, "fetch": at["fetch"],
             "bias": at["bias"]}  # fmt: skip
    each, last = (breadth, element.lanes, 0), (vectors - panels * breadth, at["last_lanes"], at["unsafe"])
    for i, (width, live, tail) in enumerate((each, last)):
        tallest = at["heights"] >> 8 * (width - 1) & 255
        values = width, tallest, at["tile_a_row"] * tallest, (1 << live) - 1, k - tail, tail
        named |= {f"{name}{i}": value for name, value in zip(_EACH, values, strict=True)}
    return named, 0, named["tallest1"]


@functools.cache
def unpacked_kernel(element: Element) -> IRKernel:
    """The kernel for a dtype."""
    shape = tile_shape()
    key = (element.suffix, shape.heights, shape.packing, target().assembly)
    return IRKernel(f"gemm_unpacked_{element.name}", key, len(NAMES), functools.partial(_emit, element))


def _emit(element: Element, builder: Any, values: Sequence[Any]) -> None:
    """The loops over the batch and panels."""
    at, (start, stop) = Slots(builder, NAMES), (Int(builder, value) for value in values[-2:])
    frame, units, tiles = FrameArray.new(builder), at["units"], panel_function(builder.module, element)
    frame.set_a(at["a_row"], at["a_col"])
    frame[Frame.B_ROW], frame[Frame.C_ROW], frame[Frame.ADD] = at["b_row"], at["c_row"], at["accumulate"]
    frame[Frame.RELU] = start.flag(at["epilogue"] == NUMBERS["bias_relu"])
    frame[Frame.BIAS_OF_ROWS] = start.flag(at["bias"] == 2)
    with loop(*matrices(at, start, stop)) as matrix:
        a, b, c, bias = of_matrix(at, matrix)
        first, last = (start - matrix * units).max(0), (stop - matrix * units).min(units)
        a, c, bias = a + at["a_row"] * first, c + at["c_row"] * first, bias + at["e0_row"] * first
        frame[Frame.FETCH] = fetch_flags(at["fetch"].max(at["accumulate"]), c, at["c_row"])
        places = last - first, a, b, c, bias
        with loop(0, at["panels"]) as number:
            _panel(at, frame, tiles, 0, number, places)
        _panel(at, frame, tiles, 1, at["panels"], places)


def _panel(at: Slots, frame: FrameArray, tiles: Any, which: int, number: Int, places: Sequence[Int]) -> None:
    """The panel of this number; ``which``: 1 for the last one. `places`: rows, and where A, B, C and the bias are."""
    rows, a, b, c, bias = places
    for name, field in _EACH.items():
        if field is not None:
            frame[field] = at[f"{name}{which}"]
    breadth, tallest, across = at[f"breadth{which}"], at[f"tallest{which}"], at["line"] * number
    frame[Frame.BIAS] = bias + across.where(at["bias"] == 1, 0)
    call(tiles, at.builder, [frame.address, breadth, tallest, rows, a, b + across, c + across])
