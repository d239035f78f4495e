"""A matrix product as sizes and strides, brought to the simplest equal one; a convolution as lengths and strides."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Matrix:
    """Strides of one operand over rows, columns and batch dimensions, in elements."""

    row: int
    col: int
    batch: tuple[int, ...] = ()

    @property
    def transposed(self) -> "Matrix":
        return Matrix(self.col, self.row, self.batch)


@dataclass(frozen=True)
class Problem:
    """C[..., m, n] (+)= A[..., m, k] @ B[..., k, n]; `operands` are the epilogue's, of C's shape."""

    m: int
    n: int
    k: int
    batch: tuple[int, ...]
    a: Matrix
    b: Matrix
    c: Matrix
    operands: tuple[Matrix, ...] = ()
    names: tuple[str, str] = ("a", "b")  # whose addresses A and B are

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        return self.a, self.b, self.c, *self.operands

    @property
    def transposed(self) -> "Problem":
        """C^T = B^T A^T."""
        turned = [matrix.transposed for matrix in (self.b, self.a, self.c, *self.operands)]
        return self.having(turned, m=self.n, n=self.m, names=self.names[::-1])

    def having(self, matrices: Sequence[Matrix], **changes: Any) -> "Problem":
        a, b, c, *operands = matrices
        return replace(self, a=a, b=b, c=c, operands=tuple(operands), **changes)


def simplified(problem: Problem) -> Problem:
    """The same product with as few batch dimensions, and as plain strides, as can be."""
    problem = _merge_neighbours(problem)
    problem = _fold_into_rows(problem)
    problem = _fold_into_rows(problem.transposed).transposed
    return _tidy_strides(problem)


def _merge_neighbours(problem: Problem) -> Problem:
    """Batch dimensions that lie like one become one; those of size 1 go."""
    merged: list[tuple[int, tuple[int, ...]]] = []
    for axis, size in enumerate(problem.batch):
        strides = tuple(matrix.batch[axis] for matrix in problem.matrices)
        if size == 1:
            continue
        if merged and all(outer == size * inner for outer, inner in zip(merged[-1][1], strides, strict=True)):
            merged[-1] = (size * merged[-1][0], strides)
        else:
            merged.append((size, strides))
    matrices = [replace(matrix, batch=tuple(strides[i] for _, strides in merged))
                for i, matrix in enumerate(problem.matrices)]  # fmt: skip
    return problem.having(matrices, batch=tuple(size for size, _ in merged))


def _fold_into_rows(problem: Problem) -> Problem:
    """Batch dimensions over which B stands still, and that continue the rows of A and C, become rows."""
    for axis in reversed(range(len(problem.batch))):
        rows = (problem.a, problem.c, *problem.operands)
        continues = problem.m == 1 or all(x.batch[axis] == problem.m * x.row for x in rows)
        if problem.b.batch[axis] != 0 or not continues:
            continue
        matrices = []
        for i, matrix in enumerate(problem.matrices):
            row = matrix.batch[axis] if problem.m == 1 and i != 1 else matrix.row
            matrices.append(Matrix(row, matrix.col, _without(matrix.batch, axis)))
        problem = problem.having(matrices, m=problem.m * problem.batch[axis], batch=_without(problem.batch, axis))
    return problem


def _without(values: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return values[:axis] + values[axis + 1 :]


def _tidy_strides(problem: Problem) -> Problem:
    """Strides of dimensions of size 1 mean nothing; 1 makes the matrix look contiguous."""

    def tidy(matrix: Matrix, rows: int, columns: int) -> Matrix:
        return Matrix(matrix.row if rows != 1 else 1, matrix.col if columns != 1 else 1, matrix.batch)

    m, n, k = problem.m, problem.n, problem.k
    a, b, c, *operands = problem.matrices
    return problem.having([tidy(a, m, k), tidy(b, k, n), tidy(c, m, n), *(tidy(e, m, n) for e in operands)])


class Axis(NamedTuple):
    """Length, and strides in the two buffers that have this axis, in elements."""

    length: int
    first: int
    second: int


class Windows(NamedTuple):
    """C[..., y, x, n] = sum over t, u, k of A[..., y + t, x + u, k] B[t, u, k, n], by its axes.

    In A and C: a batch, lines y and places x. In A and B: taps of a window across lines, t, and along them, u, and
    channels k, dense in A. Columns of B and C are dense.
    """

    batch: tuple[Axis, ...]
    lines: Axis
    places: Axis
    across: Axis
    along: Axis
    channels: Axis
    n: int
