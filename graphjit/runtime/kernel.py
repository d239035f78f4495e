"""Kernels, and what they are known by: equal ones are compiled once on a machine."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm
from llvmlite import ir

from graphjit.runtime import cache
from graphjit.runtime.machine import target_cpu


@dataclass(frozen=True, slots=True)
class LoopKernel:
    """A kernel given as readable Python source over typed pointers.

    Args:
        name: for humans: the function's name in the source and part of its symbol; not part of the identity.
        source: text of `def {name}(p0, ..., s0, ..., start, stop):`; comments and blank lines do not count.
        args: type code of each parameter but the last two, which are int64: "*float32" is a pointer,
            "float32" a scalar. Memory that a kernel writes is reached through one pointer only. A bool in
            memory is a uint8.
    """

    name: str
    source: str
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IRKernel:
    """A kernel whose body is emitted as LLVM IR: the hand-made kernel library.

    Args:
        name: for humans, and part of the symbol.
        key: what the code depends on: equal names and keys emit equal code. Its repr must not differ between
            processes.
        nargs: the number of slots.
        emit: called with a builder in the entry function and [slot values (i64) ..., start, stop]. Functions
            it defines beside the entry stay private to the kernel; linkonce_odr ones are shared by name.
    """

    name: str
    key: tuple[Hashable, ...]
    nargs: int
    emit: Callable[[ir.IRBuilder, list[ir.Value]], None] = field(compare=False)


Kernel = LoopKernel | IRKernel


def identity(kernel: Kernel) -> str:
    """The identity of a kernel's machine code: what it computes, the compiler, the CPU."""
    parts: tuple[Hashable, ...]
    match kernel:
        case LoopKernel(name, source, args):
            parts = "loop", normalised(name, source), args
        case IRKernel(name, key, nargs):
            parts = "ir", name, repr(key), nargs
    return hashlib.sha256(f"{_fingerprint()}{parts!r}".encode()).hexdigest()


def normalised(name: str, source: str) -> str:
    """The source without its own name, comments and blank lines. A `#` after a quote is left alone."""
    lines = []
    for line in source.splitlines():
        code, _, _ = line.partition("#")
        kept = (line if '"' in code or "'" in code else code).rstrip()
        if kept:
            lines.append(kept)
    return "\n".join(lines).replace(f"def {name}(", "def kernel(", 1)


@functools.cache
def _fingerprint() -> str:
    """All that machine code depends on besides its kernel: compilers, our own code generation, the CPU."""
    facts = (cache.FORMAT, sys.version_info[:2], llvmlite.__version__, llvm.llvm_version_info,
             llvm.get_process_triple(), *target_cpu())
    digest = hashlib.sha256(repr(facts).encode())
    here = Path(__file__).parent
    sources = [*sorted(here.glob("*.py")), *sorted((here.parent / "kernels").rglob("*.py"))]
    numba = importlib.util.find_spec("numba")  # located, not imported
    if numba is not None and numba.origin is not None:
        sources.append(Path(numba.origin).with_name("_version.py"))
    try:
        for path in sources:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    except OSError:  # no source files to tell one version from another: nothing on disk is for this process
        digest.update(os.urandom(32))
    return digest.hexdigest()
