"""Hyperbolic functions and their inverses: sinh cosh tanh asinh acosh atanh."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.polynomial.chebyshev import chebpts1

from graphjit.kernels.irmath import F32, F64, V, copysign, fabs, fma, select, sqrt
from graphjit.kernels.target import target
from graphjit.kernels.vmath_avx512 import poly_by_table
from graphjit.kernels.vmath_exp import LN2_HI, LN2_LO, LOG2E
from graphjit.kernels.vmath_log import NATURAL, log1p_parts, log_of_normal
from graphjit.kernels.vmath_parts import (
    bias,
    float_of,
    mantissa_bits,
    poly,
    pow2,
    pow2_parts,
    round_to_int,
    sqrt_residue,
)
from graphjit.kernels.vmath_rare import rarely

INF, NAN = math.inf, math.nan
LN2 = 0.6931471805599453

# (sinh r - r) / r^3 and (cosh r - 1) / r^2 in r^2, |r| <= ln(2)/2; minimax, errors 2^-34, 2^-33; 2^-61, 2^-70
SINH = {
    F32: (1.9973969e-04, 8.333175e-03, 1.6666667e-01),
    F64: (
        2.5109355063245006e-08, 2.7557243376416395e-06, 0.00019841269886867191, 0.008333333333321376,
        0.16666666666666677,
    ),
}  # fmt: skip
COSH = {
    F32: (1.3935472e-03, 4.166646e-02, 5.0e-01),
    F64: (
        2.0921812989290605e-09, 2.7557251714577744e-07, 2.480158734928329e-05, 0.0013888888888873264,
        0.041666666666666685, 0.5,
    ),
}  # fmt: skip
LARGE = {F32: 87.0, F64: 708.0}  # from here on 2^n is no longer a normal number
OVERFLOW = {F32: 90.0, F64: 711.0}  # beyond it sinh and cosh are infinite


def _reduced(a: V, large: bool) -> tuple[V, V, V, V, V, V]:
    """(r, s, c, sh, ch, scale) of a >= 0: for the reduced argument r = a - n ln 2, sinh(r) = r + s and
    cosh(r) = 1 + c; sinh(n ln 2) = sh scale and cosh(n ln 2) = ch scale, the scale 1 unless `large`.

    The addition theorems then need no division, and nothing cancels for small a.
    """
    t, mb = a.type, mantissa_bits(a.type)
    n, bits = round_to_int(a, LOG2E, 2 * bias(t) if large else bias(t) - 1)
    r = fma(n, -LN2_LO[t], fma(n, -LN2_HI[t], a))
    w = r * r
    s = r * w * poly(w, SINH[t])
    c = w * poly(w, COSH[t])
    if large:
        up, scale = pow2_parts(bits)
        up = up * 0.5
        return r, s, c, up, up, scale  # 2^-n is of no account
    up = pow2(bits)
    down = float_of(((2 * bias(t) - 2) << mb) - up.bits())
    return r, s, c, up - down, up + down, a.const(1.0)


def _sinh(a: V, large: bool) -> V:
    r, s, c, sh, ch, scale = _reduced(a, large)
    return (fma(r, ch, sh) + fma(sh, c, s * ch)) * scale


def _cosh(a: V, large: bool) -> V:
    r, s, c, sh, ch, scale = _reduced(a, large)
    return (ch + fma(ch, c, (r + s) * sh)) * scale


def _large(formula: Callable[[V, bool], V]) -> Callable[[V], V]:
    return lambda a: formula(select(a.gt(OVERFLOW[a.type]), OVERFLOW[a.type], a), True)


def sinh(x: V) -> V:
    a = fabs(x)
    return copysign(rarely("sinh", LARGE[x.type], _large(_sinh), _sinh(a, False), a, together=True), x)


def cosh(x: V) -> V:
    a = fabs(x)
    return rarely("cosh", LARGE[x.type], _large(_cosh), _cosh(a, False), a, together=True)


# (tanh r - r) / r^3 in r^2, |r| <= 0.204; minimax, errors 2^-30.2 and 2^-61.9
TANH = {
    F32: (-5.2234117e-02, 1.3329147e-01, -3.3333305e-01),
    F64: (
        0.0005171283881478649, -0.0014476408850614417, 0.0035916644228728006, -0.008863220903179706,
        0.02186948827481363, -0.05396825396572171, 0.1333333333333216, -0.3333333333333333,
    ),
}  # fmt: skip
SATURATED = {F32: 10.0, F64: 20.0}  # beyond it tanh rounds to 1


# float32: |x| is next to an integer i < 32 of these steps, or else tanh rounds to 1; the least i have tanh(i STEP)
# very near a float32, so that what it lacks is of no account though tanh(x) may be half of it
STEP, LAST = 19 / 64, 31.49 * 19 / 64


@functools.cache
def tanh_table() -> list[tuple[float, ...]]:
    """For each power of r, from the highest down, its factors in tanh(i STEP + r), |r| <= STEP / 2: errors 2^-25.7."""

    def expand(centre: float) -> list[float]:
        def slope(r: Any) -> Any:
            return (np.tanh(centre + r) - math.tanh(centre)) / r

        nodes = STEP / 2 * chebpts1(6)
        return [*np.polyfit(nodes, slope(nodes), 5).tolist(), math.tanh(centre)]

    return list(zip(*(expand(i * STEP) for i in range(32)), strict=True))


def _tanh_by_table(x: V) -> V:
    a = fabs(x)
    a = select(a.gt(LAST), LAST, a)
    n, bits = round_to_int(a, 1 / STEP)
    return copysign(poly_by_table("tanh", bits, fma(n, -STEP, a), tanh_table()), x)


def tanh(x: V) -> V:
    """By the addition theorem: a = |x| = r + n ln(2)/2, tanh(n ln(2)/2) = (2^n - 1) / (2^n + 1).

    For n > 1 as what is missing to 1, which the errors of both sides of a quotient near 1 would spoil; n is such
    that this is where tanh > 1/2.
    """
    t = x.type
    if t == F32 and target().avx512:
        return _tanh_by_table(x)
    a = fabs(x)
    a = select(a.gt(SATURATED[t]), SATURATED[t], a)
    n, bits = round_to_int(a - 0.0295, 2 * LOG2E, bias(t))
    if t == F32:  # ln(2)/2 in one part: the error is a sixth of a unit where n = 1, and of less account beyond
        r = fma(n, -LN2 / 2, a)
        tail = None
    else:
        head = fma(n, -LN2_HI[t] / 2, a)
        r = fma(n, -LN2_LO[t] / 2, head)
        tail = fma(n, -LN2_LO[t] / 2, head - r)
    w = r * r
    y = fma(r * w, poly(w, TANH[t]), r) if tail is None else r + fma(r * w, poly(w, TANH[t]), tail)
    up = pow2(bits)
    less, more = up - 1.0, up + 1.0
    large = less.gt(1.0)
    y = select(large, fma(y, 2.0, -2.0), fma(y, more, less)) / fma(y, less, more)
    return copysign(select(large, y + 1.0, y), x)


# ---------------------------------------------------------------------------------------- inverses


HUGE = {F32: 2.0**31, F64: 2.0**61}  # where 1 + x^2 is x^2, and x + sqrt(x^2) is 2 x
HUGE_HALVED = {F32: 2.0**-48, F64: 2.0**-481}  # the numbers of half their bits


def asinh(x: V) -> V:
    """log1p(a + a^2 / (1 + sqrt(1 + a^2))) of a = |x|."""
    a = fabs(x)
    w = a * a
    step = w / (sqrt(w + 1.0) + 1.0)
    u = a + step
    y, _ = log1p_parts(u, step - (u - a))
    return copysign(rarely("asinh", HUGE[x.type], _log_of_twice, y, a, together=True), x)


def acosh(x: V) -> V:
    """log1p(t + sqrt(2 t + t^2)) of t = x - 1."""
    t = x - 1.0
    twice = t + t
    square = fma(t, t, twice)
    root = sqrt(square)
    u = root + t  # the larger first: what the sum lost is exact
    tail = t - (u - root) + sqrt_residue(root, square, fma(t, t, twice - square))
    y, _ = log1p_parts(u, tail)
    # halved, the bits of negative numbers are above those of positive ones
    order = float_of(t.bits().shift_right_logical(1))
    return rarely("acosh", HUGE_HALVED[x.type], _acosh_unusual, y, order, x, together=True)


def _log_of_twice(x: V) -> V:
    """log(2 x) of large x."""
    return select(x.lt(INF), log_of_normal(x, NATURAL)[0] + LN2, x)


def _acosh_unusual(_: V, x: V) -> V:
    return select(x.lt(1.0), NAN, _log_of_twice(x))


def atanh(x: V) -> V:
    """log1p(2 a / (1 - a)) / 2 of a = |x|."""
    a = fabs(x)
    d = 1.0 - a
    d_tail = (1.0 - d) - a
    inverse = 1.0 / d
    q = (a + a) * inverse
    tail = (fma(-q, d, a + a) - q * d_tail) * inverse
    y = log1p_parts(q, tail)[0] * 0.5
    y = select(a.lt(1.0), y, select(a.eq(1.0), a.const(INF), NAN))
    return copysign(y, x)
