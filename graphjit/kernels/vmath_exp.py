"""Exponentials: exp exp_or_zero exp_in_sum exp2 expm1 sigmoid softplus.

Reductions follow Cody and Waite, "Software Manual for the Elementary Functions" (1980), and Tang's two-part
ln 2.  Polynomials are minimax fits (Remez exchange, coefficients rounded one after another from the lowest
power up) unless a source is named; each is given from the highest power down, with its relative error in the
function.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphjit.kernels.irmath import F32, F64, V, copysign, fabs, fma, select
from graphjit.kernels.target import target
from graphjit.kernels.vmath_avx512 import scale_by
from graphjit.kernels.vmath_parts import bias, clamp, float_of, mantissa_bits, poly, pow2, pow2_parts, round_to_int
from graphjit.kernels.vmath_rare import rarely
from graphjit.kernels.vmath_tables import EXP2_NEAR, root_of_two

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

EXP_NEAR = [c / LN2 ** (6 - i) for i, c in enumerate(EXP2_NEAR[F64])]  # (e^r - 1) / r on |r| <= ln(2)/32

# where exp leaves the format's range, with some slack: below the first it is 0, above the second infinite
EXP_RANGE = {F32: (-104.0, 89.0), F64: (-746.0, 710.0)}
EXP_NORMAL = {F32: -87.3365, F64: -708.396}  # above it e^x is a normal number,
EXP_FACTOR = {F32: -69.3147, F64: -623.832}  # and above it, 2^-100 and 2^-900, so is the product with most others
EXP2_RANGE = {F32: (-151.0, 129.0), F64: (-1076.0, 1025.0)}
EPSILON = {F32: 2.0**-26, F64: 2.0**-55}  # where 1 + t is 1
# below this expm1 is -1
EXPM1_LOWEST = {F32: -20.0, F64: -40.0}


def _rest(x: V, n: V) -> V:
    """x - n ln(2)."""
    return fma(n, -LN2_LO[x.type], fma(n, -LN2_HI[x.type], x))


def reduce_exp(x: V, offset: int = 0) -> tuple[V, V, V, V]:
    """(n, bits, r, w) with e^x = (1 + r + w) 2^n, |r| <= ln(2)/2 and w = O(r^2); `bits` those of n + offset."""
    n, bits = round_to_int(x, LOG2E, offset)
    r = _rest(x, n)
    return n, bits, r, poly(r, EXPM1[x.type]) * (r * r)


def scale(x: V, n: V, bits: V) -> V:
    """x 2^n by the integer n and the bits of n + 2 bias: results may overflow or be denormal."""
    if target().avx512:
        return scale_by(x, n)
    up, rest = pow2_parts(bits)
    return x * up * rest


def unless_below(x: V, lo: float, hi: float, formula: Callable[[V], V]) -> V:
    """The formula of x up to hi, 0 below lo: scaling to what is less than the least number takes a CPU 100 cycles."""
    low = x.lt(lo)
    return select(low, 0.0, formula(select(low, 0.0, select(x.gt(hi), hi, x))))


def exp(x: V) -> V:
    return _exp_above(x, EXP_RANGE[x.type][0])


def exp_or_zero(x: V) -> V:
    """e^x, and 0 where that is denormal: to make such numbers, and to compute with them, takes a CPU 100 cycles."""
    return _exp_above(x, EXP_NORMAL[x.type])


def exp_in_sum(x: V) -> V:
    """e^x, and 0 where it is so small that products with it would be denormal."""
    return _exp_above(x, EXP_FACTOR[x.type])


def _exp_above(x: V, low: float) -> V:
    formula = _by_table if target().avx512 and x.type == F64 else _by_polynomial
    return unless_below(x, low, EXP_RANGE[x.type][1], formula)


def _by_table(x: V) -> V:
    n, root = root_of_two(x, LOG2E)
    r = _rest(x, n)
    return scale_by(fma(root, r * poly(r, EXP_NEAR), root), n)


def _by_polynomial(x: V) -> V:
    n, bits = round_to_int(x, LOG2E, 2 * bias(x.type))
    r = _rest(x, n)
    return scale(fma(fma(poly(r, EXPM1[x.type]), r, 1.0), r, 1.0), n, bits)


def exp2(x: V) -> V:
    def formula(x: V) -> V:
        if target().avx512:
            n, root = root_of_two(x)
            r = x - n
            return scale_by(fma(root, r * poly(r, EXP2_NEAR[x.type]), root), n)
        n, bits = round_to_int(x, offset=2 * bias(x.type))
        r = x - n
        return scale(fma(poly(r, EXP2[x.type]), r, 1.0), n, bits)

    return unless_below(x, *EXP2_RANGE[x.type], formula)


def expm1(x: V) -> V:
    _, bits, r, w = reduce_exp(clamp(x, EXPM1_LOWEST[x.type], EXP_RANGE[x.type][1]), 2 * bias(x.type))
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
    t = unless_below(-fabs(x), *EXP_RANGE[x.type], _by_polynomial)  # more exact than by the table
    square = t * select(t.lt(EPSILON[x.type]), 0.0, t)  # of no account, and slow where it is denormal
    return select(x.lt(0), 0.0, x) + fma(square, poly(t, SOFTPLUS[x.type]), t)
