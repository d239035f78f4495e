"""x ** y for floats."""

from __future__ import annotations

import math

from graphjit.kernels.irmath import F32, F64, V, call, copysign, fabs, fma, select
from graphjit.kernels.vmath_exp import EXP2, EXP2_RANGE, LOG2E_PARTS, UNUSUAL, normal_split, scale, split
from graphjit.kernels.vmath_parts import bias, clamp, float_of, mantissa_bits, poly, round_to_int
from graphjit.kernels.vmath_rare import rarely

INF, NAN = math.inf, math.nan

# (log(m) - 2 s - 2/3 s^3) / s^5 in s^2, s = (m-1)/(m+1), LEAST <= m <= 2 LEAST; minimax, errors of log(m)
# 2^-41 and 2^-73
LOG_TAIL = {
    F32: (1.9920848e-01, 2.2155531e-01, 2.8572467e-01, 3.9999995e-01),
    F64: (
        0.11982887218631089, 0.11675652069596618, 0.13336270384246626, 0.15384558290317918,
        0.18181818845738695, 0.22222222217778595, 0.2857142857144387, 0.3999999999999998,
    ),
}  # fmt: skip
TWO_THIRDS = {F32: (0.6666667, -1.9868216e-08), F64: (0.6666666666666666, 3.700743415417188e-17)}


def pow_(x: V, y: V) -> V:
    a = fabs(x)
    m, k, _ = split(a)
    z, z_lo = _times(y, *_log2_two_parts(m, k))
    n, bits = round_to_int(z)
    r = (z - n) + z_lo
    p = fma(r, poly(r, EXP2[x.type]), 1.0)
    p = float_of(p.bits() + (bits << mantissa_bits(x.type)))
    usual = fabs(z).lt(UNUSUAL[x.type])  # the power is a normal number
    p = rarely("pow", UNUSUAL[x.type], _pow_unusual, p, select(usual, k, INF), a, y)
    whole = call("llvm.trunc", y).eq(y)
    half = y * 0.5
    odd = whole & call("llvm.trunc", half).ne(half)
    p = copysign(p, select(odd, x, 1.0))
    return select(x.lt(0) & x.gt(-INF) & ~whole, NAN, p)


def _pow_unusual(_: V, a: V, y: V) -> V:
    """a ** y for any a >= 0."""
    # 1 ** y = a ** 0 = 1, also for NaN and infinities
    one = a.eq(1.0) | y.eq(0)
    hi, lo = _log2_two_parts(*normal_split(a))
    hi = select(a.eq(0), -INF, select(a.lt(INF), hi, a))
    z, z_lo = _times(y, hi, lo)
    z = select(one, 0.0, z)
    z_lo = select(one | fabs(z).ge(2000.0), 0.0, z_lo)  # an infinite z has no error
    z = clamp(z, *EXP2_RANGE[a.type])
    n, bits = round_to_int(z, offset=2 * bias(a.type))
    r = (z - n) + z_lo
    return scale(fma(r, poly(r, EXP2[a.type]), 1.0), bits)


def _times(y: V, hi: V, lo: V) -> tuple[V, V]:
    """y (hi + lo) in two parts."""
    z = y * hi
    return z, fma(y, hi, -z) + y * lo


def _log2_two_parts(m: V, k: V) -> tuple[V, V]:
    """log2(m) + k as an unevaluated sum with a relative error near 2^-66 (float32 2^-36): y log2(a) may be 1000
    times larger than 1, and its absolute error is the relative one of the power."""
    f = m - 1.0
    d = f + 2.0
    d_lo = f - (d - 2.0)
    g = 1.0 / d
    s = f * g
    s_lo = (fma(-s, d, f) - s * d_lo) * g
    w = s * s
    w_lo = fma(s, s, -w) + (s + s) * s_lo
    # log(m) = 2 s + s w (2/3 + w LOG_TAIL(w)); the second term in two parts as well
    t = w * poly(w, LOG_TAIL[m.type])
    third, third_lo = TWO_THIRDS[m.type]
    c = t + third
    c_lo = t - (c - third) + third_lo
    cube = s * w
    cube_lo = fma(s, w, -cube) + fma(s, w_lo, s_lo * w)
    p = cube * c
    p_lo = fma(cube, c, -p) + fma(cube, c_lo, cube_lo * c)
    two_s = s + s
    h = two_s + p
    h_lo = p - (h - two_s) + (s_lo + s_lo + p_lo)
    e, e_lo = LOG2E_PARTS[m.type]
    l2 = h * e
    l2_lo = fma(h, e, -l2) + fma(h, e_lo, h_lo * e)
    hi = k + l2
    return hi, (l2 - (hi - k)) + l2_lo
