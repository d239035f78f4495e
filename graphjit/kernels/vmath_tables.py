"""Tables for logarithms and powers of two, and the reduction of a logarithm's argument by them.

As in P. T. P. Tang, "Table-driven implementation of the logarithm function in IEEE floating-point arithmetic", ACM
TOMS 16 (1990): x = 2^k m, m in an interval of a few around 1, and log(x) = k log(2) - log(c) + log(m c) for a c near
1/m that the interval decides.  Here c has so few bits that m c - 1 is exact, and is 1 around m = 1.
"""

from __future__ import annotations

import functools
from decimal import Context, Decimal
from typing import Any

import numpy as np

from graphjit.kernels.irmath import F32, F64, V, fma, round_to_f32
from graphjit.kernels.vmath_avx512 import lookup
from graphjit.kernels.vmath_parts import bias, float_of, mantissa_bits

INDEX_BITS = {F32: 5, F64: 4}
# so many intervals, of equal length in the numbering of floats, are below 1, such that 1 is inside of one
BELOW_ONE = {F32: 16.3, F64: 8.34}
# bits of c behind the point, in intervals above and below 1: |m c - 1| <= 0.0222 and 0.0419
RECIPROCAL_BITS = {F32: (6, 5), F64: (5, 5)}
# bits of log(c) behind the point, such that its sum with k is exact
HEAD_BITS = {F32: 16, F64: 42}
PRECISE = Context(prec=60)
ROOT_BITS = 4  # the table of powers of two has 2^(i/16)
# (2^r - 1) / r on |r| <= 1/32; minimax, errors of 2^r 2^-29.2 and 2^-56.9
EXP2_NEAR = {
    F32: (0.055502143, 0.24023429, 0.6931472),
    F64: (
        0.00015403351241797348, 0.001333381852833384, 0.00961812911216626, 0.05550410865213338, 0.24022650695909906,
        0.6931471805599468,
    ),
}  # fmt: skip


def _lowest(t: Any) -> int:
    """The bits of the least m."""
    one = 127 << 23 if t == F32 else 1023 << 52
    return one - round(BELOW_ONE[t] * 2.0 ** (mantissa_bits(t) - INDEX_BITS[t]))


@functools.cache
def reciprocals(t: Any) -> tuple[float, ...]:
    """c of each interval."""
    count = 1 << INDEX_BITS[t]

    def edge(i: int) -> float:
        u = i - BELOW_ONE[t]
        return 1 + u / (2 * count) if u < 0 else 1 + u / count

    def reciprocal(low: float, high: float) -> float:
        above, below = RECIPROCAL_BITS[t]
        unit = 2.0 ** (above if low > 1 else below)
        c = round(2 / (low + high) * unit) / unit
        # log(m) is at least half of -log(c): their difference is exact, also rounded
        return c if abs(c - 1) < 2 * min(abs(low - 1), abs(high - 1)) and not low < 1 < high else 1.0

    return tuple(reciprocal(edge(i), edge(i + 1)) for i in range(count))


@functools.cache
def log_table(t: Any, base: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """-log(c) of each interval to the base, 0 for that of Euler, in two parts."""
    scale = PRECISE.ln(Decimal(base)) if base else Decimal(1)
    values = [PRECISE.divide(-PRECISE.ln(Decimal(c)), scale) for c in reciprocals(t)]
    unit = 2 ** HEAD_BITS[t]
    heads = [round(value * unit) / unit for value in values]
    rests = [float(PRECISE.subtract(value, Decimal(head))) for value, head in zip(values, heads, strict=True)]
    return tuple(heads), tuple(round_to_f32(rest) if t == F32 else rest for rest in rests)


@functools.cache
def root_table(t: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """2^(i/16) and what it lacks, relative to it.

    Of the bits of the first i is subtracted, shifted to where the mantissa begins: adding any integer j, shifted as
    well, gives 2^(j/16) for i = j modulo 16.
    """
    real, integer = np.dtype(np.float32 if t == F32 else np.float64), np.dtype(np.int32 if t == F32 else np.int64)
    exact = [PRECISE.power(2, Decimal(i) / 2**ROOT_BITS) for i in range(2**ROOT_BITS)]
    roots = np.array([float(root) for root in exact], real)
    shifted = roots.view(integer) - np.arange(len(exact), dtype=integer) * 2 ** (mantissa_bits(t) - ROOT_BITS)
    rests = [float(PRECISE.divide(root, Decimal(float(found))) - 1) for root, found in zip(exact, roots, strict=True)]
    return tuple(shifted.view(real).tolist()), tuple(np.array(rests, real).tolist())


def _parted(x: V) -> tuple[V, V, V]:
    """(k, its bits in their place, the index of m's interval) of x = 2^k m."""
    mb = mantissa_bits(x.type)
    u = x.bits() - _lowest(x.type)
    return (u >> mb).to(x.type), u & -(1 << mb), u.shift_right_logical(mb - INDEX_BITS[x.type])


def exponent_of(x: V) -> tuple[V, V, V]:
    """(k, 2^-k, the index of m's interval) of normal positive x = 2^k m; of other x the exponent k is unusual."""
    k, place, index = _parted(x)
    return k, float_of((bias(x.type) << mantissa_bits(x.type)) - place), index


def reduced_by_table(f: V, index: V) -> V:
    """c (1 + f) - 1 for the reciprocal c of that index."""
    c = lookup("reciprocal", index, reciprocals(f.type))
    return fma(f, c, c - 1.0)


def reduce_log(x: V) -> tuple[V, V, V]:
    """(k, f, index) with x = 2^k (1 + f) / c, c the reciprocal of that index; else as `exponent_of`."""
    k, place, index = _parted(x)
    m = float_of(x.bits() - place)
    return k, fma(m, lookup("reciprocal", index, reciprocals(x.type)), -1.0), index


def power_of_two(x: V) -> tuple[V, V, V]:
    """(n, p, rest): the multiple n of 1/16 nearest to x, 2^n = p (1 + rest) where |n| < bias - 1."""
    shift = mantissa_bits(x.type) - ROOT_BITS
    magic = x.const(1.5 * 2.0**shift)
    t = x + magic
    bits = t.bits()
    roots, rests = root_table(x.type)
    power = float_of(lookup("root.shifted", bits, roots).bits() + (bits << shift))
    return t - magic, power, lookup("root.rest", bits, rests)


def root_of_two(x: V, factor: float = 1.0) -> tuple[V, V]:
    """(n, 2^(n - floor(n))) for the multiple n of 1/16 nearest to x * factor."""
    magic = x.const(1.5 * 2.0 ** (mantissa_bits(x.type) - ROOT_BITS))
    t = fma(x, factor, magic) if factor != 1.0 else x + magic
    return t - magic, lookup("root", t.bits(), [2.0 ** (i / 2**ROOT_BITS) for i in range(2**ROOT_BITS)])
