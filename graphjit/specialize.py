"""One program of a compiled function: the function traced for one signature, and what it takes to run it."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphjit.apply import apply
from graphjit.backward import is_whole, walk_back
from graphjit.buffers import protect_views
from graphjit.capture import Capture
from graphjit.codegen.lower import lower
from graphjit.convert import as_tensor, constant
from graphjit.errors import GradientError, TraceError
from graphjit.ir import Apply, Const, Graph, Input, Node, topological
from graphjit.leaves import UNAVAILABLE, Unavailable
from graphjit.op import Array, View
from graphjit.passes import optimize
from graphjit.runtime.compiler import compile_count, load_count
from graphjit.runtime.program import Program
from graphjit.signature import Signature, is_dynamic
from graphjit.tape import Value, clock, note_call, state
from graphjit.tensor import Tensor, value_of
from graphjit.trace import State, Trace, tracing
from graphjit.transforms import vjp
from graphjit.tree import flatten, unflatten
from graphjit.types import Extent, Ratio

if TYPE_CHECKING:
    from graphjit.profiling import Profile


class Shared:
    """What the programs of one compiled function share.

    Attributes:
        keep_grads: whether gradients left by the function are results.
        written: holds when it last wrote its states (see ``Value.writers``).
        lock: held by the program that runs, where there is state.
        kernels: those its programs asked for that were new to the process.
    """

    def __init__(self, keep_grads: bool) -> None:
        self.keep_grads = keep_grads
        self.written = [0]
        self.lock = threading.Lock()
        self.kernels = Kernels()

    @contextmanager
    def counting(self) -> Iterator[Kernels]:
        """Count the kernels that are made inside."""
        found = Kernels()
        compiled, loaded, begin = compile_count(), load_count(), time.perf_counter()
        try:
            yield found
        finally:
            found.compiled, found.loaded = compile_count() - compiled, load_count() - loaded
            found.seconds = time.perf_counter() - begin
            self.kernels.add(found)


@dataclass(slots=True)
class Kernels:
    """How many kernels were compiled and taken from the disk, and the seconds that making programs of them took."""

    compiled: int = 0
    loaded: int = 0
    seconds: float = 0.0

    def add(self, more: Kernels) -> None:
        self.compiled += more.compiled
        self.loaded += more.loaded
        self.seconds += more.seconds


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
        self.arrays = [(array, value.data) for array, value in trace.arrays.values()]
        self.arguments = list(trace.inputs)
        self.trace_seconds = time.perf_counter() - begin
        self._build(self._differentiable())

    # ---- tracing

    def _record(self, function: Callable[..., Any], call: Signature) -> None:
        trace = self.trace
        inside: list[Any] = []
        self.argument_values: list[Value] = []
        for leaf in call.leaves:
            if is_dynamic(leaf):
                i = len(self.argument_values)
                value = trace.argument(call.type_of(call.arrays[i]), self.names[i], i in call.tensors)
                self.argument_values.append(value)
                inside.append(Tensor._of(value, self.names[i]))
            else:
                inside.append(leaf)
        args, kwargs = unflatten(call.spec, inside)
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
        for tensor, g in trace.grads.values():
            if tensor._value.trace is not None:
                continue
            if g is None:
                self.grads.append((tensor, None))
            elif self.keep_grads or id(tensor) in trace.entry_grads:  # something the next call may add to
                self.grads.append((tensor, len(self.out_values)))
                self.out_values.append(value_of(g))
            else:
                self.grads.append((tensor, -1))

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
        self.graph = optimize(graph)
        self.optimize_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        lowered = lower(self.graph, len(results), [s.node for s in self.writes])
        self.lower_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        fixed: dict[Input, Array] = {s.node: s.tensor._value.data for s in self.states}  # type: ignore[misc]
        fixed.update({node: array for array, node in self.arrays})  # type: ignore[misc]
        self.copies = {node: array for node, array in fixed.items()
                       if not (array.flags.c_contiguous and array.dtype.isnative)}
        for node, array in self.copies.items():
            fixed[node] = np.ascontiguousarray(array, node.type.dtype)
        for s in self.states:
            if s.node in self.copies:
                s.tensor._value.data = fixed[s.node]
        with self.shared.counting() as self.kernels:
            self.program = Program(lowered, self.arguments, fixed, len(results))
        for s in self.writes:
            value = s.tensor._value
            if not any(w is self.written for w in value.writers):
                value.writers = (*value.writers, self.written)
        self.simple = (self.single and len(results) == 1 and not self.writes and not self.copies
                       and not self.grads and self.backward is None)
        self.compile_seconds = time.perf_counter() - begin
        self.bound = {s.node: s.tensor._value for s in self.states}
        self.guard()

    # ---- whether it still stands

    def untouched(self) -> bool:
        """Whether nothing that could matter has moved since the last look."""
        return (self.seen == clock.structure and (self.seen_grads == clock.grad_writes or not self.uses_grads)
                and self.capture.holds())

    def stands(self) -> bool:
        """Whether what was baked in still holds; binds to buffers that were replaced meanwhile."""
        if not self.capture.holds() or (self.seen_grads != clock.grad_writes and not self._grads_hold()):
            return False
        if self.seen != clock.structure:
            if any(x._static_signature() != before for x, before in self.watched):
                return False
            if any(t._value.requires_grad != flag for t, flag in self.flags):
                return False
            if not self._rebind():
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
        return self._rebind()

    def _rebind(self) -> bool:
        """Bind to the buffers the states have now; False when one is of another type."""
        for s in self.states:
            value = s.tensor._value
            data = value.data
            if value is self.bound[s.node] and data is self.program.fixed[s.node]:
                continue
            if not isinstance(data, np.ndarray) or data.shape != s.node.type.shape or data.dtype != s.node.type.dtype:
                return False
            if not data.flags.c_contiguous:
                data = value.data = np.ascontiguousarray(data)
            self.program.rebind(s.node, data)
            self.bound[s.node] = value
            if s.written and not any(w is self.written for w in value.writers):
                value.writers = (*value.writers, self.written)
        return True

    # ---- running

    def guard(self) -> None:
        """Run under the shared lock, if there is state; else under one of its own."""
        self.program.guard(self.shared.lock if self.states else threading.Lock())
        if self.backward is not None and self.backward.program is not None:
            self.backward.program.guard(threading.Lock())

    def run(self, arrays: Sequence[Any], call: Signature | None) -> Any:
        """The function's result for these arrays; ``call`` is needed where the result is differentiable."""
        if self.simple:
            return Tensor._of(Value(self.program.run(arrays)[0]))
        if self.copies:
            for node, array in self.copies.items():
                if node not in self.bound:
                    np.copyto(self.program.fixed[node], array)
        if self.writes and self.seen_views != clock.views:
            for s in self.writes:
                protect_views(s.tensor._value)
            self._rebind()  # what shared a buffer that is written has one of its own now
            self.seen_views = clock.views
        results = self.program.run(arrays)
        if self.writes:
            self.written[0] = clock.tick()
        outs = [Tensor._of(Value(array)) for array in results[:len(self.out_values)]]
        if self.backward is not None and state.grad_enabled:
            assert call is not None
            self.backward.note(call, arrays, outs, results[len(self.out_values):])
        if self.grads and (self.kept_grads or self.seen_grads != clock.grad_writes):
            self._leave_grads(outs)
        if self.single:
            return outs[0]
        return unflatten(self.out_spec, [leaf.fresh() if isinstance(leaf, Static) else outs[leaf]
                                         for leaf in self.out_leaves])

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


class Backward:
    """The reverse program of a differentiable specialization: from cotangents of its results to those of its
    inputs. What it needs of the forward program are the *residuals*, further results of that program."""

    def __init__(self, owner: Specialization) -> None:
        self.owner = owner
        trace = owner.trace
        self.cotangents = [Input(owner.out_values[i].type, f"g{i}") for i in owner.differentiable]
        trace.finished = False
        with tracing(trace):
            pairs = [(owner.out_values[i], Tensor._of(Value(node, False, trace)))
                     for i, node in zip(owner.differentiable, self.cotangents, strict=True)]
            found = walk_back(pairs, owner.wrt, create_graph=False, release=False)
            gradients = [value_of(found[v]).data if v in found else None for v in owner.wrt]
        self.found = [i for i, g in enumerate(gradients) if g is not None]
        outputs: list[Node] = [g for g in gradients if g is not None]  # type: ignore[misc]  # nodes in a trace
        below = [set(topological([g])) for g in outputs]
        self.needs = [[i for i, g in enumerate(self.cotangents) if g in nodes] for nodes in below]
        graph = optimize(Graph((*owner.arguments, *self.cotangents, *(s.node for s in trace.states.values()),
                                *(v.data for _, v in trace.arrays.values())), tuple(outputs)))  # type: ignore[misc]
        self._cut(graph)
        self.program: Program | None = None

    def _cut(self, graph: Graph) -> None:
        """Split off what does not depend on the cotangents: that is computed forward and handed over."""
        late: set[Node] = set(self.cotangents)
        for node in graph.nodes:
            if isinstance(node, Apply) and any(a in late for a in node.args):
                late.add(node)
        self.residuals: list[Node] = []
        self.sources: list[State | int | None] = []  # of each input: a state, an argument, or (None) a residual
        inputs: dict[Node, Input] = {}
        new: dict[Node, Node] = {}
        by_node: dict[Node, State | int] = {n: i for i, n in enumerate(self.owner.arguments)}
        by_node |= {s.node: s for s in self.owner.states if s.entry.requires_grad and not s.written}

        def early(node: Node) -> Node:
            if isinstance(node, Apply) and isinstance(node.op.lower, View):
                return Apply(node.op, (early(node.args[0]),), node.params, node.type, node.where)
            if isinstance(node, Const):
                return node
            if node not in inputs:
                inputs[node] = Input(node.type, f"residual{len(inputs)}")
                self.sources.append(by_node.get(node))
                if node not in by_node:
                    self.residuals.append(node)
            return inputs[node]
        for node in graph.nodes:
            if node in late and isinstance(node, Apply):
                args = tuple(new[a] if a in late else early(a) for a in node.args)
                new[node] = Apply(node.op, args, node.params, node.type, node.where)
            elif node in late:
                new[node] = node
        outputs = tuple(new[o] if o in late else early(o) for o in graph.outputs)
        self.arguments = [*inputs.values(), *self.cotangents]
        self.graph = Graph(tuple(self.arguments), outputs)

    def note(self, call: Signature, arrays: Sequence[Any], outs: Sequence[Tensor], residuals: list[Array]) -> None:
        """Put the call on the eager tape."""
        owner = self.owner
        inputs = [call.tensors[i]._value for i, v in enumerate(owner.argument_values) if v.requires_grad]
        inputs += [s.tensor._value for s in owner.states if s.entry.requires_grad]
        # inputs too, though without gradient: the tape looks whether they are overwritten
        others = [x._value for x in call.leaves if isinstance(x, Tensor) and not x.requires_grad]
        others += [s.tensor._value for s in owner.states if not s.entry.requires_grad and not s.written]
        states = [s.tensor._value for s in owner.states]
        types = [owner.out_values[i].type for i in owner.differentiable]
        left = iter(residuals)
        saved: list[Any] = [next(left) if source is None else arrays[source] if isinstance(source, int)
                            else source.tensor._value.data for source in self.sources]

        def pullback(cotangents: list[Tensor | None]) -> list[Tensor | None]:
            given = [cotangents[i] if i < len(cotangents) else None for i in range(len(types))]
            if state.grad_enabled or state.trace is not None:
                return [*self.again(arrays, inputs, states, given), *[None] * len(others)]
            gs = [np.zeros(t.shape, t.dtype) if g is None else np.ascontiguousarray(g.data)
                  for g, t in zip(given, types, strict=True)]
            found = {i: g for i, needs, g in zip(self.found, self.needs, self.run([*saved, *gs]), strict=True)
                     if any(given[j] is not None for j in needs)}
            return [Tensor._of(Value(found[i])) if i in found else None
                    for i in range(len(inputs) + len(others))]
        note_call(owner.name, [*inputs, *others], [outs[i]._value for i in owner.differentiable], pullback)

    def run(self, arrays: list[Array]) -> list[Array]:
        if self.program is None:
            graph = optimize(self.graph)
            lowered = lower(graph, len(graph.outputs), [])
            with self.owner.shared.counting():
                self.program = Program(lowered, self.arguments, {}, len(graph.outputs))
        return self.program.run(arrays)

    def again(self, arrays: Sequence[Any], inputs: Sequence[Value], states: Sequence[Value],
              cotangents: Sequence[Tensor | None]) -> Sequence[Tensor]:
        """The pullback in Tensor operations, for second derivatives and inside a trace: the graph runs once more.

        Raises:
            GradientError: the call has overwritten what that would read.
        """
        owner = self.owner
        results = [owner.out_values[i].data for i in owner.differentiable]
        nodes = topological(results)  # type: ignore[arg-type]  # nodes in a trace
        gone = [s for s in owner.states if s.written and s.node in nodes]
        if gone:
            raise GradientError(
                f"a second derivative through {owner.name}, which changes the state it reads "
                f"({gone[0].tensor.label or gone[0].node.type})",
                hint="Compile the function that takes the derivatives: gj.compile(gj.grad(f)).")

        def forward(*tensors: Tensor) -> list[Tensor]:
            given: dict[Any, Any] = dict(zip(owner.arguments, arrays, strict=True))
            given |= {node: array for array, node in owner.arrays}
            given |= {s.node: Tensor._of(v) for s, v in zip(owner.states, states, strict=True)}
            given |= {v.data: t for v, t in zip(owner.wrt, tensors, strict=True)}
            values: dict[Any, Tensor] = {}
            for node in nodes:
                match node:
                    case Apply():
                        values[node] = apply(node.op, *[values[a] for a in node.args], **node.kwargs)
                    case Const():
                        values[node] = constant(node.value)
                    case _:
                        x = given[node]
                        values[node] = as_tensor(np.float64(x) if isinstance(x, float) else x)
            return [values[node] for node in results]
        _, pulled = vjp(forward, *[Tensor._of(v) for v in inputs])
        found: Sequence[Tensor] = pulled(list(cotangents))
        return found
