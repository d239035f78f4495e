"""The last columns of a product that leave most of a vector empty, by vectors along the rows.

Of 65 columns the last one would take a fifth vector in every row of C. Where columns of A are contiguous those columns
of C are, transposed, a few rows of C^T = B^T A^T: full vectors of A, read where they are, and tiles of few rows.
Each number is the same chain of multiply-adds as before.
"""

from collections.abc import Sequence

from graphjit.kernels.emit import I64, Int, call, loop
from graphjit.kernels.microkernel import Frame
from graphjit.kernels.packing import copy_function
from graphjit.kernels.problem import Problem
from graphjit.kernels.slots import Slots
from graphjit.kernels.target import Element, target
from graphjit.kernels.tiles import FrameArray, call_panel, tile_shape

NAMES = ("edge", "edge_vectors")  # how many columns, and vectors of rows that a tile takes


def edge_width(columns: int) -> int:
    """Vectors of the broadest tile of so many rows, 0 if there is none."""
    return max((width for width, tallest in enumerate(tile_shape().heights, 1) if tallest >= columns), default=0)


def may_have_edge(problem: Problem, element: Element) -> bool:
    """Whether the columns behind the last whole vector may be computed here."""
    rest = problem.n % element.lanes
    ordered = problem.a.row == 1 and (problem.a.col >= element.lanes or problem.k == 1)
    fits = ordered and problem.n > element.lanes
    return fits and rest > 0 and problem.k > 0 and edge_width(rest) > 0


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
