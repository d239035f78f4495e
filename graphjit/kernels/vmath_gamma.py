"""The logarithm of the gamma function and its derivative: lgamma digamma.

Both are computed in float64, with one logarithm and one division for x > 0 and the reflection formulas for x
< 0.  Near the zeros of either between negative integers the error is absolute rather than relative, as in most
libraries.
"""

from __future__ import annotations

import math

from graphjit.kernels.irmath import V, call, copysign, fabs, fma, select
from graphjit.kernels.vmath_log import log, log_two_parts
from graphjit.kernels.vmath_parts import poly, through_double
from graphjit.kernels.vmath_rare import rarely

INF, NAN = math.inf, math.nan

# lgamma(x) / ((x-1)(x-2)) in x - 1.6, 0.7 <= x <= 2.5; minimax, error 2^-54.5.  The constant term stands
# apart, so that the sum is never rounded by itself.
LGAMMA_CENTRE, LGAMMA_CONSTANT = 1.6, 0.46913235706981576
LGAMMA = (
    -2.7291549183141105e-07, 4.0591716647655123e-07, 9.898999597730145e-07, -1.3730235900654172e-06,
    -2.275492913733846e-06, 3.0720989795858334e-06, 2.3075615133431396e-06, -2.7341739936277755e-06,
    -3.4318260787362955e-06, 4.589908972970701e-06, -1.6867049884694358e-06, 3.652354119699462e-06,
    -9.364272299536406e-06, 1.5384572888563415e-05, -2.4795085711787672e-05, 4.2259823752134406e-05,
    -7.239194105619303e-05, 0.00012392886932257926, -0.0002132538950961469, 0.0003693331141374677,
    -0.0006443604399921359, 0.0011343932210310973, -0.002020110390498509, 0.0036517546498277746,
    -0.006737661431177168, 0.01280096293992186, -0.025433536502727783, 0.0544399696163751,
    -0.13425408899797137,
)  # fmt: skip

# digamma(x) / (x - x0) in x - 1.75, 1 <= x <= 2.5, x0 its zero; minimax, error 2^-55
DIGAMMA_CENTRE, DIGAMMA_CONSTANT = 1.75, 0.8581832171262995
DIGAMMA_ZERO = (1.4616321449683622, 9.549995429965697e-17)
DIGAMMA = (
    -1.2253272857940766e-06, 2.0771847695372077e-06, 8.383557257603573e-07, -1.2313621102753329e-06,
    -5.066708407748052e-06, 8.502659873377617e-06, -8.09479631652775e-06, 1.4491927603557804e-05,
    -2.9472100000937878e-05, 5.1395283679579507e-05, -8.827707855212036e-05, 0.00015459421095503323,
    -0.0002711158633667919, 0.0004747271414946675, -0.0008314933298642459, 0.0014573686088128882,
    -0.0025566868997395215, 0.00449181421751475, -0.007910468751741328, 0.013985786158613258,
    -0.02489004848987064, 0.04479965445342082, -0.08228558635576412, 0.15712011335203652, -0.3262546278681058,
)  # fmt: skip

# Stirling's series: (lgamma(x) - (x - 1/2)(log x - 1) - (log(2 pi) - 1)/2) x and (log x - 1/(2x) -
# digamma(x)) x^2 in 1/x^2, x >= LARGE; minimax, errors 2^-65.8 and 2^-63.7
LARGE = 5.0
LGAMMA_LARGE = (
    0.056648209742028374, -0.022311490112206105, 0.006139891953797615, -0.0019111545335275433,
    0.0008416575649042676, -0.0005952372840831044, 0.0007936507898303328, -0.002777777777769733,
    0.08333333333333333,
)  # fmt: skip
HALF_LOG_2PI_LESS_HALF = 0.4189385332046727
DIGAMMA_LARGE = (
    0.8092015712590522, -0.3093518352130917, 0.0780978011340612, -0.020960358845843075, 0.007573621432921167,
    -0.0041666454711431385, 0.00396825384805816, -0.008333333332997368, 0.08333333333333301,
)  # fmt: skip

# sin(pi r) / r and cos(pi r) in r^2, |r| <= 1/2; minimax, errors 2^-54.5 and 2^-57.4 (absolute)
SIN_PI = (
    5.564754290025397e-07, -2.1687291780239666e-05, 0.0004662106102932742, -0.0073704112926633964,
    0.0821458842734182, -0.5992645291688669, 2.5501640398724654, -5.16771278004991, 3.141592653589793,
)  # fmt: skip
COS_PI = (
    4.147346394746468e-06, -0.00010456456593137279, 0.0019295555746551693, -0.02580688861710887,
    0.23533063011951985, -1.3352627688431513, 4.058712126416504, -4.934802200544677, 1.0,
)  # fmt: skip

LOG_PI = 1.1447298858494002
PI = 3.141592653589793


def _fraction(x: V) -> V:
    """x less its nearest integer; 0 where x is infinite."""
    return select(fabs(x).lt(INF), x - call("llvm.rint", x), 0.0)


@through_double
def lgamma(x: V) -> V:
    a = fabs(x)
    small, middle, large = a.lt(0.7), a.ge(2.5) & a.lt(LARGE), a.ge(LARGE)

    # middle: down by whole steps to y in [1.5, 2.5), gathering the factors
    y, product = a, a.const(1.0)
    for _ in range(3):
        more = y.ge(2.5) & middle
        y = select(more, y - 1.0, y)
        product = select(more, product * y, product)
    y = select(small, a + 1.0, select(large, 2.0, y))
    y1, y2 = y - 1.0, y - 2.0
    t = y1 * y2
    u = y - LGAMMA_CENTRE
    p = u * poly(u, LGAMMA)
    direct = fma(t, LGAMMA_CONSTANT, fma(t, p, fma(y1, y2, -t) * (p + LGAMMA_CONSTANT)))

    # one logarithm, in two parts for Stirling's formula, which multiplies its error by x
    log_hi, log_lo = log_two_parts(select(middle, product, a))
    near = direct + select(small, -log_hi, select(middle, log_hi, 0.0))

    inverse = 1.0 / a
    series = fma(inverse, poly(inverse * inverse, LGAMMA_LARGE), HALF_LOG_2PI_LESS_HALF)
    b, g = a - 0.5, log_hi - 1.0
    far = b * g
    far_lo = fma(b, g, -far) + fma(b, log_lo, series)
    far = select(a.lt(2.0**60), far + far_lo, far)

    y = select(large, far, near)
    y = select(a.eq(0), INF, select(a.lt(INF), y, a))

    # whose reflection takes as long as all the rest
    return rarely("lgamma", 0.0, lambda _, y, a: _lgamma_reflected(y, a), y, x, y, a, below=True, together=True)


def _lgamma_reflected(y: V, a: V) -> V:
    """lgamma(-a) = log(pi / (a |sin(pi a)|)) - lgamma(a); near 0 both are -log(a)."""
    r = _fraction(a)
    sine = fabs(r * poly(r * r, SIN_PI))
    reflected = LOG_PI - log(a * sine) - y
    return select(a.lt(2.0**-60), y, select(sine.eq(0), INF, reflected))


@through_double
def digamma(x: V) -> V:
    negative = x.lt(0)
    a = select(negative, 1.0 - x, x)
    small, large = a.lt(1.0), a.ge(LARGE)

    # down by whole steps to y in [1, 2.5], adding up 1/(x-1) + 1/(x-2) + ... as one fraction
    # (the denominator in two parts: its rounding errors would add up)
    y, num, den, den_lo = a, a.const(0.0), a.const(1.0), a.const(0.0)
    for _ in range(3):
        more = y.gt(2.5) & ~large
        y = select(more, y - 1.0, y)
        num = select(more, fma(num, y, den), num)
        product = den * y
        den_lo = select(more, fma(den_lo, y, fma(den, y, -product)), den_lo)
        den = select(more, product, den)
    y = select(small, a + 1.0, select(large, 2.0, y))
    num = select(small, -1.0, select(large, 1.0, num))
    den = select(small | large, a, den)
    quotient = num / den
    quotient_lo = (fma(-quotient, den, num) - quotient * den_lo) / den
    quotient_lo = select(fabs(quotient).lt(INF), quotient_lo, 0.0)

    hi, lo = DIGAMMA_ZERO
    d, u = (y - hi) - lo, y - DIGAMMA_CENTRE
    near = quotient + fma(d, DIGAMMA_CONSTANT, fma(d, u * poly(u, DIGAMMA), quotient_lo))

    w = quotient * quotient
    far = log(a) - fma(w, poly(w, DIGAMMA_LARGE), quotient * 0.5)
    y = select(large, far, near)
    y = select(a.lt(INF), y, a)

    y = rarely("digamma", 0.0, lambda x, y: _digamma_reflected(y, x), y, x, y, below=True, together=True)
    return select(x.eq(0), copysign(INF, -x), y)


def _digamma_reflected(y: V, x: V) -> V:
    """digamma(x) = digamma(1 - x) - pi / tan(pi x)."""
    r = _fraction(x)
    w = r * r
    return select(r.eq(0), NAN, y - PI * poly(w, COS_PI) / (r * poly(w, SIN_PI)))
