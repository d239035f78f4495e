"""Which kernels of a program are shared out among threads, and in what chunks: a cost model.

A kernel that is shared takes its part of the time on one thread, the fork and join, and what moves from one core's
cache to another's: measured, some 15 ns a line, as kernels wait for most of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphjit.codegen.call import KernelCall

FORK = 1_000.0    # ns of a fork and join, and of threads that are not quite equal
MOVE = 0.03       # ns a byte of a kernel's operands takes by moving between cores, on the average
CACHED = 1 << 18  # and most of the bytes that do: large operands are shared out in their order, again and again
WORTH = 0.15      # of a program's time that sharing must save, for any of its kernels to be shared
SMALL = 400.0     # ns of a kernel that is shared in such a program: the operands lie with several cores anyway
UNEVEN = 1.04     # times as long takes a chunk that does not end where the kernel's own blocks do
CHUNK = 50_000.0  # ns of a chunk that a thread takes at once
CHUNKS = 4        # and about how many of them a thread has at most


def grains(kernels: Sequence[KernelCall], threads: int) -> list[int]:
    """For each kernel the units of a chunk that threads claim; 0 for one that is not shared out, negative for one with
    a tail."""
    if threads == 1:
        return [0] * len(kernels)
    saved = [k.cost * (1 - 1 / threads) - FORK - MOVE * min(k.nbytes, CACHED) for k in kernels]
    chunks = [_grain(k, threads) for k in kernels]
    gain = sum(max(ns, 0.0) for ns, grain in zip(saved, chunks, strict=True) if grain)
    if gain < WORTH * sum(k.cost for k in kernels):
        return [0] * len(kernels)
    return [grain if k.cost >= SMALL else 0 for k, grain in zip(kernels, chunks, strict=True)]


def _grain(kernel: KernelCall, threads: int) -> int:
    extent = kernel.extent - kernel.tail
    if extent <= 1:
        return 0

    def time(grain: int) -> float:
        """Of the thread that has most to do, in units."""
        return -(-extent // (grain * threads)) * grain * (1.0 if grain % kernel.align == 0 else UNEVEN)

    few = max(1, min(CHUNKS, int(kernel.cost / (threads * CHUNK))))
    grain = min((-(-extent // (chunks * threads * align)) * align
                 for chunks in range(few, few + 3) for align in (kernel.align, 1)), key=time)
    if grain >= extent:
        return 0
    return -grain if kernel.tail else grain
