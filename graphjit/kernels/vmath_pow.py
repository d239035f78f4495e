"""x ** y for floats."""

from __future__ import annotations

import math
from collections.abc import Callable

from graphjit.kernels.irmath import F32, F64, V, call, copysign, fabs, fma, select
from graphjit.kernels.target import target
from graphjit.kernels.vmath_avx512 import lookup
from graphjit.kernels.vmath_exp import EXP2, EXP2_RANGE
from graphjit.kernels.vmath_log import LOG2E_PARTS, UNUSUAL, split
from graphjit.kernels.vmath_parts import bias, clamp, mantissa_bits, poly, pow2, round_to_int
from graphjit.kernels.vmath_rare import rarely
from graphjit.kernels.vmath_tables import EXP2_NEAR, log_table, power_of_two, reduce_log

INF, NAN = math.inf, math.nan

# float32: (log2(1+f) - f log2(e)) / f^2; float64: (log2(1+f) - (f - f^2/2) log2(e)) / f^3; minimax, errors of the
# logarithm 2^-32.4 and 2^-63.3
LOG2_TAIL = {
    F32: (0.28868338, -0.36082187, 0.48089832, -0.7213475),
    F64: (
        0.13170716041766317, -0.14481707616490108, 0.16029844116957742, -0.18033600388354815, 0.20609929236672425,
        -0.24044917405314709, 0.28853900817752304, -0.3606737602221173, 0.48089834696298783,
    ),
}  # fmt: skip
# (log(m) - 2 s - 2/3 s^3) / s^5 in s^2, s = (m-1)/(m+1), LEAST <= m <= 2 LEAST; minimax, errors of
# log(m) 2^-41 and 2^-73
LOG_TAIL = {
    F32: (1.9920848e-01, 2.2155531e-01, 2.8572467e-01, 3.9999995e-01),
    F64: (
        0.11982887218631089, 0.11675652069596618, 0.13336270384246626, 0.15384558290317918,
        0.18181818845738695, 0.22222222217778595, 0.2857142857144387, 0.3999999999999998,
    ),
}  # fmt: skip
TWO_THIRDS = {F32: (0.6666667, -1.9868216e-08), F64: (0.6666666666666666, 3.700743415417188e-17)}


def pow_(x: V, y: V) -> V:
    k, hi, lo = _log2_two_parts(x)
    rest = y * lo
    n, power_of_two = _power_of_two(fma(y, hi, rest))
    p = power_of_two(fma(y, hi, -n) + rest)
    exponent, power = fabs(k), fabs(n)
    largest = select(exponent.gt(power), exponent, power)  # NaN where y is NaN
    return rarely("pow", UNUSUAL[x.type], _pow_unusual, p, largest, x, y, together=True)


def _power_of_two(z: V) -> tuple[V, Callable[[V], V]]:
    """A multiple n of 1/16 (without tables: of 1) next to z, and the function 2^(n + r) of a small r; |n| < bias."""
    t = z.type
    if target().avx512:
        n, root, root_lo = power_of_two(z)
        return n, lambda r: fma(root, fma(r, poly(r, EXP2_NEAR[t]), root_lo), root)
    n, bits = round_to_int(z, offset=bias(t))
    return n, lambda r: fma(pow2(bits), r * poly(r, EXP2[t]), pow2(bits))


def _log2_two_parts(x: V, less: V | float = 0.0) -> tuple[V, V, V]:
    """(k, hi, lo) for x = 2^k m: log2(x) - less as an unevaluated sum with a relative error near 2^-63 (float32
    2^-31), for y log2(x) may be 1000 times larger than 1, and its absolute error is the relative one of the power."""
    t = x.type
    if not target().avx512:
        m, k, _ = split(x)
        return k, *_log2_by_quotient(m, k - less)
    k, f, index = reduce_log(x)
    heads, rests = log_table(t, 2)
    head = (k - less) + lookup("log2.head", index, heads)
    e, e_lo = LOG2E_PARTS[t]
    if t == F32:
        slope = x.const(e)
        slope_lo = fma(f, poly(f, LOG2_TAIL[t]), e_lo)
    else:
        slope = fma(f, -e / 2, e)
        slope_lo = fma(f * f, poly(f, LOG2_TAIL[t]), fma(f, -e / 2, e - slope) + e_lo)
    hi = fma(f, slope, head)
    return k, hi, fma(f, slope_lo, fma(f, slope, head - hi)) + lookup("log2.rest", index, rests)


def _log2_by_quotient(m: V, k: V) -> tuple[V, V]:
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


def _pow_unusual(_: V, x: V, y: V) -> V:
    """x ** y for any x and y: negative bases are here too, and powers that are no normal numbers."""
    t, mb = x.type, mantissa_bits(x.type)
    a = fabs(x)
    one = a.eq(1.0) | y.eq(0)  # 1 ** y = x ** 0 = 1, also for NaN and infinities
    small = a.lt(2.0 ** (1 - bias(t)))
    _, hi, lo = _log2_two_parts(select(small, a * 2.0**mb, a), select(small, x.const(mb), 0.0))
    hi = select(a.eq(0), -INF, select(a.lt(INF), hi, a))
    hi, y_or_0 = select(one, 0.0, hi), select(one, 0.0, y)
    rest = select(fabs(y_or_0).lt(INF), y_or_0 * lo, 0.0)
    z = fma(y_or_0, hi, rest)
    low, high = EXP2_RANGE[t]
    inside = z.gt(low) & z.lt(high)
    z = clamp(z, low, high)
    # two factors
    half = copysign(bias(t) // 2 + 1.0, z)
    n, power_of_two = _power_of_two(z - half)
    n = n + half
    p = power_of_two(select(inside, fma(y_or_0, hi, -n) + rest, z - n))
    factor = select(z.lt(0), x.const(0.5 ** (bias(t) // 2 + 1)), 2.0 ** (bias(t) // 2 + 1))
    p = p * select(z.le(low), 0.0, factor)  # what is less than the least number takes a CPU 100 cycles
    whole = call("llvm.trunc", y).eq(y)
    fraction = y * 0.5
    odd = whole & call("llvm.trunc", fraction).ne(fraction)
    p = copysign(p, select(odd, x, 1.0))
    return select(x.lt(0) & x.gt(-INF) & ~whole, NAN, p)
