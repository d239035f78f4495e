"""Error functions: erf erfc erfinv."""

from __future__ import annotations

import math

from graphjit.kernels.irmath import F32, F64, V, copysign, fabs, fma, select, sqrt
from graphjit.kernels.vmath_exp import EXP2, reduce_exp, scale
from graphjit.kernels.vmath_log import log_two_parts
from graphjit.kernels.vmath_parts import bias, poly, pow2, round_to_int, sqrt_residue

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
    n, bits, r, w = reduce_exp(-square, bias(F64) if t == F32 else 2 * bias(F64))
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
        y = scale(fma(residue, e_inverse, y), n, bits)
        # near 0 p is too steep
        near = 1.0 - fma(x, poly(square, ERF_NEAR[t]), x)
        return select(a.lt(0.4375), near, select(x.lt(0), 2.0 - y, y))
    return select(x.lt(0), 2.0 - y, y)


# erfinv(x) / x as M. Giles, "Approximating the erfinv function", GPU Computing Gems (2011): a polynomial in
# w = -log(1 - x^2) near 0, in sqrt(w) farther out.  Our own minimax fits, each such that the part that is neither
# the constant nor sqrt(w) is small, and its rounding with it; errors 2^-29.7, 2^-25.6; 2^-58, 2^-55, 2^-56.6.
# Near: (centre, constant in two parts, the rest divided by w - centre).
ERFINV_NEAR = {
    F32: (0.0, 0.88622695, -2.66232e-08, (
        -9.674734e-09, 2.393676e-07, -2.1339556e-06, 4.70826e-06, 4.2631043e-05, -1.2446668e-04, -2.3369235e-03,
        1.1549796e-02, 2.3201363e-01,
    )),
    F64: (1.5, 1.2520638405834421, -7.497607681745242e-17, (
        -8.102139037856928e-20, 1.949573026145395e-18, -1.689803032588598e-17, 2.659374676842126e-17,
        5.62243722194896e-16, -3.043426037734238e-15, -1.4638762202010504e-14, 1.8015569076434575e-13,
        8.368756769691456e-14, -8.320730040828121e-12, 2.2786987190254674e-11, 3.027178720440512e-10,
        -2.0197429211337624e-09, -7.232294366062855e-09, 1.1770357531138926e-07, -6.507545212266064e-08,
        -5.372773966852674e-06, 2.3288167936900583e-05, 0.00017766931513421973, -0.0020923279303865627,
        0.0008797647126625887, 0.25036244534245283,
    )),
}  # fmt: skip
# Far: (least w, centre, erfinv(x) / x - sqrt(w) in sqrt(w) - centre) of each piece.
ERFINV_FAR: dict[object, tuple[tuple[float, float, tuple[float, ...]], ...]] = {
    F32: ((4.0, 3.0, (
        1.1864321e-04, -3.2341908e-04, -4.930112e-05, 1.5005826e-03, -3.6078047e-03, 5.6815376e-03,
        -7.6339394e-03, 9.445927e-03, 1.6747203e-03, -1.6702321e-01,
    )),),
    F64: ((5.0, 3.1, (
        4.770378972346369e-09, 8.486187183663255e-10, -5.089096464661571e-08, 7.59429482167297e-08,
        1.1268052477151276e-07, -6.094385525548175e-07, 9.755920837775839e-07, 5.807398003816458e-07,
        -6.529636783661472e-06, 1.3482545290199383e-05, -1.5474078018155356e-06, -5.895381757403159e-05,
        0.00015085234731992785, -0.00012183559685967472, -0.00030757864124339354, 0.0013164351228057921,
        -0.0027132116605174525, 0.004121401249034126, -0.005696600277845145, 0.007460090473680121,
        0.003356116034823015, -0.16676832779132097,
    )), (16.0, 5.0, (
        -1.788283723723384e-11, 4.369865757782226e-11, 5.853363554989414e-11, -4.410313660356096e-10,
        1.3360741040145623e-09, -3.4654047056586945e-09, 7.801926911522102e-09, -1.5260394859336788e-08,
        2.9029529390463066e-08, -6.755348536356308e-08, 2.2904933811113192e-07, -9.930301656284693e-07,
        4.526053125286844e-06, -1.9681770580145666e-05, 7.599527804948001e-05, -0.0002150301198364564,
        -0.0001387193183790373, 0.010300464864545566, -0.15009359859141566,
    ))),
}  # fmt: skip


def erfinv(x: V) -> V:
    t = x.type
    a = fabs(x)
    log_hi, log_lo = log_two_parts(fma(-x, x, 1.0))
    w = -log_hi
    centre, head, rest, coefficients = ERFINV_NEAR[t]
    u = w - centre
    whole, part = x.const(head), fma(u, poly(u, coefficients), rest)
    root = sqrt(w)
    lost = sqrt_residue(root, w, -log_lo)
    for least, centre, coefficients in ERFINV_FAR[t]:
        far = w.ge(least)
        whole = select(far, root, whole)
        part = select(far, poly(root - centre, coefficients) + lost, part)
    y = fma(a, whole, a * part)
    return copysign(select(a.lt(1.0), y, select(a.eq(1.0), x.const(INF), NAN)), x)
