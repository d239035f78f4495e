"""Which kernels of a program are shared out among threads, and in what chunks: a cost model.

A kernel that is shared takes its part of the time on one thread, the fork and join, and what it has to fetch from other
cores' caches: some 6 ns a line. That depends on who wrote each buffer before, or has a copy of it: so sharing a kernel
makes the next one dearer on one thread, or cheaper if it is shared in the same way. The program's time is added up for
several choices, each as if the program ran again and again, and the best one taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphjit.codegen.call import KernelCall
from graphjit.ir import Node

FORK = 700.0      # ns of a fork and join, and of threads that are not quite equal
MOVE = 0.1        # ns a byte takes from one core's cache to another's
LEAST = 400.0     # ns of a kernel that may be shared
WORTH = 0.1       # of a program's time that sharing must save
UNEVEN = 1.04     # times as long takes a chunk that does not end where the kernel's own blocks do
CHUNK = 50_000.0  # ns of a chunk that a thread takes at once
CHUNKS = 4        # and about how many of them a thread has at most
NEAR = 1 << 21    # bytes of a core's cache: what lies in memory anyway does not move


def grains(kernels: Sequence[KernelCall], threads: int, in_place: Mapping[Node, Node]) -> list[int]:
    """For each kernel the units of a chunk that threads claim; 0 for one that is not shared out, negative for one with
    a tail.

    Args:
        in_place: nodes whose buffer is that of a state.
    """
    alone = [0] * len(kernels)
    if threads == 1:
        return alone
    chunks = [_grain(k, threads) if k.cost >= LEAST else 0 for k in kernels]
    saved = sum(k.cost * (1 - 1 / threads) - FORK for k, grain in zip(kernels, chunks, strict=True) if grain)
    if saved < WORTH * sum(k.cost for k in kernels):
        return alone
    uses = [_Use.of(k, in_place) for k in kernels]
    costs = sorted({k.cost for k, grain in zip(kernels, chunks, strict=True) if grain})
    best, least = alone, (1 - WORTH) * _time(uses, alone, threads)
    bound = 0.0
    for cost in costs:  # kernels from a bound on, which grows by half each time
        if cost < 1.5 * bound:
            continue
        bound = cost
        choice = [grain if k.cost >= bound else 0 for k, grain in zip(kernels, chunks, strict=True)]
        time = _time(uses, choice, threads)
        if time < least:
            best, least = choice, time
    return best


@dataclass(frozen=True, slots=True)
class _Use:
    """What a kernel does with buffers: how threads would cut each, as ``KernelCall.cuts`` says it."""

    cost: float
    repeated: float
    reads: tuple[tuple[Node, int, int], ...]  # buffer, its bytes, cut
    writes: tuple[tuple[Node, int, int], ...]

    @staticmethod
    def of(call: KernelCall, in_place: Mapping[Node, Node]) -> _Use:
        known = {in_place.get(b, b): span for b, span in call.cuts.items()}

        def every(nodes: Sequence[Node]) -> tuple[tuple[Node, int, int], ...]:
            found = dict.fromkeys(in_place.get(b, b) for b in nodes)
            return tuple((b, min(b.type.nbytes, call.nbytes), known.get(b, b.type.size)) for b in found)
        return _Use(call.cost, call.repeated, every(call.reads), every(call.writes))


def _time(uses: Sequence[_Use], shared: Sequence[int], threads: int) -> float:
    """Of a program that runs again and again: how it leaves the buffers is how it finds them."""
    held: dict[Node, tuple[int, bool]] = {}  # how the buffer was cut when written (-1: it was not), copies elsewhere
    time = 0.0
    for _ in range(2):
        time = sum(_step(use, grain != 0, threads, held) for use, grain in zip(uses, shared, strict=True))
    return time


def _step(use: _Use, shared: bool, threads: int, held: dict[Node, tuple[int, bool]]) -> float:
    """One kernel's time; what ``held`` says of its buffers is brought up to date."""
    others = 1 - 1 / threads
    moved = 0.0
    for buffer, nbytes, cut in use.reads:
        before = held.get(buffer)
        if before is None or before[1] or nbytes > NEAR:
            continue
        mine = nbytes / threads if shared and cut else nbytes
        if not shared:
            away = others if before[0] >= 0 else 0.0
        elif cut and cut == before[0]:
            away = 0.0
        else:
            away = others if before[0] >= 0 else 1.0
        if away:
            moved += mine * away
            held[buffer] = before[0], True
    for buffer, nbytes, cut in use.writes:
        mine = nbytes / threads if shared and cut else nbytes
        owner = cut if shared and cut else -1
        before = held.get(buffer)
        if before is not None and (before[1] or before[0] != owner) and nbytes <= NEAR:
            moved += mine
        if nbytes >= buffer.type.nbytes // 2:  # else a part: a border
            held[buffer] = owner, False
    time = (use.cost - use.repeated) / threads + use.repeated + FORK if shared else use.cost
    return time + MOVE * moved


def _grain(kernel: KernelCall, threads: int) -> int:
    extent = kernel.extent - kernel.tail
    if extent <= 1:
        return 0

    def time(grain: int) -> float:
        """Of the thread that has most to do, in units."""
        return -(-extent // (grain * threads)) * grain * (1.0 if grain % kernel.align == 0 else UNEVEN)

    few = max(1, min(CHUNKS, int(kernel.cost / (threads * CHUNK))))
    aligns = (kernel.align,) if kernel.strict else (kernel.align, 1)
    grain = min((-(-extent // (chunks * threads * align)) * align
                 for chunks in range(few, few + 3) for align in aligns), key=time)
    if grain >= extent:
        return 0
    return -grain if kernel.tail else grain
