"""Recording: a trace turns the operations of a running function into a graph.

Tensors reached from outside become inputs of the graph by reference when first read ("lifted") and outputs
when assigned.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphjit.errors import LeakedTensorError, TraceError, Where, user_line
from graphjit.ir import Const, Graph, Input, Node, apply_op
from graphjit.op import Array, Op
from graphjit.tape import Value, clock, state
from graphjit.types import SHORT, DType, Extent, Order, Ratio, TensorType

if TYPE_CHECKING:
    from graphjit.tensor import Tensor


@dataclass(slots=True, eq=False)
class State:
    """A tensor from outside the trace: where it stands in the graph and what it holds now."""

    tensor: Tensor
    node: Input
    entry: Value    # what it held when first read
    current: Value  # what it holds now
    written: bool = False
    held: Input = field(init=False)  # where it stands in the optimized graph
    order: Order = ()  # in which it has the axes there, if not in their own

    def __post_init__(self) -> None:
        self.held = self.node

    @property
    def array(self) -> Array:
        """The array, as programs see it."""
        data: Array = self.tensor._value.data  # type: ignore[assignment]  # it is from outside of the trace
        return data.transpose(self.order) if self.order else data


class Given(NamedTuple):
    """An argument that requires a gradient: its handle in the trace, its place, whether the caller's is a leaf."""

    handle: Tensor
    place: int
    leaf: bool


class Trace:
    """A graph in the making."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self.states: dict[int, State] = {}
        self.arrays: dict[int, tuple[Array, Value]] = {}
        self.grads: dict[int, tuple[Tensor, Tensor | None]] = {}  # .grad as it stands in the trace
        self.entry_grads: dict[int, tuple[Tensor, Tensor | None]] = {}  # a handle of the .grad found on entry
        self.given: dict[int, Given] = {}  # arguments that require a gradient
        self.reached: dict[int, Any] = {}  # modules and optimizers that were used
        self.where: Where | None = None    # set while gradient rules run: the forward op's line
        self.finished = False
        self._scalars: dict[tuple[object, ...], Const] = {}

    def argument(self, found: TensorType, name: str, requires_grad: bool = False, nested: bool = False) -> Value:
        """A new input whose axis lengths are the caller's choice.

        But for short axes behind the first (coordinates, channels, a column of labels): that is how the data are laid
        out, and code that knows how many those are computes with them several times as fast. And for all short axes of
        what is ``nested`` in a container of the caller's, as a model's parameters are.
        """
        known = requires_grad and nested  # a parameter
        lengths = tuple(n if known or (n <= SHORT and (i or nested)) else Extent(n) for i, n in enumerate(found.shape))
        node = Input(TensorType(lengths, found.dtype, found.weak), name)
        self.inputs.append(node)
        return Value(node, requires_grad, self)

    def know_lengths(self, value: Value) -> None:
        """Of an argument that turns out to be a model's parameter, all lengths are known from here on.

        What was recorded before keeps the caller's lengths, which are the same numbers. The node is changed in its
        place, as there is no graph yet, and other values may hold it already.
        """
        node = value.data
        if isinstance(node, Input) and node in self.inputs:
            lengths = tuple(map(int, node.type.shape))
            object.__setattr__(node, "type", TensorType(lengths, node.type.dtype, node.type.weak))

    def read(self, tensor: Tensor) -> Value:
        """What a tensor holds at this point of the trace."""
        value = tensor._value
        if value.trace is self:
            return value
        if value.trace is not None:
            raise leaked(value)
        entry = self.states.get(id(tensor))
        return entry.current if entry is not None else self._lift(tensor).current

    def _lift(self, tensor: Tensor) -> State:
        node = Input(tensor._value.type, tensor.label or f"state{len(self.states)}")
        value = Value(node, tensor._value.requires_grad, self)
        value.leaf = weakref.ref(tensor)
        entry = State(tensor, node, value, value)
        self.states[id(tensor)] = entry
        return entry

    def lift_array(self, array: Array) -> Value:
        """A NumPy array from outside, by reference: later changes of its elements are seen."""
        entry = self.arrays.get(id(array))
        if entry is None:
            node = Input(TensorType(array.shape, array.dtype.newbyteorder("=")), f"array{len(self.arrays)}")
            entry = (array, Value(node, False, self))
            self.arrays[id(array)] = entry
        return entry[1]

    def assign(self, tensor: Tensor, value: Value) -> None:
        """Make ``tensor`` hold ``value`` (of its own type) from here on."""
        entry = self.states.get(id(tensor)) or self._lift(tensor)
        entry.current.written = clock.tick()  # as eagerly: a tape that saved it can no longer be walked
        new = Value(value.data, tensor.requires_grad, self)
        new.leaf = weakref.ref(tensor)
        entry.current = new
        entry.written = True

    def record(self, op: Op, values: Sequence[Value], params: dict[str, Any]) -> Value:
        """Apply an op: a new node."""
        where = self.where or user_line()
        node = apply_op(op, [v.data for v in values], params, where)  # type: ignore[misc]  # nodes in a trace
        return Value(node, False, self, where=where)

    def scalar(self, value: object, dtype: DType) -> Value:
        """A Python number as a constant of this dtype."""
        key = (type(value), repr(value), dtype)
        if key not in self._scalars:
            self._scalars[key] = Const(np.array(value, dtype), opaque=isinstance(value, (Extent, Ratio)))
        return Value(self._scalars[key], False, self)

    def constant(self, array: Array) -> Value:
        """A copy of an array as a constant."""
        return Value(Const(np.array(array)), False, self)

    def graph(self, outputs: Sequence[Node]) -> Graph:
        """The graph of the outputs, then of the assigned states, over arguments, states, arrays."""
        states = [s.node for s in self.states.values()]
        arrays: list[Input] = [v.data for _, v in self.arrays.values()]  # type: ignore[misc]
        writes: list[Node] = [s.current.data for s in self.written()]  # type: ignore[misc]
        return Graph((*self.inputs, *states, *arrays), (*outputs, *writes))

    def written(self) -> list[State]:
        return [s for s in self.states.values() if s.written]


def leaked(value: Value) -> LeakedTensorError:
    made = f"made at {value.where.full()}" if value.where else "an argument of the traced function"
    return LeakedTensorError(
        f"a tensor {value.type} of a finished trace was used outside of it", detail=(made,),
        hint="Return it from the compiled function, or keep it in a tensor made outside with t.assign(...).")


@contextmanager
def tracing(trace: Trace) -> Iterator[Trace]:
    """Record what this thread does into ``trace``."""
    if state.trace is not None:
        raise TraceError("a trace is active in this thread already")
    state.trace = trace
    state.settle()
    try:
        yield trace
    finally:
        state.trace = None
        state.settle()
        trace.finished = True
