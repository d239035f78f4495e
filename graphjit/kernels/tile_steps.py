"""What register tiles in AVX-512 assembly do for each step of k: a row of B times a column of A.

For a step of k as it comes, addresses move on by strides that are not known before. Where the numbers of A are
neighbours, along its rows or its columns, `some_steps` needs fewer instructions for as many multiply-adds: a core that
two threads share takes turns in decoding theirs, for each of them half as many in a cycle. Measured there: 1.03 to 1.2
times the speed; where a core is one thread's own, the same, but for tiles of one vector, which take a tenth less.
"""

from graphjit.kernels.microkernel import AHEAD
from graphjit.kernels.target import Element

A, A7, A_ROW, A_ROW3, A_ROW5, A_COL = "%r9", "%r10", "%r11", "%rbx", "%rbp", "%r14"
B, B_ROW, K = "%r12", "%r13", "%r15"
PANEL, PANEL_AHEAD = "%rax", "%r8"  # of tiles that leave a copy of B
A14 = PANEL  # of those that do not
REGISTERS = 32
STEPS = 4  # of k at once, a power of two,
UNROLLED = (10, 10, 7, 5)  # in tiles of so many rows at least, of one vector, two, ...


class Steps:
    """The lines of a tile.

    Args:
        element: of all operands.
        height: its rows.
        vectors: its width.
        packs: it leaves a copy of B.
        fetches_b: it fetches B a few steps ahead.
        counts: the mask of the sums that a step counts for, if not for all.
    """

    def __init__(self, element: Element, height: int, vectors: int, packs: bool = False, fetches_b: bool = False,
                 counts: str = "") -> None:
        self.height, self.vectors, self.packs, self.fetches_b, self.counts = height, vectors, packs, fetches_b, counts
        self.kind = "ps" if element.size == 4 else "pd"
        self.spread = "vbroadcastss" if element.size == 4 else "vbroadcastsd"
        self.lanes, self.size = element.lanes, element.size
        self.unrolls = not packs and vectors <= len(UNROLLED) and height >= UNROLLED[vectors - 1]
        few = min(height, vectors)
        self.held = [f"%zmm{REGISTERS - 1 - r}" for r in range(few)]  # of a step's row or column the shorter one
        self.passing = [f"%zmm{r}" for r in range(height * vectors, REGISTERS - few)]
        self.lines: list[str] = []

    def emit(self, *lines: str) -> None:
        self.lines += lines

    def sum(self, i: int, j: int) -> str:
        return f"%zmm{i * self.vectors + j}"

    def masked(self, j: int, mask: str = "{%k1}") -> str:
        """The mask of the last vector of a row."""
        return mask if j == self.vectors - 1 else ""

    @property
    def cells(self) -> list[tuple[int, int]]:
        return [(i, j) for i in range(self.height) for j in range(self.vectors)]

    @property
    def others(self) -> dict[str, int]:
        """Addresses of more rows of A, and which they are."""
        return {base: row for base, row in ((A7, 7), (A14, 14)) if self.height > row}

    def begin(self) -> None:
        """The addresses of more rows of A."""
        base = A
        for other in self.others:
            self.emit(f"lea ({base},{A_ROW3},2), {other}", f"add {A_ROW}, {other}")
            base = other

    def steps(self, mask: str = "") -> None:
        """As many as K holds, none maybe; A and B then lie behind them. Behind label 5 all is done."""
        if self.unrolls and not mask:
            self.emit(f"cmp ${self.size}, {A_COL}", "jne 34f", f"sub ${STEPS}, {K}", "jl 41f", ".p2align 5", "40:")
            self.some_steps(along=True)
            self.emit(f"sub ${STEPS}, {K}", "jge 40b", "jmp 41f",
                      "34:", f"cmp ${self.size}, {A_ROW}", "jne 42f", f"sub ${STEPS}, {K}", "jl 41f",
                      ".p2align 5", "35:")  # fmt: skip
            self.some_steps(along=False)
            self.emit(f"sub ${STEPS}, {K}", "jge 35b")
            self.behind_columns()
            self.emit("41:", f"add ${STEPS}, {K}", "42:")
        self.emit(f"test {K}, {K}", "jle 5f", ".p2align 5", "4:")
        self.step(mask)
        self.emit(f"dec {K}", "jnz 4b", "5:")

    def step(self, mask: str = "") -> None:
        """One step. The fewer of the two are held in registers while the others stream by."""
        self._run_ahead()
        if self.packs:
            self.emit(*(f"prefetcht0 {64 * j + 63}({PANEL_AHEAD})" for j in range(self.vectors)))
        if self.vectors <= self.height:
            self._rows([self._number(i) for i in range(self.height)], mask, every=1 if self.vectors == 1 else 0)
        else:
            for i, a in enumerate(self.held):
                self.emit(f"{self.spread} {self._number(i)}, {a}")
            for j in range(self.vectors):
                b = self.passing[j % len(self.passing)]
                self._load_b(j, b, mask)
                for i, a in enumerate(self.held):
                    self._multiply(i, j, b, a)
        self.emit(f"add {B_ROW}, {B}", *(f"add {A_COL}, {base}" for base in (A, *self.others)))
        if self.packs:
            self.emit(f"add ${64 * self.vectors}, {PANEL}", f"add {B_ROW}, {PANEL_AHEAD}")

    def some_steps(self, along: bool) -> None:
        """So many steps, of an A whose rows are contiguous (``along`` them), or its columns: then `behind_columns` is
        called behind the last of them."""
        for step in range(STEPS):
            self._run_ahead(a=not (along and step))
            if along:
                numbers, every = [f"{self.size * step}{self._number(i)}" for i in range(self.height)], 0
            else:  # more loads than one of four would wait for each other
                numbers, every = [f"{self.size * i}({A})" for i in range(self.height)], 4
            self._rows(numbers, every=1 if self.vectors == 1 else every)
            self.emit(f"add {B_ROW}, {B}", *([] if along else [f"add {A_COL}, {A}"]))
        if along:
            self.emit(*(f"add ${self.size * STEPS}, {base}" for base in (A, *self.others)))

    def behind_columns(self) -> None:
        """The addresses that steps along columns leave as they were."""
        self.emit(*(f"lea {self.size * row}({A}), {base}" for base, row in self.others.items()))

    def _rows(self, numbers: list[str], mask: str = "", every: int = 0) -> None:
        """The row of B is held while numbers of A stream by; one of so many is read by each multiply-add for itself."""
        for j, b in enumerate(self.held):
            self._load_b(j, b, mask)
        for i, number in enumerate(numbers):
            a = self.passing[i % len(self.passing)] if self.passing else ""
            if every and i % every == every - 1:
                a = f"{number}{{1to{self.lanes}}}"
            else:
                self.emit(f"{self.spread} {number}, {a}")
            for j, b in enumerate(self.held):
                self._multiply(i, j, *((a, b) if "(" in a else (b, a)))

    def _run_ahead(self, a: bool = True) -> None:
        """Fetch A and B some steps ahead. Of narrow tiles the loads leave no room for more."""
        if self.vectors == 1:
            return
        if a:
            self.emit(f"prefetcht0 ({A},{A_COL},{AHEAD})")
        if self.fetches_b:
            self.emit(*(f"prefetcht0 {64 * j}({B},{B_ROW},{AHEAD})" for j in range(self.vectors)))

    def _load_b(self, j: int, register: str, mask: str) -> None:
        self.emit(f"vmovu{self.kind} {64 * j}({B}), {register}{self.masked(j, mask)}")
        if self.packs:
            self.emit(f"vmovu{self.kind} {register}, {64 * j}({PANEL})")

    def _multiply(self, i: int, j: int, x: str, y: str) -> None:
        self.emit(f"vfmadd231{self.kind} {x}, {y}, {self.sum(i, j)}{self.counts}")

    def _number(self, i: int) -> str:
        """The address of row i of A. An address adds 1, 2, 4 or 8 times a register to another."""
        base, row = (A, A7, A14)[i // 7], i % 7
        return {0: f"({base})", 1: f"({base},{A_ROW})", 2: f"({base},{A_ROW},2)", 3: f"({base},{A_ROW3})",
                4: f"({base},{A_ROW},4)", 5: f"({base},{A_ROW5})", 6: f"({base},{A_ROW3},2)"}[row]  # fmt: skip
