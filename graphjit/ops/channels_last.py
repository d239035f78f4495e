"""Convolution and pooling with the channels last: rows that only the compiler makes, after derivatives are taken.

A convolution of x (N, *sizes, C) with a weight (*kernel, C, O) is ``contract(windows_last(x), weight)``: a matrix
product whose rows overlap in memory. Its gradient by the weight is a product with the same windows; that by the input
is a row of its own. The pools are those of ``pool.py``.
"""

from __future__ import annotations

import itertools
from math import gcd
from typing import Any, NamedTuple

import numpy as np

from graphjit.errors import DTypeError, ShapeError
from graphjit.op import INTERNAL, TABLE, Array, Layout, Library, Op, View, register
from graphjit.ops import pool  # noqa: F401  # its rows are what the rows below are made of
from graphjit.ops.rules import operands_text
from graphjit.ops.windows import Ints, Pads, count, covered, inside, tap, windows
from graphjit.types import TensorType, is_float


def to_last(ndim: int) -> Ints:
    """The axes of (N, C, *sizes) in the order (N, *sizes, C)."""
    return (0, *range(2, ndim), 1)


def to_first(ndim: int) -> Ints:
    """The axes of (N, *sizes, C) in the order (N, C, *sizes)."""
    return (0, ndim - 1, *range(1, ndim - 1))


def _first(x: TensorType) -> TensorType:
    return x.with_shape([x.shape[a] for a in to_first(x.ndim)])


def _last(x: TensorType) -> TensorType:
    return x.with_shape([x.shape[a] for a in to_last(x.ndim)])


# ---- windows: a view

def _infer_windows(x: TensorType, kernel: Ints, stride: Ints, dilation: Ints) -> TensorType:
    if x.ndim != len(kernel) + 2:
        raise ShapeError(f"windows of {len(kernel)} axes need an operand (N, *sizes, C), not {x}")
    places = count("windows_last", _first(x), kernel, stride, ((0, 0),) * len(kernel), dilation)
    return x.with_shape((x.shape[0], *places, *kernel, x.shape[-1]))


def _windows(x: Array, kernel: Ints, stride: Ints, dilation: Ints) -> Array:
    return np.moveaxis(windows(np.moveaxis(x, -1, 1), kernel, stride, dilation), 1, -1)


def _windows_layout(x: Layout, kernel: Ints, stride: Ints, dilation: Ints) -> Layout:
    sizes, steps = x.shape[1:-1], x.strides[1:-1]
    places = [(n - span) // s + 1 for n, span, s in zip(sizes, covered(kernel, dilation), stride, strict=True)]
    return Layout(x.offset, (x.shape[0], *places, *kernel, x.shape[-1]),
                  (x.strides[0], *(a * s for a, s in zip(steps, stride, strict=True)),
                   *(a * d for a, d in zip(steps, dilation, strict=True)), x.strides[-1]))


WINDOWS = register(Op("windows_last", _windows, _infer_windows, None, View(_windows_layout), INTERNAL, view=True))


# ---- products over several axes

def _infer_contract(a: TensorType, b: TensorType, *bias: TensorType, axes: int, leading: bool,
                    relu: bool = False) -> TensorType:
    split = axes if leading else a.ndim - axes
    summed, kept = (a.shape[:split], a.shape[split:]) if leading else (a.shape[split:], a.shape[:split])
    if b.ndim != axes + 1 or summed != b.shape[:-1] or any(c.shape != b.shape[-1:] for c in bias):
        raise ShapeError(f"contract over {axes} axes", detail=operands_text((a, b, *bias)))
    if any(c.dtype != a.dtype for c in (b, *bias)) or not is_float(a.dtype):
        raise DTypeError("contract needs operands of one float dtype", detail=operands_text((a, b, *bias)))
    return a.with_shape((*kept, b.shape[-1]))


def _contract(a: Array, b: Array, *bias: Array, axes: int, leading: bool, relu: bool = False) -> Array:
    if not is_float(a.dtype):
        raise TypeError("contract of numbers that are not floats")
    found = range(axes) if leading else range(a.ndim - axes, a.ndim)
    out = np.tensordot(a, b, (tuple(found), tuple(range(axes))))
    out = out + bias[0] if bias else out
    return np.maximum(out, a.dtype.type(0)) if relu else out


# sums the first (``leading``) or last ``axes`` axes of a with all but the last of b; adds a bias, rectifies, if told to
CONTRACT = register(Op("contract", _contract, _infer_contract, None, Library("contract"), INTERNAL))


# ---- the gradient by the input

class Phase(NamedTuple):
    """The elements ``first, first + stride, ...`` (``length`` of them) of a spatial axis of the input, which the same
    ``taps`` elements of the kernel reach: ``tap, tap - tap_step, ...``, at the places ``place,
    place + place_step, ...`` of the cotangent for the first, one further for each next."""

    first: int
    length: int
    taps: int
    tap: int
    tap_step: int
    place: int
    place_step: int


def phases(size: int, kernel: int, stride: int, low: int, dilation: int) -> list[Phase]:
    """The input's elements, by their rest on division by the stride."""
    found = []
    common = gcd(stride, dilation)
    for first in range(min(stride, size)):
        taps = [t for t in range(kernel) if (first + low - dilation * t) % stride == 0]
        last = taps[-1] if taps else 0
        place = (first + low - dilation * last) // stride
        found.append(Phase(first, -(-(size - first) // stride), len(taps), last, stride // common, place,
                           dilation // common))
    return found


def border(size: int, places: int, kernel: int, stride: int, low: int, dilation: int) -> tuple[int, int]:
    """Zeros that a cotangent needs on either side, for all that its gradient's phases read."""
    before = after = 0
    for p in phases(size, kernel, stride, low, dilation):
        if p.taps and p.length:
            before = max(before, -p.place)
            after = max(after, p.place + p.length + (p.taps - 1) * p.place_step - places)
    return before, after


def _infer_input_grad(g: TensorType, w: TensorType, size: Ints, places: Ints, stride: Ints, padding: Pads,
                      dilation: Ints, around: Pads) -> TensorType:
    wide = tuple(n + low + high for n, (low, high) in zip(places, around, strict=True))
    if g.dtype != w.dtype or g.shape[1:] != (*wide, w.shape[-2]) or w.ndim != g.ndim:
        raise ShapeError("conv_last_input_grad", detail=operands_text((g, w)))
    return g.with_shape((g.shape[0], *size, w.shape[-1]))


def _input_grad(g: Array, w: Array, size: Ints, places: Ints, stride: Ints, padding: Pads, dilation: Ints,
                around: Pads) -> Array:
    inner = np.moveaxis(g, -1, 1)[inside(places, around)]
    n, c = g.shape[0], w.shape[-1]
    out = np.zeros((n, c, *(m + low + high for m, (low, high) in zip(size, padding, strict=True))), g.dtype)
    for at in itertools.product(*map(range, w.shape[:-2])):
        out[tap(at, places, stride, dilation)] += np.moveaxis(np.tensordot(inner, w[at], (1, 0)), -1, 1)
    return np.ascontiguousarray(np.moveaxis(out[inside(size, padding)], 1, -1))


# g (N, *places, O) with ``around`` zeros around it, weight (*kernel, O, C)
INPUT_GRAD = register(Op("conv_last_input_grad", _input_grad, _infer_input_grad, None,
                         Library("conv_last_input_grad"), INTERNAL))


# ---- windows added up where they overlap

def _infer_overlap_add(g: TensorType, size: Ints, kernel: Ints, stride: Ints, padding: Pads,
                       dilation: Ints) -> TensorType:
    if not is_float(g.dtype):
        raise DTypeError("overlap_add_last needs floats", detail=operands_text((g,)))
    x = g.with_shape((g.shape[0], g.shape[-1], *size))
    places = count("overlap_add_last", x, kernel, stride, padding, dilation)
    if g.shape[1:-1] != (*places, *kernel):
        raise ShapeError("overlap_add_last", detail=operands_text((g,)))
    return _last(x)


def _overlap_add(g: Array, size: Ints, kernel: Ints, stride: Ints, padding: Pads, dilation: Ints) -> Array:
    if not is_float(g.dtype):
        raise TypeError("overlap_add_last of numbers that are not floats")
    rank, wide = len(size), [m + low + high for m, (low, high) in zip(size, padding, strict=True)]
    out = np.zeros((g.shape[0], g.shape[-1], *wide), g.dtype)
    for at in itertools.product(*map(range, kernel)):
        part = g[(slice(None),) * (rank + 1) + at]
        out[tap(at, g.shape[1:rank + 1], stride, dilation)] += np.moveaxis(part, -1, 1)
    return np.ascontiguousarray(np.moveaxis(out[inside(size, padding)], 1, -1))


# g (N, *places, *kernel, C), what each element of each window adds to (N, *size, C)
OVERLAP_ADD = register(Op("overlap_add_last", _overlap_add, _infer_overlap_add, None,
                          Library("overlap_add_last"), INTERNAL))


# ---- pools

def _pool_last(name: str) -> Op:
    """The row of ``pool.py`` for operands and results with the channels last."""
    row = TABLE[name]

    def eager(*arrays: Array, **how: Any) -> Array:
        out = row.eager(*(np.moveaxis(x, -1, 1) for x in arrays), **how)
        return np.ascontiguousarray(np.moveaxis(out, 1, -1))

    def infer(*types: TensorType, **how: Any) -> TensorType:
        return _last(row.infer(*map(_first, types), **how))

    return register(Op(f"{name}_last", eager, infer, None, Library(f"{name}_last"), INTERNAL))


POOLS = {TABLE[name]: _pool_last(name)
         for name in ("max_pool", "max_pool_grad", "max_pool_pick", "sum_pool", "sum_pool_grad")}
