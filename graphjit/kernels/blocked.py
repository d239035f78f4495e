"""The blocked matrix product: loops over blocks and panels around register tiles.

How the loops stand (blocks of k, blocks of rows, panels of columns, tiles) follows Goto and van de Geijn, "Anatomy of
High-Performance Matrix Multiplication" (2008). What differs: only blocks of big matrices A are packed, and B is packed
by the first tile of a panel as it computes.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Any

from graphjit.kernels import edges
from graphjit.kernels.blocking import (
    PACKING_PAYS,
    a_packing_of,
    b_packing_of,
    cut,
    cycles,
    fetches,
    k_block_of,
    k_limit,
    tile_line,
)
from graphjit.kernels.dot import sums_array
from graphjit.kernels.emit import I64, Int, call, loop, only_if, power_of_two
from graphjit.kernels.epilogue import NUMBERS, apply
from graphjit.kernels.follower import LEAST, Follower, follow_function, rest_function, taken_up
from graphjit.kernels.microkernel import NEVER, Frame
from graphjit.kernels.packing import Packing, copy_function, pack_function
from graphjit.kernels.problem import Problem
from graphjit.kernels.slots import ADDRESSES, BATCH, STRIDES, Slots, matrices, of_matrix
from graphjit.kernels.target import Element, target
from graphjit.kernels.tiles import (
    FrameArray,
    array,
    balanced,
    call_panel,
    packing_tile,
    panel_row,
    tile_array,
    tile_heights,
    tile_shape,
)
from graphjit.runtime.compiler import IRKernel

NAMES = (
    *ADDRESSES, *BATCH, *STRIDES,
    "m", "n", "k", "units", "by_rows", "accumulate", "epilogue",
    "a_packing", "b_packing", "k_block", "a_block", "m_block", "vectors", "panel_vectors", "heights", "last_lanes",
    "unsafe", "tile_a_row", "tile_a_col", "tile_b_row", "fetch", "far_b", "packed_b", "panel_step", "follower",
    "strips", "bias", *edges.NAMES,
)  # fmt: skip

FEW = 16  # columns of A that are packed together
MOVE = 1.0  # cycles a number that comes from another core takes, of which half come from there
STRIP = 2  # tiles of rows of C, at least, that are handed on together
SHARES = 4  # tiles of rows, or panels of columns, that are enough to share out
MANY = 2048  # rows of which shares may each pack all of B


def arguments(problem: Problem, element: Element, handed: bool = False) -> tuple[dict[str, int | str], int, int]:
    """The kernel's arguments by name, but for addresses and strides; the bytes of workspace; and of which numbers of
    units a share is best a multiple. ``handed``: strips of C go to a follower (see `follower`), and C nowhere else; k
    is one block then."""
    m, n, k, size = problem.m, problem.n, problem.k, element.size
    shape, panel = tile_shape(), panel_row(element)
    a_packing, b_packing = a_packing_of(problem, element), b_packing_of(problem, element)
    k_block = k_block_of(problem, element)
    _, breadth, edge, dots = cut(problem, element)
    # measured: a block of A is less than half of the second-level cache
    m_block = a_block = balanced(m, target().l2 * 3 // (8 * k_limit(element) * size))
    if handed:
        tallest = shape.packing[0] if a_packing else balanced(m, shape.heights[breadth - 1])
        tiles = max(STRIP, ceil(PACKING_PAYS / tallest), target().l2 // 8 // (tallest * n * size))
        m_block = min(m_block, tallest * tiles)
        a_block = balanced(ceil(m / m_block), max(1, a_block // m_block)) * m_block
    [*operands] = problem.matrices[3:]
    # what tiles add to C themselves: nothing, a number for each column, one for each row
    bias = [(x.row, x.col) for x in operands] if target().assembly else []
    strips = 2 * m_block * n * size if handed else 0
    n -= edge
    vectors = ceil(n / element.lanes)
    fused = shape.packing[0] if b_packing is Packing.COPY and m_block >= PACKING_PAYS else 0
    heights = tile_heights(m_block - fused)
    height = heights >> 8 * (breadth - 1) & 255
    by_rows = handed or _by_rows(problem, ceil(m / height), ceil(vectors / breadth), b_packing)
    a_row, a_col = problem.a.row * size, problem.a.col * size
    b_row = breadth * element.lanes * size if b_packing > Packing.COPY else problem.b.row * size
    one_panel = max(panel, b_row if b_packing > Packing.COPY else 0) * (k_block if b_packing else 0)
    if handed and b_packing:
        one_panel = breadth * element.lanes * size * k_block
    workspace = packed_b = one_panel * (ceil(vectors / breadth) if handed else 1)
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
        "m_block": m_block,
        "vectors": vectors, "panel_vectors": breadth, "heights": heights,
        "last_lanes": n - (vectors - 1) * element.lanes, "unsafe": unsafe,
        "tile_a_row": a_row, "tile_a_col": a_col, "tile_b_row": b_row,
        "fetch": int(fetches(problem, element)), "far_b": int(k * problem.n * size > target().l2 // 2),
        "packed_b": packed_b, "panel_step": one_panel // breadth if handed else 0, "follower": "follower" if handed else 0,
        "bias": 1 if bias == [(0, 1)] else 2 if bias == [(1, 0)] else 0,
    }  # fmt: skip
    at_edge, more = edges.arguments(replace(problem, k=k_block), element, edge, dots, workspace)
    workspace += more
    named["strips"] = workspace = ceil(workspace / 64) * 64
    return named | at_edge, workspace + strips, height if by_rows else breadth


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
    """The loops over batch, blocks of k, blocks of rows and panels of columns."""
    module, lanes = builder.module, element.lanes
    at = Slots(builder, NAMES)
    start, stop = (Int(builder, value) for value in values[-2:])
    zero, buffers = Int(builder, 0), _Buffers(element, builder)
    frame = buffers.frame
    frame.set_a(at["tile_a_row"], at["tile_a_col"])
    frame[Frame.BIAS_OF_ROWS] = zero.flag(at["bias"] == 2)
    frame[Frame.RELU] = zero.flag(at["epilogue"] == NUMBERS["bias_relu"])
    by_rows = at["by_rows"] != 0
    follows = at["follower"] != 0
    looks_ahead = builder.or_(follows, at["far_b"] != 0)
    across = at["n"] + at["edge"]
    follower = taken_up(builder, at["follower"], follows, across, element.size)
    with loop(*matrices(at, start, stop)) as matrix:
        a, b, c, *e = of_matrix(at, matrix)
        units = at["units"]
        first, last = (start - matrix * units).max(0), (stop - matrix * units).min(units)
        row0, row1 = first.where(by_rows, 0), last.where(by_rows, at["m"])
        vector0, vector1 = zero.where(by_rows, first), at["vectors"].where(by_rows, last)
        with loop(0, at["k"].max(1), at["k_block"]) as k0:
            depth = at["k_block"].min(at["k"] - k0)
            add = depth.flag(builder.or_(k0 > 0, at["accumulate"] != 0))
            frame[Frame.ADD] = buffers.edge_frame[Frame.ADD] = add
            frame[Frame.FETCH] = buffers.edge_frame[Frame.FETCH] = add.max(at["fetch"])
            epilogue = at["epilogue"].where(k0 + at["k_block"] >= at["k"], 0)
            frame[Frame.BIAS] = zero

            def finish(epilogue: Int, to: Int, i: Int, j: Int, rows: Int, columns: Int) -> None:
                operands = []
                for number, address in enumerate(e):
                    row, col = at[f"e{number}_row"], at[f"e{number}_col"]
                    operands += [address + row * i + col * j, row, col]
                apply(module, element, builder, epilogue, (to, at["c_row"], at["c_col"]), rows, columns, operands)

            with loop(row0, row1, at["a_block"]) as block0:
                block1 = (block0 + at["a_block"]).min(row1)
                block = _block_of_a(element, at, a + at["a_row"] * block0 + at["a_col"] * k0, depth, block1 - block0)
                with loop(block0, block1, at["m_block"]) as i0:
                    height = at["m_block"].min(block1 - i0)
                    is_first = i0 == row0
                    [c_here] = only_if(follows, [c], functools.partial(_strip_less, at, i0, row0))
                    tiles_of_a = block + _steps_of_a(at, depth, i0 - block0)
                    with loop(vector0, vector1, at["panel_vectors"]) as j0:
                        breadth = at["panel_vectors"].min(vector1 - j0)
                        at_end = j0 + breadth == at["vectors"]
                        live = at["last_lanes"].where(at_end, lanes)
                        columns = (breadth - 1) * lanes + live
                        frame[Frame.MASK] = Int(builder, builder.sub(builder.shl(I64(1), live.value), I64(1)))
                        unsafe = (at["unsafe"].where(at_end, 0) + k0 + depth - at["k"]).max(0).min(depth)
                        place = j0 * lanes
                        source = b + at["b_row"] * k0 + at["b_col"] * place
                        panel = at["workspace"] + at["panel_step"] * (j0 - vector0)
                        packed = builder.and_(at["panel_step"] != 0, builder.not_(is_first))
                        with builder.if_then(looks_ahead):
                            with builder.if_then(follows):
                                _look_ahead_of(follower, frame, height // (at["heights"] >> 8 & 255), depth)
                            with builder.if_then(builder.and_(at["far_b"] != 0, builder.not_(packed))):
                                over = j0 + breadth == vector1
                                following = (j0 + breadth).where(builder.not_(over), vector0) * lanes
                                on = at["k_block"].where(builder.and_(over, i0 + height == row1), 0)
                                _look_ahead(element, at, frame, (height, depth),
                                            b + at["b_row"] * (k0 + on) + at["b_col"] * following)
                        to = c_here + at["c_row"] * i0 + at["c_col"] * place
                        with builder.if_then(builder.and_(epilogue != 0, at["bias"] != 0)):
                            frame[Frame.BIAS] = e[0] + at["e0_row"] * i0 + at["e0_col"] * place
                        _panel(element, at, buffers, (breadth, height, columns, depth, unsafe), (tiles_of_a, source, to), panel,
                               packed)
                        finish(epilogue.where(at["bias"] == 0, 0), to, i0, place, height, columns)
                        with builder.if_then(follows):
                            call(follow_function(module), builder, [follower.base])
                    last_of_all = builder.and_(vector0 < vector1, vector1 == at["vectors"])
                    with builder.if_then(builder.and_(at["edge"] > 0, last_of_all)):
                        place = at["vectors"] * lanes
                        to = c_here + at["c_row"] * i0 + at["c_col"] * place
                        sizes = height, depth, at["k"] - k0
                        places = (a + at["a_row"] * i0 + at["a_col"] * k0, b + at["b_row"] * k0 + at["b_col"] * place, to)
                        with builder.if_else(at["edge_vectors"] != 0) as (turned, along):
                            with turned:
                                edges.emit_edge(element, at, buffers.edge_frame, buffers.tile, sizes, places)
                            with along:
                                edges.emit_dots(element, at, buffers.sums, add, sizes, places)
                        finish(epilogue, to, i0, place, height, at["edge"])
                    with builder.if_then(follows):
                        call(rest_function(module), builder, [follower.base])
                        panels = (at["vectors"] + at["panel_vectors"] - 1) // at["panel_vectors"]
                        follower.set(most=((height * across + panels - 1) // panels).max(LEAST))
                        follower.begin(_strip(at, i0 - row0), height, across, across * i0)
            with builder.if_then(follows):
                call(rest_function(module), builder, [follower.base])


class _Buffers:
    """Memory on the stack: frames, the rows of B that tiles without masks read, a tile or sums on their way to C."""

    def __init__(self, element: Element, builder: Any) -> None:
        self.frame, self.edge_frame = FrameArray.new(builder), FrameArray.new(builder)
        lanes, broadest = element.lanes, tile_shape().broadest
        if not target().assembly:
            tail = array(builder, element.type, lanes * broadest * lanes)
            self.frame[Frame.TAIL] = self.edge_frame[Frame.TAIL] = tail
        self.tile, self.sums = tile_array(builder, element), sums_array(builder, element)


def _block_of_a(element: Element, at: Slots, block: Int, depth: Int, height: Int) -> Int:
    """Where tiles find a block of A: in the workspace behind the panel of B, if it is to be packed."""
    builder, module = at.builder, at.builder.module

    def packed() -> list[Int]:
        # columns of A may lie a power of two apart: a few at a time, a small piece of each panel
        few = depth.where(at["a_packing"] == Packing.TRANSPOSE, FEW)
        rows = Int(builder, tile_shape().packing[0])
        to = at["workspace"] + at["packed_b"]
        with loop(0, depth, few) as k, loop(0, height, rows) as i:
            panel = to + _step_of_a(at, depth, rows) * (i // rows) + at["tile_a_col"] * k
            call(pack_function(module, element), builder,
                 [at["a_packing"], block + at["a_col"] * k + at["a_row"] * i, at["a_col"], at["a_row"], panel,
                  at["tile_a_col"], few.min(depth - k), rows.min(height - i)])  # fmt: skip
        return [to]

    return only_if(at["a_packing"] != 0, [block], packed)[0]


def _panel(element: Element, at: Slots, buffers: _Buffers, sizes: Sequence[Int], places: Sequence[Int],
           panel: Int, is_packed: Any) -> None:
    """One block of one panel: pack B to where its panel is, unless it is there already; run the tiles."""
    builder, module, size, frame = at.builder, at.builder.module, element.size, buffers.frame
    (breadth, height, columns, depth, unsafe), (a, b, c) = sizes, places
    frame[Frame.PANEL] = panel

    def packed() -> list[Int]:
        call(pack_function(module, element), builder,
             [at["b_packing"], b, at["b_row"], at["b_col"], panel, at["tile_b_row"], depth, columns])  # fmt: skip
        return [panel]

    copies, turns = at["b_packing"] == Packing.COPY, at["b_packing"] > Packing.COPY
    detours = at["c_col"] != size
    if not target().masks:
        detours = builder.or_(detours, columns % element.lanes != 0)
    # tiles that store to C pack what is only copied
    reuses = builder.and_(is_packed, builder.or_(turns, builder.and_(copies, builder.not_(detours))))
    (source,) = only_if(builder.and_(turns, builder.not_(is_packed)), [panel.where(reuses, b)], packed)
    unsafe = Int(builder, 0).where(reuses, unsafe)
    if not target().assembly:
        with builder.if_then(unsafe > 0):
            call(copy_function(module, element), builder,
                 [b + at["b_row"] * (depth - unsafe), at["b_row"], frame[Frame.TAIL], breadth * (element.lanes * size),
                  unsafe, columns])  # fmt: skip
    frame[Frame.K], frame[Frame.K_TAIL] = depth - unsafe, unsafe
    frame[Frame.B_ROW] = (breadth * (element.lanes * size)).where(builder.and_(reuses, copies), at["tile_b_row"])
    frame[Frame.C_ROW] = at["c_row"]
    rows = tile_shape().packing[0]

    def fused() -> list[Int]:
        """The first tile packs B for the others."""
        packing_tile(element, breadth, [frame.address, a, b, c])
        frame[Frame.B_ROW] = breadth * (element.lanes * size)
        frame[Frame.K], frame[Frame.K_TAIL] = depth, Int(builder, 0)
        return [height - rows, a + _step_of_a(at, depth, Int(builder, rows)), panel, c + at["c_row"] * rows]

    fuses = builder.and_(builder.and_(copies, height >= PACKING_PAYS), builder.not_(builder.or_(detours, is_packed)))
    below = only_if(fuses, [height, a, source, c], fused)
    tallest = at["heights"] >> (breadth - 1) * 8 & 255
    frame[Frame.A_STEP] = _step_of_a(at, depth, tallest)
    call_panel(element, detours, [frame.address, breadth, tallest, *below],
               [at["c_row"], at["c_col"], buffers.tile, columns])  # fmt: skip


def _look_ahead(element: Element, at: Slots, frame: FrameArray, sizes: tuple[Int, Int], following: Int) -> None:
    """Have the tiles of a panel fetch what the one that follows is packed from, a few lines each: lines so far apart
    would be waited for one by one. Two vectors of each row of B, or two columns for each tile."""
    builder, (height, depth) = at.builder, sizes
    tiles = height // (at["heights"] >> 8 & 255)
    copies = at["b_packing"] == Packing.COPY
    # so often that all tiles together fetch all rows
    every = power_of_two(tiles).where(copies, 64 // element.size)
    columns = at["b_col"]
    frame[Frame.SOON], frame[Frame.SOON_EVERY] = following, every - 1
    frame[Frame.SOON_OTHER] = Int(builder, 64).where(copies, columns)
    frame[Frame.SOON_STEP] = at["b_row"].where(copies, 64)
    frame[Frame.SOON_TILE] = (at["b_row"] * (depth // every)).where(copies, columns * 2)


def _look_ahead_of(follower: Follower, frame: FrameArray, tiles: Int, depth: Int) -> None:
    """Have the tiles of a panel fetch what the follower's next call reads."""
    builder = follower.builder
    near, steps = follower["near"], tiles.max(1) * depth
    lines = follower["most"] * follower["size"] // 64 + 1
    every = power_of_two(steps // lines)
    frame[Frame.SOON] = near + follower.place * follower["size"]
    frame[Frame.SOON_OTHER], frame[Frame.SOON_STEP] = follower["other"] - near, Int(builder, 64)
    frame[Frame.SOON_TILE] = depth // every * 64
    some = builder.and_(near != 0, follower["row"] < follower["rows"])
    frame[Frame.SOON_EVERY] = (every - 1).where(some, NEVER)


def _strip(at: Slots, row: Int) -> Int:
    """Where the strip of C lies that begins with this row: two of them take turns."""
    return at["workspace"] + at["strips"] + at["c_row"] * at["m_block"] * (row // at["m_block"] % 2)


def _strip_less(at: Slots, row: Int, row0: Int) -> list[Int]:
    """Where C would have to lie for this row to begin the strip."""
    return [_strip(at, row - row0) - at["c_row"] * row]


def _steps_of_a(at: Slots, depth: Int, rows: Int) -> Int:
    """From the first row of a block of A to a later one, the first of a tile."""
    each = Int(at.builder, tile_shape().packing[0])
    return (_step_of_a(at, depth, each) * (rows // each)).where(at["a_packing"] != 0, at["tile_a_row"] * rows)


def _step_of_a(at: Slots, depth: Int, rows: Int) -> Int:
    """From one tile's A to that of the next."""
    return (at["tile_a_col"] * depth + target().vector).where(at["a_packing"] != 0, at["tile_a_row"] * rows)
