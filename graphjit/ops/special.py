"""The logarithm of the gamma function and its derivatives; functions of two numbers that take care of overflow."""

from __future__ import annotations

import math

import numpy as np

from graphjit.composed import composed
from graphjit.kernels import reference
from graphjit.op import Elementwise, Op, register
from graphjit.ops.elementwise import abs as magnitude
from graphjit.ops.elementwise import round as nearest
from graphjit.ops.elementwise import sign, where
from graphjit.ops.families import Unary, float_binary, float_unary, floating, strong, unary
from graphjit.ops.logic import isfinite, isinf
from graphjit.ops.rules import same
from graphjit.ops.transcendental import exp, log1p, sin, sqrt
from graphjit.promotion import promoted
from graphjit.tensor import Tensor, TensorLike

SHIFT = 10  # trigamma's series is exact to a rounding from here on
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)  # of even order from 2 on

LGAMMA = unary("lgamma", reference.lgamma, lambda g, out, x: (g * digamma(x),))
DIGAMMA = unary("digamma", reference.digamma, lambda g, out, x: (g * _trigamma(x),))
COPYSIGN = register(Op("copysign", np.copysign, same("copysign", "f"),
                       lambda g, out, x, y: (g * (sign(x) * sign(out)), None), Elementwise("copysign({0}, {1})")))

lgamma = float_unary(LGAMMA, "The logarithm of the magnitude of the gamma function; inf at 0, -1, -2, ...")
digamma: Unary = float_unary(DIGAMMA, "The derivative of lgamma; NaN at -1, -2, ...")
copysign = float_binary(COPYSIGN, "The magnitude of x with the sign of y, that of a zero too.")


def _trigamma(x: Tensor) -> Tensor:
    """The derivative of digamma: the sum of (x + k) ** -2 over k = 0, 1, ... (Abramowitz and Stegun, 6.4.10).

    Its first terms, and Stirling's series for the others (6.4.12); below 0 by reflection (6.4.7). Made of operations:
    all higher derivatives follow.
    """
    above = x > 0
    y = where(above, x, 1 - x)
    r = 1 / (y + SHIFT)
    square = r * r
    series: Tensor | float = 0.0
    for number in reversed(BERNOULLI):
        series = series * square + number
    total = r + square * (0.5 + r * series)
    for k in range(SHIFT):
        term = 1 / (y + k)
        total = total + term * term
    angle = math.pi * where(above, 0.5, x - nearest(x))
    cosecant = math.pi / sin(angle)
    return where(above, total, cosecant * cosecant - total)


def _floats(x: TensorLike, y: TensorLike) -> list[Tensor]:
    return strong([floating(t) for t in promoted(x, y)])


def _in_order(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The larger and the smaller one. Where they are equal each is one of them, not half of both as ``maximum``: second
    derivatives of what is smooth are right as well then."""
    first = x >= y
    return where(first, x, y), where(first, y, x)


@composed
def hypot(x: TensorLike, y: TensorLike) -> Tensor:
    """sqrt(x * x + y * y) without overflow; its gradient where both are 0 is 0.

    >>> import graphjit as gj
    >>> gj.hypot(3.0, 4.0).item()
    5.0
    """
    a, b = (magnitude(t) for t in _floats(x, y))
    most, least = _in_order(a, b)
    ratio = least / where((most == 0) | isinf(most), 1, most)
    return where(isinf(a) | isinf(b), math.inf, most * sqrt(1 + ratio * ratio))


@composed
def logaddexp(x: TensorLike, y: TensorLike) -> Tensor:
    """log(exp(x) + exp(y)) without overflow; -inf where both are -inf.

    >>> import graphjit as gj
    >>> round(gj.logaddexp(1000.0, 1000.0).item(), 3)
    1000.693
    """
    most, least = _in_order(*_floats(x, y))
    return most + log1p(exp(least - where(isfinite(most), most, 0)))


__all__ = ["copysign", "digamma", "hypot", "lgamma", "logaddexp"]
