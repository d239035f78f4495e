"""The picture of a tensor: what it was computed from, by the tape, or by what is kept of a walked one."""

from __future__ import annotations

from collections import deque

import numpy as np

from graphjit.backward import cyclic
from graphjit.drawing.picture import Edge, Kind, Node, Picture, caption, cycle, number, plain
from graphjit.errors import GradientError, TraceError
from graphjit.tape import Home, Value, state
from graphjit.tensor import Tensor
from graphjit.trail import LONGEST, TRAILS, Step, step_of
from graphjit.types import TensorType


def of_tensor(root: Tensor, limit: int) -> Picture:
    """Values in boxes (label, number or type, gradient), ops between them.

    Raises:
        TraceError: in a compiled function. GradientError: the tape is gone, or has a cycle.
    """
    if state.trace is not None or root._value.trace is not None:
        raise TraceError("draw_dot inside a compiled function",
                         hint="Draw the graph of the compiled function itself: gj.draw_dot(f.graph).")
    steps, gone = _steps(root._value)
    first = root._value.stamp
    if first in gone:
        raise GradientError("backward() released the graph of this tensor, and nothing of it is kept for pictures",
                            detail=(f"kept are the last {TRAILS.maxlen} graphs of up to {LONGEST:,} values",),
                            hint="Draw it right after backward(), or call backward(retain_graph=True).")
    _check_order(steps)
    near = dict.fromkeys(_nearest(steps, first, limit)).keys()
    nodes: list[Node] = []
    edges: list[Edge] = []
    places: dict[int, int] = {}

    def put(node: Node, to: int | None = None) -> int:
        nodes.append(node)
        if to is not None:
            edges.append((len(nodes) - 1, to))
        return len(nodes) - 1

    def box(stamp: int) -> Node:
        return _box(stamp, steps[stamp], (stamp == first and root.label) or _label(steps[stamp].home))

    def anonymous(stamp: int) -> bool:  # a number in a formula: drawn anew at each use
        step = steps[stamp]
        return stamp != first and step.op is None and step.home is None and not isinstance(step.content, TensorType)

    for stamp in near:
        if not anonymous(stamp):
            places[stamp] = put(_op(steps[stamp]) if steps[stamp].content is None else box(stamp))
    for stamp, place in places.items():
        step = steps[stamp]
        if step.content is not None and (step.operands or stamp in gone) and not _is_result(steps, step):
            place = put(_op(step), to=place)
        for operand in dict.fromkeys(step.operands):
            if operand in places:
                edges.append((places[operand], place))
            elif operand in near:
                put(box(operand), to=place)
        if stamp in gone:
            put(Node("more", ("…",), "released by backward()"), to=place)
        elif not set(step.operands) <= near:
            put(Node("more", ("…",), "not drawn"), to=place)
    shown, values = (sum(steps[s].content is not None for s in stamps) for stamps in (near, steps))
    return Picture(nodes, edges, caption(shown, values, "values"))


def _steps(root: Value) -> tuple[dict[int, Step], set[int]]:
    """All that the root was computed from, by stamp, and the values of which no one knows any more how they came
    about."""
    found: dict[int, Step] = {}
    gone: set[int] = set()
    trails: list[dict[int, Step]] = []
    stack = [root]
    while stack:
        value = stack.pop()
        if value.stamp in found:
            continue
        found[value.stamp] = step_of(value)
        stack.extend(value.inputs or ())
        if value.inputs is not None:
            continue
        trails = trails or [trail.steps() for trail in reversed(list(TRAILS))]  # another thread may add one
        trail = next((steps for steps in trails if value.stamp in steps), None)
        if trail is None:
            gone.add(value.stamp)
            continue
        below = [value.stamp]
        while below:
            stamp = below.pop()
            found[stamp] = trail[stamp]
            below.extend([o for o in trail[stamp].operands if o not in found])
    return found, gone


def _check_order(steps: dict[int, Step]) -> None:
    place = {stamp: i for i, stamp in enumerate(steps)}
    found = cycle(len(place), [(place[o], place[s]) for s, step in steps.items() for o in step.operands])
    if found:
        every = list(steps.values())
        raise cyclic([every[i].op or "a leaf" for i in found])


def _nearest(steps: dict[int, Step], root: int, limit: int) -> list[int]:
    """At most ``limit`` of the values below the root, by their distance."""
    queue, seen = deque([root]), {root}
    near: list[int] = []
    values = 0
    while queue:
        stamp = queue.popleft()
        values += steps[stamp].content is not None
        if values > limit:
            break
        near.append(stamp)
        new = [o for o in steps[stamp].operands if o not in seen]
        queue.extend(dict.fromkeys(new))
        seen.update(new)
    return near


def _is_result(steps: dict[int, Step], step: Step) -> bool:
    """Whether a step is one of the several results of another."""
    return len(step.operands) == 1 and steps[step.operands[0]].content is None


def _op(step: Step) -> Node:
    return Node("op", (plain(step.op or ""),))


def _box(stamp: int, step: Step, label: str) -> Node:
    """A value: its label, the number or the type, the gradient as far as it is known."""
    leaf = step.home is not None and step.home.leaf is not None
    cells = [plain(label)] if label else []
    if isinstance(step.content, TensorType):
        cells.append(str(step.content))
    elif step.content is not None:
        cells.append(f"data {number(step.content)}")
    gradient = _gradient(stamp, step.home)
    if gradient:
        cells.append(gradient)
    kind: Kind = "value" if step.op is not None else "leaf" if leaf else "constant"
    return Node(kind, tuple(cells), {"leaf": "requires a gradient", "constant": "requires no gradient"}.get(kind, ""))


def _gradient(stamp: int, home: Home | None) -> str:
    """What a leaf's ``grad`` holds, or what the last backward() found for another value."""
    leaf = home.leaf() if home is not None and home.leaf is not None else None
    if leaf is not None:
        held = leaf._grad
        if not isinstance(held, Tensor):  # there is none, or it stayed inside a compiled step
            return ""
        if held.size != 1:
            return f"|grad| {number(float(np.linalg.norm(held.data)))}"
        return f"grad {number(held.item())}"
    found = next((t.gradients[stamp] for t in reversed(list(TRAILS)) if stamp in t.gradients), None)
    return "" if found is None else f"grad {number(found)}"


def _label(home: Home | None) -> str:
    if home is None:
        return ""
    leaf = home.leaf() if home.leaf is not None else None
    return home.label or (leaf.label if leaf is not None else "")
