"""Roots, exponentials, logarithms, trigonometry, sigmoids: rows of the table and the functions of the same names."""

from __future__ import annotations

import math

import numpy as np

from graphjit.kernels import reference
from graphjit.op import Elementwise, Op, register
from graphjit.operators import attach
from graphjit.ops.families import Unary, float_binary, float_unary, unary
from graphjit.ops.rules import same

SQRT = unary("sqrt", np.sqrt, lambda g, out, x: (g / (out * 2),))
RSQRT = unary("rsqrt", lambda x: np.reciprocal(np.sqrt(x)), lambda g, out, x: (g * (out / x) * -0.5,))
RECIPROCAL = unary("reciprocal", np.reciprocal, lambda g, out, x: (-g * out * out,))
EXP = unary("exp", np.exp, lambda g, out, x: (g * out,))
EXP_OR_ZERO = unary("exp_or_zero", np.exp, lambda g, out, x: (g * out,))
EXP_IN_SUM = unary("exp_in_sum", np.exp, lambda g, out, x: (g * out,))
EXP2 = unary("exp2", np.exp2, lambda g, out, x: (g * (out * math.log(2)),))
EXPM1 = unary("expm1", np.expm1, lambda g, out, x: (g * (out + 1),))
LOG = unary("log", np.log, lambda g, out, x: (g / x,))
LOG1P = unary("log1p", np.log1p, lambda g, out, x: (g / (x + 1),))
LOG2 = unary("log2", np.log2, lambda g, out, x: (g / (x * math.log(2)),))
LOG10 = unary("log10", np.log10, lambda g, out, x: (g / (x * math.log(10)),))
SIN = unary("sin", np.sin, lambda g, out, x: (g * cos(x),))
COS = unary("cos", np.cos, lambda g, out, x: (-g * sin(x),))
TAN = unary("tan", np.tan, lambda g, out, x: (g * (out * out + 1),))
ASIN = unary("asin", np.arcsin, lambda g, out, x: (g * rsqrt(1 - x * x),))
ACOS = unary("acos", np.arccos, lambda g, out, x: (-g * rsqrt(1 - x * x),))
ATAN = unary("atan", np.arctan, lambda g, out, x: (g / (x * x + 1),))
SINH = unary("sinh", np.sinh, lambda g, out, x: (g * cosh(x),))
COSH = unary("cosh", np.cosh, lambda g, out, x: (g * sinh(x),))
TANH = unary("tanh", np.tanh, lambda g, out, x: (g * (1 - out * out),))
ASINH = unary("asinh", np.arcsinh, lambda g, out, x: (g * rsqrt(x * x + 1),))
ACOSH = unary("acosh", np.arccosh, lambda g, out, x: (g * rsqrt((x - 1) * (x + 1)),))
ATANH = unary("atanh", np.arctanh, lambda g, out, x: (g / ((1 - x) * (1 + x)),))
ATAN2 = register(Op("atan2", np.arctan2, same("atan2", "f"),
                    lambda g, out, y, x: (g * x / (x * x + y * y), -g * y / (x * x + y * y)),
                    Elementwise("atan2({0}, {1})", cheap=False)))
SIGMOID = unary("sigmoid", reference.sigmoid, lambda g, out, x: (g * (out * (1 - out)),))
SOFTPLUS = unary("softplus", reference.softplus, lambda g, out, x: (g * sigmoid(x),))
ERF = unary("erf", reference.erf, lambda g, out, x: (g * (exp(-x * x) * (2 / math.sqrt(math.pi))),))
ERFC = unary("erfc", reference.erfc, lambda g, out, x: (g * (exp(-x * x) * (-2 / math.sqrt(math.pi))),))
ERFINV = unary("erfinv", reference.erfinv,
                lambda g, out, x: (g * (exp(out * out) * (math.sqrt(math.pi) / 2)),))

sqrt = float_unary(SQRT, "Square root; NaN below 0.")
rsqrt: Unary = float_unary(RSQRT, "1 / sqrt(x).")
reciprocal = float_unary(RECIPROCAL, "1 / x.")
exp: Unary = float_unary(EXP, "e ** x.")
exp_or_zero: Unary = float_unary(EXP_OR_ZERO, "e ** x for sums with 1; kernels give 0 where it is denormal.")
exp_in_sum: Unary = float_unary(
    EXP_IN_SUM, "e ** x of which only the sum with 1 counts; kernels give 0 below 2 ** -100 (float64: 2 ** -900), so "
    "that products with gradients are not denormal.")
exp2 = float_unary(EXP2, "2 ** x.")
expm1 = float_unary(EXPM1, "e ** x - 1, exact near 0.")
log = float_unary(LOG, "Natural logarithm; -inf at 0, NaN below.")
log1p = float_unary(LOG1P, "log(1 + x), exact near 0.")
log2 = float_unary(LOG2, "Logarithm to base 2.")
log10 = float_unary(LOG10, "Logarithm to base 10.")
sin: Unary = float_unary(SIN, "Sine of x in radians.")
cos: Unary = float_unary(COS, "Cosine of x in radians.")
tan = float_unary(TAN, "Tangent of x in radians.")
asin = float_unary(ASIN, "Arc sine in radians.")
acos = float_unary(ACOS, "Arc cosine in radians.")
atan = float_unary(ATAN, "Arc tangent in radians.")
atan2 = float_binary(ATAN2, "Angle of the point (x=second, y=first) in radians, from -pi to pi.")
sinh: Unary = float_unary(SINH, "Hyperbolic sine.")
cosh: Unary = float_unary(COSH, "Hyperbolic cosine.")
tanh = float_unary(TANH, "Hyperbolic tangent.")
asinh = float_unary(ASINH, "Inverse hyperbolic sine.")
acosh = float_unary(ACOSH, "Inverse hyperbolic cosine; NaN below 1.")
atanh = float_unary(ATANH, "Inverse hyperbolic tangent; NaN outside [-1, 1].")
sigmoid: Unary = float_unary(SIGMOID, "1 / (1 + e ** -x), without overflow.")
softplus = float_unary(SOFTPLUS, "log(1 + e ** x), without overflow.")
erf = float_unary(ERF, "Error function, 2 / sqrt(pi) * integral of e ** -t**2 from 0 to x.")
erfc = float_unary(ERFC, "1 - erf(x), exact where erf is near 1.")
erfinv = float_unary(ERFINV, "Inverse of erf on (-1, 1).")

attach(sqrt=sqrt, rsqrt=rsqrt, reciprocal=reciprocal, exp=exp, expm1=expm1, log=log, log1p=log1p, log2=log2, sin=sin,
       cos=cos, tan=tan, tanh=tanh, sigmoid=sigmoid, erf=erf)

__all__ = [
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "erf", "erfc", "erfinv", "exp", "exp2",
    "expm1", "log", "log1p", "log2", "log10", "reciprocal", "rsqrt", "sigmoid", "sin", "sinh", "softplus", "sqrt",
    "tan", "tanh",
]
