"""float32 products on a CPU's tile unit (Intel AMX), which multiplies bfloat16 numbers and adds them up in float32.

With each operand split into three (see `split`), six of nine partial products give float32's precision: errors are no
larger than those of a chain of multiply-adds, as the unit adds up 32 products from zero before it adds to C. It takes
16 times as many products a cycle as the vector units, so with six for one there is a factor of 2.7 to gain, less the
splitting, most of which is done while tiles are multiplied (see `split_ahead`): this pays from some 32 rows and columns
on.

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
from graphjit.kernels.emit import F32, Int, call, function, intrinsic, load, loop, store
from graphjit.kernels.epilogue import apply
from graphjit.kernels.follower import LEAST, Follower, rest_function
from graphjit.kernels.problem import Problem
from graphjit.kernels.slots import ADDRESSES, BATCH, BATCH_STRIDES, STRIDES, Slots, matrices, of_matrix
from graphjit.kernels.split import CHUNK, DOUBTFUL, FLOATS, LINES, STEPS
from graphjit.kernels.split_ahead import Work, finish_function, split_lines
from graphjit.kernels.target import Element, target
from graphjit.kernels.tile_unit import configure, release, tiles_function
from graphjit.kernels.tiles import array, balanced
from graphjit.runtime.compiler import IRKernel

NAMES = (*ADDRESSES, *BATCH, *STRIDES, "m", "n", "k", "units", "by_rows", "epilogue", "a_turned", "b_turned", "k_block",
         "block", "panels_of_a", "follower", *BATCH_STRIDES)  # fmt: skip

BLOCK = 2 * LINES  # rows and columns of C that are computed together: four of eight tiles hold them
DEEP = 16 * STEPS  # measured: most steps of k that are split, and multiplied, together
FITTED = 1.35  # estimates of blocked products are this much too high where clocks are, and tiles lower the clock
AT_ONCE = 4 * BLOCK  # lines of the other operand that are split before there are tiles to multiply
_EDGE = BLOCK * BLOCK * 4  # bytes of a block of C that is not whole
PANEL = 2 * CHUNK  # bytes of 32 steps of k of a panel


def fits(problem: Problem, element: Element) -> bool:
    """Whether a product may be computed here."""
    dense = all(1 in (x.row, x.col) and min(x.row, x.col) >= 0 for x in (problem.a, problem.b))
    return target().tile_unit and element.size == 4 and dense and problem.c.col == 1 and problem.k > 0


def arguments(problem: Problem, element: Element, handed: str = "") -> tuple[dict[str, int | str], int, int]:
    """The kernel's arguments by name, but for addresses and strides; the bytes of workspace; and of which numbers of
    units a share is best a multiple. ``handed``: 'strips' of C go to a follower (see `follower`), C nowhere else."""
    m, n, k = problem.m, problem.n, problem.k
    k_block = _k_block(k)
    chunks = ceil(k_block / STEPS)
    of_a = bool(handed) or panels_of_a(problem)
    block = balanced(n if of_a else m, max(BLOCK, target().l2 // 2 // (CHUNK * chunks) * LINES))
    block = ceil(block / BLOCK) * BLOCK
    by_rows = bool(handed) or _by_rows(problem)
    named = {
        "m": m, "n": n, "k": k, "units": max(1, m if by_rows else ceil(n / LINES)), "by_rows": int(by_rows),
        "a_turned": int(problem.a.col != 1), "b_turned": int(problem.b.col != 1), "k_block": k_block,
        "block": block, "panels_of_a": int(of_a), "follower": "follower" if handed else 0,
    }  # fmt: skip
    workspace = _EDGE + chunks * (2 * PANEL + block // LINES * CHUNK) + 2 * BLOCK * block * 4 * bool(handed)
    return named, workspace, BLOCK if by_rows else 2


def panels_of_a(problem: Problem) -> bool:
    """Whether A goes by panels, whose splitting is hidden, and B is split before, or the other way round."""
    return problem.n <= problem.m


def _by_rows(problem: Problem) -> bool:
    """Whether units are rows, or else vectors of columns: each share splits all of the other operand."""
    if min(problem.m, problem.n) <= BLOCK:
        return problem.m > problem.n
    of_a, of_b = _splitting(problem)
    return MOVE * moved(problem, True) + of_b < MOVE * moved(problem, False) + of_a


def _k_block(k: int) -> int:
    return ceil(balanced(k, DEEP) / STEPS) * STEPS


def cycles(problem: Problem, element: Element) -> float:
    """An estimate of the time, to choose between ways to compute a product, fitted to what 2,400 products took."""
    m, n, k = problem.m, problem.n, problem.k
    rows, columns, chunks = ceil(m / LINES), ceil(n / LINES), ceil(k / STEPS)
    # chunks that do not fill their 16 lines and 32 steps are copied first, blocks of C that are not whole afterwards
    edges = 155 * (k % STEPS > 0) * (rows + columns) + 370 * ((m % LINES > 0) + (n % LINES > 0)) * chunks
    edges += 80 * (m % BLOCK > 0 or n % BLOCK > 0) * (rows + columns)
    storing = 0.26 * (8 * m * n > target().l2) * m * n
    return FITTED * (106 * rows * columns * chunks + sum(_splitting(problem)) + edges + storing + 200)


def repeated(problem: Problem) -> float:
    """Of the cycles, those that each share spends on the operand that all read."""
    return FITTED * _splitting(problem)[1 if _by_rows(problem) else 0]


def _splitting(problem: Problem) -> tuple[float, float]:
    """Of A, and of B: one is split before tiles are multiplied, the other one's panels meanwhile."""
    found = []
    for lines, by_panels, upright in ((problem.m, panels_of_a(problem), problem.a.col == 1),
                                      (problem.n, not panels_of_a(problem), problem.b.col == 1)):
        far = 4 * lines * problem.k > target().l2 // 4
        each = (0.28 if upright else 0.37) if by_panels else 0.39 + 0.55 * far
        found.append(each * lines * problem.k)
    return found[0], found[1]


@functools.cache
def tile_kernel(element: Element) -> IRKernel:
    """The kernel."""
    return IRKernel("tile_product", (), len(NAMES), functools.partial(_emit, element))


def _emit(element: Element, builder: Any, values: Sequence[Any]) -> None:
    """The loops over batch, blocks of k, blocks of one operand's lines and panels of the other one's."""
    module = builder.module
    at = Slots(builder, NAMES)
    start, stop = (Int(builder, value) for value in values[-2:])
    zero, by_rows, turned = Int(builder, 0), at["by_rows"] != 0, at["panels_of_a"] != 0

    def pick(usual: Int | int, otherwise: Int | int) -> Int:
        """The one if panels are B's columns, the other if they are A's rows."""
        return (otherwise if isinstance(otherwise, Int) else Int(builder, otherwise)).where(turned, usual)

    largest = array(builder, F32, LINES)
    store(ir.Constant(element.vector, None), largest, 64)
    panels, lines = Work(builder), Work(builder)
    for work, is_a in ((panels, pick(0, 1)), (lines, pick(1, 0))):
        line, step, is_turned = (x.where(is_a != 0, y) for x, y in (
            (at["a_row"], at["b_col"]), (at["a_col"], at["b_row"]), (at["a_turned"], at["b_turned"])))  # fmt: skip
        # a unit's vectors lie side by side along the lines of A, and along k of B
        work.set(is_a=is_a, line=line, step=step, near=line.where(is_a != 0, step), far=step.where(is_a != 0, line),
                 turned=is_turned, largest=largest)  # fmt: skip
    panel_line, line_line = panels["line"], lines["line"]
    follows = at["follower"] != 0
    follower = Follower(builder)
    follower.take_up(at["follower"], follows, at["n"], element.size)
    following = follower.base.where(follows, 0)
    configure(module, builder)
    with loop(*matrices(at, start, stop)) as matrix:
        a, b, c, *e = of_matrix(at, matrix)
        units = at["units"]
        first, last = (start - matrix * units).max(0), (stop - matrix * units).min(units)
        row0, row1 = first.where(by_rows, 0), last.where(by_rows, at["m"])
        column0, column1 = zero.where(by_rows, first * LINES), at["n"].where(by_rows, (last * LINES).min(at["n"]))
        panel0, panel1, line0, line1 = (pick(x, y) for x, y in (
            (column0, row0), (column1, row1), (row0, column0), (row1, column1)))  # fmt: skip
        with loop(0, at["k"].max(1), at["k_block"]) as k0:
            depth = at["k_block"].min(at["k"] - k0)
            chunks = (depth + (STEPS - 1)) // STEPS
            ends = k0 + at["k_block"] >= at["k"]
            with loop(line0, line1, at["block"]) as i0:
                height = at["block"].min(line1 - i0)
                edge, behind = at["workspace"], chunks * CHUNK
                split_panels = edge + _EDGE
                split_rest = split_panels + at["k_block"] // STEPS * (2 * PANEL)
                strips = split_rest + (at["block"] + (LINES - 1)) // LINES * behind
                from_panels, from_lines = (pick(x, y) + work["step"] * k0 for work, x, y in (
                    (panels, b, a), (lines, a, b)))  # fmt: skip
                from_lines = from_lines + line_line * i0
                at_once = height.min(AT_ONCE)
                for work in (panels, lines):
                    work.set(depth=depth, behind=behind)
                split_lines(module, element, lines["is_a"], [
                    from_lines, line_line, lines["step"], lines["turned"], at_once, depth, split_rest, behind,
                    largest])  # fmt: skip
                panels.begin(from_panels + panel_line * panel0, (panel1 - panel0).min(BLOCK), split_panels, chunks)
                with loop(panel0, panel1, BLOCK) as j0:
                    call(finish_function(module, element), builder, [panels.base])
                    ready, first, width = panels["to"], j0 == panel0, (panel1 - j0).min(BLOCK)
                    meanwhile = height.where(builder.or_(builder.not_(first), at_once == height), BLOCK)
                    panels.begin(from_panels + panel_line * (j0 + BLOCK), (panel1 - j0 - BLOCK).max(0).min(BLOCK),
                                 (split_panels + split_panels + behind * 2) - ready,
                                 (meanwhile + (BLOCK - 1)) // BLOCK * chunks)  # fmt: skip
                    row_at, column_at = pick(i0, j0), pick(j0, i0)
                    rows_at, columns_at = pick(height, width), pick(width, height)
                    strip = strips + (j0 - panel0) // BLOCK % 2 * BLOCK * at["block"] * 4
                    to = strip.where(follows, c + at["c_row"] * row_at + column_at * 4)
                    pitch = (height * 4).where(follows, at["c_row"])
                    with loop(0, height, BLOCK) as i:
                        next_i, some = i + BLOCK, (height - i).min(BLOCK)
                        ahead = builder.and_(builder.and_(first, next_i >= at_once), next_i < height)
                        with builder.if_then(ahead):
                            lines.begin(from_lines + line_line * next_i, (height - next_i).min(BLOCK),
                                        split_rest + behind * (next_i // LINES), chunks)
                        rows, columns, place = pick(some, width), pick(width, some), to + pick(pitch, 4) * i
                        ragged = (rows % LINES + columns % LINES) != 0
                        sums, sums_row = edge.where(ragged, place), Int(builder, 4 * BLOCK).where(ragged, pitch)
                        with builder.if_then(builder.and_(ragged, k0 != 0)):
                            _copy(module, element, (place, pitch), (sums, sums_row), rows, columns)
                        here = split_rest + behind * (i // LINES)
                        call(tiles_function(module, element), builder,
                             [pick(here, ready), behind, pick(ready, here), behind, chunks, sums, sums_row, rows,
                              columns, k0, lines.base.where(ahead, panels.base), following])  # fmt: skip
                        with builder.if_then(ragged):
                            _copy(module, element, (sums, sums_row), (place, pitch), rows, columns)
                        with builder.if_then(ahead):
                            call(finish_function(module, element), builder, [lines.base])
                    with builder.if_then(ends):
                        with builder.if_then(_may_overflow(module, builder, largest), likely=False):
                            call(_repair_function(module), builder,
                                 [a + at["a_row"] * row_at, at["a_row"], at["a_col"], b + at["b_col"] * column_at,
                                  at["b_row"], at["b_col"], to, pitch, rows_at, columns_at, at["k"]])  # fmt: skip
                        operands = []
                        for number, address in enumerate(e):
                            row, col = at[f"e{number}_row"], at[f"e{number}_col"]
                            operands += [address + row * row_at + col * column_at, row, col]
                        apply(module, element, builder, at["epilogue"], (to, pitch, at["c_col"]), rows_at, columns_at,
                              operands)  # fmt: skip
                    with builder.if_then(follows):
                        call(rest_function(module), builder, [following])
                        # a strip's elements among the products of the next strip
                        follower.set(most=(Int(builder, BLOCK * BLOCK) // chunks).max(LEAST))
                        follower.begin(strip, width, height, at["n"] * j0 + i0)
                with builder.if_then(follows):
                    call(rest_function(module), builder, [following])
    release(module, builder)


def _may_overflow(module: Any, builder: Any, largest: Int) -> Any:
    greatest = intrinsic(module, "llvm.vector.reduce.fmax.v16f32", F32, FLOATS)
    return builder.fcmp_ordered(">=", builder.call(greatest, [load(largest, FLOATS, 64)]), F32(DOUBTFUL))


def _copy(module: Any, element: Element, source: tuple[Int, Int], to: tuple[Int, Int], rows: Int, columns: Int) -> None:
    """Copy a part of a block of C: addresses, and bytes from row to row."""
    with loop(0, rows) as i:
        for v in (0, LINES):
            live = (columns - v).max(0).min(LINES)
            x = emit.masked_load(module, element, source[0] + source[1] * i + 4 * v, live)
            emit.masked_store(module, element, x, to[0] + to[1] * i + 4 * v, live)


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
