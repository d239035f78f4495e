"""Register tiles in AVX-512 assembly that add up all segments of a product before they store it.

Where a segment is a few dozen steps long, as the lines of a convolution's window are, storing and loading a tile of C
between segments would take as long as its multiply-adds.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from graphjit.kernels.emit import I64, Int, load, loop, store
from graphjit.kernels.target import Element
from graphjit.kernels.tile_steps import A7, A_COL, A_ROW, A_ROW3, A_ROW5, B_ROW, A, B, K, Steps
from graphjit.kernels.tiles import _Text, array, balanced

HEIGHTS = (14, 14, 9)  # rows of the tallest tile of one vector, two, three
WIDEST = len(HEIGHTS)
SHARED = 0  # vectors of tiles whose one vector a row holds several rows of C
ROOM = 16  # heights in a line of the table
TILE = ir.FunctionType(I64, [I64] * 5)
SAVED = ("rbx", "rbp", "r12", "r13", "r14", "r15")
SEGMENT = "%rax"  # rdi, rsi, rdx, rcx, r8 are the tile's arguments


class Field(IntEnum):
    """What tiles are told, in an array of int64."""

    A_ROW = 0  # strides in bytes
    A_COL = 1
    B_ROW = 2
    C_ROW = 3
    A_SEGMENT = 4  # from the end of a segment to the next one
    B_SEGMENT = 5
    SEGMENTS = 6  # segments of K steps whose whole vectors lie in B,
    K = 7
    LAST = 8  # such steps of the next one,
    TAILS = 9  # and segments of K_TAIL steps that read live lanes only
    K_TAIL = 10
    START = 11  # 0: from zero, 1: from C, 2: from a row of numbers, the same for all rows of C
    ROW = 12
    MASK = 13
    RELU = 14  # 1: negative sums become 0
    OUTER = 15  # times all that, if lanes are shared,
    A_OUTER = 16  # from its end in A; in B one follows the other


class _Tile(Steps):
    """The text of `rows tile(fields, a, b, c, rows)`: it steps down a panel, one tile after the other, while there are
    `height` rows, at least once; how many are left comes back. All but `rows` are addresses.

    Those of SHARED vectors, which hold several rows of C, read before each segment which lanes it counts for: the rest
    stays as it is, not even NaN gets there.
    """

    def __init__(self, element: Element, name: str, height: int, vectors: int) -> None:
        self.shared = vectors == SHARED
        super().__init__(element, height, max(vectors, 1), fetches_b=True, counts="{%k2}" if self.shared else "")
        self.write(name)

    def write(self, name: str) -> None:
        self.emit(".p2align 5", f"{name}:", *(f"push %{register}" for register in SAVED),
                  f"mov {_field(Field.A_ROW)}, {A_ROW}", f"lea ({A_ROW},{A_ROW},2), {A_ROW3}",
                  f"lea ({A_ROW},{A_ROW},4), {A_ROW5}", f"mov {_field(Field.A_COL)}, {A_COL}",
                  f"mov {_field(Field.B_ROW)}, {B_ROW}", f"kmovw {_field(Field.MASK)}, %k1",
                  "1:", f"cmpq $1, {_field(Field.START)}", "jb 2f", f"mov %rcx, {A}",
                  f"mov {_field(Field.C_ROW)}, %rax", "je 3f", f"mov {_field(Field.ROW)}, {A}", "xor %eax, %eax",
                  "3:")  # fmt: skip
        for i, j in self.cells:
            self.emit(f"vmovu{self.kind} {64 * j}({A}), {self.sum(i, j)}{self.masked(j, '{%k1}{z}')}")
            if j == self.vectors - 1:
                self.emit(f"add %rax, {A}")
        self.emit("jmp 4f", "2:", *(f"vpxord {x}, {x}, {x}" for x in (self.sum(*cell) for cell in self.cells)))
        self.emit("4:", f"mov %rsi, {A}", f"mov %rdx, {B}")
        self.begin()
        if self.shared:
            self.emit(f"push {_field(Field.OUTER)}", "6:")
        self.segments(Field.SEGMENTS, Field.K, "")
        if self.shared:
            self.emit(*(f"add {_field(Field.A_OUTER)}, {a}" for a in ((A, A7) if self.height > 7 else (A,))),
                      "decq (%rsp)", "jnz 6b", "pop %rax")
        else:
            self.ends()
        zero = "%zmm31"
        self.emit(f"cmpq $0, {_field(Field.RELU)}", "je 9f", f"vpxord {zero}, {zero}, {zero}",
                  *(f"vmax{self.kind} {x}, {zero}, {x}" for x in (self.sum(*cell) for cell in self.cells)), "9:",
                  f"mov {_field(Field.C_ROW)}, %rax")  # fmt: skip
        for i, j in self.cells:
            self.emit(f"vmovu{self.kind} {self.sum(i, j)}, {64 * j}(%rcx){self.masked(j)}")
            if j == self.vectors - 1:
                self.emit("add %rax, %rcx")
        self.emit(f"imul ${self.height}, {A_ROW}, %rax", "add %rax, %rsi", f"sub ${self.height}, %r8",
                  f"cmp ${self.height}, %r8", "jge 1b", "mov %r8, %rax",
                  *(f"pop %{register}" for register in reversed(SAVED)), "vzeroupper", "ret")  # fmt: skip

    def ends(self) -> None:
        """What lies at the end of B, where whole vectors would reach behind it."""
        self.emit(f"mov {_field(Field.LAST)}, {K}", f"test {K}, {K}", "jz 6f")
        self.steps()
        self.emit("6:")
        self.segments(Field.TAILS, Field.K_TAIL, "{%k1}{z}")

    def segments(self, count: Field, steps: Field, mask: str) -> None:
        self.emit(f"mov {_field(count)}, {SEGMENT}", f"test {SEGMENT}, {SEGMENT}", "jz 8f", "7:",
                  f"mov {_field(steps)}, {K}")  # fmt: skip
        if self.shared:
            self.emit(f"kmovw ({B}), %k2", f"add $64, {B}")
        self.steps(mask)
        self.emit(f"add {_field(Field.A_SEGMENT)}, {A}", f"add {_field(Field.B_SEGMENT)}, {B}")
        if self.height > 7:
            self.emit(f"add {_field(Field.A_SEGMENT)}, {A7}")
        self.emit(f"dec {SEGMENT}", "jnz 7b", "8:")


def _field(field: Field) -> str:
    return f"{8 * field}(%rdi)"


def _tiles(module: Any, element: Element) -> Any:
    """The table of tiles by width and height."""
    prefix = f"segment_tile_{element.suffix}"
    if f"{prefix}s" in module.globals:
        return module.globals[f"{prefix}s"]
    llvm.initialize_native_asmparser()
    shapes = {(height, vectors): f"{prefix}_{height}x{vectors}" for vectors in (SHARED, *range(1, WIDEST + 1))
              for height in range(1, HEIGHTS[max(vectors, 1) - 1] + 1)}  # fmt: skip
    tiles = (_Tile(element, name, *shape) for shape, name in shapes.items())
    _Text(module, f"{prefix}_all", "\n".join(line for tile in tiles for line in tile.lines))
    functions = {shape: ir.Function(module, TILE, name) for shape, name in shapes.items()}
    for made in functions.values():
        made.calling_convention = "x86_64_sysvcc"
    pointer = TILE.as_pointer()
    table = ir.GlobalVariable(module, ir.ArrayType(pointer, (WIDEST + 1) * ROOM), f"{prefix}s")
    table.initializer = ir.Constant(table.type.pointee, [
        functions.get((height, vectors), ir.Constant(pointer, None))
        for vectors in range(WIDEST + 1) for height in range(ROOM)])  # fmt: skip
    table.linkage, table.global_constant = "internal", True
    return table


def emit(element: Element, names: Sequence[str], builder: Any, values: Sequence[Any]) -> None:
    """The loops over groups of the batch and blocks of rows, outer segments, panels of columns."""
    *given, start, stop = (Int(builder, value) for value in values)
    at = dict(zip(names, given, strict=True))
    lanes, size = element.lanes, element.size
    table = Int(builder, builder.ptrtoint(_tiles(builder.module, element), I64))
    frame = array(builder, I64, len(Field))

    def tell(field: Field, value: Int) -> None:
        store(value.value, frame + 8 * field, 8)

    k, segments, zero, one = at["k"], at["segments1"], Int(builder, 0), Int(builder, 1)
    tell(Field.A_ROW, at["a_row"])
    tell(Field.A_COL, at["a_col"])
    tell(Field.B_ROW, at["b_row"])
    tell(Field.C_ROW, at["c_row"])
    tell(Field.A_SEGMENT, at["a_segment1"] - at["a_col"] * k)
    tell(Field.B_SEGMENT, at["b_segment1"] - at["b_row"] * k)
    tell(Field.K, k)
    tell(Field.OUTER, at["segments0"])
    tell(Field.A_OUTER, at["a_segment0"] - at["a_segment1"] * segments)
    vectors = (at["n"] + (lanes - 1)) // lanes
    panels = (vectors + (WIDEST - 1)) // WIDEST
    share, larger = vectors // panels.max(1), vectors % panels.max(1)
    inner = at["segments0"] // at["sweeps"].max(1)
    in_order = at["b_segment1"] >= at["b_row"] * k
    together = at["together"] > 1
    with builder.if_then(together):
        _share(element, at)
    b, bias = (at["workspace"].where(together, at[name]) for name in ("b", "bias"))
    b = b + zero.where(builder.not_(together), element.lanes * size)
    with loop(zero, at["sweeps"]) as sweep, loop(start, stop) as unit:
        i0 = unit % at["blocks"] * at["block"]
        outer = unit // at["blocks"]
        first = outer % at["groups"] * at["group"]
        outer = outer // at["groups"]
        height = at["block"].min(at["m"] - i0)
        a, c = at["a"] + at["a_row"] * i0, at["c"] + at["c_row"] * i0
        of_batch = b + at["b_batch2"] * first
        for axis, index in enumerate((outer // at["batch1"], outer % at["batch1"])):
            a, c = a + at[f"a_batch{axis}"] * index, c + at[f"c_batch{axis}"] * index
            of_batch = of_batch + at[f"b_batch{axis}"] * index
        with loop(inner * sweep, one.where(together, inner * (sweep + 1))) as s:
            tell(Field.START, one.where(s > 0, at["start"]))
            tell(Field.RELU, at["relu"].where(builder.or_(together, s == at["segments0"] - 1), 0))
            from_a = a + at["a_segment0"] * s
            with loop(zero, panels) as p:
                breadth = share + p.flag(p < larger)
                j0 = (share * p + p.min(larger)) * lanes
                columns = (breadth * lanes).min(at["n"] - j0)
                live = columns - (breadth - 1) * lanes
                tell(Field.MASK, Int(builder, builder.sub(builder.shl(I64(1), live.value), I64(1))))
                tell(Field.ROW, bias + j0 * size)
                # the last rows, whose last vector may end behind B, are read by live lanes only
                behind = zero.where(together, breadth * (lanes * size) - columns * size)
                unsafe = ((behind + at["b_row"] - 1) // at["b_row"].max(1)).where(behind > 0, 0)
                masked = builder.and_(behind > 0, builder.or_(unsafe > k, builder.not_(in_order)))
                tail = unsafe > 0
                full = (segments - zero.flag(tail)).where(k > 0, 0)
                tell(Field.SEGMENTS, zero.where(masked, full))
                tell(Field.LAST, zero.where(masked, (k - unsafe).where(tail, 0)).where(k > 0, 0))
                tell(Field.TAILS, segments.where(masked, zero.flag(tail)).where(k > 0, 0))
                tell(Field.K_TAIL, k.where(masked, unsafe))
                tallest = at["heights"] >> (breadth - 1) * 8 & 255
                line = table + Int(builder, SHARED).where(together, breadth) * (8 * ROOM)
                from_b = of_batch + j0 * size + at["b_segment0"] * s
                with loop(first, (first + at["group"]).min(at["batch2"])) as z:
                    there, to = from_a + at["a_batch2"] * z, c + at["c_batch2"] * z + j0 * size

                    def tile(rows: Int, *place: Int, line: Int = line) -> Int:
                        made = load(line + rows * 8, TILE.as_pointer(), 8)
                        return Int(builder, builder.call(made, [x.value for x in (frame, *place)],
                                                         cconv="x86_64_sysvcc"))  # fmt: skip

                    before = builder.block
                    with builder.if_then(height >= tallest):
                        rest = tile(tallest, there, from_b, to, height)
                        after = builder.block
                    phi = builder.phi(I64)
                    phi.add_incoming(height.value, before)
                    phi.add_incoming(rest.value, after)
                    left = Int(builder, phi)
                    with builder.if_then(left > 0):
                        done = height - left
                        tile(left, there + at["a_row"] * done, from_b, to + at["c_row"] * done, left)


def heights(rows: int) -> int:
    """The height of the tiles that so many rows are cut into, a byte for each width."""
    return sum(balanced(rows, tallest) << 8 * i for i, tallest in enumerate(HEIGHTS))


def _share(element: Element, at: dict[str, Int]) -> None:
    """Write, for rows of C that lie in one vector, their bias and their common B to the workspace: for each segment the
    lanes it counts for, then its rows, each row of C reading a tap that is `shift` before that of the one above."""
    builder, size, width = at["b"].builder, element.size, element.lanes * element.size
    zero, one, n = Int(builder, 0), Int(builder, 1), at["one"]
    lanes = Int(builder, builder.sub(builder.shl(I64(1), n.value), I64(1)))
    with builder.if_then(at["start"] == 2), loop(zero, at["together"]) as p, loop(zero, n) as o:
        store(load(at["bias"] + o * size, element.type, size), at["workspace"] + (n * p + o) * size, size)
    with loop(zero, at["segments0"]) as s, loop(zero, at["segments1"]) as t:
        to = at["workspace"] + width + ((at["segments1"] * s + t) * (at["k"] + 1)) * width
        # what no row of C reads is 0: other bits might be numbers that are slow to multiply
        with loop(zero, (at["k"] + 1) * width, width) as j:
            store(ir.Constant(element.vector, None), to + j, size)
        with loop(zero, at["together"]) as p:
            tap = t - at["shift"] * p
            with builder.if_then(builder.and_(tap >= 0, tap < at["taps"])):
                mask = Int(builder, load(to, I64, 8)) + Int(builder, builder.shl(lanes.value, (n * p).value))
                store(mask.value, to, 8)
                of = at["b"] + at["w_segment0"] * s + at["w_tap"] * tap
                with loop(zero, at["k"]) as k, loop(zero, n) as o:
                    value = load(of + at["w_row"] * k + o * size, element.type, size)
                    store(value, to + (k + one) * width + (n * p + o) * size, size)
