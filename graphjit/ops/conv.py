"""Convolution: three rows, the convolution and its gradients by input and weight, each linear in both
operands, so that the gradients of each are the other two.

Layouts are PyTorch's: input (N, C, *sizes), weight (O, C / groups, *kernel), result (N, O, *places).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from graphjit.apply import apply
from graphjit.composed import composed
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
from graphjit.promotion import promoted
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import Extent, TensorType

# ---- shape rules


def _infer_conv(x: TensorType, w: TensorType, stride: Ints, padding: Pads, dilation: Ints,
                groups: int) -> TensorType:
    if x.dtype != w.dtype or x.dtype.kind not in "fiu":
        raise DTypeError("convolution needs an input and a weight of one numeric dtype", detail=operands_text((x, w)),
                         hint="Convert with x.astype(...).")
    if x.ndim < 3 or w.ndim != x.ndim or len(stride) != x.ndim - 2:
        raise ShapeError("convolution needs an input (N, C, *sizes) and a weight (O, C / groups, *kernel)",
                         detail=operands_text((x, w)))
    if groups < 1 or w.shape[0] % groups or w.shape[1] * groups != x.shape[1]:
        raise ShapeError(f"convolution: {int(x.shape[1])} channels in, {int(w.shape[0])} out and {groups} "
                         f"groups do not fit a weight of {int(w.shape[1])} channels", detail=operands_text((x, w)),
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

def _operands(name: str, rank: int, x: TensorLike, weight: TensorLike,
              bias: TensorLike | None) -> tuple[Tensor, Tensor, Tensor | None, bool]:
    """Operands of one dtype, the input with its batch axis, and whether it came without."""
    given = promoted(x, weight) if bias is None else promoted(x, weight, bias)
    t, w, b = given[0], given[1], given[2] if bias is not None else None
    if t.ndim not in (rank + 1, rank + 2) or w.ndim != rank + 2:
        raise ShapeError(f"{name} needs an input of {rank + 2} dimensions ({rank + 1} without the batch) and "
                         f"a weight of {rank + 2}", detail=operands_text((t._type, w._type)))
    single = t.ndim == rank + 1
    return (expand_dims(t, 0) if single else t), w, b, single


def _finish(name: str, out: Tensor, bias: Tensor | None, single: bool) -> Tensor:
    if bias is not None:
        if bias.shape != out.shape[1:2]:
            raise ShapeError(f"{name}: a bias {bias._type} for {int(out.shape[1])} output channels",
                             hint="The bias is 1-d, a number for each output channel.")
        out = out + reshape_to(bias, (bias.shape[0], *(1,) * (out.ndim - 2)))
    return squeeze(out, 0) if single else out


def _pads(name: str, padding: Any, rank: int, stride: Ints, span: Ints) -> Pads:
    if padding == "valid":
        return ((0, 0),) * rank
    if padding == "same":
        if any(s != 1 for s in stride):
            raise ArgumentError(f"{name}: padding='same' needs a stride of 1, not {stride}")
        return tuple(((m - 1) // 2, m - 1 - (m - 1) // 2) for m in span)
    if isinstance(padding, str):
        raise ArgumentError(f"{name}: padding is 'same', 'valid' or numbers, not {padding!r}")
    return tuple((p, p) for p in ints(padding, rank, f"{name}: padding", 0))


@composed
def _conv_nd(name: str, rank: int, x: TensorLike, weight: TensorLike, bias: TensorLike | None, stride: Any,
             padding: Any, dilation: Any, groups: int) -> Tensor:
    t, w, b, single = _operands(name, rank, x, weight, bias)
    steps, apart = ints(stride, rank, f"{name}: stride"), ints(dilation, rank, f"{name}: dilation")
    ints(groups, 1, f"{name}: groups")
    pads = _pads(name, padding, rank, steps, covered(w.shape[2:], apart))
    out = apply(CONV, t, w, stride=steps, padding=pads, dilation=apart, groups=int(groups))
    return _finish(name, out, b, single)


@composed
def _conv_transpose_nd(name: str, rank: int, x: TensorLike, weight: TensorLike, bias: TensorLike | None,
                       stride: Any, padding: Any, output_padding: Any, groups: int, dilation: Any) -> Tensor:
    t, w, b, single = _operands(name, rank, x, weight, bias)
    steps, apart = ints(stride, rank, f"{name}: stride"), ints(dilation, rank, f"{name}: dilation")
    pads = tuple((p, p) for p in ints(padding, rank, f"{name}: padding", 0))
    more = ints(output_padding, rank, f"{name}: output_padding", 0)
    ints(groups, 1, f"{name}: groups")
    if any(m >= s for m, s in zip(more, steps, strict=True)):
        raise ArgumentError(f"{name}: output_padding {more} must be smaller than the stride {steps}")
    size: list[int] = []
    spans = covered(w.shape[2:], apart)
    for n, s, (low, high), span, m in zip(t.shape[2:], steps, pads, spans, more, strict=True):
        length = (n - 1) * s - low - high + span + m
        if length < 1 or n < 1:
            raise ShapeError(f"{name}: nothing is left of an axis of {int(n)} after padding {low}",
                             detail=operands_text((t._type, w._type)))
        size.append(Extent(length) if isinstance(n, Extent) else length)
    out = apply(CONV_INPUT_GRAD, t, w, size=tuple(size), stride=steps, padding=pads, dilation=apart,
                groups=int(groups))
    return _finish(name, out, b, single)


def conv1d(x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, stride: Any = 1,
           padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    """Cross-correlation along one axis, as ``torch.nn.functional.conv1d``.

    Args:
        x: (N, C, L), or (C, L) for a single signal.
        weight: (O, C / groups, K).
        bias: (O,), added to each output channel.
        stride: step from window to window.
        padding: zeros on both sides; "valid": none; "same": so many that the length stays (stride 1 only).
        dilation: step between the elements of a window.
        groups: parts of the channels that do not see each other.

    Returns:
        (N, O, (L + 2 * padding - dilation * (K - 1) - 1) // stride + 1).

    Raises:
        ShapeError: channels, groups and shapes do not fit, or the window is longer than the padded input.

    >>> import graphjit.nn.functional as F
    >>> F.conv1d([[[1.0, 2.0, 3.0, 4.0]]], [[[1.0, -1.0]]]).tolist()
    [[[-1.0, -1.0, -1.0]]]
    """
    return _conv_nd("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, stride: Any = 1,
           padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    """Cross-correlation along two axes, as ``torch.nn.functional.conv2d``.

    Args:
        x: (N, C, H, W), or (C, H, W) for a single image.
        weight: (O, C / groups, KH, KW).
        bias: (O,), added to each output channel.
        stride, padding, dilation: as in ``conv1d``, one int or two.
        groups: parts of the channels that do not see each other.

    Returns:
        (N, O, OH, OW), lengths as in ``conv1d``.

    Raises:
        ShapeError: channels, groups and shapes do not fit, or the window is larger than the padded input.
    """
    return _conv_nd("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, stride: Any = 1,
                     padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Tensor:
    """The transpose of ``conv1d`` (its gradient by the input), as ``torch.nn.functional.conv_transpose1d``.

    Args:
        x: (N, C, L), or (C, L).
        weight: (C, O / groups, K).
        bias: (O,).
        stride, padding, dilation, groups: those of the convolution that this is the transpose of.
        output_padding: length to add at the end, below the stride.

    Returns:
        (N, O, (L - 1) * stride - 2 * padding + dilation * (K - 1) + output_padding + 1).

    Raises:
        ShapeError: channels, groups and shapes do not fit.

    >>> import graphjit.nn.functional as F
    >>> F.conv_transpose1d([[[1.0, 2.0]]], [[[1.0, 10.0]]], stride=2).tolist()
    [[[1.0, 10.0, 2.0, 20.0]]]
    """
    return _conv_transpose_nd("conv_transpose1d", 1, x, weight, bias, stride, padding, output_padding, groups,
                              dilation)


def conv_transpose2d(x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, stride: Any = 1,
                     padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Tensor:
    """The transpose of ``conv2d``, as ``torch.nn.functional.conv_transpose2d``.

    Args:
        x: (N, C, H, W), or (C, H, W).
        weight: (C, O / groups, KH, KW).
        bias: (O,).
        stride, padding, output_padding, groups, dilation: as in ``conv_transpose1d``, one int or two.

    Returns:
        (N, O, OH, OW), lengths as in ``conv_transpose1d``.

    Raises:
        ShapeError: channels, groups and shapes do not fit.
    """
    return _conv_transpose_nd("conv_transpose2d", 2, x, weight, bias, stride, padding, output_padding, groups,
                              dilation)


__all__ = ["conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d"]
