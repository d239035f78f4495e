"""Register tiles that add up all segments of a product before they store it.

Where a segment is a few dozen steps long, as the lines of a convolution's window are, storing and loading a tile of C
between segments would take as long as its multiply-adds. Those here are in AVX-512 assembly, those of `segment_text` in
LLVM IR.
"""

from collections.abc import Iterable
from enum import IntEnum

from graphjit.kernels.target import Element
from graphjit.kernels.tile_steps import A7, A_COL, A_ROW, A_ROW3, A_ROW5, B_ROW, A, B, K, Steps

SHARED = 0  # vectors of tiles whose one vector a row holds several rows of C
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
    A_ROWS = 17  # for tiles in IR: 3, 5, 7, ... times A_ROW, in the fields behind this one


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


def tiles(element: Element, shapes: Iterable[tuple[str, int, int]]) -> str:
    """The text of tiles: (name, height, vectors) of each."""
    return "\n".join(line for shape in shapes for line in _Tile(element, *shape).lines)
