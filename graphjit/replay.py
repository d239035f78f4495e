"""Gradient rules as functions of arrays: what ``backward()`` runs where nobody asks for the gradients' own tape.

A rule is written in Tensor operations. When it has been met a few times for the same types and parameters, it is
traced, and the eager rules of what it recorded are written down one after another, without tensors, checks and
tape between them. The values are those of the operations themselves, bit for
bit but for the sign of a zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache, wraps
from types import CodeType
from typing import Any

import numpy
from numpy import add, asarray, ufunc

from graphjit.errors import GradientError, TraceError, Where
from graphjit.ir import Apply, Const, Input, Node, topological
from graphjit.op import Array, Op
from graphjit.tape import Value, grad_mode, state
from graphjit.tensor import Tensor, value_of
from graphjit.trace import Trace, tracing
from graphjit.types import TensorType, stretched_axes

Pull = Callable[..., Sequence[Array | None]]  # (g, out, *operands) -> a cotangent for each operand that needs one

MET = 3      # how often a rule goes through its operations before it is traced
FOLDED = 1024  # elements of constants that are kept for what is written down
KEPT = 4096  # rules that are kept; those of types long gone leave when there are more

_pulls: dict[Hashable, Pull] = {}
_met: dict[Hashable, int] = {}
RULE = Where("gradient rule", 0, "")  # no line of the user's is looked for


def pull_arrays(value: Value, inputs: Sequence[Value], g: Array, needed: set[Value],
                quiet: Callable[..., Any]) -> Sequence[Array | None]:
    """Cotangents of those operands of an op's step that need one; ``g`` is that of its result.

    ``quiet``: that of this thread's state.
    """
    key: tuple[Any, ...]
    arrays: tuple[Any, ...]
    x: Any
    y: Any
    needs: tuple[bool, ...]
    match len(inputs):  # that of most steps spelled out, as this is what a backward costs beyond NumPy
        case 1:
            x = inputs[0].data
            arrays, needs = (x,), (True,)
            key = (value.op, x.shape, x.dtype)
        case 2:
            first, second = inputs
            x, y = arrays = (first.data, second.data)
            needs = (first in needed, second in needed)
            key = (value.op, needs, first is second, x.shape, y.shape, x.dtype, y.dtype)
        case _:
            arrays, needs = tuple([v.data for v in inputs]), tuple([v in needed for v in inputs])
            key = (value.op, needs, *[(x.shape, x.dtype) for x in arrays])
    params = value.params
    if params:
        key += (*params, *params.values())
    try:
        pull = _pulls.get(key)
    except TypeError:  # parameters that cannot be compared
        return _pull_tensors(value, inputs, g, needs)
    if pull is None:
        return _pull_unknown(key, value, inputs, g, needs)
    return quiet(pull, g, value.data, *arrays)  # type: ignore[no-any-return]


def _pull_unknown(key: Hashable, value: Value, inputs: Sequence[Value], g: Array,
                  needs: tuple[bool, ...]) -> Sequence[Array | None]:
    """The same by the rule's Tensor operations; when it has come often enough, it is written down."""
    times = _met[key] = _met.get(key, 0) + 1
    if times > MET:
        if len(_met) > KEPT:
            _met.clear()
            _pulls.clear()
        pull = _written(value, inputs, needs)
        if pull is not None:
            _pulls[key] = pull
            found: Sequence[Array | None] = state.quiet(pull, g, value.data, *[v.data for v in inputs])
            return found
        _met[key] = -KEPT  # not worth another trial soon
    return _pull_tensors(value, inputs, g, needs)


def _pull_tensors(value: Value, inputs: Sequence[Value], g: Array, needs: tuple[bool, ...]) -> Sequence[Array | None]:
    parts = rule_of(value)(*map(Tensor._of, (Value(g), value, *inputs)), **(value.params or {}))
    return [None if part is None else value_of(part).data  # type: ignore[misc]  # arrays outside of traces
            for part in parts_of(parts, [v.type for v in inputs], needs)]


def rule_of(value: Value) -> Callable[..., tuple[Any, ...]]:
    """The gradient rule of an op's step.

    Raises:
        GradientError: there is none.
    """
    op = value.op
    assert isinstance(op, Op)
    if op.vjp is None:
        raise GradientError(f"{op.name} has no derivative" + (f": {op.why}" if op.why else ""),
                            detail=tuple(f"operand {i}: {v.type}" for i, v in enumerate(value.inputs or ())),
                            hint="Use detach() on its operand if no gradient should flow here.")
    return op.vjp


def unbroadcast(g: Tensor, to: TensorType) -> Tensor:
    """Sum a cotangent over the axes along which its operand was stretched."""
    axes = stretched_axes(to.shape, g.shape)
    if axes:
        lead = g.ndim - to.ndim
        inner = len(axes) > lead  # not only new leading axes, but also axes of length one
        g = g.sum(axis=axes, keepdims=inner)
        if inner and lead:
            g = g.reshape(g.shape[lead:])
    if g.dtype != to.dtype:
        g = g.astype(to.dtype)
    return g


def parts_of(parts: Iterable[Any], types: Iterable[TensorType], needs: Iterable[bool]) -> list[Tensor | None]:
    """What a rule gave, of the operands' types, where it is needed."""
    found: list[Tensor | None] = []
    for part, to, need in zip(parts, types, needs, strict=True):
        if part is None or not need:
            found.append(None)
        else:
            found.append(unbroadcast(part if isinstance(part, Tensor) else part(), to))
    return found


def _written(value: Value, inputs: Sequence[Value], needs: Sequence[bool]) -> Pull | None:
    """The rule of a step as a function of arrays; None if it reads more than its operands."""
    rule = rule_of(value)
    types = [v.type for v in inputs]
    trace = Trace()
    trace.where = RULE
    nodes = [Input(t) for t in (value.type, value.type, *types)]
    values = [Value(node, False, trace) for node in nodes]
    if len(inputs) == 2 and inputs[0] is inputs[1]:  # a square has a simpler rule
        values[3] = values[2]
    try:
        with tracing(trace), grad_mode(False):
            parts = parts_of(rule(*map(Tensor._of, values), **(value.params or {})), types, needs)
            results = [None if part is None else value_of(part).data for part in parts]
    except TraceError:  # it looks at values
        return None
    if trace.states or trace.arrays:
        return None
    return _function(nodes, results)  # type: ignore[arg-type]  # nodes in a trace


def on_arrays(function: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    """A function of tensors that reads nothing else and depends on their types and its keyword arguments alone.

    Where nothing is recorded, on a tape or in a trace, it runs as a function of arrays, too.
    """
    known: dict[Hashable, Callable[..., tuple[Array, ...]]] = {}

    @wraps(function)
    def run(*tensors: Tensor, **static: Hashable) -> tuple[Tensor, ...]:
        if state.trace is not None or state.grad_enabled:
            return function(*tensors, **static)
        arrays: list[Any] = [t._value.data for t in tensors]
        try:
            key = (*[x.shape for x in arrays], *[x.dtype for x in arrays], *static.items())
        except AttributeError:  # not all arrays: value_of says of which trace they are
            arrays = [value_of(t).data for t in tensors]
            raise
        on = known.get(key)
        if on is None:
            if len(known) > KEPT:
                known.clear()
            trace = Trace()
            trace.where = RULE
            nodes = [Input(t._type) for t in tensors]
            with tracing(trace):
                results = function(*[Tensor._of(Value(node, False, trace)) for node in nodes], **static)
                on = known[key] = _function(nodes, [value_of(t).data for t in results])  # type: ignore[misc]  # nodes
        return tuple([Tensor._of(Value(array)) for array in state.quiet(on, *arrays)])
    return run


def _function(inputs: Sequence[Input], results: Sequence[Node | None]) -> Callable[..., Any]:
    """Source and compiled function of a graph; the memory of its first input, a cotangent, may be handed on."""
    names: dict[Node, str] = {node: f"x{i}" for i, node in enumerate(inputs)}
    lines, found, scope = statements(names, inputs[:1], results)
    return compiled("pull", ", ".join(names[node] for node in inputs), [*lines, f"return ({found},)"], scope)


def statements(names: dict[Node, str], own: Iterable[Node],
               results: Sequence[Node | None]) -> tuple[list[str], str, dict[str, Any]]:
    """Python statements that compute a graph on arrays by the eager rules: the lines, an expression of the results,
    and the names they use.

    Args:
        names: those of the inputs. own: inputs whose memory, or views of it, may be handed on as results.
    """
    results = _folded(results)
    wanted = {r for r in results if r is not None}
    nodes = [n for n in topological(wanted) if isinstance(n, (Apply, Const))]
    parts = _added_parts([n for n in nodes if isinstance(n, Apply)], wanted)
    pads = {pad for _, pad in parts.values()}
    operands = {n: (parts[n][0], *parts[n][1].args) if n in parts else n.args
                for n in nodes if isinstance(n, Apply) and n not in pads}
    last = {a: n for n, args in operands.items() for a in args}
    viewed = {n.args[0] for n in operands if n.op.view}
    names, given = dict(names), len(names)
    fresh = set(own)
    scope: dict[str, Any] = {"asarray": asarray, "add": add, "np": numpy, "add_reduce": add.reduce}
    lines: list[str] = []
    for i, node in enumerate(nodes, given):
        if isinstance(node, Const):
            names[node] = f"c{i}"
            scope[f"c{i}"] = node.value
            continue
        if node in pads:
            continue
        names[node] = f"t{i}"
        done = [a for a in dict.fromkeys(operands[node])
                if isinstance(a, Apply) and last[a] is node and a not in wanted]
        if node in parts:
            whole, pad = parts[node]
            scope[f"part{i}"] = _inside(pad)
            lines += [f"t{i} = {names[whole]}", f"p{i} = t{i}[part{i}]", f"add(p{i}, {names[pad.args[0]]}, p{i})"]
        else:
            texts = [names[a] for a in node.args]
            scope |= {f"{name}_{i}": param for name, param in node.params}
            call = node.op.text
            if not isinstance(call, str):
                call = call([a.type for a in node.args], node.kwargs)
            if call:
                call = call.format(*texts, **{name: f"{name}_{i}" for name, _ in node.params})
            else:
                scope[f"f{i}"] = eager = _unchecked(node.op)
                texts += [f"{name}={name}_{i}" for name, _ in node.params]
                if isinstance(eager, ufunc):
                    # into the memory of an operand that is gone then, if nothing else can see it
                    out = "out=" if eager in (numpy.maximum, numpy.minimum) else ""  # whose third operand is deprecated
                    texts += [out + names[a] for a in done if a.type == node.type and a.type.shape and a not in viewed
                              and (a in parts or isinstance(_unchecked(a.op), ufunc))][:1]
                call = f"f{i}({', '.join(texts)})"
            lines.append(f"t{i} = " + (call if node.type.shape else f"asarray({call})"))
        if not node.op.view or node.args[0] in fresh:
            fresh.add(node)
        if done:
            lines.append(f"del {', '.join([names[a] for a in done])}")
    found = ["None" if r is None else names[r] if r in fresh else f"{names[r]}.copy()" for r in results]
    return lines, ", ".join(found), scope


def _unchecked(op: Op) -> Callable[..., Any]:
    """The eager rule; that behind a check of operands if it is wrapped in one, for their types are known here."""
    inner: Callable[..., Any] = getattr(op.eager, "__wrapped__", op.eager)
    return inner


def _folded(results: Sequence[Node | None]) -> list[Node | None]:
    """The graph with what is small and depends on no input computed."""
    known: dict[Node, Node] = {}
    for node in topological([r for r in results if r is not None]):
        known[node] = node
        if isinstance(node, Apply):
            args = tuple([known[a] for a in node.args])
            if node.type.size <= FOLDED and all(isinstance(a, Const) for a in args):
                arrays = [a.value for a in args if isinstance(a, Const)]
                known[node] = Const(asarray(state.quiet(node.op.eager, *arrays, **node.kwargs)).copy())
            elif args != node.args:
                known[node] = replace(node, args=args)
    return [None if r is None else known[r] for r in results]


def _added_parts(nodes: Sequence[Apply], wanted: set[Node]) -> dict[Node, tuple[Apply, Apply]]:
    """Sums with something padded by zeros, the gradient of a slice: of each the other operand and the pad, where the
    sum can be made by adding to a part of what that operand leaves behind. Then a loop over the slices of an array
    costs as much as the array, and not as much for each slice.
    """
    uses = Counter(a for n in nodes for a in n.args)
    found: dict[Node, tuple[Apply, Apply]] = {}
    for node in nodes:
        if node.op.eager is not add or not node.type.shape or node.args[0].type != node.args[1].type:
            continue
        for whole, pad in (node.args, node.args[::-1]):
            if (isinstance(whole, Apply) and isinstance(pad, Apply) and not {whole, pad} & wanted
                    and uses[whole] == uses[pad] == 1 and pad.op.name == "pad" and pad.kwargs["value"] == 0
                    and (whole in found or whole.op.name == "pad" or isinstance(_unchecked(whole.op), ufunc))):
                found[node] = whole, pad
                break
    return found


def _inside(pad: Apply) -> tuple[slice, ...]:
    """Where the elements of a pad's operand lie."""
    how = pad.kwargs
    return tuple([slice(a, a + n * (k + 1), k + 1)
                  for a, n, k in zip(how["low"], pad.args[0].type.shape, how["interior"], strict=True)])


def compiled(name: str, arguments: str, lines: Sequence[str], scope: dict[str, Any]) -> Callable[..., Any]:
    """The function of this source."""
    body = "".join(f"    {line}\n" for line in lines)
    exec(_code(f"def {name}({arguments}):\n{body}"), scope)
    function: Callable[..., Any] = scope[name]
    return function


@lru_cache(maxsize=512)
def _code(source: str) -> CodeType:
    return compile(source, f"{__file__}: written down", "exec")  # no line of the user's
