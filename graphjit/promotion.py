"""Promotion: the common dtype of operands, as NumPy 2 decides it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphjit.arrays import default_dtype, to_array
from graphjit.convert import as_tensor, operand
from graphjit.tape import Value, state
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import FLOAT64, DType, check_dtype, promote


def result_dtype(xs: Sequence[TensorLike]) -> DType:
    """The dtype these promote to; Python numbers are weak, as in NumPy 2."""
    strong: list[DType] = []
    weak: list[type] = []
    for x in xs:
        if isinstance(x, (bool, int, float)) and not isinstance(x, np.generic):
            weak.append(type(x))
        elif isinstance(x, Tensor):
            found = x._type
            if found.weak:
                weak.append(float)
            else:
                strong.append(found.dtype)
        elif isinstance(x, (np.ndarray, np.generic)) and x.dtype.kind in "biufc":
            strong.append(check_dtype(x.dtype))
        else:
            strong.append(to_array(x).dtype)
    if not strong:
        return FLOAT64 if all_weak(xs) else max((default_dtype(t(0)) for t in weak), key=_rank)
    out = promote(*strong)
    for t in weak:
        if t is float and out.kind != "f":
            out = FLOAT64
        elif t is int and out.kind == "b":
            out = np.dtype(np.int64)
    return out


def _rank(dtype: DType) -> int:
    return "biuf".index(dtype.kind)


def all_weak(xs: Sequence[TensorLike]) -> bool:
    """Whether a run-time Python float is among these and nothing stronger: the result stays weak."""
    return any(isinstance(x, Tensor) for x in xs) and all(
        x._type.weak if isinstance(x, Tensor) else isinstance(x, (bool, int, float)) for x in xs)


def agreeing(x: TensorLike, y: TensorLike) -> list[Tensor] | None:
    """The common cases of eager code: two tensors of one dtype, a tensor and a Python number it takes."""
    if state.trace is not None:
        return None
    if isinstance(x, Tensor):
        value = x._value
        dtype = value.data.dtype if value.trace is None else x.dtype  # type: ignore[union-attr]  # an array
        if isinstance(y, Tensor):
            value = y._value
            return [x, y] if value.trace is None and value.data.dtype is dtype else None  # type: ignore[union-attr]
        if type(y) is np.ndarray:
            if y.dtype is not dtype:
                return None
            # what no tape keeps need not be known as a view of the caller's array
            return [x, as_tensor(y) if value.requires_grad else Tensor._of(Value(y))]
        return [x, operand(y, dtype)] if _takes(dtype, type(y)) else None
    if isinstance(y, Tensor) and _takes(y.dtype, type(x)):
        return [operand(x, y.dtype), y]
    return None


def _takes(dtype: DType, number: type) -> bool:
    return (number is float and dtype.kind == "f") or (number is int and dtype.kind in "fiu")


def promoted(*xs: TensorLike, dtype: DType | None = None) -> list[Tensor]:
    """Tensors of one common dtype."""
    if dtype is None:
        if len(xs) == 2 and (pair := agreeing(*xs)) is not None:
            return pair
        dtype = result_dtype(xs)
    keep_weak = all_weak(xs)
    out: list[Tensor] = []
    for x in xs:
        if isinstance(x, Tensor):
            found = x._type
            out.append(x if found.dtype == dtype and (keep_weak or not found.weak) else x.astype(dtype))
        elif isinstance(x, (bool, int, float)):
            out.append(operand(x, dtype))
        else:
            t = as_tensor(x)
            out.append(t if t.dtype == dtype else t.astype(dtype))
    return out
