"""Which parts of a graph come before which, while they merge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from graphjit.ir import Apply, Graph, Node
from graphjit.op import View
from graphjit.passes.layout import base

if TYPE_CHECKING:
    from graphjit.codegen.cluster import Cluster


class Order:
    """Which units (clusters and single nodes) come before which, kept up to date as clusters merge.

    What comes after a unit is a bit set, so that a question costs a few operations however deep the graph is. A merge
    walks up from the merged unit only as far as something new comes after a unit (Italiano, 1986).

    Attributes:
        work: how many units have been looked at in merges.
    """

    def __init__(self, graph: Graph, of: Mapping[Node, Cluster]) -> None:
        self.number: dict[object, int] = {}
        self.bits: list[int] = []         # of each unit, the bits of the nodes it was merged from
        self.before: list[int] = []       # direct predecessors
        self.after: list[int] = []        # all successors
        self.above: list[set[int]] = []   # direct predecessors by number, as it was at the last merge
        self.merged: list[int] = []       # the number of the unit that a unit became part of, its own to begin with
        self.work = 0
        for node in graph.nodes:
            # nothing comes before an input or a constant: no path leads through one
            if isinstance(node, Apply) and not isinstance(node.op.lower, View):
                i = self.number[of.get(node, node)] = len(self.bits)
                above = {self.number[of.get(b, b)] for b in map(base, node.args) if isinstance(b, Apply)}
                self.bits.append(1 << i)
                self.before.append(sum(1 << j for j in above))
                self.after.append(0)
                self.above.append(above)
                self.merged.append(i)
        for i in reversed(range(len(self.bits))):
            reached = self.after[i] | self.bits[i]
            for j in self.above[i]:
                self.after[j] |= reached

    def between(self, a: Cluster, b: Cluster) -> bool:
        """Whether a path joins a and b through a unit that is neither: merging would close a cycle."""
        i, j = self.number[a], self.number[b]
        return bool(self.before[j] & ~self.bits[i] & self.after[i]
                    or self.before[i] & ~self.bits[j] & self.after[j])

    def merge(self, a: Cluster, b: Cluster) -> None:
        """Unit ``a`` becomes part of ``b``."""
        i, j = self.number.pop(a), self.number[b]
        self.merged[i] = j
        known = [(self.bits[k] | self.after[k], self.above[k]) for k in (i, j)]
        bits = self.bits[j] = self.bits[i] | self.bits[j]
        self.before[j] = (self.before[i] | self.before[j]) & ~bits
        after = self.after[j] = (self.after[i] | self.after[j]) & ~bits
        self.above[j] = {k for k in map(self.unit, self.above[i] | self.above[j]) if k != j}
        reached = after | bits
        stack = [k for before, above in known if before != reached for k in above]
        while stack:
            self.work += 1
            k = self.unit(stack.pop())
            if k != j and (more := self.after[k] | reached) != self.after[k]:
                self.after[k] = more
                stack.extend(self.above[k])

    def unit(self, i: int) -> int:
        """The number of the unit that a unit is part of by now."""
        merged = self.merged
        while merged[i] != i:
            merged[i] = merged[merged[i]]
            i = merged[i]
        return i
