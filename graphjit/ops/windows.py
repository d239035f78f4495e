"""Windows sliding over spatial axes: what convolution and pooling share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphjit.errors import ArgumentError, ShapeError
from graphjit.op import Array
from graphjit.types import Extent, TensorType

Ints = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]

BLOCK = 1 << 22  # elements of windows that an eager rule copies out at once


def ints(value: Any, rank: int, what: str, least: int = 1) -> Ints:
    """One int for each spatial axis, from one for all or a sequence.

    Raises:
        ArgumentError: another number of them, not integers, or below ``least``.
    """
    given = tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
    if len(given) != rank or any(
            isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < least for n in given):
        raise ArgumentError(f"{what} must be an integer of at least {least}, or {rank} of them, "
                            f"not {value!r}")
    return tuple(n if isinstance(n, int) else int(n) for n in given)


def covered(kernel: Sequence[int], dilation: Sequence[int]) -> Ints:
    """How many elements a dilated window spans."""
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))


def count(name: str, x: TensorType, kernel: Sequence[int], stride: Ints, padding: Pads,
          dilation: Ints) -> Ints:
    """How many windows fit along each spatial axis of x (its axes from the third on).

    Raises:
        ShapeError: none fits.
    """
    sizes = x.shape[2:]
    if any(k < 1 for k in kernel):
        raise ShapeError(f"{name}: a window of shape {tuple(map(int, kernel))} holds nothing")
    out: list[int] = []
    for n, span, s, (low, high) in zip(sizes, covered(kernel, dilation), stride, padding, strict=True):
        room = n + low + high - span
        if room < 0:
            raise ShapeError(f"{name}: a window of {span} elements does not fit an axis of {int(n)} with "
                             f"padding {low} and {high}", detail=(f"operand: {x}",))
        out.append(Extent(room // s + 1) if isinstance(n, Extent) else room // s + 1)
    return tuple(out)


def padded(x: Array, padding: Pads, fill: Any = 0) -> Array:
    """x with ``fill`` around its spatial axes."""
    if not any(low or high for low, high in padding):
        return x
    shape = [n + low + high for n, (low, high) in zip(x.shape[2:], padding, strict=True)]
    out = np.full((*x.shape[:2], *shape), fill, x.dtype)
    out[inside(x.shape[2:], padding)] = x
    return out


def inside(sizes: Sequence[int], padding: Pads) -> tuple[Any, ...]:
    """The index of the elements that padding surrounds."""
    return (..., *(slice(low, low + n) for n, (low, _) in zip(sizes, padding, strict=True)))


def windows(x: Array, kernel: Sequence[int], stride: Ints, dilation: Ints) -> Array:
    """A view (N, C, *places, *kernel) of x, which is padded already."""
    steps = x.strides[2:]
    places = [(n - span) // s + 1 for n, span, s in zip(x.shape[2:], covered(kernel, dilation), stride, strict=True)]
    return as_strided(x, (*x.shape[:2], *places, *kernel),
                      (*x.strides[:2], *(t * s for t, s in zip(steps, stride, strict=True)),
                       *(t * d for t, d in zip(steps, dilation, strict=True))), writeable=False)


def tap(at: Sequence[int], places: Sequence[int], stride: Ints, dilation: Ints) -> tuple[Any, ...]:
    """The index, in the padded operand, of what element ``at`` of the windows covers."""
    return (..., *(slice(k * d, k * d + (n - 1) * s + 1, s) if n else slice(0, 0)
                   for k, n, s, d in zip(at, places, stride, dilation, strict=True)))


def blocks(batch: int, each: int) -> list[slice]:
    """Parts of the batch whose windows hold about BLOCK elements together."""
    step = max(1, BLOCK // max(each, 1))
    return [slice(i, i + step) for i in range(0, batch, step)]


def check_cotangent(name: str, g: TensorType, wanted: TensorType) -> None:
    """Raise unless a cotangent has the shape and dtype of what it is the cotangent of."""
    if g.shape != wanted.shape or g.dtype != wanted.dtype:
        raise ShapeError(f"{name}: a cotangent {g} for a result {wanted}")


def type_of(x: Array) -> TensorType:
    return TensorType(x.shape, x.dtype)


def product(lengths: Sequence[int]) -> int:
    return math.prod(int(n) for n in lengths)
