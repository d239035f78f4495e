"""Movement: elements in another arrangement (permute, broadcast, slice, flip) and surrounded by others (pad).

All but ``pad`` are views: another reading of the same memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from graphjit.apply import apply
from graphjit.composed import composed
from graphjit.errors import ShapeError
from graphjit.op import Array, Assemble, Layout, Op, Params, View, register
from graphjit.operators import attach
from graphjit.ops.shape import like, operand, shape_argument, text
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import (
    Shape,
    TensorType,
    broadcast_shapes,
    contiguous_strides,
    inverse,
    normalize_axes,
    normalize_axis,
    stretched_axes,
)

Ints = tuple[int, ...]

# ---- permute

def _infer_permute(x: TensorType, axes: tuple[int, ...]) -> TensorType:
    if sorted(axes) != list(range(x.ndim)):
        raise ShapeError(f"permute_dims of {x} by {axes}: every axis must be named once",
                         hint="To swap two axes use swapaxes(i, j).")
    return x.with_shape([x.shape[a] for a in axes])


def _permute_vjp(g: Tensor, out: Tensor, x: Tensor, axes: Ints) -> tuple[Tensor]:
    return (apply(PERMUTE, g, axes=inverse(axes)),)


def _permute_layout(x: Layout, axes: Ints) -> Layout:
    return Layout(x.offset, tuple([x.shape[a] for a in axes]), tuple([x.strides[a] for a in axes]))


PERMUTE = register(Op("permute_dims", lambda x, axes: x.transpose(axes), _infer_permute, _permute_vjp,
                      View(_permute_layout), view=True, text="{0}.transpose({axes})"))


@composed
def permute_dims(x: TensorLike, axes: int | Sequence[int], *more: int) -> Tensor:
    """Axes in another order: axis i of the result is axis ``axes[i]`` of x.

    Raises:
        ShapeError: when ``axes`` does not name every axis once.
    """
    t = operand(x)
    order = shape_argument((axes, *more), "permute_dims")
    n = t.ndim
    if order and min(order) < 0:
        if min(order) < -n:
            _infer_permute(t._type, order)
        order = tuple([a + n if a < 0 else a for a in order])
    return apply(PERMUTE, t, axes=order)


@composed
def transpose(x: TensorLike, axes: int | Sequence[int] | None = None, *more: int) -> Tensor:
    """``permute_dims``; without axes (or with None) their order is reversed."""
    t = operand(x)
    if axes is None:
        return apply(PERMUTE, t, axes=tuple(range(t.ndim))[::-1])
    return permute_dims(t, axes, *more)


@composed
def matrix_transpose(x: TensorLike) -> Tensor:
    """The last two axes swapped; also ``x.mT``."""
    t = operand(x)
    n = t.ndim
    if n < 2:
        raise ShapeError(f"matrix_transpose needs at least two axes, not {t._type}")
    return apply(PERMUTE, t, axes=(*range(n - 2), n - 1, n - 2))


@composed
def swapaxes(x: TensorLike, axis1: int, axis2: int) -> Tensor:
    """Two axes exchanged."""
    t = operand(x)
    i, j = normalize_axis(axis1, t.ndim), normalize_axis(axis2, t.ndim)
    axes = list(range(t.ndim))
    axes[i], axes[j] = j, i
    return apply(PERMUTE, t, axes=tuple(axes))


@composed
def moveaxis(x: TensorLike, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Axes ``source`` moved to the places ``destination`` of the result; the others keep their order."""
    t = operand(x)
    moved = [source] if not isinstance(source, (tuple, list)) else source
    places = [destination] if not isinstance(destination, (tuple, list)) else destination
    if len(moved) != len(places):
        raise ShapeError(f"moveaxis of {len(moved)} axes to {len(places)} places")
    pairs = {normalize_axis(d, t.ndim, "destination"): normalize_axis(s, t.ndim, "source")
             for s, d in zip(moved, places, strict=True)}
    if len(pairs) != len(moved) or len(set(pairs.values())) != len(moved):
        raise ShapeError(f"moveaxis from {source!r} to {destination!r} names an axis twice")
    rest = iter([a for a in range(t.ndim) if a not in pairs.values()])
    return apply(PERMUTE, t, axes=tuple([pairs[i] if i in pairs else next(rest) for i in range(t.ndim)]))


# ---- broadcast

def _infer_broadcast(x: TensorType, shape: Shape) -> TensorType:
    lead = len(shape) - x.ndim
    if lead < 0 or min(shape, default=0) < 0 or any(
            n not in (1, m) for n, m in zip(x.shape, shape[lead:], strict=True)):
        raise ShapeError(f"{x} does not broadcast to {text(shape)}",
                         hint="Axes are matched from the right; each must be equal or 1.")
    return x.with_shape(shape)


def _broadcast_layout(x: Layout, shape: Shape) -> Layout:
    stretched = stretched_axes(x.shape, shape)
    lead = len(shape) - len(x.shape)
    strides = [0 if i in stretched else x.strides[i - lead] for i in range(len(shape))]
    return Layout(x.offset, shape, tuple(strides))


def _broadcast_eager(x: Array, shape: Shape) -> Array:
    if x.ndim > len(shape) or math.prod(shape) > 4096:
        return np.broadcast_to(x, shape)
    out = np.empty(shape, x.dtype)  # a small copy takes a fifth of the time that such a view takes NumPy
    out[...] = x
    return out


BROADCAST = register(Op("broadcast_to", _broadcast_eager, _infer_broadcast,
                        lambda g, out, x, shape: (g,),  # the driver sums over what was stretched
                        View(_broadcast_layout), view=True))


def stretch_to(x: Tensor, shape: Shape) -> Tensor:
    """Broadcast to a shape whose lengths are marked as they should be."""
    return apply(BROADCAST, x, shape=shape)


@composed
def broadcast_to(x: TensorLike, shape: int | Sequence[int], *more: int) -> Tensor:
    """x repeated (without a copy) along axes of length one, or new leading axes, to the given shape.

    Raises:
        ShapeError: when the shapes do not fit.
    """
    t = operand(x)
    to = shape_argument((shape, *more), "broadcast_to")
    lead = len(to) - t.ndim
    if lead >= 0:  # a number that names an axis of the caller's length is that axis
        to = to[:lead] + tuple([like(m, n) if n == m else m for n, m in zip(t.shape, to[lead:], strict=True)])
    return apply(BROADCAST, t, shape=to)


@composed
def broadcast_arrays(*xs: TensorLike) -> tuple[Tensor, ...]:
    """All of these broadcast to their common shape; dtypes stay."""
    ts = [operand(x) for x in xs]
    shape = broadcast_shapes(*(t.shape for t in ts)) if ts else ()
    return tuple([apply(BROADCAST, t, shape=shape) for t in ts])


# ---- slice and pad, each the other's gradient

def _slice_eager(x: Array, starts: Ints, sizes: Ints, steps: Ints) -> Array:
    out = x[_slices(starts, sizes, steps)]
    if out.shape != sizes:
        raise ValueError("slice out of range")
    return out


@lru_cache(maxsize=1024)
def _slices(starts: Ints, sizes: Ints, steps: Ints) -> tuple[slice, ...]:
    if min(starts, default=0) < 0 or min(steps, default=1) < 1:
        raise ValueError("slice out of range")
    return tuple([slice(a, a + n * s, s) for a, n, s in zip(starts, sizes, steps, strict=True)])


def _infer_slice(x: TensorType, starts: Ints, sizes: Ints, steps: Ints) -> TensorType:
    if not len(starts) == len(sizes) == len(steps) == x.ndim:
        raise ShapeError(f"slice of {x} needs a start, a size and a step for each axis")
    for axis, (n, start, size, step) in enumerate(zip(x.shape, starts, sizes, steps, strict=True)):
        if start < 0 or size < 0 or step < 1 or (size > 0 and start + (size - 1) * step >= n):
            raise ShapeError(f"slice of axis {axis} of {x}: {size} elements from {start} in steps of {step}")
    return x.with_shape(sizes)


def _slice_vjp(g: Tensor, out: Tensor, x: Tensor, starts: Ints, sizes: Ints, steps: Ints) -> tuple[Tensor]:
    low: list[int] = []
    high: list[int] = []
    for n, start, size, step in zip(x.shape, starts, sizes, steps, strict=True):
        low.append(start if size else 0)
        high.append(like(n - start - (size - 1) * step - 1 if size else n, n))
    return (apply(PAD, g, low=tuple(low), high=tuple(high), interior=tuple([s - 1 for s in steps]), value=0),)


def _slice_layout(x: Layout, starts: Ints, sizes: Ints, steps: Ints) -> Layout:
    offset = x.offset + sum(a * s for a, n, s in zip(starts, sizes, x.strides, strict=True) if n)
    return Layout(offset, sizes, tuple(k * s for k, s in zip(steps, x.strides, strict=True)))


def _slice_text(types: Sequence[TensorType], how: Params) -> str:
    spans = zip(how["starts"], how["sizes"], how["steps"], strict=True)
    parts = [f"{start}:{start + (size - 1) * step + 1 if size else start}:{step}" for start, size, step in spans]
    return "{0}[" + ", ".join(parts) + "]" if parts else ""


SLICE = register(Op("slice", _slice_eager, _infer_slice, _slice_vjp, View(_slice_layout), view=True,
                    text=_slice_text))


def _pad_eager(x: Array, low: Ints, high: Ints, interior: Ints, value: Any) -> Array:
    if min((*low, *high, *interior), default=0) < 0:
        raise ValueError("negative widths")
    out = np.full(_padded(x.shape, low, high, interior), value, x.dtype)
    out[tuple([slice(a, a + n * (k + 1), k + 1) for a, n, k in zip(low, x.shape, interior, strict=True)])] = x
    return out


def _padded(shape: Shape, low: Ints, high: Ints, interior: Ints) -> Shape:
    out: list[int] = []
    for n, a, b, k in zip(shape, low, high, interior, strict=True):
        out.append(like(a + n + max(n - 1, 0) * k + b, n, a, b))
    return tuple(out)


def _infer_pad(x: TensorType, low: Ints, high: Ints, interior: Ints, value: Any) -> TensorType:
    if not len(low) == len(high) == len(interior) == x.ndim or min((*low, *high, *interior), default=0) < 0:
        raise ShapeError(f"pad of {x} by {low}, {high}, {interior}: each axis needs a non-negative width")
    return x.with_shape(_padded(x.shape, low, high, interior))


def _pad_regions(out: TensorType, x: TensorType, low: Ints, high: Ints, interior: Ints,
                 value: Any) -> tuple[Layout, ...]:
    strides = contiguous_strides(out.shape)
    offset = sum(a * s for a, s in zip(low, strides, strict=True))
    return (Layout(offset, x.shape, tuple((k + 1) * s for k, s in zip(interior, strides, strict=True))),)


# ``interior`` is the number of fill elements between neighbours
PAD = register(Op(
    "pad", _pad_eager, _infer_pad,
    lambda g, out, x, low, interior, **_: (slice_axes(g, low, x.shape, [k + 1 for k in interior]),),
    Assemble(_pad_regions, fill="value")))


def slice_axes(x: Tensor, starts: Sequence[int], sizes: Sequence[int], steps: Sequence[int]) -> Tensor:
    """For each axis ``sizes[i]`` elements from ``starts[i]`` on in steps of ``steps[i]``.

    Starts are not negative and steps positive. A size that depends on the caller's length of an axis is to be
    an ``Extent``; one that equals the whole length because nothing was cut off is ``x.shape[i]`` itself.
    """
    return apply(SLICE, x, starts=tuple(starts), sizes=tuple(sizes), steps=tuple(steps))


def cut(x: Tensor, axis: int, start: int, size: int) -> Tensor:
    """``size`` elements from ``start`` on along one (non-negative) axis."""
    shape = list(x.shape)
    starts = [0] * len(shape)
    shape[axis], starts[axis] = size, start
    return slice_axes(x, starts, shape, [1] * len(shape))


# ---- flip

def _infer_flip(x: TensorType, axes: Ints) -> TensorType:
    normalize_axes(axes, x.ndim)
    return x.with_shape(x.shape)


def _flip_vjp(g: Tensor, out: Tensor, x: Tensor, axes: Ints) -> tuple[Tensor]:
    return (apply(FLIP, g, axes=axes),)


def _flip_layout(x: Layout, axes: Ints) -> Layout:
    offset = x.offset + sum(max(x.shape[a] - 1, 0) * x.strides[a] for a in axes)
    return Layout(offset, x.shape, tuple(-s if i in axes else s for i, s in enumerate(x.strides)))


def _flip_eager(x: Array, axes: Ints) -> Array:
    back = slice(None, None, -1)
    return x[(*[back if i in axes else slice(None) for i in range(x.ndim)], ...)]


FLIP = register(Op("flip", _flip_eager, _infer_flip, _flip_vjp, View(_flip_layout),
                   view=True))


@composed
def flip(x: TensorLike, axis: int | Sequence[int] | None = None) -> Tensor:
    """The elements in reverse order along the given axes, or all."""
    t = operand(x)
    return apply(FLIP, t, axes=normalize_axes(axis, t.ndim))


attach(permute_dims=permute_dims, transpose=transpose, swapaxes=swapaxes, T=property(transpose),
       mT=property(matrix_transpose), broadcast_to=broadcast_to, flip=flip)

__all__ = [
    "broadcast_arrays", "broadcast_to", "flip", "matrix_transpose", "moveaxis", "permute_dims", "swapaxes",
    "transpose",
]
