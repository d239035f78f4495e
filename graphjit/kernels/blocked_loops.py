"""The loops of a blocked product (`blocked` says how they are cut), as LLVM IR: matrices of a batch, blocks of k,
blocks of A's rows, strips of them, panels of columns, register tiles.

A strip is as many rows as a block, but where strips are handed to a follower (see `follower`): then it is a few tiles.
Where tiles hand on what they compute (see `tile_follower`), they store nothing, and C's address is 0.
"""

from typing import Any, NamedTuple

from graphjit.kernels import edges
from graphjit.kernels.blocking import PACKING_PAYS
from graphjit.kernels.dot import sums_array
from graphjit.kernels.emit import I64, Int, call, loop, only_if
from graphjit.kernels.epilogue import NUMBERS, apply
from graphjit.kernels.follower import Follower
from graphjit.kernels.microkernel import LINE, Fetch, Frame
from graphjit.kernels.packing import Packing, copy_function, pack_function
from graphjit.kernels.slots import ADDRESSES, BATCH, BATCH_STRIDES, STRIDES, Slots, matrices, of_matrix
from graphjit.kernels.target import Element, target
from graphjit.kernels.tiles import FrameArray, array, call_panel, packing_tile, tile_array, tile_shape

NAMES = (
    *ADDRESSES, *BATCH, *STRIDES,
    "m", "n", "k", "units", "by_rows", "accumulate", "epilogue",
    "a_packing", "b_packing", "k_block", "a_block", "m_block", "vectors", "panel_vectors", "heights", "last_lanes",
    "unsafe", "tile_a_row", "tile_a_col", "tile_b_row", "fetch", "far_b", "packed_b", "panel_step", "bias",
    "follower", "strips", "tile_follower", *edges.NAMES, *BATCH_STRIDES,
)  # fmt: skip

FEW = 16  # columns of A that are packed together


class Block(NamedTuple):
    """A block of k: its first step, how many, what epilogue is due behind it."""

    first: Int
    depth: Int
    epilogue: Int


class Strip(NamedTuple):
    """Rows of C that are computed together: the first one, how many, where tiles find those of A; whether they are the
    first of all, and the last."""

    row: Int
    height: Int
    a: Int
    is_first: Any
    is_last: Any


class Panel(NamedTuple):
    """Vectors of columns: the first one, how many, columns, where it is packed; a condition that it has been packed
    before, None if it never has."""

    vector: Int
    breadth: Int
    columns: Int
    packed: Int
    is_packed: Any


class Buffers:
    """Memory on the stack: frames, the rows of B that tiles without masks read, a tile or sums on their way to C, the
    follower's state."""

    def __init__(self, element: Element, builder: Any) -> None:
        self.frame, self.edge_frame = FrameArray.new(builder), FrameArray.new(builder)
        if not target().assembly:
            tail = array(builder, element.type, element.lanes * tile_shape().broadest * element.lanes)
            self.frame[Frame.TAIL] = self.edge_frame[Frame.TAIL] = tail
        self.tile, self.sums = tile_array(builder, element), sums_array(builder, element)
        self.follower = Follower(builder)


def fetch_flags(fetch: Int, c: Int, c_row: Int) -> Int:
    """How C is fetched, if it is, as `Fetch`: other lines where its rows begin within one."""
    across = fetch.flag((c & LINE - 1) + (c_row & LINE - 1) != 0) * Fetch.ACROSS
    return (fetch + across).where(fetch > 0, 0)


class Loops:
    """The loops, but for what `LookingLoops` does."""

    def __init__(self, element: Element, at: Slots, buffers: Buffers) -> None:
        self.element, self.builder, self.module = element, at.builder, at.builder.module
        self.at, self.zero = at, Int(at.builder, 0)
        self.frame, self.edge_frame = buffers.frame, buffers.edge_frame
        self.tile, self.sums, self.follower = buffers.tile, buffers.sums, buffers.follower

    def emit(self, start: Int, stop: Int) -> None:
        at, builder = self.at, self.builder
        by_rows = at["by_rows"] != 0
        with loop(*matrices(at, start, stop)) as matrix:
            self.a, self.b, self.c, *self.operands = of_matrix(at, matrix)
            units = at["units"]
            first, last = (start - matrix * units).max(0), (stop - matrix * units).min(units)
            self.row0, self.row1 = first.where(by_rows, 0), last.where(by_rows, at["m"])
            self.vector0, self.vector1 = self.zero.where(by_rows, first), at["vectors"].where(by_rows, last)
            with loop(0, at["k"].max(1), at["k_block"]) as k0:
                depth = at["k_block"].min(at["k"] - k0)
                add = depth.flag(builder.or_(k0 > 0, at["accumulate"] != 0))
                self.frame[Frame.ADD] = add
                self.frame[Frame.FETCH] = fetch_flags(add.max(at["fetch"]), self.c, at["c_row"])
                self.frame[Frame.BIAS] = self.zero
                self.emit_rows(Block(k0, depth, at["epilogue"].where(k0 + at["k_block"] >= at["k"], 0)))

    def emit_rows(self, block: Block) -> None:
        at, row0, row1 = self.at, self.row0, self.row1
        with loop(row0, row1, at["a_block"]) as row:
            height = at["a_block"].min(row1 - row)
            a = self.block_of_a(self.a + at["a_row"] * row + at["a_col"] * block.first, block.depth, height)
            self.emit_strip(block, Strip(row, height, a, row == row0, row + height == row1), self.c)

    def emit_strip(self, block: Block, strip: Strip, c: Int) -> None:
        """All columns of these rows. `c`: where C lies, or would have to lie for these rows to be in a buffer."""
        at, builder = self.at, self.builder
        c = c + at["c_row"] * strip.row
        with loop(self.vector0, self.vector1, at["panel_vectors"]) as vector:
            breadth = at["panel_vectors"].min(self.vector1 - vector)
            live = at["last_lanes"].where(vector + breadth == at["vectors"], self.element.lanes)
            self.frame[Frame.MASK] = Int(builder, builder.sub(builder.shl(I64(1), live.value), I64(1)))
            panel = self.panel(block, strip, vector, breadth, (breadth - 1) * self.element.lanes + live)
            column = vector * self.element.lanes
            with builder.if_then(builder.and_(block.epilogue != 0, at["bias"] != 0)):
                self.frame[Frame.BIAS] = self.operands[0] + at["e0_row"] * strip.row + at["e0_col"] * column
                self.frame[Frame.BIAS_OF_ROWS] = self.zero.flag(at["bias"] == 2)
                self.frame[Frame.RELU] = self.zero.flag(block.epilogue == NUMBERS["bias_relu"])
            self.emit_panel(block, strip, panel, c + at["c_col"] * column)
            self.finish(block.epilogue.where(at["bias"] == 0, 0), c, strip, column, panel.columns)
            self.behind_panel()
        last_of_all = builder.and_(self.vector0 < self.vector1, self.vector1 == at["vectors"])
        with builder.if_then(builder.and_(at["edge"] > 0, last_of_all)):
            self.emit_edge(block, strip, c)

    def panel(self, block: Block, strip: Strip, vector: Int, breadth: Int, columns: Int) -> Panel:
        return Panel(vector, breadth, columns, self.at["workspace"], None)

    def behind_panel(self) -> None:
        """What is to be done when a panel has been computed."""

    def emit_edge(self, block: Block, strip: Strip, c: Int) -> None:
        """The last few columns, which are computed apart."""
        at, column = self.at, self.at["vectors"] * self.element.lanes
        a = self.a + at["a_row"] * strip.row + at["a_col"] * block.first
        b = self.b + at["b_row"] * block.first + at["b_col"] * column
        sizes, places = (strip.height, block.depth, at["k"] - block.first), (a, b, c + at["c_col"] * column)
        self.edge_frame[Frame.ADD], self.edge_frame[Frame.FETCH] = self.frame[Frame.ADD], self.frame[Frame.FETCH]
        with self.builder.if_else(at["edge_vectors"] != 0) as (turned, along):
            with turned:
                edges.emit_edge(self.element, at, self.edge_frame, self.tile, sizes, places)
            with along:
                edges.emit_dots(self.element, at, self.sums, self.frame[Frame.ADD], sizes, places)
        self.finish(block.epilogue, c, strip, column, at["edge"])

    def finish(self, epilogue: Int, c: Int, strip: Strip, column: Int, columns: Int) -> None:
        """What is done to C in memory."""
        at, operands = self.at, []
        for number, address in enumerate(self.operands):
            row, col = at[f"e{number}_row"], at[f"e{number}_col"]
            operands += [address + row * strip.row + col * column, row, col]
        to = (c + at["c_col"] * column, at["c_row"], at["c_col"])
        apply(self.module, self.element, self.builder, epilogue, to, strip.height, columns, operands)

    # ---- one panel ----------------------------------------------------------------------------------------------

    def emit_panel(self, block: Block, strip: Strip, panel: Panel, c: Int) -> None:
        """Pack B to where its panel is, unless it is there already; run the tiles."""
        at, builder, module, element, frame = self.at, self.builder, self.module, self.element, self.frame
        depth, (vector, breadth, columns, to, is_packed) = block.depth, panel
        b, line = self.source(block.first, vector), breadth * (element.lanes * element.size)
        frame[Frame.PANEL] = to

        def packed() -> list[Int]:
            call(pack_function(module, element), builder,
                 [at["b_packing"], b, at["b_row"], at["b_col"], to, at["tile_b_row"], depth, columns])  # fmt: skip
            return [to]

        copies, turns = at["b_packing"] == Packing.COPY, at["b_packing"] > Packing.COPY
        detours = at["c_col"] != element.size
        if not target().masks:
            detours = builder.or_(detours, columns % element.lanes != 0)
        unsafe = (at["unsafe"].where(vector + breadth == at["vectors"], 0) + block.first + depth - at["k"])
        unsafe = unsafe.max(0).min(depth)
        frame[Frame.B_ROW], frame[Frame.C_ROW] = at["tile_b_row"], at["c_row"]
        if is_packed is None:
            [source] = only_if(turns, [b], packed)
        else:
            # tiles that store to C have packed what is only copied
            reuses = builder.and_(is_packed, builder.or_(turns, builder.and_(copies, builder.not_(detours))))
            [source] = only_if(builder.and_(turns, builder.not_(is_packed)), [to.where(reuses, b)], packed)
            unsafe = self.zero.where(reuses, unsafe)
            frame[Frame.B_ROW] = line.where(builder.and_(reuses, copies), at["tile_b_row"])
        if not target().assembly:
            with builder.if_then(unsafe > 0):
                call(copy_function(module, element), builder,
                     [b + at["b_row"] * (depth - unsafe), at["b_row"], frame[Frame.TAIL], line, unsafe, columns])
        frame[Frame.K], frame[Frame.K_TAIL] = depth - unsafe, unsafe
        rows = tile_shape().packing[0]

        def fused() -> list[Int]:
            """The first tile packs B for the others."""
            packing_tile(element, breadth, [frame.address, strip.a, b, c])
            frame[Frame.B_ROW], frame[Frame.K], frame[Frame.K_TAIL] = line, depth, self.zero
            return [strip.height - rows, strip.a + self.step_of_a(depth, Int(builder, rows)), to,
                    c + at["c_row"] * rows]

        instead = detours if is_packed is None else builder.or_(detours, is_packed)
        fuses = builder.and_(builder.and_(copies, strip.height >= PACKING_PAYS), builder.not_(instead))
        below = only_if(fuses, [strip.height, strip.a, source, c], fused)
        tallest = self.tallest(breadth)
        frame[Frame.A_STEP] = self.step_of_a(depth, tallest)
        call_panel(element, detours, [frame.address, breadth, tallest, *below],
                   [at["c_row"], at["c_col"], self.tile, columns])  # fmt: skip

    def source(self, step: Int, vector: Int) -> Int:
        """Where B has this step of k and this vector of columns."""
        return self.b + self.at["b_row"] * step + self.at["b_col"] * (vector * self.element.lanes)

    def tallest(self, breadth: Int | int) -> Int:
        return self.at["heights"] >> (breadth - 1) * 8 & 255

    # ---- memory -------------------------------------------------------------------------------------------------

    def block_of_a(self, block: Int, depth: Int, height: Int) -> Int:
        """Where tiles find a block of A: in the workspace behind B, if it is to be packed."""
        at = self.at

        def packed() -> list[Int]:
            # columns of A may lie a power of two apart: a few at a time, a small piece of each panel
            few = depth.where(at["a_packing"] == Packing.TRANSPOSE, FEW)
            rows = Int(self.builder, tile_shape().packing[0])
            to = at["workspace"] + at["packed_b"]
            with loop(0, depth, few) as k, loop(0, height, rows) as i:
                panel = to + self.step_of_a(depth, rows) * (i // rows) + at["tile_a_col"] * k
                call(pack_function(self.module, self.element), self.builder,
                     [at["a_packing"], block + at["a_col"] * k + at["a_row"] * i, at["a_col"], at["a_row"], panel,
                      at["tile_a_col"], few.min(depth - k), rows.min(height - i)])  # fmt: skip
            return [to]

        return only_if(at["a_packing"] != 0, [block], packed)[0]

    def step_of_a(self, depth: Int, rows: Int) -> Int:
        """From one tile's A to that of the next."""
        packed = self.at["tile_a_col"] * depth + target().vector
        return packed.where(self.at["a_packing"] != 0, self.at["tile_a_row"] * rows)
