"""Fusion: which nodes one loop nest computes.

A cluster has loop axes; some of them, R, are reduced. Every member runs either over all axes or,
where something is reduced, over the outer axes O = all - R only: then the nest is a *row kernel*, all that is
local to one point of O. Clusters grow by merging along the edges of the graph, as long as this stays true and no
path leaves a cluster and comes back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from graphjit.codegen.axes import (
    NONE,
    IndexMap,
    fusable,
    is_reduction,
    look_through,
    operand_map,
    result_map,
    through,
)
from graphjit.codegen.order import Order
from graphjit.ir import Apply, Graph, Node
from graphjit.op import Elementwise
from graphjit.passes.layout import base
from graphjit.types import Extent, is_one

ROWS, COLUMNS = 1024, 64  # so many, of at most so many numbers, are shared by rows
LARGEST = 96  # members of a cluster; beyond that LLVM runs out of registers and of patience


Turn = tuple[int, int]  # a loop that tracing has unrolled, and some turns of it (`periods`)


@dataclass(slots=True, eq=False)
class Cluster:
    """Nodes computed by one loop nest.

    Attributes:
        extents: length of each loop axis.
        reduced: the axes R.
        members: index map of each node (of its operand, for a reduction), in topological order.
    """

    extents: list[int]
    reduced: frozenset[int]
    members: dict[Apply, IndexMap]
    levels: frozenset[frozenset[int]]    # the sets of axes that members run over
    fold_axes: frozenset[frozenset[int]]  # the sets of axes that reductions fold
    orders: frozenset[IndexMap] = frozenset()  # the orders of axes in which members run over them
    turns: frozenset[Turn] = frozenset()  # that members are part of
    late: frozenset[Apply] = frozenset()  # reductions, and what follows from them

    @property
    def all_axes(self) -> frozenset[int]:
        return frozenset(range(len(self.extents)))

    @property
    def outer(self) -> frozenset[int]:
        return self.all_axes - self.reduced

    def folds(self, node: Node) -> bool:
        """Whether a member is a reduction over something (and not over axes of length one only)."""
        return bool(self.reduced) and is_reduction(node)

    def is_full(self, node: Apply) -> bool:
        """Whether a member's result runs over all axes (and not over the outer ones only)."""
        imap = self.members[node]
        return len(imap) - imap.count(NONE) == len(self.extents) and not self.folds(node)


def used(imap: IndexMap) -> frozenset[int]:
    return frozenset(imap) - _NOTHING


_NOTHING = frozenset([NONE])


def singleton(node: Apply, turn: Turn | None = None) -> Cluster:
    shape = node.args[0].type.shape if is_reduction(node) else node.type.shape
    extents: list[int] = []
    imap: list[int] = []
    for n in shape:
        imap.append(NONE if is_one(n) else len(extents))
        if not is_one(n):
            extents.append(n)
    reduced: frozenset[int] = frozenset()
    folds: frozenset[frozenset[int]] = frozenset()
    if is_reduction(node):
        reduced = frozenset(imap[a] for a in node.kwargs["axis"]) - {NONE}
        folds = frozenset([reduced])
    order = _order(tuple(imap))
    return Cluster(extents, reduced, {node: tuple(imap)}, frozenset([used(tuple(imap))]), folds, frozenset([order]),
                   frozenset() if turn is None else frozenset([turn]),
                   frozenset([node]) if is_reduction(node) else frozenset())


def operand_below(node: Apply, k: int, imap: IndexMap) -> tuple[Node, IndexMap] | None:
    """What operand ``k`` of a member reads below renaming views, and at which loop axes."""
    implied = operand_map(node, k, imap)
    return None if implied is None else look_through(node.args[k], implied)


def _agrees(below: Apply, at: IndexMap, axes: tuple[int, ...] | None, reader: IndexMap) -> bool:
    return axes is not None and through(axes, reader) == result_map(below, at)


def _apart(node: Node) -> bool:
    return isinstance(node, Apply) and isinstance(node.op.lower, Elementwise) and node.op.lower.apart


def _order(imap: IndexMap) -> IndexMap:
    return tuple([axis for axis in imap if axis != NONE])


def _to_few(cluster: Cluster, orders: frozenset[IndexMap]) -> bool:
    """Whether many rows are folded to so few neighbours in memory that threads can share the rows only: each would go
    through half of each line. Of lengths the caller chose those of two axes count as many, one does not."""
    whole = [order for order in orders if len(order) == len(cluster.extents)]
    if not whole or any(order[-1] not in cluster.outer for order in whole):
        return False
    rows, columns = ([cluster.extents[a] for a in some] for some in (cluster.reduced, cluster.outer))
    many = len(rows) > 1 if _has_chosen(rows) else prod(rows) >= ROWS
    return many and (_has_chosen(columns) or prod(columns) <= COLUMNS)


def _has_chosen(lengths: Sequence[int]) -> bool:
    return any(isinstance(n, Extent) for n in lengths)


class Fusion:
    """Cluster formation over one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.order: dict[Node, int] = {n: i for i, n in enumerate(graph.nodes)}
        self.outputs = {base(n) for n in graph.outputs}
        # for each member what it reads: the computed node below views, and which axes of the reader it follows
        self.operands: dict[Node, list[tuple[Node, tuple[int, ...] | None]]] = {
            n: [] for n in self.order if isinstance(n, Apply) and fusable(n)}
        self.readers: dict[Node, list[tuple[Apply, tuple[int, ...] | None]]] = {n: [] for n in self.operands}
        for node, operands in self.operands.items():
            assert isinstance(node, Apply)
            own = tuple(range((node.args[0] if is_reduction(node) else node).type.ndim))
            for k, operand in enumerate(node.args):
                below = base(operand)
                if below in self.operands:
                    found = operand_below(node, k, own)
                    axes = found[1] if found is not None and not _apart(below) else None
                    operands.append((below, axes))
                    self.readers[below].append((node, axes))

    def run(self, turns: Mapping[Node, Turn] | None = None) -> list[Cluster]:
        """Merge along edges, then siblings; clusters in the order of their first members.

        Args:
            turns: of loops, those that some nodes are part of: clusters with different turns of a loop stay apart.
        """
        turns = turns or {}
        self.of: dict[Node, Cluster] = {n: singleton(n, turns.get(n)) for n in self.operands if isinstance(n, Apply)}
        self.units = Order(self.graph, self.of)
        for node in self.order:
            if isinstance(node, Apply) and node in self.of:
                for below, axes in self.operands[node]:
                    self.try_edge(node, below, axes)
        self.merge_siblings()
        found = list(dict.fromkeys(self.of[n] for n in self.order if n in self.of))
        for cluster in found:
            cluster.members = dict(sorted(cluster.members.items(), key=lambda m: self.order[m[0]]))
        return found

    def try_edge(self, node: Apply, below: Node, axes: tuple[int, ...] | None) -> None:
        consumer, producer = self.of[node], self.of[below]
        if producer is consumer or axes is None or not isinstance(below, Apply):
            return
        want = through(axes, consumer.members[node])
        have = result_map(below, producer.members[below])
        match: dict[int, int] = {}
        for a, b in zip(have, want, strict=True):
            if (a == NONE) != (b == NONE) or match.setdefault(a, b) != b:
                return
        match.pop(NONE, None)
        self.try_merge(producer, consumer, match)

    def try_merge(self, a: Cluster, b: Cluster, match: dict[int, int]) -> bool:
        """Merge cluster ``a`` into ``b`` under a matching of axes, if the result is a cluster."""
        if len(set(match.values())) != len(match) or len(a.members) + len(b.members) > LARGEST or any(
                a.extents[i] != b.extents[j] for i, j in match.items()) or self.units.between(a, b):
            return False
        turns = a.turns | b.turns
        if len(turns) != len(dict(turns)):  # two of the same loop
            return False
        match = dict(match)
        extents = list(b.extents)
        free = [j for j in range(len(extents)) if j not in match.values()]
        for i, n in enumerate(a.extents):
            if i not in match:
                same = next((j for j in free if extents[j] == n
                             and isinstance(extents[j], Extent) == isinstance(n, Extent)), None)
                if same is not None:
                    match[i] = same
                    free.remove(same)
        for i, n in enumerate(a.extents):
            if i not in match:
                match[i] = len(extents)
                extents.append(n)
            elif not isinstance(n, Extent):  # the caller had no choice
                extents[match[i]] = n
        from_a = frozenset([match[i] for i in a.reduced])
        if from_a and b.reduced and from_a != b.reduced:
            return False
        reduced = from_a | b.reduced
        everything = frozenset(range(len(extents)))
        levels = frozenset([frozenset([match[i] for i in level]) for level in a.levels]) | b.levels
        if any(level != everything and (not reduced or level != everything - reduced) for level in levels):
            return False
        folds = frozenset([frozenset([match[i] for i in fold]) for fold in a.fold_axes]) | b.fold_axes
        if any(fold != reduced for fold in folds):
            return False
        orders = frozenset([tuple([match[i] for i in order]) for order in a.orders]) | b.orders
        moved = a.members
        if any(i != j for i, j in match.items()):
            match[NONE] = NONE
            moved = {node: tuple([match[x] for x in imap]) for node, imap in moved.items()}
        if not (self.edges_agree(moved, b.members) if len(moved) < len(b.members) else
                self.edges_agree(b.members, moved)):
            return False
        members = {**b.members, **moved}
        whole = {order for order in orders if len(order) == len(extents)}
        if reduced and len(whole) > 1 and self.stores_across(members, len(extents)):
            return False
        merged = Cluster(extents, reduced, members, levels, folds, orders, turns, self.late(a, b, members))
        # a fold of everything, or to few neighbours, stays apart from what uses it element by element: to be split
        if reduced and (reduced == everything or _to_few(merged, orders)) and self.second_stage(merged):
            return False
        self.units.merge(a, b)
        for node in a.members:
            self.of[node] = b
        b.extents, b.reduced, b.members, b.late = extents, reduced, members, merged.late
        b.levels, b.fold_axes, b.orders, b.turns = levels, folds, orders, turns
        return True

    def edges_agree(self, some: Mapping[Apply, IndexMap], others: Mapping[Apply, IndexMap]) -> bool:
        """Whether members read from fellow members at the very point where those are computed."""
        for node, imap in some.items():
            for below, axes in self.operands[node]:
                if isinstance(below, Apply) and below in others and not _agrees(below, others[below], axes, imap):
                    return False
            for user, axes in self.readers[node]:
                if user in others and not _agrees(node, imap, axes, others[user]):
                    return False
        return True

    def stores_across(self, members: Mapping[Apply, IndexMap], n_axes: int) -> bool:
        """Whether results that run over all axes, and others may read, do so in more than one order, or in another than
        what is folded: loops in the one would store in the other, each number in a line of its own."""
        folded: set[IndexMap] = set()
        stored: set[IndexMap] = set()
        for node, imap in members.items():
            order = _order(imap)
            if len(order) == n_axes:
                if is_reduction(node):
                    folded.add(order)
                elif node in self.outputs or any(user not in members for user, _ in self.readers[node]):
                    stored.add(order)
        return len(stored) > 1 or bool(folded and stored - folded)

    def late(self, a: Cluster, b: Cluster, members: Collection[Node]) -> frozenset[Apply]:
        """Reductions of two clusters that become one with these members, and what follows from them there."""
        late = set(a.late | b.late)
        stack = list(late)
        while stack:
            for user, _ in self.readers[stack.pop()]:
                if user in members and user not in late:
                    late.add(user)
                    stack.append(user)
        return frozenset(late)

    def second_stage(self, cluster: Cluster) -> bool:
        """Whether a member that runs over all axes follows from a reduction."""
        everything, late = cluster.all_axes, cluster.late
        return any(used(cluster.members[node]) == everything and any(below in late for below, _ in self.operands[node])
                   for node in late)

    def merge_siblings(self) -> None:
        """Reductions over the same axes of the same data belong together."""
        by_shape: dict[tuple[object, ...], list[Cluster]] = {}
        for cluster in dict.fromkeys(self.of.values()):
            if cluster.reduced and cluster.extents:
                key = (tuple(cluster.extents), tuple(map(type, cluster.extents)), cluster.reduced)
                by_shape.setdefault(key, []).append(cluster)
        for group in by_shape.values():
            reads = {c: self.reads(c) for c in group} if len(group) > 1 else {}
            for i, a in enumerate(group):
                for b in group[i + 1:]:
                    if self.of[next(iter(a.members))] is not a:
                        break
                    if (self.of[next(iter(b.members))] is b and reads[a] & reads[b]
                            and self.try_merge(a, b, {x: x for x in range(len(a.extents))})):
                        reads[b] = self.reads(b)

    def reads(self, cluster: Cluster) -> set[Node]:
        """Nodes outside of the cluster whose elements its full members read."""
        return {base(x) for n in cluster.members for x in n.args
                if base(x) not in cluster.members and used(cluster.members[n]) == cluster.all_axes
                and x.type.ndim}
