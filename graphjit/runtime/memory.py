"""The memory plan: every intermediate a place in one arena, shared by those that are never alive together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

ALIGN = 64  # bytes: a cache line, and the widest vector


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Offsets in the arena, in bytes; ``total`` is what the buffers would take one behind the other."""

    offsets: Mapping[Hashable, int]
    size: int
    total: int


@dataclass(slots=True)
class Lifetime:
    """A buffer and the first and last step at which its contents matter."""

    key: Hashable
    nbytes: int
    first: int
    last: int


def padded(nbytes: int) -> int:
    return max(-(-nbytes // ALIGN) * ALIGN, ALIGN)


def plan_memory(lifetimes: Sequence[Lifetime]) -> MemoryPlan:
    """Place the largest buffers first, each in the lowest gap that is free throughout its life."""
    placed: list[tuple[int, int, Lifetime]] = []
    offsets: dict[Hashable, int] = {}
    for life in sorted(lifetimes, key=lambda x: (-x.nbytes, x.first)):
        size = padded(life.nbytes)
        taken = sorted((at, end) for at, end, other in placed
                       if other.first <= life.last and life.first <= other.last)
        offset = 0
        for at, end in taken:
            if offset + size <= at:
                break
            offset = max(offset, end)
        offsets[life.key] = offset
        placed.append((offset, offset + size, life))
    return MemoryPlan(offsets, max((end for _, end, _ in placed), default=0), sum(padded(x.nbytes) for x in lifetimes))
