"""Where the nodes of a picture stand: in layers, with few crossings, short and level arrows.

The method is that of Graphviz (Gansner, Koutsofios, North and Vo, "A technique for drawing directed graphs", 1993):
layers by a linear program; a stand-in where an arrow passes a layer; the order within the layers by sweeps that put
each node at the mean of its neighbours; the places in that order by another linear program. Arrows from one node share
their stand-ins.
"""

from __future__ import annotations

from bisect import bisect, insort
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from graphjit.drawing.picture import Edge

GAP_ACROSS, GAP_DOWN = 36.0, 14.0  # between layers, and between the nodes of one
STAND_INS = 6000  # at most; longer arrows beyond go straight
SWEEPS = 12


Limit = tuple[Any, ...]    # (number, factor) ..., the most their sum may be


class Layout(NamedTuple):
    """Places in pixels, from the corner where the first layer begins; layers follow each other in the direction
    called across.

    Attributes:
        width, height: across, and along the layers.
        centers: where along the layers the nodes, then the stand-ins are. spans: where each begins and ends across.
        lines: pairs of them to connect.
    """

    width: float
    height: float
    centers: list[float]
    spans: list[tuple[float, float]]
    lines: list[Edge]


def layout(sizes: Sequence[tuple[float, float]], edges: Sequence[Edge]) -> Layout:
    """Places for boxes of these sizes (across, along the layers) that these arrows connect; there is no cycle."""
    rank = _layers(len(sizes), edges)
    lines, rank = _stand_ins(rank, edges)
    heights = [h for _, h in sizes] + [0.0] * (len(rank) - len(sizes))
    before: list[list[int]] = [[] for _ in rank]
    after: list[list[int]] = [[] for _ in rank]
    for a, b in lines:
        if rank[b] == rank[a] + 1:
            before[b].append(a)
            after[a].append(b)
    layers: list[list[int]] = [[] for _ in range(max(rank, default=-1) + 1)]
    for node in _walk(len(rank), before, after):
        layers[rank[node]].append(node)
    layers = _untangled(layers, before, after)
    down = _heights(layers, before, after, heights, len(sizes))
    spans = [(0.0, 0.0)] * len(rank)
    left = 0.0
    for layer in layers:
        width = max((sizes[n][0] for n in layer if n < len(sizes)), default=0.0)
        for n in layer:
            half = sizes[n][0] / 2 if n < len(sizes) else width / 2
            spans[n] = (left + width / 2 - half, left + width / 2 + half)
        left += width + GAP_ACROSS
    high = max((down[n] + heights[n] / 2 for n in range(len(rank))), default=0.0)
    return Layout(max(left - GAP_ACROSS, 0.0), high, down, spans, lines)


def _layers(count: int, edges: Sequence[Edge]) -> list[int]:
    """The layer of each node: all arrows go forward, and together they are as short as can be; those of a chain count
    twice, so that a result stays with its op."""
    users = Counter(a for a, _ in edges)
    operands = Counter(b for _, b in edges)
    cost = [0.0] * count
    for a, b in edges:
        weight = 2.0 if users[a] == operands[b] == 1 else 1.0
        cost[a] -= weight
        cost[b] += weight
    return [round(x) for x in _least(cost, [((a, 1.0), (b, -1.0), -1.0) for a, b in edges])]


def _stand_ins(rank: list[int], edges: Sequence[Edge]) -> tuple[list[Edge], list[int]]:
    """Lines between neighbouring layers, and the layers of nodes and stand-ins."""
    users: dict[int, list[int]] = {}
    for a, b in edges:
        users.setdefault(a, []).append(b)
    rank = list(rank)
    reach = {a: max(rank[b] for b in found) - rank[a] - 1 for a, found in users.items()}
    left = STAND_INS
    lines: list[Edge] = []
    for a in sorted(users, key=reach.__getitem__):
        left -= reach[a]
        chain = [a]
        if left >= 0:
            for step in range(reach[a]):
                rank.append(rank[a] + 1 + step)
                lines.append((chain[-1], len(rank) - 1))
                chain.append(len(rank) - 1)
        lines.extend((chain[rank[b] - rank[a] - 1] if left >= 0 else a, b) for b in users[a])
    return lines, rank


def _walk(count: int, before: list[list[int]], after: list[list[int]]) -> list[int]:
    """All nodes, such that connected ones come near each other: the operands of each result depth first."""
    order: list[int] = []
    seen = [False] * count
    for root in sorted(range(count), key=lambda n: len(after[n])):
        stack = [root]
        while stack:
            node = stack.pop()
            if not seen[node]:
                seen[node] = True
                order.append(node)
                stack.extend(reversed(before[node]))
    return order


def _untangled(layers: list[list[int]], before: list[list[int]], after: list[list[int]]) -> list[list[int]]:
    """The layers in the order of fewest crossings that the sweeps found."""
    best, fewest = layers, _crossings(layers, after)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        forward = sweep % 2 == 0
        near = before if forward else after
        layers = [list(layer) for layer in layers]
        place = {n: i for layer in layers for i, n in enumerate(layer)}
        for layer in layers if forward else reversed(layers):
            wish = {n: sum(place[m] for m in near[n]) / len(near[n]) if near[n] else place[n] for n in layer}
            layer.sort(key=wish.__getitem__)
            place.update((n, i) for i, n in enumerate(layer))
        crossings = _crossings(layers, after)
        if crossings < fewest:
            best, fewest = layers, crossings
    return best


def _crossings(layers: list[list[int]], after: list[list[int]]) -> int:
    """Pairs of lines between neighbouring layers that cross."""
    count = 0
    for layer, following in pairwise(layers):
        place = {n: i for i, n in enumerate(following)}
        ends: list[int] = []
        for n in layer:
            targets = [place[m] for m in after[n]]
            count += sum(len(ends) - bisect(ends, t) for t in targets)
            for t in targets:
                insort(ends, t)
    return count


def _heights(layers: list[list[int]], before: list[list[int]], after: list[list[int]], heights: list[float],
             real: int) -> list[float]:
    """The height of each center: the least weighted sum of the rises of all lines that the order in the layers
    allows."""
    count = len(heights)
    lines = [(a, b) for a in range(count) for b in after[a]]
    limits: list[Limit] = [((a, 1.0), (b, -1.0), -(heights[a] + heights[b]) / 2 - GAP_DOWN)
                           for layer in layers for a, b in pairwise(layer)]
    for k, (a, b) in enumerate(lines):  # the rise is at least either difference
        limits += [((a, 1.0), (b, -1.0), (count + k, -1.0), 0.0), ((b, 1.0), (a, -1.0), (count + k, -1.0), 0.0)]
    cost = [_pull(a >= real <= b, not before[a], len(after[a]) == len(before[b]) == 1) for a, b in lines]
    found = _least([0.0] * count + cost, limits)[:count]
    top = min((y - h / 2 for y, h in zip(found, heights, strict=True)), default=0.0)
    return [y - top for y in found]


def _least(cost: list[float], limits: list[Limit]) -> list[float]:
    """The numbers, 0 or more, of the least cost for which the sum of terms in each limit is at most its last part."""
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    if not limits:
        return [0.0] * len(cost)
    terms = [(row, *term) for row, limit in enumerate(limits) for term in limit[:-1]]
    rows, columns, factors = zip(*terms, strict=True)
    matrix = coo_array((factors, (rows, columns)), shape=(len(limits), len(cost)))
    found = linprog(cost, A_ub=matrix, b_ub=[limit[-1] for limit in limits], bounds=(0, None), method="highs-ds")
    return [float(x) for x in found.x]


def _pull(long: bool, source: bool, alone: bool) -> float:
    """The weight of a line: long arrows and chains shall be level, sources come to their users."""
    return 8.0 if long else 0.5 if source else 4.0 if alone else 1.0
