"""Error functions: erf erfc erfinv."""

from __future__ import annotations

import math

from graphjit.kernels.irmath import F32, F64, V, bias, copysign, fabs, fma, poly, pow2, round_to_int, select, sqrt
from graphjit.kernels.vmath_exp import EXP2, log_finite, reduce_exp, scale

INF, NAN = math.inf, math.nan

# erf(x)/x - 1 in x^2, |x| <= NEAR; minimax, errors 2^-30 and 2^-56.3
NEAR = {F32: 0.92, F64: 1.0}
ERF_NEAR = {
    F32: (
        7.995048e-05, -8.049515e-04, 5.1923925e-03, -2.685573e-02, 1.1283626e-01, -3.761263e-01,
        1.2837917e-01,
    ),
    F64: (
        1.4733439500239335e-10, -1.667548720248678e-09, 1.6062430012494504e-08, -1.6563621020377464e-07,
        1.6481590378179496e-06, -1.492690936494372e-05, 0.0001205538712897201, -0.0008548328555094809,
        0.005223977652916728, -0.0268661706480432, 0.11283791670971115, -0.376126389031841,
        0.1283791670955126,
    ),
}  # fmt: skip

# -log2(erfc(x)) in x - CENTRE, NEAR <= x <= FAR; weighted by erfc/erf: errors 2^-31 and 2^-61 of erf
CENTRE = {F32: 2.0, F64: 3.0}
FAR = {F32: 3.95, F64: 5.95}  # beyond it erf rounds to 1
ERF_FAR = {
    F32: (
        2.219461e-05, -2.2316394e-04, 1.037165e-03, -5.1433994e-03, 2.3767091e-02, 1.3326939e+00,
        6.3740582e+00, 7.739974e+00,
    ),
    F64: (
        2.6094481775463106e-13, 1.830592382281192e-12, 4.394114713844272e-12, 1.5891520754765602e-12,
        -3.983073556516419e-11, 9.790610710731343e-12, -2.770646646975921e-10, 1.0021921364750276e-09,
        -7.568204149077334e-10, -1.6535523818198047e-08, 1.9629298672646003e-07, -1.5429331741512743e-06,
        1.0265458683573173e-05, -6.215382290338652e-05, 0.00035445884920091633, -0.0019524142608113118,
        0.010693099532753032, 1.381227891639603, 9.094394186110527, 15.466214597195485,
    ),
}  # fmt: skip


def erf(x: V) -> V:
    """x (1 + p(x^2)) near 0; farther out 1 - 2^-g(x), where g is smooth and erfc need not be exact."""
    t = x.type
    a = fabs(x)
    w = a * a
    near = fma(a, poly(w, ERF_NEAR[t]), a)
    far = select(a.gt(FAR[t]), FAR[t], a)
    g = poly(far - CENTRE[t], ERF_FAR[t])
    n, bits = round_to_int(-g, offset=bias(t))
    r = -g - n
    complement = fma(poly(r, EXP2[t]), r, 1.0) * pow2(bits)
    return copysign(select(a.lt(NEAR[t]), near, 1.0 - complement), x)


# (1 + 2 x) exp(x^2) erfc(x) in q = (x - K) / (x + K), x >= 0, for float32 up to 10.6; minimax, errors 2^-34.5
# and 2^-54.5.  The form is that of Shepherd and Laframboise, "Chebyshev approximation of (1 + 2x) exp(x^2)
# erfc x", Math. Comp. 36 (1981).
K = {F32: 3.0, F64: 4.0}
ERFC = {
    F32: (
        3.254183862062799e-05, 0.00012502473571248643, -0.0001280755587058956, -0.0007894868170357886,
        0.0018953350162655206, 0.002533688531104106, -0.023771307882082766, 0.068307301094252,
        -0.11927362878173539, 0.12964520771531837, -0.047562294740129824, -0.13562110705405586,
        1.2530080582714553,
    ),
    F64: (
        1.3416397328119374e-09, 3.936684604176353e-09, -8.983792066816332e-09, -1.9531178584720395e-08,
        9.591508855678648e-08, 6.937493166452224e-08, -8.092479572941064e-07, 3.042637549082364e-07,
        5.699667378844297e-06, -1.1230522797898586e-05, -2.4395513383229292e-05, 0.00015062553827727113,
        -0.00019925750955985389, -0.0007577743459997376, 0.0050319700815096595, -0.01619773388339653,
        0.03716751553064019, -0.06633036582869432, 0.0937328349985314, -0.1010390660355132,
        0.06809705425469227, 0.015379652102604982, -0.13962111684056253, 1.2329951186255526,
    ),
}  # fmt: skip
ERFC_ZERO = {F32: 10.6, F64: 27.5}  # beyond it erfc rounds to 0


def erfc(x: V) -> V:
    t = x.type
    a = fabs(x).to(F64)  # float32 by way of float64, with a shorter polynomial
    a = select(a.gt(ERFC_ZERO[t]), ERFC_ZERO[t], a)
    d, e = a + K[t], fma(a, 2.0, 1.0)
    inverse = 1.0 / (d * e)
    p = poly((a - K[t]) * (e * inverse), ERFC[t])
    square = a * a
    r, w, bits = reduce_exp(-square, bias(F64) if t == F32 else 2 * bias(F64))
    if t == F32:
        y = (p * (r + w + 1.0) * (d * inverse) * pow2(bits)).to(F32)
    else:
        grown = r + w
        # a^2 = square + rest; e^-rest - 1 = -rest, for rest < 2^-44
        growth = fma(fma(a, a, -square), -1.0 - grown, grown)
        u = fma(p, growth, p)
        u_lo = fma(p, growth, p - u)
        e_inverse = d * inverse
        y = u * e_inverse
        e_lo = fma(a, 2.0, 1.0 - e)
        residue = fma(-y, e, u) + (u_lo - y * e_lo)
        y = scale(fma(residue, e_inverse, y), bits)
        # near 0 p is too steep
        near = 1.0 - fma(x, poly(square, ERF_NEAR[t]), x)
        return select(a.lt(0.4375), near, select(x.lt(0), 2.0 - y, y))
    return select(x.lt(0), 2.0 - y, y)


# erfinv(x) / x of M. Giles, "Approximating the erfinv function", GPU Computing Gems (2011): in w = -log(1 -
# x^2) near 0, in sqrt(w) farther out.  Our own minimax fits: (least w, centre, coefficients) of each piece,
# the centres chosen such that the last coefficient is nearly exact; errors 2^-26.4 and 2^-27.2; 2^-55,
# 2^-55.3, 2^-56.5.
ERFINV_NEAR = {
    F32: (2.500230312347412, (
        -8.976131e-09, 2.2926283e-08, 4.6889986e-07, -3.457499e-06, -4.980871e-06, 2.1831716e-04,
        -1.2525204e-03, -4.1782185e-03, 2.4663836e-01, 1.5014662e+00,
    )),
    F64: (3.1250000000004263, (
        3.3562364134109437e-21, -9.210199913197557e-22, -3.563723360829263e-19, 1.1394083345594282e-18,
        1.5728690784215914e-17, -1.2991521605593802e-16, -4.2394508398177514e-17, 6.5929478134744885e-15,
        -3.999429542032386e-14, -8.115447430166034e-14, 2.6303830360813203e-12, -1.2977049304747992e-11,
        -5.41425084297224e-11, 1.0512187475181046e-09, -4.112661659582185e-09, -2.9070383637100203e-08,
        4.2347881855722516e-07, -1.365469183133887e-06, -1.3882523395337106e-05, 0.0001867342080231525,
        -0.0007407025341537964, -0.006033670871428315, 0.24015818242558312, 1.653654562683205,
    )),
}  # fmt: skip
ERFINV_FAR: dict[object, tuple[tuple[float, float, tuple[float, ...]], ...]] = {
    F32: ((5.0, 3.0001537799835205, (
        1.2892696e-04, -3.1778778e-04, -7.738201e-05, 1.4945933e-03, -3.5851786e-03, 5.681053e-03,
        -7.6360265e-03, 9.442037e-03, 1.001678e+00, 2.8331308e+00,
    )),),
    F64: ((6.25, 3.2500000000003544, (
        -1.5822329480062236e-08, 5.047253625469413e-10, 1.3291515422784678e-07, -2.708212176613226e-07,
        -2.9045385513224764e-08, 1.4981118087233938e-06, -3.9848727704544805e-06, 2.9261062383509514e-06,
        1.2464741911073095e-05, -4.731912428307945e-05, 6.828717635045509e-05, 2.4031288334106476e-05,
        -0.0003550378208949632, 0.0009532893596791305, -0.001688275534971776, 0.0024914420972569997,
        -0.0037512085082375387, 0.00537091455355965, 1.0052589676941694, 3.083885610492577,
    )), (16.0, 5.000000000000008, (
        -1.7828149779460045e-11, 4.371712419927715e-11, 5.822254645634415e-11, -4.4110516497928017e-10,
        1.3368073036861704e-09, -3.465288972400254e-09, 7.800995500036507e-09, -1.5260481064068487e-08,
        2.9030222072240658e-08, -6.755345993234172e-08, 2.2904903257568103e-07, -9.930301616886144e-07,
        4.526053202085702e-06, -1.9681770584639264e-05, 7.599527803969102e-05, -0.00021503011983546274,
        -0.0001387193183785868, 1.0103004648645455, 4.849906401408592,
    ))),
}  # fmt: skip


def erfinv(x: V) -> V:
    t = x.type
    w = -log_finite(fma(-x, x, 1.0))
    centre, coefficients = ERFINV_NEAR[t]
    p = poly(w - centre, coefficients)
    root = sqrt(w)
    for least, centre, coefficients in ERFINV_FAR[t]:
        p = select(w.ge(least), poly(root - centre, coefficients), p)
    a = fabs(x)
    return select(a.lt(1.0), p * x, select(a.eq(1.0), copysign(INF, x), NAN))
