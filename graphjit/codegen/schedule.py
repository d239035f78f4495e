"""The order in which the steps of a program run."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from graphjit.codegen.call import HostCall, KernelCall, Step
from graphjit.ir import Graph, Input, Node


def schedule(steps: list[Step], loops: int, graph: Graph, states: set[Input]) -> tuple[list[Step], list[Step]]:
    """Steps, of which the first so many are loop nests, in an order that honours reads and writes; state is written
    last, after every check.

    Gives the order and the steps that could not be placed.
    """
    position = {n: i for i, n in enumerate(graph.nodes)}
    writers: dict[Node, list[int]] = {}
    readers: dict[Node, list[int]] = {}
    for i, step in enumerate(steps):
        for node in step.writes:
            writers.setdefault(node, []).append(i)
        for node in step.reads:
            readers.setdefault(node, []).append(i)
    checks = [i for i, s in enumerate(steps) if isinstance(s, HostCall) or s.checks]
    before: list[set[int]] = [set() for _ in steps]
    for i, step in enumerate(steps):
        for node in step.reads:
            if node not in states:
                before[i].update(w for w in writers.get(node, ()) if w != i)
        for node in step.writes:
            if node in states:
                before[i].update(r for r in readers.get(node, ()) if r != i)
                before[i].update(checks)
            elif loops <= i:  # steps of one op are in order; loops that store a part of its result may come at any time
                before[i].update(w for w in writers[node] if loops <= w < i)
    after: list[list[int]] = [[] for _ in steps]
    waiting = [len(b) for b in before]
    for i, found in enumerate(before):
        for j in found:
            after[j].append(i)

    def priority(i: int) -> tuple[bool, int, int]:
        step = steps[i]
        check = isinstance(step, KernelCall) and step.checks
        return (not check, max((position.get(n, len(position)) for n in step.writes), default=0), i)

    ready = [priority(i) for i, n in enumerate(waiting) if n == 0]
    heapify(ready)
    order: list[Step] = []
    placed: set[int] = set()
    while ready:
        i = heappop(ready)[-1]
        order.append(steps[i])
        placed.add(i)
        for j in after[i]:
            waiting[j] -= 1
            if waiting[j] == 0:
                heappush(ready, priority(j))
    return order, [s for i, s in enumerate(steps) if i not in placed]
