"""The walk back: from cotangents of results to those of what they were computed from."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from numpy import add, asarray, ndarray

from graphjit.buffers import guard_view
from graphjit.errors import GradientError, Where
from graphjit.op import Array
from graphjit.replay import parts_of, pull_arrays, rule_of
from graphjit.tape import Call, Item, Value, grad_mode, state
from graphjit.tensor import Tensor, value_of


def check_saved(value: Value) -> None:
    """Raise if an input of this step was overwritten after the step was taken."""
    for operand in value.inputs or ():
        home = operand._home
        if home is not None and (home.written > value.stamp or any(w[0] > value.stamp for w in home.writers)):
            raise GradientError(
                f"a tensor of type {operand.type} that {step_name(value)} needs for its gradient was "
                "overwritten in place after it was used",
                hint="Call backward() before the update, or use a copy (t + 0) in the computation.")


def step_name(value: Value) -> str:
    return value.op.name if value.op is not None else "a leaf"


def order_back(outputs: Iterable[Value], horizon: int = 0) -> list[Value]:
    """Values that need gradients below the outputs, operands first; iterative, so depth is no limit.

    It does not look below values older than the ``horizon``.

    Raises:
        GradientError: the tape is released, or (made by hand) has a cycle.
    """
    order: list[Value] = []
    done: dict[Value, bool] = {}  # False while the operands are being visited
    stack: list[Value | None] = list(outputs)
    open_: list[Value] = []  # those whose operands are being visited; None on the stack ends the last one
    while stack:
        value = stack.pop()
        if value is None:
            value = open_.pop()
            done[value] = True
            order.append(value)
            continue
        if value in done:
            if not done[value]:
                raise cyclic([step_name(v) for v in open_[open_.index(value):]])
            continue
        inputs = value.inputs
        if value.stamp < horizon or inputs == ():
            done[value] = True
            order.append(value)
            continue
        if inputs is None:
            released([])
        done[value] = False
        open_.append(value)
        stack.append(None)
        stack.extend([v for v in inputs if v.requires_grad and not done.get(v)])
    return order


def cyclic(names: Sequence[str]) -> GradientError:
    """The error for steps each of which is computed from the one before, the first from the last."""
    shown = [*names[:6], "..."] if len(names) > 6 else names
    return GradientError(f"the graph has a cycle of {len(names)} step{'s' * (len(names) > 1)}: a value is computed "
                         "from itself", detail=(" from ".join([*shown, names[0]]),),
                         hint="Graphs made by operations have none: look where operands were set by hand.")


def walk_back(outputs: Sequence[tuple[Value, Tensor]], wrt: Iterable[Value] | None, *, create_graph: bool,
              release: bool, order: Sequence[Value] | None = None,
              numbers: dict[int, float] | None = None) -> dict[Value, Tensor]:
    """From cotangents of the outputs those of the given values, or of all leaves that someone holds.

    ``order`` gives what ``order_back`` found before. ``numbers`` takes the cotangents, by stamp, of all values on the
    way that are one number.

    Raises:
        GradientError: where an op on the way has no derivative.
    """
    wanted = set(wrt) if wrt is not None else None
    if order is None:
        # what is older than all that is wanted cannot depend on it
        order = order_back((v for v, _ in outputs), min((v.stamp for v in wanted), default=0) if wanted else 0)
    needed: set[Value] = set()
    for value in order:
        inputs = value.inputs or ()
        if (not inputs and is_held(value)) if wanted is None else value in wanted:
            needed.add(value)
            continue
        for v in inputs:
            if v in needed:
                needed.add(value)
                break
    plain = state.trace is None and not create_graph  # on arrays
    cotangents: dict[Value, Any] = {}  # arrays or tensors; of a Call, those of its results by their place
    found: dict[Value, Any] = {}
    shared = Shared()
    with grad_mode(create_graph), rule_lines() as at:
        for value, tensor in outputs:
            _add(cotangents, value, shared.array_of(tensor) if plain else tensor)
        for value in reversed(order):
            g = cotangents.pop(value, None)
            if g is None or value not in needed:
                continue
            if numbers is not None and not isinstance(g, dict):
                array = g if plain else g._value.data
                if array.size == 1:
                    numbers[value.stamp] = array.item()
            inputs = value.inputs or ()
            if wanted is None:
                if not inputs:
                    found[value] = g
                    continue
            elif value in wanted:
                found[value] = g
                if not any(v in needed for v in inputs):
                    continue
            if not plain:
                at(value.where)
            for v in inputs:
                if v._home is not None:
                    check_saved(value)
                    break
            op = value.op
            if isinstance(op, Item):
                slots = cotangents.setdefault(inputs[0], {})
                _add(slots, op.index, g)
                continue
            if plain and type(op) is not Call:
                parts = pull_arrays(value, inputs, g, needed)
            else:
                parts = _pull(value, inputs, g, needed, shared if plain else None)
            for operand, part in zip(inputs, parts, strict=True):
                if part is not None:
                    before = cotangents.get(operand)
                    cotangents[operand] = part if before is None else _sum(before, part)
    if release:
        for value in order:
            if value.inputs:
                value.inputs = None
                if isinstance(value.op, Call):
                    value.op.pullback = released
    return {value: shared.tensor_of(g) for value, g in found.items()} if plain else found


def is_whole(value: Value) -> bool:
    """Whether the tape below a value is there, not released by a backward."""
    seen, stack = {value}, [value]
    while stack:
        inputs = stack.pop().inputs
        if inputs is None:
            return False
        new = [v for v in inputs if v.requires_grad and v not in seen]
        seen.update(new)
        stack.extend(new)
    return True


def is_held(value: Value) -> bool:
    """Whether this is a leaf of a tensor that still exists."""
    return not value.inputs and value.leaf is not None and value.leaf() is not None


def released(cotangents: list[Tensor | None]) -> NoReturn:
    """Stands for the pullback of a step that was walked and released: what it saved is freed."""
    raise GradientError("backward() went through this graph before and released it",
                        hint="Pass retain_graph=True to the first backward().")


@contextmanager
def rule_lines() -> Iterator[Callable[[Where | None], None]]:
    """While gradient rules run in a trace, what they record is put down to the forward operation's line."""
    trace = state.trace
    before = trace.where if trace is not None else None

    def at(where: Where | None) -> None:
        if trace is not None:
            trace.where = where
    try:
        yield at
    finally:
        at(before)


class Shared:
    """Whose memory cotangents that are bare arrays may share: the gradients among themselves, and with tensors that
    someone else holds. When they become tensors, each is known as a view of the others."""

    def __init__(self) -> None:
        self.owners: dict[int, weakref.ref[Value]] = {}  # by the array that owns the memory
        self.kept: list[Value] = []

    def array_of(self, tensor: Tensor) -> Array:
        value = value_of(tensor)
        array: Array = value.data  # type: ignore[assignment]  # not in a trace
        self.owners[id(array if array.base is None else array.base)] = weakref.ref(value)
        if value.views is not None:  # others may hold a view of it while no one holds this
            self.kept.append(value)
        return array

    def tensor_of(self, array: Array) -> Tensor:
        value = Value(array)
        owner = id(array if array.base is None else array.base)
        known = self.owners.get(owner)
        other = known() if known is not None else None
        if other is None:
            self.owners[owner] = weakref.ref(value)
        else:
            guard_view(other, value)
        return Tensor._of(value)


def _pull(value: Value, inputs: Sequence[Value], g: Any, needed: set[Value], shared: Shared | None) -> Sequence[Any]:
    """Cotangents of the operands that need one: tensors; from and to arrays if ``shared`` is given."""
    op = value.op
    if isinstance(op, Call):
        given = g or {}
        if shared is not None:
            given = {i: Tensor._of(Value(array)) for i, array in given.items()}
        parts = op.pullback([given.get(i) for i in range(max(given) + 1 if given else 0)])
    else:
        parts = rule_of(value)(g, *map(Tensor._of, (value, *inputs)), **(value.params or {}))
    found = parts_of(parts, [v.type for v in inputs], [v in needed for v in inputs])
    return found if shared is None else [None if part is None else shared.array_of(part) for part in found]


def _sum(a: Any, b: Any) -> Any:
    """Of two arrays or two tensors."""
    return asarray(state.quiet(add, a, b)) if isinstance(a, ndarray) else a + b


def _add(cotangents: dict[Any, Any], key: Any, g: Any) -> None:
    cotangents[key] = _sum(cotangents[key], g) if key in cotangents else g
