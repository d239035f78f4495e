"""Strips: kernels that follow each other are run part by part, so that what one leaves the next finds in the cache.

A product, the activation behind it, the next product: where each needs of the others' results only the rows it is at,
they are a group, and all run on the first rows, then all on the next ones. That pays where the arrays between them are
larger than the cache. An array that no one else reads has memory for one strip only, in each thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from math import ceil, lcm

from graphjit.codegen.call import Address, KernelCall, Move, Scratch, Step
from graphjit.ir import Apply, Input, Node
from graphjit.kernels.target import target
from graphjit.passes.layout import base_layout

FAR = 3     # times the near memory, that two neighbours must touch for strips to pay
MOST = 3    # and that what they go through in order may have of a strip
FEWEST = 8  # strips of a group, which threads share
TITLES = 4  # kernels that are named


def in_strips(steps: Sequence[Step], outputs: Iterable[Node], in_place: Mapping[Node, Input]) -> list[Step]:
    """The same steps in the same order, neighbours grouped where that pays.

    Args:
        outputs: of the graph.
        in_place: nodes whose buffer is that of a state.
    """
    if not any(isinstance(step, KernelCall) and _may_begin(step) for step in steps):
        return list(steps)
    users = Counter(b for step in steps for b in {*step.reads, *step.writes})
    users.update(base_layout(node)[0] for node in outputs)
    out: list[Step] = []
    group: _Group | None = None
    for step in steps:
        if isinstance(step, KernelCall) and group is not None and group.takes(step):
            continue
        if group is not None:
            out.extend(group.steps(users))
        group = _Group(step, in_place) if isinstance(step, KernelCall) and _may_begin(step) else None
        if group is None:
            out.append(step)
    return out if group is None else [*out, *group.steps(users)]


def near_memory() -> int:
    """Bytes that a core has near by: its second-level cache."""
    return target().l2


def _may_begin(call: KernelCall) -> bool:
    return not call.checks and call.nbytes > near_memory() and call.extent > call.tail + 1


class _Member:
    """A kernel of a group.

    Attributes:
        ratio: its units in a unit of the group's first kernel.
        buffers: all that it has to do with, and ``writes``: those of them that it writes.
        pace: bytes of the buffers it goes through in order, by unit of the first kernel.
        whole: the other buffers.
    """

    def __init__(self, call: KernelCall, in_place: Mapping[Node, Input]) -> None:
        self.call = call
        self.ratio = Fraction(1)
        self.writes = {in_place.get(b, b) for b in call.writes}
        self.buffers = self.writes | {in_place.get(b, b) for b in call.reads}
        self._in_place = in_place

    @cached_property
    def pace(self) -> dict[Node, Fraction]:  # of most kernels nobody asks: to find out takes long
        spans = {self._in_place.get(b, b): n for b, n in self.call.spans().items()}
        return {b: self.ratio * spans[b] for b in self.buffers if b in spans}

    @property
    def whole(self) -> set[Node]:
        return self.buffers - set(self.pace)

    def set_ratio(self, ratio: Fraction) -> None:
        self.ratio = ratio
        del self.pace


class _Group:
    """Kernels that can run strip by strip."""

    def __init__(self, first: KernelCall, in_place: Mapping[Node, Input]) -> None:
        self.in_place = in_place
        self.members = [_Member(first, in_place)]

    def takes(self, call: KernelCall) -> bool:
        """Have a kernel join, if it can."""
        if call.checks:
            return False
        new = _Member(call, self.in_place)
        ratios = set()
        for old in self.members:
            for b in (new.writes & old.buffers) | (old.writes & new.buffers):
                if b in new.whole or b in old.whole:
                    return False
                ratios.add(old.pace[b] / new.pace[b])
        if len(ratios) != 1:
            return False
        new.set_ratio(ratios.pop())
        members = [*self.members, new]
        if _near(members, _shortest(members)) > MOST * near_memory() or not _strips(members, _shortest(members)):
            return False
        self.members = members
        return True

    def steps(self, users: Mapping[Node, int]) -> list[KernelCall]:
        """The group as one call, or its kernels if it does not pay. ``users``: how many steps have to do with a buffer,
        the program's outputs among them."""
        from graphjit.runtime.driver import kernel as driver_kernel
        members, calls = self.members, [m.call for m in self.members]
        if not any(p.writes & q.buffers and sum(b.type.nbytes for b in p.buffers | q.buffers) > FAR * near_memory()
                   for p, q in pairwise(members)):
            return calls
        shortest = _shortest(members)
        fit = near_memory() // (2 * _near(members, shortest))
        units = shortest * max(1, min(fit, _strips(members, shortest) // FEWEST))
        windows = self._windows(users, units)
        reads = tuple(dict.fromkeys(b for c in calls for b in c.reads if b not in windows))
        writes = tuple(dict.fromkeys(b for c in calls for b in c.writes if b not in windows))
        tail, strips = any(c.tail for c in calls), _strips(members, units)
        parts = tuple(replace(c, slots=tuple(
            Address(windows[x.buffer], x.offset) if isinstance(x, Address) and x.buffer in windows else x
            for x in c.slots)) for c in calls)
        moves = tuple(Move(i, j, x.buffer.nbytes) for i, c in enumerate(parts) for j, x in enumerate(c.slots)
                      if isinstance(x, Address) and isinstance(x.buffer, Scratch) and x.buffer in windows.values())
        return [KernelCall(
            kernel=driver_kernel(), codes=(), slots=(), extent=strips + tail, reads=reads, writes=writes,
            title=f"{strips} strips: " + "; ".join(c.title for c in calls[:TITLES])
            + (f"; {len(calls) - TITLES} more" if len(calls) > TITLES else ""),
            where=tuple(dict.fromkeys(w for c in calls for w in c.where)), flops=sum(c.flops for c in calls),
            nbytes=sum(b.type.nbytes for b in {self.in_place.get(b, b) for b in (*reads, *writes)}),
            tail=tail, cost=sum(c.cost for c in calls), parts=parts,
            strip=tuple(int(m.ratio * units) for m in members), moves=moves)]

    def _windows(self, users: Mapping[Node, int], units: int) -> dict[Node | Scratch, Scratch]:
        """Buffers that only this group has to do with, and the memory for a strip of them."""
        inside = Counter(b for m in self.members for b in m.buffers)
        return {b: Scratch(int(n * units)) for m in self.members for b, n in m.pace.items()
                if isinstance(b, Apply) and users[b] == inside[b] and all(b not in m.whole for m in self.members)}


def _shortest(members: Sequence[_Member]) -> int:
    """The fewest units of the first kernel that are a strip: whole units of every kernel, enough of each."""
    units = lcm(*(m.ratio.denominator for m in members))
    return units * max(ceil(m.call.least / (m.ratio * units)) for m in members)


def _strips(members: Sequence[_Member], units: int) -> int:
    """The number of strips of so many units of the first kernel; 0 if they are few or kernels do not agree."""
    found = {ceil((m.call.extent - m.call.tail) / (m.ratio * units)) for m in members}
    return found.pop() if len(found) == 1 and min(found) >= FEWEST else 0


def _near(members: Sequence[_Member], units: int) -> int:
    """The most bytes that two neighbours go through in a strip of so many units of the first kernel."""
    return max(ceil(units * sum((p.pace | q.pace).values())) for p, q in pairwise(members))
