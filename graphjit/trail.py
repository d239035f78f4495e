"""What remains of the tapes that ``backward()`` walked last, for pictures of them.

A walked tape is released, yet people draw it afterwards, to see the gradients. So the shape of the last few small
tapes is kept, without their arrays: what the picture shows, and no more. Noting it is on the way of every eager
``backward()``, so it is kept raw, and put in order when someone draws.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from graphjit.tape import Home, Value
from graphjit.types import TensorType

LONGEST = 4000  # values of a tape that is kept

Number = float | int | bool


class Step(NamedTuple):
    """A value as it stood on the tape.

    Attributes:
        op: name of the op; None for a leaf, and for what requires no gradient.
        content: the number it held, or the type of more than one; None of a step that has several results.
        operands: the stamps of what it was computed from.
        home: knows its label and leaf.
    """

    op: str | None
    content: Number | TensorType | None
    operands: tuple[int, ...]
    home: Home | None


def step_of(value: Value) -> Step:
    """A value as it stands on the tape now; without operands if the tape is released."""
    data: Any = value.data
    kept = None if data is None else data.item() if data.size == 1 else value.type
    return Step(None if value.op is None else value.op.name, kept, tuple([v.stamp for v in value.inputs or ()]),
                value._home)


class Trail(NamedTuple):
    """A walked tape: its raw notes, and by their stamps the cotangents of the values that are one number.

    ``raw()`` gives the notes: for each value its stamp, op, content, home, and the stamps of its operands.
    """

    raw: Callable[[], Iterable[tuple[Any, ...]]]
    gradients: dict[int, float]

    def steps(self) -> dict[int, Step]:
        """The values by their stamps."""
        found: dict[int, Step] = {}
        for stamp, op, content, home, operands in self.raw():
            kept = TensorType(*content) if isinstance(content, tuple) else content
            found[stamp] = Step(op, kept, tuple(operands), home)
        return found


TRAILS: deque[Trail] = deque(maxlen=8)


def remember(order: Sequence[Value]) -> dict[int, float] | None:
    """Note a tape, given as ``order_back`` gives it; the place for its gradients, or None where it is too long."""
    if len(order) > LONGEST:
        return None
    notes: list[tuple[Any, ...]] = []
    others: list[Value] = []  # operands that require no gradient are not in the order
    for value in order:
        stamps = []
        for v in value.inputs or ():
            stamps.append(v.stamp)
            if not v.requires_grad:
                others.append(v)
        data: Any = value.data
        kept = None if data is None else data.item() if data.size == 1 else (data.shape, data.dtype)
        op = value.op
        notes.append((value.stamp, None if op is None else op.name, kept, value._home, stamps))
    for value in others:
        data = value.data
        kept = None if data is None else data.item() if data.size == 1 else (data.shape, data.dtype)
        notes.append((value.stamp, None, kept, value._home, ()))
    trail = Trail(lambda: notes, {})
    TRAILS.append(trail)
    return trail.gradients
