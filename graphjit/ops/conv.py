"""Convolution: three rows, the convolution and its gradients by input and weight, each linear in both operands,
so that the gradients of each are the other two.

Layouts are PyTorch's: input (N, C, *sizes), weight (O, C / groups, *kernel), result (N, O, *places).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.op import Array, Library, Op, register
from graphjit.ops.rules import operands_text
from graphjit.ops.shape import expand_dims, reshape_to, squeeze
from graphjit.ops.windows import (
    Ints,
    Pads,
    blocks,
    check_cotangent,
    count,
    covered,
    inside,
    ints,
    padded,
    product,
    tap,
    type_of,
    windows,
)
from graphjit.tensor import Tensor, TensorLike, apply, as_tensor, promoted
from graphjit.types import Extent, TensorType

# ---- shape rules


def _infer_conv(x: TensorType, w: TensorType, stride: Ints, padding: Pads, dilation: Ints,
                groups: int) -> TensorType:
    detail = operands_text((x, w))
    if x.dtype != w.dtype or x.dtype.kind not in "fiu":
        raise DTypeError("convolution needs an input and a weight of one numeric dtype", detail=detail,
                         hint="Convert with x.astype(...).")
    if x.ndim < 3 or w.ndim != x.ndim or len(stride) != x.ndim - 2:
        raise ShapeError("convolution needs an input (N, C, *sizes) and a weight (O, C / groups, *kernel)",
                         detail=detail)
    if groups < 1 or w.shape[0] % groups or w.shape[1] * groups != x.shape[1]:
        raise ShapeError(f"convolution: {int(x.shape[1])} channels in, {int(w.shape[0])} out and {groups} "
                         f"groups do not fit a weight of {int(w.shape[1])} channels", detail=detail,
                         hint="The weight is (out channels, in channels / groups, *kernel).")
    places = count("convolution", x, w.shape[2:], stride, padding, dilation)
    return TensorType((x.shape[0], w.shape[0], *places), x.dtype)


def _infer_input_grad(g: TensorType, w: TensorType, size: Ints, groups: int, **how: Any) -> TensorType:
    x = TensorType((*g.shape[:1], *(n * groups for n in w.shape[1:2]), *size), g.dtype)
    check_cotangent("conv_input_grad", g, _infer_conv(x, w, groups=groups, **how))
    return x


def _infer_weight_grad(g: TensorType, x: TensorType, kernel: Ints, groups: int, **how: Any) -> TensorType:
    w = TensorType((*g.shape[1:2], *(n // groups for n in x.shape[1:2]), *kernel), x.dtype)
    check_cotangent("conv_weight_grad", g, _infer_conv(x, w, groups=groups, **how))
    return w


# ---- eager rules: for each group a product with the windows as a matrix, in blocks of the batch

def _columns(x: Array, kernel: Ints, stride: Ints, dilation: Ints, groups: int) -> Array:
    """The windows of padded x as (groups, C / groups * kernel, N * places)."""
    n, c, *rest = (view := windows(x, kernel, stride, dilation)).shape
    rank = len(kernel)
    places, taps = range(3, 3 + rank), range(3 + rank, 3 + 2 * rank)
    view = view.reshape(n, groups, c // groups, *rest).transpose(1, 2, *taps, 0, *places)
    return view.reshape(groups, c // groups * product(kernel), n * product(rest[:rank]))


def _rows(g: Array, groups: int) -> Array:
    """A cotangent (N, O, *places) as (groups, O / groups, N * places)."""
    n, o, *places = g.shape
    view = g.reshape(n, groups, o // groups, product(places)).transpose(1, 2, 0, 3)
    return view.reshape(groups, o // groups, n * product(places))


def _matrices(w: Array, groups: int) -> Array:
    o, c, *kernel = w.shape
    return w.reshape(groups, o // groups, c * product(kernel))


def _conv(x: Array, w: Array, stride: Ints, padding: Pads, dilation: Ints, groups: int) -> Array:
    found = _infer_conv(type_of(x), type_of(w), stride, padding, dilation, groups)
    (n, o, *places), kernel = found.shape, w.shape[2:]
    x, weights = padded(x, padding), _matrices(w, groups)
    out = np.empty((n, groups, o // groups, product(places)), x.dtype)
    for part in blocks(n, x.shape[1] * product(places) * product(kernel)):
        y = np.matmul(weights, _columns(x[part], kernel, stride, dilation, groups))
        out[part] = y.reshape(groups, o // groups, -1, product(places)).transpose(2, 0, 1, 3) if y.size else 0
    return out.reshape(found.shape)


def _input_grad(g: Array, w: Array, size: Ints, stride: Ints, padding: Pads, dilation: Ints,
                groups: int) -> Array:
    found = _infer_input_grad(type_of(g), type_of(w), size, groups, stride=stride, padding=padding,
                              dilation=dilation)
    (n, c), places, kernel = found.shape[:2], g.shape[2:], w.shape[2:]
    weights = _matrices(w, groups).transpose(0, 2, 1)
    wide = [m + low + high for m, (low, high) in zip(size, padding, strict=True)]
    out = np.zeros((n, c, *wide), g.dtype)
    for part in blocks(n, c * product(places) * product(kernel)):
        m = out[part].shape[0]
        spread = np.matmul(weights, _rows(g[part], groups))
        spread = spread.reshape(groups, c // groups, *kernel, m, *places)
        for at in itertools.product(*map(range, kernel)):
            piece = np.moveaxis(spread[(slice(None), slice(None), *at)], 2, 0)
            out[part][tap(at, places, stride, dilation)] += piece.reshape(m, c, *places)
    return np.ascontiguousarray(out[inside(size, padding)])


def _weight_grad(g: Array, x: Array, kernel: Ints, stride: Ints, padding: Pads, dilation: Ints,
                 groups: int) -> Array:
    found = _infer_weight_grad(type_of(g), type_of(x), kernel, groups, stride=stride, padding=padding,
                               dilation=dilation)
    o, c = found.shape[:2]
    x = padded(x, padding)
    out = np.zeros((groups, o // groups, c * product(kernel)), g.dtype)
    for part in blocks(g.shape[0], x.shape[1] * product(g.shape[2:]) * product(kernel)):
        columns = _columns(x[part], kernel, stride, dilation, groups)
        out += np.matmul(_rows(g[part], groups), columns.transpose(0, 2, 1))
    return out.reshape(found.shape)


# ---- rows

def _conv_vjp(g: Tensor, out: Tensor, x: Tensor, w: Tensor, **how: Any) -> tuple[Any, Any]:
    return (lambda: apply(CONV_INPUT_GRAD, g, w, size=x.shape[2:], **how),
            lambda: apply(CONV_WEIGHT_GRAD, g, x, kernel=w.shape[2:], **how))


def _input_grad_vjp(h: Tensor, out: Tensor, g: Tensor, w: Tensor, size: Ints, **how: Any) -> tuple[Any, Any]:
    return (lambda: apply(CONV, h, w, **how),
            lambda: apply(CONV_WEIGHT_GRAD, g, h, kernel=w.shape[2:], **how))


def _weight_grad_vjp(v: Tensor, out: Tensor, g: Tensor, x: Tensor, kernel: Ints,
                     **how: Any) -> tuple[Any, Any]:
    return (lambda: apply(CONV, x, v, **how),
            lambda: apply(CONV_INPUT_GRAD, g, v, size=x.shape[2:], **how))


CONV = register(Op("conv", _conv, _infer_conv, _conv_vjp, Library("conv")))
CONV_INPUT_GRAD = register(Op("conv_input_grad", _input_grad, _infer_input_grad, _input_grad_vjp,
                              Library("conv_input_grad")))
CONV_WEIGHT_GRAD = register(Op("conv_weight_grad", _weight_grad, _infer_weight_grad, _weight_grad_vjp,
                               Library("conv_weight_grad")))


# ---- functions

def _operands(name: str, rank: int, x: TensorLike, weight: TensorLike, bias: TensorLike | None,
              channels: int) -> tuple[Tensor, Tensor, Tensor | None, bool]:
    """Operands of one dtype; whether the input came without its batch axis. ``channels`` is the weight's axis of
    output channels (before groups)."""
    given = promoted(x, weight) if bias is None else promoted(x, weight, bias)
    t, w, b = given[0], given[1], given[2] if bias is not None else None
    single = t.ndim == rank + 1
    if single:
        t = expand_dims(t, 0)
    if t.ndim != rank + 2 or w.ndim != rank + 2:
        raise ShapeError(f"{name} needs an input of {rank + 2} dimensions (or {rank + 1}, without the batch) and a "
                         f"weight of {rank + 2}", detail=operands_text((as_tensor(x)._type, w._type)))
    if b is not None and b.shape != (channels,) and b.ndim != 1:
        raise ShapeError(f"{name}: the bias has one number for each output channel, not shape {b.shape}")
    return t, w, b, single


def _finish(out: Tensor, bias: Tensor | None, single: bool, name: str) -> Tensor:
    if bias is not None:
        if bias.shape != out.shape[1:2]:
            raise ShapeError(f"{name}: a bias of shape {tuple(map(int, bias.shape))} for "
                             f"{int(out.shape[1])} output channels")
        out = out + reshape_to(bias, (bias.shape[0], *(1,) * (out.ndim - 2)))
    return squeeze(out, 0) if single else out
