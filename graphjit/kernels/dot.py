"""Products with few columns: every element of C is a dot product of a contiguous row of A and column of B.

A matrix times a vector or a few of them, or one row of activations times W^T (W stored row by row of outputs): there
the vectors of a register tile would be mostly empty, or packing would cost more than the product. Here they lie
along k; A is read once, where it is.
"""

import functools
from collections.abc import Sequence
from math import ceil
from typing import Any

from graphjit.kernels.dot_tiles import LINES, dot_table, heights, rows_at_once
from graphjit.kernels.emit import Int, call, load, loop, store
from graphjit.kernels.epilogue import apply
from graphjit.kernels.packing import FEW, Packing, apart_function, pack_function
from graphjit.kernels.problem import Problem
from graphjit.kernels.slots import ADDRESSES, BATCH, BATCH_STRIDES, STRIDES, Slots, matrices, of_matrix
from graphjit.kernels.target import Element, target
from graphjit.kernels.tiles import array, balanced, call_tile, tile_heights
from graphjit.runtime.compiler import IRKernel

ENOUGH = 12  # rows for which it pays to read them by lines

NAMES = (*ADDRESSES, *BATCH, *STRIDES, "units", "columns", "k", "accumulate", "epilogue", "b_packing", "width",
         "heights", "lines", *BATCH_STRIDES)  # fmt: skip


def arguments(problem: Problem, element: Element) -> tuple[dict[str, int], int, int]:
    """The kernel's arguments by name, but for addresses and strides; the bytes of workspace; and of which numbers of
    units a share is best a multiple."""
    packing, width, by_width, workspace = cut(problem, element)
    named = {"units": max(1, problem.m), "columns": problem.n, "k": problem.k, "b_packing": int(packing),
             "width": width, "heights": by_width, "lines": _lines(problem, element)}  # fmt: skip
    return named, workspace, by_width >> 8 * (width - 1) & 255


def cut(problem: Problem, element: Element) -> tuple[Packing, int, int, int]:
    """How B is packed, columns of a tile, rows of tiles by columns, bytes of workspace."""
    packing = _b_packing(problem)
    workspace = problem.n * ceil(problem.k / element.lanes) * target().vector if packing else 0
    return packing, balanced(problem.n, len(heights())), tile_heights(problem.m, heights()), workspace


def _lines(problem: Problem, element: Element) -> int:
    """Rows of A that are read at once, each to its end, where a single column of B stays in registers; 0: none are."""
    vectors = ceil(problem.k / element.lanes)
    if not target().assembly or problem.n > 1 or problem.c.row != 1 or problem.m < ENOUGH or not 0 < vectors <= LINES:
        return 0
    return rows_at_once(vectors)


def _b_packing(problem: Problem) -> Packing:
    """How columns of B are made contiguous."""
    if problem.b.row == 1 or problem.k == 0:
        return Packing.NONE
    return Packing.TRANSPOSE if problem.b.col == 1 else Packing.GATHER


def cycles(problem: Problem, element: Element) -> float:
    """An estimate of the time, to choose between ways to compute the same product. Its numbers are fitted to the time
    that 1,400 products took, and 250 that are read by lines; on average they are 18 % off, and 16 %."""
    m, n, k, lanes = problem.m, problem.n, problem.k, element.lanes
    packing, c = _b_packing(problem), problem.c
    # rows that lie across two cache lines; what comes from beyond the first-level cache
    split_a, split_b = (row % lanes != 0 for row in (problem.a.row, 0 if packing else problem.b.col))
    far_a, far_b = (3 * size * element.size > 2 * target().l1 for size in (m * k, n * k))

    def tile(height: int, width: int) -> float:
        step = max(0.54 * height * width, 0.42 * (height * (1 + 1.4 * split_a) + width * (1 + 1.4 * split_b)), 4)
        apart = 1.5 * (c.col != 1 and width > 1)  # numbers that are not stored in rows
        return ceil(k / lanes) * step + (0.46 + apart) * height * width + 15

    def column(width: int) -> float:
        height = balanced(m, heights()[width - 1])
        tiles = m // height * tile(height, width) + (tile(m % height, width) if m % height else 0)
        return tiles + 0.045 * far_a * m * k

    if rows := _lines(problem, element):
        vectors, rest = ceil(k / lanes), m % rows
        turn = 0.54 * rows * vectors + 0.56 * rows + 5.4
        total = 50 + m // rows * turn + (rest > 0) * (15 + rest * vectors) + 0.02 * far_a * m * k
    else:
        width = balanced(n, len(heights()))
        total = 31 + 0.045 * far_b * n * k + n // width * column(width) + (column(n % width) if n % width else 0)
    if packing:  # from and to memory beyond the second-level cache, where B and its copy together are larger
        far = 8 * n * k * element.size > 3 * target().l2
        each = 0.08 if packing is Packing.TRANSPOSE and n * element.size >= 16 else 0.2
        if packing is Packing.TRANSPOSE and n <= FEW and problem.b.row == n and k >= lanes:
            each = 0.04
        total += 27 + (each + 0.18 * far) * n * k * element.size
    return total


@functools.cache
def dot_kernel(element: Element) -> IRKernel:
    """The kernel for a dtype."""
    key = (element.suffix, heights(), target().assembly)
    return IRKernel(f"dot_{element.name}", key, len(NAMES), functools.partial(_emit, element))


def _emit(element: Element, builder: Any, values: Sequence[Any]) -> None:
    """The loops over batch, columns of B and rows of A."""
    module = builder.module
    at = Slots(builder, NAMES)
    start, stop = (Int(builder, value) for value in values[-2:])
    sums = sums_array(builder, element)
    units, n, k = (at[name] for name in ("units", "columns", "k"))
    dense = builder.and_(at["b_packing"] == Packing.TRANSPOSE, at["b_row"] == n * element.size)
    few = builder.and_(dense, builder.and_(n <= FEW, k >= element.lanes))
    with loop(*matrices(at, start, stop)) as matrix:
        a, b, c, *e = of_matrix(at, matrix)
        c_row, c_col = at["c_row"], at["c_col"]
        first, last = (start - matrix * units).max(0), (stop - matrix * units).min(units)
        put_sums(element, at, sums, (at["b_packing"], at["workspace"], at["width"], at["heights"]),
                 (first, last, n, k), (a, b, c), at["accumulate"] != 0, few, at["lines"])  # fmt: skip
        # a single column is the row that epilogues take many numbers of at a time
        count, turned = last - first, n == 1
        operands = []
        for number, address in enumerate(e):
            e_row, e_col = at[f"e{number}_row"], at[f"e{number}_col"]
            operands += [address + e_row * first, e_col.where(turned, e_row), e_row.where(turned, e_col)]
        apply(module, element, builder, at["epilogue"],
              (c + c_row * first, c_col.where(turned, c_row), c_row.where(turned, c_col)),
              n.where(turned, count), count.where(turned, n), operands)  # fmt: skip


def sums_array(builder: Any, element: Element) -> Int:
    """The address of an array on the stack for the sums of a tile."""
    most = max(width * height for width, height in enumerate(heights(), 1))
    return array(builder, element.type, most)


def put_sums(element: Element, at: Slots, sums: Int, how: Sequence[Int], sizes: Sequence[Int], places: Sequence[Int],
             adds: Any, few: Any = None, lines: Int | None = None) -> None:
    """Rows of C from the first to the last, `n` columns, sums over `k`; how B is packed, where to, and cut. They are
    added to C, if it `adds`. ``few``: whether B is all there is in its memory, and not many columns; ``lines``: how
    many rows are read at once."""
    builder, module, lanes, size = at.builder, at.builder.module, element.lanes, element.size
    (packing, workspace, broadest, by_width), (first, last, n, k), (a, b, c) = how, sizes, places
    pack, table = pack_function(module, element), dot_table(module, element)
    c_row, c_col, a_row = at["c_row"], at["c_col"], at["a_row"]
    packs, line = packing != 0, (k + (lanes - 1)) // lanes * (lanes * size)
    general = packs
    if few is not None:
        general = builder.and_(packs, builder.not_(few))
        with builder.if_then(few):
            call(apart_function(module, element), builder, [b, workspace, line, n, k])
    with builder.if_then(general):
        call(pack, builder, [packing, b, at["b_col"], at["b_row"], workspace, line, n, k])
    b, b_col = workspace.where(packs, b), line.where(packs, at["b_col"])
    with loop(0, n, broadest) as j0:
        width = broadest.min(n - j0)
        tallest = by_width >> (width - 1) * 8 & 255
        detours = builder.or_(adds, builder.and_(width > 1, c_col != size))
        step = (width * size).where(detours, c_row)
        begin = first
        if lines is not None:
            count = last - first - (last - first & lines - 1)
            count = Int(builder, 0).where(detours, count)
            with builder.if_then(count > 0):
                call_tile(table, Int(builder, 0), (k + (lanes - 1)) // lanes, [
                    a + a_row * first, a_row, b, count, k, c + c_row * first, c_row])  # fmt: skip
            begin = first + count
        with loop(begin, last, tallest) as i0:
            height, to = tallest.min(last - i0), c + c_row * i0 + c_col * j0
            call_tile(table, width, height, [a + a_row * i0, a_row, b + b_col * j0, b_col, k, sums.where(detours, to),
                                             step])  # fmt: skip
            with builder.if_then(detours), loop(0, height) as i, loop(0, width) as j:
                _put(element, load(sums + (i * width + j) * size, element.type, size), to + c_row * i + c_col * j, adds)


def _put(element: Element, value: Any, place: Int, adds: Any) -> None:
    """Store a sum where it belongs in C, or add it to what is there."""
    builder = place.builder
    before = builder.block
    with builder.if_then(adds):
        more = builder.fadd(load(place, element.type, element.size), value)
        adding = builder.block
    total = builder.phi(element.type)
    total.add_incoming(value, before)
    total.add_incoming(more, adding)
    store(total, place, element.size)
