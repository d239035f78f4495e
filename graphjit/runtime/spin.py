"""What threads that wait for each other need, as native code: words of the block they share, a clock, sleep."""

from __future__ import annotations

import os
import platform

from llvmlite import ir

from graphjit.runtime.builtin import python

I32, I64 = ir.IntType(32), ir.IntType(64)
X86, ARM = ("x86_64", "amd64", "i686"), ("aarch64", "arm64")


def place(b: ir.IRBuilder, block: ir.Value, *offsets: ir.Value | int) -> ir.Value:
    """Where the word is that lies so many words behind the start of a block."""
    for offset in offsets:
        block = b.gep(block, [I64(offset) if isinstance(offset, int) else offset])
    return block


def pause(b: ir.IRBuilder) -> None:
    """Tell the core that this loop is waiting."""
    machine = platform.machine().lower()
    if machine in X86:
        b.call(_intrinsic(b.module, "llvm.x86.sse2.pause", ir.VoidType()), [])
    elif machine in ARM:
        b.call(_intrinsic(b.module, "llvm.aarch64.hint", ir.VoidType(), I32), [I32(1)])


def ticks(b: ir.IRBuilder) -> ir.Value:
    """The time by a clock that costs some ns to read, in a unit of its own; always 0 where none is known."""
    machine = platform.machine().lower()
    if machine in X86:
        return b.call(_intrinsic(b.module, "llvm.readcyclecounter", I64), [])
    if machine in ARM:
        return b.asm(ir.FunctionType(I64, []), "mrs $0, cntvct_el0", "=r", [], True)
    return I64(0)


def give_way(b: ir.IRBuilder) -> None:
    """Let another thread have this core, if one waits for it."""
    if os.name == "posix":
        b.call(python(b.module, "sched_yield", I32), [])


def take(b: ir.IRBuilder, lock: ir.Value) -> None:
    """Sleep until a lock of CPython's is free, and take it. The GIL plays no part."""
    b.call(python(b.module, "PyThread_acquire_lock", I32, I64, I32), [lock, I32(1)])


def free(b: ir.IRBuilder, lock: ir.Value) -> None:
    """Free such a lock, whoever took it."""
    b.call(python(b.module, "PyThread_release_lock", ir.VoidType(), I64), [lock])


def _intrinsic(module: ir.Module, name: str, result: ir.Type, *args: ir.Type) -> ir.Function:
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, args), name)
