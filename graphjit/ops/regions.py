"""Sums of arrays that are zero but for a part each: rows that only the compiler makes, after derivatives are taken.

The gradient by slices that overlap is one: what each slice was given, added where the slice was. So is the gradient by
rows that are taken several times: what each time was given, added at the places.
"""

from __future__ import annotations

import numpy as np

from graphjit.errors import DTypeError, ShapeError
from graphjit.op import INTERNAL, Array, Library, Op, register
from graphjit.ops.gather import TAKE, TAKE_GRAD
from graphjit.ops.rules import operands_text
from graphjit.ops.windows import Ints
from graphjit.types import TensorType, is_float


def _infer(*parts: TensorType, size: Ints, starts: tuple[Ints, ...], factors: tuple[float, ...]) -> TensorType:
    fits = all(p.ndim == len(at) == len(size) and all(
        0 <= first <= m - n for first, n, m in zip(at, p.shape, size, strict=True))
        for p, at in zip(parts, starts, strict=True))  # fmt: skip
    if not fits or not parts or len(factors) != len(parts):
        raise ShapeError(f"add_regions of {size}", detail=operands_text(parts))
    if any(p.dtype != parts[0].dtype for p in parts) or not is_float(parts[0].dtype):
        raise DTypeError("add_regions needs floats of one dtype", detail=operands_text(parts))
    return parts[0].with_shape(size)


def _eager(*parts: Array, size: Ints, starts: tuple[Ints, ...], factors: tuple[float, ...]) -> Array:
    if not is_float(parts[0].dtype):
        raise TypeError("add_regions of numbers that are not floats")
    out = np.zeros(size, parts[0].dtype)
    for part, at, factor in zip(parts, starts, factors, strict=True):
        out[tuple([slice(first, first + n) for first, n in zip(at, part.shape, strict=True)])] += \
            part * part.dtype.type(factor)
    return out


# of zeros of shape ``size``, with each part times its factor added from its start on
ADD_REGIONS = register(Op("add_regions", _eager, _infer, None, Library("add_regions"), INTERNAL))


def _infer_takes(*operands: TensorType, axis: int, size: int) -> TensorType:
    if not operands or len(operands) % 2:
        raise ShapeError("take_grads needs places and a source for each sum", detail=operands_text(operands))
    out, *others = (TAKE_GRAD.infer(idx, src, axis=axis, size=size)
                    for idx, src in zip(operands[::2], operands[1::2], strict=True))
    for other in others:
        if (other.dtype, other.shape) != (out.dtype, out.shape):
            raise ShapeError("take_grads needs sources of one dtype and shape", detail=operands_text(operands))
    return out


def _takes(*operands: Array, axis: int, size: int) -> Array:
    first, *others = (TAKE_GRAD.eager(idx, src, axis=axis, size=size)
                      for idx, src in zip(operands[::2], operands[1::2], strict=True))
    return sum(others, first)


# the sum of ``take_grad(idx, src)`` of each two operands
TAKE_GRADS = register(Op("take_grads", _takes, _infer_takes, None, Library("take_grads"), INTERNAL))


def _infer_added_rows(idx: TensorType, x: TensorType, places: TensorType, *weights: TensorType,
                      size: int) -> TensorType:
    rows = TAKE.infer(x, places, axis=0)
    for w in weights:
        if w.dtype != x.dtype or w.size != places.size:
            raise ShapeError("added_rows needs a weight for each row", detail=operands_text((x, places, w)))
    return TAKE_GRAD.infer(idx, rows, axis=0, size=size)


def _added_rows(idx: Array, x: Array, places: Array, *weights: Array, size: int) -> Array:
    rows = TAKE.eager(x, places, axis=0)
    for w in weights:
        rows = rows * w.reshape(-1, *(1,) * (x.ndim - 1))
    return TAKE_GRAD.eager(idx, rows, axis=0, size=size)


# ``take_grad`` of rows that are taken from x, each times a weight if there are weights
ADDED_ROWS = register(Op("added_rows", _added_rows, _infer_added_rows, None, Library("added_rows"), INTERNAL))
