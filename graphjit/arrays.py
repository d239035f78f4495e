"""NumPy arrays of what people pass: lists, numbers, arrays of any dtype."""

from __future__ import annotations

import contextlib
import itertools
import math
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.errors import ArgumentError
from graphjit.op import Array
from graphjit.operators import Operators
from graphjit.types import FLOAT32, FLOAT64, HELD, DType, check_dtype

LINE, PAGE = 64, 4096  # bytes of a line of the cache, and of a page of memory
LARGE = 8 * PAGE
HUGE = 1 << 21  # bytes of a huge page, where the system has them
_turns = itertools.count()


def lasting(shape: Sequence[int], dtype: DType) -> Array:
    """An array of any contents for what lives from step to step: parameters, the state of an optimizer.

    It begins at a line of the cache: vectors that lie across two are read and written at half the speed. Large ones do
    so at different places of a page: a processor takes a read for one of what has just been written where addresses
    differ by whole pages only, as those in a weight and its momentum would.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    large = nbytes >= LARGE
    step, place = (PAGE, next(_turns) * 25 % (PAGE // LINE) * LINE) if large else (LINE, 0)
    memory = on_huge_pages(nbytes + step) if nbytes >= HUGE else np.empty(nbytes + step, np.uint8)
    start = (place - memory.ctypes.data) % step  # wherever the memory begins
    return memory[start:start + nbytes].view(dtype).reshape(shape)


def on_huge_pages(nbytes: int) -> Array:
    """Bytes, cleared, that begin at a huge page: a processor knows the places of few pages at once, and a second-level
    cache holds more of what lies together. They take no more memory than other arrays do. Where there are no huge
    pages, they begin at a line of the cache."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):  # not on Linux
        memory = np.zeros(nbytes + LINE, np.uint8)
        return memory[-memory.ctypes.data % LINE:][:nbytes]
    area = mmap.mmap(-1, nbytes + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory = np.frombuffer(area, np.uint8)
    start = -memory.ctypes.data % HUGE
    with contextlib.suppress(OSError):  # of a kernel that has none
        area.madvise(mmap.MADV_HUGEPAGE, start, nbytes // HUGE * HUGE)
    return memory[start:start + nbytes]


def lasting_copy(data: Array) -> Array:
    """A contiguous copy, as ``lasting`` has it."""
    out = lasting(data.shape, data.dtype)
    np.copyto(out, data)
    return out


def to_array(data: Any, dtype: DType | None = None) -> Array:
    """An array graphjit holds: floats in lists become float32, arrays keep their dtype.

    Raises:
        ArgumentError: ragged lists, strings, objects. DTypeError: complex, float16 and other dtypes.
    """
    if isinstance(data, Operators):  # a Tensor, whose room is above this one
        held: Array = data.data
        return held
    if type(data) is np.ndarray and dtype is None and data.dtype in HELD:
        return data
    if isinstance(data, (np.ndarray, np.generic)):
        array = np.asarray(data)
    else:
        if isinstance(data, (list, tuple)) and _holds_tensors(data):
            raise ArgumentError("a list of tensors is not a tensor", hint="Use gj.stack([...]).")
        try:
            array = np.asarray(data)
        except (ValueError, TypeError, OverflowError) as error:
            raise ArgumentError(
                f"{_brief(data)} cannot be made a tensor", detail=(str(error).split(". ")[0],),
                hint="Nested lists must have equal lengths and hold numbers.") from None
        if array.dtype == FLOAT64 and (dtype is None or dtype != FLOAT64):  # None == float64 for NumPy
            array = array.astype(FLOAT32)
    if array.dtype.kind in "OSUVMm":
        raise ArgumentError(
            f"{_brief(data)} cannot be made a tensor: its elements are {array.dtype}, not numbers")
    kind = check_dtype(array.dtype if dtype is None else dtype)
    if array.dtype != kind or not array.dtype.isnative:
        array = array.astype(kind)
    return array


def _holds_tensors(data: Sequence[Any]) -> bool:
    return any(isinstance(x, Operators) or (isinstance(x, (list, tuple)) and _holds_tensors(x)) for x in data)


def _brief(data: object) -> str:
    text = repr(data)
    return f"{type(data).__name__} " + (text if len(text) <= 60 else text[:57] + "...")


def default_dtype(x: bool | int | float) -> DType:
    if isinstance(x, bool):
        return np.dtype(np.bool_)
    return np.dtype(np.int64) if isinstance(x, int) else FLOAT32
