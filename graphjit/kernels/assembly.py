"""Register tiles as AVX-512 assembly: what `microkernel` emits as LLVM IR for other machines.

A tile's instructions are all known beforehand: which register holds which sum, which load goes where. Written out, a
tile of every height and width costs the assembler a tenth of a millisecond; from IR, LLVM takes four milliseconds to
find the same instructions, and as many as products of odd sizes want would cost most of a second.

The tiles' interface and `Frame` are those of `microkernel`. What differs: masked loads read the end of B in place, and
C is added to at the end. It may be fetched into the cache while the product is computed: stores that miss it, most of
all those that lie across two lines, would wait for each other. In a long product what is fetched at the beginning has
left the first-level cache at the end, soonest where rows lie a power of two apart: there C is fetched into the second
level first, and nearer shortly before it is needed. A bias and relu are added to the sums. The tiles that large
products are cut into fetch lines that are needed soon, a few at a time: many at once would make the multiply-adds
wait. All that small products do not do stands behind the function. Tiles of one and two vectors call what follows the
product, if something does, in place of storing (`tile_follower`). Registers, in the System V convention: rdi frame, rsi
a, rdx b, rcx c, r8 rows, and back in rax what rows are left. Instructions are those of AVX512F and AVX512VL.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from graphjit.kernels.microkernel import NEVER, Fetch, Frame
from graphjit.kernels.register_loop import BASES, OFFSET, ROOM, ROW, WIDEST, WORDS, Words
from graphjit.kernels.target import Element
from graphjit.kernels.tile_steps import (
    A7,
    A_COL,
    A_ROW,
    A_ROW3,
    A_ROW5,
    B_ROW,
    PANEL,
    PANEL_AHEAD,
    REGISTERS,
    STEPS,
    A,
    B,
    K,
    Steps,
)

_SAVED = ("rbx", "rbp", "r12", "r13", "r14", "r15")
_SOON, _SOON_OTHER, _SOON_THIRD = "%rax", "%r8", "%rcx"  # of tiles that look ahead
_FAR = 16  # steps of k by which prefetching of B runs ahead in tiles that pack it
_LATE = 64  # steps of k before the end at which longer products fetch C into the first-level cache
LONGER = 2 * _LATE
NARROW = 3  # vectors of rows of which the last one counts


def tiles(element: Element, tiles: Iterable[tuple[str, int, int, bool]]) -> str:
    """The text of tiles: (name, height, vectors, whether it packs B) of each."""
    return "\n".join(line for tile in tiles for line in _Tile(element, *tile).lines)


def _field(field: Frame) -> str:
    return f"{8 * field}(%rdi)"


def _word(word: int) -> str:
    return f"{8 * word}({WORDS})"


class _Tile(Steps):
    def __init__(self, element: Element, name: str, height: int, vectors: int, packs: bool) -> None:
        super().__init__(element, height, vectors, packs)
        # the tiles that most rows of large products are cut into; they have registers to spare
        self.is_large = vectors == 2 and height > 7
        self.looks_ahead = self.is_large and not packs
        self.follows = vectors <= WIDEST  # those that may be followed
        self.behind: list[str] = []
        self._write(name)
        self.lines += self.behind

    @contextmanager
    def aside(self, jump: str, label: int, back: int = 0) -> Iterator[None]:
        """What small products do not do stands behind the function: this jump leads there, and it comes back here or
        to a label."""
        self.emit(f"{jump} {label}f")
        lines, self.lines = self.lines, [f"{label}:"]
        yield
        self.behind += [*self.lines, f"jmp {back or label + 100}b"]
        self.lines = lines if back else [*lines, f"{label + 100}:"]

    # ---- the function ---------------------------------------------------------------------------------------

    def _write(self, name: str) -> None:
        self.emit(".p2align 5", f"{name}:", *(f"push %{register}" for register in _SAVED),
                  f"mov {_field(Frame.A_ROW)}, {A_ROW}", f"lea ({A_ROW},{A_ROW},2), {A_ROW3}",
                  f"lea ({A_ROW},{A_ROW},4), {A_ROW5}", f"mov {_field(Frame.A_COL)}, {A_COL}",
                  f"mov {_field(Frame.B_ROW)}, {B_ROW}", f"kmovw {_field(Frame.MASK)}, %k1")  # fmt: skip
        if self.is_large:
            self._ask_for_aids()
        self.emit("1:", *(f"vpxord {x}, {x}, {x}" for x in (self.sum(*cell) for cell in self.cells)))
        self._fetch_c()
        if self.follows and not self.looks_ahead:
            self.emit(f"mov {_field(Frame.FOLLOWER)}, {WORDS}", f"test {WORDS}, {WORDS}")
            with self.aside("jnz", 3):
                self.emit(f"mov {_word(Words.BASE)}, {A}", f"add {OFFSET}, {A}", f"mov {_word(Words.OTHER)}, {A7}",
                          f"mov {_word(Words.THIRD)}, {B}")  # fmt: skip
                self._fetch("prefetcht0", ("", f",{A7}", f",{B}"))
        self.emit(f"mov %rsi, {A}", f"mov %rdx, {B}")
        self.begin()
        if self.packs:
            self.emit(f"mov {_field(Frame.PANEL)}, {PANEL}",
                      f"imul ${_FAR}, {B_ROW}, {PANEL_AHEAD}", f"add {B}, {PANEL_AHEAD}")  # fmt: skip
        if self.is_large:
            self.emit(f"cmpq $0, {_field(Frame.AIDED)}", "jne 24f")
        self.emit(f"mov {_field(Frame.K)}, {K}")
        self.steps()
        self.emit(f"mov {_field(Frame.K_TAIL)}, {K}", f"test {K}, {K}")
        with self.aside("jg", 6):
            self.step("{%k1}{z}")
            self.emit(f"dec {K}", "jnz 6b")
        self.emit(f"mov {_field(Frame.C_ROW)}, %rax", f"cmpq $0, {_field(Frame.ADD)}")
        with self.aside("jne", 8):
            self.emit(f"mov %rcx, {A}")
            for i, j in self.cells:
                self.emit(f"vadd{self.kind} {64 * j}({A}), {self.sum(i, j)}, {self.sum(i, j)}{self.masked(j)}")
                if j == self.vectors - 1 and i < self.height - 1:
                    self.emit(f"add %rax, {A}")
        self.emit(f"mov {_field(Frame.BIAS)}, {A}", f"test {A}, {A}")
        with self.aside("jnz", 14):
            self._epilogue()
        if self.follows:
            self.emit(f"mov {_field(Frame.FOLLOWER)}, {WORDS}", f"test {WORDS}, {WORDS}")
            with self.aside("jnz", 17, back=18):
                self._follow()
        self._store()
        self.emit("18:")
        if not self.packs:
            self.emit(f"add {_field(Frame.A_STEP)}, %rsi", f"sub ${self.height}, %r8", f"cmp ${self.height}, %r8",
                      "jge 1b", "mov %r8, %rax", f"mov %rsi, {_field(Frame.A_NEXT)}",
                      f"mov %rcx, {_field(Frame.C_NEXT)}")  # fmt: skip
        self.emit(*(f"pop %{register}" for register in reversed(_SAVED)), "vzeroupper", "ret")
        if self.is_large:
            self._write_aided()

    def _ask_for_aids(self) -> None:
        """Whether tiles of large products are to do more than multiply while they do."""
        self.emit(f"mov {_field(Frame.FETCH)}, %rax", f"cmpq ${LONGER}, {_field(Frame.K)}", "jge 9f", "xor %eax, %eax",
                  "9:", f"movq $0, {_field(Frame.LATE)}")  # fmt: skip
        if self.looks_ahead:
            self.emit(f"mov {_field(Frame.SOON_EVERY)}, {K}", f"sub ${NEVER}, {K}", f"or {K}, %rax",
                      f"or {_field(Frame.FOLLOWER)}, %rax")  # fmt: skip
        self.emit(f"mov %rax, {_field(Frame.AIDED)}")

    def _write_aided(self) -> None:
        """The loop over k that fetches what is needed soon, and C."""
        self.emit("24:")
        if self.looks_ahead:
            self.emit(f"mov %r8, {_field(Frame.ROWS)}")
            self._steps_near()
            self.emit(f"mov {_field(Frame.SOON)}, {_SOON}", f"mov {_field(Frame.SOON_OTHER)}, {_SOON_OTHER}",
                      f"mov {_field(Frame.SOON_TILE)}, {K}", f"add {K}, {_field(Frame.SOON)}")  # fmt: skip
        self.emit(f"mov {_field(Frame.K)}, {K}", *([f"sub {_field(Frame.NEAR)}, {K}"] if self.looks_ahead else []),
                  f"sub {_field(Frame.LATE)}, {K}", "jle 26f", "43:")  # fmt: skip
        if self.unrolls:
            self.emit(f"cmp ${self.size}, {A_COL}", "je 36f", f"cmp ${self.size}, {A_ROW}", "jne 46f", "36:")
            if self.looks_ahead:
                self.emit(f"cmpq ${STEPS - 1}, {_field(Frame.SOON_EVERY)}", "jb 46f")
            self.emit("44:", f"test ${STEPS - 1}, {K}", "jz 45f")
            self.step()
            self._look_soon()
            self.emit(f"dec {K}", "jmp 44b", "45:", f"test {K}, {K}", "jz 47f",
                      f"cmp ${self.size}, {A_COL}", "jne 37f", ".p2align 5", "48:")  # fmt: skip
            self.some_steps(along=True)
            self._look_soon()
            self.emit(f"sub ${STEPS}, {K}", "jnz 48b", "jmp 47f", ".p2align 5", "37:")
            self.some_steps(along=False)
            self._look_soon()
            self.emit(f"sub ${STEPS}, {K}", "jnz 37b")
            self.behind_columns()
            self.emit("jmp 47f")
        self.emit(".p2align 5", "46:")
        self.step()
        self._look_soon()
        self.emit(f"dec {K}", "jnz 46b", "47:")
        self._fetch_late(43, 26)
        self.emit("26:", *([f"mov {_field(Frame.ROWS)}, %r8"] if self.looks_ahead else []), "jmp 5b")

    def _epilogue(self) -> None:
        """What `epilogue` does to C in memory, done to its sums."""
        zero = f"%zmm{REGISTERS - 1}"
        self.emit(f"cmpq $0, {_field(Frame.BIAS_OF_ROWS)}", "jne 12f")
        for i, j in self.cells:
            self.emit(f"vadd{self.kind} {64 * j}({A}), {self.sum(i, j)}, {self.sum(i, j)}{self.masked(j)}")
        self.emit("jmp 13f", "12:")
        size = 64 // self.lanes
        for i, j in self.cells:
            self.emit(f"vadd{self.kind} {size * i}({A}){{1to{self.lanes}}}, {self.sum(i, j)}, {self.sum(i, j)}")
        self.emit(f"addq ${size * self.height}, {_field(Frame.BIAS)}",
                  "13:", f"cmpq $0, {_field(Frame.RELU)}", "je 16f", f"vpxord {zero}, {zero}, {zero}")  # fmt: skip
        for cell in self.cells:
            x = self.sum(*cell)
            # neither less nor equal: NaN stays, as in max(x, 0)
            self.emit(f"vcmpnle{self.kind} {zero}, {x}, %k2", f"vmovap{self.kind[1]} {x}, {x}{{%k2}}{{z}}")
        self.emit("16:")

    def _follow(self) -> None:
        """Call what follows the product, from the tile's last row."""
        self.emit(f"mov %r8, {_field(Frame.ROWS)}", f"imul ${self.height - 1}, {ROW}, {A}", f"add {A}, {OFFSET}",
                  *(f"mov {_word(Words.BASE + i)}, {base}" for i, base in enumerate(BASES)),
                  f"mov {_word(Words.TABLE)}, {B_ROW}", f"call *{8 * (ROOM * self.vectors + self.height)}({B_ROW})",
                  f"mov {_field(Frame.B_ROW)}, {B_ROW}", f"imul ${self.height}, {ROW}, {A}",
                  f"add {A}, {OFFSET}", f"mov {_field(Frame.ROWS)}, %r8")  # fmt: skip

    def _fetch(self, instruction: str, others: Iterable[str]) -> None:
        """Have the tile's lines fetched, in all arrays that lie so far from where the first one is."""
        self.emit(f"mov {_field(Frame.C_ROW)}, %rax")
        for i, j in self.cells:
            self.emit(*(f"{instruction} {64 * j}({A}{other})" for other in others))
            if j == self.vectors - 1 and i < self.height - 1:
                self.emit(f"add %rax, {A}")

    def _fetch_c(self) -> None:
        """Have C fetched, if it is to be: at once, or late, and into the second-level cache before."""
        self.emit(f"cmpq $0, {_field(Frame.FETCH)}")
        with self.aside("jne", 2):
            if self.is_large:
                self.emit(f"cmpq ${LONGER}, {_field(Frame.K)}", "jl 20f", f"movq ${_LATE}, {_field(Frame.LATE)}",
                          f"testq ${Fetch.FAR}, {_field(Frame.FETCH)}", "jz 102b")  # fmt: skip
                self._fetch_all("prefetcht1", 21)
                self.emit("jmp 102b", "20:")
            self._fetch_all("prefetchw", 22)

    def _fetch_late(self, here: int, behind: int) -> None:
        """Behind most steps of a long product: fetch C into the first-level cache, and go on."""
        kept = {A: Frame.A_NEXT, "%rax": Frame.C_NEXT}  # fields that tiles set at the end
        self.emit(f"mov {_field(Frame.LATE)}, {K}", f"test {K}, {K}", f"jz {behind}f",
                  f"movq $0, {_field(Frame.LATE)}", *(f"mov {x}, {_field(field)}" for x, field in kept.items()))
        self._fetch_all("prefetchw", 23)
        self.emit(*(f"mov {_field(field)}, {x}" for x, field in kept.items()), f"jmp {here}b")

    def _fetch_all(self, instruction: str, label: int) -> None:
        """All lines of the tile: where rows do not begin with one, they end in one more."""
        self.emit(f"mov %rcx, {A}")
        self._fetch(instruction, ("",))
        self.emit(f"testq ${Fetch.ACROSS}, {_field(Frame.FETCH)}", f"jz {label}f", f"mov %rcx, {A}")
        self.emit(*[f"{instruction} {64 * self.vectors - 1}({A})", f"add %rax, {A}"] * self.height, f"{label}:")

    def _steps_near(self) -> None:
        """The first steps of k, if something follows: in them its lines are fetched, a row of the tile at a time."""
        self.emit(f"mov {_field(Frame.FOLLOWER)}, {_SOON}", f"test {_SOON}, {_SOON}", "jz 16f",
                  f"mov %rcx, {_field(Frame.C_NEXT)}", f"mov {8 * Words.OTHER}({_SOON}), {_SOON_OTHER}",
                  f"mov {8 * Words.THIRD}({_SOON}), {K}", f"add {8 * Words.BASE}({_SOON}), %rcx",
                  f"mov %rcx, {_SOON}", f"mov {K}, {_SOON_THIRD}",
                  f"mov {_field(Frame.NEAR)}, {K}", f"cmp {_field(Frame.K)}, {K}", f"cmovg {_field(Frame.K)}, {K}",
                  f"test {K}, {K}", "jz 19f", ".p2align 5", "15:")  # fmt: skip
        self.step()
        self._look(Frame.NEAR_EVERY, Frame.C_ROW, self.vectors, ("", f",{_SOON_OTHER}", f",{_SOON_THIRD}"))
        self.emit(f"dec {K}", "jnz 15b", "19:", f"mov {_field(Frame.C_NEXT)}, %rcx", "16:")

    def _look_soon(self) -> None:
        if self.looks_ahead:
            self._look(Frame.SOON_EVERY, Frame.SOON_STEP, 1, ("", f",{_SOON_OTHER}"))

    def _look(self, every: Frame, step: Frame, lines: int, others: Iterable[str]) -> None:
        """Now and then fetch a few lines behind a step of k. Of rows that begin within one the panel before read it."""
        self.emit(f"test {K}, {_field(every)}", "jne 11f",
                  *(f"prefetcht0 {64 * i + 63}({_SOON}{other})" for other in others for i in range(lines)),
                  f"add {_field(step)}, {_SOON}", "11:")  # fmt: skip

    def _store(self) -> None:
        """Store C. A store with a mask takes longer than one without, and touches as many lines of memory as its vector
        does, live lanes or not: the last vectors of short rows go by the narrowest instruction."""
        full, half = (1 << self.lanes) - 1, (1 << self.lanes // 2) - 1
        self.emit(f"mov {_field(Frame.MASK)}, {A}", f"cmp ${full}, {A}")
        with self.aside("jne", 30, back=18):
            kinds = [("je", 1, "xmm", "", "vmovs"), ("jbe", half, "ymm", "{%k1}", "vmovup")] * (self.vectors <= NARROW)
            for label, (jump, mask, *_) in enumerate(kinds, 31):
                self.emit(f"cmp ${mask}, {A}", f"{jump} {label}f")
            self._store_as("zmm", "{%k1}", "vmovup")
            for label, (*_, register, masked, move) in enumerate(kinds, 31):
                self.emit("jmp 18b", f"{label}:")
                self._store_as(register, masked, move)
        self._store_as("zmm", "", "vmovup")
    def _store_as(self, register: str, mask: str, move: str) -> None:
        for i, j in self.cells:
            if j < self.vectors - 1:
                self.emit(f"vmovu{self.kind} {self.sum(i, j)}, {64 * j}(%rcx)")
            else:
                self.emit(f"{move}{self.kind[1]} {self.sum(i, j).replace('zmm', register)}, {64 * j}(%rcx){mask}",
                          "add %rax, %rcx")  # fmt: skip
