"""Threefry for eager draws in native code: NumPy takes a hundred passes over the counters.

The code is emitted as LLVM IR by the one definition of the cipher, and kept in the kernel cache.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from graphjit.kernels.threefry import LOW, block
from graphjit.runtime.compiler import IRKernel, compile_kernels

I32, I64 = ir.IntType(32), ir.IntType(64)
LANES = 16  # numbers in a vector; LLVM takes several where those of the CPU are shorter
VECTOR = ir.VectorType(I32, LANES)


class Word32:
    """A vector of 32-bit unsigned numbers in code that is being emitted."""

    def __init__(self, builder: ir.IRBuilder, value: Any) -> None:
        self.builder = builder
        self.value = value

    def _with(self, emit: Callable[[Any, Any], Any], other: Word32 | int) -> Word32:
        value = VECTOR([other] * LANES) if isinstance(other, int) else other.value
        return Word32(self.builder, emit(self.value, value))

    def __add__(self, other: Word32 | int) -> Word32:
        return self._with(self.builder.add, other)

    def __xor__(self, other: Word32 | int) -> Word32:
        return self._with(self.builder.xor, other)

    def __or__(self, other: Word32 | int) -> Word32:
        return self._with(self.builder.or_, other)

    def __lshift__(self, other: int) -> Word32:
        return self._with(self.builder.shl, other)

    def __rshift__(self, other: int) -> Word32:
        return self._with(self.builder.lshr, other)


def _emit(builder: ir.IRBuilder, values: list[ir.Value]) -> None:
    """From ``start`` up to ``stop`` the first words for the counters (i, c1), vector by vector."""
    address, *words, start, stop = values
    out = builder.inttoptr(address, I32.as_pointer())
    k0, k1, c1 = (_all(builder, word) for word in words)
    begin, function = builder.block, builder.function
    body, done = function.append_basic_block("body"), function.append_basic_block("done")
    builder.cbranch(builder.icmp_signed("<", start, stop), body, done)

    builder.position_at_end(body)
    i = builder.phi(I64)
    found = block(k0, k1, _all(builder, i) + Word32(builder, VECTOR(list(range(LANES)))), c1)[0]
    builder.store(found.value, builder.bitcast(builder.gep(out, [i]), VECTOR.as_pointer()), align=4)
    after = builder.add(i, I64(LANES))
    i.add_incoming(start, begin)
    i.add_incoming(after, body)
    builder.cbranch(builder.icmp_signed("<", after, stop), body, done)

    builder.position_at_end(done)


def _all(builder: ir.IRBuilder, word: ir.Value) -> Word32:
    """The low half of an int64 in all lanes."""
    one = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), builder.trunc(word, I32), I32(0))
    return Word32(builder, builder.shuffle_vector(one, one, ir.Constant(VECTOR, [0] * LANES)))


@functools.cache
def _entry() -> Callable[..., None]:
    [address] = compile_kernels([IRKernel("threefry_bits", (LANES,), 4, _emit)])
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)


def threefry_bits(k0: int, k1: int, c1: int, n: int) -> NDArray[np.uint32]:
    """The first words for the key (k0, k1) and the counters (0, c1), ..., (n - 1, c1)."""
    out = np.empty(-(-n // LANES) * LANES, np.uint32)
    _entry()((ctypes.c_int64 * 4)(out.ctypes.data, k0 & LOW, k1 & LOW, c1 & LOW), 0, n)
    return out if len(out) == n else out[:n]
