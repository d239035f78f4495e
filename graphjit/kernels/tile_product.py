"""float32 products on a CPU's tile unit (Intel AMX), which multiplies bfloat16 numbers and adds them up in float32.

With each operand split into three (see `split`), six of nine partial products give float32's precision: errors are no
larger than those of a chain of multiply-adds, as the unit adds up 32 products from zero before it adds to C. It takes
16 times as many products a cycle as the vector units, so with six for one there is a factor of 2.7 to gain, less the
splitting: this pays from some 32 rows and columns on.

Splitting makes a NaN of an infinity, and partial products that overflow may cancel to one. So where an operand holds
numbers so large, NaNs of the result are computed again by a plain chain of multiply-adds. Numbers below 2**-110 lose
low bits: the unit takes denormal parts for zero.
"""

import functools
from collections.abc import Sequence
from math import ceil
from typing import Any

from llvmlite import ir

from graphjit.kernels import emit
from graphjit.kernels.blocked import MOVE, moved
from graphjit.kernels.emit import F32, I32, Int, call, function, intrinsic, load, loop, pointer, store
from graphjit.kernels.epilogue import apply
from graphjit.kernels.problem import Problem
from graphjit.kernels.slots import ADDRESSES, BATCH, STRIDES, Slots, matrices, of_matrix
from graphjit.kernels.split import CHUNK, DOUBTFUL, LINES, STEPS, split_function
from graphjit.kernels.target import Element, target
from graphjit.kernels.tile_unit import BYTE, configure, release, tiles_function
from graphjit.kernels.tiles import array, balanced
from graphjit.runtime.compiler import IRKernel

NAMES = (*ADDRESSES, *BATCH, *STRIDES, "m", "n", "k", "units", "by_rows", "epilogue", "a_turned", "b_turned", "k_block",
         "m_block")  # fmt: skip

BLOCK = 2 * LINES  # rows and columns of C that are computed together: four of eight tiles hold them
# Measured: steps of k of A that are split together, and of B: what is split of B is to stay in the first-level cache,
# what is split of A in the second.
DEEP, SHALLOW = 16 * STEPS, 2 * STEPS
SPLITTING = 0.45  # cycles a number
_INTS = ir.VectorType(I32, 16)
_SPLIT_B = SHALLOW // STEPS * 2 * CHUNK  # bytes


def fits(problem: Problem, element: Element) -> bool:
    """Whether a product may be computed here."""
    dense = all(1 in (x.row, x.col) and min(x.row, x.col) >= 0 for x in (problem.a, problem.b))
    return target().tile_unit and element.size == 4 and dense and problem.c.col == 1 and problem.k > 0


def arguments(problem: Problem, element: Element) -> tuple[dict[str, int], int, int]:
    """The kernel's arguments by name, but for addresses and strides; the bytes of workspace; and of which numbers of
    units a share is best a multiple."""
    m, n, k = problem.m, problem.n, problem.k
    k_block = _k_block(k)
    chunks = ceil(k_block / STEPS)
    m_block = balanced(m, max(BLOCK, target().l2 // 2 // (CHUNK * chunks) * LINES))
    m_block = ceil(m_block / BLOCK) * BLOCK
    by_rows = _by_rows(problem)
    named = {
        "m": m, "n": n, "k": k, "units": max(1, m if by_rows else ceil(n / LINES)), "by_rows": int(by_rows),
        "a_turned": int(problem.a.col != 1), "b_turned": int(problem.b.col != 1), "k_block": k_block,
        "m_block": m_block,
    }  # fmt: skip
    workspace = _SPLIT_B + m_block // LINES * chunks * CHUNK + m_block * BLOCK * 4
    return named, workspace, BLOCK if by_rows else 2


def _by_rows(problem: Problem) -> bool:
    """Whether units are rows, or else vectors of columns: each share splits all of the other operand."""
    m, n, k = problem.m, problem.n, problem.k
    if min(m, n) <= BLOCK:
        return m > n
    rows, columns = MOVE * moved(problem, True), MOVE * moved(problem, False)
    return rows + SPLITTING * k * n < columns + SPLITTING * m * k


def _k_block(k: int) -> int:
    return ceil(balanced(k, DEEP) / STEPS) * STEPS


def cycles(problem: Problem, element: Element) -> float:
    """An estimate of the time, to choose between ways to compute the same product, fitted to what 400 products took."""
    m, n, k = problem.m, problem.n, problem.k
    rows, columns, chunks = ceil(m / LINES), ceil(n / LINES), ceil(k / STEPS)
    # chunks that do not fill their 16 lines and 32 steps are copied first
    edges = 160 * (k % STEPS > 0) * (rows + columns) + 300 * ((m % LINES > 0) + (n % LINES > 0)) * chunks
    direct = k <= SHALLOW and m % LINES == n % LINES == 0
    storing = (0.1 + 0.4 * (not direct) + 0.15 * (8 * m * n > target().l2)) * m * n
    # the estimate of blocked products is a few hundredths too low, so this one is to be as well
    return 0.94 * (140 * rows * columns * chunks + sum(_splitting(problem)) + edges + storing + 600)


def repeated(problem: Problem) -> float:
    """Of the cycles, those that each share spends on the operand that all read."""
    return 0.94 * _splitting(problem)[1 if _by_rows(problem) else 0]


def _splitting(problem: Problem) -> tuple[float, float]:
    """Of A, and of B."""
    far_a, far_b = (4 * size > target().l2 // 4 for size in (problem.m * problem.k, problem.k * problem.n))
    return (((0.7 if problem.a.col != 1 else 0.52) + 0.5 * far_a) * problem.m * problem.k,
            ((0.34 if problem.b.col == 1 else 0.56) + 0.1 * far_b) * problem.k * problem.n)


@functools.cache
def tile_kernel(element: Element) -> IRKernel:
    """The kernel."""
    return IRKernel("tile_product", (), len(NAMES), functools.partial(_emit, element))


def _emit(element: Element, builder: Any, values: Sequence[Any]) -> None:
    """The loops over batch, blocks of k, blocks of rows and panels of columns."""
    module = builder.module
    at = Slots(builder, NAMES)
    start, stop = (Int(builder, value) for value in values[-2:])
    zero, by_rows = Int(builder, 0), at["by_rows"] != 0
    doubt = array(builder, I32, 16)
    store(ir.Constant(_INTS, [-1] * 16), doubt, 64)
    configure(module, builder)
    with loop(*matrices(at, start, stop)) as matrix:
        a, b, c, *e = of_matrix(at, matrix)
        units = at["units"]
        first, last = (start - matrix * units).max(0), (stop - matrix * units).min(units)
        row0, row1 = first.where(by_rows, 0), last.where(by_rows, at["m"])
        column0, column1 = zero.where(by_rows, first * LINES), at["n"].where(by_rows, (last * LINES).min(at["n"]))
        with loop(0, at["k"].max(1), at["k_block"]) as k0:
            depth = at["k_block"].min(at["k"] - k0)
            chunks = (depth + (STEPS - 1)) // STEPS
            ends = k0 + at["k_block"] >= at["k"]
            with loop(row0, row1, at["m_block"]) as i0:
                height = at["m_block"].min(row1 - i0)
                split_b = at["workspace"]
                split_a = split_b + _SPLIT_B
                panel = split_a + (at["m_block"] // LINES * CHUNK) * chunks
                call(split_function(module, element, "a"), builder,
                     [a + at["a_row"] * i0 + at["a_col"] * k0, at["a_row"], at["a_col"], at["a_turned"], height, depth,
                      split_a, doubt])  # fmt: skip
                with loop(column0, column1, BLOCK) as j0:
                    columns = (column1 - j0).min(BLOCK)
                    to = c + at["c_row"] * i0 + j0 * 4
                    direct = builder.and_(depth <= SHALLOW, (height % LINES + columns % LINES) == 0)
                    sums, sums_row = to.where(direct, panel), at["c_row"].where(direct, 4 * BLOCK)
                    with loop(0, depth, SHALLOW) as k1:
                        part = (depth - k1).min(SHALLOW)
                        call(split_function(module, element, "b"), builder,
                             [b + at["b_row"] * (k0 + k1) + at["b_col"] * j0, at["b_col"], at["b_row"], at["b_turned"],
                              columns, part, split_b, doubt])  # fmt: skip
                        # While tiles are multiplied, memory can bring what is split next; not what another thread
                        # has in its cache and may want to write.
                        ahead = (k1 + SHALLOW) < depth
                        next_k, next_j = (k1 + SHALLOW).where(ahead, 0), j0.where(ahead, j0 + BLOCK)
                        following = b + at["b_row"] * (k0 + next_k) + at["b_col"] * next_j
                        with loop(0, height, BLOCK) as i:
                            with builder.if_then(next_j < column1):
                                _prefetch(module, at, following, i, height)
                            line = i // LINES * chunks + k1 // STEPS
                            call(tiles_function(module), builder,
                                 [split_a + line * CHUNK, chunks * CHUNK, split_b, (part + (STEPS - 1)) // STEPS,
                                  sums + sums_row * i, sums_row, height - i, columns,
                                  k1 + k0.where(direct, 0)])  # fmt: skip
                    with builder.if_then(builder.not_(direct)):
                        _copy_out(module, element, panel, to, at["c_row"], height, columns, k0)
                    with builder.if_then(ends):
                        with builder.if_then(_may_overflow(module, builder, doubt), likely=False):
                            call(_repair_function(module), builder,
                                 [a + at["a_row"] * i0, at["a_row"], at["a_col"], b + at["b_col"] * j0, at["b_row"],
                                  at["b_col"], to, at["c_row"], height, columns, at["k"]])  # fmt: skip
                        operands = []
                        for number, address in enumerate(e):
                            row, col = at[f"e{number}_row"], at[f"e{number}_col"]
                            operands += [address + row * i0 + col * j0, row, col]
                        apply(module, element, builder, at["epilogue"], (to, at["c_row"], at["c_col"]), height, columns,
                              operands)  # fmt: skip
    release(module, builder)


def _may_overflow(module: Any, builder: Any, doubt: Int) -> Any:
    least = intrinsic(module, "llvm.vector.reduce.umin.v16i32", I32, _INTS)
    return builder.icmp_unsigned("<=", builder.call(least, [load(doubt, _INTS, 64)]), I32(DOUBTFUL))


def _prefetch(module: Any, at: Slots, b: Int, i: Int, height: Int) -> None:
    """For rows from i on of a block, their share of the next part of B."""
    builder = at.builder
    fetch = intrinsic(module, "llvm.prefetch.p0", ir.VoidType(), BYTE.as_pointer(), I32, I32, I32)
    turned = at["b_turned"] != 0
    line = at["b_col"].where(turned, at["b_row"])
    many, width = Int(builder, BLOCK).where(turned, SHALLOW), Int(builder, 4 * SHALLOW).where(turned, 4 * BLOCK)
    with loop(many * i // height, many * (i + BLOCK).min(height) // height) as r, loop(0, width, 64) as byte:
        builder.call(fetch, [pointer(b + line * r + byte, BYTE), I32(0), I32(2), I32(1)])


def _copy_out(module: Any, element: Element, panel: Int, c: Int, c_row: Int, rows: Int, columns: Int, add: Int) -> None:
    """A panel of sums goes to C, or is added to it."""
    builder = panel.builder
    with loop(0, rows) as i:
        for v in (0, 16):
            to, live = c + c_row * i + 4 * v, (columns - v).max(0).min(16)
            total = load(panel + i * (4 * BLOCK) + 4 * v, element.vector, 64)
            old = emit.masked_load(module, element, to, live.where(add != 0, 0))
            emit.masked_store(module, element, builder.fadd(total, old), to, live)


def _repair_function(module: Any) -> Any:
    """`repair(a, a row, a column, b, b row, b column, c, c row, rows, columns, k)`: elements of C that are NaN once
    more, as chains of multiply-adds."""
    name = "tile_repair"
    if name in module.globals:
        return module.globals[name]
    made, builder, (a, a_row, a_col, b, b_row, b_col, c, c_row, rows, columns, k) = function(module, name, 11)
    multiply_add = intrinsic(module, "llvm.fma.f32", F32, F32, F32, F32)
    with loop(0, rows) as i, loop(0, columns) as j:
        to = c + c_row * i + j * 4
        found = load(to, F32, 4)
        with builder.if_then(builder.fcmp_unordered("uno", found, found)):
            store(F32(0.0), to, 4)
            with loop(0, k) as step:
                x = load(a + a_row * i + a_col * step, F32, 4)
                y = load(b + b_row * step + b_col * j, F32, 4)
                store(builder.call(multiply_add, [x, y, load(to, F32, 4)]), to, 4)
    builder.ret_void()
    return made
