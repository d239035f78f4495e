"""x ** y for floats."""

from __future__ import annotations

import math

from graphjit.kernels.irmath import F32, F64, V, call, clamp, copysign, fabs, fma, poly, pow2, round_to_int, select
from graphjit.kernels.vmath_exp import EXP2, EXP2_RANGE, LOG2E_PARTS, normal_split, scale, split

INF, NAN = math.inf, math.nan

# log2(1 + f) / f on |f| <= 1/3 and (2^r - 1) / r on |r| <= 1/2; minimax, errors 2^-35.9 and 2^-28.9
LOG2_SHORT = (
    0.15754401585636632, -0.16610368465205952, 0.12356187657883644, -0.13746157292853203, 0.1608913676266752,
    -0.18080601220898004, 0.20607596437799877, -0.24043366298577404, 0.28853944197429005, -0.36067397856030037,
    0.48089834395989667, -0.7213475195696458, 1.4426950408923305,
)  # fmt: skip
EXP2_SHORT = (
    0.0001535332934944506, 0.0013398898264437493, 0.009618437639308903, 0.0555033241478429, 0.24022647910098233,
    0.6931472028780521,
)  # fmt: skip

# (log(m) - 2 s - 2/3 s^3) / s^5 in s^2, s = (m-1)/(m+1), sqrt(1/2) <= m <= sqrt(2); minimax, error 2^-73 of log(m)
LOG_TAIL = (
    0.11982887218631089, 0.11675652069596618, 0.13336270384246626, 0.15384558290317918, 0.18181818845738695,
    0.22222222217778595, 0.2857142857144387, 0.3999999999999998,
)  # fmt: skip
TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)


def pow_(x: V, y: V) -> V:
    a = fabs(x)
    # 1 ** y = x ** 0 = 1, also for NaN and infinities
    one = a.eq(1.0) | y.eq(0)
    p = _power_f32(a, y, one) if x.type == F32 else _power_f64(a, y, one)
    whole = call("llvm.trunc", y).eq(y)
    half = y * 0.5
    odd = whole & call("llvm.trunc", half).ne(half)
    p = copysign(p, select(odd, x, 1.0))
    return select(x.lt(0) & x.gt(-INF) & ~whole, NAN, p)


def _log2_edges(a: V, y: V) -> V:
    return select(a.eq(0), -INF, select(a.lt(INF), y, a))


def _power_f32(a: V, y: V, one: V) -> V:
    """In float64, to the accuracy float32 needs."""
    a, y = a.to(F64), y.to(F64)
    m, k, _ = split(a, least=2.0 / 3.0)
    f = m - 1.0
    z = y * _log2_edges(a, fma(f, poly(f, LOG2_SHORT), k))
    z = clamp(select(one, 0.0, z), -160.0, 140.0)
    n, k = round_to_int(z)
    r = z - n
    return (fma(r, poly(r, EXP2_SHORT), 1.0) * pow2(k)).to(F32)


def _log2_two_parts(a: V) -> tuple[V, V]:
    """log2(a) as an unevaluated sum with a relative error near 2^-66: y log2(a) may be 1000 times larger than 1,
    and its absolute error is the relative one of the power."""
    m, k = normal_split(a)
    f = m - 1.0
    d = f + 2.0
    d_lo = f - (d - 2.0)
    g = 1.0 / d
    s = f * g
    s_lo = (fma(-s, d, f) - s * d_lo) * g
    w = s * s
    w_lo = fma(s, s, -w) + (s + s) * s_lo
    # log(m) = 2 s + s w (2/3 + w LOG_TAIL(w)); the second term in two parts as well
    t = w * poly(w, LOG_TAIL)
    c = t + TWO_THIRDS[0]
    c_lo = t - (c - TWO_THIRDS[0]) + TWO_THIRDS[1]
    cube = s * w
    cube_lo = fma(s, w, -cube) + fma(s, w_lo, s_lo * w)
    p = cube * c
    p_lo = fma(cube, c, -p) + fma(cube, c_lo, cube_lo * c)
    two_s = s + s
    h = two_s + p
    h_lo = p - (h - two_s) + (s_lo + s_lo + p_lo)
    e, e_lo = LOG2E_PARTS[F64]
    l2 = h * e
    l2_lo = fma(h, e, -l2) + fma(h, e_lo, h_lo * e)
    hi = k + l2
    return _log2_edges(a, hi), (l2 - (hi - k)) + l2_lo


def _power_f64(a: V, y: V, one: V) -> V:
    hi, lo = _log2_two_parts(a)
    z = y * hi
    z_lo = fma(y, hi, -z) + y * lo
    z = select(one, 0.0, z)
    z_lo = select(one | fabs(z).ge(2000.0), 0.0, z_lo)
    n, k = round_to_int(clamp(z, *EXP2_RANGE[F64]))
    r = (clamp(z, *EXP2_RANGE[F64]) - n) + z_lo
    return scale(fma(r, poly(r, EXP2[F64]), 1.0), k)
