"""The memory of large results, handed out again when nobody holds them any more.

The system hands out cleared pages, and clearing them may take as long as the kernel that fills them. So memory that
was a result is kept for the next result of its size. No references are counted: a result is an array in the memory
of a lease, and whatever reaches that memory (the array, its views, buffers and DLPack capsules of them, a tape) keeps
the lease alive. When the lease ends, the memory is idle.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.op import Array
from graphjit.runtime.memory import ALIGN

Block = tuple[int, int, Array]  # address, bytes, what owns them

LARGE = 1 << 17  # bytes from which on memory is kept; less than that the C library keeps itself
LIMIT = 1 << 28  # bytes of idle memory in the process

# Idle memory by size, the size that was kept last at the end. A lease ends wherever Python drops the last reference,
# be it in the middle of this module, so there are no locks: to take memory is one atomic operation, and what
# interleaves with the others can only free what might have been kept.
_idle: dict[int, list[Block]] = {}


class Results:
    """The large results of one program; what is idle of their sizes is freed with it."""

    def __init__(self) -> None:
        self._sizes: set[int] = set()

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """An array of any contents; one that is large begins at a cache line."""
        size = int(math.prod(shape)) * dtype.itemsize
        if size < LARGE:
            return np.empty(shape, dtype)
        try:
            block = _idle[size].pop()
        except (KeyError, IndexError):
            self._sizes.add(size)
            memory = np.empty(size + ALIGN, np.uint8)
            block = -(-memory.ctypes.data // ALIGN) * ALIGN, size, memory
        return np.asarray(_Lease(block, self, tuple(map(int, shape)), dtype))

    def copy(self, array: Array) -> Array:
        """A contiguous copy."""
        out = self.empty(array.shape, array.dtype)
        np.copyto(out, array)
        return out

    def __del__(self) -> None:
        for size in self._sizes:
            _idle.pop(size, None)


class _Lease:
    """The memory of a result, for as long as anything reaches it.

    It is no array itself: NumPy would pass it over, and let a view of it hold what it is a view of.
    """

    __slots__ = ("__array_interface__", "block", "results")

    def __init__(self, block: Block, results: Results, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.block = block
        self.results = weakref.ref(results)
        self.__array_interface__ = {"version": 3, "data": (block[0], False), "shape": shape, "typestr": dtype.str}

    def __del__(self) -> None:
        if self.results() is not None:
            size = self.block[1]
            same = _idle.pop(size, [])
            same.append(self.block)
            _idle[size] = same
            while idle_bytes() > LIMIT:
                _idle.pop(next(iter(_idle.copy()), 0), None)


def idle_bytes() -> int:
    """How much memory is kept for results to come."""
    return sum(size * len(same) for size, same in _idle.copy().items())
