"""Making tensors of what stands for one: numbers, lists, arrays, other tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from graphjit.arrays import default_dtype, to_array
from graphjit.errors import DTypeError
from graphjit.op import Array
from graphjit.tape import Value, state
from graphjit.tensor import Tensor, TensorLike, shared
from graphjit.types import FLOAT32, DType, Shape, check_dtype, is_float


def as_tensor(x: TensorLike, dtype: DType | None = None) -> Tensor:
    """A tensor for whatever stands for one; ``dtype`` is for Python numbers only."""
    if isinstance(x, Tensor):
        return x
    trace = state.trace
    if isinstance(x, (bool, int, float)) and not isinstance(x, np.generic):
        return scalar(x, dtype if dtype is not None else default_dtype(x))
    if trace is None:
        return Tensor._of(shared(x))
    if isinstance(x, (list, tuple)) and _run_time_numbers(x):
        return _joined(x)
    array = to_array(x)
    return Tensor._of(trace.lift_array(x) if isinstance(x, np.ndarray) else trace.constant(array))


def _run_time_numbers(data: Sequence[Any]) -> bool:
    """Whether nested lists hold numbers that a compiled function got as arguments."""
    return any(_run_time_numbers(x) if isinstance(x, (list, tuple)) else _is_number(x) for x in data)


def _is_number(x: object) -> bool:
    return isinstance(x, Tensor) and x._type.weak and not x._type.shape


def _joined(data: Sequence[Any], dtype: DType | None = None) -> Tensor:
    """Nested lists of numbers, some of which are only known at run time, as a tensor."""
    from graphjit.ops.join import concat

    leaves: list[Any] = []

    def without(data: Any) -> Any:
        if isinstance(data, (list, tuple)):
            return [without(x) for x in data]
        leaves.append(data)
        return 0.0 if _is_number(data) else data

    array = to_array(without(data), dtype)
    parts = [(x if _is_number(x) else scalar(x, array.dtype)).astype(array.dtype).reshape(1) for x in leaves]
    joined: Tensor = concat(parts).reshape(array.shape)
    return joined


def scalar(x: bool | int | float, dtype: DType) -> Tensor:
    """A 0-d tensor of a Python number.

    Raises:
        DTypeError: when the number does not fit the dtype.
    """
    try:
        if state.trace is not None:
            return Tensor._of(state.trace.scalar(x, dtype))
        return Tensor._of(Value(np.array(x, dtype)))
    except OverflowError:
        raise DTypeError(f"the Python integer {x} does not fit dtype {dtype}") from None


def operand(x: bool | int | float, dtype: DType) -> Tensor:
    """``scalar`` for an operand that no one else gets to hold, so that one tensor can serve again."""
    if state.trace is not None or (x == 0 and isinstance(x, float)):  # 0.0 and -0.0 would be one entry of the cache
        return scalar(x, dtype)
    return _kept_scalar(x, dtype)


_kept_scalar = lru_cache(maxsize=256, typed=True)(scalar)


def constant(array: Array) -> Tensor:
    """A tensor of an array that never changes."""
    return Tensor._of(Value(array) if state.trace is None else state.trace.constant(array))


def filled(shape: Shape, value: bool | int | float, dtype: DType) -> Tensor:
    """A tensor of one repeated number."""
    if state.trace is not None:
        out: Tensor = scalar(value, dtype).broadcast_to(shape)
        return out
    if type(value) is int and value == 0:
        return Tensor._of(Value(np.zeros(shape, dtype)))
    return Tensor._of(Value(np.full(shape, value, dtype) if shape else np.array(value, dtype)))


def tensor(data: TensorLike, dtype: Any = None, requires_grad: bool | None = None, label: str = "") -> Tensor:
    """A tensor of the given data.

    Args:
        data: number, nested lists, NumPy array or Tensor; arrays are copied and keep their dtype,
            Python floats become float32, integers int64.
        dtype: element type, when another is wanted.
        requires_grad: whether ``backward()`` shall find its gradient. By default that of a Python float with a
            label, a named variable of a formula, and of nothing else.
        label: a name for graphs and reports.

    Raises:
        ArgumentError: ragged lists, strings, objects. DTypeError: element types graphjit does not hold.

    >>> import graphjit as gj
    >>> gj.tensor([[1, 2], [3, 4]], dtype="float64").shape
    (2, 2)
    >>> a, b = gj.tensor(2.0, label="a"), gj.tensor(-3.0, label="b")
    >>> (a * b + a ** 2).backward()
    >>> float(a.grad), float(b.grad)
    (1.0, 2.0)
    """
    kind = None if dtype is None else check_dtype(dtype)
    if requires_grad is None:
        requires_grad = bool(label) and type(data) is float and (kind is None or is_float(kind))
    if state.trace is not None:
        if isinstance(data, (Tensor, np.ndarray)):
            # a fresh value each time the program runs, read from the captured array by reference
            out = as_tensor(data)
            found = out._type
            out = out.astype(kind or (FLOAT32 if found.weak else found.dtype)).detach()
        elif isinstance(data, (list, tuple)) and _run_time_numbers(data):
            out = _joined(data, kind).detach()
        else:
            out = Tensor._of(state.trace.constant(to_array(data, kind)))
        out.label = label
        if requires_grad:
            out.requires_grad = True
        return out
    out = Tensor._of(Value(np.array(to_array(data, kind))))
    if label:
        out.label = label
    if requires_grad:
        out.requires_grad = True
    return out
