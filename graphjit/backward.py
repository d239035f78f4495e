"""The walk back: from cotangents of results to those of what they were computed from."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from numpy import add, asarray

from graphjit.buffers import guard_view
from graphjit.convert import filled
from graphjit.errors import GradientError, Where
from graphjit.op import Array, Op
from graphjit.replay import parts_of, pull_arrays, rule_of
from graphjit.tape import Call, Item, Rule, Value, grad_mode, state
from graphjit.tensor import Tensor, value_of


def check_saved(value: Value) -> None:
    """Raise if an input of this step was overwritten after the step was taken."""
    for operand in value.inputs or ():
        home = operand._home
        if home is not None and (home.written > value.stamp or
                                 (home.writers and any(w[0] > value.stamp for w in home.writers))):
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
              numbers: dict[int, Any] | None = None) -> dict[Value, Tensor]:
    """From cotangents of the outputs those of the given values, or of all leaves that someone holds.

    ``order`` gives what ``order_back`` found before. ``numbers`` takes the cotangents, by stamp, of all values on the
    way that are one number: as tensors where the walk is itself recorded.

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
    with grad_mode(create_graph):
        if state.trace is None and not create_graph:
            found = _walk_arrays(outputs, order, needed, wanted, numbers)
        else:
            found = _walk_tensors(outputs, order, needed, wanted, numbers)
    if release:
        for value in order:
            if value.inputs:
                release_step(value)
    return found


def release_step(value: Value) -> None:
    """Free what a walked step saved."""
    value.inputs = None
    if type(value.op) is Call:
        value.op.pullback = released
        value.op.rule = None


def _walk_arrays(outputs: Sequence[tuple[Value, Tensor]], order: Sequence[Value], needed: set[Value],
                 wanted: set[Value] | None, numbers: dict[int, Any] | None) -> dict[Value, Tensor]:
    """The walk where gradients are not themselves recorded: arrays on the way, tensors at its ends."""
    shared = Shared()
    quiet = state.quiet
    cotangents: dict[Value, Any] = {}  # arrays; of a Call, those of its results by their place
    found: dict[Value, Array] = {}

    def arrive(at: dict[Any, Any], key: Any, g: Array) -> None:
        before = at.get(key)
        at[key] = g if before is None else asarray(quiet(add, before, g))

    for value, tensor in outputs:
        arrive(cotangents, value, shared.array_of(tensor))
    pop, get = cotangents.pop, cotangents.get
    for value in reversed(order):
        g = pop(value, None)
        if g is None or value not in needed:
            continue
        op, inputs = value.op, value.inputs
        if numbers is not None and type(g) is not dict and g.size == 1:
            numbers[value.stamp] = g.item()
        if not inputs or (wanted is not None and value in wanted):
            found[value] = g
            if not any(v in needed for v in inputs or ()):
                continue
            assert inputs is not None
        for v in inputs:
            if v._home is not None:
                check_saved(value)
                break
        if type(op) is Op:
            parts = pull_arrays(value, inputs, g, needed, quiet)
        elif type(op) is Item:
            arrive(cotangents.setdefault(inputs[0], {}), op.index, g)
            continue
        else:
            given = {i: Tensor._of(Value(array)) for i, array in g.items()}
            parts = [None if part is None else shared.array_of(part) for part in _pull(value, given, needed)]
        for v, part in zip(inputs, parts, strict=True):
            if part is not None:
                before = get(v)
                cotangents[v] = part if before is None else asarray(quiet(add, before, part))
    return {value: shared.tensor_of(g) for value, g in found.items()}


def _walk_tensors(outputs: Sequence[tuple[Value, Tensor]], order: Sequence[Value], needed: set[Value],
                  wanted: set[Value] | None, numbers: dict[int, Any] | None) -> dict[Value, Tensor]:
    """The walk in Tensor operations, for a trace and for derivatives of the gradients."""
    cotangents: dict[Value, Any] = {}  # tensors; of a Call, those of its results by their place
    found: dict[Value, Tensor] = {}
    with rule_lines() as at:
        for value, g in outputs:
            _add(cotangents, value, g)
        for value in reversed(order):
            g = cotangents.pop(value, None)
            if g is None or value not in needed:
                continue
            if numbers is not None and isinstance(g, Tensor) and g.size == 1:
                numbers[value.stamp] = g
            inputs = value.inputs or ()
            if not inputs or (wanted is not None and value in wanted):
                found[value] = g
                if not any(v in needed for v in inputs):
                    continue
            at(value.where)
            check_saved(value)
            if isinstance(value.op, Item):
                _add(cotangents.setdefault(inputs[0], {}), value.op.index, g)
                continue
            for v, part in zip(inputs, _pull(value, g, needed), strict=True):
                if part is not None:
                    _add(cotangents, v, part)
    return found


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


def _pull(value: Value, g: Any, needed: set[Value]) -> list[Tensor | None]:
    """Cotangents of the operands that need one."""
    op, inputs = value.op, value.inputs or ()
    if isinstance(op, Call):
        parts = op.pullback([g.get(i) for i in range(max(g) + 1 if g else 0)])
    else:
        parts = rule_of(value)(g, *map(Tensor._of, (value, *inputs)), **(value.params or {}))
    return parts_of(parts, [v.type for v in inputs], [v in needed for v in inputs])


def pull_by(rule: Rule, given: Sequence[Tensor | None]) -> list[Tensor]:
    """The pullback of a step with such a rule."""
    missing = (None,) * (len(rule.types) - len(given))
    return [rule.pull(*[filled(t.shape, 0, t.dtype) if g is None else g
                        for g, t in zip((*given, *missing), rule.types, strict=True)], *map(Tensor._of, rule.saved))]


def _add(cotangents: dict[Any, Any], key: Any, g: Any) -> None:
    cotangents[key] = cotangents[key] + g if key in cotangents else g
