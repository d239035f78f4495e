"""Python that takes a call's arguments apart where they are like those of the call it is made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from operator import is_
from typing import Any

import numpy as np

from graphjit.signature import Signature, is_dynamic
from graphjit.structure import Structured
from graphjit.tree import unflatten


class Unpacking:
    """Lines of a function of ``args`` and ``kwargs`` that return MISS for containers and static leaves unlike the
    call's. At arrays, tensors and floats whoever gets them looks.

    Attributes:
        lines: the lines, each indented by a blank.
        arrays: the names of dynamic leaves, in their order.
        given: these as arguments of a call, and ``row`` as a sequence.
        is_whole: whether that is all there is; containers of other kinds are not known here.
    """

    def __init__(self, call: Signature, names: dict[str, Any]) -> None:
        self._names = names
        self._leaves: list[Any] = []
        self.lines: list[str] = []
        self.arrays: list[str] = []
        args, kwargs = unflatten(call.spec, call.leaves)
        if not kwargs:
            self.lines.append(" if kwargs: return MISS")
        if not kwargs and all(is_dynamic(a) and not _is_scalar(a) for a in args):
            self.is_whole, self.given, self.row = True, "*args", "args"  # who gets them counts them, too
            return
        self.is_whole = (self._take(args, "args") and (not kwargs or self._take(kwargs, "kwargs"))
                         and len(self._leaves) == len(call.leaves) and all(map(is_, self._leaves, call.leaves)))
        self.given, self.row = ", ".join(self.arrays), f"({''.join(f'{a}, ' for a in self.arrays)})"

    def _take(self, it: Any, at: str) -> bool:
        """Take apart what is like ``it``, at this name."""
        kind = type(it)
        if it is None:
            self._unlike(f"{at} is not None")
        elif dataclasses.is_dataclass(kind) and not isinstance(it, Structured):
            self._unlike(f"type({at}) is not {self._name(kind)}")
            fields = [f.name for f in dataclasses.fields(kind)]
            return self._parts([getattr(it, f) for f in fields], [f"{at}.{f}" for f in fields])
        elif kind in (tuple, list) or (isinstance(it, tuple) and hasattr(kind, "_fields")):
            self._unlike(f"type({at}) is not {self._name(kind)} or len({at}) != {len(it)}")
            return self._parts(it, [f"{at}[{i}]" for i in range(len(it))])
        elif kind is dict:
            self._unlike(f"type({at}) is not dict or len({at}) != {len(it)}")
            keys = _in_order(it)
            return self._parts([it[k] for k in keys], [f"{at}.get({self._name(k)}, MISS)" for k in keys])
        else:
            self._leaf(it, at)
        return True

    def _parts(self, parts: Sequence[Any], places: Sequence[str]) -> bool:
        names = [f"{self._name(None)}_{i}" for i in range(len(parts))]
        self.lines += [f" {name} = {place}" for name, place in zip(names, places, strict=True)]
        return all(map(self._take, parts, names))

    def _leaf(self, it: Any, at: str) -> None:
        self._leaves.append(it)
        if is_dynamic(it):
            self.arrays.append(at)
            if _is_scalar(it):
                kind, array = self._name(it.dtype.type), self._name(np.asarray)
                self.lines.append(f" if type({at}) is {kind}: {at} = {array}({at})")
            return
        same = self._name(it)
        alike = f" and (type({at}) is not type({same}) or {at} != {same})" if isinstance(it, (int, str)) else ""
        self._unlike(f"{at} is not {same}{alike}")

    def _unlike(self, condition: str) -> None:
        self.lines.append(f" if {condition}: return MISS")

    def _name(self, it: object) -> str:
        """A name of its own for an object."""
        name = f"it{len(self._names)}"
        self._names[name] = it
        return name


def _is_scalar(leaf: Any) -> bool:
    """Whether an array or a scalar of NumPy, which are the same to a program."""
    return isinstance(leaf, (np.ndarray, np.generic)) and not leaf.ndim


def _in_order(it: dict[Any, Any]) -> list[Any]:
    """The keys in the order of their leaves, if they have one."""
    try:
        return sorted(it)
    except TypeError:
        return list(it)
