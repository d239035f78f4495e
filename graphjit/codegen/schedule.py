"""The order in which the steps of a program run."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from graphjit.codegen.call import HostCall, KernelCall, Step
from graphjit.ir import Graph, Input, Node
from graphjit.passes.layout import base_layout


def schedule(steps: list[Step], loops: int, graph: Graph, states: set[Input]) -> tuple[list[Step], list[Step]]:
    """Steps, of which the first so many are loop nests, in an order that honours reads and writes; state is written
    after every check. An update follows its gradient, and both come as soon as can be: what they read is still near,
    and takes memory no longer.

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
    ends = _ends(steps, readers, before, states, {base_layout(node)[0] for node in graph.outputs})
    after: list[list[int]] = [[] for _ in steps]
    waiting = [len(b) for b in before]
    for i, found in enumerate(before):
        for j in found:
            after[j].append(i)

    def priority(i: int) -> tuple[bool, bool, int, int]:
        step = steps[i]
        check = isinstance(step, KernelCall) and step.checks
        last = max((position.get(n, len(position)) for n in step.writes), default=0)
        return (not check, i not in ends, last, i)

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


def _ends(steps: list[Step], readers: dict[Node, list[int]], before: list[set[int]], states: set[Input],
          outputs: set[Node]) -> set[int]:
    """Steps that nothing but state is computed from: those that write it, and those before them that nothing else
    reads. These wait for all that the others wait for, but for what waits for them."""
    found = {i for i, step in enumerate(steps) if any(n in states for n in step.writes)
             and not any(n not in states and readers.get(n) for n in step.writes)}  # fmt: skip
    after: list[set[int]] = [set() for _ in steps]
    for i, above in enumerate(before):
        for j in above:
            after[j].add(i)
    for i, step in enumerate(steps):
        reading = {j for n in step.writes for j in readers.get(n, ())}
        if len(reading) == 1 and reading <= found and i not in reading and outputs.isdisjoint(step.writes):
            [j] = reading
            more = before[j] - before[i] - _reached(i, after)
            before[i] |= more
            for k in more:
                after[k].add(i)
            found.add(i)
    return found


def _reached(i: int, after: list[set[int]]) -> set[int]:
    """A step and all that waits for it."""
    found, stack = {i}, [i]
    while stack:
        new = after[stack.pop()] - found
        found |= new
        stack += new
    return found
