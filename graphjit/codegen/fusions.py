"""Graphs that differ only in lengths the caller chose are fused once.

A graph is described by the kinds of its nodes, what they read, and which of the chosen lengths are equal; of a graph
whose description is known the clusters are made again from the numbers of their members.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from graphjit.codegen.axes import IndexMap, fusable, is_reduction
from graphjit.codegen.cluster import Cluster
from graphjit.codegen.kinds import kind
from graphjit.codegen.periods import fuse
from graphjit.ir import Apply, Const, Graph, Node
from graphjit.op import View
from graphjit.types import Extent, Shape

HELD = 100_000  # nodes of all graphs whose clusters are known

Reader = tuple[Apply, tuple[int, ...] | None]


@dataclass(frozen=True, slots=True)
class _Known:
    """A cluster, its members by number, and at which axis of which of them to find the extents."""

    members: tuple[tuple[int, IndexMap], ...]
    extents: tuple[tuple[int, int], ...]
    reduced: frozenset[int]
    levels: frozenset[frozenset[int]]
    fold_axes: frozenset[frozenset[int]]


@dataclass(frozen=True, slots=True)
class _Kept:
    clusters: tuple[_Known, ...]
    readers: dict[int, tuple[tuple[int, tuple[int, ...] | None], ...]]


_kept: dict[tuple[Hashable, ...], _Kept] = {}


class Fused:
    """The clusters of a graph, and which of them each member is ``of``."""

    def __init__(self, graph: Graph) -> None:
        # two constants may be one by the chance of one batch size
        self.nodes: list[Node] = [n for n in graph.nodes if not (isinstance(n, Const) and not n.type.ndim)]
        self.number: dict[Node, int] = {n: i for i, n in enumerate(self.nodes)}
        key = self._description()
        kept = _kept.get(key)
        if kept is None:
            if sum(map(len, list(_kept))) > HELD:
                _kept.clear()
            kept = _kept[key] = self._fuse(graph)
        self.kept = kept
        self.clusters = [self._cluster(known) for known in kept.clusters]
        self.of: dict[Node, Cluster] = {n: c for c in self.clusters for n in c.members}

    def readers(self, node: Node) -> list[Reader]:
        """The members that read a computed node, through views, and which of their axes its axes follow."""
        found: list[Reader] = []
        for i, axes in self.kept.readers[self.number[node]]:
            user = self.nodes[i]
            assert isinstance(user, Apply)
            found.append((user, axes))
        return found

    def _description(self) -> tuple[Hashable, ...]:
        sizes: dict[int, int] = {}
        parts: list[Hashable] = []
        for node in self.nodes:
            if not isinstance(node, Apply):
                parts.append(not node.type.ndim)
                continue
            args = [self.number.get(a, -1) for a in node.args]
            if isinstance(node.op.lower, View):
                parts.append((kind(node), *args))
            elif fusable(node):
                lengths = [sizes.setdefault(n, len(sizes)) for n in _lengths(node) if isinstance(n, Extent)]
                parts.append((kind(node), *args, *lengths))
            else:
                parts.append(("memory", not node.type.ndim, *args))  # kinds are numbers: False would be the first
        return tuple(parts)

    def _fuse(self, graph: Graph) -> _Kept:
        fusion, found = fuse(graph)
        number = self.number
        clusters: list[_Known] = []
        for c in found:
            extents = [next((number[m], at) for m, imap in c.members.items() for at, axis in enumerate(imap)
                            if axis == i and _same(_lengths(m)[at], n)) for i, n in enumerate(c.extents)]
            clusters.append(_Known(tuple([(number[m], imap) for m, imap in c.members.items()]), tuple(extents),
                                   c.reduced, c.levels, c.fold_axes))
        return _Kept(tuple(clusters), {number[n]: tuple([(number[user], axes) for user, axes in readers])
                                       for n, readers in fusion.readers.items()})

    def _cluster(self, known: _Known) -> Cluster:
        nodes = self.nodes
        members: dict[Apply, IndexMap] = {}
        for i, imap in known.members:
            node = nodes[i]
            assert isinstance(node, Apply)
            members[node] = imap
        extents = [_lengths(nodes[i])[at] for i, at in known.extents]
        return Cluster(extents, known.reduced, members, known.levels, known.fold_axes)


def _lengths(node: Node) -> Shape:
    """The lengths that a member runs over."""
    return node.args[0].type.shape if isinstance(node, Apply) and is_reduction(node) else node.type.shape


def _same(a: int, b: int) -> bool:
    return a == b and type(a) is type(b)
