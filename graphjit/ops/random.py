"""Random numbers: counter-based, so that eager and compiled programs draw the same bits on any number of
threads.

A generator's state is two numbers, (seed, draw counter), held in a tensor: a compiled program reads and
advances it like any other state. Element i of a draw is the first word of Threefry-2x32 with key (low seed,
high seed + high counter) and counter (i, low counter).
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.apply import apply
from graphjit.composed import composed
from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.kernels.threefry import LOW, threefry2x32_numpy
from graphjit.kernels.threefry_bits import threefry_bits
from graphjit.op import Array, Indexed, Op, register
from graphjit.ops.gather import constant, take
from graphjit.ops.sorting import argsort
from graphjit.ops.transcendental import erfinv
from graphjit.tape import state
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import (
    FLOAT32,
    FLOAT64,
    INT32,
    INT64,
    UINT32,
    UINT64,
    DType,
    Shape,
    TensorType,
    check_dtype,
    is_float,
    is_integer,
)

BLOCK = 1 << 14  # elements whose 20 rounds run in the cache
FEW = 32         # draws that NumPy makes: a process that makes no more needs no native code for them

NEXT = np.array([0, 1], np.uint64)  # what a draw adds to the state

_draws = itertools.count()


def _infer_bits(key: TensorType, shape: Shape) -> TensorType:
    if key.shape != (2,) or key.dtype != UINT64:
        raise DTypeError(f"random_bits needs a state uint64[2], not {key}")
    if math.prod(shape) > LOW:
        raise ShapeError(f"a draw of {math.prod(shape)} numbers", hint="One draw gives at most 2**32 - 1.")
    return TensorType(tuple(shape), UINT32)


def _bits(key: Array, shape: Shape) -> Array:
    seed, count = int(key[0]), int(key[1])
    n = math.prod(shape)
    if n > LOW:
        raise ValueError("counter")
    k0, k1, c1 = seed & LOW, ((seed >> 32) + (count >> 32)) & LOW, count & LOW
    if next(_draws) >= FEW:
        return threefry_bits(k0, k1, c1, n).reshape(shape)
    out = np.empty(n, np.uint32)
    for at in range(0, n, BLOCK):
        index = np.arange(at, min(at + BLOCK, n), dtype=np.uint32)
        out[at:at + BLOCK] = threefry2x32_numpy(k0, k1, index, c1)
    return out.reshape(shape)


RANDOM_BITS = register(Op(
    "random_bits", _bits, _infer_bits, None,
    Indexed(lambda types, out, params:
            "threefry(u32({0}[0]), add(u32(shr({0}[0], u64(32))), u32(shr({0}[1], u64(32)))), "
            "u32({i}), u32({0}[1]))"),
    why="its result is random bits"))


class Generator:
    """A source of random numbers.

    Args:
        seed: a number that repeats everything drawn; None takes one from the operating system.

    Each draw advances the generator, inside a compiled function too. ``state`` (uint64[2]: seed and
    number of draws) can be kept in a checkpoint and set again.

    >>> import graphjit as gj
    >>> g = gj.random.Generator(1)
    >>> a, before = gj.random.uniform((3,), generator=g), g.state
    >>> b = gj.random.uniform((3,), generator=g)
    >>> g.state = before
    >>> bool((gj.random.uniform((3,), generator=g) == b).all())
    True
    """

    __slots__ = ("_state",)

    def __init__(self, seed: int | None = None) -> None:
        if seed is None:
            seed = int.from_bytes(os.urandom(8), "little")
        self._state = Tensor(np.array([_check_seed(seed), 0], np.uint64), label="random state")

    def __repr__(self) -> str:
        return f"Generator({self._state!r})"

    @property
    def state(self) -> Array:
        """Seed and number of draws so far, uint64[2], a copy."""
        return self._state.data.copy()

    @state.setter
    def state(self, value: Any) -> None:
        array = np.asarray(value)
        if array.shape != (2,) or array.dtype.kind not in "iu":
            raise ArgumentError(f"a generator's state is two integers, not {value!r}")
        self._state.assign(array.astype(np.uint64))

    def manual_seed(self, seed: int) -> Generator:
        """Start again from this seed; gives the generator itself."""
        self._state.assign(constant(np.array([_check_seed(seed), 0], np.uint64)))
        return self

    def bits(self, shape: int | Sequence[int]) -> Tensor:
        """A draw: uint32 of the given shape, each bit random."""
        out = apply(RANDOM_BITS, self._state, shape=_check_shape(shape))
        self._state.assign(self._state + (NEXT if state.trace is None else constant(NEXT)))
        return out


def _check_seed(seed: int) -> int:
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, (int, np.integer)):
        raise ArgumentError(f"a seed is an integer, not {seed!r}")
    return int(seed) & 0xFFFFFFFFFFFFFFFF


def _check_shape(shape: int | Sequence[int]) -> Shape:
    lengths = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if any(isinstance(n, (bool, Tensor)) or not isinstance(n, (int, np.integer)) or n < 0 for n in lengths):
        raise ArgumentError(f"a shape is made of integers of at least 0, not {shape!r}")
    return tuple(n if isinstance(n, int) else int(n) for n in lengths)


_default: list[Generator] = []


def default_generator() -> Generator:
    """The generator that is used where none is given; first seeded by the operating system."""
    if not _default:
        _default.append(Generator())
    return _default[0]


def manual_seed(seed: int) -> Generator:
    """Make everything that is drawn from here on repeat; gives the default generator.

    >>> import graphjit as gj
    >>> _ = gj.manual_seed(0); a = gj.random.normal((2,))
    >>> _ = gj.manual_seed(0); bool((gj.random.normal((2,)) == a).all())
    True
    """
    return default_generator().manual_seed(seed)


def _floating(dtype: Any) -> DType:
    kind = check_dtype(dtype)
    if not is_float(kind):
        raise DTypeError(f"random numbers of this distribution are floating, not {kind}")
    return kind


@composed
def _unit(bits: Tensor) -> Tensor:
    """Multiples of 2**-24 in [0, 1)."""
    return (bits >> 8).astype(FLOAT32) * 2.0**-24


@composed
def _unit_wide(high: Tensor, low: Tensor) -> Tensor:
    """Multiples of 2**-53 in [0, 1)."""
    return ((high >> 5).astype(FLOAT64) * 2.0**26 + (low >> 6).astype(FLOAT64)) * 2.0**-53


@composed
def _standard(bits: Tensor) -> Tensor:
    """Normally distributed: of odd integers, symmetric about 0, that the float holds exactly: never 0 and never 1
    after scaling."""
    return erfinv(((bits.astype(INT32) >> 7) | 1).astype(FLOAT32) * 2.0**-24) * math.sqrt(2.0)


@composed
def _standard_wide(high: Tensor, low: Tensor) -> Tensor:
    top = high.astype(INT32).astype(INT64) << 22
    return erfinv((top | (low >> 10).astype(INT64) | 1).astype(FLOAT64) * 2.0**-53) * math.sqrt(2.0)


@composed
def _wide(high: Tensor, low: Tensor) -> Tensor:
    """64 random bits."""
    return (high.astype(UINT64) << 32) | low.astype(UINT64)


def uniform(shape: int | Sequence[int], low: TensorLike = 0.0, high: TensorLike = 1.0, dtype: Any = FLOAT32,
            generator: Generator | None = None) -> Tensor:
    """Numbers evenly spread over [low, high).

    Args:
        shape: of the result.
        low, high: bounds, numbers or tensors that broadcast to ``shape``. (Rounding of high - low can give
            high itself; with the default bounds every result is a multiple of 2**-24, or 2**-53, below 1.)
        dtype: float32 or float64.
        generator: the default one if None.
    """
    source, kind = generator or default_generator(), _floating(dtype)
    u = _unit_wide(source.bits(shape), source.bits(shape)) if kind == FLOAT64 else _unit(source.bits(shape))
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        width = high - low
        u = u if width == 1 else u * float(width)
        return u if low == 0 else u + float(low)
    lower = as_tensor(low, kind).astype(kind)
    return u * (as_tensor(high, kind).astype(kind) - lower) + lower


def normal(shape: int | Sequence[int], mean: TensorLike = 0.0, std: TensorLike = 1.0, dtype: Any = FLOAT32,
           generator: Generator | None = None) -> Tensor:
    """Normally distributed numbers, by the inverse of the distribution function.

    Args:
        shape: of the result.
        mean, std: numbers, or tensors that broadcast to ``shape`` (gradients flow to them).
        dtype: float32 or float64.
        generator: the default one if None.
    """
    source, kind = generator or default_generator(), _floating(dtype)
    z = _standard_wide(source.bits(shape), source.bits(shape)) if kind == FLOAT64 else _standard(source.bits(shape))
    if not (isinstance(std, (int, float)) and std == 1):
        z = z * as_tensor(std, kind).astype(kind)
    if not (isinstance(mean, (int, float)) and mean == 0):
        z = z + as_tensor(mean, kind).astype(kind)
    return z


def bernoulli(p: TensorLike, shape: int | Sequence[int] | None = None,
              generator: Generator | None = None) -> Tensor:
    """True with probability p.

    Args:
        p: a number, or a floating tensor that broadcasts to ``shape``.
        shape: of the result; that of p when not given.
        generator: the default one if None.

    Returns:
        bool; ``.astype(...)`` gives ones and zeros.

    Raises:
        ArgumentError: p is a number outside of [0, 1].
    """
    if isinstance(p, (int, float)) and not 0 <= p <= 1:
        raise ArgumentError(f"a probability is a number from 0 to 1, not {p}")
    chance = as_tensor(p, FLOAT32)
    return uniform(chance.shape if shape is None else shape, generator=generator) < chance


def randint(low: int, high: int, shape: int | Sequence[int], dtype: Any = INT64,
            generator: Generator | None = None) -> Tensor:
    """Whole numbers evenly spread over low, ..., high - 1.

    Args:
        low, high: Python integers with low < high, within the range of ``dtype``.
        shape: of the result.
        dtype: an integer type.
        generator: the default one if None.

    Raises:
        ArgumentError: an empty range, or one the dtype does not hold.
    """
    kind = check_dtype(dtype)
    if not is_integer(kind):
        raise DTypeError(f"randint gives integers, not {kind}")
    if any(isinstance(n, (bool, Tensor)) or not isinstance(n, (int, np.integer)) for n in (low, high)):
        raise ArgumentError(f"randint: bounds must be Python integers, not {low!r} and {high!r}")
    limits = np.iinfo(kind)
    if not (limits.min <= low < high <= int(limits.max) + 1):
        raise ArgumentError(f"randint: no {kind} n with {low} <= n < {high}" if low >= high else
                            f"randint: {kind} does not hold all of {low}, ..., {high - 1}")
    source, span = generator or default_generator(), int(high) - int(low)
    # of 64 bits the remainder is even to one part in 2**64 / span
    wide = _wide(source.bits(shape), source.bits(shape))
    offset = wide % span if span < 2**64 else wide
    if kind == UINT64:
        return offset + int(low)
    return (offset.astype(INT64) + int(low)).astype(kind)


def permutation(x: int | TensorLike, generator: Generator | None = None) -> Tensor:
    """The numbers 0, ..., n-1 in random order, or the rows of a tensor (its first axis) in random order.

    Args:
        x: a Python integer n, or an array of at least one dimension.
        generator: the default one if None.

    Returns:
        int64[n], or a tensor like x.
    """
    whole = isinstance(x, (int, np.integer)) and not isinstance(x, bool)
    if whole and x < 0:
        raise ArgumentError(f"permutation of {x} numbers")
    rows = None if whole else as_tensor(x)
    if rows is not None and rows.ndim == 0:
        raise ShapeError("permutation of a 0-d tensor",
                         hint="Give a Python integer n, or at least one dimension.")
    source, n = generator or default_generator(), x if rows is None else rows.shape[0]
    # 64 random bits an element: equal keys, which would favour the given order, do not occur in practice
    order = argsort(_wide(source.bits(n), source.bits(n)))
    return order if rows is None else take(rows, order, axis=0)


__all__ = [
    "Generator", "bernoulli", "default_generator", "manual_seed", "normal", "permutation", "randint",
    "uniform",
]
