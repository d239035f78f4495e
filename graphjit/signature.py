"""Arguments of a compiled call: which are arrays, which are static, and the key that they make."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from graphjit.arrays import to_array
from graphjit.errors import ArgumentError
from graphjit.structure import Same, Structured
from graphjit.tape import state
from graphjit.tensor import Tensor
from graphjit.tree import Spec, flatten
from graphjit.types import DTYPES, FLOAT64, TensorType

_HELD = frozenset(DTYPES)
_ATOMS = frozenset((bool, int, str, type(None)))
FLOAT = "float"  # the key of a Python float, whose value is known only at run time


class Signature:
    """One call's arguments, taken apart.

    Attributes:
        leaves: what stands in the nested containers.
        spec: the containers.
        key: equal for calls that one program can serve.
        arrays: the array of each dynamic leaf, in order.
        tensors: the leaves that are tensors requiring a gradient, by position in ``arrays``.
    """

    __slots__ = ("arrays", "key", "leaves", "spec", "tensors")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.leaves: Sequence[Any]
        self.spec: Spec
        self.leaves, self.spec = flatten((args, kwargs))
        self.arrays: list[Any] = []
        self.tensors: dict[int, Tensor] = {}
        parts: list[Hashable] = [self.spec]
        for leaf in self.leaves:
            parts.append(self._part(leaf))
        self.key: tuple[Hashable, ...] = tuple(parts)

    def _part(self, leaf: Any) -> Hashable:
        if isinstance(leaf, Tensor):
            data = leaf.data
            if leaf.requires_grad:
                self.tensors[len(self.arrays)] = leaf
            self.arrays.append(data)
            return (data.shape, data.dtype, leaf.requires_grad)
        if isinstance(leaf, (np.ndarray, np.generic)):
            array = np.asarray(leaf)
            if array.dtype not in _HELD or not array.dtype.isnative:
                array = to_array(leaf)
            self.arrays.append(array)
            return (array.shape, array.dtype, False)
        if type(leaf) is float:
            self.arrays.append(leaf)
            return FLOAT
        if isinstance(leaf, Structured):
            return Same(leaf)
        if hasattr(leaf, "__array__") and not isinstance(leaf, type):
            raise ArgumentError(f"a compiled function cannot take a {type(leaf).__module__}.{type(leaf).__name__}",
                                hint="Convert it with np.asarray(x).")
        try:
            hash(leaf)
        except TypeError:
            raise ArgumentError(
                f"a compiled function cannot take a {type(leaf).__name__}",
                hint="It takes arrays, tensors, numbers, strings, modules, and tuples, lists, dicts and "
                     "dataclasses of them.") from None
        return (type(leaf), leaf)

    def type_of(self, array: Any) -> TensorType:
        """Type of a dynamic leaf inside the trace."""
        if isinstance(array, float):
            return TensorType((), FLOAT64, weak=True)
        return TensorType(array.shape, array.dtype)


def plain_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable | None:
    """A key of a call that is made sooner than its signature's; calls of one key have one signature. None where
    tensors require a gradient, and for what is seldom an argument."""
    key: list[Any] = [state.grad_enabled]
    return tuple(key) if _add(args, key) and (not kwargs or _add((kwargs,), key)) else None


def _add(parts: Iterable[Any], key: list[Any]) -> bool:
    """Add to a key what stands for arguments, if there is something."""
    for it in parts:
        kind = type(it)
        if kind is Tensor:
            value = it._value
            if value.requires_grad or value.trace is not None:
                return False
            it = value.data
            kind = type(it)
        if kind is np.ndarray:
            key += it.shape, it.dtype
        elif kind is float:
            key.append(FLOAT)
        elif kind is tuple or kind is list:
            key += kind, len(it)
            if not _add(it, key):
                return False
        elif kind is dict:
            key += dict, len(it), *it
            if not _add(it.values(), key):
                return False
        elif kind in _ATOMS:
            key += kind, it
        elif isinstance(it, Structured):
            key.append(Same(it))
        else:
            return False
    return True


def is_dynamic(leaf: Any) -> bool:
    return isinstance(leaf, (Tensor, np.ndarray, np.generic)) or type(leaf) is float
