"""Walks back over tapes like one met before: a training step makes the same tape each time.

When tapes of one form have come a few times, the whole walk is traced and written down as two functions. ``match``
compares a tape with that form, value by value: ops, parameters, which value is an operand of which, types of what was
not computed. ``compute`` takes the values' arrays to the gradients of the leaves, by the eager rules of what the trace
recorded. Gradients are those of the walk, bit for bit but for the
sign of a zero. Whatever does not match is walked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from graphjit.backward import Shared, is_held, pull_by, release_step, walk_back
from graphjit.errors import TraceError
from graphjit.ir import Input, Node
from graphjit.op import Array, Op
from graphjit.replay import RULE, compiled, statements
from graphjit.tape import Call, Home, Item, Value, state
from graphjit.tensor import Tensor, value_of
from graphjit.trace import Trace, tracing
from graphjit.trail import TRAILS, Trail
from graphjit.types import FLOAT32, TensorType

MET = 5         # how often a form is walked before its walk is written down, which takes as long as ten walks
LONGEST = 2000  # values of a tape whose walk is written down
FORMS = 8       # forms that are kept for each op a tape ends with
COUNTED = 256   # forms whose coming is counted
NOTHING = TensorType((), FLOAT32)  # stands where a step has several results, and no array of its own

_walks: dict[Any, tuple[Walk, ...]] = {}
_met: dict[int, tuple[int, Any]] = {}  # how often a form came, and its rules: no other may get the address of one


class Walk(NamedTuple):
    """The walk over tapes of one form.

    Attributes:
        match: the values of such a tape below its end, None for another tape.
        compute: from the end's cotangent and the values, the gradients of ``leaves`` and the cotangents ``single``.
        leaves, steps, numbers: places of the leaves, of what was computed, of what holds one number.
        single: places of the values that hold one number and have a cotangent.
        notes: of the values and their operands the name of the op, the type, the places of operands.
    """

    match: Callable[[Value], tuple[Value, ...] | None]
    compute: Callable[[Array, tuple[Value, ...]], tuple[tuple[Array, ...], tuple[Array, ...]]]
    leaves: list[int]
    steps: list[int]
    numbers: list[int]
    single: list[int]
    notes: dict[int, tuple[str | None, Any, list[int]]]


def walk_again(value: Value, cotangent: Tensor, release: bool) -> dict[Value, Tensor] | None:
    """The gradients of the leaves below a value as ``walk_back`` gives them; None for a tape of no known form."""
    for walk in _walks.get(value.op, ()):
        values = walk.match(value)
        if values is not None:
            break
    else:
        return None
    shared = Shared()
    g = shared.array_of(cotangent)
    numbers = {i: values[i].data.item() for i in walk.numbers}  # type: ignore[union-attr]  # arrays outside of traces
    found, single = state.quiet(walk.compute, g, values)
    stamps = [v.stamp for v in values]
    homes = [v._home for v in values]
    TRAILS.append(Trail(lambda: _notes(walk, stamps, homes, numbers),
                        {stamps[i]: array.item() for i, array in zip(walk.single, single, strict=True)}))
    if release:
        for i in walk.steps:
            release_step(values[i])
    return {values[i]: shared.tensor_of(array) for i, array in zip(walk.leaves, found, strict=True)}


def _notes(walk: Walk, stamps: Sequence[int], homes: Sequence[Home | None],
           numbers: dict[int, Any]) -> Iterable[tuple[Any, ...]]:
    for i, (op, content, operands) in walk.notes.items():
        yield stamps[i], op, numbers.get(i, content), homes[i], [stamps[j] for j in operands]


def learn(order: Sequence[Value]) -> None:
    """Count the form of a tape, given as ``order_back`` gives it, and write its walk down when it has come often."""
    if len(order) > LONGEST or type(order[-1].op) is not Op or not all(_plain(v) for v in order):
        return  # custom and compiled functions have pullbacks of their own
    try:
        key = _form(order)
    except TypeError:  # parameters that cannot be compared
        return
    if len(_met) > COUNTED:
        _met.clear()
    times, _ = _met[key] = _met.get(key, (0, None))[0] + 1, [_op(v) for v in order if type(v.op) is Call]
    if times == MET:
        walk = _written(order)
        if walk is not None:
            _walks[order[-1].op] = (walk, *_walks.get(order[-1].op, ())[:FORMS - 1])


def _plain(value: Value) -> bool:
    """Whether a step's gradient rule is known, and reads only what the tape holds."""
    op = value.op
    if not value.inputs:
        return op is None and is_held(value)
    return type(op) is Op or type(op) is Item or (type(op) is Call and op.rule is not None)


def _operands(value: Value) -> tuple[Value, ...]:
    """What a step's gradient rule reads: its operands, then what it saved."""
    op = value.op
    return (*(value.inputs or ()), *(op.rule.saved if type(op) is Call and op.rule is not None else ()))


def _op(value: Value) -> Any:
    """What is the same object, or number, in all steps with the same gradient rule."""
    op = value.op
    if type(op) is Item:
        return op.index
    return op.rule.pull if type(op) is Call and op.rule is not None else op


def _form(order: Sequence[Value]) -> int:
    """A hash of what ``match`` compares."""
    places: dict[Value, int] = {}
    form: list[Any] = []
    for value in order:
        operands = _operands(value)
        form.append((_op(value), None if operands else value.type, *(value.params or {}).items(),
                     *[(places.setdefault(v, len(places)), None if v.requires_grad else v.type) for v in operands]))
        places[value] = len(places)
    return hash(tuple(form))


def _written(order: Sequence[Value]) -> Walk | None:
    """The walk over a tape as functions; None if a gradient rule reads more than its operands."""
    values = list(reversed(order))  # the end first
    count = len(values)
    known = set(values)  # saved values that no step of the walk made may have a tape of their own: it is not walked
    values += dict.fromkeys(v for value in values for v in _operands(value) if v not in known)
    places = {v: i for i, v in enumerate(values)}
    trace = Trace()
    trace.where = RULE
    nodes = [Input(NOTHING if v.data is None else v.type) for v in values]
    copies: dict[Value, Value] = {}
    for value in reversed(values):  # operands first
        copies[value] = Value(nodes[places[value]], value in known, trace)
    for value in order:
        copy = copies[value]
        copy.op, copy.params = value.op, value.params
        copy.inputs = tuple([copies[v] for v in value.inputs or ()])
        if type(value.op) is Call and value.op.rule is not None:
            rule = value.op.rule._replace(saved=[copies[v] for v in value.op.rule.saved])
            copy.op = Call(value.op.name, partial(pull_by, rule))
    leaves = [i for i, v in enumerate(values[:count]) if not v.inputs]
    start = Input(values[0].type)
    single: dict[int, Any] = {}
    try:
        with tracing(trace):
            found = walk_back([(copies[values[0]], Tensor._of(Value(start, False, trace)))],
                              [copies[values[i]] for i in leaves], create_graph=False, release=False,
                              order=[copies[v] for v in order], numbers=single)
            by_stamp = {copies[v].stamp: i for i, v in enumerate(values)}
            leaves = [i for i in leaves if copies[values[i]] in found]
            gradients: list[Any] = [value_of(found[copies[values[i]]]).data for i in leaves]
            cotangents: list[Any] = [value_of(g).data for g in single.values()]
    except TraceError:  # it looks at values
        return None
    if trace.states or trace.arrays:
        return None
    steps = [i for i, v in enumerate(values[:count]) if v.inputs]
    shown = sorted({*range(count), *[places[v] for w in order for v in w.inputs or ()]})
    return Walk(_matcher(values, count, places), _computer(nodes, start, gradients, cotangents), leaves, steps,
                [i for i in shown if values[i].data is not None and values[i].type.size == 1],
                [by_stamp[stamp] for stamp in single],
                {i: _note(values[i], i < count, places) for i in shown})


def _note(value: Value, walked: bool, places: dict[Value, int]) -> tuple[str | None, Any, list[int]]:
    kept = None if value.data is None else value.type
    if not walked:
        return None, kept, []
    return None if value.op is None else value.op.name, kept, [places[v] for v in value.inputs or ()]


def _computer(nodes: Sequence[Input], start: Input, gradients: Sequence[Node],
              cotangents: Sequence[Node]) -> Callable[..., Any]:
    names: dict[Node, str] = {start: "g"}
    names |= {node: f"x{i}" for i, node in enumerate(nodes)}
    lines, found, scope = statements(names, [start], [*gradients, *cotangents])
    used = set(re.findall(r"\bx\d+\b", "\n".join([*lines, found])))
    read = [f"x{i} = values[{i}].data" for i in range(len(nodes)) if f"x{i}" in used]
    # without any number on the way the second of the results is empty
    return compiled("compute", "g, values", [*read, *lines, f"found = ({found},)",
                                             f"return found[:{len(gradients)}], found[{len(gradients)}:]"], scope)


def _matcher(values: Sequence[Value], count: int, places: dict[Value, int]) -> Callable[..., Any]:
    """The function that compares a tape with this one, whose first ``count`` values are walked.

    What is computed has the same type when its op, parameters and operands are the same. An operand that was
    overwritten since is left to the walk, which knows what to say.
    """
    scope: dict[str, Any] = {"late": _late}
    lines = ["try:"]
    bound = {0}
    given_plain = {v for value in values[:count] for v in value.inputs or ()}
    for i, value in enumerate(values):
        other = []
        if i < count and value.inputs:
            scope[f"op{i}"] = _op(value)
            kind = {Item: ".index", Call: ".rule.pull"}.get(type(value.op), "")
            other = [f"v{i}.op{kind} {'!=' if kind == '.index' else 'is not'} op{i}", f"not v{i}.requires_grad"]
            if value.params:
                scope[f"params{i}"] = value.params
                other.append(f"v{i}.params != params{i}")
            lines.append(f"    if {' or '.join(other)}: return None")
            operands = [places[v] for v in _operands(value)]
            given = f"(*v{i}.inputs, *v{i}.op.rule.saved)" if type(value.op) is Call else f"v{i}.inputs"
            lines.append("    " + "".join(f"{f'v{j}' if j not in bound and j not in operands[:n] else f'w{n}'}, "
                                          for n, j in enumerate(operands)) + f"= {given}")
            again = [f"w{n} is not v{j}" for n, j in enumerate(operands) if j in bound or j in operands[:n]]
            if again:
                lines.append(f"    if {' or '.join(again)}: return None")
            for j in dict.fromkeys([places[v] for v in value.inputs]):
                lines.append(f"    if (h := v{j}._home) is not None and (h.written > v{i}.stamp or h.writers and "
                             f"late(h.writers, v{i}.stamp)): return None")
            bound.update(operands)
            continue
        scope[f"shape{i}"], scope[f"dtype{i}"], _ = value.type
        other = [f"v{i}.data.shape != shape{i}", f"v{i}.data.dtype is not dtype{i}"]
        if i < count:
            other += [f"not v{i}.requires_grad", f"v{i}.inputs != ()", f"v{i}.op is not None",
                      f"v{i}._home is None", f"v{i}._home.leaf is None", f"v{i}._home.leaf() is None"]
        elif value in given_plain:
            other += [f"v{i}.requires_grad"]
        lines.append(f"    if {' or '.join(other)}: return None")
    everything = "".join(f"v{i}, " for i in range(len(values)))
    # a released tape has no operands to unpack, one with parameters or steps of another kind may not compare
    lines += ["except (TypeError, ValueError, AttributeError): return None",
              f"return ({everything}) if len({{{everything}}}) == {len(values)} else None"]
    return compiled("match", "v0", lines, scope)


def _late(writers: Iterable[list[int]], stamp: int) -> bool:
    """Whether compiled functions wrote a buffer after this time."""
    return any(w[0] > stamp for w in writers)
