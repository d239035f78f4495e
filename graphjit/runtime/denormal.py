"""Whether a core computes with denormal numbers, or takes them for zero: its floating-point mode.

Denormal numbers are those below the smallest normal one, 1e-38 for float32 and 2e-308 for float64. x86 needs some 150
cycles more for each instruction that makes or multiplies one. The mode is each thread's own; a worker takes over that
of the thread whose job it does (``working``).
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable, Sequence

import numpy as np
from llvmlite import ir

from graphjit.kernels.emit import intrinsic
from graphjit.runtime.spin import ARM, I32, I64, X86

# results become zero and operands count as zero: FTZ and DAZ of the register MXCSR; FZ of FPCR
FLUSH = {**dict.fromkeys(X86, 1 << 15 | 1 << 6), **dict.fromkeys(ARM, 1 << 24)}
FLAGS = 0x3F  # of MXCSR: what has happened, no part of the mode


def read_mode(b: ir.IRBuilder) -> ir.Value:
    """The mode of the core that runs this, an int64; 0 where none is known."""
    machine = platform.machine().lower()
    if machine in X86:
        place = _room(b)
        b.call(_of_mxcsr(b, "st"), [b.bitcast(place, _BYTES)])
        return b.zext(b.and_(b.load(place), I32(0xFFFF ^ FLAGS)), I64)
    if machine in ARM:
        return b.call(intrinsic(b.module, "llvm.aarch64.get.fpcr", I64), [])
    return I64(0)


def write_mode(b: ir.IRBuilder, mode: ir.Value) -> None:
    """Change it to what ``read_mode`` gave."""
    machine = platform.machine().lower()
    if machine in X86:
        place = _room(b)
        b.store(b.trunc(mode, I32), place)
        b.call(_of_mxcsr(b, "ld"), [b.bitcast(place, _BYTES)])
    elif machine in ARM:
        b.call(intrinsic(b.module, "llvm.aarch64.set.fpcr", ir.VoidType(), I64), [mode])


_BYTES = ir.IntType(8).as_pointer()


def _room(b: ir.IRBuilder) -> ir.Value:
    with b.goto_entry_block():  # else each turn of a loop would take more of the stack
        return b.alloca(I32)


def _of_mxcsr(b: ir.IRBuilder, way: str) -> ir.Function:
    return intrinsic(b.module, f"llvm.x86.sse.{way}mxcsr", ir.VoidType(), _BYTES)


def set_flush_denormal(mode: bool) -> bool:
    """Take numbers below the smallest normal one (1e-38 in float32, 2e-308 in float64) for zero, or not.

    Where such numbers come up (tails of exponentials and diffusions, gradients that vanish over many steps) a CPU
    computes many times slower; as zeros they cost nothing. By default they count, as IEEE 754 has it. This is a mode of
    the calling thread, as in PyTorch: graphjit's kernels and those that help them follow it, and so do NumPy and
    Python's floats. Threads started later begin with it.

    Returns:
        Whether this CPU can. If not, nothing has changed.

    >>> import graphjit as gj, numpy as np
    >>> tiny = np.float32(1e-30) * np.ones(1, np.float32)
    >>> can = gj.set_flush_denormal(True)
    >>> bool((tiny * tiny[0] * np.float32(1e20) > 0)[0]) and can
    False
    >>> can = gj.set_flush_denormal(False)
    >>> bool((tiny * np.float32(1e-10) > 0)[0])
    True
    """
    bits = FLUSH.get(platform.machine().lower(), 0)
    if bits:
        now = _exchange()
        _exchange(now | bits if mode else now & ~bits)
    return bool(bits)


def _exchange(mode: int = -1) -> int:
    """The thread's mode; a new one takes its place, -1 for none."""
    found = np.zeros(1, np.int64)
    slots = np.array([mode, found.ctypes.data], np.int64)
    _entry()(slots.ctypes.data, 0, 0)
    return int(found[0])


def _emit(b: ir.IRBuilder, values: Sequence[ir.Value]) -> None:
    mode, out = values[:2]
    b.store(read_mode(b), b.inttoptr(out, I64.as_pointer()))
    with b.if_then(b.icmp_signed("!=", mode, I64(-1))):
        write_mode(b, mode)


@functools.cache
def _entry() -> Callable[[int, int, int], None]:
    from graphjit.runtime.compiler import IRKernel, compile_kernels  # which compiles what threads run
    (address,) = compile_kernels([IRKernel("mode", ("mode", FLAGS), 2, _emit)])
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)
