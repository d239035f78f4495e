"""Samples of random numbers: a second implementation of the generator gives what is expected."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special

from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.ops import random as rn

from .make import error, fixed, normal, sample

SOURCE = rn.Generator(0)
SEED = 0x0123456789ABCDEF
LOW = 0xFFFFFFFF


def threefry(k0: int, k1: int, x0: int, x1: int) -> int:
    """The first word of Threefry-2x32-20 (Salmon et al. 2011), in Python's integers."""
    keys = (k0, k1, k0 ^ k1 ^ 0x1BD11BDA)
    x0, x1 = (x0 + k0) & LOW, (x1 + k1) & LOW
    for r in range(20):
        turn = (13, 15, 26, 6, 17, 29, 16, 24)[r % 8]
        x0 = (x0 + x1) & LOW
        x1 = (x1 << turn | x1 >> (32 - turn)) & LOW ^ x0
        if r % 4 == 3:
            n = r // 4 + 1
            x0, x1 = (x0 + keys[n % 3]) & LOW, (x1 + keys[(n + 1) % 3] + n) & LOW
    return x0


assert threefry(0, 0, 0, 0) == 0x6B200159  # the authors' known answers
assert threefry(LOW, LOW, LOW, LOW) == 0x1CB996FC
assert threefry(0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3) == 0xC4923A9C


def bits(shape: Any, draw: int = 0) -> Any:
    n = int(np.prod(shape))
    words = [threefry(SEED & LOW, ((SEED >> 32) + (draw >> 32)) & LOW, i, draw & LOW) for i in range(n)]
    return np.array(words, np.uint32).reshape(shape)


def wide(shape: Any) -> Any:
    return bits(shape).astype(np.uint64) << np.uint64(32) | bits(shape, 1)


def draw(id: str, function: Callable[..., Any], reference: Callable[..., Any], args: Any = None, **more: Any) -> None:
    def seeded(*xs: Any) -> Any:
        SOURCE.manual_seed(SEED)
        return function(*xs)

    sample("random_bits", id, seeded, args or fixed(), reference, **{"grad": False, **more})


for _shape in ((5,), (2, 3), (), (0, 3)):
    draw(f"bits {_shape}", lambda s=_shape: SOURCE.bits(s), lambda s=_shape: bits(s))
draw("two draws", lambda: (SOURCE.bits(3), SOURCE.bits(3)), lambda: (bits(3), bits(3, 1)))
draw("uniform", lambda: rn.uniform((3, 4), generator=SOURCE),
     lambda: (bits((3, 4)) >> np.uint32(8)).astype("f4") * np.float32(2**-24))  # fmt: skip
draw("uniform between", lambda: rn.uniform((3, 4), -2.0, 1.5, generator=SOURCE),
     lambda: (bits((3, 4)) >> np.uint32(8)).astype("f4") * np.float32(2**-24 * 3.5) - 2)  # fmt: skip
draw("uniform float64", lambda: rn.uniform(7, dtype="float64", generator=SOURCE),
     lambda: (wide(7) >> np.uint64(37) << np.uint64(26) | bits(7, 1) >> np.uint32(6)) * 2.0**-53)  # fmt: skip
draw("uniform of tensors", lambda a, b: rn.uniform((3, 4), a, b, dtype="float64", generator=SOURCE),
     lambda a, b: (wide((3, 4)) >> np.uint64(37) << np.uint64(26) | bits((3, 4), 1) >> np.uint32(6)) * 2.0**-53
     * (b - a) + a, normal((4,), (3, 1)), grad=True, dtypes=("float64",))  # fmt: skip


def odd(shape: Any) -> Any:
    return ((bits(shape).astype(np.int32) >> 7) | 1) * 2.0**-24


def odd64(shape: Any) -> Any:
    top = bits(shape).astype(np.int32).astype(np.int64) << 22
    return (top | (bits(shape, 1) >> np.uint32(10)).astype(np.int64) | 1) * 2.0**-53


draw("normal", lambda: rn.normal((3, 4), generator=SOURCE),
     lambda: (scipy.special.erfinv(odd((3, 4))) * math.sqrt(2)).astype("f4"))  # fmt: skip
draw("normal float64", lambda: rn.normal((3, 4), 1.0, 2.0, dtype="float64", generator=SOURCE),
     lambda: scipy.special.erfinv(odd64((3, 4))) * math.sqrt(2) * 2 + 1)  # fmt: skip
draw("normal of tensors", lambda m, s: rn.normal((3, 4), m, s, dtype="float64", generator=SOURCE),
     lambda m, s: scipy.special.erfinv(odd64((3, 4))) * math.sqrt(2) * s + m, normal((4,), (3, 1)),
     grad=True, dtypes=("float64",))  # fmt: skip
draw("bernoulli", lambda: rn.bernoulli(0.3, (3, 4), generator=SOURCE),
     lambda: (bits((3, 4)) >> np.uint32(8)).astype("f4") * np.float32(2**-24) < np.float32(0.3))  # fmt: skip
draw("bernoulli of a tensor", lambda p: rn.bernoulli(p, generator=SOURCE),
     lambda p: (bits((4,)) >> np.uint32(8)).astype("f4") * np.float32(2**-24) < p,
     fixed(np.array([0.0, 0.2, 0.9, 1.0])))  # fmt: skip
draw("randint", lambda: rn.randint(-3, 9, (3, 4), generator=SOURCE),
     lambda: (wide((3, 4)) % np.uint64(12)).astype(np.int64) - 3)  # fmt: skip
draw("randint uint8", lambda: rn.randint(0, 256, 9, dtype="uint8", generator=SOURCE),
     lambda: (wide(9) % np.uint64(256)).astype(np.uint8))  # fmt: skip
draw("randint all", lambda: rn.randint(0, 2**64, 5, dtype="uint64", generator=SOURCE), lambda: wide(5))
draw("permutation", lambda: rn.permutation(9, generator=SOURCE), lambda: np.argsort(wide(9), kind="stable"))
draw("permutation of rows", lambda x: rn.permutation(x, generator=SOURCE),
     lambda x: x[np.argsort(wide(5), kind="stable")], normal((5, 2)), grad=True)  # fmt: skip
draw("used", lambda x: x * rn.bernoulli(0.5, x.shape, generator=SOURCE),
     lambda x: x * ((bits((3, 4)) >> np.uint32(8)).astype("f4") * np.float32(2**-24) < 0.5),
     normal((3, 4)), grad=True)  # fmt: skip

error("random_bits", "negative length", lambda: rn.uniform(-1), fixed(), ArgumentError)
error("random_bits", "float length", lambda: rn.uniform((2.0,)), fixed(), ArgumentError)
error("random_bits", "too many", lambda: rn.uniform((1 << 16, 1 << 16)), fixed(), ShapeError)
error("random_bits", "uniform of ints", lambda: rn.uniform(3, dtype="int32"), fixed(), DTypeError)
error("random_bits", "probability", lambda: rn.bernoulli(1.5, 3), fixed(), ArgumentError)
error("random_bits", "no range", lambda: rn.randint(3, 3, 2), fixed(), ArgumentError)
error("random_bits", "range of the dtype", lambda: rn.randint(0, 300, 2, dtype="uint8"), fixed(), ArgumentError)
error("random_bits", "randint of floats", lambda: rn.randint(0, 3, 2, dtype="float32"), fixed(), DTypeError)
error("random_bits", "permutation of a scalar", rn.permutation, normal(()), ShapeError)
error("random_bits", "seed", lambda: rn.Generator("a"), fixed(), ArgumentError)  # type: ignore[arg-type]
