"""The elementary functions, as formulas over `irmath.V` for float32 and float64."""

from __future__ import annotations

from graphjit.kernels.vmath_erf import erf, erfc, erfinv
from graphjit.kernels.vmath_exp import exp, exp2, expm1, sigmoid, softplus
from graphjit.kernels.vmath_gamma import digamma, lgamma
from graphjit.kernels.vmath_hyperbolic import acosh, asinh, atanh, cosh, sinh, tanh
from graphjit.kernels.vmath_log import log, log1p, log2, log10
from graphjit.kernels.vmath_pow import pow_
from graphjit.kernels.vmath_trig import acos, asin, atan, atan2, cos, sin, tan

__all__ = [
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "digamma", "erf", "erfc",
    "erfinv", "exp", "exp2", "expm1", "lgamma", "log", "log1p", "log2", "log10", "pow_", "sigmoid", "sin",
    "sinh", "softplus", "tan", "tanh",
]  # fmt: skip
