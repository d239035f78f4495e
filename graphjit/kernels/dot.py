"""Products with few columns: every element of C is a dot product of a contiguous row of A and column of B.

A matrix times a vector or a few of them, or one row of activations times W^T (W stored row by row of outputs): there
the vectors of a register tile would be mostly empty, or packing would cost more than the product. Here they lie
along k; A is read once, where it is.

Each element is `lanes` chains of multiply-adds, then a tree: the same in every tile, so cutting changes no bit.
"""

import functools
from collections.abc import Sequence
from math import ceil
from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import I32, I64, Int, call, function, intrinsic, load, loop, masked_load, store
from graphjit.kernels.epilogue import apply
from graphjit.kernels.packing import gather_function
from graphjit.kernels.problem import Problem
from graphjit.kernels.slots import ADDRESSES, BATCH, STRIDES, Slots, matrices, of_matrix
from graphjit.kernels.target import Element
from graphjit.runtime.compiler import IRKernel

HEIGHTS = (8, 4, 4, 4)  # rows of A taken together with 1, 2, 3, 4 columns of B
NAMES = (*ADDRESSES, *BATCH, *STRIDES, "units", "columns", "k", "accumulate", "epilogue", "b_packing")


def arguments(problem: Problem, element: Element) -> tuple[dict[str, int], int, int]:
    """The kernel's arguments by name, but for addresses and strides; the bytes of workspace; and of which numbers of
    units a share is best a multiple."""
    packs = problem.b.row != 1
    named = {"units": max(1, problem.m), "columns": problem.n, "k": problem.k, "b_packing": int(packs)}
    return named, problem.n * problem.k * element.size if packs else 0, max(HEIGHTS)


def cycles(problem: Problem, element: Element) -> float:
    """An estimate of the time, to choose between ways to compute the same product."""
    m, n, k = problem.m, problem.n, problem.k
    widths = [min(n - j, len(HEIGHTS)) for j in range(0, n, len(HEIGHTS))]
    step = sum(max(0.6 * width, 0.6 * (1 + width / HEIGHTS[width - 1]))
               * (ceil(m / HEIGHTS[width - 1]) * HEIGHTS[width - 1]) for width in widths)  # fmt: skip
    packing = 1.5 * n * k if problem.b.row != 1 else 0.0
    return step * (ceil(k / element.lanes) + 1) + 3 * m * (n + len(widths)) + packing


@functools.cache
def dot_kernel(element: Element) -> IRKernel:
    """The kernel for a dtype."""
    return IRKernel(f"dot_{element.name}", (element.suffix,), len(NAMES), functools.partial(_emit, element))


def _emit(element: Element, builder: Any, values: Sequence[Any]) -> None:
    """The loops over batch, columns of B and rows of A."""
    module, size = builder.module, element.size
    at = Slots(builder, NAMES)
    start, stop = (Int(builder, value) for value in values[-2:])
    gather = gather_function(module, element)
    tiles = [_dot_function(module, element, rows, width) for width, rows in enumerate(HEIGHTS, 1)]
    widest, tallest = len(HEIGHTS), max(HEIGHTS)
    sums = Int(builder, builder.ptrtoint(builder.alloca(ir.ArrayType(element.type, widest * tallest)), I64))
    units, n, k, c_row, c_col = (at[name] for name in ("units", "columns", "k", "c_row", "c_col"))
    with loop(*matrices(at, start, stop)) as matrix:
        a, b, c, *e = of_matrix(at, matrix)
        packs, dense = at["b_packing"] != 0, k * size
        with builder.if_then(packs):
            call(gather, builder, [b, at["b_col"], at["b_row"], at["workspace"], dense, n, k])
        b, b_col = at["workspace"].where(packs, b), dense.where(packs, at["b_col"])
        first, last = (start - matrix * units).max(0), (stop - matrix * units).min(units)
        with loop(0, n, widest) as j0:
            width = (n - j0).min(widest)
            height = Int(builder, HEIGHTS[0]).where(width == 1, HEIGHTS[-1])
            with loop(first, last, height) as i0:
                live = height.min(last - i0)
                done = builder.append_basic_block("tile_done")
                switch = builder.switch(width.value, done)
                for which, tile in enumerate(tiles, 1):
                    case = builder.append_basic_block(f"tile_{which}")
                    switch.add_case(ir.Constant(I64, which), case)
                    builder.position_at_end(case)
                    call(tile, builder, [a + at["a_row"] * i0, at["a_row"], b + b_col * j0, b_col, k, live, sums])
                    builder.branch(done)
                builder.position_at_end(done)
                with loop(0, width) as j:
                    to, from_ = c + c_row * i0 + c_col * (j0 + j), sums + j * (tallest * size)
                    with loop(0, live) as i:
                        value, place = load(from_ + i * size, element.type, size), to + c_row * i
                        before = builder.block
                        with builder.if_then(at["accumulate"] != 0):
                            more = builder.fadd(load(place, element.type, size), value)
                            adding = builder.block
                        total = builder.phi(element.type)
                        total.add_incoming(value, before)
                        total.add_incoming(more, adding)
                        store(total, place, size)
        # a single column is the row that epilogues take many numbers of at a time
        count, turned = last - first, n == 1
        operands = []
        for number, address in enumerate(e):
            e_row, e_col = at[f"e{number}_row"], at[f"e{number}_col"]
            operands += [address + e_row * first, e_col.where(turned, e_row), e_row.where(turned, e_col)]
        apply(module, element, builder, at["epilogue"],
              (c + c_row * first, c_col.where(turned, c_row), c_row.where(turned, c_col)),
              n.where(turned, count), count.where(turned, n), operands)  # fmt: skip


def _dot_function(module: Any, element: Element, height: int, width: int) -> Any:
    """`dot(a, a row, b, b column, k, live, sums)`: sums[j, i] for `live` of `height` rows i."""
    name = f"dot_{element.suffix}_{height}x{width}"
    if name in module.globals:
        return module.globals[name]
    made, b, (rows, row, columns, column, k, live, sums) = function(module, name, 7)
    kind, lanes, size = element.vector, element.lanes, element.size
    fma = intrinsic(module, f"llvm.fmuladd.{element.suffix}", kind, kind, kind, kind)
    zero = ir.Constant(kind, None)
    # rows that are not live repeat the last one that is
    x_rows = [rows + row * (live - 1).min(i) for i in range(height)]
    y_rows = [columns + column * j for j in range(width)]
    cells = [(i, j) for i in range(height) for j in range(width)]

    def multiply(at: Int, chains: dict[Any, Any], read: Any) -> dict[Any, Any]:
        y = [read(row + at) for row in y_rows]
        after = {}
        for i in range(height):
            x = read(x_rows[i] + at)
            for j in range(width):
                after[i, j] = b.call(fma, [x, y[j], chains[i, j]])
        return after

    whole = k // lanes
    before, body, tail = b.block, b.append_basic_block("k"), b.append_basic_block("tail")
    b.cbranch(whole > 0, body, tail)
    b.position_at_end(body)
    at, left = Int(b, b.phi(I64)), Int(b, b.phi(I64))
    chains = {cell: b.phi(kind) for cell in cells}
    following = multiply(at, chains, lambda address: load(address, kind, size))
    further, less = at + lanes * size, left - 1
    b.cbranch(less > 0, body, tail)
    for phi, first, then in [(at.value, I64(0), further.value), (left.value, whole.value, less.value),
                             *((chains[cell], zero, following[cell]) for cell in cells)]:  # fmt: skip
        phi.add_incoming(first, before)
        phi.add_incoming(then, body)
    b.position_at_end(tail)
    totals = {cell: b.phi(kind) for cell in cells}
    for cell, phi in totals.items():
        phi.add_incoming(zero, before)
        phi.add_incoming(following[cell], body)
    rest = k - whole * lanes
    totals = multiply(whole * (lanes * size), totals, lambda at: masked_load(module, element, at, rest))
    group = min(4, lanes)
    for j in range(width):
        for i in range(0, height, group):
            summed = _sum_each(b, [totals[i + r, j] for r in range(group)])
            store(summed, sums + (j * max(HEIGHTS) + i) * size, size)
    b.ret_void()
    return made


def _sum_each(b: Any, vectors: list[Any]) -> Any:
    """The vector of the sums of each vector's numbers."""

    def shuffle(x: Any, y: Any, order: Sequence[int]) -> Any:
        return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(order)), list(order)))

    while vectors[0].type.count > len(vectors):
        half = vectors[0].type.count // 2
        vectors = [b.fadd(shuffle(x, x, range(half)), shuffle(x, x, range(half, 2 * half))) for x in vectors]
    while len(vectors) > 1:
        count = 2 * vectors[0].type.count
        vectors = [b.fadd(shuffle(x, y, range(0, count, 2)), shuffle(x, y, range(1, count, 2)))
                   for x, y in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors[0]
