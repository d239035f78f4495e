"""Other ways to run the kernels of a program: in pieces, and as the Python text they are made from."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from graphjit.codegen.call import Address, KernelCall, Scratch, Slot
from graphjit.kernels.scalar import PYTHON_NAMESPACE
from graphjit.runtime.compiler import LoopKernel
from graphjit.runtime.program import Program

Array = np.ndarray[Any, Any]
POISON = 0xA5


def poison(program: Program) -> None:
    """Fill the arena, so that what is read before it is written shows."""
    program._memory[:] = POISON


def each_row(program: Program, call: Callable[[Array], None]) -> None:
    """Have the program run ``call(row)`` for each row of its table from now on."""
    def run(table: int, n: int, status: int, helpers: int = 0) -> int:
        first = (table - program.table.ctypes.data) // program.table.strides[0]
        for i in range(n):
            call(program.table[first + i:first + i + 1])
            if program.status[0]:
                return i
        return -1
    program._run = run


def in_pieces(program: Program, backwards: bool = False) -> None:
    """Run every kernel's [0, extent) in up to three parts."""
    whole = program._run

    def call(row: Array) -> None:
        start, stop = map(int, row[0, 2:4])
        cuts = sorted({start, start + (stop - start) // 3, stop - (stop > start + 1), stop})
        parts = list(pairwise(cuts)) or [(start, stop)]
        if backwards:
            parts = parts[-2::-1] + parts[-1:] if step_of(program, row).tail else parts[::-1]
        for part in parts:
            piece = row.copy()
            piece[0, 2:4] = part
            whole(piece.ctypes.data, 1, program.status.ctypes.data, 0)
    each_row(program, call)


def step_of(program: Program, row: Array) -> KernelCall:
    return program.kernels[(row.ctypes.data - program.table.ctypes.data) // program.table.strides[0]]


def in_python(program: Program) -> None:
    """Run generated kernels as plain Python, every access checked against the bounds of its buffer."""
    whole = program._run

    def call(row: Array) -> None:
        step = step_of(program, row)
        if isinstance(step.kernel, LoopKernel):
            run_source(program, step, step.kernel)
        else:
            whole(row.ctypes.data, 1, program.status.ctypes.data, 0)
    each_row(program, call)


class Pointer:
    """An address inside a buffer, indexed like a C pointer."""

    def __init__(self, memory: Array, offset: int) -> None:
        self.memory = memory
        self.offset = offset

    def _at(self, index: Any) -> int:
        at = self.offset + int(index)
        if not 0 <= at < len(self.memory):
            raise IndexError(f"element {at} of a buffer of {len(self.memory)}")
        return at

    def __getitem__(self, index: Any) -> Any:
        return self.memory[self._at(index)]

    def __setitem__(self, index: Any, value: Any) -> None:
        if np.asarray(value).dtype != self.memory.dtype and not isinstance(value, (int, float)):
            raise TypeError(f"a {np.asarray(value).dtype} stored as {self.memory.dtype}")
        self.memory[self._at(index)] = value


def run_source(program: Program, step: KernelCall, kernel: LoopKernel) -> None:
    scope = dict(PYTHON_NAMESPACE)
    exec(compile(kernel.source, f"<{kernel.name}>", "exec"), scope)
    args = [argument(program, slot, code) for slot, code in zip(step.slots, kernel.args, strict=True)]
    with np.errstate(all="ignore"):
        scope[kernel.name](*args, 0, step.extent)  # type: ignore[operator]


def argument(program: Program, slot: Slot, code: str) -> Any:
    if not code.startswith("*"):
        return int(slot) if code == "int64" else np.dtype(code).type(slot)  # type: ignore[arg-type]
    dtype = np.dtype(code[1:])
    if not isinstance(slot, Address):
        return Pointer(program.status, 0)
    if isinstance(slot.buffer, Scratch):
        memory = np.full(slot.buffer.nbytes, POISON, np.uint8).view(dtype)
    else:
        memory = np.ascontiguousarray(program.array(slot.buffer))
        memory = memory.reshape(-1).view(dtype)
    return Pointer(memory, slot.offset // dtype.itemsize)


