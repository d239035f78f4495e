"""Other ways to run the kernels of a program: in pieces, and the text they are made from, by Python or plain Numba."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from graphjit.codegen.call import Address, Entry, KernelCall, Scratch, Slot
from graphjit.kernels.irmath import TYPES, V
from graphjit.kernels.row_tiles import from_lanes, to_lanes
from graphjit.kernels.scalar import PYTHON_NAMESPACE, TABLE
from graphjit.runtime import frontend, machine
from graphjit.runtime.compiler import LoopKernel, compile_kernels, pack_args
from graphjit.runtime.program import Program

Array = np.ndarray[Any, Any]
POISON = 0xA5


def call(kernel: LoopKernel, *values: Any, stop: int, start: int = 0) -> None:
    """Run one kernel on arrays and numbers."""
    slots = pack_args([v.ctypes.data if isinstance(v, np.ndarray) else v for v in values], kernel.args)
    entry_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    entry_type(*compile_kernels([kernel]))(slots.ctypes.data, start, stop)


def optimised(kernel: LoopKernel) -> str:
    """The LLVM assembly of a kernel that machine code is made from."""
    module = machine.parse(frontend.lower(kernel, kernel.name))
    machine.optimise_loops(module)
    return str(module)


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
    by_source(program, run_source)


def in_numba(program: Program) -> None:
    """Run generated kernels as Numba compiles them from their source."""
    by_source(program, run_jitted)


def by_source(program: Program, run: Callable[[Program, KernelCall, LoopKernel], None]) -> None:
    whole = program._run

    def call(row: Array) -> None:
        step = step_of(program, row)
        if isinstance(step.kernel, LoopKernel):
            run(program, step, step.kernel)
        else:
            whole(row.ctypes.data, 1, program.status.ctypes.data, 0)
    each_row(program, call)


class Pointer:
    """An address inside a buffer, indexed like a C pointer."""

    def __init__(self, memory: Array, offset: int) -> None:
        self.memory = memory
        self.offset = offset

    @property
    def address(self) -> int:
        return self.memory.ctypes.data + self.offset * self.memory.itemsize

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


def scope_of(kernel: LoopKernel) -> dict[str, Any]:
    """What a kernel's source defines in Python."""
    scope = dict(PYTHON_NAMESPACE)
    exec(compile(kernel.source, f"<{kernel.name}>", "exec"), scope)
    return scope


def run_source(program: Program, step: KernelCall, kernel: LoopKernel) -> None:
    scope = scope_of(kernel)
    args = [argument(program, slot, code) for slot, code in zip(step.slots, kernel.args, strict=True)]
    with np.errstate(all="ignore"):
        scope[kernel.name](*args, 0, step.extent)


def run_jitted(program: Program, step: KernelCall, kernel: LoopKernel) -> None:
    args = [argument(program, slot, code) for slot, code in zip(step.slots, kernel.args, strict=True)]
    jitted(kernel)(*[x.address if isinstance(x, Pointer) else x for x in args], 0, step.extent)


@functools.cache
def jitted(kernel: LoopKernel) -> Callable[..., None]:
    """A kernel's source, compiled by Numba as it is."""
    import numba

    def type_of(code: str) -> Any:
        return numba.types.CPointer(type_of(code[1:])) if code[0] == "*" else numba.from_dtype(np.dtype(code))

    scope: dict[str, Any] = {name: intrinsic(name) for name in TABLE if f"{name}(" in kernel.source}
    scope["lanes"] = scope["few"] = scope["apart"] = range
    scope |= {each.__name__: numba.njit(each) for each in (to_lanes, from_lanes)}
    exec(compile(kernel.source, f"<{kernel.name}>", "exec"), scope)
    codes = [code.replace("*bool", "*uint8") for code in kernel.args]
    signature = numba.types.void(*map(type_of, codes), numba.int64, numba.int64)
    function = numba.cfunc(signature, error_model="numpy")(scope[kernel.name])
    kinds = [ctypes.c_void_p if code[0] == "*" else np.ctypeslib.as_ctypes_type(code) for code in kernel.args]
    call: Any = ctypes.CFUNCTYPE(None, *kinds, ctypes.c_int64, ctypes.c_int64)(function.address)
    call.code = function  # kept as long as it can be called
    return call  # type: ignore[no-any-return]


@functools.cache
def intrinsic(name: str) -> Any:
    """A kernel function for Numba."""
    import numba.extending

    row = TABLE[name]

    def typed(*given: Any) -> Any:
        kinds = [numba.types.unliteral(kind) for kind in given]
        operands = [TYPES[str(kind)] for kind in kinds]

        def generate(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
            return row.apply(name, [V(builder, x, kind) for x, kind in zip(args, operands, strict=True)]).ir
        return numba.from_dtype(np.dtype(row.result(*operands).name))(*kinds), generate

    names = ", ".join("abcd"[:row.arity])
    return numba.extending.intrinsic(eval(f"lambda context, {names}: typed({names})", {"typed": typed}))


def argument(program: Program, slot: Slot, code: str) -> Any:
    if isinstance(slot, Entry):  # what it calls is a function of Python here
        return 0
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


