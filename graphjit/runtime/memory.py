"""The memory plan: every intermediate a place in one arena, shared by those that are never alive together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

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
    return max(-(-int(nbytes) // ALIGN) * ALIGN, ALIGN)


def plan_memory(lifetimes: Sequence[Lifetime]) -> MemoryPlan:
    """Place the largest buffers first, each in the lowest gap that is free throughout its life."""
    offsets: dict[Hashable, int] = {}
    first, last, begin, end = np.zeros((4, len(lifetimes)), np.int64)  # of what is placed
    for count, life in enumerate(sorted(lifetimes, key=lambda x: (-int(x.nbytes), x.first))):
        size = padded(life.nbytes)
        taken = np.flatnonzero((first[:count] <= life.last) & (last[:count] >= life.first))
        taken = taken[np.argsort(begin[taken])]
        free = np.concatenate(([0], np.maximum.accumulate(end[taken])))  # behind the first of them, the first two, ...
        wide = np.flatnonzero(begin[taken] - free[:-1] >= size)
        offset = offsets[life.key] = int(free[wide[0] if len(wide) else -1])
        first[count], last[count], begin[count], end[count] = life.first, life.last, offset, offset + size
    return MemoryPlan(offsets, int(end.max(initial=0)), sum(padded(x.nbytes) for x in lifetimes))
