"""What formulas of elementary functions are made of: the layout of floats, rounding to integers, polynomials."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphjit.kernels.irmath import F32, F64, V, fma, select


def poly(x: V, coefficients: Sequence[float]) -> V:
    """Horner's rule with fused steps; coefficients from the highest power down."""
    acc = x.const(coefficients[0])
    for c in coefficients[1:]:
        acc = fma(acc, x, c)
    return acc


def clamp(x: V, lo: float, hi: float) -> V:
    """x within [lo, hi]; NaN stays."""
    x = select(x.lt(lo), lo, x)
    return select(x.gt(hi), hi, x)


def through_double(formula: Callable[[V], V]) -> Callable[[V], V]:
    """The formula in float64 also for float32: right to little more than half a unit, at half the lanes."""

    @functools.wraps(formula)
    def wrapped(x: V) -> V:
        return formula(x) if x.type == F64 else formula(x.to(F64)).to(F32)

    return wrapped


def mantissa_bits(t: Any) -> int:
    return 23 if t == F32 else 52


def bias(t: Any) -> int:
    return 127 if t == F32 else 1023


def float_of(bits: V) -> V:
    """The float whose bits an integer holds."""
    return bits.cast_bits(F32 if bits.type.bits == 32 else F64)


def round_to_int(x: V, factor: float = 1.0, offset: int = 0) -> tuple[V, V]:
    """(n, bits): n the integer nearest to x * factor, a float; the low bits of the integer `bits` are those
    of n + offset.  For |n| < 2**(mantissa bits - 2).

    Adding 1.5 * 2**mantissa_bits leaves the integer in the low bits: cheaper than a conversion, which would
    also be undefined for NaN, and all that `pow2` or a test of parity needs.
    """
    magic = x.const(1.5 * 2.0 ** mantissa_bits(x.type) + offset)
    t = fma(x, factor, magic) if factor != 1.0 else x + magic
    return t - magic, t.bits()


def pow2(bits: V) -> V:
    """2**n, when the low bits of `bits` are those of n + bias: n in the normal exponent range."""
    return float_of(bits << mantissa_bits(F32 if bits.type.bits == 32 else F64))


def pow2_parts(bits: V) -> tuple[V, V]:
    """Two factors of 2**n, from the bits of n + 2 bias: both normal, be 2**n itself denormal or infinite."""
    half = bits.shift_right_logical(1)
    return pow2(half), pow2(bits - half)


# less the bits of v, the bits of 1/(2v) within an eighth
_HALF_RECIPROCAL = {F32: 0x7E7311C7, F64: 0x7FCE6238 << 32}


def sqrt_residue(root: V, x: V, tail: V) -> V:
    """sqrt(x + tail) - root, to three bits, where root = sqrt(x) rounded."""
    return (fma(-root, root, x) + tail) * float_of(_HALF_RECIPROCAL[x.type] - root.bits())
