"""Functions of several operations as one: what an operation costs beyond NumPy is then paid once, not for each step.

When such a function was called a few times with the same types and arguments, it is traced, and the eager rules of
what it recorded are written down one after another, as a Python function on arrays that makes the tensors of the
results and the same tape that the operations make. Values are those of the operations, bit for bit but for the sign
of a zero.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import wraps
from types import EllipsisType, NoneType
from typing import Any, ParamSpec, TypeVar

from numpy import dtype, ndarray

from graphjit.apply import note_rule
from graphjit.buffers import guard_view
from graphjit.errors import GraphjitError
from graphjit.ir import Apply, Const, Input, Node
from graphjit.op import Op
from graphjit.replay import RULE, compiled, statements
from graphjit.tape import Call, Item, Value, state
from graphjit.tensor import Tensor, shared
from graphjit.trace import Trace, tracing
from graphjit.types import HELD

P = ParamSpec("P")
R = TypeVar("R")
Plan = Callable[..., Any]  # of values, with NumPy's warnings off

MET = 8         # how often a call is left to the operations; writing it down takes as long as a hundred calls
KEPT = 1024     # calls of one function that are known; all leave when there are more
LONGEST = 16    # entries of a list or tuple that is part of an argument
EXACT = {int, bool, str, NoneType, EllipsisType, type}  # equal ones of one type are the same argument


def composed(function: Callable[P, R]) -> Callable[P, R]:
    """A function of tensors, and of numbers, names and lists of them, that reads nothing else.

    It gives tensors, or a list or tuple of them, computed anew.
    """
    plans: dict[Hashable, Plan] = {}
    met: dict[Hashable, int] = {}

    @wraps(function)
    def run(*args: P.args, **named: P.kwargs) -> R:
        if state.trace is not None:
            return function(*args, **named)
        values: list[Value] = []
        parts: list[Any] = [state.grad_enabled]
        key: tuple[Any, ...] | None = None
        plan: Plan | None = None
        try:
            for x in args:
                if isinstance(x, Tensor):  # as _note, without the call
                    value = x._value
                    if value.trace is not None:
                        raise TypeError("a tensor of a trace")
                    data = value.data
                    values.append(value)
                    parts += (data.shape, data.dtype, value.requires_grad)  # type: ignore[union-attr]  # an array
                else:
                    _note(x, parts, values)
            for name, x in named.items():
                parts.append(name)
                _note(x, parts, values)
            if len(values) > 1 and (len(values) > 2 or values[0] is values[1]) and len(set(values)) < len(values):
                parts.append(tuple([values.index(v) for v in values]))
            key = tuple(parts)
            plan = plans.get(key)
        except TypeError:  # an argument of another kind
            key = None
        if plan is not None:
            return state.quiet(plan, *values)  # type: ignore[no-any-return]
        out = function(*args, **named)
        if key is None:
            return out
        if len(met) > KEPT:
            met.clear()
            plans.clear()
        times = met[key] = met.get(key, 0) + 1
        if times == MET:
            plan = _written(function, args, named)
            if plan is not None:
                plans[key] = plan
        return out
    return run


def _note(x: object, parts: list[Any], values: list[Value]) -> None:
    """Add to a key what a call depends on in this argument, and to the values those of tensors in it.

    Raises:
        TypeError: it is of a kind that calls are not kept for.
    """
    kind = type(x)
    if isinstance(x, Tensor):
        value = x._value
        if value.trace is not None:
            raise TypeError("a tensor of a trace")
        values.append(value)
        parts += (value.data.shape, value.data.dtype, value.requires_grad)  # type: ignore[union-attr]  # an array
    elif kind in EXACT or isinstance(x, dtype):
        parts += (kind, x)
    elif kind is ndarray and x.dtype in HELD:  # type: ignore[attr-defined]
        values.append(shared(x))
        parts += (kind, x.shape, x.dtype)  # type: ignore[attr-defined]
    elif kind is float:
        parts += (kind, x or repr(x))  # 0.0 == -0.0
    elif kind is tuple or kind is list:
        if len(x) > LONGEST:  # type: ignore[arg-type]
            raise TypeError("a long list")
        parts += (kind, len(x))  # type: ignore[arg-type]
        for part in x:  # type: ignore[attr-defined]
            _note(part, parts, values)
    elif kind is slice:
        for part in (kind, x.start, x.stop, x.step):  # type: ignore[attr-defined]
            _note(part, parts, values)
    else:
        raise TypeError("an argument of another kind")


def _written(function: Callable[..., Any], args: Sequence[Any], named: dict[str, Any]) -> Plan | None:
    """The call as a function of the values in its arguments; None if it reads more, or gives no new tensor."""
    trace = Trace()
    trace.where = RULE
    copies: dict[Value, Value] = {}
    order: list[Value] = []

    def traced(x: Any) -> Any:
        if isinstance(x, Tensor):
            value = x._value
            order.append(value)
            if value not in copies:
                copies[value] = Value(Input(value.type), value.requires_grad, trace)
            return Tensor._of(copies[value])
        if type(x) is ndarray:
            return traced(Tensor._of(Value(x)))
        if isinstance(x, (tuple, list)):
            return type(x)(map(traced, x))
        return x

    try:
        with tracing(trace):
            given = [traced(x) for x in args]  # before those with names, as in the key
            out = function(*given, **{name: traced(x) for name, x in named.items()})
    except GraphjitError:  # it looks at values: the call itself went well
        return None
    several = isinstance(out, (tuple, list))
    results = [t._value for t in (out if several else (out,))]
    inputs = [copies[v] for v in order]
    if not results or trace.states or trace.arrays or any(v.trace is not trace or v in inputs for v in results):
        return None
    tape = _tape(results)
    if tape is None:
        return None
    text, scope = _text(inputs, tape, results)
    if several:
        scope["make"] = type(out)
        text[-1] = f"return make(({text[-1]}))" if type(out) in (tuple, list) else f"return make({text[-1]})"
    else:
        text[-1] = f"return {text[-1].removesuffix(',')}"
    return compiled("plan", ", ".join(f"v{i}" for i in range(len(order))), text, scope)


def _tape(results: Sequence[Value]) -> list[Value] | None:
    """The values of the results and of all that their tape saves, operands first; None where a step is not an op's."""
    found: set[Value] = set()
    stack = list(results)
    while stack:
        value = stack.pop()
        if value in found:
            continue
        found.add(value)
        if value.requires_grad and value.inputs:
            rule = _rule(value)
            if rule is not None:
                source, _, saved = rule
                stack += [source, *saved]
            elif type(value.op) is Op:
                stack.extend(value.inputs)
            else:
                return None
    return sorted(found, key=lambda v: v.stamp)


def _rule(value: Value) -> tuple[Value, Callable[..., Tensor], Sequence[Value]] | None:
    """Of a value made by ``with_rule``: what it was computed from, the rule, what that reads."""
    if not isinstance(value.op, Item) or not value.inputs:
        return None
    [step] = value.inputs
    return (step.inputs[0], *step.op.rule) if isinstance(step.op, Call) and step.op.rule and step.inputs else None


def _text(inputs: Sequence[Value], tape: Sequence[Value],
          results: Sequence[Value]) -> tuple[list[str], dict[str, Any]]:
    """Python statements from the values ``v0``, ``v1``, ... to the tensors of the results, which are the last line."""
    nodes: list[Any] = [v.data for v in inputs]
    names = {node: f"x{i}" for i, node in reversed(list(enumerate(nodes)))}
    made = [v for v in tape if v not in inputs]
    wanted: list[Any] = [v.data for v in made]
    lines, found, scope = statements(names, nodes, wanted)
    lines = [f"x{i} = v{i}.data" for i in range(len(inputs))] + lines + [f"{_list('r', len(made))} = {found},"]
    scope |= {"Value": Value, "of": Tensor._of, "guard_view": guard_view, "note_rule": note_rule}
    known = {v: f"v{i}" for i, v in reversed(list(enumerate(inputs)))}
    owners: dict[Node, str] = {node: f"v{i}" for i, node in enumerate(nodes)}  # whose memory a view shows
    for i, (value, node) in enumerate(zip(made, wanted, strict=True)):
        known[value] = f"w{i}"
        if isinstance(node, Const) and value not in results:
            scope[f"w{i}"] = Value(node.value)
            continue
        rule = _rule(value)
        if rule is not None and value.op is not None:
            source, scope[f"pull{i}"], saved = rule
            scope[f"name{i}"] = value.op.name
            operands = "".join(f"{known[v]}, " for v in saved)
            lines += [f"w{i} = Value(r{i}, True)",
                      f"note_rule(name{i}, {known[source]}, w{i}, pull{i}, ({operands}))"]
        elif value.requires_grad and value.inputs:
            scope[f"op{i}"], scope[f"params{i}"] = value.op, value.params
            operands = "".join(f"{known[v]}, " for v in value.inputs)
            lines.append(f"w{i} = Value(r{i}, True, None, op{i}, ({operands}), params{i})")
        else:
            lines.append(f"w{i} = Value(r{i})")
        owner = owners.setdefault(_owner(node), f"w{i}")
        if owner != f"w{i}":
            lines.append(f"guard_view({owner}, w{i})")
    return [*lines, "".join(f"of({known[v]}), " for v in results).rstrip()], scope


def _list(name: str, count: int) -> str:
    return "".join(f"{name}{i}, " for i in range(count))


def _owner(node: Node) -> Node:
    """The node whose memory this one shows."""
    while isinstance(node, Apply) and node.op.view:
        node = node.args[0]
    return node
