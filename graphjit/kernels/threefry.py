"""Threefry-2x32 with 20 rounds: counter-based random bits.

J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
Each output word is a pure function of a 64-bit key and a 64-bit counter, so any thread may make any element
of a random array, in any order, in eager mode and in a compiled kernel, with the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:  # the eager mode needs these numbers without LLVM
    from graphjit.kernels.irmath import V
    from graphjit.kernels.threefry_bits import Word32

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)  # table 2 of the paper, R_32x2; rounds d use entry d mod 8
PARITY = 0x1BD11BDA  # the key schedule's constant of Skein, 32-bit form
ROUNDS = 20
LOW = 0xFFFFFFFF

Word = TypeVar("Word", "V", "Word32", "NDArray[Any]")


def block(k0: Word, k1: Word, x0: Word, x1: Word) -> tuple[Word, Word]:
    """Both output words of the cipher; all operands are 32-bit unsigned with wraparound."""
    keys = (k0, k1, k0 ^ k1 ^ PARITY)
    x0, x1 = x0 + k0, x1 + k1
    for d in range(ROUNDS):
        r = ROTATIONS[d % 8]
        x0 = x0 + x1
        x1 = ((x1 << r) | (x1 >> (32 - r))) ^ x0
        if d % 4 == 3:  # key injection after every fourth round
            s = d // 4 + 1
            x0 = x0 + keys[s % 3]
            x1 = x1 + keys[(s + 1) % 3] + s
    return x0, x1


def threefry2x32(k0: V, k1: V, c0: V, c1: V) -> V:
    """The first word for key (k0, k1) and counter (c0, c1), all uint32."""
    return block(k0, k1, c0, c1)[0]


def threefry2x32_numpy(k0: ArrayLike, k1: ArrayLike, c0: ArrayLike, c1: ArrayLike) -> NDArray[np.uint32]:
    """The first word for key (k0, k1) and counters (c0, c1): uint32 operands, broadcast against each other.

    Gives the same bits as the kernel function `threefry`.
    """
    words = np.broadcast_arrays(*(np.asarray(w, np.uint32) for w in (k0, k1, c0, c1)))
    # arrays of at least one dimension: 0-d arithmetic gives scalars, which warn of the intended wraparound
    a0, a1, x0, x1 = (np.atleast_1d(w) for w in words)
    return block(a0, a1, x0, x1)[0].reshape(words[0].shape)
