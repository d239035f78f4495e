"""Exponentials and logarithms: exp exp2 expm1 sigmoid, log log1p log2 log10 softplus.

Reductions follow Cody and Waite, "Software Manual for the Elementary Functions" (1980), and Tang's two-part
ln 2.  Polynomials are minimax fits (Remez exchange, coefficients rounded one after another from the lowest
power up) unless a source is named; each is given from the highest power down, with its relative error in the
function.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphjit.kernels.irmath import F32, F64, V, copysign, fabs, fma, ldexp, select
from graphjit.kernels.target import target
from graphjit.kernels.vmath_parts import bias, clamp, float_of, mantissa_bits, poly, pow2, pow2_parts, round_to_int
from graphjit.kernels.vmath_rare import rarely

INF, NAN = math.inf, math.nan
LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453
# fdlibm's split of ln 2: the high part has enough trailing zeros that n * LN2_HI is exact
LN2_HI = {F32: 6.9314575195e-01, F64: 6.93147180369123816490e-01}
LN2_LO = {F32: 1.4286067653e-06, F64: 1.90821492927058770002e-10}

# (e^r - 1 - r) / r^2 on |r| <= ln(2)/2; errors 2^-26.1 and 2^-60.3 of expm1
EXPM1 = {
    F32: (1.3837832e-03, 8.36732e-03, 4.166774e-02, 1.6666538e-01, 4.9999997e-01),
    F64: (
        2.0927770142521865e-09, 2.5108996209918672e-08, 2.755724166037531e-07, 2.755724451326474e-06,
        2.4801587351278476e-05, 0.00019841269885657357, 0.0013888888888875046, 0.008333333333321829,
        0.041666666666666685, 0.16666666666666677, 0.5,
    ),
}  # fmt: skip

# (2^r - 1) / r on |r| <= 1/2; errors 2^-26.1 and 2^-57 of 2^r
EXP2 = {
    F32: (
        1.4332875e-05, 1.5452884e-04, 1.3337927e-03, 9.618088e-03, 5.550405e-02, 2.402265e-01, 6.931472e-01,
    ),
    F64: (
        5.634470021212965e-11, 4.4835677715682133e-10, 7.032168304385695e-09, 1.017786654166266e-07,
        1.3215549314941074e-06, 1.5252734313009864e-05, 0.00015403530315635734, 0.0013333558145903692,
        0.00961812910767061, 0.055504108664823755, 0.24022650695909997, 0.6931471805599453,
    ),
}  # fmt: skip

# where exp leaves the format's range, with some slack: below the first it is 0, above the second infinite
EXP_RANGE = {F32: (-104.0, 89.0), F64: (-746.0, 710.0)}
EXP2_RANGE = {F32: (-151.0, 129.0), F64: (-1076.0, 1025.0)}
EPSILON = {F32: 2.0**-26, F64: 2.0**-55}  # where 1 + t is 1
# below this expm1 is -1
EXPM1_LOWEST = {F32: -20.0, F64: -40.0}


def reduced(x: V, offset: int = 0) -> tuple[V, V]:
    """(r, bits) with e^x = e^r 2^k, |r| <= ln(2)/2; `bits` those of k + offset."""
    n, bits = round_to_int(x, LOG2E, offset)
    return fma(n, -LN2_LO[x.type], fma(n, -LN2_HI[x.type], x)), bits


def reduce_exp(x: V, offset: int = 0) -> tuple[V, V, V]:
    """(r, w, bits) with e^x = (1 + r + w) 2^k, |r| <= ln(2)/2 and w = O(r^2); `bits` those of k + offset."""
    r, bits = reduced(x, offset)
    return r, poly(r, EXPM1[x.type]) * (r * r), bits


def scale(x: V, bits: V) -> V:
    """x 2^k by the bits that `round_to_int` gives for k + 2 bias: results may overflow or be denormal."""
    if target().scales:
        return ldexp(x, bits - x.const(1.5 * 2.0 ** mantissa_bits(x.type) + 2 * bias(x.type)).bits())
    up, rest = pow2_parts(bits)
    return x * up * rest


def unless_below(x: V, lo: float, hi: float, formula: Callable[[V], V]) -> V:
    """The formula of x up to hi, 0 below lo: scaling to what is less than the least number takes a CPU 100 cycles."""
    low = x.lt(lo)
    return select(low, 0.0, formula(select(low, 0.0, select(x.gt(hi), hi, x))))


def exp(x: V) -> V:
    def formula(x: V) -> V:
        r, bits = reduced(x, 2 * bias(x.type))
        return scale(fma(fma(poly(r, EXPM1[x.type]), r, 1.0), r, 1.0), bits)

    return unless_below(x, *EXP_RANGE[x.type], formula)


def exp2(x: V) -> V:
    def formula(x: V) -> V:
        n, bits = round_to_int(x, offset=2 * bias(x.type))
        r = x - n
        return scale(fma(poly(r, EXP2[x.type]), r, 1.0), bits)

    return unless_below(x, *EXP2_RANGE[x.type], formula)


def expm1(x: V) -> V:
    r, w, bits = reduce_exp(clamp(x, EXPM1_LOWEST[x.type], EXP_RANGE[x.type][1]), 2 * bias(x.type))
    up, rest = pow2_parts(bits)
    down = float_of((2 * bias(x.type) << mantissa_bits(x.type)) - rest.bits())
    # 2^k (1 + r + w) - 1, the -1 taken at the scale of `up`; the small w last; r + w for k = 0
    y = fma(w, up, fma(r, up, up - down)) * rest
    return copysign(y, x)  # -0


# between them sigmoid is neither 1 nor e^x, and 2^k in it is a normal number
SIGMOID_RANGE = {F32: (-87.0, 20.0), F64: (-708.0, 40.0)}


def sigmoid(x: V) -> V:
    """1 / (1 + e^-x) = 2^k / (2^k + 1 + w) with x = k ln 2 - r and e^r = 1 + w, accurate in both tails."""
    t = x.type
    low, high = SIGMOID_RANGE[t]
    a = select(x.gt(high), high, x)
    n, bits = round_to_int(a, LOG2E, bias(t))
    r = fma(n, LN2_LO[t], fma(n, LN2_HI[t], -a))
    w = fma(poly(r, EXPM1[t]), r * r, r)
    up = pow2(bits)
    below = up.lt(1.0)
    y = up / (select(below, 1.0, up + 1.0) + select(below, up + w, w))  # the largest last
    return rarely("sigmoid", low, exp, y, x, below=True)


# ---------------------------------------------------------------------------------------- logarithms

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


def log_edges(x: V, y: V) -> V:
    """y, but for x that is no positive finite number."""
    y = select(x.lt(INF), y, x)
    return select(x.gt(0), y, select(x.eq(0), x.const(-INF), NAN))


# log2(e) and log10(e), log10(2) in two parts; the high part of log10(2) short, for exact products with k
LOG2E_PARTS = {F32: (1.442695, 1.925963033500011e-08), F64: (1.4426950408889634, 2.0355273740931033e-17)}
LOG10E_PARTS = {F32: (0.43429448, -1.0103050052231683e-08), F64: (0.4342944819032518, 1.098319650216765e-17)}
LOG10_2_HI = {F32: 3.0102920532e-01, F64: 3.01029995663611771306e-01}  # fdlibm e_log10.c, e_log10f.c
LOG10_2_LO = {F32: 7.9034151668e-07, F64: 3.69423907715893078616e-13}


# exponents that say of x = m 2^k that it may be denormal, infinite, negative, 0 or NaN (see `split`)
UNUSUAL = {F32: 126, F64: 1022}


def _any_log(x: V, whole: Callable[[V, V, V], V]) -> V:
    m, k = normal_split(x)
    return log_edges(x, whole(k, *log1p_small(m - 1.0)))


def _logarithm(name: str, whole: Callable[[V, V, V], V]) -> Callable[[V], V]:
    """The logarithm that `whole` makes from k and the two parts of log(m), where x = m 2^k."""

    def function(x: V) -> V:
        m, k, _ = split(x)
        y = whole(k, *log1p_small(m - 1.0))
        return rarely(name, UNUSUAL[x.type], lambda _, x: _any_log(x, whole), y, k, x)

    return function


def _whole_log2(k: V, hi: V, lo: V) -> V:
    c, c_lo = LOG2E_PARTS[k.type]
    return k + fma(hi, c, fma(lo, c, hi * c_lo))


def _whole_log10(k: V, hi: V, lo: V) -> V:
    c, c_lo = LOG10E_PARTS[k.type]
    tail = fma(k, LOG10_2_LO[k.type], fma(lo, c, hi * c_lo))
    return fma(k, LOG10_2_HI[k.type], fma(hi, c, tail))


log = _logarithm("log", add_exponent)
log2 = _logarithm("log2", _whole_log2)
log10 = _logarithm("log10", _whole_log10)


def log1p_parts(x: V, tail: V | None = None) -> tuple[V, V]:
    """(log(1 + x + tail), k), for a tail below x's last place, k the exponent of 1 + x: |k| < UNUSUAL."""
    u = x + 1.0
    m, k, e = split(u)
    down = float_of(((2 * bias(x.type)) - e) << mantissa_bits(x.type))
    # (1 + x + tail) 2^-k - 1, rounded once
    f = fma(x, down, down - 1.0) if tail is None else fma(x - (u - 1.0) + tail, down, m - 1.0)
    return add_exponent(k, *log1p_small(f)), k


def log1p(x: V) -> V:
    y, k = log1p_parts(x)
    return copysign(rarely("log1p", UNUSUAL[x.type], _log1p_unusual, y, k, x), x)  # -0


def _log1p_unusual(_: V, x: V) -> V:
    """Of what is so large that adding 1 is of no account, or has no logarithm."""
    return _any_log(select(x.le(-1.0), x + 1.0, x), add_exponent)


# (log(1+t) - t) / t^2 on [0, 1]; minimax, errors 2^-27.5 and 2^-54.7 of log(1+t)
SOFTPLUS = {
    F32: (
        -3.2904686e-03, 2.0086242e-02, -5.745723e-02, 1.0661128e-01, -1.534488e-01, 1.9692102e-01,
        -2.4958019e-01, 3.3330464e-01, -4.999993e-01,
    ),
    F64: (
        2.5333795352533528e-05, -0.0002918006203704403, 0.001595927659815452, -0.005543651916274979,
        0.013839676418856642, -0.026745546303527767, 0.042301848912189306, -0.05750346990692162,
        0.07035637044451402, -0.08081260086441687, 0.09013173195971419, -0.09981021065484294,
        0.11107507487580717, -0.12499479887675122, 0.14285658934722942, -0.16666662502156127,
        0.19999999791564096, -0.2499999999368653, 0.33333333333235265, -0.4999999999999946,
    ),
}  # fmt: skip


def softplus(x: V) -> V:
    """log(1 + e^x) = max(x, 0) + log(1 + t) with t = e^-|x| in [0, 1]: no reduction, no division."""
    t = exp(-fabs(x))
    square = t * select(t.lt(EPSILON[x.type]), 0.0, t)  # of no account, and slow where it is denormal
    return select(x.lt(0), 0.0, x) + fma(square, poly(t, SOFTPLUS[x.type]), t)
