"""The register tile: `height` rows by `vectors` vectors of C, kept in registers over the whole loop over k.

Everything but the tile's size is a run-time argument, so a few dozen tiles serve all shapes. Each element of C
is a chain of fused multiply-adds in the order of k, one for each block of k: the tile a number falls into, and the way
the loops around are cut, do not change its bits. C is added to at the end: read first, it would have all multiply-adds
wait for memory. In large products it is fetched meanwhile, else stores that miss the cache would wait for each other.

Here tiles are LLVM IR, for any CPU; `assembly` has those for AVX-512.
"""

from enum import IntEnum
from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import I64
from graphjit.kernels.target import Element, target
from graphjit.kernels.tile_text import TileText

AHEAD = 8  # steps of k by which prefetching runs ahead; a step of a large tile takes 12 cycles
LINE = 64  # bytes


class Fetch(IntEnum):
    """Parts of what tiles are told of fetching C; 0: not at all."""

    DO = 1
    ACROSS = 2  # its rows begin within lines
    FAR = 4  # it lies beyond the second-level cache


class Frame(IntEnum):
    """What does not change from tile to tile, in an array of int64 the tiles get the address of; first what
    all of them read, in few lines of memory."""

    A_COL = 0  # strides in bytes
    B_ROW = 1
    C_ROW = 2
    K = 3  # steps over rows of B
    K_TAIL = 4  # and then over the last ones, where whole vectors would end behind B
    ADD = 5  # 1: add to C, 0: overwrite it
    MASK = 6  # a bit for each live lane of the last vector of C
    A_STEP = 7  # from one tile's A to that of the next
    A_NEXT = 8  # where the next tile's A and C would be; set by tiles
    C_NEXT = 9
    FETCH = 10  # whether and how to bring C into the cache while it is computed, as `Fetch` (tiles in IR: whether)
    BIAS = 11  # what tiles in assembly add to C at the end, 0 for nothing: a number for each column, or for each row
    BIAS_OF_ROWS = 12  # 1: for each row. Then tiles set it to where the next tile's would be
    RELU = 13  # 1: and then take 0 for what is less
    FOLLOWER = 14  # what is called in place of storing to C, as `tile_follower.Words`; 0 for nothing
    SOON_EVERY = 15  # what the next panel of B is made of, to be brought nearer by large tiles: two lines, each time
    # that the steps of k left are a multiple of this + 1 (a power of two), those in IR so many times at once; NEVER:
    # there is nothing
    NEAR = 16  # steps of k in which tiles of many rows fetch what a follower reads beside C,
    NEAR_EVERY = 17  # a row each time that those left are a multiple of this + 1 (a power of two)
    SOON = 18  # the first of the two lines; how far the other is from it
    SOON_OTHER = 19
    SOON_STEP = 20  # from these lines to the next ones, and to those that the next tile begins with
    SOON_TILE = 21
    PANEL = 22  # where a packing tile leaves its copy of B
    TAIL = 23  # a dense copy of the last rows of B, for tiles that do not mask their loads
    LATE = 24  # tiles' own: the steps of k behind which they fetch C,
    AIDED = 25  # whether they fetch anything while they multiply, 0 if not,
    ROWS = 26  # what rows are left
    A_ROW = 27  # and, for tiles in IR, then 3, 5, 7, ... times this stride


NEVER = -1
TILE = ir.FunctionType(I64, [I64] * 5)  # (frame, a, b, c, rows)


def tile_function(module: Any, element: Element, name: str, height: int, vectors: int, packs: bool,
                  ahead: bool) -> None:
    """Emit `i64 tile(frame, a, b, c, rows)` of one tile size: it steps down a panel, one tile after the other, while
    there are `height` rows, at least once; how many are left comes back. Those that pack compute one tile. All but
    `rows` are addresses.

    Whole vectors of B are read, so those that would end behind the matrix come from its `tail`: masked loads in the
    loop would cost a twentieth of its speed, as the masking takes a multiply-add's port. Of C only live lanes are
    touched. A tile that packs leaves, beside its product, the vectors of B that it used as a dense panel; the stores
    fit between its multiply-adds, where a separate copy costs as much as nine rows of the product.

    Args:
        packs: whether it leaves a panel.
        ahead: whether it fetches what is needed soon.
    """
    _Tile(module, element, height, vectors, packs, ahead, name)


class _Tile(TileText):
    def __init__(self, module: Any, element: Element, height: int, vectors: int, packs: bool, ahead: bool,
                 name: str) -> None:
        self.packs, self.masked, self.looks_ahead = packs, target().masks, ahead
        super().__init__(module, element, name, TILE, height, vectors)

    # ---- the function ---------------------------------------------------------------------------------------

    def write(self) -> None:
        self.emit(f"define linkonce_odr i64 @{self.name}(i64 %f, i64 %ai, i64 %b.at, i64 %ci, i64 %all) "
                  "noinline nounwind {", "entry:", *(f"%{name}.first = inttoptr i64 %{name}i to ptr" for name in "ac"),
                  "%frame = inttoptr i64 %f to ptr", "%b = inttoptr i64 %b.at to ptr")  # fmt: skip
        fields = {field.name: int(field) for field in Frame}
        fields |= self.odd_rows(Frame.A_ROW, Frame.A_ROW)
        for name, field in fields.items():
            at = self.address(f"{name}.at", "%frame", 8 * field)
            self.emit(f"%{name} = load i64, ptr {at}")
        lanes, height = self.element.lanes, self.height
        if self.masked:
            self.emit(f"%live = trunc i64 %MASK to i{lanes}", f"%mask = bitcast i{lanes} %live to {self.mask}")
        self.emit(*(f"%c{i}.off = mul i64 %C_ROW, {i}" for i in range(1, height + 1)),
                  "%fresh = icmp eq i64 %ADD, 0", "%fetched = icmp ne i64 %FETCH, 0",
                  f"%looks = icmp ne i64 %SOON_EVERY, {NEVER}",
                  f"%b.ahead = mul i64 %B_ROW, {AHEAD}", f"%a.ahead = mul i64 %A_COL, {AHEAD}",
                  "%panel = inttoptr i64 %PANEL to ptr", "%tail = inttoptr i64 %TAIL to ptr", "br label %tile", "tile:")
        self.phi("a", "ptr", entry="%a.first", store="%a.below")
        self.phi("c", "ptr", entry="%c.first", store="%c.below")
        self.phi("rows", "i64", entry="%all", store="%left.over")
        for i in range(1, height):
            self.address(f"c{i}", "%c", f"%c{i}.off")
        if self.looks_ahead:
            self._look_ahead()
        self.emit("br label %start", "start:", "br i1 %fetched, label %fetch, label %segment", "fetch:")
        rows = ["%c", *(f"%c{i}" for i in range(1, height))]
        for i, row in enumerate(rows):
            self.prefetch(row, write=True)
            self.prefetch(self.address(f"c{i}.last", row, self.vectors * self.width - 1), write=True)
        self.emit("br label %segment")
        self._write_segment()
        self.emit("done:", "br i1 %fresh, label %store, label %old", "old:")
        for i, j in self.cells:
            self.load_vector(f"old{i}.{j}", rows[i], j, self.masked)
            self.emit(f"%added{i}.{j} = fadd {self.kind} %end{i}.{j}, %old{i}.{j}")
        self.emit("br label %store", "store:")
        for i, j in self.cells:
            self.phi(f"whole{i}.{j}", self.kind, done=f"%end{i}.{j}", old=f"%added{i}.{j}")
        for i, j in self.cells:
            self.store_vector(f"%whole{i}.{j}", f"end{i}.{j}", rows[i], j, self.masked)
        self.address("a.below", "%a", "%A_STEP")
        self.address("c.below", "%c", f"%c{height}.off")
        self.emit(f"%left.over = sub i64 %rows, {height}", f"%below = icmp sge i64 %left.over, {height}",
                  "br i1 %below, label %tile, label %end", "end:",
                  "store ptr %a.below, ptr %A_NEXT.at", "store ptr %c.below, ptr %C_NEXT.at",
                  "ret i64 %left.over", "}")  # fmt: skip

    def _look_ahead(self) -> None:
        """Fetch this tile's part of what is needed soon."""
        self.emit("br i1 %looks, label %look, label %looked", "look:", "%soon.first = load i64, ptr %SOON.at",
                  "%soon.after = add i64 %soon.first, %SOON_TILE", "store i64 %soon.after, ptr %SOON.at",
                  "%every.log = call i64 @llvm.ctpop.i64(i64 %SOON_EVERY)", "%times.first = lshr i64 %K, %every.log",
                  "br label %lines", "lines:")  # fmt: skip
        self.phi("soon", "i64", look="%soon.first", line="%soon.next")
        self.phi("times", "i64", look="%times.first", line="%times.left")
        self.emit("%any.soon = icmp sgt i64 %times, 0", "br i1 %any.soon, label %line, label %looked", "line:",
                  "%soon.ptr = inttoptr i64 %soon to ptr")  # fmt: skip
        near = self.address("soon.near", "%soon.ptr", LINE - 1)  # of rows that begin within one the panel before has it
        self.prefetch(near, level=2)  # in the first one it would take the place of what is multiplied
        self.prefetch(self.address("soon.other", near, "%SOON_OTHER"), level=2)
        self.emit("%soon.next = add i64 %soon, %SOON_STEP", "%times.left = sub i64 %times, 1", "br label %lines",
                  "looked:")  # fmt: skip

    def _write_segment(self) -> None:
        """The loop over k, first over rows of B, then over those of its tail."""
        self.emit("segment:")
        self.phi("count", "i64", start="%K", fetch="%K", again="%K_TAIL")
        self.phi("tail.count", "i64", start="%K_TAIL", fetch="%K_TAIL", again="0")
        self.phi("begin.a", "ptr", start="%a", fetch="%a", again="%end.a")
        self.phi("begin.b", "ptr", start="%b", fetch="%b", again="%tail")
        self.phi("b.row", "i64", start="%B_ROW", fetch="%B_ROW", again=str(self.vectors * self.width))
        if self.packs:
            self.phi("begin.panel", "ptr", start="%panel", fetch="%panel", again="%end.panel")
        for i, j in self.cells:
            self.phi(f"begin{i}.{j}", self.kind, start="zeroinitializer", fetch="zeroinitializer",
                     again=f"%end{i}.{j}")
        self.emit("%some = icmp ne i64 %count, 0", "br i1 %some, label %k, label %next")
        self._write_loop()
        self.emit("next:")
        self.phi("end.a", "ptr", segment="%begin.a", k="%next.a")
        if self.packs:
            self.phi("end.panel", "ptr", segment="%begin.panel", k="%next.panel")
        for i, j in self.cells:
            self.phi(f"end{i}.{j}", self.kind, segment=f"%begin{i}.{j}", k=f"%next{i}.{j}")
        self.emit("%go.on = icmp ne i64 %tail.count, 0", "br i1 %go.on, label %again, label %done", "again:",
                  "br label %segment")  # fmt: skip

    def _write_loop(self) -> None:
        """One k: a row of B, and for each row of the tile one number of A in all lanes."""
        self.emit("k:")
        self.phi("left", "i64", segment="%count", k="%less")
        self.phi("at.a", "ptr", segment="%begin.a", k="%next.a")
        self.phi("at.b", "ptr", segment="%begin.b", k="%next.b")
        if self.packs:
            self.phi("at.panel", "ptr", segment="%begin.panel", k="%next.panel")
        for i, j in self.cells:
            self.phi(f"sum{i}.{j}", self.kind, segment=f"%begin{i}.{j}", k=f"%next{i}.{j}")
        self.prefetch(self.address("a.next", "%at.a", "%a.ahead"))
        if self.packs:
            ahead = self.address("b.next", "%at.b", "%b.ahead")
            for j in range(self.vectors):
                self.prefetch(self.address(f"b.next{j}", ahead, j * self.width))
        for j in range(self.vectors):
            self.load_vector(f"b{j}", "%at.b", j, masked=False)
        if self.packs:
            for j in range(self.vectors):
                at = self.address(f"panel{j}", "%at.panel", j * self.width)
                self.emit(f"store {self.kind} %b{j}, ptr {at}, align {self.element.size}")
        for i in range(self.height):
            number = self.number_of_a(i, "%at.a")
            for j in range(self.vectors):
                self.emit(f"%next{i}.{j} = call {self.kind} @llvm.fmuladd.{self.element.suffix}({self.kind} {number}, "
                          f"{self.kind} %b{j}, {self.kind} %sum{i}.{j})")  # fmt: skip
        self.emit("%next.a = getelementptr i8, ptr %at.a, i64 %A_COL",
                  "%next.b = getelementptr i8, ptr %at.b, i64 %b.row")  # fmt: skip
        if self.packs:
            self.emit(f"%next.panel = getelementptr i8, ptr %at.panel, i64 {self.vectors * self.width}")
        self.emit("%less = add i64 %left, -1", "%more = icmp ne i64 %less, 0",
                  "br i1 %more, label %k, label %next")  # fmt: skip
