"""Objects whose attributes a trace bakes in: modules, optimizers, parameter groups.

A compiled program holds the attributes it was traced with (a dropout's rate, which layers there are).
Setting any attribute of a ``Structured`` object moves ``clock.structure``; a compiled call that sees it moved
compares the ``_static_signature`` of what its trace reached, and traces again where that differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

import numpy as np

from graphjit.tape import clock, state
from graphjit.tensor import Tensor

Signature = tuple[object, ...]


class Structured:
    """Base of the objects that compiled programs watch."""

    _clocked: ClassVar[frozenset[str]] = frozenset()  # containers whose changes move the clock themselves

    def __setattr__(self, name: str, value: Any) -> None:
        clock.structure += 1
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        clock.structure += 1
        object.__delattr__(self, name)

    def _reach(self) -> None:
        """Tell a running trace that this object was used."""
        if state.trace is not None:
            state.trace.reached[id(self)] = self

    def _static_signature(self) -> Signature:
        """All that a trace may have baked in: hashable, equal exactly when nothing of it changed."""
        return _of_object(self, ())


@final
class Same:
    """Equal to another of the same object only. It keeps the object alive, so that no id is used twice."""

    __slots__ = ("it",)

    def __init__(self, it: object) -> None:
        self.it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.it is other.it

    def __hash__(self) -> int:
        return id(self.it)

    def __repr__(self) -> str:
        return f"Same({type(self.it).__name__} at {id(self.it):#x})"


def _of_object(value: Structured, above: tuple[Structured, ...]) -> Signature:
    inside = (*above, value)
    return (type(value), *((name, _of(part, inside)) for name, part in vars(value).items()))


def _of(value: Any, above: tuple[Structured, ...]) -> object:
    """Numbers, strings and containers by value, tensors by identity and type, all else by identity."""
    match value:
        case None | bool() | int() | str() | bytes() | np.dtype():
            return (type(value), value)
        case float():
            return (float, repr(value))  # NaN is itself, -0.0 is not 0.0
        case np.generic():
            return (type(value), repr(value))
        case Structured():
            return Same(value) if any(value is a for a in above) else _of_object(value, above)
        case Tensor():
            return (Same(value), value._value.type, value._value.requires_grad)
        case tuple() | list():
            return (type(value), *(_of(v, above) for v in value))
        case Mapping():
            return (type(value), *((_of(k, above), _of(v, above)) for k, v in value.items()))
        case set() | frozenset():
            return (type(value), frozenset(_of(v, above) for v in value))
        case _:
            return Same(value)
