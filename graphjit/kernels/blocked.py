"""The blocked matrix product: how its loops over blocks and panels around register tiles are cut, and its kernel.

How the loops stand (blocks of k, blocks of rows, panels of columns, tiles) follows Goto and van de Geijn, "Anatomy of
High-Performance Matrix Multiplication" (2008). What differs: only blocks of big matrices A are packed, and B is packed
by the first tile of a panel as it computes, for each block of A anew; but panels that had to be transposed stay.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Any

from graphjit.kernels import edges
from graphjit.kernels.assembly import LONGER
from graphjit.kernels.blocked_loops import NAMES, Buffers, Loops
from graphjit.kernels.blocking import (
    PACKING_PAYS,
    a_packing_of,
    b_packing_of,
    block_of_a,
    cut,
    cycles,
    fetches,
    k_block_of,
    k_limit,
    tile_line,
)
from graphjit.kernels.emit import ENTRY, I64, Int, load, power_of_two
from graphjit.kernels.follower import HANDED
from graphjit.kernels.looking_loops import LookingLoops
from graphjit.kernels.microkernel import Frame
from graphjit.kernels.packing import Packing
from graphjit.kernels.problem import Problem
from graphjit.kernels.slots import Slots
from graphjit.kernels.target import Element, target
from graphjit.kernels.tiles import FrameArray, balanced, panel_row, tile_heights, tile_shape
from graphjit.runtime.compiler import IRKernel

SMALL = 1 << 16  # bytes of a product of which tiles are handed on: of less, a loop over all of them is as fast
LONG = 192  # steps of k in which tiles fetch what another loop reads from afar
MOVE = 1.0  # cycles a number that comes from another core takes, of which half come from there
STRIP = 2  # tiles of rows of C, at least, that are handed on together
SHARES = 4  # tiles of rows, or panels of columns, that are enough to share out
FEW = 8  # rows of a tile of several vectors at most, where products are short
MANY = 2048  # rows of which shares may each pack all of B
KEPT = 8  # times the second-level cache that panels may take which stay packed for all blocks of A


def arguments(problem: Problem, element: Element, handed: str = "") -> tuple[dict[str, int | str], int, int]:
    """The kernel's arguments by name, but for addresses and strides; the bytes of workspace; and of which numbers of
    units a share is best a multiple. ``handed``: 'strips' of C go to a follower (see `follower`), or 'tiles' (see
    `tile_follower`), and C nowhere else; k is one block then."""
    m, n, k, size = problem.m, problem.n, problem.k, element.size
    shape, panel = tile_shape(), panel_row(element)
    a_packing, b_packing = a_packing_of(problem, element), b_packing_of(problem, element)
    k_block = k_block_of(problem, element)
    strips, tiles = handed == "strips", handed == "tiles"
    _, breadth, edge, dots = cut(problem, element, tiles)
    depth = max(k_block if a_packing else 0, k_limit(element, Packing.TRANSPOSE))
    m_block = a_block = balanced(m, block_of_a() // (depth * size))
    if strips:
        tallest = shape.packing[0] if a_packing else balanced(m, shape.heights[breadth - 1])
        m_block = min(m_block, tallest * max(STRIP, ceil(PACKING_PAYS / tallest),
                                             target().l2 // 8 // (tallest * n * size)))  # fmt: skip
        a_block = balanced(ceil(m / m_block), max(1, a_block // m_block)) * m_block
    [*operands] = problem.matrices[3:]
    # what tiles add to C themselves: nothing, a number for each column, one for each row
    bias = [(x.row * (m > 1), x.col * (n > 1 or m == 1)) for x in operands] if target().assembly else []
    buffers = 2 * m_block * n * size if strips else 0
    n -= edge
    vectors = ceil(n / element.lanes)
    fused = shape.packing[0] if b_packing is Packing.COPY and m_block >= PACKING_PAYS else 0
    # measured: the ends of short products come more often than multiply-adds hide, those of low tiles are over sooner
    short = problem.c.col == 1 and k < LONGER and target().assembly and not handed
    heights = tile_heights(m_block - fused, (shape.heights[0], *(min(height, FEW) for height in shape.heights[1:]))
                           if short else None)  # fmt: skip
    height = heights >> 8 * (breadth - 1) & 255
    by_rows = bool(handed) or _by_rows(problem, ceil(m / height), ceil(vectors / breadth), b_packing)
    a_row, a_col = problem.a.row * size, problem.a.col * size
    b_row = breadth * element.lanes * size if b_packing > Packing.COPY else problem.b.row * size
    one_panel = max(panel, b_row if b_packing > Packing.COPY else 0) * (k_block if b_packing else 0)
    if strips and b_packing:
        one_panel = breadth * element.lanes * size * k_block
    # whether tiles fetch what panels are packed from (measured: those in IR not what is transposed, along its lines)
    far = (b_packing is Packing.COPY or (b_packing is Packing.TRANSPOSE and target().assembly)
           ) and k * problem.n * size > target().l2 // 2
    all_panels = one_panel * ceil(vectors / breadth)
    # what was packed once is read faster where it lies dense; from afar, if it is fetched or was gathered
    dense = far or b_packing is Packing.GATHER or all_panels <= target().l2 // 2
    keeps = strips or (b_packing > Packing.COPY and m > a_block and dense and all_panels <= KEPT * target().l2)
    workspace = packed_b = all_panels if keeps else one_panel
    if a_packing:
        # what a tile takes comes to lie together, one k after the other
        rows = shape.packing[0]
        heights = sum(rows << 8 * i for i in range(shape.packing[1]))
        a_row, a_col = size, tile_line(element)
        workspace += ceil(a_block / rows) * (a_col * k_block + target().vector)
    # the last rows of B, if a vector that starts in them would end behind it
    behind = (vectors * element.lanes - n) * size
    unsafe = min(k, ceil(behind / b_row)) if behind and b_packing <= Packing.COPY else 0
    named = {
        "m": m, "n": n, "k": k, "units": max(1, m if by_rows else vectors), "by_rows": int(by_rows),
        "a_packing": int(a_packing), "b_packing": int(b_packing), "k_block": k_block, "a_block": a_block,
        "m_block": m_block, "vectors": vectors, "panel_vectors": breadth, "heights": heights,
        "last_lanes": n - (vectors - 1) * element.lanes, "unsafe": unsafe,
        "tile_a_row": a_row, "tile_a_col": a_col, "tile_b_row": b_row,
        "fetch": 0 if tiles else fetches(problem, element), "far_b": int(far),
        "packed_b": packed_b, "panel_step": one_panel // breadth if keeps else 0,
        "follower": "follower" if strips else 0, "tile_follower": "follower" if tiles else 0,
        "bias": 1 if bias == [(0, 1)] else 2 if bias == [(1, 0)] else 0,
    }  # fmt: skip
    at_edge, more = edges.arguments(replace(problem, k=k_block), element, edge, dots, workspace)
    workspace += more
    named["strips"] = workspace = ceil(workspace / 64) * 64
    return named | at_edge, workspace + buffers, height if by_rows else breadth


def hands_on_tiles(problem: Problem, element: Element) -> bool:
    """Whether tiles should hand on what they compute. Measured: by small pieces of rows that lie far apart, arrays of a
    loop that come from beyond the second-level cache are slower to read, unless products are long."""
    total = problem.m * problem.n * element.size
    return total >= SMALL and (2 * total <= target().l2 or problem.k >= LONG)


def _by_rows(problem: Problem, tiles: int, panels: int, b_packing: Packing) -> bool:
    """Whether units are rows, or else vectors of columns."""
    if b_packing > Packing.COPY and panels >= 2 and problem.m < MANY:
        return False  # each share would transpose all of B
    if min(tiles, panels) < SHARES:
        return tiles > panels
    return moved(problem, True) <= moved(problem, False)


def moved(problem: Problem, by_rows: bool) -> int:
    """Numbers that shares of a product take from other cores: what they all read, and C if other kernels share it out
    otherwise, in the order in which it lies in memory."""
    m, n, k = problem.m, problem.n, problem.k
    return (k * n if by_rows else m * k) + (m * n if by_rows != (problem.c.row >= problem.c.col) else 0)


def shared_cycles(problem: Problem, element: Element, cores: int) -> float:
    """As `cycles`, where so many cores share the product."""
    named, _, _ = arguments(problem, element)
    return cycles(problem, element) / cores + MOVE * moved(problem, bool(named["by_rows"]))


@functools.cache
def blocked_kernel(element: Element) -> IRKernel:
    """The kernel for a dtype."""
    shape = tile_shape()
    key = (element.suffix, shape.heights, shape.packing, target().assembly)
    return IRKernel(f"gemm_{element.name}", key, len(NAMES), functools.partial(_emit, element))


def _emit(element: Element, builder: Any, values: Sequence[Any]) -> None:
    """Emit the kernel's body: its loops twice, as small products have no time for what large ones want."""
    start, stop = (Int(builder, value) for value in values[-2:])
    at, buffers = Slots(builder, NAMES), Buffers(element, builder)
    buffers.frame.set_a(at["tile_a_row"], at["tile_a_col"])
    with builder.if_then(at["tile_follower"] != 0, likely=False):
        _take_up(at["tile_follower"], at["k"], buffers.frame)
    large = builder.or_(builder.or_(at["follower"] != 0, at["far_b"] != 0), at["panel_step"] != 0)
    with builder.if_else(large, likely=False) as (looking, plain):
        with looking:
            LookingLoops(element, at, buffers).emit(start, stop)
        with plain:
            Loops(element, at, buffers).emit(start, stop)


def _take_up(told: Int, depth: Int, frame: FrameArray) -> None:
    """Have tiles hand on what they compute. They fetch a row of what is read beside it so often that they have all of
    theirs in half their time."""
    builder, words = told.builder, told + 8 * HANDED
    entry, slots = (load(told + 8 * i, I64, 8) for i in range(2))
    builder.call(builder.inttoptr(entry, ENTRY.as_pointer()),
                 [builder.inttoptr(slots, I64.as_pointer()), words.value, I64(0)])
    every = power_of_two(depth // (2 * tile_shape().packing[0]))
    frame[Frame.FOLLOWER], frame[Frame.NEAR_EVERY] = words, every - 1
    frame[Frame.NEAR] = (every * tile_shape().packing[0]).min(depth)
