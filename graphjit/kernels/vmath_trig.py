"""Trigonometric functions and their inverses: sin cos tan, asin acos atan atan2."""

from __future__ import annotations

import math
from collections.abc import Callable

from graphjit.kernels.irmath import F32, F64, I32, V, call, copysign, fabs, fma, select, sqrt
from graphjit.kernels.vmath_parts import float_of, poly, round_to_int
from graphjit.kernels.vmath_rare import rarely

INF, NAN = math.inf, math.nan

# pi/2 as a sum of numbers of each type
PIO2_PARTS = {
    F32: (1.5707964, -4.371139e-08, -1.7151245e-15),
    F64: (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591833e-33),
}
# below it the reduction is exact enough for 2 units
REDUCIBLE = {F32: 2.0**17, F64: 2.0**40}
HUGE = 2.0**40  # the same of the reduction of float32 numbers in float64; beyond, libm's
TWO_OVER_PI = 0.6366197723675814

# (sin r - r) / r^3 and (cos r - 1 + r^2/2) / r^4 in r^2, |r| <= pi/4; minimax for float32, errors 2^-27.9 and
# 2^-33; fdlibm k_sin.c and k_cos.c for float64
SIN = {
    F32: (-1.9517897e-04, 8.332187e-03, -1.6666655e-01),
    F64: (
        1.58969099521155010221e-10, -2.50507602534068634195e-08, 2.75573137070700676789e-06,
        -1.98412698298579493134e-04, 8.33333333332248946124e-03, -1.66666666666666324348e-01,
    ),
}  # fmt: skip
COS = {
    F32: (2.4432327e-05, -1.388731e-03, 4.1666646e-02),
    F64: (
        -1.13596475577881948265e-11, 2.08757232129817482790e-09, -2.75573143513906633035e-07,
        2.48015872894767294178e-05, -1.38888888888741095749e-03, 4.16666666666666019037e-02,
    ),
}  # fmt: skip


def _reduce(x: V) -> tuple[V, V]:
    """(r, n): x = n pi/2 + r; n as an integer of x's width, of which two bits matter."""
    n, k = round_to_int(x, TWO_OVER_PI)
    p1, p2, p3 = PIO2_PARTS[x.type]
    r = fma(n, -p1, x)  # exact: a multiple of p1's last place, and less than 1
    return fma(n, -p3, fma(n, -p2, r)), k


def _reduce_far(x: V) -> tuple[V, V]:
    """`_reduce` of larger float32 numbers, in float64."""
    p1, p2, _ = PIO2_PARTS[F64]
    d = x.to(F64)
    n, k = round_to_int(d, TWO_OVER_PI)
    return fma(n, -p2, fma(n, -p1, d)).to(F32), k.to(I32)


def _sin_cos(r: V, n: V) -> tuple[V, V, V]:
    w = r * r
    s = fma(r * w, poly(w, SIN[r.type]), r)
    c = fma(fma(poly(w, COS[r.type]), w, -0.5), w, 1.0)
    return s, c, n


def _negated(y: V, flag: V) -> V:
    """y, or -y where bit 1 of the integer is set."""
    bits = y.type.bits
    return float_of(y.bits() ^ ((flag << (bits - 2)) & (1 << (bits - 1))))


def _sin(x: V, s: V, c: V, n: V) -> V:
    y = _negated(select((n & 1).ne(0), c, s), n)
    return select(x.eq(0), x, y)  # -0


def _cos(_: V, s: V, c: V, n: V) -> V:
    return _negated(select((n & 1).ne(0), s, c), n + 1)


def _tan(x: V, s: V, c: V, n: V) -> V:
    odd = (n & 1).ne(0)
    y = _negated(select(odd, c, s) / select(odd, s, c), n << 1)
    return select(x.eq(0), x, y)


def _everywhere(name: str, formula: Callable[..., V]) -> Callable[[V], V]:
    """The function of all numbers: what is rare leaves the short reduction for the long one, then for libm."""

    def libm(x: V) -> V:
        return call(f"llvm.{name}", x)

    def far(x: V) -> V:
        return rarely(f"{name}.huge", HUGE, libm, formula(x, *_sin_cos(*_reduce_far(x))), x)

    def function(x: V) -> V:
        y = formula(x, *_sin_cos(*_reduce(x)))
        return rarely(name, REDUCIBLE[x.type], far if x.type == F32 else libm, y, x)

    return function


sin, cos, tan = _everywhere("sin", _sin), _everywhere("cos", _cos), _everywhere("tan", _tan)


# ---------------------------------------------------------------------------------------- inverses

# (asin r - r) / r^3 in r^2, |r| <= 1/2; minimax, errors 2^-27.6 and 2^-55.9
ASIN = {
    F32: (4.2158306e-02, 2.4184778e-02, 4.546915e-02, 7.4953094e-02, 1.6666752e-01),
    F64: (
        0.03191444902854889, -0.016227378288994558, 0.019530219395959423, 0.006527276397379113,
        0.01216936928681044, 0.013885212143336108, 0.017359707043214948, 0.022371757905627124,
        0.030381959142691154, 0.04464285682819861, 0.07500000000337158, 0.16666666666665408,
    ),
}  # fmt: skip

# (atan r - r) / r^3 in r^2, |r| <= 1; minimax, errors 2^-28.5 and 2^-57.6
ATAN = {
    F32: (
        -1.7889539e-03, 1.0892664e-02, -3.1134803e-02, 5.7912022e-02, -8.4006414e-02, 1.0951175e-01,
        -1.4264041e-01, 1.999853e-01, -3.33333e-01,
    ),
    F64: (
        1.3230026091261991e-05, -0.0001522116550129618, 0.0008315632953219575, -0.0028856241951719817,
        0.007197922386125984, -0.013902641660775393, 0.02198715684483969, -0.029905820877015186,
        0.036643212572790615, -0.042192465071517866, 0.04722349632006005, -0.052535272065170106,
        0.05880529916566315, -0.06666404443930078, 0.07692279891725992, -0.0909090700806171,
        0.11111111007357623, -0.14285714282588602, 0.19999999999951756, -0.3333333333333307,
    ),
}  # fmt: skip

# pi/2 and pi in two parts of each type
PIO2 = {t: parts[:2] for t, parts in PIO2_PARTS.items()}
PI = {t: (2 * hi, 2 * lo) for t, (hi, lo) in PIO2.items()}


def _asin_parts(a: V) -> tuple[V, V, V]:
    """(r, p, outer): asin(r) = r + p for r = a or, where a > 1/2 (outer), sqrt((1 - a) / 2); NaN for a > 1."""
    outer = a.gt(0.5)
    half = fma(a, -0.5, 0.5)
    w = select(outer, half, a * a)
    r = select(outer, sqrt(half), a)
    return r, r * w * poly(w, ASIN[a.type]), outer


def asin(x: V) -> V:
    r, p, outer = _asin_parts(fabs(x))
    hi, lo = PIO2[x.type]
    # pi/2 - 2 (r + p) in two steps of pi/4, as fdlibm: the first is exact or nearly so, and small
    far = hi / 2 - (fma(p, 2.0, -lo) - fma(r, -2.0, hi / 2))
    return copysign(select(outer, far, r + p), x)


def acos(x: V) -> V:
    r, p, outer = _asin_parts(fabs(x))
    hi, lo = PIO2[x.type]
    y = r + p
    inner = hi - (copysign(y, x) - lo)
    twice = y + y
    full, full_lo = PI[x.type]
    end = select(x.lt(0), full - (twice - full_lo), twice)
    return select(outer, end, inner)


def _atan_unit(t: V) -> V:
    """atan of t in [0, 1]."""
    w = t * t
    return fma(t * w, poly(w, ATAN[t.type]), t)


def atan(x: V) -> V:
    a = fabs(x)
    outer = a.gt(1.0)
    y = _atan_unit(select(outer, 1.0, a) / select(outer, a, 1.0))
    hi, lo = PIO2[x.type]
    return copysign(select(outer, hi - (y - lo), y), x)


def atan2(y: V, x: V) -> V:
    ay, ax = fabs(y), fabs(x)
    steep = ~ay.lt(ax)
    num, den = select(steep, ax, ay), select(steep, ay, ax)
    t = select(num.eq(den), select(den.eq(0), x.const(0.0), 1.0), num / den)  # 0/0 counts as 0, inf/inf as 1
    # steep is also 0/0, where the axis decides
    steep = steep & den.ne(0)
    left = x.bits().lt(0)
    r = _atan_unit(t)
    hi, lo = PIO2[x.type]
    full, full_lo = PI[x.type]
    base = select(steep, x.const(hi), select(left, x.const(full), 0.0))
    base_lo = select(steep, x.const(lo), select(left, x.const(full_lo), 0.0))
    r = select(steep ^ left, -r, r)
    return copysign(base + (r + base_lo), y)
