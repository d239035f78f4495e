"""Register tiles that add up all segments of a product before they store it, as LLVM IR, for any CPU: what
`segment_tiles` is for AVX-512.

What changes lies in variables on the stack, of which LLVM makes registers.
"""

from graphjit.kernels.segment_tiles import Field
from graphjit.kernels.tile_text import TileText


class SegmentTile(TileText):
    """`i64 tile(fields, a, b, c, rows)`: it steps down a panel, one tile after the other, while there are `height`
    rows, at least once; how many are left comes back. All but `rows` are addresses."""

    def write(self) -> None:
        lanes = self.element.lanes
        self.emit(f"define linkonce_odr i64 @{self.name}(i64 %f, i64 %ai, i64 %bi, i64 %ci, i64 %all) "
                  "noinline nounwind {", "entry:", "%fields = inttoptr i64 %f to ptr",
                  *(f"%{name}.first = inttoptr i64 %{name}i to ptr" for name in "abc"))  # fmt: skip
        fields = {field.name: int(field) for field in Field} | self.odd_rows(Field.A_ROW, Field.A_ROWS - 1)
        for name, field in fields.items():
            self.emit(f"%{name} = load i64, ptr {self.address(f'{name}.field', '%fields', 8 * field)}")
        self.emit(f"%live = trunc i64 %MASK to i{lanes}", f"%mask = bitcast i{lanes} %live to {self.mask}",
                  f"%whole = icmp eq i{lanes} %live, -1", "%from.zero = icmp eq i64 %START, 0",
                  "%from.c = icmp eq i64 %START, 1", "%cuts = icmp ne i64 %RELU, 0",
                  "%row = inttoptr i64 %ROW to ptr", "%row.step = select i1 %from.c, i64 %C_ROW, i64 0",
                  f"%a.step = mul i64 %A_ROW, {self.height}", f"%c.step = mul i64 %C_ROW, {self.height}")  # fmt: skip
        self.kinds = dict.fromkeys(("a", "c", "at.a", "at.b"), "ptr") | dict.fromkeys(self.sums, self.kind)
        self.kinds |= dict.fromkeys(("rows", "left", "steps", "k", "last", "next.a", "next.b"), "i64")
        self.emit(*(f"%its.{name} = alloca {kind}" for name, kind in self.kinds.items()))
        for name, value in (("a", "%a.first"), ("c", "%c.first"), ("rows", "%all")):
            self.put(name, value)
        self.emit("br label %tile", "tile:")
        self._begin()
        self._whole_segments()
        self._masked_segments()
        self._store()
        self.move("a", "%a.step", "below")
        self.move("c", "%c.step", "below")
        left = self.move("rows", f"-{self.height}", "below")
        self.emit(f"%more = icmp sge i64 {left}, {self.height}", "br i1 %more, label %tile, label %end",
                  "end:", f"ret i64 {left}", "}")  # fmt: skip

    # ---- variables

    @property
    def sums(self) -> list[str]:
        return [f"sum{i}.{j}" for i, j in self.cells]

    def get(self, name: str, here: str) -> str:
        """What a variable holds; `here` tells this place from others."""
        self.emit(f"%{name}.{here} = load {self.kinds[name]}, ptr %its.{name}")
        return f"%{name}.{here}"

    def put(self, name: str, value: str) -> None:
        self.emit(f"store {self.kinds[name]} {value}, ptr %its.{name}")

    def move(self, name: str, by: str, here: str) -> str:
        """Add to a variable; its new value."""
        old, new = self.get(name, here), f"%{name}.{here}.moved"
        if self.kinds[name] == "ptr":
            self.emit(f"{new} = getelementptr i8, ptr {old}, i64 {by}")
        else:
            self.emit(f"{new} = add i64 {old}, {by}")
        self.put(name, new)
        return new

    def rows_of(self, base: str, step: str, here: str) -> list[str]:
        """Addresses of the tile's rows."""
        found = [base]
        for i in range(1, self.height):
            self.emit(f"%{here}{i} = getelementptr i8, ptr {found[-1]}, i64 {step}")
            found.append(f"%{here}{i}")
        return found

    # ---- parts

    def _begin(self) -> None:
        """Sums begin with zero, with C, or with a row of numbers."""
        a, c = self.get("a", "begin"), self.get("c", "begin")
        self.put("at.a", a)
        self.put("at.b", "%b.first")
        self.emit("br i1 %from.zero, label %zero, label %given", "zero:")
        for each in self.sums:
            self.put(each, "zeroinitializer")
        self.emit("br label %segments", "given:", f"%from = select i1 %from.c, ptr {c}, ptr %row")
        rows = self.rows_of("%from", "%row.step", "given.row")
        for (i, j), each in zip(self.cells, self.sums, strict=True):
            self.load_vector(f"given{i}.{j}", rows[i], j, masked=True)
            self.put(each, f"%given{i}.{j}")
        self.emit("br label %segments")

    def _whole_segments(self) -> None:
        """SEGMENTS of K steps, then one of LAST steps, behind which A and B stay."""
        self.emit("segments:")
        for name, value in (("left", "%SEGMENTS"), ("steps", "%K"), ("last", "%LAST"), ("next.a", "%A_SEGMENT"),
                            ("next.b", "%B_SEGMENT")):
            self.put(name, value)
        self.emit("br label %whole.segments", "whole.segments:")
        left, last = self.get("left", "whole"), self.get("last", "whole")
        self.emit(f"%whole.some = icmp sgt i64 {left}, 0", "br i1 %whole.some, label %whole.segment, label %whole.over",
                  "whole.over:", f"%last.some = icmp sgt i64 {last}, 0",
                  "br i1 %last.some, label %last.segment, label %masked", "last.segment:")  # fmt: skip
        for name, value in (("left", "1"), ("steps", last), ("last", "0"), ("next.a", "0"), ("next.b", "0")):
            self.put(name, value)
        self.emit("br label %whole.segments", "whole.segment:")
        self._steps("whole", self.get("steps", "whole"))
        self._next_segment("whole", self.get("next.a", "whole"), self.get("next.b", "whole"))
        self.emit("br label %whole.segments")

    def _masked_segments(self) -> None:
        """TAILS of K_TAIL steps, in which only live lanes are read."""
        self.emit("masked:")
        self.put("left", "%TAILS")
        self.emit("br label %masked.segments", "masked.segments:")
        self.emit(f"%masked.some = icmp sgt i64 {self.get('left', 'masked')}, 0",
                  "br i1 %masked.some, label %masked.segment, label %done", "masked.segment:")
        self._steps("masked", "%K_TAIL")
        self._next_segment("masked", "%A_SEGMENT", "%B_SEGMENT")
        self.emit("br label %masked.segments")

    def _next_segment(self, name: str, a: str, b: str) -> None:
        self.move("at.a", a, f"{name}.next")
        self.move("at.b", b, f"{name}.next")
        self.move("left", "-1", f"{name}.next")

    def _steps(self, name: str, count: str) -> None:
        """A loop over so many steps of k, one at least."""
        self.put("k", count)
        self.emit(f"br label %{name}.step", f"{name}.step:")
        a, b = self.get("at.a", f"{name}.step"), self.get("at.b", f"{name}.step")
        for j in range(self.vectors):
            self.load_vector(f"{name}.b{j}", b, j, masked=name == "masked")
        for i in range(self.height):
            number = self.number_of_a(i, a, name)
            for j in range(self.vectors):
                old, new = self.get(f"sum{i}.{j}", name), f"%{name}.sum{i}.{j}"
                self.emit(f"{new} = call {self.kind} @llvm.fmuladd.{self.element.suffix}({self.kind} {number}, "
                          f"{self.kind} %{name}.b{j}, {self.kind} {old})")  # fmt: skip
                self.put(f"sum{i}.{j}", new)
        self.move("at.a", "%A_COL", name)
        self.move("at.b", "%B_ROW", name)
        self.emit(f"%{name}.more = icmp sgt i64 {self.move('k', '-1', name)}, 0",
                  f"br i1 %{name}.more, label %{name}.step, label %{name}.behind", f"{name}.behind:")

    def _store(self) -> None:
        self.emit("done:", "br i1 %cuts, label %cut, label %store", "cut:")
        for each in self.sums:
            value = self.get(each, "cut")
            self.emit(f"%{each}.no = fcmp ole {self.kind} {value}, zeroinitializer",
                      f"%{each}.new = select {self.mask} %{each}.no, {self.kind} zeroinitializer, {self.kind} {value}")
            self.put(each, f"%{each}.new")
        self.emit("br label %store", "store:")
        rows = self.rows_of(self.get("c", "store"), "%C_ROW", "c.row")
        values = [self.get(each, "store") for each in self.sums]
        self.emit("br i1 %whole, label %plain, label %some")
        for name in ("plain", "some"):  # a store with a mask takes longer
            self.emit(f"{name}:")
            for (i, j), value in zip(self.cells, values, strict=True):
                self.store_vector(value, f"{name}{i}.{j}", rows[i], j, masked=name == "some")
            self.emit("br label %next")
        self.emit("next:")
