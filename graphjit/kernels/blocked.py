"""The blocked matrix product: loops over blocks and panels around register tiles.

How the loops stand (blocks of k, blocks of rows, panels of columns, tiles) follows Goto and van de Geijn, "Anatomy of
High-Performance Matrix Multiplication" (2008). What differs: A is read in place while its rows lie well, and B is
packed by the first tile of a panel as it computes.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import I64, Int, call, function, load, loop, only_if, pieces, store
from graphjit.kernels.epilogue import apply
from graphjit.kernels.microkernel import Frame, tile_function
from graphjit.kernels.packing import Packing, copy_function, gather_function, pack_function, scatter_function
from graphjit.kernels.problem import Problem
from graphjit.kernels.slots import ADDRESSES, BATCH, STRIDES, matrices, of_matrix
from graphjit.kernels.target import Element, target
from graphjit.runtime.compiler import IRKernel

NAMES = (
    *ADDRESSES, *BATCH, *STRIDES,
    "m", "n", "k", "units", "by_rows", "accumulate", "epilogue",
    "a_packing", "a_line", "b_packing", "k_block", "m_block", "panel_vectors",
)  # fmt: skip

EVEN = 8  # taller tiles come with even heights only: half the compile time for a rare extra tile
PACKING_PAYS = 32  # rows of C that use a packed panel; for fewer it is read in place


@dataclass(frozen=True)
class TileShape:
    """`heights[v - 1]`: rows of the tallest tile of v vectors; `packing`: rows and most vectors of tiles that pack."""

    heights: tuple[int, ...]
    packing: tuple[int, int]

    @property
    def broadest(self) -> int:
        return len(self.heights)


@functools.cache
def tile_shape() -> TileShape:
    """Tiles that fill the registers. Few rows take broad tiles: each k then has enough independent sums."""
    if target().registers == 32:
        return TileShape((14, 12, 8, 1, 1, 1, 1, 1), (8, 3))
    return TileShape((12, 6, 1, 1), (6, 2))


def arguments(problem: Problem, element: Element) -> tuple[dict[str, int], int, int]:
    """The kernel's arguments by name, but for addresses and strides; the bytes of workspace; and of which numbers of
    units a share is best a multiple."""
    m, n, k, size = problem.m, problem.n, problem.k, element.size
    shape, panel = tile_shape(), _panel_row(element)
    a_packing, b_packing = _a_packing(problem, element), _b_packing(problem, element)
    # a panel of B is to take an eighth of the second-level cache, a block of A half of it
    k_limit = min(1024, target().l2 // (8 * panel))
    k_block = _balanced(k, k_limit)
    m_block = _balanced(m, target().l2 // (2 * k_limit * size))
    # Units are rows, or vectors of columns: what gives more shares, unless each share would transpose all of B.
    vectors = ceil(n / element.lanes)
    panels, tiles = ceil(vectors / shape.packing[1]), ceil(m / EVEN)
    by_rows = tiles > panels and (b_packing <= Packing.COPY or panels < 2)
    a_line = 0
    workspace = panel * (k_block if b_packing else 0)
    if a_packing:
        lines, length = (m_block, k_block) if problem.a.col == 1 else (k_block, m_block)
        a_line = -(-length * size // 64) * 64 + 64  # rows that are not a power of two apart
        workspace += a_line * lines
    named = {
        "m": m, "n": n, "k": k, "units": max(1, m if by_rows else vectors), "by_rows": int(by_rows),
        "a_packing": int(a_packing), "a_line": a_line, "b_packing": int(b_packing),
        "k_block": k_block, "m_block": m_block, "panel_vectors": _panel_vectors(problem, element),
    }  # fmt: skip
    return named, workspace, EVEN if by_rows else shape.packing[1]


def _panel_row(element: Element) -> int:
    """Bytes of a row of a packed panel."""
    return tile_shape().packing[1] * element.lanes * element.size


def _panel_vectors(problem: Problem, element: Element) -> int:
    """Vectors of the broadest panels. Few rows take broad ones; but those are not packed, nor is C scattered."""
    shape = tile_shape()
    in_place = not _b_packing(problem, element) and problem.c.col == 1
    return shape.broadest if in_place and problem.m <= shape.heights[-1] else shape.packing[1]


def _balanced(length: int, limit: int) -> int:
    """Blocks of at most `limit`, all nearly as large."""
    return max(1, ceil(length / max(1, ceil(length / limit))))


def _b_packing(problem: Problem, element: Element) -> Packing:
    if problem.b.col != 1 or problem.b.row <= 0:
        return Packing.TRANSPOSE if problem.b.row == 1 and problem.b.col != 1 else Packing.GATHER
    # measured: a B that is small, and has aligned rows not far apart, is read as fast where it is
    row = problem.b.row * element.size
    far = row % target().vector != 0 or abs(row) >= 2048 or problem.k * problem.n * element.size > target().l2 // 4
    pays = far and problem.n * element.size > _panel_row(element) and problem.m >= PACKING_PAYS and problem.k >= 32
    return Packing.COPY if pays and problem.c.col == 1 else Packing.NONE


def _a_packing(problem: Problem, element: Element) -> Packing:
    big = problem.m >= 64 and problem.n * element.size >= 4096 and problem.k >= 128
    return Packing.COPY if big and 1 in (problem.a.row, problem.a.col) else Packing.NONE


def cycles(problem: Problem, element: Element) -> float:
    """An estimate of the time, to choose between ways to compute the same product."""
    m, n, k = problem.m, problem.n, problem.k
    shape = tile_shape()
    vectors = ceil(n / element.lanes)
    panels = ceil(vectors / _panel_vectors(problem, element)) or 1
    width = vectors / panels
    tiles = ceil(m / shape.heights[min(ceil(width), shape.broadest) - 1]) or 1
    height = m / tiles
    # a step of k: multiply-adds, or loads, or the latency of one multiply-add
    step = max(0.54 * height * width, 0.62 * (height + width), 4)
    packing = {Packing.TRANSPOSE: 0.3 if k * element.size >= 16 else 1.5, Packing.GATHER: 1.5}
    return (panels * tiles * (k * step + 45) + packing.get(_b_packing(problem, element), 0.0) * k * n
            + (m * n * (0.7 if problem.c.row == 1 else 1.7) if problem.c.col != 1 else 0))  # fmt: skip


@functools.cache
def blocked_kernel(element: Element) -> IRKernel:
    """The kernel for a dtype."""
    shape = tile_shape()
    key = (element.suffix, shape.heights, shape.packing)
    return IRKernel(f"gemm_{element.name}", key, len(NAMES), functools.partial(_emit, element))


def _array(builder: Any, kind: Any, length: int) -> Int:
    """The address of an array on the stack."""
    array = builder.alloca(ir.ArrayType(kind, length))
    array.align = 64
    return Int(builder, builder.ptrtoint(array, I64))


class _Frame:
    """The array that tells tiles what does not change between them."""

    def __init__(self, address: Int) -> None:
        self.address = address

    def __getitem__(self, field: int) -> Int:
        return Int(self.address.builder, load(self.address + 8 * field, I64, 8))

    def __setitem__(self, field: int, value: Int) -> None:
        store(value.value, self.address + 8 * field, 8)


def _emit(element: Element, builder: Any, values: Sequence[Any]) -> None:
    """The loops over batch, blocks of k, blocks of rows and panels of columns."""
    shape, module, lanes, size = tile_shape(), builder.module, element.lanes, element.size
    *given, start, stop = (Int(builder, value) for value in values)
    at = dict(zip(NAMES, given, strict=True))
    rows, pack = _rows_function(module, element), pack_function(module, element)
    copy = copy_function(module, element)
    fields, tail = Frame.A_ROW + max(shape.heights) // 2, lanes * shape.broadest * lanes * size
    frame = _Frame(_array(builder, I64, fields))
    frame[Frame.TAIL] = _array(builder, element.type, tail // size)
    # A packed keeps its order, rows or columns contiguous: only its lines move together
    packs_a = at["a_packing"] != 0
    upright = at["a_col"] != size
    line_is_column = builder.and_(packs_a, upright)
    a_row = Int(builder, size).where(line_is_column, at["a_line"].where(packs_a, at["a_row"]))
    for i in range(1, max(shape.heights), 2):
        frame[Frame.A_ROW + i // 2] = a_row * i
    frame[Frame.A_COL] = at["a_line"].where(line_is_column, at["a_col"])
    # workspace: a panel of B, a block of A
    panel_row = _panel_row(element)
    panel = frame[Frame.PANEL] = at["workspace"]
    block_of_a = panel + (at["k_block"] * panel_row).where(at["b_packing"] != 0, 0)
    tile_c = _array(builder, element.type, max(shape.heights) * panel_row // size)
    packs_b = at["b_packing"] > Packing.COPY
    by_rows = at["by_rows"] != 0
    units = at["units"]
    with loop(*matrices(at, start, stop)) as matrix:
        a, b, c, *e = of_matrix(at, matrix)
        first, last = (start - matrix * units).max(0), (stop - matrix * units).min(units)
        row0, row1 = first.where(by_rows, 0), last.where(by_rows, at["m"])
        col0 = Int(builder, 0).where(by_rows, first * lanes)
        col1 = at["n"].where(by_rows, (last * lanes).min(at["n"]))
        vectors = (col1 - col0 + (lanes - 1)) // lanes
        with loop(0, at["k"].max(1), at["k_block"]) as k0:
            depth = at["k_block"].min(at["k"] - k0)
            frame[Frame.ADD] = depth.flag(builder.or_(k0 > 0, at["accumulate"] != 0))
            epilogue = at["epilogue"].where(k0 + at["k_block"] >= at["k"], 0)
            with loop(row0, row1, at["m_block"]) as i0:
                height = at["m_block"].min(row1 - i0)
                block = a + at["a_row"] * i0 + at["a_col"] * k0
                with builder.if_then(packs_a):
                    lines, length = depth.where(upright, height), height.where(upright, depth)
                    line = at["a_col"].where(upright, at["a_row"])
                    call(pack, builder, [Int(builder, Packing.COPY), block, line, line, block_of_a, at["a_line"],
                                         lines, length])  # fmt: skip
                block = block_of_a.where(packs_a, block)
                with pieces(Int(builder, 0), vectors, at["panel_vectors"]) as part:
                    breadth, j0 = part.step, col0 + part.at * lanes
                    columns = (breadth * lanes).min(col1 - j0)
                    frame[Frame.LANES] = columns - (breadth - 1) * lanes
                    source = b + at["b_row"] * k0 + at["b_col"] * j0
                    with builder.if_then(packs_b):
                        call(pack, builder, [at["b_packing"], source, at["b_row"], at["b_col"], panel,
                                             breadth * (lanes * size), depth, columns])  # fmt: skip
                    # the last rows, if a vector that starts in them would end behind B
                    behind = breadth * (lanes * size) - columns * size

                    def unsafe_rows(behind: Int = behind, k0: Int = k0, depth: Int = depth) -> list[Int]:
                        rows = (behind + at["b_row"] - 1) // at["b_row"]
                        return [(rows + k0 + depth - at["k"]).max(0).min(depth)]

                    over = builder.and_(behind > 0, at["b_packing"] <= Packing.COPY)
                    (unsafe,) = only_if(over, [Int(builder, 0)], unsafe_rows)
                    with builder.if_then(unsafe > 0):
                        call(copy, builder, [source + at["b_row"] * (depth - unsafe), at["b_row"], frame[Frame.TAIL],
                                             breadth * (lanes * size), unsafe, columns])  # fmt: skip
                    frame[Frame.K], frame[Frame.K_TAIL] = depth - unsafe, unsafe
                    frame[Frame.B_ROW] = (breadth * (lanes * size)).where(packs_b, at["b_row"])
                    to = c + at["c_row"] * i0 + at["c_col"] * j0
                    detours = at["c_col"] != size
                    if not target().masks:
                        detours = builder.or_(detours, behind > 0)
                    fuses = builder.and_(at["b_packing"] == Packing.COPY, height >= PACKING_PAYS)
                    fuses = Int(builder, 0).where(detours, height.flag(fuses))
                    frame[Frame.C_ROW] = Int(builder, panel_row).where(detours, at["c_row"])
                    call(rows, builder, [frame.address, breadth, fuses, height, columns, block,
                                         panel.where(packs_b, source), to, at["c_row"], at["c_col"],
                                         tile_c.where(detours, 0)])  # fmt: skip
                    operands = []
                    for number, address in enumerate(e):
                        row, col = at[f"e{number}_row"], at[f"e{number}_col"]
                        operands += [address + row * i0 + col * j0, row, col]
                    apply(module, element, builder, epilogue, (to, at["c_row"], at["c_col"]), height, columns,
                          operands)  # fmt: skip


def _rows_function(module: Any, element: Element) -> Any:
    """`rows(frame, breadth, fuses, height, columns, a, b, c, c row, c column, detour)`: all rows of one panel, cut
    into tiles of nearly equal height. `fuses`: the first tile packs B for the others; `detour`: where tiles lie
    on their way to a C that vectors cannot be stored to, or 0."""
    made, builder, given = function(module, f"rows_{element.suffix}", 11)
    address, breadth, fuses, height, columns, a, b, c, c_row, c_col, detour = given
    frame, shape = _Frame(address), tile_shape()
    gather, scatter = gather_function(module, element), scatter_function(module, element)

    def dispatch(rows: Int, sizes: list[tuple[int, int]], packs: bool, arguments: list[Int]) -> None:
        """Call the tile of this many rows and vectors."""
        done = builder.append_basic_block("tile_done")
        switch = builder.switch((breadth * 64 + rows).value, done)
        for n_rows, vectors in sizes:
            case = builder.append_basic_block(f"tile_{n_rows}x{vectors}")
            switch.add_case(ir.Constant(I64, vectors * 64 + n_rows), case)
            builder.position_at_end(case)
            call(tile_function(module, element, n_rows, vectors, packs), builder, arguments)
            builder.branch(done)
        builder.position_at_end(done)

    first, most = shape.packing
    with builder.if_then(fuses != 0):
        dispatch(Int(builder, first), [(first, vectors) for vectors in range(1, most + 1)], True,
                 [address, a, b, c])  # fmt: skip
        frame[Frame.B_ROW] = breadth * (element.lanes * element.size)
        frame[Frame.K], frame[Frame.K_TAIL] = frame[Frame.K] + frame[Frame.K_TAIL], Int(builder, 0)
    b = frame[Frame.PANEL].where(fuses != 0, b)
    above = fuses * first
    tallest = Int(builder, shape.heights[-1])
    for vectors, rows_of_it in enumerate(shape.heights[:-1], 1):
        tallest = Int(builder, rows_of_it).where(breadth == vectors, tallest)
    sizes = [(rows, vectors) for vectors, most in enumerate(shape.heights, 1) for rows in range(1, most + 1)
             if rows <= EVEN or rows % 2 == 0]  # fmt: skip
    a_row, panel_row = frame[Frame.A_ROW], Int(builder, _panel_row(element))
    detours = detour != 0
    with pieces(above, height, tallest, unit=2) as here:
        i, rows = here.at, here.step
        rows = here.step = ((rows + 1) // 2).where(builder.and_(rows > EVEN, rows & 1 != 0), rows)
        to = c + c_row * i
        with builder.if_then(builder.and_(detours, frame[Frame.ADD] != 0), likely=False):
            call(gather, builder, [to, c_row, c_col, detour, panel_row, rows, columns])
        dispatch(rows, sizes, False, [address, a + a_row * i, b, detour.where(detours, to)])
        with builder.if_then(detours, likely=False):
            call(scatter, builder, [detour, panel_row, to, c_row, c_col, rows, columns])
    builder.ret_void()
    return made
