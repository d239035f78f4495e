"""Eager array implementations of the functions NumPy lacks; SciPy is imported when first needed.

Each takes an array or scalar of a float dtype and gives the same dtype and shape; a 0-d array stays an array and a
NumPy scalar a scalar, as with a ufunc's `[()]`-free result on arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]


def _special(name: str, x: Any) -> Any:
    import scipy.special  # 60-100 ms, paid by the first call

    y = getattr(scipy.special, name)(x)
    return np.asarray(y) if isinstance(x, np.ndarray) else y


def erf(x: Floats) -> Floats:
    """Error function, 2/sqrt(pi) times the integral of exp(-t**2) from 0 to x."""
    return _special("erf", x)  # type: ignore[no-any-return]


def erfc(x: Floats) -> Floats:
    """1 - erf(x), without cancellation for large x."""
    return _special("erfc", x)  # type: ignore[no-any-return]


def erfinv(x: Floats) -> Floats:
    """The y with erf(y) = x; infinite at +-1, NaN outside [-1, 1]."""
    return _special("erfinv", x)  # type: ignore[no-any-return]


def lgamma(x: Floats) -> Floats:
    """log|gamma(x)|; +inf at 0, -1, -2, ..."""
    return _special("gammaln", x)  # type: ignore[no-any-return]


def digamma(x: Floats) -> Floats:
    """The derivative of lgamma; NaN at the negative integers, -copysign(inf, x) at +-0."""
    return _special("digamma", x)  # type: ignore[no-any-return]


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow and with full relative accuracy in both tails."""
    with np.errstate(under="ignore"):
        t = np.exp(-np.abs(x))
    y = np.where(np.less(x, 0), t, t.dtype.type(1)) / (1 + t)
    return np.asarray(y) if isinstance(x, np.ndarray) else y[()]  # type: ignore[no-any-return]


def softplus(x: Floats) -> Floats:
    """log(1 + exp(x)), without overflow."""
    with np.errstate(under="ignore"):
        y = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return np.asarray(y) if isinstance(x, np.ndarray) else y  # type: ignore[no-any-return]
