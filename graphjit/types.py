"""Types of tensors: shape and dtype, broadcasting and promotion (NumPy 2 rules)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from graphjit.errors import DTypeError, ShapeError

Shape = tuple[int, ...]
Order = tuple[int, ...]  # the axes of a tensor as they follow each other in memory
DType = np.dtype[Any]

BOOL = np.dtype(np.bool_)
INT32 = np.dtype(np.int32)
INT64 = np.dtype(np.int64)
UINT32 = np.dtype(np.uint32)
UINT64 = np.dtype(np.uint64)
FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)

DTYPES: tuple[DType, ...] = tuple(
    np.dtype(t) for t in (np.bool_, np.int8, np.int16, np.int32, np.int64,
                          np.uint8, np.uint16, np.uint32, np.uint64, np.float32, np.float64))
HELD = frozenset(DTYPES)
SHORT = 16  # an axis up to so long is no choice of the caller's, but for the first one; and loops so short are known


class Extent(int):
    """The length of an axis that the caller chose: of the first one of an argument (a batch size, say), and of others
    that are longer than 16; of arguments in containers only such long ones, and none where they are parameters (see
    ``Trace.argument`` and ``Trace.know_lengths``).

    It counts as an ordinary int; only broadcasting looks at it. A length of one that came
    from outside is treated like any other length, so that the program traced for a batch of one has the
    same operations, and so the same kernels, as that for a batch of thirty-two. Sums, differences and products
    with one are Extents again.
    """

    __slots__ = ()

    def __add__(self, other: int) -> int:
        return _extent(int.__add__(self, other))

    def __sub__(self, other: int) -> int:
        return _extent(int.__sub__(self, other))

    def __rsub__(self, other: int) -> int:
        return _extent(int.__rsub__(self, other))

    def __mul__(self, other: int) -> int:
        return _extent(int.__mul__(self, other))

    def __floordiv__(self, other: int) -> int:
        return _extent(int.__floordiv__(self, other))

    def __neg__(self) -> int:
        return Extent(int.__neg__(self))

    def __truediv__(self, other: float) -> float:
        return Ratio(int.__truediv__(self, other)) if isinstance(other, int) else Ratio(int(self) / other)

    def __rtruediv__(self, other: float) -> float:
        return Ratio(other / int(self))

    __radd__ = __add__
    __rmul__ = __mul__


@lru_cache(maxsize=256)
def inverse(order: Order) -> Order:
    """The order that undoes another."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def _extent(n: int) -> int:
    return Extent(n) if isinstance(n, int) else n


class Ratio(float):
    """A number computed from an Extent by division, like 1 / batch size: no kernel may depend on its value."""

    __slots__ = ()

    def __add__(self, other: float) -> float:
        return Ratio(float(self) + other)

    def __sub__(self, other: float) -> float:
        return Ratio(float(self) - other)

    def __rsub__(self, other: float) -> float:
        return Ratio(other - float(self))

    def __mul__(self, other: float) -> float:
        return Ratio(float(self) * other)

    def __truediv__(self, other: float) -> float:
        return Ratio(float(self) / other)

    def __rtruediv__(self, other: float) -> float:
        return Ratio(other / float(self))

    def __neg__(self) -> float:
        return Ratio(-float(self))

    __radd__ = __add__
    __rmul__ = __mul__


class TensorType(NamedTuple):
    """Shape and dtype of a tensor; ``weak`` marks a Python float known only at run time."""

    shape: Shape
    dtype: DType
    weak: bool = False

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def with_shape(self, shape: Sequence[int]) -> TensorType:
        return TensorType(tuple(shape), self.dtype)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(self.shape, dtype)

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(str(int(n)) for n in self.shape)}]"


def is_float(dtype: DType) -> bool:
    return dtype.kind == "f"


def is_integer(dtype: DType) -> bool:
    return dtype.kind in "iu"


def check_dtype(dtype: Any) -> DType:
    """The dtype if graphjit holds it.

    Raises:
        DTypeError: for complex, float16, strings, objects and whatever else is not held.
    """
    if isinstance(dtype, np.dtype) and dtype in HELD and dtype.isnative:
        return dtype
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise DTypeError(f"{dtype!r} is not a dtype") from error
    if not found.isnative:
        found = found.newbyteorder("=")
    if found not in HELD:
        raise DTypeError(f"graphjit does not hold dtype {found}",
                         hint="It holds bool, int8-64, uint8-64, float32 and float64.")
    held: DType = found
    return held


@lru_cache(maxsize=512)
def promote(*dtypes: DType) -> DType:
    """The dtype that holds all of these, as NumPy 2 decides it.

    >>> promote(INT64, FLOAT32).name
    'float64'
    """
    return np.result_type(*dtypes)


def is_one(n: int) -> bool:
    """Whether an axis is of length one by construction, and so stretches in broadcasting."""
    return n == 1 and not isinstance(n, Extent)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape all of these broadcast to; a length that one of them has of its own is not the caller's choice.

    Raises:
        ShapeError: when two lengths differ and neither is one.
    """
    first = shapes[0]
    if all(s == first for s in shapes) and not any(n == 1 for n in first) and Extent not in map(type, first):
        return first
    ndim = max(len(s) for s in shapes)
    out: list[int] = []
    for axis in range(-ndim, 0):
        lengths = [s[axis] for s in shapes if -axis <= len(s)]
        wide = [n for n in lengths if not is_one(n)]
        longer = [n for n in wide if n != 1]
        chosen = next((n for n in longer if not isinstance(n, Extent)), (longer or wide or [1])[0])
        if any(n not in (1, chosen) for n in lengths):
            raise ShapeError("shapes " + ", ".join(str(tuple(map(int, s))) for s in shapes) + " do not broadcast",
                             hint="Axes are matched from the right; each pair must be equal or one of them 1.")
        out.append(chosen)
    return tuple(out)


def stretched_axes(shape: Shape, to: Shape) -> tuple[int, ...]:
    """Axes of ``to`` along which ``shape`` was stretched (or which it lacks) in broadcasting to it."""
    lead = len(to) - len(shape)
    return tuple(range(lead)) + tuple(
        lead + i for i, (n, m) in enumerate(zip(shape, to[lead:], strict=True))
        if n == 1 and (m != 1 or (is_one(n) and not is_one(m))))


def normalize_axis(axis: int, ndim: int, what: str = "axis") -> int:
    """A non-negative axis.

    Raises:
        ShapeError: when there is no such axis.
    """
    if type(axis) is int and -ndim <= axis < ndim:
        return axis + ndim if axis < 0 else axis
    if isinstance(axis, (bool, np.bool_)) or not isinstance(axis, (int, np.integer)):
        raise ShapeError(f"{what} must be an integer, not {axis!r}")
    if not -ndim <= axis < ndim:
        raise ShapeError(f"{what} {axis} is out of range for {ndim} dimensions")
    return int(axis) % ndim


_ALL = tuple([tuple(range(n)) for n in range(8)])


def normalize_axes(axis: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Sorted non-negative axes; None means all.

    Raises:
        ShapeError: when an axis does not exist or is named twice.
    """
    if axis is None:
        return _ALL[ndim] if ndim < len(_ALL) else tuple(range(ndim))
    if type(axis) is int and 0 <= axis < ndim:
        return (axis,)
    if isinstance(axis, (tuple, list)):
        last = -1
        for a in axis:
            if type(a) is not int or not last < a < ndim:
                break
            last = a
        else:  # as they are to be
            return tuple(axis)
        axes = sorted(normalize_axis(a, ndim) for a in axis)
        if len(set(axes)) != len(axes):
            raise ShapeError(f"axis {axis!r} names a dimension twice")
        return tuple(axes)
    return (normalize_axis(axis, ndim),)  # type: ignore[arg-type]  # checked inside


def contiguous_strides(shape: Shape) -> tuple[int, ...]:
    """Row-major strides in elements; those that depend on a length the caller chose are Extents too."""
    strides: list[int] = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= n or n + 1
    return tuple(reversed(strides))


def same_number(a: int, b: int) -> bool:
    """Equal, and not by the chance of one batch size: both or neither of them computed from an Extent."""
    return a == b and (a == 0 or isinstance(a, Extent) == isinstance(b, Extent))
