"""What a call of a program without host steps does beside its kernels, in native code: arguments in, results out,
tensors around.

`driver.caller` makes a builtin function of one program; `call_code` has its code. It takes the call's arguments and
gives the result's tensors, with what Python would do for them: looks at each argument's type, copies it into the
arena or has the kernels point at it, runs the rows, copies the results into new arrays, where kernels did not write
them, and puts tensors around these. Its plan is an int64 array, the builtin's ``self``.

Everything that may run other Python code (allocation may collect garbage) happens before the lock is looked at, or
when the results are copied out. A program that keeps the GIL is done in between by no one else, so it only has to see
that its lock is free; one that may release it (NumPy does to copy a transposed result, Python looks which pool of
threads there is) holds the lock.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphjit.op import Array
from graphjit.runtime.builtin import NEW_FROM_DESCR
from graphjit.tape import Value, clock
from graphjit.tensor import Tensor

# words of a plan; the arguments' and the results' follow
(WORLD, MISS, ARGUMENTS, RESULTS, TABLE, ROWS, STATUS, TRY, FREE, RELEASE, OUTSIDE, WRITTEN, SINGLE, BUFFERS, N_BUFFERS,
 DESK, POOL, THREADS, HEAD) = range(19)
# of an argument or a result: dtype (0 for a Python float), place in the arena (0: none), bytes, number of axes, their
# lengths, how many addresses in slots follow from the array's, where these are (pairs of the slot and an offset), what
# makes a result's array (0: NumPy), what gives the result instead, of which argument's or result's array (-1: of none)
DTYPE, PLACE, NBYTES, NDIM, SHAPE, SLOTS, POINTED, MAKE, COPY, SOURCE, ITEM = range(11)
# of the world
(NDARRAY, TENSOR, FLOAT, NONE, FALSE, NEW_ARRAY, TICKS, NEW_TENSOR, TENSOR_WORDS, TENSOR_VALUE, NEW_VALUE, VALUE_WORDS,
 VALUE_DATA, VALUE_STAMP, VALUE_REQUIRES_GRAD, VALUE_TRACE) = range(16)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an argument goes, or a result comes from.

    Attributes:
        address: in the arena; 0 for an array that kernels use where it is.
        slots: the addresses of theirs that follow from its address, and by how many bytes.
        is_number: whether a Python float comes here.
        make: makes the array of a result that is too large for NumPy's memory.
        copy: gives a result that does not lie in order in the arena.
        source: which argument or result it is given for this, counted on from the arguments; -1 for none.
    """

    shape: Sequence[int]
    dtype: np.dtype[Any]
    address: int = 0
    slots: Sequence[tuple[int, int]] = ()
    is_number: bool = False
    make: Callable[[], Array] | None = None
    copy: Callable[..., Array] | None = None
    source: int = -1


@dataclass(frozen=True, slots=True)
class Rows:
    """What the driver is to run, under which lock, and with whose help: that of ``threads`` threads of a pool (0: of
    none), which native code finds at ``desk`` or by calling ``pool``."""

    table: int
    n: int
    status: int
    lock: Any
    releases_gil: bool
    threads: int
    desk: int
    pool: Callable[[], object]


def plan_call(rows: Rows, arguments: Sequence[Place], results: Sequence[Place], single: bool, written: list[int] | None,
              miss: object, buffers: Array) -> tuple[Array, list[object]]:
    """The plan of a program's calls, and what must stay alive with it.

    Args:
        rows: the program.
        arguments: where the arguments go, in order.
        results: where the results come from.
        single: whether the call gives the first result alone, not a list of all.
        written: gets the time of each call at [0].
        miss: what a call gives that the plan does not fit.
        buffers: the ids of arrays that are no arguments kernels may use where they are, whenever a call looks.
    """
    lock = rows.lock
    locks = rows.releases_gil or rows.threads > 0 or any(place.copy is not None for place in results)
    attempt, release = (functools.partial(lock.acquire, False), lock.release) if locks else (lock.locked, None)
    kept: list[object] = [miss, attempt, release, written, rows, buffers]
    words = [world().ctypes.data, id(miss), len(arguments), len(results), rows.table, rows.n, rows.status, id(attempt),
             id(locks), id(release) if locks else 0, int(rows.releases_gil), 0 if written is None else id(written),
             int(single), buffers.ctypes.data, len(buffers), rows.desk if rows.threads else 0, id(rows.pool),
             rows.threads]
    for place in (*arguments, *results):
        shape, slots = np.array(place.shape, np.int64), np.array(place.slots, np.int64)
        kept += place, shape, slots
        words += [0 if place.is_number else id(place.dtype), place.address,
                  math.prod(place.shape) * place.dtype.itemsize, len(shape), shape.ctypes.data, len(place.slots),
                  slots.ctypes.data, *(0 if it is None else id(it) for it in (place.make, place.copy)), place.source]
    return np.array(words, np.int64), kept


@functools.cache
def world() -> Array:
    """Addresses of what every call needs: types, constants, how tensors are laid out."""
    get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi))
    functions = ctypes.cast(get(np._core._multiarray_umath._ARRAY_API, None),  # type: ignore[attr-defined]
                            ctypes.POINTER(ctypes.c_int64))
    value = Value(None)
    tensor = Tensor._of(value)
    ticks: Any = clock.tick
    objects = [np.ndarray, Tensor, float, None, False]
    _alive.extend((*objects, value, tensor, ticks.__self__))
    words = [*map(id, objects), functions[NEW_FROM_DESCR], id(ticks.__self__),
             id(tensor), _words(Tensor), _slot(tensor, "_value"), id(value), _words(Value),
             *(_slot(value, name) for name in ("data", "stamp", "requires_grad", "trace"))]
    return np.array(words, np.int64)


_alive: list[object] = []  # what the world's addresses are of


def _words(cls: type) -> int:
    assert cls.__dictoffset__ == 0 and cls.__basicsize__ % 8 == 0
    return cls.__basicsize__ // 8


def _slot(it: object, name: str) -> int:
    """Which word of an object holds its attribute ``name``, a slot of its class."""
    before, mark = getattr(it, name), object()
    setattr(it, name, mark)
    words = (ctypes.c_int64 * _words(type(it))).from_address(id(it))
    found = list(words).index(id(mark))
    setattr(it, name, before)
    return found
