"""One program of a compiled function: the function traced for one signature, and what it takes to run it."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphjit.backward import is_whole
from graphjit.buffers import is_held_elsewhere, order_kept, protect_views
from graphjit.capture import Capture
from graphjit.codegen.lower import lower
from graphjit.errors import GradientError, TraceError
from graphjit.generators import generators_watched
from graphjit.ir import Input, Node
from graphjit.leaves import UNAVAILABLE, Unavailable, computed_outside
from graphjit.op import Array
from graphjit.outside import Outside
from graphjit.passes import optimize
from graphjit.passes.turned_states import turn_states
from graphjit.pullback import Backward
from graphjit.runtime.compiler import without_gc
from graphjit.runtime.program import Program
from graphjit.shared import Shared
from graphjit.signature import Signature, is_dynamic
from graphjit.tape import Value, clock, state
from graphjit.tensor import Tensor, value_of
from graphjit.trace import Given, State, Trace, tracing
from graphjit.tree import flatten, unflatten
from graphjit.types import Extent, Ratio

if TYPE_CHECKING:
    from graphjit.profiling import Profile


class Specialization:
    """A function traced for one signature.

    Args:
        function: the user's function.
        call: the call whose arguments it is traced for.
        names: a name for each leaf of the arguments.
        shared: what it shares with the function's other programs.
    """

    def __init__(self, function: Callable[..., Any], call: Signature, names: Sequence[str],
                 shared: Shared) -> None:
        begin = time.perf_counter()
        self.shared = shared
        self.written = shared.written
        self.keep_grads = shared.keep_grads
        self.function = function
        self.reason = ""
        self.number = 0  # of the trace
        self.measured: Profile | None = None
        self.shortcut: Callable[[tuple[Any, ...], dict[str, Any]], Any] | None = None  # made after the first call
        self.leaf_names = names
        self.name = getattr(function, "__qualname__", type(function).__name__)
        self.key = call.key
        self.names = [name for name, leaf in zip(names, call.leaves, strict=True) if is_dynamic(leaf)]
        self.seen = clock.structure
        self.seen_grads = -1
        self.seen_views = -1
        self.capture = Capture(function, (leaf for leaf in call.leaves if not is_dynamic(leaf)))
        trace = self.trace = Trace()
        with tracing(trace):
            self._record(function, call)
        self.capture.settle()
        watched = dict.fromkeys([*self.capture.structured, *trace.reached.values()])
        self.watched = [(x, x._static_signature()) for x in watched]
        self.states: list[State] = list(trace.states.values())
        self.writes: list[State] = trace.written()
        self.flags = [(s.tensor, s.tensor._value.requires_grad) for s in self.states]
        self.arrays: list[tuple[Array, Input]] = [
            (array, value.data) for array, value in trace.arrays.values()]  # type: ignore[misc]  # a node
        self.arguments = list(trace.inputs)
        self.trace_seconds = time.perf_counter() - begin
        with without_gc():
            self._build(self._differentiable())

    # ---- tracing

    def _record(self, function: Callable[..., Any], call: Signature) -> None:
        trace = self.trace
        inside: list[Any] = []
        self.argument_values: list[Value] = []
        for leaf, path in zip(call.leaves, call.spec.paths(), strict=True):
            if is_dynamic(leaf):
                i = len(self.argument_values)
                nested = len(path) > 2  # than args or kwargs, and which of them
                value = trace.argument(call.type_of(call.arrays[i]), self.names[i], i in call.tensors, nested)
                self.argument_values.append(value)
                handle = Tensor._of(value, self.names[i])
                inside.append(handle)
                if i in call.tensors:
                    value.leaf = weakref.ref(handle)
                    trace.given[id(handle)] = Given(handle, i, leaf.is_leaf)
            else:
                inside.append(leaf)
        args, kwargs = unflatten(call.spec, inside)
        with generators_watched(self.name):
            out = function(*args, **kwargs)
        leaves, self.out_spec = flatten(out)
        self.out_leaves: list[Any] = []
        self.out_values: list[Value] = []
        places: dict[Value, int] = {}
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                value = value_of(leaf)
                if value not in places:
                    places[value] = len(self.out_values)
                    self.out_values.append(value)
                self.out_leaves.append(places[value])
            elif isinstance(leaf, (Generator, Coroutine, AsyncGenerator)):
                raise TraceError(f"{self.name} is a generator or a coroutine",
                                 hint="A compiled function gives its results at once: return a list of them.")
            else:
                self.out_leaves.append(Static(int(leaf) if isinstance(leaf, Extent) else
                                              float(leaf) if isinstance(leaf, Ratio) else leaf))
        self.n_outs = len(self.out_values)
        # gradients as the function leaves them
        self.grads: list[tuple[Tensor, int | None]] = []
        self.given_grads: list[tuple[int, int | None]] = []  # those of arguments
        for key, (tensor, g) in trace.grads.items():
            if key in trace.given:
                kept = len(self.out_values) if self.keep_grads else -1
                self.given_grads.append((trace.given[key].place, None if g is None else kept))
                if g is not None and self.keep_grads:
                    self.out_values.append(value_of(g))
            elif tensor._value.trace is not None:
                continue
            elif g is None:
                self.grads.append((tensor, None))
            elif self.keep_grads or id(tensor) in trace.entry_grads:  # something the next call may add to
                self.grads.append((tensor, len(self.out_values)))
                self.out_values.append(value_of(g))
            else:
                self.grads.append((tensor, -1))

        self.bare = [trace.given[key].place for key in trace.entry_grads if key in trace.given]  # read, and None
        self.uses_grads = bool(self.grads or trace.entry_grads)
        self.accumulates = any(i is not None and id(t) in trace.entry_grads for t, i in self.grads)
        self.kept_grads = any(i is not None and i >= 0 for _, i in self.grads)
        self.single = self.out_leaves == [0] and self.out_spec.is_leaf()

    def _differentiable(self) -> list[int]:
        """Which results an eager backward() may start from."""
        if not state.grad_enabled:
            return []
        given = {*self.argument_values, *(s.entry for s in self.states)}
        return [i for i, v in enumerate(self.out_values[:self.n_outs])
                if v.requires_grad and (v in given if v.op is None else is_whole(v))]

    # ---- building

    def _build(self, differentiable: list[int]) -> None:
        begin = time.perf_counter()
        trace = self.trace
        self.differentiable = differentiable
        results: list[Node] = [v.data for v in self.out_values]  # type: ignore[misc]  # nodes in a trace
        self.wrt: list[Value] = []
        self.backward: Backward | None = None
        if differentiable:
            entries = [s.entry for s in self.states if s.entry.requires_grad]
            self.wrt = [v for v in self.argument_values if v.requires_grad] + entries
            self.backward = Backward(self)
            results += self.backward.residuals
        graph = trace.graph(results)
        self.raw_graph = graph
        found = {s.node: order for s in self.states if (order := order_kept(s.tensor._value))}
        self.graph, turned = turn_states(optimize(graph), [s.node for s in self.writes], self._may_turn(), found)
        for s in self.states:
            s.held, s.order = turned.get(s.node, (s.node, ()))
        self.optimize_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        lowered = lower(self.graph, len(results), [s.held for s in self.writes])
        self.lower_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        self.outside = Outside(self.states, self.arrays, self.written)
        with self.shared.counting() as self.kernels:
            self.program = Program(lowered, self.arguments, self.outside.arrays, len(results))
        self.compile_seconds = time.perf_counter() - begin
        self.guard()

    def _may_turn(self) -> list[Input]:
        """States that may lie in another order from now on."""
        if self.backward is not None:  # its reverse program reads them too
            return []
        return [s.node for s in self.writes if s.node.type.ndim >= 2 and not is_held_elsewhere(s.tensor._value)]

    # ---- whether it still stands

    def stands(self) -> bool:
        """Whether what was baked in still holds; binds to buffers that were replaced meanwhile."""
        if not self.capture.holds() or (self.seen_grads != clock.grad_writes and not self._grads_hold()):
            return False
        if self.seen != clock.structure:
            if any(x._static_signature() != before for x, before in self.watched):
                return False
            if any(t._value.requires_grad != flag for t, flag in self.flags):
                return False
            if not self.outside.rebind(self.program):
                return False
            self.seen = clock.structure
        return True

    def _grads_hold(self) -> bool:
        """Whether the gradients found on entry are there again, or others of their types, which take their place."""
        for tensor, handle in self.trace.entry_grads.values():
            now = tensor._grad
            if isinstance(now, Unavailable):
                if now.held is None:
                    return False
                now = now.held
            if now is None or handle is None:
                if now is not handle:
                    return False
            elif now._value is not handle._value:
                before, value = handle._value, now._value
                if value.trace is not None or value.type != before.type or value.requires_grad != before.requires_grad:
                    return False
                handle._value = value
        return self.outside.rebind(self.program)

    # ---- running

    def guard(self) -> None:
        """Run under the shared lock, if there is state; else under one of its own."""
        self.program.guard(self.shared.lock if self.states else threading.Lock())
        if self.backward is not None and self.backward.program is not None:
            self.backward.program.guard(threading.Lock())

    def run(self, arrays: Sequence[Any], call: Signature | None) -> Any:
        """The function's result for these arrays; ``call`` is needed where the result is differentiable."""
        for node, array in self.outside.copies.items():
            np.copyto(self.program.fixed[node], array)
        if self.given_grads or self.bare:
            self._check_given(call)
        if self.writes and self.seen_views != clock.views:
            for s in self.writes:
                protect_views(s.tensor._value)
            self.outside.rebind(self.program)  # what shared a buffer that is written has one of its own now
            self.seen_views = clock.views
        if self.writes:
            # an argument that is the buffer of a state counts as it is now
            buffers = self.outside.buffers.tolist()
            arrays = [a.copy() if id(a) in buffers else a for a in arrays]
        results = self.program.run(arrays)
        if self.writes:
            self.written[0] = clock.tick()
        outs = [Tensor._of(Value(array)) for array in results[:len(self.out_values)]]
        if self.backward is not None and state.grad_enabled:
            assert call is not None
            self.backward.note(call, arrays, outs, results[len(self.out_values):])
        for i, place in self.given_grads:
            assert call is not None
            call.tensors[i]._grad = None if place is None else UNAVAILABLE if place < 0 else outs[place]
            clock.grad_writes += 1
        return self.handed_out(outs)

    def handed_out(self, outs: list[Tensor]) -> Any:
        """The function's result made of the program's, after gradients were left where they belong."""
        if self.grads and (self.kept_grads or self.seen_grads != clock.grad_writes):
            self._leave_grads(outs)
        if self.single:
            return outs[0]
        return unflatten(self.out_spec, [leaf.fresh() if isinstance(leaf, Static) else outs[leaf]
                                         for leaf in self.out_leaves])

    def _check_given(self, call: Signature | None) -> None:
        """Arguments that get gradients are leaves, and those whose gradients the function reads have none yet."""
        assert call is not None
        for i, _ in self.given_grads:
            if not call.tensors[i].is_leaf:
                raise computed_outside(call.tensors[i])
        for i in self.bare:
            if call.tensors[i]._grad is not None:
                raise GradientError(f"argument {self.names[i]} of {self.name} has a gradient already",
                                    hint="Call zero_grad() on it first, or close over the tensor.")

    def _leave_grads(self, outs: list[Tensor]) -> None:
        for tensor, i in self.grads:
            tensor._grad = (None if i is None else UNAVAILABLE if i < 0 else
                            outs[i] if self.keep_grads else Unavailable(outs[i]))
        clock.grad_writes += 1
        self.seen_grads = -1 if self.accumulates else clock.grad_writes


class Static:
    """A result that is no tensor."""

    __slots__ = ("it",)

    def __init__(self, it: object) -> None:
        self.it = it

    def fresh(self) -> object:
        return self.it.copy() if isinstance(self.it, np.ndarray) else self.it
