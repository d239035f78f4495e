"""Products with a short side: every element of C is a dot product of two contiguous rows.

A matrix times a vector or a few of them, or one row of activations times W^T (W stored row by row of outputs): there
the vectors of a register tile would be mostly empty, or packing would cost more than the product. Here they lie
along k; the long operand is read once, where it is.

Each element is `lanes` chains of multiply-adds, then a tree: the same in every tile, so cutting changes no bit.
"""

import functools
from collections.abc import Sequence
from math import ceil
from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import I1, I32, I64, Int, call, function, intrinsic, load, loop, pointer, store
from graphjit.kernels.epilogue import EPILOGUES
from graphjit.kernels.packing import gather_function
from graphjit.kernels.problem import Problem
from graphjit.kernels.target import Element
from graphjit.runtime.compiler import IRKernel

BATCH_DIMS = 3
HEIGHTS = (8, 4, 4, 4)  # rows of the long operand taken together with 1, 2, 3, 4 rows of the short one

# C[i, j] = sum over k of long[i, k] * short[j, k]; strides in bytes
NAMES = (
    "long", "short", "c", "workspace",
    "units", "columns", "k", "accumulate", "packs",
    "long_row", "short_row", "short_col", "c_row", "c_col",
    "batch1", "batch2",
    "long_batch0", "long_batch1", "long_batch2", "short_batch0", "short_batch1", "short_batch2",
    "c_batch0", "c_batch1", "c_batch2",
)  # fmt: skip
# then for each operand of the epilogue its address, row and column stride, and batch strides
OPERAND = 3 + BATCH_DIMS


def arguments(problem: Problem, element: Element, accumulate: bool) -> tuple[dict[str, Any], int]:
    """The kernel's arguments by name, without operands and batch; and the bytes of workspace."""
    packs = problem.b.row != 1
    named = {
        "long": problem.names[0], "short": problem.names[1],
        "units": max(1, problem.m), "columns": problem.n, "k": problem.k,
        "accumulate": int(accumulate), "packs": int(packs),
    }  # fmt: skip
    return named, problem.n * problem.k * element.size if packs else 0


def cycles(problem: Problem, element: Element) -> float:
    """An estimate of the time, to choose between ways to compute the same product."""
    m, n, k = problem.m, problem.n, problem.k
    widths = [min(n - j, len(HEIGHTS)) for j in range(0, n, len(HEIGHTS))]
    step = sum(max(0.6 * width, 0.6 * (1 + width / HEIGHTS[width - 1]))
               * (ceil(m / HEIGHTS[width - 1]) * HEIGHTS[width - 1]) for width in widths)  # fmt: skip
    packing = 1.5 * n * k if problem.b.row != 1 else 0.0
    return step * (ceil(k / element.lanes) + 1) + 5 * m * n + 5 * m * len(widths) + packing


@functools.cache
def dot_kernel(element: Element, epilogue: str) -> IRKernel:
    """The compiled variant for a dtype and an epilogue."""
    name = f"dot_{element.suffix}_{epilogue}"
    nargs = len(NAMES) + OPERAND * EPILOGUES[epilogue].operands
    return IRKernel(name, (name,), nargs, functools.partial(_emit, element, epilogue))


class _Scalar:
    """One element of C, as an epilogue sees it: a tile of one number."""

    def __init__(self, element: Element, addresses: Sequence[Int], builder: Any) -> None:
        self.element, self.addresses, self.builder = element, addresses, builder

    def constant(self, value: float) -> Any:
        return ir.Constant(self.element.type, value)

    def load(self, operand: int, i: int, j: int) -> Any:
        return load(self.addresses[operand], self.element.type, self.element.size)


def _emit(element: Element, epilogue: str, builder: Any, values: Sequence[Any]) -> None:
    """The loops over batch, rows of the short operand and rows of the long one."""
    *given, start, stop = (Int(builder, value) for value in values)
    at = dict(zip(NAMES, given, strict=False))
    extras = given[len(NAMES):]
    module, size = builder.module, element.size
    gather = gather_function(module, element)
    tiles = [_dot_function(module, element, height, width) for width, height in enumerate(HEIGHTS, 1)]
    widest, tallest = len(HEIGHTS), max(HEIGHTS)
    sums = Int(builder, builder.ptrtoint(builder.alloca(ir.ArrayType(element.type, widest * tallest)), I64))
    with loop(start // at["units"], (stop + at["units"] - 1) // at["units"]) as matrix:
        outer = matrix // at["batch2"]
        z = outer // at["batch1"], outer % at["batch1"], matrix % at["batch2"]

        def offset(strides: Sequence[Int], z: tuple[Int, ...] = z) -> Int:
            return z[0] * strides[0] + z[1] * strides[1] + z[2] * strides[2]

        long, short, c = (at[x] + offset([at[f"{x}_batch{axis}"] for axis in range(BATCH_DIMS)])
                          for x in ("long", "short", "c"))  # fmt: skip
        operands = [extras[i] + offset(extras[i + 3 : i + OPERAND]) for i in range(0, len(extras), OPERAND)]
        packs = at["packs"] != 0
        dense = at["k"] * size
        with builder.if_then(packs):
            call(gather, builder, [short, at["short_row"], at["short_col"], at["workspace"], dense,
                                   at["columns"], at["k"]])  # fmt: skip
        short, short_row = at["workspace"].where(packs, short), dense.where(packs, at["short_row"])
        first = (start - matrix * at["units"]).max(0)
        last = (stop - matrix * at["units"]).min(at["units"])
        with loop(0, at["columns"], widest) as j0:
            width = (at["columns"] - j0).min(widest)
            height = Int(builder, HEIGHTS[0]).where(width == 1, HEIGHTS[-1])
            with loop(first, last, height) as i0:
                live = height.min(last - i0)
                arguments = [long + at["long_row"] * i0, at["long_row"], short + short_row * j0, short_row,
                             at["k"], live, sums]  # fmt: skip
                done = builder.append_basic_block("tile_done")
                switch = builder.switch(width.value, done)
                for count, tile in enumerate(tiles, 1):
                    case = builder.append_basic_block(f"tile_{count}")
                    switch.add_case(ir.Constant(I64, count), case)
                    builder.position_at_end(case)
                    call(tile, builder, arguments)
                    builder.branch(done)
                builder.position_at_end(done)
                with loop(0, live) as i, loop(0, width) as j:
                    row, column = i0 + i, j0 + j
                    to = c + at["c_row"] * row + at["c_col"] * column
                    value = load(sums + (j * tallest + i) * size, element.type, size)
                    before = builder.block
                    with builder.if_then(at["accumulate"] != 0):
                        more = builder.fadd(load(to, element.type, size), value)
                        adding = builder.block
                    total = builder.phi(element.type)
                    total.add_incoming(value, before)
                    total.add_incoming(more, adding)
                    addresses = [operand + extras[OPERAND * e + 1] * row + extras[OPERAND * e + 2] * column
                                 for e, operand in enumerate(operands)]  # fmt: skip
                    result = EPILOGUES[epilogue].emit(_Scalar(element, addresses, builder), total, 0, 0)
                    store(result, to, size)


def _dot_function(module: Any, element: Element, height: int, width: int) -> Any:
    """`dot(long, long row, short, short row, k, live, sums)`: sums[j, i] for `live` of `height` rows i."""
    name = f"dot_{element.suffix}_{height}x{width}"
    if name in module.globals:
        return module.globals[name]
    made, b, (long, long_row, short, short_row, k, live, sums) = function(module, name, 7)
    kind, lanes, size = element.vector, element.lanes, element.size
    fma = intrinsic(module, f"llvm.fmuladd.{element.suffix}", kind, kind, kind, kind)
    masked_load = intrinsic(module, f"llvm.masked.load.{element.suffix}.p0", kind, kind.as_pointer(), I32,
                            ir.VectorType(I1, lanes), kind)
    zero = ir.Constant(kind, [0.0] * lanes)
    # rows that are not live repeat the last one that is
    long_rows = [long + long_row * (live - 1).min(i) for i in range(height)]
    short_rows = [short + short_row * j for j in range(width)]
    cells = [(i, j) for i in range(height) for j in range(width)]

    def multiply(at: Int, chains: dict[Any, Any], read: Any) -> dict[Any, Any]:
        y = [read(row + at) for row in short_rows]
        after = {}
        for i in range(height):
            x = read(long_rows[i] + at)
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
    rest = b.trunc((k - whole * lanes).value, I32)
    index = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
    spread = b.insert_element(ir.Constant(index.type, ir.Undefined), rest, I32(0))
    spread = b.shuffle_vector(spread, spread, ir.Constant(index.type, [0] * lanes))
    mask = b.icmp_unsigned("<", index, spread)
    totals = multiply(whole * (lanes * size), totals,
                      lambda address: b.call(masked_load, [pointer(address, kind), I32(size), mask, zero]))
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
