"""Values and reverse mode: what a tensor holds, how it came about, and the walk back.

A ``Value`` is immutable but for its release after ``backward``; the ``Tensor`` people hold is a handle that
points at one. Assigning to a tensor points the handle elsewhere (or, for state, overwrites the
buffer and moves the clock), so what the tape saved is never changed unnoticed.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from graphjit.errors import GradientError, Where
from graphjit.op import Array, Op
from graphjit.types import Shape, TensorType, is_float, stretched_axes

if TYPE_CHECKING:
    from graphjit.ir import Node
    from graphjit.tensor import Tensor
    from graphjit.trace import Trace


class ThreadState(threading.local):
    """What is going on in this thread."""

    trace: Trace | None = None
    grad_enabled: bool = True
    _quiet: Callable[..., Any] | None = None
    eager: bool = os.environ.get("GRAPHJIT_EAGER", "") not in ("", "0")

    @property
    def quiet(self) -> Callable[..., Any]:
        """Calls a function with NumPy's floating-point warnings off.

        A context of its own, entered by ``Context.run``, costs a fifth of ``np.errstate`` at each operation.
        """
        found = self._quiet
        if found is None:
            context = copy_context()
            context.run(np.seterr, all="ignore")
            found = self._quiet = context.run
        return found


state = ThreadState()


class Clock:
    """Orders the making of values and the in-place writes to their buffers, and counts changes of structure.

    By it a tape can tell whether what it saved still stands, and that a value cannot depend on a younger one.
    """

    __slots__ = ("grad_writes", "structure", "tick", "views")

    def __init__(self) -> None:
        self.tick = itertools.count(1).__next__
        self.views = 0        # views taken of buffers
        self.structure = 0    # attributes of modules and optimizers set, buffers replaced
        self.grad_writes = 0  # .grad of any tensor set outside of a compiled step


clock = Clock()
_tick = clock.tick


class Call:
    """A step of the tape that is not an op of the table: a custom or compiled function.

    ``pullback(cotangents)`` takes one cotangent (or None) per result, up to the last that has one, and gives
    one (or None) per input.
    """

    __slots__ = ("name", "pullback")

    def __init__(self, name: str, pullback: Callable[[list[Tensor | None]], Sequence[Tensor | None]]) -> None:
        self.name = name
        self.pullback = pullback


class Item:
    """The ``index``-th result of a Call."""

    __slots__ = ("index", "name")

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.index = index


class Home:
    """What is known of the tensor and the buffer behind a value; most values need none of it."""

    __slots__ = ("leaf", "views", "writers", "written")

    def __init__(self) -> None:
        self.leaf: weakref.ref[Tensor] | None = None           # the tensor whose gradient backward() is to set
        self.views: list[weakref.ref[Value]] | None = None     # values that share the buffer
        self.writers: tuple[list[int], ...] = ()               # when compiled functions that write it last ran
        self.written = 0                                       # when it was last overwritten


_NOWHERE = Home()


class Value:
    """An array (or, in a trace, a graph node) and how it came about."""

    __slots__ = ("__weakref__", "_home", "data", "inputs", "op", "params", "requires_grad", "stamp", "trace", "where")

    data: Array | Node | None

    def __init__(self, data: Array | Node | None, requires_grad: bool = False, trace: Trace | None = None,
                 op: Op | Call | Item | None = None, inputs: tuple[Value, ...] | None = (),
                 params: dict[str, Any] | None = None, where: Where | None = None) -> None:
        self.data = data
        self.requires_grad = requires_grad
        self.trace = trace
        self.op = op
        self.inputs = inputs       # None once backward has released them
        self.params = params
        self.where = where
        self.stamp = _tick()       # when it was made
        self._home: Home | None = None

    @property
    def home(self) -> Home:
        """Its buffer's record, made when first asked for."""
        if self._home is None:
            self._home = Home()
        return self._home

    @property
    def leaf(self) -> weakref.ref[Tensor] | None:
        return (self._home or _NOWHERE).leaf

    @leaf.setter
    def leaf(self, tensor: weakref.ref[Tensor] | None) -> None:
        self.home.leaf = tensor

    @property
    def views(self) -> list[weakref.ref[Value]] | None:
        return (self._home or _NOWHERE).views

    @views.setter
    def views(self, views: list[weakref.ref[Value]] | None) -> None:
        self.home.views = views

    @property
    def writers(self) -> tuple[list[int], ...]:
        return (self._home or _NOWHERE).writers

    @writers.setter
    def writers(self, writers: tuple[list[int], ...]) -> None:
        self.home.writers = writers

    @property
    def written(self) -> int:
        return (self._home or _NOWHERE).written

    @written.setter
    def written(self, at: int) -> None:
        self.home.written = at

    @property
    def type(self) -> TensorType:
        data = self.data
        if self.trace is None:
            return TensorType(data.shape, data.dtype)  # type: ignore[union-attr]  # an array outside of traces
        found: TensorType = data.type  # type: ignore[union-attr]
        return found

    @property
    def shape(self) -> Shape:
        return self.type.shape


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


def note_call(name: str, inputs: Sequence[Value], results: Sequence[Value],
              pullback: Callable[[list[Tensor | None]], Sequence[Tensor | None]]) -> None:
    """Note on the tape that ``results`` were computed from ``inputs`` by a step that is not an op."""
    step = Value(None, True, results[0].trace, Call(name, pullback), tuple(inputs))
    for index, result in enumerate(results):
        result.requires_grad = True
        result.op = Item(name, index)
        result.inputs = (step,)


def order_back(outputs: Iterable[Value], horizon: int = 0) -> list[Value]:
    """Values that need gradients below the outputs, operands first; iterative, so depth is no limit.

    It does not look below values older than the ``horizon``.
    """
    order: list[Value] = []
    seen: set[Value] = set()
    stack: list[tuple[Value, bool]] = [(v, False) for v in outputs]
    while stack:
        value, ready = stack.pop()
        if ready:
            order.append(value)
            continue
        if value in seen:
            continue
        seen.add(value)
        stack.append((value, True))
        if value.stamp < horizon:
            continue
        if value.inputs is None:
            released([])
        stack.extend((v, False) for v in value.inputs if v.requires_grad and v not in seen)
    return order


def walk_back(outputs: Sequence[tuple[Value, Tensor]], wrt: Iterable[Value] | None, *, create_graph: bool,
              release: bool, order: Sequence[Value] | None = None) -> dict[Value, Tensor]:
    """From cotangents of the outputs those of the given values, or of all leaves that someone holds.

    ``order`` gives what ``order_back`` found before.

    Raises:
        GradientError: where an op on the way has no derivative.
    """
    from graphjit.tensor import Tensor

    wanted = set(wrt) if wrt is not None else None
    if order is None:
        # what is older than all that is wanted cannot depend on it
        order = order_back((v for v, _ in outputs), min((v.stamp for v in wanted), default=0) if wanted else 0)
    needed: set[Value] = set()
    for value in order:
        asked = value in wanted if wanted is not None else is_held(value)
        if asked or any(v in needed for v in value.inputs or ()):
            needed.add(value)
    cotangents: dict[Value, Any] = {}
    found: dict[Value, Tensor] = {}
    with grad_mode(create_graph), rule_lines() as at:
        for value, g in outputs:
            _add(cotangents, value, g)
        for value in reversed(order):
            if value not in needed or value not in cotangents:
                continue
            g = cotangents.pop(value)
            if wanted is None:
                if not value.inputs:
                    found[value] = g
                    continue
            elif value in wanted:
                found[value] = g
            inputs = value.inputs or ()
            if not any(v in needed for v in inputs):
                continue
            at(value.where)
            check_saved(value)
            if isinstance(value.op, Item):
                slots = cotangents.setdefault(inputs[0], {})
                _add(slots, value.op.index, g)
                continue
            for operand, part in zip(inputs, _pull(value, g), strict=True):
                if part is None or operand not in needed:
                    continue
                if callable(part) and not isinstance(part, Tensor):
                    part = part()
                if not _fits(part._value, operand):
                    part = unbroadcast(part, operand.type)
                _add(cotangents, operand, part)
    if release:
        for value in order:
            if value.inputs:
                value.inputs = None
                if isinstance(value.op, Call):
                    value.op.pullback = released
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


def _pull(value: Value, g: Any) -> Sequence[Any]:
    from graphjit.tensor import Tensor

    op, inputs = value.op, value.inputs or ()
    if isinstance(op, Call):
        count = max(g) + 1 if g else 0
        return op.pullback([g.get(i) for i in range(count)])
    assert isinstance(op, Op)
    if op.vjp is None:
        raise GradientError(f"{op.name} has no derivative" + (f": {op.why}" if op.why else ""),
                            detail=tuple(f"operand {i}: {v.type}" for i, v in enumerate(inputs)),
                            hint="Use detach() on its operand if no gradient should flow here.")
    handles = [Tensor._of(v) for v in inputs]
    return op.vjp(g, Tensor._of(value), *handles, **(value.params or {}))


def _add(cotangents: dict[Any, Any], key: Any, g: Any) -> None:
    cotangents[key] = cotangents[key] + g if key in cotangents else g


def _fits(g: Value, operand: Value) -> bool:
    """Whether, eagerly, a cotangent has its operand's very shape and dtype: nothing is to be undone then."""
    a, b = g.data, operand.data
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.shape == b.shape and a.dtype is b.dtype


def unbroadcast(g: Tensor, to: TensorType) -> Tensor:
    """Sum a cotangent over the axes along which its operand was stretched."""
    axes = stretched_axes(to.shape, g.shape)
    if axes:
        lead = g.ndim - to.ndim
        g = g.sum(axis=axes, keepdims=True)
        if lead:
            g = g.reshape(g.shape[lead:])
    if g.dtype != to.dtype:
        g = g.astype(to.dtype)
    return g


@contextmanager
def grad_mode(enabled: bool) -> Iterator[None]:
    before = state.grad_enabled
    state.grad_enabled = enabled
    try:
        yield
    finally:
        state.grad_enabled = before


def differentiable(data_type: TensorType) -> bool:
    return is_float(data_type.dtype)
