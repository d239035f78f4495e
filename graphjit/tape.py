"""Values and the tape: what a tensor holds and how it came about.

A ``Value`` is immutable but for its release after ``backward``; the ``Tensor`` people hold is a handle that
points at one. Assigning to a tensor points the handle elsewhere (or, for state, overwrites the
buffer and moves the clock), so what the tape saved is never changed unnoticed.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphjit.errors import Where
from graphjit.op import Array, Op
from graphjit.types import Shape, TensorType

if TYPE_CHECKING:
    from graphjit.ir import Node
    from graphjit.tensor import Tensor
    from graphjit.trace import Trace


class ThreadState(threading.local):
    """What is going on in this thread."""

    trace: Trace | None = None
    grad_enabled: bool = True
    learning: bool = False  # a function of several operations runs, and is counted (``composed``)
    eager: bool = os.environ.get("GRAPHJIT_EAGER", "") not in ("", "0")
    compiled: bool | None = None if eager else True  # what calls of compiled functions look at; see ``settle``

    def __init__(self) -> None:  # runs once in each thread
        # calls a function with NumPy's floating-point warnings off: a context of its own, entered by
        # ``Context.run``, costs a fifth of ``np.errstate`` at each operation
        context = copy_context()
        context.run(np.seterr, all="ignore")
        self.quiet: Callable[..., Any] = context.run
        self.now: tuple[Callable[..., Any], bool] | None = (context.run, True)

    def settle(self) -> None:
        """After a change: whether compiled functions run as programs (else None), and with gradients enabled; what an
        eager operation asks for, ``quiet`` and ``grad_enabled``, at once (None in a trace)."""
        self.compiled = None if self.trace is not None or self.eager else self.grad_enabled
        self.now = None if self.trace is not None else (self.quiet, self.grad_enabled)


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


class Rule(NamedTuple):
    """A gradient rule of a step with one operand: ``pull(*cotangents, *saved)`` gives the operand's cotangent from
    those of the results, which are of these types, and reads no other tensors."""

    pull: Callable[..., Tensor]
    saved: Sequence[Value]
    types: Sequence[TensorType]


class Call:
    """A step of the tape that is not an op of the table: a custom or compiled function.

    ``pullback(cotangents)`` takes one cotangent (or None) per result, up to the last that has one, and gives
    one (or None) per input.
    """

    __slots__ = ("name", "pullback", "rule")

    def __init__(self, name: str, pullback: Callable[[list[Tensor | None]], Sequence[Tensor | None]]) -> None:
        self.name = name
        self.pullback = pullback
        self.rule: Rule | None = None


class Item:
    """The ``index``-th result of a Call."""

    __slots__ = ("index", "name")

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.index = index


class Home:
    """What is known of the tensor and the buffer behind a value; most values need none of it."""

    __slots__ = ("label", "leaf", "writers", "written")

    def __init__(self) -> None:
        self.label = ""                                        # the name the user gave it
        self.leaf: weakref.ref[Tensor] | None = None           # the tensor whose gradient backward() is to set
        self.writers: tuple[list[int], ...] = ()               # when compiled functions that write it last ran
        self.written = 0                                       # when it was last overwritten


_NOWHERE = Home()


class Value:
    """An array (or, in a trace, a graph node) and how it came about."""

    __slots__ = ("__weakref__", "_home", "data", "inputs", "op", "params", "requires_grad", "stamp", "trace",
                 "views", "where")

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
        self.views: list[weakref.ref[Value]] | None = None  # values that share the buffer
        self._home: Home | None = None

    @property
    def home(self) -> Home:
        """Its buffer's record, made when first asked for."""
        if self._home is None:
            self._home = Home()
        return self._home

    @property
    def label(self) -> str:
        return (self._home or _NOWHERE).label

    @property
    def leaf(self) -> weakref.ref[Tensor] | None:
        return (self._home or _NOWHERE).leaf

    @leaf.setter
    def leaf(self, tensor: weakref.ref[Tensor] | None) -> None:
        self.home.leaf = tensor

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


def note_call(name: str, inputs: Sequence[Value], results: Sequence[Value],
              pullback: Callable[[list[Tensor | None]], Sequence[Tensor | None]]) -> Call:
    """Note on the tape that ``results`` were computed from ``inputs`` by a step that is not an op."""
    call = Call(name, pullback)
    step = Value(None, True, results[0].trace, call, tuple(inputs))
    for index, result in enumerate(results):
        result.requires_grad = True
        result.op = Item(name, index)
        result.inputs = (step,)
    return call


@contextmanager
def grad_mode(enabled: bool) -> Iterator[None]:
    before = state.grad_enabled
    state.grad_enabled = enabled
    state.settle()
    try:
        yield
    finally:
        state.grad_enabled = before
        state.settle()
