"""Eager array implementations of the functions NumPy lacks; SciPy is imported when first needed.

Each takes an array or NumPy scalar of float32 or float64 and gives the same dtype and shape; an array stays
an array, a scalar a scalar.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]


_BOUNDS = {np.dtype(t): (np.zeros((), t), np.ones((), t)) for t in (np.float32, np.float64)}


def _special(name: str, x: Floats) -> Floats:
    import scipy.special  # 60-100 ms: only programs that call it pay

    return _like(x, getattr(scipy.special, name)(x))


def _like(x: Floats, y: Any) -> Floats:
    """y, an array if x is one, else a scalar: NumPy makes scalars of 0-d results."""
    return np.asarray(y) if isinstance(x, np.ndarray) else cast(Floats, y[()])


def erf(x: Floats) -> Floats:
    """Error function, 2/sqrt(pi) times the integral of exp(-t**2) from 0 to x."""
    return _special("erf", x)


def erfc(x: Floats) -> Floats:
    """1 - erf(x), without cancellation for large x."""
    return _special("erfc", x)


def erfinv(x: Floats) -> Floats:
    """The y with erf(y) = x; infinite at +-1, NaN outside [-1, 1]."""
    return _special("erfinv", x)


def lgamma(x: Floats) -> Floats:
    """log|gamma(x)|; +inf at 0, -1, -2, ... and, unlike SciPy's but as in C99, at -inf."""
    y = _special("gammaln", x)
    return _like(x, np.where(np.isneginf(x), -x, y))


def digamma(x: Floats) -> Floats:
    """The derivative of lgamma; NaN at the negative integers, -copysign(inf, x) at +-0."""
    return _special("digamma", x)


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow and with full relative accuracy in both tails."""
    if not isinstance(x, np.ndarray) or not x.ndim:
        return _like(x, np.exp(np.minimum(x, 0)) / (np.exp(-np.abs(x)) + 1))  # where they underflow, 0 is right
    zero, one = _BOUNDS[x.dtype]
    top, below = np.minimum(x, zero), np.absolute(x)
    np.negative(below, below)  # the same in place: small arrays cost what the calls cost
    np.exp(below, below)
    np.add(below, one, below)
    np.exp(top, top)
    return np.divide(top, below, top)


def softplus(x: Floats) -> Floats:
    """log(1 + exp(x)), without overflow."""
    with np.errstate(under="ignore"):
        return _like(x, np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


MANY = 2048  # elements, from which on bits pay
_BITS: dict[int, np.dtype[Any]] = {4: np.dtype(np.int32), 8: np.dtype(np.int64)}


def select(cond: NDArray[np.bool_], x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """``np.where``, by bits where there are many: NumPy's branches cost ten times as much where no one can foretell
    them."""
    if cond.size < MANY:
        return np.where(cond, x, y)
    bits = _BITS.get(x.dtype.itemsize)
    if bits is None or x.dtype != y.dtype or cond.dtype != np.bool_:
        return np.where(cond, x, y)
    taken, a, b = np.negative(cond.view(np.int8)), x.view(bits), y.view(bits)
    out: NDArray[Any]
    if not b.ndim and not b:
        out = a & taken
    elif not a.ndim and not a:
        out = b & ~taken
    else:
        out = (a ^ b) & taken
        out = np.bitwise_xor(out, b, out)
    found: NDArray[Any] = out.view(x.dtype)
    return found
