"""How a blocked product is cut and packed, and an estimate of its time."""

from dataclasses import replace
from math import ceil
from typing import NamedTuple

from graphjit.kernels import dot, edges
from graphjit.kernels.microkernel import Fetch
from graphjit.kernels.packing import Packing
from graphjit.kernels.problem import Problem
from graphjit.kernels.register_loop import ROOM, WIDEST
from graphjit.kernels.target import Element, target
from graphjit.kernels.tiles import balanced, panel_row, tile_shape

SAME_SET = 4096  # bytes apart, lines of memory compete for a few places of the first-level cache
EDGE_PAYS = 8  # steps of k; in fewer the last columns are stored as soon by masked vectors, row by row
TALL = 512  # rows of a transpose that are packed soon
PACKING_PAYS = 20  # rows of C that use a packed panel; for fewer it is read in place


def b_packing_of(problem: Problem, element: Element) -> Packing:
    """How panels of B are made."""
    if problem.b.col != 1 or problem.b.row <= 0:
        return Packing.TRANSPOSE if problem.b.row == 1 and problem.b.col != 1 else Packing.GATHER
    # measured: a B that is small, or has aligned rows not far apart, is read as fast where it is
    row, total = problem.b.row * element.size, problem.k * problem.n * element.size
    far = row % target().vector != 0 or row >= 2048 or total > target().l2 // 4
    pays = far and total > target().l1 * 3 // 4 and problem.n * element.size > panel_row(element)
    fits = problem.m >= PACKING_PAYS and problem.k >= 32 and problem.c.col == 1
    return Packing.COPY if pays and fits else Packing.NONE


def fetches(problem: Problem, element: Element) -> int:
    """How C is to be fetched into the first-level cache, from where other operands displace it: see `Fetch`."""
    m, n, k = problem.m, problem.n, problem.k
    if 4 * (m * n + m * k + k * n) * element.size <= 3 * target().l1:
        return 0
    return Fetch.DO + (Fetch.FAR if 2 * m * n * element.size > target().l2 else 0)


def a_packing_of(problem: Problem, element: Element) -> Packing:
    """How blocks of A are packed: of big matrices, if B is too; sooner where a tile's rows displace each other from the
    first-level cache (measured: 1.06 times the speed; 1.1 to 1.7 where another program shares that cache). A transpose
    of many rows sooner still, whatever B is: of that a tile takes a piece of each step's line, and comes back for the
    next one when the line has left the cache."""
    m, row, size = problem.m, problem.n * element.size, element.size
    if problem.a.row == 1 and m >= TALL:
        step, total, cache = problem.a.col * size, m * problem.k * size, target().l2
        least = (2048 if 2 * total <= cache else 256 if step % (2 * SAME_SET) == 0 else
                 512 if step % SAME_SET == 0 or total > cache else 1024)
        return Packing.COPY if row >= least and problem.k >= 128 else Packing.NONE
    least = 512 if problem.a.row * size % SAME_SET == 0 else 4096
    if m < 64 or row < least or problem.k < 128 or not b_packing_of(problem, element):
        return Packing.NONE
    return Packing.COPY if problem.a.row == 1 else Packing.TRANSPOSE if problem.a.col == 1 else Packing.NONE


def k_block_of(problem: Problem, element: Element) -> int:
    """Steps of k that are multiplied at once: as `k_limit` has it, but no more than let all rows of A be one block, for
    each block of rows reads all of B. Where tiles lie in a buffer on their way to C, a panel that is well inside the
    second-level cache, unless several panels read more of A than fits beside it. Whole lines of memory: what is
    transposed then lies in as few of them as can be."""
    limit, line = k_limit(element, b_packing_of(problem, element)), 64 // element.size
    m, n, k, size = problem.m, problem.n, problem.k, element.size
    if problem.c.col != 1 and (n * size <= panel_row(element) or m * k * size <= target().l2 // 2):
        limit = max(limit, target().l2 // 8 // panel_row(element))
    elif a_packing_of(problem, element):
        all_rows = block_of_a() // (m * size)
        limit = all_rows if k_limit(element, Packing.TRANSPOSE) <= all_rows < limit else limit
    return ceil(balanced(k, limit) / line) * line


def k_limit(element: Element, b_packing: Packing = Packing.COPY) -> int:
    """Steps of k at most. Measured: a panel of B and a tile's A fill half of the first-level cache; twice all of it for
    tiles in assembly, which fetch what they need in time, and somewhat more than it where they do not, as a panel was
    transposed before they read it."""
    size = panel_row(element) + tile_line(element)
    if not target().assembly:
        return max(128, target().l1 // 2 // size)
    room = target().l1 * 2 if b_packing <= Packing.COPY else target().l1 * 4 // 3
    return max(128, room // size)


def block_of_a() -> int:
    """Bytes of a block of A at most; measured: less than half of the second-level cache."""
    return target().l2 * 3 // 8


def tile_line(element: Element) -> int:
    """Bytes of a step of a tile's packed A."""
    return ceil(tile_shape().packing[0] / element.lanes) * element.lanes * element.size


class Cut(NamedTuple):
    """How columns are cut: an estimate of the time of all tiles, vectors of a panel, how many of the last columns are
    computed apart, and whether as dot products and not as rows of the transpose."""

    cycles: float
    vectors: int
    edge: int
    dots: bool


def cut(problem: Problem, element: Element, handed: bool = False) -> Cut:
    """The best way to cut a product's columns. ``handed``: for tiles that something follows."""
    vectors, rest = max(1, ceil(problem.n / element.lanes)), problem.n % element.lanes
    if handed:
        return Cut(*_panels(problem, element, vectors, WIDEST), 0, False)
    cuts = [Cut(*_panels(problem, element, vectors), 0, False)]
    if rest and problem.n > element.lanes and problem.k >= EDGE_PAYS:
        cycles, breadth = _panels(problem, element, vectors - 1)
        if edges.may_have_edge(problem, element):
            cuts.append(Cut(cycles + _edge_cycles(problem, element, rest), breadth, rest, False))
        if problem.a.col == 1:
            cuts.append(Cut(cycles + dot.cycles(replace(problem, n=rest), element), breadth, rest, True))
    return min(cuts)


def _panels(problem: Problem, element: Element, vectors: int, most: int = ROOM) -> tuple[float, int]:
    """An estimate of the time of tiles so many vectors across, and vectors of a panel, so many at most."""
    shape, packing, tiles = tile_shape(), b_packing_of(problem, element), _Tiles(problem, element)
    a_packing = a_packing_of(problem, element)
    broadest = shape.packing[1] if packing or a_packing else shape.broadest
    if packing > Packing.COPY and not a_packing:
        # a panel that was transposed is to stay in the cache
        room = target().l1 // 2 // (problem.k * element.lanes * element.size or 1)
        broadest = max(broadest, min(shape.broadest, room))
    widths = range(1, min(broadest, vectors, most) + 1)
    cycles, turned = min((tiles.cycles(problem.m, vectors, width), -width) for width in widths)
    return cycles, -turned


def _edge_cycles(problem: Problem, element: Element, columns: int) -> float:
    vectors, width = ceil(problem.m / element.lanes), edges.edge_width(columns)
    turned = problem.transposed
    return _Tiles(turned, element).cycles(columns, vectors, width)


class _Tiles:
    """An estimate of the time that tiles take. Its numbers are those that come closest to what products of 700 sizes
    up to 400 took in panels of all widths; on average they are 9 % off, and the width they choose 1 %."""

    def __init__(self, problem: Problem, element: Element) -> None:
        packing, vector = b_packing_of(problem, element), element.lanes * element.size
        self.k, self.line = problem.k, vector
        # whether numbers come from beyond the first-level cache, and vectors of rows lie across two of its lines
        self.far_a = 4 * problem.m * problem.k * element.size > target().l1 * 3
        self.far_b = packing <= Packing.COPY and 3 * problem.k * problem.n * element.size > target().l1 * 2
        self.far_c = problem.m * problem.n * element.size > target().l1
        self.split_b = packing == Packing.NONE and problem.b.row * element.size % vector != 0
        self.split_c = problem.c.col == 1 and problem.c.row * element.size % vector != 0
        self.packs = packing == Packing.COPY
        self.unrolls = target().assembly and 1 in (problem.a.row, problem.a.col)
        self.detours, self.turned_c, self.lanes = problem.c.col != 1, problem.c.row == 1, element.lanes

    def cycles(self, m: int, vectors: int, width: int) -> float:
        """Of a product of m rows, so many vectors across, in panels of so many."""
        rest = vectors % width
        return vectors // width * self._panel(m, width) + (self._panel(m, rest) if rest else 0)

    def _panel(self, m: int, width: int) -> float:
        height = balanced(m, tile_shape().heights[width - 1])
        count, rest = divmod(m, height)
        total = 15 + count * self._tile(height, width) + (self._tile(rest, width) if rest else 0)
        total += 0.033 * self.far_a * m * self.k
        reads = ceil(m / height) if 3 * self.k * width * self.line > target().l1 * 2 and not self.packs else 1
        return total + 0.42 * self.far_b * reads * self.k * width * (1 + self.split_b)

    def _tile(self, height: int, width: int) -> float:
        # a step of k: multiply-adds, or loads, or the latency of one multiply-add
        decoding = 0.17 if width == 1 and self.unrolls else 0.22  # by `tile_steps`: 21 rows take 11 cycles
        multiplying = 0.34 * height * width + decoding * height + (0.37 + 0.13 * self.split_b) * width
        step = max(multiplying, 0.5 * (height + width * (1 + 1.4 * self.split_b)), 4)
        sums = 0.7 * height * width * (1 + self.split_c)
        storing = self._detour(height, width) if self.detours else 1.3 * self.far_c * height * (width + 2)
        return self.k * step + sums + storing

    def _detour(self, height: int, width: int) -> float:
        """Of bringing a tile to where vectors cannot be stored, in blocks of eight rows and of four."""
        if not self.turned_c:
            return 2.0 * height * width * self.lanes + 20
        eights = (height + 3) // 8
        return width * (32 * eights + 20 * (height > 8 * eights)) + 15


def cycles(problem: Problem, element: Element) -> float:
    """An estimate of the time, to choose between ways to compute the same product."""
    turning = 0.3 * problem.k + 1.2 if problem.k * element.size >= 16 else 1.7 * problem.k
    found, packed = cut(problem, element), b_packing_of(problem, element)
    total = found.cycles + {Packing.TRANSPOSE: turning, Packing.GATHER: problem.k}.get(packed, 0.0) * problem.n
    # `unpacked` has little to work out
    few = packed == Packing.NONE and problem.c.col == 1 and problem.k <= k_block_of(problem, element)
    return total + _of_large(problem, element) + (5 if few and not found.edge and target().assembly else 40)


def _of_large(problem: Problem, element: Element) -> float:
    """What the estimate of tiles leaves out, fitted to what 1,400 products of sizes up to 2,400 took."""
    m, n, k, far = problem.m, problem.n, problem.k, target().l2 // (2 * element.size)
    total = 0.0026 * m * n * k + 0.22 * (m * k > far) * m * k + 0.24 * (k * n > far) * k * n
    total *= element.size / 4
    if problem.c.col != 1:
        blocks = ceil(k / k_block_of(problem, element))
        # rows of C a multiple of 2 KB apart displace each other from the cache
        total += (2.45 * max(0, blocks - 1) + 0.85 * (problem.c.col * element.size % 2048 == 0)) * m * n
    return total
