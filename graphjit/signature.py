"""Arguments of a compiled call: which are arrays, which are static, and the key that they make."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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


def plain_key(args: tuple[Any, ...]) -> Hashable | None:
    """The key of a call whose arguments are arrays, floats and tensors that require no gradient; None for others."""
    key: list[Hashable] = [state.grad_enabled]
    for a in args:
        if type(a) is Tensor:
            value = a._value
            if value.requires_grad or value.trace is not None:
                return None
            a = value.data
        if type(a) is np.ndarray:
            key += a.shape, a.dtype
        elif type(a) is float:
            key.append(FLOAT)
        else:
            return None
    return tuple(key)


def is_dynamic(leaf: Any) -> bool:
    return isinstance(leaf, (Tensor, np.ndarray, np.generic)) or type(leaf) is float
