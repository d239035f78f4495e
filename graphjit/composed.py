"""Functions of several operations as one: what an operation costs beyond NumPy is then paid once, not for each step.

When such a function was called a few times with the same types and arguments, it is traced, and the eager rules of
what it recorded are written down one after another, as a Python function on arrays that makes the tensors of the
results and the same tape that the operations make. Values are those of the operations, bit for bit but for the sign
of a zero.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache, wraps
from inspect import Parameter, signature
from itertools import combinations
from types import CodeType, EllipsisType, FunctionType, NoneType
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
LONGEST = 64    # entries of a list or tuple that is part of an argument
EXACT = {int, bool, str, NoneType, EllipsisType, type}  # equal ones of one type are the same argument


def composed(function: Callable[P, R]) -> Callable[P, R]:
    """A function of tensors, and of numbers, names and lists of them, that reads nothing else.

    It gives tensors, or a list or tuple of them, computed anew.
    """
    parameters = signature(function).parameters.values()
    kinds = "".join([_kind(p) for p in parameters])
    named = tuple([p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY])
    code = _front(kinds, len(named), sum(p.kind is Parameter.VAR_POSITIONAL for p in parameters))
    names = (*[p.name for p in parameters if p.name not in named and p.kind is not Parameter.VAR_POSITIONAL], *named,
             *[p.name for p in parameters if p.kind is Parameter.VAR_POSITIONAL])
    scope = {"function": function, "plans": {}, "met": {}, "kinds": kinds, "names": named, "state": state,
             "Tensor": Tensor, "EXACT": EXACT, "given": _given, "noted": _noted, "learn": _learn}
    # parameters get their names, and the other variables such as no parameter has
    run = FunctionType(code.replace(co_varnames=(*names, *[f".{v}" for v in code.co_varnames[len(names):]])), scope)
    run.__defaults__ = getattr(function, "__defaults__", None)
    run.__kwdefaults__ = getattr(function, "__kwdefaults__", None)
    return wraps(function)(run)


def _kind(parameter: Parameter) -> str:
    """Of a parameter: "t" takes a tensor, "n" numbers and names only, "a" all of that and lists of it."""
    text = str(parameter.annotation)
    if "Any" in text or parameter.annotation is Parameter.empty:
        return "a"
    several = parameter.kind is Parameter.VAR_POSITIONAL or "Sequence" in text
    return "n" if "Tensor" not in text else "a" if several else "t"


@lru_cache(maxsize=512)
def _front(kinds: str, named: int, several: int) -> CodeType:
    """What runs at each call of a function with parameters of these ``kinds``, of which the last are ``named``, those
    before them ``several``: it makes the call's key, and calls the plan that is known for it.

    Written down, for this is what every call costs beyond NumPy. The parameters are p0, p1, ...
    """
    count = len(kinds) - named
    several_at = count - 1 if several else -1
    stars = [("*" if i == several_at else "") + f"p{i}" for i in range(count)]
    by_name = [f"p{i}" for i in range(count, len(kinds))]
    head = [*stars, *(["*"] if named and not several else []), *by_name]
    call = ", ".join([*stars, *([f"**dict(zip(names, ({_list('p', len(kinds), count)})))"] if named else [])])
    slots = [f"v{i}" for i, kind in enumerate(kinds) if kind == "t"]
    body = ["now = state.now", "if now is None:", f"    return function({call})"]
    rest = "rest" if "a" in kinds else "None"
    body += ["rest = []", "try:"] if "a" in kinds else ["try:"]
    key = ["now[1]"]
    for i, kind in enumerate(kinds):
        if kind == "t":
            body += [f"    if isinstance(p{i}, Tensor):", f"        v{i} = p{i}._value", f"        a = v{i}.data",
                     f"        k{i} = (a.shape, a.dtype, v{i}.requires_grad)", "    else:",
                     f"        v{i}, k{i} = given(p{i})"]
            key.append(f"k{i}")
        else:
            key.append(f"noted(p{i}, {rest}) if p{i} else None" if i == several_at else
                       f"p{i} if p{i}.__class__ in EXACT else noted(p{i}, {rest}), p{i}.__class__")
    body.append(f"    key = ({', '.join(key)})")
    given = ", ".join([*slots, *["*rest"] * ("a" in kinds)])
    if "a" in kinds:
        body += [f"    values = ({given},)", "    n = len(values)",
                 "    if n > 1 and (n > 2 or values[0] is values[1]) and len(set(values)) < n:"]
    elif len(slots) > 1:
        body += [f"    values = ({given})",
                 f"    if {' or '.join(f'{v} is {w} is not None' for v, w in combinations(slots, 2))}:"]
    if "a" in kinds or len(slots) > 1:  # the same tensor twice
        body.append("        key += tuple(map(values.index, values))")
    several_args = f"({', '.join(stars)}{',' if stars else ''})"
    by_names = f"dict(zip(names, ({_list('p', len(kinds), count)})))" if named else "{}"
    body += ["    plan = plans.get(key)",
             "except (TypeError, AttributeError):",  # an argument of another kind, a tensor of a trace
             "    plan = key = None",
             "if plan is not None:",
             f"    return now[0](plan, {'*values' if 'a' in kinds else given})",
             "if key is None:",
             f"    return function({call})",
             f"return learn(function, plans, met, key, kinds, {several_args}, {by_names})"]
    return compiled("front", ", ".join(head), body, {}).__code__


def _noted(x: Any, rest: list[Value]) -> Hashable:
    """What a call depends on in this argument; values of tensors in it are added to ``rest``.

    Raises:
        TypeError, AttributeError: it is of a kind that calls are not kept for.
    """
    kind = type(x)
    if kind in EXACT:
        return kind, x
    if kind is slice:
        parts = x.start, x.stop, x.step
        kinds = tuple(map(type, parts))
        return (kind, *parts, *kinds) if EXACT.issuperset(kinds) else (kind, *[_noted(part, rest) for part in parts])
    if kind is tuple or kind is list:
        if len(x) > LONGEST:
            raise TypeError("a long list")
        kinds = tuple(map(type, x))
        if EXACT.issuperset(kinds):
            return kind, tuple(x), kinds
        found: list[Any] = [kind]
        for part in x:
            if isinstance(part, Tensor):  # as below, without the call
                value = part._value
                data: Any = value.data
                rest.append(value)
                found.append((data.shape, data.dtype, value.requires_grad))
            else:
                found.append(_noted(part, rest))
        return tuple(found)
    if isinstance(x, Tensor):
        value = x._value
        data = value.data
        rest.append(value)
        return data.shape, data.dtype, value.requires_grad
    if kind is float:
        return kind, x or repr(x)  # 0.0 == -0.0
    if kind is ndarray and x.dtype in HELD:
        rest.append(shared(x))
        return kind, x.shape, x.dtype
    if isinstance(x, dtype):
        return kind, x
    raise TypeError("an argument of another kind")


def _given(x: object) -> tuple[Value | None, Hashable]:
    """Of an argument in a tensor's place that is none: its value if it is an array, and what a call depends on."""
    if type(x) is ndarray and x.dtype in HELD:
        return shared(x), (ndarray, x.shape, x.dtype)
    return None, _noted(x, None)  # type: ignore[arg-type]  # there is no list of tensors here


def _learn(function: Callable[..., R], plans: dict[Hashable, Plan], met: dict[Hashable, int], key: Hashable, kinds: str,
           args: tuple[Any, ...], named: dict[str, Any]) -> R:
    """The call by the function itself; when it has come often enough, it is written down."""
    if state.learning:  # part of another function, which is to be written down whole
        return function(*args, **named)
    state.learning = True
    try:
        out = function(*args, **named)
    finally:
        state.learning = False
    if len(met) > KEPT:
        met.clear()
        plans.clear()
    times = met[key] = met.get(key, 0) + 1
    if times == MET:
        plan = _written(function, kinds, args, named)
        if plan is not None:
            plans[key] = plan
    return out


def _written(function: Callable[..., Any], kinds: str, args: Sequence[Any], named: dict[str, Any]) -> Plan | None:
    """The call as a function of the values in its arguments; None if it reads more, or gives no new tensor."""
    trace = Trace()
    trace.where = RULE
    copies: dict[Value, Value] = {}
    slots: list[Value | None] = []
    rest: list[Value] = []

    def traced(x: Any, order: list[Any]) -> Any:
        if isinstance(x, Tensor):
            value = x._value
            order.append(value)
            if value not in copies:
                copies[value] = Value(Input(value.type), value.requires_grad, trace)
            return Tensor._of(copies[value])
        if type(x) is ndarray:
            return traced(Tensor._of(Value(x)), order)
        if isinstance(x, (tuple, list)):
            return type(x)([traced(part, order) for part in x])
        return x

    def argument(x: Any, kind: str) -> Any:
        found: list[Value] = []
        out = traced(x, found)
        if kind == "t":
            slots.append(found[0] if found else None)
        else:
            rest.extend(found)
        return out

    try:
        with tracing(trace):
            count = len(kinds) - len(named)
            given = [argument(x, kinds[min(i, count - 1)]) for i, x in enumerate(args)]
            out = function(*given, **{name: argument(x, kind) for (name, x), kind in
                                      zip(named.items(), kinds[count:], strict=True)})
    except GraphjitError:  # it looks at values: the call itself went well
        return None
    several = isinstance(out, (tuple, list))
    results = [t._value for t in (out if several else (out,))]
    inputs = [None if v is None else copies[v] for v in (*slots, *rest)]
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
    return compiled("plan", _list("v", len(inputs)), text, scope)


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
    rule = step.op.rule if isinstance(step.op, Call) else None
    return (step.inputs[0], rule.pull, rule.saved) if rule and step.inputs and len(rule.types) == 1 else None


def _text(arguments: Sequence[Value | None], tape: Sequence[Value],
          results: Sequence[Value]) -> tuple[list[str], dict[str, Any]]:
    """Python statements from the values ``v0``, ``v1``, ... to the tensors of the results, which are the last line."""
    inputs = {f"{i}": v for i, v in reversed(list(enumerate(arguments))) if v is not None}
    names: dict[Any, str] = {v.data: f"x{i}" for i, v in inputs.items()}
    nodes: list[Any] = list(names)
    known = {v: f"v{i}" for i, v in inputs.items()}
    kept = {f"k{i}": v for i, v in enumerate(tape) if isinstance(v.data, Const) and v not in results}
    known |= {v: name for name, v in kept.items()}
    made = [v for v in tape if v not in known]
    wanted: list[Any] = [v.data for v in made]
    lines, found, scope = statements(names, nodes, wanted)
    lines = [f"x{i} = v{i}.data" for i in inputs] + lines + [f"{_list('r', len(made))} = {found},"]
    scope |= {"Value": Value, "new": object.__new__, "Tensor": Tensor, "guard_view": guard_view, "note_rule": note_rule}
    scope |= {name: Value(v.data.value) for name, v in kept.items()}  # type: ignore[union-attr]  # constants
    owners: dict[Node, str] = {v.data: f"v{i}" for i, v in inputs.items()}  # type: ignore[misc]  # whose memory is shown
    for i, (value, node) in enumerate(zip(made, wanted, strict=True)):
        known[value] = f"w{i}"
        rule = _rule(value)
        if rule is not None and value.op is not None:
            source, scope[f"pull{i}"], saved = rule
            scope[f"name{i}"] = value.op.name
            operands = "".join(f"{known[v]}, " for v in saved)
            lines += [f"w{i} = Value(r{i}, True)",
                      f"note_rule(name{i}, {known[source]}, (w{i},), pull{i}, ({operands}))"]
        elif value.requires_grad and value.inputs:
            scope[f"op{i}"], scope[f"params{i}"] = value.op, value.params
            operands = "".join(f"{known[v]}, " for v in value.inputs)
            lines.append(f"w{i} = Value(r{i}, True, None, op{i}, ({operands}), params{i})")
        else:
            lines.append(f"w{i} = Value(r{i})")
        owner = owners.setdefault(_owner(node), f"w{i}")
        if owner != f"w{i}":
            lines.append(f"guard_view({owner}, w{i})")
    for i, value in enumerate(results):  # as Tensor._of, without the call
        lines += [f"m{i} = new(Tensor)", f"m{i}._value = {known[value]}", f"m{i}._grad = None", f"m{i}._label = ''"]
    return [*lines, _list("m", len(results)).rstrip()], scope


def _list(name: str, stop: int, start: int = 0) -> str:
    return "".join(f"{name}{i}, " for i in range(start, stop))


def _owner(node: Node) -> Node:
    """The node whose memory this one shows."""
    while isinstance(node, Apply) and node.op.view:
        node = node.args[0]
    return node
