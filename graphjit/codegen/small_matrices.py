"""Loop kernels for small matrices: solutions, inverses, determinants and Cholesky's factors, one matrix after another.

To call LAPACK takes some microseconds, in which hundreds of such equations are solved. What they compute is what LAPACK
does: elimination with the largest number of a column as its pivot; a matrix that it refuses, they refuse. Their loops
are not unrolled (``lanes``): they are many and short, and LLVM would take twice as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from graphjit.codegen.library_loops import LoopCall, Writer, short
from graphjit.op import Layout
from graphjit.types import INT64, DType, TensorType

SMALL = 32  # rows of the largest ones; measured: LAPACK takes 2 to 10 times as long there, 1.2 to 6 times with 64
STEP = 0.4  # ns of a multiply-add


def small_matrices(op: str, layouts: Sequence[Layout], out: TensorType, upper: bool = False) -> LoopCall | None:
    """The kernel of an op for operands that lie so; None if their matrices are large, or empty."""
    n = int(layouts[0].shape[-1])
    if not 0 < n <= SMALL or not out.size:
        return None
    batch = out.shape[:len(out.shape) - {"slogdet": 1, "det": 0}.get(op, 2)]
    columns = int(out.shape[-1]) if op in ("solve", "solve_triangular") else n if op == "inv" else 0
    w = _Matrices(f"small_{op}_{'upper_' * upper}{len(batch)}_{out.dtype.name}", out.dtype)
    for i, name in enumerate("ab"[:len(layouts)]):
        w.pointer(name, out.dtype, f"in{i}")
    w.pointer("out", out.dtype, "out")
    w.pointer("own", out.dtype, "room")
    if op not in ("det", "slogdet"):
        w.pointer("status", INT64, "status")
    w.sizes(n=n, columns=columns)
    for name, layout in zip("ab", layouts, strict=False):
        w.sizes(**{f"{name}_row": layout.strides[-2], f"{name}_col": layout.strides[-1]})
    for axis, length in enumerate(batch):
        w.sizes(**{f"n{axis}": length})
        for name, layout in zip("ab", layouts, strict=False):
            w.sizes(**{f"{name}{axis}": _batch_stride(layout, axis - len(batch))})
    with w.block("for i in range(start, stop)"):
        w.line("rest = i")
        for name in "ab"[:len(layouts)]:
            w.line(f"at_{name} = i64(0)")
        for axis in reversed(range(len(batch))):
            for name in "ab"[:len(layouts)]:
                w.line(f"at_{name} += rest % n{axis} * {name}{axis}")
            w.line(f"rest = rest // n{axis}")
        _WRITERS[op](w, upper)
    each = n * n * (n + 3 * columns + 3) + 50
    return w.call(prod(map(int, batch)), n * n * out.dtype.itemsize, STEP * each * prod(map(int, batch)))


def _batch_stride(layout: Layout, axis: int) -> int:
    """Elements from one matrix to the next along a batch axis (counted from the last one), 0 if stretched."""
    at = len(layout.shape) - 2 + axis
    return 0 if at < 0 or layout.shape[at] == 1 else layout.strides[at]


class _Matrices(Writer):
    """Writes the code for matrix i."""

    def __init__(self, name: str, dtype: DType) -> None:
        super().__init__(name)
        self.zero, self.one = f"{short(dtype)}(0)", f"{short(dtype)}(1)"

    def copy(self) -> None:
        """A into memory of its own."""
        with self.block("for r in lanes(n)"), self.block("for j in lanes(n)"):
            self.line("own[r * n + j] = a[at_a + r * a_row + j * a_col]")

    def right_side(self) -> None:
        """B to where the solution will be."""
        with self.block("for r in lanes(n)"), self.block("for j in lanes(columns)"):
            self.line("out[(i * n + r) * columns + j] = b[at_b + r * b_row + j * b_col]")

    def refuse(self, condition: str) -> None:
        with self.block(f"if {condition}"):
            self.line("status[0] = i64(1)")

    def eliminate(self, each: Callable[[], None]) -> None:
        """Make A upper triangular, and do the same to the right side; ``each`` is written behind the choice of the
        pivot of column c, which was in row ``best``."""
        with self.block("for c in lanes(n)"):
            self.line("best = c")
            self.line("most = abs_(own[c * n + c])")
            with self.block("for r in lanes(c + 1, n)"):
                self.line("size = abs_(own[r * n + c])")
                self.line("best = where(size > most, r, best)")
                self.line("most = where(size > most, size, most)")
            with self.block("if best != c"):
                self.swap("own", "c * n", "best * n", "n")
                self.swap("out", "(i * n + c) * columns", "(i * n + best) * columns", "columns")
            each()
            with self.block("for r in lanes(c + 1, n)"):
                self.line("factor = own[r * n + c] / own[c * n + c]")
                with self.block("for j in lanes(c + 1, n)"):
                    self.line("own[r * n + j] = own[r * n + j] - factor * own[c * n + j]")
                self.subtract("r", "c", "factor")

    def swap(self, pointer: str, one: str, other: str, count: str) -> None:
        with self.block(f"for j in lanes({count})"):
            self.line(f"held = {pointer}[{one} + j]")
            self.line(f"{pointer}[{one} + j] = {pointer}[{other} + j]")
            self.line(f"{pointer}[{other} + j] = held")

    def subtract(self, row: str, other: str, factor: str) -> None:
        """Of the right side, a multiple of one row from another."""
        to, of = f"out[(i * n + {row}) * columns + j]", f"out[(i * n + {other}) * columns + j]"
        with self.block("for j in lanes(columns)"):
            self.line(f"{to} = {to} - {factor} * {of}")

    def substitute(self, upper: bool) -> None:
        """Solve the triangular equations that are left."""
        with self.block("for s in lanes(n)"):
            self.line("q = " + ("n - 1 - s" if upper else "s"))
            with self.block("for j in lanes(columns)"):
                self.line("out[(i * n + q) * columns + j] = out[(i * n + q) * columns + j] / own[q * n + q]")
            with self.block("for r in lanes(q)" if upper else "for r in lanes(q + 1, n)"):
                self.subtract("r", "q", "own[r * n + q]")


def _solve(w: _Matrices, upper: bool) -> None:
    w.copy()
    w.right_side()
    w.eliminate(lambda: w.refuse(f"own[c * n + c] == {w.zero}"))
    w.substitute(upper=True)


def _inv(w: _Matrices, upper: bool) -> None:
    w.copy()
    with w.block("for r in lanes(n)"), w.block("for j in lanes(n)"):
        w.line(f"out[(i * n + r) * n + j] = where(r == j, {w.one}, {w.zero})")
    w.eliminate(lambda: w.refuse(f"own[c * n + c] == {w.zero}"))
    w.substitute(upper=True)


def _solve_triangular(w: _Matrices, upper: bool) -> None:
    w.copy()
    w.right_side()
    with w.block("for r in lanes(n)"):
        w.refuse(f"own[r * n + r] == {w.zero}")
    w.substitute(upper)


def _slogdet(w: _Matrices, upper: bool) -> None:
    """Sign and logarithm; 0 and -inf as soon as a pivot is 0, whatever else there is."""
    w.copy()
    w.line(f"sign_ = {w.one}")
    w.line(f"total = {w.zero}")
    w.line("singular = i64(0)")

    def pivot() -> None:
        w.line("p = own[c * n + c]")
        w.line(f"singular += i64(p == {w.zero})")
        w.line("sign_ = where(best != c, -sign_, sign_)")
        w.line(f"sign_ = where(p < {w.zero}, -sign_, sign_)")
        w.line("total += log(abs_(p))")

    w.eliminate(pivot)
    w.line(f"out[2 * i] = where(singular > 0, {w.zero}, sign_)")
    w.line(f"out[2 * i + 1] = where(singular > 0, log({w.zero}), total)")


def _det(w: _Matrices, upper: bool) -> None:
    w.copy()
    w.line(f"total = {w.one}")
    w.line("singular = i64(0)")

    def pivot() -> None:
        w.line(f"singular += i64(own[c * n + c] == {w.zero})")
        w.line("total = where(best != c, -total, total) * own[c * n + c]")

    w.eliminate(pivot)
    w.line(f"out[i] = where(singular > 0, {w.zero}, total)")


def _cholesky(w: _Matrices, upper: bool) -> None:
    w.copy()
    with w.block("for c in lanes(n)"):
        w.line("left = own[c * n + c]")
        with w.block("for j in lanes(c)"):
            w.line("left = left - out[(i * n + c) * n + j] * out[(i * n + c) * n + j]")
        w.refuse(f"left <= {w.zero}")
        w.line("root = sqrt(left)")
        with w.block("for j in lanes(c + 1, n)"):
            w.line(f"out[(i * n + c) * n + j] = {w.zero}")
        w.line("out[(i * n + c) * n + c] = root")
        with w.block("for r in lanes(c + 1, n)"):
            w.line("below = own[r * n + c]")
            with w.block("for j in lanes(c)"):
                w.line("below = below - out[(i * n + r) * n + j] * out[(i * n + c) * n + j]")
            w.line("out[(i * n + r) * n + c] = below / root")


_WRITERS: dict[str, Callable[[_Matrices, bool], None]] = {
    "solve": _solve, "inv": _inv, "solve_triangular": _solve_triangular, "slogdet": _slogdet, "det": _det,
    "cholesky": _cholesky}
