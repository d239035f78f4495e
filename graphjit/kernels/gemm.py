"""Matrix products: C[..., m, n] (+)= A[..., m, k] @ B[..., k, n], and an epilogue.

`plan` describes one product as a kernel and its arguments. Sizes, strides and blocking are arguments, so a handful
of kernels, one for each (dtype, epilogue), serve all shapes: a new batch size or layer never costs a compile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from graphjit.kernels import blocked, dot
from graphjit.kernels.epilogue import EPILOGUES
from graphjit.kernels.microkernel import Layout
from graphjit.kernels.problem import Matrix, Problem, simplified
from graphjit.kernels.target import Element, target
from graphjit.runtime.compiler import IRKernel

BATCH_DIMS = 3


@dataclass(frozen=True)
class GemmPlan:
    """A product as a kernel and its arguments.

    slots: the kernel's arguments; a string stands for an address: 'a', 'b', 'c', 'workspace', 'e0', 'e1', ...
    extent: the kernel computes units [start, stop) of range(extent); however the range is cut, and in whatever
        order the pieces run, the result has the same bits.
    workspace: bytes of scratch memory that each concurrent call needs for itself, best aligned to 64 bytes.
    flops: multiplications and additions of the product.
    """

    kernel: IRKernel
    slots: tuple[int | str, ...]
    extent: int
    workspace: int
    flops: int


def plan(
    m: int,
    n: int,
    k: int,
    dtype: Any,
    a_strides: tuple[int, int],
    b_strides: tuple[int, int],
    c_strides: tuple[int, int],
    batch: tuple[int, ...] = (),
    a_batch: tuple[int, ...] = (),
    b_batch: tuple[int, ...] = (),
    c_batch: tuple[int, ...] = (),
    accumulate: bool = False,
    epilogue: str = "store",
    e_strides: Sequence[tuple[int, ...]] = (),
) -> GemmPlan:
    """Plan C[..., m, n] (+)= A[..., m, k] @ B[..., k, n]; then the epilogue.

    Args:
        m, n, k: sizes, 0 too (k = 0: zeros and the epilogue).
        dtype: float32 or float64, of all operands.
        a_strides, b_strides, c_strides: of (row, column), in elements. A and B may lie in any way; C must not
            overlap itself, A or B.
        batch: sizes of the batch dimensions; `a_batch`, `b_batch`, `c_batch` are the strides over them, 0 where an
            operand is the same for all.
        accumulate: add to what C holds.
        epilogue: a name of `graphjit.kernels.epilogue.EPILOGUES`.
        e_strides: for each operand of the epilogue its strides over (batch..., row, column). Without it a bias is
            a vector along n, and another operand lies like C.

    Raises:
        ValueError: another dtype; more than three batch dimensions that cannot be merged; an operand of the
            epilogue that is neither contiguous nor constant along the dimension in which C is contiguous.
    """
    element = _element(np.dtype(dtype))
    if not e_strides:
        bias = (0,) * (len(batch) + 1) + (1,)
        e_strides = [bias if "bias" in epilogue else (*c_batch, *c_strides)] * EPILOGUES[epilogue].operands
    problem = simplified(Problem(
        m, n, k, tuple(batch), Matrix(*a_strides, tuple(a_batch)), Matrix(*b_strides, tuple(b_batch)),
        Matrix(*c_strides, tuple(c_batch)), tuple(Matrix(*strides[-2:], tuple(strides[:-2])) for strides in e_strides),
    ))  # fmt: skip
    if len(problem.batch) > BATCH_DIMS:
        raise ValueError(f"a matrix product over {len(problem.batch)} separate batch dimensions {problem.batch}")
    candidates = []
    for way in (problem, problem.transposed):
        if way.a.col == 1:
            candidates.append((dot.cycles(way, element), "dot", way))
        if _layouts(way) is not None:
            candidates.append((blocked.cycles(way, element), "blocked", way))
    if not candidates:
        raise ValueError("an epilogue's operand must be contiguous or constant along the contiguous dimension of C")
    _, name, way = min(candidates, key=lambda candidate: candidate[0])
    pad = (0,) * (BATCH_DIMS - len(problem.batch))
    sizes = (1,) * len(pad) + way.batch
    named: dict[str, Any] = {"batch1": sizes[1], "batch2": sizes[2]}
    if name == "dot":
        kernel = dot.dot_kernel(element, epilogue)
        names, matrices = dot.NAMES, {"long": way.a, "short": way.b.transposed, "c": way.c}
        arguments, workspace = dot.arguments(way, element, accumulate)
    else:
        kernel = blocked.blocked_kernel(element, epilogue, _layouts(way) or ())
        names, matrices = blocked.NAMES, {"a": way.a, "b": way.b, "c": way.c}
        arguments, workspace = blocked.arguments(way, element, accumulate)
    for letter, matrix in matrices.items():
        named |= {f"{letter}_row": matrix.row * element.size, f"{letter}_col": matrix.col * element.size}
        named |= {f"{letter}_batch{i}": stride * element.size for i, stride in enumerate((*pad, *matrix.batch))}
    named |= arguments
    slots: list[int | str] = [named.get(name, name) for name in names]
    for i, operand in enumerate(way.operands):
        strides = (operand.row, operand.col) if name == "dot" else (operand.row,)
        slots += [f"e{i}", *(stride * element.size for stride in (*strides, *pad, *operand.batch))]
    extent = named["units"] * prod(way.batch) if way.m and way.n else 0
    return GemmPlan(kernel, tuple(slots), extent, workspace, 2 * m * n * k * prod(batch))


def _element(dtype: np.dtype[Any]) -> Element:
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"no matrix product kernel for {dtype}")
    return Element(dtype.name, dtype.itemsize, target().lanes(dtype.itemsize))


def _layouts(problem: Problem) -> tuple[Layout, ...] | None:
    """How the epilogue's operands lie over a row of C; None if one of them is strided there."""
    layouts = []
    for operand in problem.operands:
        if operand.col == 1:
            layouts.append(Layout.ROW if operand.row == 0 or problem.m == 1 else Layout.FULL)
        elif operand.col == 0:
            layouts.append(Layout.COLUMN)
        else:
            return None
    return tuple(layouts)
