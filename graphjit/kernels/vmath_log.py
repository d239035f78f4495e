"""Logarithms: log log1p log2 log10.

Where vectors look up tables in registers by those of `vmath_tables.py`, elsewhere by longer polynomials or a quotient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphjit.kernels.irmath import F32, F64, FLOATS, V, copysign, fma, select
from graphjit.kernels.target import target
from graphjit.kernels.vmath_avx512 import lookup
from graphjit.kernels.vmath_exp import LN2, LN2_HI, LN2_LO
from graphjit.kernels.vmath_parts import bias, float_of, mantissa_bits, poly
from graphjit.kernels.vmath_rare import rarely
from graphjit.kernels.vmath_tables import exponent_of, log_table, reduce_log, reduced_by_table

INF, NAN = math.inf, math.nan

# (log(1+f) - f + f^2/2) / f^3 on |f| <= 1/3; error 2^-29.3
LOG_F32 = (
    1.1728845e-01, -1.2883158e-01, 1.08222425e-01, -1.2187943e-01, 1.4298953e-01, -1.6680086e-01,
    1.9999765e-01, -2.4999811e-01, 3.3333334e-01,
)  # fmt: skip

# fdlibm e_log.c, Lg7 .. Lg1: log(1+f) = f - f^2/2 + s (f^2/2 + R(s^2)), s = f / (2+f); error 2^-58.5
LOG_F64 = (
    1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01, 2.222219843214978396e-01,
    2.857142874366239149e-01, 3.999999999940941908e-01, 6.666666666666735130e-01,
)  # fmt: skip

# smallest mantissa of the reduced argument: 2/3 <= m < 4/3 (F32), sqrt(1/2) <= m < sqrt(2) (fdlibm's, F64)
LEAST = {F32: 2.0 / 3.0, F64: math.sqrt(0.5)}


def log1p_small(f: V, tail: V | None = None) -> tuple[V, V]:
    """log(1 + f + tail) as an unevaluated sum (f, rest), for 1 + f in [LEAST, 2 LEAST)."""
    if f.type == F32:
        rest = f * f * fma(poly(f, LOG_F32), f, -0.5)
    else:
        s = f / (f + 2.0)
        w = s * s
        half = f * f * 0.5
        rest = fma(s, fma(w, poly(w, LOG_F64), half), -half)
    return (f, rest) if tail is None else (f, rest + tail)


def split(x: V, exponent_offset: V | int = 0, least: float | None = None) -> tuple[V, V, V]:
    """(m, k, e): x = m 2^k with least <= m < 2 least (by default LEAST), for normal positive x.

    k is a float, less `exponent_offset`; e the integer k + bias.  Only logical shifts and no int -> float
    conversion: for 64-bit integers AVX2 has neither the arithmetic shift nor the conversion.
    """
    t, mb = x.type, mantissa_bits(x.type)
    lowest = x.const(LEAST[t] if least is None else least).bits()
    u = x.bits() - lowest + (bias(t) << mb)
    e = u.shift_right_logical(mb)
    m = float_of((u & ((1 << mb) - 1)) + lowest)
    two_mb = x.const(2.0**mb)
    k = float_of(e | two_mb.bits()) - (2.0**mb + bias(t) + exponent_offset)
    return m, k, e


def add_exponent(k: V, hi: V, lo: V) -> V:
    """k ln 2 + hi + lo, small parts first."""
    if k.type == F32:  # one part of ln 2 will do: where k is not 0 the sum is large
        return fma(k, LN2, hi + lo)
    return fma(k, LN2_HI[k.type], hi + fma(k, LN2_LO[k.type], lo))


def log_two_parts(x: V) -> tuple[V, V]:
    """log of a positive finite number and what its last rounding lost."""
    m, k = normal_split(x)
    hi, lo = log1p_small(m - 1.0)
    rest = hi + fma(k, LN2_LO[x.type], lo)
    whole = fma(k, LN2_HI[x.type], rest)
    return whole, rest - fma(k, -LN2_HI[x.type], whole)


def normal_split(x: V) -> tuple[V, V]:
    """(m, k) as `split`, also for denormal x."""
    mb, b = mantissa_bits(x.type), bias(x.type)
    small = x.lt(2.0 ** (1 - b))
    m, k, _ = split(select(small, x * 2.0**mb, x), select(small, x.const(mb), 0.0))
    return m, k


# log2(e) and log10(e), log10(2) in two parts; the high part of log10(2) short, for exact products with k
LOG2E_PARTS = {F32: (1.442695, 1.925963033500011e-08), F64: (1.4426950408889634, 2.0355273740931033e-17)}
LOG10E_PARTS = {F32: (0.43429448, -1.0103050052231683e-08), F64: (0.4342944819032518, 1.098319650216765e-17)}
LOG10_2_HI = {F32: 3.0102920532e-01, F64: 3.01029995663611771306e-01}  # fdlibm e_log10.c, e_log10f.c
LOG10_2_LO = {F32: 7.9034151668e-07, F64: 3.69423907715893078616e-13}


def _whole_log2(k: V, hi: V, lo: V) -> V:
    c, c_lo = LOG2E_PARTS[k.type]
    return k + fma(hi, c, fma(lo, c, hi * c_lo))


def _whole_log10(k: V, hi: V, lo: V) -> V:
    c, c_lo = LOG10E_PARTS[k.type]
    tail = fma(k, LOG10_2_LO[k.type], fma(lo, c, hi * c_lo))
    return fma(k, LOG10_2_HI[k.type], fma(hi, c, tail))


@dataclass(frozen=True)
class Base:
    """Of logarithms: `number` (0: Euler's), the logarithms of e and 2 (by type, in two parts, the first so short that
    sums are exact), and what makes them from k and log(m)."""

    number: int
    e: float
    two: dict[Any, tuple[float, float]]
    whole: Callable[[V, V, V], V]


NATURAL = Base(0, 1.0, {t: (LN2_HI[t], LN2_LO[t]) for t in FLOATS}, add_exponent)
BINARY = Base(2, 1 / LN2, dict.fromkeys(FLOATS, (1.0, 0.0)), _whole_log2)
DECIMAL = Base(10, LOG10E_PARTS[F64][0], {t: (LOG10_2_HI[t], LOG10_2_LO[t]) for t in FLOATS}, _whole_log10)

# exponents that say of x = m 2^k that it may be denormal, infinite, negative, 0 or NaN (see `split`)
UNUSUAL = {F32: 126, F64: 1022}

# (log(1+f) - f) / f^2 for |f| <= 0.0222 and 0.0419; minimax, errors 2^-26.8 and 2^-58
LOG_NEAR = {
    F32: (-0.2500873, 0.333415, -0.5),
    F64: (
        -0.1003865466670116, 0.11150070422890902, -0.1249993656454094, 0.1428565684697529, -0.16666666709607303,
        0.20000000033334045, -0.24999999999990155, 0.3333333333332733, -0.5,
    ),
}  # fmt: skip


def _near(k: V, f: V, index: V, base: Base) -> V:
    """The logarithm of 2^k (1 + f) / c (see `reduce_log`)."""
    t = f.type
    heads, rests = log_table(t, base.number)
    name = f"log{base.number}"
    two, two_lo = base.two[t]
    whole = fma(k, two, lookup(name + ".head", index, heads))  # exact
    rest = lookup(name + ".rest", index, rests)
    if two_lo:
        rest = fma(k, two_lo, rest)
    if base.number:
        return whole + fma(f, poly(f, [c * base.e for c in (*LOG_NEAR[t], 1.0)]), rest)
    return whole + (f + fma(f * f, poly(f, LOG_NEAR[t]), rest))


def log_of_normal(x: V, base: Base, less: V | float = 0.0) -> tuple[V, V]:
    """(log(x) - less log(2), k) of x = m 2^k, for normal positive x."""
    if target().avx512:
        k, f, index = reduce_log(x)
        return _near(k - less, f, index, base), k
    m, k, _ = split(x)
    return base.whole(k - less, *log1p_small(m - 1.0)), k


def _any_log(x: V, base: Base) -> V:
    """Of any x."""
    small = x.lt(2.0 ** (1 - bias(x.type)))
    mb = mantissa_bits(x.type)
    y, _ = log_of_normal(select(small, x * 2.0**mb, x), base, select(small, x.const(mb), 0.0))
    y = select(x.lt(INF), y, x)
    return select(x.gt(0), y, select(x.eq(0), x.const(-INF), NAN))


def _logarithm(name: str, base: Base) -> Callable[[V], V]:
    def function(x: V) -> V:
        y, k = log_of_normal(x, base)
        return rarely(name, UNUSUAL[x.type], lambda _, x: _any_log(x, base), y, k, x)

    return function


log = _logarithm("log", NATURAL)
log2 = _logarithm("log2", BINARY)
log10 = _logarithm("log10", DECIMAL)


def log1p_parts(x: V, tail: V | None = None) -> tuple[V, V]:
    """(log(1 + x + tail), k), for a tail below x's last place, k the exponent of 1 + x: |k| < UNUSUAL."""
    u = x + 1.0
    if target().avx512:
        k, down, index = exponent_of(u)
    else:
        _, k, e = split(u)
        down = float_of(((2 * bias(x.type)) - e) << mantissa_bits(x.type))
    # (1 + x + tail) 2^-k - 1, rounded once
    f = fma(x, down, down - 1.0) if tail is None else fma(x - (u - 1.0) + tail, down, fma(u, down, -1.0))
    if target().avx512:
        return _near(k, reduced_by_table(f, index), index, NATURAL), k
    return add_exponent(k, *log1p_small(f)), k


def log1p(x: V) -> V:
    y, k = log1p_parts(x)
    return copysign(rarely("log1p", UNUSUAL[x.type], _log1p_unusual, y, k, x), x)  # -0


def _log1p_unusual(_: V, x: V) -> V:
    """Of what is so large that adding 1 is of no account, or has no logarithm."""
    return _any_log(select(x.le(-1.0), x + 1.0, x), NATURAL)
