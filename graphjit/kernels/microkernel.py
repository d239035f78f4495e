"""The register tile: `height` rows by `vectors` vectors of C, kept in registers over the whole loop over k.

Everything but the tile's size is a run-time argument, so a few dozen tiles serve all shapes. Each element of C
is one chain of fused multiply-adds in the order of k: the tile a number falls into, and the way the loops
around are cut, do not change its bits.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import I1, I32, I64, Int, function, intrinsic, load, pointer, store
from graphjit.kernels.epilogue import EPILOGUES
from graphjit.kernels.target import Element


B_AHEAD = 8
AHEAD = 16  # how many k the prefetch of A runs ahead: 12 cycles each, the second-level cache takes some 15


class Frame(IntEnum):
    """What does not change from tile to tile, in an array of int64 the tiles get the address of."""

    A_ROW = 0  # strides in bytes
    A_COL = 1
    B_ROW = 2
    C_ROW = 3
    K = 4
    ADD = 5  # 1: start from C, 0: from zero
    LAST = 6  # 1: no more of k follows, the epilogue is due
    LANES = 7  # live lanes of the last vector
    PANEL = 8  # where a packing tile leaves its copy of B
    E_ROW = 9  # and the next ones: row strides of the epilogue's operands


class Layout(StrEnum):
    """How an operand of an epilogue lies over a tile."""

    ROW = "r"  # one row, the same for all rows of C
    COLUMN = "c"  # one number for each row of C
    FULL = "f"  # a matrix like C


@dataclass(frozen=True)
class TileSpec:
    """What all tiles of one compiled kernel share."""

    element: Element
    epilogue: str
    layouts: tuple[Layout, ...]
    masks: bool  # B may end inside the last vector

    @property
    def name(self) -> str:
        return f"{self.element.suffix}_{self.epilogue}_{''.join(self.layouts)}"


class _Tile:
    """Emission of one tile; what epilogues see of it is `graphjit.kernels.epilogue.Tile`."""

    def __init__(self, module: Any, spec: TileSpec, height: int, vectors: int, masked: bool,
                 packs: bool) -> None:
        self.module, self.spec, self.element = module, spec, spec.element
        self.height, self.vectors, self.masked, self.packs = height, vectors, masked, packs
        self.width = self.element.lanes * self.element.size
        name = f"tile_{spec.name}_{height}x{vectors}{'m' if masked else ''}{'p' if packs else ''}"
        self.function, self.builder, arguments = function(module, name, 4 + len(spec.layouts))
        self.frame, self.a, self.b, self.c, *self.operands = arguments
        self.cells = [(i, j) for i in range(height) for j in range(vectors)]
        self.loaded: dict[Any, Any] = {}
        kind = self.element.vector
        self.multiply_add = intrinsic(module, f"llvm.fmuladd.{self.element.suffix}", kind, kind, kind, kind)
        if masked:
            lanes = self.splat(self.builder.trunc(self.field(Frame.LANES).value, I32))
            index = ir.Constant(lanes.type, list(range(self.element.lanes)))
            self.mask = self.builder.icmp_unsigned("<", index, lanes)

    def field(self, which: int) -> Int:
        return Int(self.builder, load(self.frame + 8 * which, I64, 8))

    def splat(self, number: Any) -> Any:
        kind = ir.VectorType(number.type, self.element.lanes)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), number, I32(0))
        return self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined),
                                           ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count))

    def constant(self, value: float) -> Any:
        return ir.Constant(self.element.vector, [value] * self.element.lanes)

    def load(self, operand: int, i: int, j: int) -> Any:
        layout, address = self.spec.layouts[operand], self.operands[operand]
        key = operand, None if layout is Layout.ROW else i, None if layout is Layout.COLUMN else j
        if key not in self.loaded:
            if layout is not Layout.ROW:
                address = address + self.field(Frame.E_ROW + operand) * i
            if layout is Layout.COLUMN:
                self.loaded[key] = self.splat(load(address, self.element.type, self.element.size))
            else:
                self.loaded[key] = self.load_vector(address, j)
        return self.loaded[key]

    def load_vector(self, row: Int, j: int) -> Any:
        """Vector j of a row; lanes behind the matrix are not touched and read as 0."""
        kind, size = self.element.vector, self.element.size
        address = row + j * self.width
        if not self._is_ragged(j):
            return load(address, kind, size)
        masked_load = intrinsic(self.module, f"llvm.masked.load.{self.element.suffix}.p0", kind,
                                kind.as_pointer(), I32, ir.VectorType(I1, kind.count), kind)
        return self.builder.call(masked_load, [pointer(address, kind), I32(size), self.mask, self.constant(0.0)])

    def store_vector(self, value: Any, row: Int, j: int) -> None:
        kind, size = self.element.vector, self.element.size
        address = row + j * self.width
        if not self._is_ragged(j):
            store(value, address, size)
            return
        masked_store = intrinsic(self.module, f"llvm.masked.store.{self.element.suffix}.p0", ir.VoidType(),
                                 kind, kind.as_pointer(), I32, ir.VectorType(I1, kind.count))
        self.builder.call(masked_store, [value, pointer(address, kind), I32(size), self.mask])

    def _is_ragged(self, j: int) -> bool:
        return self.masked and j == self.vectors - 1

    def prefetch(self, address: Int) -> None:
        byte = ir.IntType(8)
        fetch = intrinsic(self.module, "llvm.prefetch.p0", ir.VoidType(), byte.as_pointer(), I32, I32, I32)
        self.builder.call(fetch, [pointer(address, byte), I32(0), I32(3), I32(1)])

    def block(self, name: str) -> Any:
        return self.function.append_basic_block(name)

    def choose(self, condition: Any, name: str) -> tuple[Any, Any]:
        """Branch on a condition: the two new blocks."""
        blocks = self.block(name), self.block(f"not_{name}")
        self.builder.cbranch(condition, *blocks)
        return blocks

    def emit(self) -> None:
        b = self.builder
        c_row = self.field(Frame.C_ROW)
        old, fresh = self.choose(self.field(Frame.ADD) != 0, "add")
        start, k_loop, done = self.block("start"), self.block("k"), self.block("done")
        b.position_at_end(old)
        previous = {(i, j): self.load_vector(self.c + c_row * i, j) for i, j in self.cells}
        b.branch(start)
        b.position_at_end(fresh)
        b.branch(start)

        b.position_at_end(start)
        begin = {cell: b.phi(self.element.vector) for cell in self.cells}
        for cell, phi in begin.items():
            phi.add_incoming(previous[cell], old)
            phi.add_incoming(self.constant(0.0), fresh)
        count, a_row = self.field(Frame.K), self.field(Frame.A_ROW)
        a_col, b_row = self.field(Frame.A_COL), self.field(Frame.B_ROW)
        panel = self.field(Frame.PANEL)
        odd = {i: a_row * i for i in range(1, self.height, 2)}
        b.cbranch(count > 0, k_loop, done)

        b.position_at_end(k_loop)
        left, at_a, at_b, at_panel = (Int(b, b.phi(I64)) for _ in range(4))
        sums = {cell: b.phi(self.element.vector) for cell in self.cells}
        self.prefetch(at_a + a_col * AHEAD)
        if self.packs:
            for j in range(self.vectors):
                self.prefetch(at_b + b_row * B_AHEAD + j * self.width)
        following = self.step(at_a, odd, at_b, at_panel, sums)
        ends = [(left, count, left - 1), (at_a, self.a, at_a + a_col), (at_b, self.b, at_b + b_row),
                (at_panel, panel, at_panel + self.vectors * self.width)]
        for phi, first, then in ends:
            phi.value.add_incoming(first.value, start)
            phi.value.add_incoming(then.value, k_loop)
        for cell in self.cells:
            sums[cell].add_incoming(begin[cell], start)
            sums[cell].add_incoming(following[cell], k_loop)
        b.cbranch(ends[0][2] > 0, k_loop, done)

        b.position_at_end(done)
        result = {cell: b.phi(self.element.vector) for cell in self.cells}
        for cell, phi in result.items():
            phi.add_incoming(begin[cell], start)
            phi.add_incoming(following[cell], k_loop)
        self.finish(result, c_row)

    def step(self, at_a: Int, odd: dict[int, Int], at_b: Int, at_panel: Int,
             sums: dict[Any, Any]) -> dict[Any, Any]:
        """One k: a row of B, and for each row of the tile one number of A in all lanes.

        `odd` holds the odd multiples of A's row stride; x86 scales them by 2, 4, 8 in the load itself, so that
        half the rows need no register for their offset.
        """
        row_of_b = [self.load_vector(at_b, j) for j in range(self.vectors)]
        if self.packs:
            for j, vector in enumerate(row_of_b):
                store(vector, at_panel + j * self.width, self.element.size)
        following = {}
        for i in range(self.height):
            twos = (i & -i) or 1
            row = at_a + odd[i // twos] * twos if i else at_a
            number = self.splat(load(row, self.element.type, self.element.size))
            for j in range(self.vectors):
                following[i, j] = self.builder.call(self.multiply_add, [number, row_of_b[j], sums[i, j]])
        return following

    def finish(self, result: dict[Any, Any], c_row: Int) -> None:
        emit = EPILOGUES[self.spec.epilogue].emit
        if self.spec.epilogue != "store":
            last, more = self.choose(self.field(Frame.LAST) != 0, "last")
            self.builder.position_at_end(last)
            for i, j in self.cells:
                self.store_vector(emit(self, result[i, j], i, j), self.c + c_row * i, j)
            self.builder.ret_void()
            self.builder.position_at_end(more)
        for i, j in self.cells:
            self.store_vector(result[i, j], self.c + c_row * i, j)
        self.builder.ret_void()


def tile_function(module: Any, spec: TileSpec, height: int, vectors: int, masked: bool, packs: bool) -> Any:
    """Emit `void tile(frame, a, b, c, e0...)`, all addresses, of one tile size.

    A tile that packs leaves, beside its product, the vectors of B that it used as a dense panel: the stores fit
    between its multiply-adds, where a separate copy costs as much as nine rows of the product.
    """
    tile = _Tile(module, spec, height, vectors, masked, packs)
    tile.emit()
    return tile.function
