"""Why a call was traced, in words."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphjit.buffers import order_kept
from graphjit.signature import FLOAT, Signature
from graphjit.structure import Same, Structured
from graphjit.types import TensorType

if TYPE_CHECKING:
    from graphjit.specialize import Specialization

Key = Any  # (key of the signature, whether gradients are enabled)
LONGEST = 60  # characters of a value in a report


def argument_names(function: Callable[..., Any], call: Signature) -> list[str]:
    """A name for each leaf of the arguments: the parameter's, with the place inside a container."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    rest = next((i for i, p in enumerate(parameters) if p.kind is p.VAR_POSITIONAL), len(parameters))
    names: list[str] = []
    for which, first, *inside in call.spec.paths():
        if which == 1:
            name = str(first)
        elif first < rest:
            name = parameters[first].name
        else:
            name = f"{parameters[rest].name}[{first - rest}]" if rest < len(parameters) else f"arg{first}"
        names.append(name + "".join(f"[{p!r}]" for p in inside))
    return names


def why_another(keys: Iterable[Key], key: Key, names: list[str]) -> str:
    """How a call differs from the known one that is most like it; ``keys``: the latest first."""
    return _difference(max(keys, key=lambda known: _agreement(known, key)), key, names)


def why_stale(program: Specialization) -> str:
    """What no longer is as it was when this program was traced."""
    changed = program.capture.changed()
    if changed:
        return "changed outside: " + "; ".join(changed)
    for it, before in program.watched:
        now = it._static_signature()
        if now != before:
            return _changed_attribute(program.capture.structured.get(it, type(it).__name__), before, now)
    for tensor, flag in program.flags:
        if tensor._value.requires_grad != flag:
            return f"{tensor.label or 'a tensor'}: requires_grad was {flag}"
    for s in program.states:
        if s.tensor._value.type != s.node.type:
            return f"{s.node.name}: was {s.node.type}, is {s.tensor._value.type}"
        if order_kept(s.tensor._value) not in ((), s.order):
            return f"{s.node.name}: its axes lie in another order now, as another compiled function holds it"
    return "gradients found on entry: there are others now, or none"


def describe(part: Hashable) -> str:
    """A part of a signature's key."""
    match part:
        case str() if part == FLOAT:
            return "a float"
        case (tuple() as shape, np.dtype() as dtype, bool() as requires_grad):
            return str(TensorType(shape, dtype)) + (" requiring a gradient" if requires_grad else "")
        case (type(), value):
            return brief(value)
        case Same():
            return f"a {type(part.it).__name__}"
        case _:
            return brief(part)


def brief(value: object) -> str:
    """The repr of a value if it is short, else its beginning."""
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else text[:LONGEST - 3] + "..."


def _parts(key: Key) -> tuple[Any, ...]:
    return tuple(key[0][1:])


def _agreement(a: Key, b: Key) -> tuple[bool, bool, float]:
    likeness = sum(_likeness(x, y) for x, y in zip(_parts(a), _parts(b), strict=False))
    return bool(a[0][0] == b[0][0]), bool(a[1] == b[1]), likeness


def _likeness(a: Any, b: Any) -> float:
    """1 for equal parts, less for arrays that share a shape, a dtype, or whether they require a gradient."""
    if a == b:
        return 1.0
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) == 3:
        return sum(bool(x == y) for x, y in zip(a, b, strict=True)) / 4
    return 0.0


def _difference(a: Key, b: Key, names: list[str]) -> str:
    if a[0][0] != b[0][0]:
        return "arguments are nested in another way"
    out: list[str] = []
    if a[1] != b[1]:
        out.append("gradients are " + ("enabled" if b[1] else "disabled") + " now")
    for name, before, now in zip(names, _parts(a), _parts(b), strict=True):
        match before, now:
            case _ if before == now:
                continue
            case ((tuple() as old, np.dtype() as d, r), (tuple() as new, np.dtype() as e, q)) \
                    if len(old) == len(new) and d == e and r == q:
                axes = [f"axis {i} was {int(m)}" for i, (m, n) in enumerate(zip(old, new, strict=True)) if m != n]
                out.append(f"{name}: " + ", ".join(axes))
            case (Same(), Same()):
                out.append(f"{name}: another {type(now.it).__name__}")
            case _:
                out.append(f"{name}: was {describe(before)}, is {describe(now)}")
    return "; ".join(out) or "another call"


def _changed_attribute(path: str, before: Any, now: Any) -> str:
    """Where two static signatures first differ."""
    if not (isinstance(before, tuple) and isinstance(now, tuple)) or Same in (type(before[0]), type(now[0])):
        return _changed_object(path, before, now)
    if before[0] is not now[0]:
        return f"{path}: was a {before[0].__name__}, is a {now[0].__name__}"
    if not issubclass(before[0], Structured):
        scalar = len(before) == len(now) == 2 and not isinstance(before[1], tuple)
        return f"{path}: was {_text(before)}, is {_text(now)}" if scalar else f"{path}: its elements were changed"
    old, new = dict(before[1:]), dict(now[1:])
    for name in (*old, *new):
        if name not in old or name not in new:
            return f"{path}.{name}: is " + ("new" if name in new else "gone")
        if old[name] != new[name]:
            return _changed_attribute(f"{path}.{name}", old[name], new[name])
    return f"{path}: its parts are in another order"


def _text(part: tuple[Any, ...]) -> str:
    """A static number or string; floats are kept as their repr."""
    return part[1] if part[0] is float else brief(part[1])


def _changed_object(path: str, before: Any, now: Any) -> str:
    match before, now:
        case ((Same(it=a), kind, flag), (Same(it=b), other, _)):
            if a is not b:
                return f"{path}: is another tensor"
            return f"{path}: was {kind}, is {other}" if kind != other else f"{path}: requires_grad was {flag}"
        case _:
            return f"{path}: is another object"
