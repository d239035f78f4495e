"""What is composed of reductions: mean, variance, and the soft maximum with its relatives."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphjit.apply import with_rule
from graphjit.composed import composed
from graphjit.operators import attach
from graphjit.ops.elementwise import where
from graphjit.ops.logic import equal, isfinite
from graphjit.ops.reduce import max as largest
from graphjit.ops.reduce import sum as total
from graphjit.ops.shape import operand, squeeze
from graphjit.ops.transcendental import exp_in_sum, exp_or_zero, log, sqrt
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import FLOAT64, is_float, normalize_axes, normalize_axis

Axis = int | Sequence[int] | None


def floating(x: TensorLike) -> Tensor:
    """As a floating tensor; integers and bools become float64, as in NumPy's ``mean``."""
    t = operand(x)
    return t if is_float(t.dtype) else t.astype(FLOAT64)


def _count(t: Tensor, axis: Axis) -> int:
    shape = t.shape
    return math.prod(shape if axis is None else [shape[i] for i in normalize_axes(axis, len(shape))])


@composed
def mean(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The arithmetic mean along the given axes, or of all elements; NaN where there are none.

    The mean of integers is a float64.

    >>> import graphjit as gj
    >>> gj.mean(gj.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=1).tolist()
    [1.5, 3.5]
    """
    t = floating(x)
    return total(t, axis, keepdims) / _count(t, axis)


@composed
def var(x: TensorLike, axis: Axis = None, correction: float = 0, keepdims: bool = False) -> Tensor:
    """The variance: the sum of squared distances from the mean over (count - correction).

    ``correction=1`` gives the unbiased estimate. Computed in two passes, without cancellation.
    """
    t = floating(x)
    apart = t - mean(t, axis, keepdims=True)
    count = _count(t, axis) - correction
    return total(apart * apart, axis, keepdims) / (count if count > 0 else 0)


@composed
def std(x: TensorLike, axis: Axis = None, correction: float = 0, keepdims: bool = False) -> Tensor:
    """The standard deviation, the square root of ``var``; its gradient is 0 where it is 0."""
    v = var(x, axis, correction, keepdims)
    zero = equal(v, 0)
    return where(zero, v, sqrt(where(zero, 1, v)))


@composed
def logsumexp(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) along the given axes, without overflow; -inf, with gradient 0, where all are -inf.

    Raises:
        ShapeError: when there is no element.
    """
    t = floating(x)
    top = largest(t, axis, keepdims=True).detach()
    top = where(isfinite(top), top, 0)
    s = total(exp_in_sum(t - top), axis, keepdims=True)
    none = equal(s, 0)
    out = where(none, -math.inf, log(where(none, 1, s)) + top)
    return out if keepdims else squeeze(out, normalize_axes(axis, t.ndim))


@composed
def softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """exp(x) divided by its sum along an axis, without overflow.

    >>> import graphjit as gj
    >>> gj.softmax(gj.tensor([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    t = floating(x)
    axis = normalize_axis(axis, t.ndim)
    e = exp_or_zero(t - largest(t, axis, keepdims=True).detach())
    return softmax_of(t, e / total(e, axis, keepdims=True), axis)


def softmax_of(x: Tensor, p: Tensor, axis: int) -> Tensor:
    """The softmax ``p`` of ``x`` with the rule that needs nothing but p, and no division."""
    return with_rule("softmax", p, x, lambda g, p: p * (g - total(p * g, axis, keepdims=True)), p)


@composed
def log_softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """log(softmax(x)), without cancellation."""
    t = floating(x)
    axis = normalize_axis(axis, t.ndim)
    y = t - largest(t, axis, keepdims=True).detach()
    return y - log(total(exp_in_sum(y), axis, keepdims=True))


attach(mean=mean, var=var, std=std, logsumexp=logsumexp, softmax=softmax, log_softmax=log_softmax)

__all__ = ["log_softmax", "logsumexp", "mean", "softmax", "std", "var"]
