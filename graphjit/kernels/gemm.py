"""Matrix products: C[..., m, n] (+)= A[..., m, k] @ B[..., k, n], and an epilogue.

`plan` describes one product as a kernel and its arguments. Sizes, strides and blocking are arguments, so two
kernels for each dtype serve all shapes, layouts and epilogues: a new batch size or layer never costs a compile.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, prod
from typing import Any

import numpy as np

from graphjit.kernels import blocked, blocking, dot, tile_product, unpacked
from graphjit.kernels.epilogue import EPILOGUES, NUMBERS
from graphjit.kernels.problem import Matrix, Problem, simplified
from graphjit.kernels.slots import BATCH_DIMS, common_slots
from graphjit.kernels.target import Element, target
from graphjit.runtime.compiler import IRKernel

KERNELS = {blocked: blocked.blocked_kernel, unpacked: unpacked.unpacked_kernel, dot: dot.dot_kernel,
           tile_product: tile_product.tile_kernel}  # fmt: skip
CYCLE = 0.35  # ns
SHARED = 1 << 20  # multiply-adds of a product that is worth sharing
MATRICES = 8  # of a batch that are shared out whole
PACKED = 256  # rows for which packing the other operand is a small part of the work


@dataclass(frozen=True)
class GemmPlan:
    """A product as a kernel and its arguments.

    slots: the kernel's arguments; a string stands for an address: 'a', 'b', 'c', 'workspace', 'e0', 'e1', ...
    extent: the kernel computes units [start, stop) of range(extent); however the range is cut, and in whatever
        order the pieces run, the result has the same bits.
    workspace: bytes of scratch memory that each concurrent call needs for itself, best aligned to 64 bytes.
    flops: multiplications and additions of the product.
    align: shares of the extent are best multiples of this.
    nanoseconds: an estimate of its time on one core.
    least: units that should be computed together, as each call reads, and maybe packs, all of B.
    rows: how many rows of A and C a unit is, 0 if units are other things, or gain nothing from a near A.
    steps: for A and C the elements from one row to the next, and from a row's first to its last.
    cuts: for A, B and C how many elements of memory the axis that units cut spans; 0 where each unit reads all.
    repeated: of the time, what each share does again.
    hands_on: the kernel that could hand the product on, where this one stores it.
    fetches: whether a product that hands on strips gains by fetching what the other kernel reads, and not by hiding
        its time.
    """

    kernel: IRKernel
    slots: tuple[int | str, ...]
    extent: int
    workspace: int
    flops: int
    align: int
    nanoseconds: float
    least: int
    rows: int
    steps: tuple[tuple[int, int], ...]
    cuts: tuple[int, int, int]
    repeated: float
    hands_on: IRKernel
    fetches: bool = False

    @cached_property
    def named(self) -> tuple[int, ...]:
        """Which slots stand for addresses."""
        return tuple(i for i, slot in enumerate(self.slots) if isinstance(slot, str))


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
    cores: int = 1,
) -> GemmPlan:
    """Plan C[..., m, n] (+)= A[..., m, k] @ B[..., k, n]; then the epilogue.

    Args:
        m, n, k: sizes, 0 too (k = 0: zeros and the epilogue).
        dtype: float32 or float64, of all operands.
        a_strides, b_strides, c_strides: of (row, column), in elements. A and B may lie in any way; C must not
            overlap itself, A or B.
        batch: sizes of the batch dimensions; `a_batch`, `b_batch`, `c_batch` are the strides over them, 0 where an
            operand is the same for all.
        accumulate: add to what C holds.
        epilogue: a name of `graphjit.kernels.epilogue.EPILOGUES`.
        e_strides: for each operand of the epilogue its strides over (batch..., row, column); without it, of a dense
            vector along n.
        cores: how many will share it. The result has the same bits on any number.

    Raises:
        ValueError: another dtype; more than three batch dimensions that cannot be merged.
    """
    element = element_of(np.dtype(dtype))
    if not e_strides:
        e_strides = [(0,) * (len(batch) + 1) + (1,)] * EPILOGUES[NUMBERS[epilogue]].operands
    operands = tuple(Matrix(strides[-2], strides[-1], tuple(strides[:-2])) for strides in e_strides)
    problem = simplified(Problem(
        m, n, k, tuple(batch), Matrix(*a_strides, tuple(a_batch)), Matrix(*b_strides, tuple(b_batch)),
        Matrix(*c_strides, tuple(c_batch)), operands,
    ))  # fmt: skip
    if len(problem.batch) > BATCH_DIMS:
        raise ValueError(f"a matrix product over {len(problem.batch)} separate batch dimensions {problem.batch}")
    both = problem, problem.transposed
    ways: list[tuple[float, Any, Problem]] = [(blocking.cycles(way, element), blocked, way) for way in both]
    ways += [(dot.cycles(way, element), dot, way) for way in both if way.a.col == 1]
    if not accumulate:
        tiled = (way for way in both if tile_product.fits(way, element))
        ways += [(tile_product.cycles(way, element), tile_product, way) for way in tiled]
    estimate, room, way = min(ways, key=lambda each: each[0])
    # but for edges of dot products, both ways add up in the same order if blocks of k are the same
    if (cores > 1 and room is blocked and m * n * k * prod(batch) >= SHARED
            and blocking.k_block_of(problem, element) == blocking.k_block_of(problem.transposed, element)
            and not any(blocking.cut(way, element).dots for way in both)):  # fmt: skip
        way = min(problem, problem.transposed, key=lambda way: blocked.shared_cycles(way, element, cores))
    made = room.arguments(way, element)
    if room is blocked and (one := unpacked.arguments(way, element, made)):
        room, made = unpacked, one
    return _described(problem, way, room, element, made, estimate, accumulate, epilogue)


def plan_handing(m: int, n: int, k: int, dtype: Any, a_strides: tuple[int, int],
                 b_strides: tuple[int, int], how: str) -> GemmPlan | None:
    """Plan A[m, k] @ B[k, n] which hands what it computes to another kernel, and stores it nowhere else.

    Units are rows. The slot 'follower' is the address of what `kernels/follower.py` tells of 'strips', or
    `kernels/tile_follower.py` of 'tiles', as ``how`` says. None where that cannot be, or is slower.
    """
    element = element_of(np.dtype(dtype))
    problem = Problem(m, n, k, (), Matrix(*a_strides, ()), Matrix(*b_strides, ()), Matrix(n, 1, ()), ())
    room: Any = tile_product if tile_product.fits(problem, element) else blocked
    packing = blocking.b_packing_of(problem, element)
    deepest = tile_product.DEEP if room is tile_product else blocking.k_limit(element, packing)
    if not 0 < k <= deepest or min(m, n) == 0 or (room is blocked and not target().assembly):
        return None
    if how == "tiles" and (room is tile_product or not blocked.hands_on_tiles(problem, element)):
        return None
    made = room.arguments(problem, element, handed=how)
    estimate = tile_product.cycles if room is tile_product else blocking.cycles
    found = _described(problem, problem, room, element, made, estimate(problem, element))
    return replace(found, fetches=room is blocked)


def _described(problem: Problem, way: Problem, room: Any, element: Element, made: tuple[dict[str, Any], int, int],
               estimate: float, accumulate: bool = False, epilogue: str = "store") -> GemmPlan:
    arguments, workspace, align = made
    m, n, k, batch = problem.m, problem.n, problem.k, problem.batch
    named = common_slots(way, element.size) | arguments
    named |= {"accumulate": int(accumulate), "epilogue": NUMBERS[epilogue]}
    extent = arguments["units"] * prod(way.batch) if way.m and way.n else 0
    slots = tuple(named[name] for name in room.NAMES)
    if prod(way.batch) >= MATRICES:
        align = arguments["units"]
    # measured: a tile product reads its operands as fast from far away, and each call would split all of B once more
    rows = 0 if room is tile_product else _rows_of_unit(problem, way, arguments.get("by_rows", 1), element)
    # each call reads all of B: where that is far away, the rows of C should be more than those of B
    packs = rows and (arguments.get("b_packing", 0) or arguments.get("a_packing", 0))
    least = max(PACKED if packs else 1, k if k * n * element.size > target().l2 // 2 else 1)
    least = ceil(least / (max(rows, 1) * align)) * align
    steps = ((problem.a.row, (problem.k - 1) * problem.a.col), (problem.c.row, (problem.n - 1) * problem.c.col))
    return GemmPlan(KERNELS[room](element), slots, extent, workspace, 2 * m * n * k * prod(batch), align,
                    CYCLE * estimate * prod(way.batch), least, rows, steps, _cuts(way, arguments.get("by_rows", 1)),
                    CYCLE * tile_product.repeated(way) if room is tile_product and not way.batch else 0.0,
                    KERNELS[blocked if room is unpacked else room](element))


def _cuts(way: Problem, by_rows: int) -> tuple[int, int, int]:
    """See ``GemmPlan``."""
    if way.batch:
        found = [matrix.batch[0] * way.batch[0] for matrix in (way.a, way.b, way.c)]
    elif by_rows:
        found = [way.a.row * way.m, 0, way.c.row * way.m]
    else:
        found = [0, way.b.col * way.n, way.c.col * way.n]
    a, b, c = map(abs, found)
    return (a, b, c) if way.names[0] == "a" else (b, a, c)


def _rows_of_unit(problem: Problem, way: Problem, by_rows: int, element: Element) -> int:
    """Rows of C that a unit is. Units are rows or vectors of columns, of C or of its transpose."""
    if prod(problem.batch) != 1 or bool(by_rows) != (way is problem):
        return 0
    return 1 if by_rows else element.lanes


def family(dtype: Any) -> tuple[IRKernel, ...]:
    """All kernels that products of this dtype may take."""
    element = element_of(np.dtype(dtype))
    tiles = (tile_product.tile_kernel(element),) if target().tile_unit and element.size == 4 else ()
    small = (unpacked.unpacked_kernel(element),) if target().assembly else ()
    return blocked.blocked_kernel(element), dot.dot_kernel(element), *small, *tiles


def element_of(dtype: np.dtype[Any]) -> Element:
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"no matrix product kernel for {dtype}")
    return Element(dtype.name, dtype.itemsize, target().lanes(dtype.itemsize))

