"""The last columns of a product that leave most of a vector empty, by vectors along the rows or along k.

Of 65 columns the last one would take a fifth vector in every row of C. Where columns of A are contiguous those columns
of C are, transposed, a few rows of C^T = B^T A^T: full vectors of A, read where they are, and tiles of few rows.
Each number is the same chain of multiply-adds as before. Where rows of A are contiguous they are dot products, which
are other sums: they round in another way.
"""

from collections.abc import Sequence
from dataclasses import replace

from graphjit.kernels import dot
from graphjit.kernels.emit import I64, Int, call, loop
from graphjit.kernels.microkernel import Frame
from graphjit.kernels.packing import copy_function
from graphjit.kernels.problem import Problem
from graphjit.kernels.slots import Slots
from graphjit.kernels.target import Element, target
from graphjit.kernels.tiles import FrameArray, call_panel, tile_shape

# how many columns, and vectors of rows that a tile takes, 0 for dot products, with their arguments
NAMES = ("edge", "edge_vectors", "edge_packing", "edge_place", "edge_width", "edge_heights")


def arguments(problem: Problem, element: Element, columns: int, dots: bool, place: int) -> tuple[dict[str, int], int]:
    """The kernel's arguments, and bytes of workspace from `place` on. Of the problem, k is that of a block."""
    vectors = edge_width(columns) if columns and not dots else 0
    packing, width, heights, workspace = dot.cut(replace(problem, n=columns), element) if dots else (0, 0, 0, 0)
    return dict(zip(NAMES, (columns, vectors, int(packing), place, width, heights), strict=True)), workspace


def edge_width(columns: int) -> int:
    """Vectors of the broadest tile of so many rows, 0 if there is none."""
    return max((width for width, tallest in enumerate(tile_shape().heights, 1) if tallest >= columns), default=0)


def may_have_edge(problem: Problem, element: Element) -> bool:
    """Whether the columns behind the last whole vector may be computed here."""
    rest = problem.n % element.lanes
    ordered = problem.a.row == 1 and (problem.a.col >= element.lanes or problem.k == 1)
    fits = ordered and problem.n > element.lanes
    return fits and rest > 0 and problem.k > 0 and edge_width(rest) > 0


def emit_dots(element: Element, at: Slots, sums: Int, add: Int, sizes: Sequence[Int], places: Sequence[Int]) -> None:
    """As `emit_edge`, by dot products."""
    height, depth, _ = sizes
    how = at["edge_packing"], at["workspace"] + at["edge_place"], at["edge_width"], at["edge_heights"]
    dot.put_sums(element, at, sums, how, (Int(at.builder, 0), height, at["edge"], depth), places, add != 0)


def emit_edge(element: Element, at: Slots, frame: FrameArray, tile: Int, sizes: Sequence[Int],
              places: Sequence[Int]) -> None:
    """For `height` rows and a block of k: `frame` may be changed but for whether to add, `tile` is a buffer."""
    builder, lanes, size = at.builder, element.lanes, element.size
    (height, depth, left), (a, b, c) = sizes, places
    columns, width = at["edge"], at["edge_vectors"]
    frame.set_a(at["b_col"], at["b_row"])
    frame[Frame.A_STEP], frame[Frame.B_ROW] = at["b_col"] * columns, at["a_col"]
    # a vector that starts in the last row may end behind the matrix
    unsafe = depth.flag(depth >= left)
    frame[Frame.K], frame[Frame.K_TAIL] = depth - unsafe, unsafe
    with loop(0, height, width * lanes) as i:
        rows = (width * lanes).min(height - i)
        vectors = (rows + (lanes - 1)) // lanes
        source = a + i * size
        frame[Frame.C_ROW] = at["c_col"]
        frame[Frame.MASK] = Int(builder, builder.lshr(I64((1 << lanes) - 1), (vectors * lanes - rows).value))
        if not target().assembly:
            with builder.if_then(unsafe > 0):
                call(copy_function(builder.module, element), builder,
                     [source + at["a_col"] * (depth - 1), at["a_col"], frame[Frame.TAIL], vectors * (lanes * size),
                      unsafe, rows])  # fmt: skip
        detours = at["c_row"] != size
        if not target().masks:
            detours = builder.or_(detours, rows % lanes != 0)
        call_panel(element, detours, [frame.address, vectors, columns, columns, b, source, c + at["c_row"] * i],
                   [at["c_col"], at["c_row"], tile, rows])  # fmt: skip
