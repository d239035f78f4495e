"""What the machine can do at most: multiply-adds a second and bytes a second, measured once in a process.

The roofline model (Williams, Waterman and Patterson, 2009): a kernel takes at least the time of its operations at
the peak rate, and at least that of its bytes at the rate of the memory they lie in.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from llvmlite import ir

from graphjit.kernels import tile_unit
from graphjit.kernels.emit import F32, F64, I64, intrinsic
from graphjit.kernels.target import target
from graphjit.runtime.compiler import IRKernel, compile_kernels, pack_args
from graphjit.runtime.driver import ROW, runner
from graphjit.runtime.replay import timed
from graphjit.types import DType

CHAINS, STEPS, TRIPS = 12, 4, 500  # twelve chains keep two units of latency four, or of latency six, busy
BUDGET = 2e-3                      # seconds of measuring


@functools.cache
def peak_flops(itemsize: int, products: bool = False) -> float:
    """Operations a second of one core on float32 (4) or float64 (8): independent chains of multiply-adds; or, for
    matrix products, of what is fastest for them."""
    if products and itemsize == 4 and target().tile_unit:
        return max(_rate(*tile_chains()), peak_flops(itemsize))
    return _rate(*fma_kernel(itemsize))


def _rate(kernel: IRKernel, flops: int) -> float:
    out = np.zeros(target().vector + 8, np.uint8)
    [entry] = compile_kernels([kernel])
    slots, status = pack_args([out.ctypes.data], ["*float64"]), np.zeros(1, np.int64)
    row = np.array([[entry, slots.ctypes.data, 0, 1, 0, 0][:ROW]], np.int64)

    def times(n: int) -> None:
        table = np.tile(row, (n, 1))
        runner()(table.ctypes.data, n, status.ctypes.data, 0)
    return flops / timed(times, BUDGET)[0]


def fma_kernel(itemsize: int) -> tuple[IRKernel, int]:
    """A kernel of multiply-adds in registers, whose one slot is the address of a vector; its operations in one call."""
    lanes = target().lanes(itemsize)
    emit = functools.partial(_emit_chains, lanes, F32 if itemsize == 4 else F64)
    return (IRKernel(f"fma_{lanes}x{itemsize}", ("peak", CHAINS, STEPS, TRIPS), 1, emit),
            2 * lanes * CHAINS * STEPS * TRIPS)


def _emit_chains(lanes: int, number: Any, b: Any, values: list[Any]) -> None:
    kind = ir.VectorType(number, lanes)
    bits = 32 if number is F32 else 64
    fma = intrinsic(b.module, f"llvm.fma.v{lanes}f{bits}", kind, kind, kind, kind)
    factor, addend = (ir.Constant(kind, [x] * lanes) for x in (0.999, 0.001))
    before, body, done = b.block, b.append_basic_block(), b.append_basic_block()
    b.branch(body)
    b.position_at_end(body)
    left, sums = b.phi(I64), [b.phi(kind) for _ in range(CHAINS)]
    chains = list(sums)
    for _ in range(STEPS):
        chains = [b.call(fma, [x, factor, addend]) for x in chains]
    less = b.sub(left, I64(1))
    left.add_incoming(I64(TRIPS), before)
    left.add_incoming(less, body)
    for i, (phi, x) in enumerate(zip(sums, chains, strict=True)):
        phi.add_incoming(ir.Constant(kind, [float(i)] * lanes), before)
        phi.add_incoming(x, body)
    b.cbranch(b.icmp_signed(">", less, I64(0)), body, done)
    b.position_at_end(done)
    total = functools.reduce(b.fadd, chains)
    b.store(total, b.inttoptr(values[0], kind.as_pointer())).align = 4


def tile_chains() -> tuple[IRKernel, int]:
    """A kernel that keeps the tile unit busy, of one slot it does not read; and the float32 operations of a call, each
    of them six of the unit's."""
    emit = functools.partial(tile_unit.emit_chains, TRIPS)
    return IRKernel("tile_chains", ("peak", TRIPS), 1, emit), TRIPS * tile_unit.CHAIN_FLOPS


def bandwidth(nbytes: int) -> float:
    """Bytes a second, read and written, of a copy whose two buffers together take about ``nbytes``."""
    return _bandwidth(min(max(nbytes, 1 << 17), 1 << 26).bit_length())


@functools.cache
def _bandwidth(bits: int) -> float:
    source = np.zeros(1 << (bits - 2), np.uint8)
    to = np.empty_like(source)

    def times(n: int) -> None:
        for _ in range(n):
            np.copyto(to, source)
    return 2.0 * source.nbytes / timed(times, BUDGET)[0]


def bound(flops: int, nbytes: int, dtype: DType, footprint: int, products: bool) -> float:
    """Seconds a kernel takes at least on one core.

    Args:
        flops, nbytes: its work.
        dtype: of most of its operations.
        footprint: bytes of the memory its program works on: by it they lie in a cache or outside.
        products: whether its operations are those of a matrix product or a convolution.
    """
    return max(flops / peak_flops(8 if dtype.itemsize == 8 else 4, products), nbytes / bandwidth(footprint))
