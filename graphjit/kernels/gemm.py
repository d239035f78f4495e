"""Matrix products: C[..., m, n] (+)= A[..., m, k] @ B[..., k, n], and an epilogue.

`plan` describes one product as a kernel and its arguments. Sizes, strides and blocking are arguments, so a handful
of kernels, one for each (dtype, epilogue), serve all shapes: a new batch size or layer never costs a compile.

How the loops stand (k blocks, row blocks, panels of columns, row tiles) follows Goto and van de Geijn, "Anatomy of
High-Performance Matrix Multiplication" (2008), except that A is read in place.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any

import numpy as np
from llvmlite import ir

from graphjit.kernels.emit import I64, Int, call, function, loop
from graphjit.kernels.epilogue import EPILOGUES
from graphjit.kernels.microkernel import Frame, Layout, TileSpec, tile_function
from graphjit.kernels.packing import Packing, gather_function, pack_function, scatter_function
from graphjit.kernels.target import Element, target
from graphjit.runtime.compiler import IRKernel

BATCH_DIMS = 3

# the kernel's arguments, in the order of its slots; then for each operand of the epilogue its address,
# its row stride and its batch strides
_NAMES = (
    "a", "b", "c", "workspace",
    "m", "n", "k", "units", "by_rows", "accumulate",
    "a_row", "a_col", "b_row", "b_col", "c_row", "c_col",
    "packing", "a_packing", "a_panel", "k_block", "m_block", "panel_vectors",
    "batch1", "batch2",
    "a_batch0", "a_batch1", "a_batch2", "b_batch0", "b_batch1", "b_batch2", "c_batch0", "c_batch1", "c_batch2",
)  # fmt: skip


@dataclass(frozen=True)
class GemmPlan:
    """A product as a kernel and its arguments.

    slots: the kernel's arguments; a string stands for an address: 'a', 'b', 'c', 'workspace', 'e0', 'e1', 'e2'.
    extent: the kernel computes units [start, stop) of range(extent); however the range is cut, and in whatever
        order the pieces run, the result has the same bits.
    workspace: bytes of scratch memory each concurrent call needs for itself.
    """

    kernel: IRKernel
    slots: tuple[int | str, ...]
    extent: int
    workspace: int
    flops: int


@dataclass(frozen=True)
class _Matrix:
    """Strides of one operand over (batch..., row, column), in elements."""

    row: int
    col: int
    batch: tuple[int, ...]

    @property
    def transposed(self) -> "_Matrix":
        return _Matrix(self.col, self.row, self.batch)


@dataclass(frozen=True)
class _Problem:
    m: int
    n: int
    k: int
    batch: tuple[int, ...]
    a: _Matrix
    b: _Matrix
    c: _Matrix
    operands: tuple[_Matrix, ...]
    names: tuple[str, str] = ("a", "b")

    @property
    def matrices(self) -> tuple[_Matrix, ...]:
        return self.a, self.b, self.c, *self.operands

    def with_matrices(self, matrices: Sequence[_Matrix], **changes: Any) -> "_Problem":
        a, b, c, *operands = matrices
        return replace(self, a=a, b=b, c=c, operands=tuple(operands), **changes)


def plan(
    m: int,
    n: int,
    k: int,
    dtype: Any,
    a_strides: tuple[int, int],
    b_strides: tuple[int, int],
    c_strides: tuple[int, int],
    batch: tuple[int, ...] = (),
    a_batch: tuple[int, ...] = (),
    b_batch: tuple[int, ...] = (),
    c_batch: tuple[int, ...] = (),
    accumulate: bool = False,
    epilogue: str = "store",
    e_strides: Sequence[tuple[int, ...]] = (),
) -> GemmPlan:
    """Plan C[..., m, n] (+)= A[..., m, k] @ B[..., k, n]; then the epilogue.

    Strides are in elements, of (row, column), and `*_batch` of the batch dimensions (0: broadcast); A, B, C may
    lie in any way, C must not overlap itself, A or B. `e_strides` gives for each operand of the epilogue its
    strides over (batch..., row, column); without it a bias is a vector along n, another operand lies like C.

    Raises ValueError for more than three batch dimensions that cannot be merged, and for an epilogue's operand that
    is not contiguous (or constant) along C's contiguous dimension.
    """
    operands = _operands(epilogue, e_strides, len(batch), (*c_batch, *c_strides))
    problem = _Problem(m, n, k, batch, _Matrix(*a_strides, a_batch), _Matrix(*b_strides, b_batch),
                       _Matrix(*c_strides, c_batch), operands)  # fmt: skip
    problem = _merge_batch(_drop_unit_strides(problem))
    problem = _oriented(problem)
    if len(problem.batch) > BATCH_DIMS:
        raise ValueError(f"a matrix product over {len(problem.batch)} separate batch dimensions {problem.batch}")
    layouts = tuple(_layout(problem, operand) for operand in problem.operands)
    element = _element(np.dtype(dtype))
    kernel = gemm_kernel(element, epilogue, layouts)
    arguments, workspace = _arguments(problem, element, accumulate)
    extent = arguments["units"] * prod(problem.batch) if problem.m and problem.n else 0
    pad = BATCH_DIMS - len(problem.batch)
    slots: list[int | str] = [arguments.get(name, name) for name in _NAMES]
    for i, operand in enumerate(problem.operands):
        strides = (operand.row, *(0,) * pad, *operand.batch)
        slots += [f"e{i}", *(stride * element.size for stride in strides)]
    return GemmPlan(kernel, tuple(slots), extent, workspace, 2 * m * n * k * prod(batch))


def _element(dtype: np.dtype[Any]) -> Element:
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"no matrix product kernel for {dtype}")
    return Element(dtype.name, dtype.itemsize, target().lanes(dtype.itemsize))


def _operands(epilogue: str, e_strides: Sequence[tuple[int, ...]], nbatch: int,
              c_strides: tuple[int, ...]) -> tuple[_Matrix, ...]:  # fmt: skip
    like = (0,) * (nbatch + 1) + (1,) if epilogue.startswith("bias") else c_strides
    given = tuple(e_strides) or (like,) * EPILOGUES[epilogue].operands
    return tuple(_Matrix(strides[-2], strides[-1], tuple(strides[:-2])) for strides in given)


def _drop_unit_strides(problem: _Problem) -> _Problem:
    """Strides of dimensions of size 1 mean nothing: give them the value that makes the matrix look contiguous."""

    def tidy(matrix: _Matrix, rows: int, cols: int) -> _Matrix:
        col = matrix.col if cols != 1 else 1
        row = matrix.row if rows != 1 else cols * col
        if cols == 1 and rows != 1 and matrix.row != 0:
            col = row if row == 1 else 1
        return _Matrix(row, col, matrix.batch)

    m, n, k = problem.m, problem.n, problem.k
    a, b, c, *operands = problem.matrices
    operands = [tidy(operand, m, n) for operand in operands]
    return problem.with_matrices([tidy(a, m, k), tidy(b, k, n), tidy(c, m, n), *operands])


def _merge_batch(problem: _Problem) -> _Problem:
    """Fewer batch dimensions: neighbours that lie like one, and those that just continue the rows of A and C."""
    dims = [(size, tuple(matrix.batch[axis] for matrix in problem.matrices))
            for axis, size in enumerate(problem.batch) if size != 1]  # fmt: skip
    merged: list[tuple[int, tuple[int, ...]]] = []
    for size, strides in dims:
        if merged and all(outer == size * inner for outer, inner in zip(merged[-1][1], strides, strict=True)):
            merged[-1] = (size * merged[-1][0], strides)
        else:
            merged.append((size, strides))
    m = problem.m
    rows = [matrix.row for matrix in problem.matrices]
    for size, strides in reversed(merged):
        others = (0, 2, *range(3, len(rows)))
        if strides[1] == 0 and all(strides[i] == m * rows[i] for i in others) and problem.n != 1:
            m *= size
            merged.remove((size, strides))
    batches = zip(*(strides for _, strides in merged), strict=True) if merged else ((),) * len(rows)
    matrices = [replace(matrix, batch=tuple(batch))
                for matrix, batch in zip(problem.matrices, batches, strict=True)]  # fmt: skip
    return problem.with_matrices(matrices, m=m, batch=tuple(size for size, _ in merged))


def _oriented(problem: _Problem) -> _Problem:
    """The product or its transpose, C^T = B^T A^T: whichever has contiguous rows of C, and not of one number."""
    swap = problem.c.col != 1 and problem.c.row == 1
    if problem.n == 1 and problem.m > 1 and problem.c.row == 1:
        swap = True
    if not swap:
        return problem
    a, b, c, *operands = (matrix.transposed for matrix in problem.matrices)
    return problem.with_matrices([b, a, c, *operands], m=problem.n, n=problem.m, names=("b", "a"))


def _layout(problem: _Problem, operand: _Matrix) -> Layout:
    if operand.col == 1 or problem.n == 1:
        return Layout.ROW if operand.row == 0 or problem.m == 1 else Layout.FULL
    if operand.col == 0:
        return Layout.COLUMN
    raise ValueError("an epilogue's operand must be contiguous along the contiguous dimension of C")


def _arguments(problem: _Problem, element: Element, accumulate: bool) -> tuple[dict[str, Any], int]:
    """The kernel's arguments by name, and the bytes of workspace."""
    m, n, k, lanes = problem.m, problem.n, problem.k, element.lanes
    shape = tile_shape()
    packing = _packing(problem, element)
    blocks = max(1, ceil(k / k_limit(element)))
    k_block = max(1, ceil(k / blocks))
    columns = ceil(n / lanes)
    by_rows = columns < 4 and m > 4 * columns
    scatter = problem.c.col != 1
    panel_vectors = shape.vectors if m <= shape.heights[-1] else shape.packing_vectors
    width = shape.vectors * lanes * element.size
    workspace = (width * k_block if packing else 0) + (width * shape.height if scatter else 0)
    a_packing, m_block = _a_packing(problem, element)
    if a_packing:
        dense = problem.a.col == 1
        line = k_block if dense else min(m, m_block)
        a_panel = -(-line * element.size // 64) * 64 + 64
        workspace += a_panel * (min(m, m_block) if dense else k_block)
    else:
        a_panel = 0
    sizes = (1,) * (BATCH_DIMS - len(problem.batch)) + problem.batch
    named = {
        "a": problem.names[0], "b": problem.names[1],
        "m": m, "n": n, "k": k,
        "units": max(1, m if by_rows else columns), "by_rows": int(by_rows),
        "accumulate": int(accumulate), "packing": int(packing), "a_packing": int(a_packing), "a_panel": a_panel, "k_block": k_block, "m_block": m_block, "panel_vectors": panel_vectors,
        "batch1": sizes[1], "batch2": sizes[2],
    }  # fmt: skip
    for name, matrix in zip("abc", problem.matrices, strict=False):
        strides = (0,) * (BATCH_DIMS - len(problem.batch)) + matrix.batch
        named[f"{name}_row"], named[f"{name}_col"] = matrix.row * element.size, matrix.col * element.size
        named |= {f"{name}_batch{axis}": stride * element.size for axis, stride in enumerate(strides)}
    return named, workspace


def _packing(problem: _Problem, element: Element) -> Packing:
    b = problem.b
    if b.col != 1:
        return Packing.TRANSPOSE if b.row == 1 else Packing.GATHER
    # in place wins while a row of B is short of a page
    wide = problem.n > 48 and problem.m >= 32
    return Packing.COPY if wide and problem.c.col == 1 else Packing.NONE


def _a_packing(problem: _Problem, element: Element) -> tuple[Packing, int]:
    if 1 not in (problem.a.row, problem.a.col):
        return Packing.NONE, 256
    big = problem.m >= 64 and problem.n >= 1024 and problem.k >= 128
    return (Packing.COPY if big else Packing.NONE), 256


@dataclass(frozen=True)
class TileShape:
    """The largest tile, and the largest height of each number of vectors from 1 on."""

    heights: tuple[int, ...]
    packing: int = 8
    packing_vectors: int = 3

    @property
    def vectors(self) -> int:
        return len(self.heights)

    @property
    def height(self) -> int:
        return max(self.heights)


@functools.cache
def tile_shape() -> TileShape:
    return TileShape((14, 12, 8, 2, 2, 2, 2, 2) if target().registers == 32 else (6, 6, 1,1))


def k_limit(element: Element) -> int:
    """Rows of a panel of B that stay in the first-level cache beside a few rows of A."""
    return min(1024, target().l2 // (8 * 3 * element.lanes * element.size))


@functools.cache
def gemm_kernel(element: Element, epilogue: str, layouts: tuple[Layout, ...]) -> IRKernel:
    """The compiled variant for a dtype and an epilogue."""
    spec = TileSpec(element, epilogue, layouts, target().masks)
    nargs = len(_NAMES) + len(layouts) * (2 + BATCH_DIMS)
    key = (spec.name, tile_shape().heights)
    return IRKernel(f"gemm_{spec.name}", key, nargs, functools.partial(_emit, spec))


def _emit(spec: TileSpec, builder: Any, values: Sequence[Any]) -> None:
    """The loops over batch, blocks of k, blocks of rows and panels of columns."""
    element, shape = spec.element, tile_shape()
    lanes, size = element.lanes, element.size
    *given, start, stop = (Int(builder, value) for value in values)
    at = dict(zip(_NAMES, given, strict=False))
    extras = given[len(_NAMES):]
    step = 2 + BATCH_DIMS
    module = builder.module
    rows = _rows_function(module, spec)
    pack = pack_function(module, element)
    fields = Frame.E_ROW + len(spec.layouts)
    frame = Int(builder, builder.ptrtoint(builder.alloca(ir.ArrayType(I64, fields)), I64))

    def set_field(which: int, value: Int) -> None:
        builder.store(value.value, builder.inttoptr((frame + 8 * which).value, I64.as_pointer()))

    # A packed keeps its order, k or rows contiguous: only its lines move together
    packs_a = at["a_packing"] != 0
    across = builder.and_(packs_a, at["a_col"] != size)
    a_row = Int(builder, size).where(across, at["a_panel"].where(packs_a, at["a_row"]))
    a_col = at["a_panel"].where(across, at["a_col"])
    set_field(Frame.A_ROW, a_row)
    set_field(Frame.A_COL, a_col)
    for i in range(len(spec.layouts)):
        set_field(Frame.E_ROW + i, extras[step * i + 1])
    scatters = at["c_col"] != size
    packs = at["packing"] > Packing.COPY
    panel = at["workspace"]
    width = shape.vectors * lanes * size
    scratch = panel + (at["k_block"] * width).where(at["packing"] != 0, 0)
    set_field(Frame.PANEL, panel)
    a_panel = scratch + (Int(builder, shape.height * width)).where(scatters, 0)
    set_field(Frame.C_ROW, Int(builder, width).where(scatters, at["c_row"]))

    def batch_offset(z: tuple[Int, Int, Int], strides: Sequence[Int]) -> Int:
        return z[0] * strides[0] + z[1] * strides[1] + z[2] * strides[2]

    units = at["units"]
    with loop(start // units, (stop + units - 1) // units) as matrix:
        outer = matrix // at["batch2"]
        z = outer // at["batch1"], outer % at["batch1"], matrix % at["batch2"]
        a, b, c = (at[x] + batch_offset(z, [at[f"{x}_batch{axis}"] for axis in range(BATCH_DIMS)]) for x in "abc")
        e = [extras[step * i] + batch_offset(z, extras[step * i + 2 : step * i + step])
             for i in range(len(spec.layouts))]  # fmt: skip
        first, last = (start - matrix * units).max(0), (stop - matrix * units).min(units)
        by_rows = at["by_rows"] != 0
        row0, row1 = first.where(by_rows, 0), last.where(by_rows, at["m"])
        col0 = Int(builder, 0).where(by_rows, first * lanes)
        col1 = at["n"].where(by_rows, (last * lanes).min(at["n"]))
        vectors = (col1 - col0 + (lanes - 1)) // lanes
        panels = (vectors + at["panel_vectors"] - 1) // at["panel_vectors"]
        share, larger = vectors // panels.max(1), vectors % panels.max(1)
        with loop(0, at["k"].max(1), at["k_block"]) as k0:
            depth = at["k_block"].min(at["k"] - k0)
            set_field(Frame.K, depth)
            set_field(Frame.ADD, at["accumulate"].flag(builder.or_(k0 > 0, at["accumulate"] != 0)))
            set_field(Frame.LAST, depth.flag(k0 + at["k_block"] >= at["k"]))
            with loop(row0, row1, at["m_block"]) as i0:
                height = at["m_block"].min(row1 - i0)
                a_block = a + at["a_row"] * i0 + at["a_col"] * k0
                with builder.if_then(packs_a):
                    lines, length = depth.where(across, height), height.where(across, depth)
                    line = at["a_col"].where(across, at["a_row"])
                    call(pack, builder, [Int(builder, Packing.COPY), a_block, line, line, a_panel, at["a_panel"],
                                         lines, length])  # fmt: skip
                a_block = a_panel.where(packs_a, a_block)
                with loop(0, panels) as p:
                    n_vectors = share + p.flag(p < larger)
                    j0 = col0 + (share * p + p.min(larger)) * lanes
                    columns = (n_vectors * lanes).min(col1 - j0)
                    set_field(Frame.LANES, columns - (n_vectors - 1) * lanes)
                    source = b + at["b_row"] * k0 + at["b_col"] * j0
                    with builder.if_then(packs):
                        call(pack, builder, [at["packing"], source, at["b_row"], at["b_col"], panel,
                                             n_vectors * (lanes * size), depth, columns])  # fmt: skip
                    set_field(Frame.B_ROW, (n_vectors * (lanes * size)).where(packs, at["b_row"]))
                    c_block = c + at["c_row"] * i0 + at["c_col"] * j0
                    operands = []
                    for i, layout in enumerate(spec.layouts):
                        address = e[i] if layout is Layout.ROW else e[i] + extras[step * i + 1] * i0
                        operands.append(address if layout is Layout.COLUMN else address + j0 * size)
                    fuses = at["packing"].flag(builder.and_(at["packing"] == Packing.COPY, height >= shape.packing))
                    call(rows, builder, [frame, n_vectors, fuses, height, columns, a_block, panel.where(packs, source),
                                         c_block, at["c_row"], at["c_col"], scratch, *operands])  # fmt: skip


def _rows_function(module: Any, spec: TileSpec) -> Any:
    """`rows(frame, vectors, fuses, height, columns, a, b, c, c row, c column, scratch, e0...)`: one panel of columns, cut
    into tiles of nearly equal height."""
    name = f"rows_{spec.name}"
    if name in module.globals:
        return module.globals[name]
    made, builder, arguments = function(module, name, 11 + len(spec.layouts))
    frame, vectors, fuses, height, columns, a, b, c, c_row, c_col, scratch, *operands = arguments
    element, shape = spec.element, tile_shape()
    gather, scatter = gather_function(module, element), scatter_function(module, element)
    width = Int(builder, shape.vectors * element.lanes * element.size)
    a_row = Int(builder, builder.load(builder.inttoptr((frame + 8 * Frame.A_ROW).value, I64.as_pointer())))
    ragged = vectors.flag(columns % element.lanes != 0) if not spec.masks else Int(builder, 0)
    scatters = c_col != element.size

    def dispatch(rows: Int, tile_arguments: list[Int], sizes: list[tuple[int, int]], packs: bool) -> None:
        """Call the tile of this many rows and vectors."""
        done = builder.append_basic_block("tile_done")
        switch = builder.switch(((vectors * 2 + ragged) * 64 + rows).value, done)
        for n_rows, n_vectors in sizes:
            for masked in (True,) if spec.masks else (False, True):
                case = builder.append_basic_block(f"tile_{n_rows}x{n_vectors}")
                code = (n_vectors * 2 + (masked and not spec.masks)) * 64 + n_rows
                switch.add_case(ir.Constant(I64, code), case)
                builder.position_at_end(case)
                call(tile_function(module, spec, n_rows, n_vectors, masked, packs), builder, tile_arguments)
                builder.branch(done)
        builder.position_at_end(done)

    # the first rows leave a packed copy of B for the others
    with builder.if_then(fuses != 0):
        dispatch(Int(builder, shape.packing), [frame, a, b, c, *operands],
                 [(shape.packing, n) for n in range(1, shape.packing_vectors + 1)], True)
        builder.store((vectors * (element.lanes * element.size)).value, builder.inttoptr((frame + 8 * Frame.B_ROW).value, I64.as_pointer()))
    panel = Int(builder, builder.load(builder.inttoptr((frame + 8 * Frame.PANEL).value, I64.as_pointer())))
    b = panel.where(fuses != 0, b)
    skip = fuses * shape.packing
    height = height - skip
    limit = Int(builder, shape.heights[-1])
    for count, tallest in enumerate(shape.heights[:-1], 1):
        limit = Int(builder, tallest).where(vectors == count, limit)
    tiles = (height + limit - 1) // limit
    share, larger = height // tiles.max(1), height % tiles.max(1)
    sizes = [(rows, n) for n, tallest in enumerate(shape.heights, 1) for rows in range(1, tallest + 1)]
    with loop(0, tiles) as t:
        i = share * t + t.min(larger) + skip
        rows = share + t.flag(t < larger)
        to = c + c_row * i
        tile_c = scratch.where(scatters, to)
        with builder.if_then(scatters, likely=False):
            call(gather, builder, [to, c_row, c_col, scratch, width, rows, columns])
        e = []
        for number, (layout, operand) in enumerate(zip(spec.layouts, operands, strict=True)):
            if layout is not Layout.ROW:
                field = (frame + 8 * (Frame.E_ROW + number)).value
                operand = operand + Int(builder, builder.load(builder.inttoptr(field, I64.as_pointer()))) * i
            e.append(operand)
        dispatch(rows, [frame, a + a_row * i, b, tile_c, *e], sizes, False)
        with builder.if_then(scatters, likely=False):
            call(scatter, builder, [scratch, width, to, c_row, c_col, rows, columns])
    builder.ret_void()
    return made
