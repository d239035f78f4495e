"""The reverse program of a compiled function that is called eagerly: what its results' ``backward()`` runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphjit.apply import apply
from graphjit.backward import walk_back
from graphjit.codegen.lower import lower
from graphjit.convert import as_tensor, constant
from graphjit.errors import GradientError
from graphjit.ir import Apply, Const, Graph, Input, Node, topological
from graphjit.op import Array, View
from graphjit.passes import optimize
from graphjit.runtime.program import Program
from graphjit.signature import Signature
from graphjit.tape import Value, note_call, state
from graphjit.tensor import Tensor, value_of
from graphjit.trace import State, tracing
from graphjit.transforms import vjp

if TYPE_CHECKING:
    from graphjit.specialize import Specialization


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
        arrays: list[Input] = [v.data for _, v in trace.arrays.values()]  # type: ignore[misc]  # nodes in a trace
        states = [s.node for s in trace.states.values()]
        self._cut(optimize(Graph((*owner.arguments, *self.cotangents, *states, *arrays), tuple(outputs))))
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
