"""What a graph repeats: the turns of a loop that tracing has unrolled.

One loop nest for hundreds of turns is more than a compiler can work on, and cut where it is full, it comes apart into
nests of which no two are equal. Where nests are large, nodes whose kinds come again with a period are the turns of a
loop, and a nest takes the same number of turns each time: there is a kernel for the first ones, one for the last, and
one for all between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import ceil

import numpy as np

from graphjit.codegen.axes import fusable, is_reduction
from graphjit.codegen.cluster import Cluster, Fusion, Turn
from graphjit.codegen.kinds import kind
from graphjit.ir import Apply, Graph, Node
from graphjit.op import Array, View
from graphjit.passes.layout import base

LARGE = 64      # members of a cluster that is taken apart, and what loops bring to each that it is taken apart to
FOLD = 3        # members that one which folds is as dear as, to compile
TIMES = 3       # a period comes again so often, or is none
WINDOW = 4      # equal kinds in a row that make a distance a candidate for a period
CANDIDATES = 12


def fuse(graph: Graph) -> tuple[Fusion, list[Cluster]]:
    """The clusters of a graph, those of loops with the same number of turns each."""
    fusion, stretches = Fusion(graph), list[_Stretch]()
    turns: dict[Node, Turn] = {}
    while True:
        clusters = fusion.run(turns)
        large = {n for c in clusters if len(c.members) > LARGE for n in c.members if n not in turns}
        new = _found(graph, turns, large)
        stretches += new
        if not _joined(stretches, clusters, turns) and not new:
            return fusion, clusters
        turns = _turns(stretches)


@dataclass(slots=True, eq=False)
class _Stretch:
    """Nodes whose kinds repeat.

    Attributes:
        at: each node's place.
        period: the number of places after which kinds come again.
        members: those at places of a period that are mostly in large clusters.
        shift: where in it a turn begins.
        loop, scale, offset: its turns in the numbers of another stretch, whose loop it is part of.
    """

    at: Mapping[Apply, int]
    period: int
    members: Sequence[Apply]
    shift: int
    loop: _Stretch = field(init=False)
    scale: int = 1
    offset: int = 0

    def __post_init__(self) -> None:
        self.loop = self

    @property
    def times(self) -> int:
        return ceil(len(self.at) / self.period)

    @property
    def size(self) -> int:
        return sum([FOLD if is_reduction(n) else 1 for n in self.members])

    def turn(self, node: Apply) -> int:
        return self.scale * ((self.at[node] - self.shift) // self.period) + self.offset


def _turns(stretches: Sequence[_Stretch]) -> dict[Node, Turn]:
    """Which turns of which loop are one for each node."""
    turns: dict[Node, Turn] = {}
    for number, loop in enumerate(stretches):
        parts = [s for s in stretches if s.loop is loop]
        if parts:
            size = max([sum([ceil(s.size / s.times) for s in parts if s.scale == scale]) for scale in (1, -1)])
            count = ceil(loop.times / max(LARGE // size, 1))
            each = ceil(loop.times / count)
            turns.update({n: (number, part.turn(n) // each) for part in parts for n in part.members})
    return turns


def _joined(stretches: Sequence[_Stretch], clusters: Sequence[Cluster], turns: Mapping[Node, Turn]) -> bool:
    """Whether there were loops that share clusters and are one from now on: turns of one follow turns of the other, as
    those of a gradient do in the opposite order."""
    shared: Counter[tuple[int, int]] = Counter()  # members of the second in clusters with the first
    for c in clusters:
        if len(c.turns) > 1:
            members = Counter([turns[n][0] for n in c.members if n in turns])
            for i, j in combinations(sorted(members), 2):
                shared[i, j] += members[j]
    whole = Counter([number for number, _ in turns.values()])
    likely = [pair for pair, count in sorted(shared.items()) if 4 * count > 3 * whole[pair[1]]]
    if not likely:
        return False
    number = {loop: i for i, loop in enumerate(stretches)}
    at = {n: (number[s.loop], s.turn(n)) for s in stretches for n in s.members}
    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}  # which turns of two loops read each other
    for node, (j, later) in at.items():
        for below in map(base, node.args):
            if isinstance(below, Apply) and below in at and (i := at[below][0]) != j:
                earlier = at[below][1]
                edges.setdefault((min(i, j), max(i, j)), []).append((earlier, later) if i < j else (later, earlier))
    found = False
    for i, j in likely:
        loop, other = stretches[i], stretches[j]
        if loop.loop is loop and other.loop is other and (i, j) in edges:
            distances = Counter([(scale, a - scale * b) for a, b in edges[i, j] for scale in (1, -1)])
            (scale, offset), count = distances.most_common(1)[0]
            if 3 * count > len(edges[i, j]):
                found = True
                for part in stretches:
                    if part.loop is other:
                        part.loop, part.scale, part.offset = loop, scale * part.scale, scale * part.offset + offset
    return found


def _found(graph: Graph, known: Collection[Node], large: Collection[Node]) -> list[_Stretch]:
    """Stretches of more nodes than a cluster should have that are not known and mostly in large clusters; the longest
    first."""
    nodes = [n for n in graph.nodes if isinstance(n, Apply) and not isinstance(n.op.lower, View)] if large else []
    taken = set(known)
    found: list[_Stretch] = []
    for start, stop, period in _repetitions(np.array([kind(n) if fusable(n) else -1 for n in nodes])):
        at = {n: i for i, n in enumerate(nodes[start:stop])}
        members: list[Apply] = []
        for place in range(period):
            same = nodes[start + place:stop:period]
            if 2 * sum([n in large and n not in taken for n in same]) > len(same):
                members += [n for n in same if n not in taken]
        if len(members) > LARGE:
            found.append(_Stretch(at, period, members, _narrowest(at, period)))
            taken.update(members)
    return sorted(found, key=lambda stretch: -len(stretch.members))


def _repetitions(kinds: Array) -> Iterator[tuple[int, int, int]]:
    """Where the kinds repeat, and with which period; short periods first."""
    words = kinds.tolist()
    last: dict[tuple[int, ...], int] = {}
    distances: Counter[int] = Counter()
    for i in range(len(words) - WINDOW + 1):
        word = tuple(words[i:i + WINDOW])
        if word in last:
            distances[i - last[word]] += 1
        last[word] = i
    for period in sorted([distance for distance, _ in distances.most_common(CANDIDATES)]):
        equal = np.concatenate([[False], kinds[period:] == kinds[:-period], [False]])
        edges = np.flatnonzero(equal[1:] != equal[:-1]).reshape(-1, 2)
        for start, stop in edges.tolist():
            if stop - start >= (TIMES - 1) * period:
                yield start, stop + period, period


def _narrowest(at: Mapping[Apply, int], period: int) -> int:
    """Where in a period the fewest values go from what is before to what is behind."""
    last = dict(at)  # the last reader of each
    for node in at:
        for below in map(base, node.args):
            if isinstance(below, Apply) and below in at:
                last[below] = at[node]
    crossing = np.zeros(2 * period + 1, np.int64)
    for node, i in at.items():
        begin = (i + 1) % period
        crossing[begin] += 1
        crossing[begin + (last[node] - i) % period] -= 1
    many = np.cumsum(crossing[:-1])
    return int(np.argmin(many[:period] + many[period:]))

