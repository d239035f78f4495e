"""Samples of indexing, read and written, and of take and scatter."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.apply import apply
from graphjit.errors import ArgumentError, BoundsError, DTypeError, ShapeError
from graphjit.ops import gather as ga

from .make import error, fixed, name, normal, sample, whole

ALL = slice(None)
I = np.array([[0, 2, -1], [1, 1, 3]])  # noqa: E741  # index arrays, named as in the formulas
J = np.array([1, -4, 0])
CUBE = (4, 5, 6)


def spell(index: Any) -> str:
    """An index as it is written."""
    if isinstance(index, tuple):
        return ",".join(map(spell, index)) or "()"
    if isinstance(index, slice):
        parts = ["" if p is None else str(p) for p in (index.start, index.stop, index.step)]
        return ":".join(parts if index.step is not None else parts[:2])
    if isinstance(index, np.ndarray):
        return f"{index.dtype.kind}{list(index.shape)}".replace(" ", "")
    return "..." if index is ... else str(index).replace(" ", "")


# ---- reading

BASIC: tuple[tuple[str, Any], ...] = (
    ("reshape", 0),
    ("reshape", -1),
    ("reshape", (1, 2, 3)),
    ("reshape", (..., 0)),
    ("reshape", None),
    ("reshape", (..., None)),
    ("slice", slice(1, None)),
    ("slice", (ALL, slice(None, -2), slice(-3, None))),
    ("slice", (ALL, ALL, slice(None, None, 4))),
    ("slice", (slice(1, 3), None, 2, None, slice(None, None, 2))),
    ("slice", (..., slice(4, 1))),
    ("slice", slice(-100, 2)),
    ("flip", slice(None, None, -1)),
    ("flip", (slice(3, 0, -2), ..., slice(None, None, -2))),
)
for _op, _index in BASIC:
    sample(_op, f"x[{spell(_index)}]", lambda x, i=_index: x[i], normal(CUBE), lambda x, i=_index: x[i])
sample("reshape", "x[()]", lambda x: x[()], normal((2,)), lambda x: x[()])
sample("slice", "x[1:] of one", lambda x: x[1:], normal((1, 3)), lambda x: x[1:])
sample("flip", "x[::-1] of none", lambda x: x[::-1], normal((0, 3)), lambda x: x[::-1])

ADVANCED: tuple[Any, ...] = (
    I,
    (ALL, J),
    (..., J),
    (I, J),
    (ALL, I, J),
    (I, ALL, J),
    (0, ALL, J),
    (ALL, 0, J),
    (J, 0),
    (0, I, J),
    (J, ALL, 0),
    (J, None, J),
    (slice(1, None), J),
    (slice(None, None, -1), J, slice(None, None, 2)),
    [0, 2],
    ([0, 1], [1, 2], [2, 3]),
    [],
    (ALL, [True, False, True, True, False]),
    True,
    (False, 0),
)
for _index in ADVANCED:
    sample("take", f"x[{spell(_index)}]", lambda x, i=_index: x[i], normal(CUBE), lambda x, i=_index: x[i])


def _index(*indices: Any) -> Any:
    return lambda rng: (rng.normal(size=CUBE), *indices)


sample("check_index", "x[i]", lambda x, i: x[i], _index(abs(I)), lambda x, i: x[i])
for _kind in ("int8", "uint8", "int32", "uint64"):
    sample("check_index", _kind, lambda x, i: x[i], _index(np.array([3, 0, 1], _kind)), lambda x, i: x[i])
sample("check_index", "negative", lambda x, i: x[i], _index(I), lambda x, i: x[i])
sample("check_index", "x[:, i, j]", lambda x, i, j: x[:, i, j], _index(I, J), lambda x, i, j: x[:, i, j])
sample("check_index", "0-d", lambda x, i: x[i], _index(np.array(-2)), lambda x, i: x[i])
sample("check_index", "0-d, apart", lambda x, i: x[i, :, 1], _index(np.array(2)), lambda x, i: x[i, :, 1])
sample("check_index", "empty", lambda x, i: x[i], _index(np.zeros((0, 2), int)), lambda x, i: x[i])
sample("check_index", "many", lambda x, i: x[i], fixed(np.arange(300.0), np.arange(-300, 300)), lambda x, i: x[i])

# ---- take and scatter

for _axis in (0, 1, -1, None):
    sample("take", f"axis {_axis}", lambda x, i, a=_axis: ga.take(x, i, axis=a), _index(np.array([[1, 3], [0, 2]])),
           lambda x, i, a=_axis: np.take(x, i, axis=a))  # fmt: skip
sample("take", "method", lambda x, i: x.take(i, axis=1), _index(J), lambda x, i: np.take(x, i, axis=1))
sample("take", "rows and arithmetic", lambda x, i: ga.take(x * 2, i, 0).relu() + 1, _index(I),
       lambda x, i: np.maximum(np.take(x * 2, i, 0), 0) + 1)  # fmt: skip
sample("take", "ints", lambda x: ga.take(x, [3, 3, 0]), whole("uint8", 5), lambda x: x[[3, 3, 0]])
sample("take", "bools", lambda x: ga.take(x, [3, 3, 0]), whole("bool", 5), lambda x: x[[3, 3, 0]])
for _axis in (0, 1, 2):
    _shape = tuple(2 if i == _axis else n for i, n in enumerate(CUBE))
    for _one in (False, True):
        _narrow = tuple(1 if _one and i == (_axis + 1) % 3 else n for i, n in enumerate(_shape))
        sample("take", name("along axis", _axis, _narrow), lambda x, i, a=_axis: ga.take_along_axis(x, i, a),
               lambda rng, s=_narrow: (rng.normal(size=CUBE), rng.integers(-4, 4, s)),
               lambda x, i, a=_axis: np.take_along_axis(x, i, a))  # fmt: skip

    _place = tuple(1 if i == _axis else n for i, n in enumerate(CUBE))
    sample("take", f"one of each row of axis {_axis}", lambda x, i, a=_axis: ga.take_along_axis(x * 2, i, a) + 1,
           lambda rng, s=_place: (rng.normal(size=CUBE), rng.integers(-4, 4, s)),
           lambda x, i, a=_axis: np.take_along_axis(x * 2, i, a) + 1)  # fmt: skip

for _size in ((5,), (2, 5), (5, 130)):  # numbers one by one, rows, rows of several blocks
    sample("scatter_add", name("of", _size), lambda x, i, s, a=_size: ga.scatter_add(x, i, s, a.index(5)),
           lambda rng, s=_size: (rng.normal(size=s), np.array([4, 0, 4]),
                                 rng.normal(size=[3 if n == 5 else n for n in s])),
           lambda x, i, s, a=_size: x + np.moveaxis([s.take(np.flatnonzero(i == k), a.index(5)).sum(a.index(5))
                                                     for k in range(5)], 0, a.index(5)))  # fmt: skip

for _axis, _at in ((0, (3,)), (1, (2, 3)), (-1, (4,)), (0, ()), (1, (0,))):
    def _reference(x: Any, i: Any, s: Any, axis: int = _axis) -> Any:
        out = np.moveaxis(x.copy(), axis, 0)
        lead = axis % 3
        np.add.at(out, i, np.moveaxis(s, range(lead, lead + i.ndim), range(i.ndim)))
        return np.moveaxis(out, 0, axis)

    _src = (*CUBE[:_axis % 3], *_at, *CUBE[_axis % 3 + 1:])
    sample("scatter_add", name("axis", _axis, _at), lambda x, i, s, a=_axis: ga.scatter_add(x, i, s, a),
           lambda rng, s=_src, at=_at: (rng.normal(size=CUBE), rng.integers(0, 4, at), rng.normal(size=s)),
           _reference)  # fmt: skip
sample("scatter_add", "broadcast source", lambda x, i, s: ga.scatter_add(x, i, s),
       lambda rng: (rng.normal(size=(4, 5)), np.array([1, 1, -1]), rng.normal(size=(5,))),
       lambda x, i, s: x + np.array([0, 2, 0, 1], x.dtype)[:, None] * s)  # fmt: skip
sample("scatter_add", "wide rows", lambda x, i, s: ga.scatter_add(x, i, s),
       lambda rng: (rng.normal(size=(3, 150)), np.array([2, 0, 2]), rng.normal(size=(3, 150))),
       lambda x, i, s: x + np.stack([s[1], 0 * s[0], s[0] + s[2]]))  # fmt: skip
sample("scatter_add", "ints", lambda x: ga.scatter_add(x, [0, 2, 2], 5), whole("int32", 4),
       lambda x: x + np.array([5, 0, 10, 0], x.dtype))  # fmt: skip
sample("take_grad", "row", lambda i, s: apply(ga.TAKE_GRAD, i, s, axis=1, size=5),
       lambda rng: (np.array([4, 0, 4]), rng.normal(size=(2, 3, 70))),
       lambda i, s: np.stack([s[:, 1], 0 * s[:, 0], 0 * s[:, 0], 0 * s[:, 0], s[:, 0] + s[:, 2]], 1))  # fmt: skip


# ---- writing

def written(index: Any) -> Any:
    def reference(x: Any, v: Any) -> Any:
        out = x.copy()
        out[index] = v
        return out
    return reference


for _index_, _shape in (
    (0, (5, 6)),
    (0, ()),
    ((ALL, 1), (4, 6)),
    ((ALL, 1), (6,)),
    ((1, 2, 3), ()),
    ((..., slice(1, 3)), (2,)),
    ((..., slice(1, 3)), (4, 1, 2)),
    ((slice(3, 0, -2), ALL, slice(None, None, 2)), (2, 5, 3)),
    ((slice(None, None, -1), ALL), (4, 5, 6)),
    ((None, slice(1, 2)), (1, 1, 5, 6)),
    ((ALL, slice(2, 2)), (6,)),
    (..., (4, 5, 6)),
    (..., ()),
):
    sample("where", name(f"x[{spell(_index_)}] = v", _shape), lambda x, v, i=_index_: x._with_item(i, v),
           normal(CUBE, _shape), written(_index_))  # fmt: skip
for _index_, _shape in (
    (I, (2, 3, 5, 6)),
    (I, ()),
    ((ALL, J), (4, 3, 6)),
    ((I, ALL, J), (2, 3, 5)),
    ((J, J), (6,)),
    ((0, ALL, J), (3, 5)),
    ((slice(1, None), J, slice(None, None, 2)), (3, 3, 3)),
    (([0, 1], [1, 2], [2, 3]), (2,)),
    ([1, 1, 1], (3, 5, 6)),
    ([], ()),
    (True, (1, 4, 5, 6)),
):
    sample("scatter_set", name(f"x[{spell(_index_)}] = v", _shape), lambda x, v, i=_index_: x._with_item(i, v),
           normal(CUBE, _shape), written(_index_))  # fmt: skip
sample("scatter_set", "x[i] = v", lambda x, i, v: x._with_item(i, v),
       lambda rng: (rng.normal(size=CUBE), I, rng.normal(size=(2, 3, 5, 6))),
       lambda x, i, v: written(i)(x, v))  # fmt: skip
sample("scatter_set", "ints", lambda x: x._with_item([0, 3, 0], [7, 8, 9]), whole("int32", 4),
       lambda x: np.array([9, x[1], x[2], 8], x.dtype))  # fmt: skip
sample("scatter_set", "bools", lambda x: x._with_item([0, 3], True), whole("bool", 4),
       lambda x: np.array([True, x[1], x[2], True]))  # fmt: skip
sample("where", "mask", lambda x, m: x._with_item(m, 0.5), lambda rng: (rng.normal(size=CUBE), rng.random(CUBE) > 0.5),
       lambda x, m: np.where(m, 0.5, x).astype(x.dtype))  # fmt: skip
sample("where", "mask of rows", lambda x, m, v: x._with_item(m, v),
       lambda rng: (rng.normal(size=CUBE), rng.random((4, 5)) > 0.5, rng.normal(size=(6,))),
       lambda x, m, v: np.where(m[..., None], v, x))  # fmt: skip
sample("where", "mask of columns", lambda x, m, v: x._with_item((ALL, m), v),
       lambda rng: (rng.normal(size=CUBE), rng.random((5,)) > 0.5, rng.normal(size=(4, 1, 6))),
       lambda x, m, v: np.where(m[:, None], v, x))  # fmt: skip
sample("where", "mask of a part", lambda x, m: x._with_item((slice(1, None), m), 2.0),
       lambda rng: (rng.normal(size=CUBE), rng.random((5, 6)) > 0.5),
       lambda x, m: np.concatenate([x[:1], np.where(m, 2.0, x[1:]).astype(x.dtype)]))  # fmt: skip

# ---- errors

error("reshape", "int out of range", lambda x: x[4], normal(CUBE), BoundsError)
error("reshape", "negative int out of range", lambda x: x[:, -6], normal(CUBE), BoundsError)
error("reshape", "too many", lambda x: x[0, 0, 0, 0], normal(CUBE), BoundsError)
error("reshape", "float", lambda x: x[1.0], normal(CUBE), ArgumentError)
error("reshape", "string", lambda x: x["a"], normal(CUBE), ArgumentError)
error("reshape", "two ellipses", lambda x: x[..., ...], normal(CUBE), BoundsError)
error("slice", "slice of strings", lambda x: x[slice("a")], normal(CUBE), ArgumentError)
error("slice", "step 0", lambda x: x[::0], normal(CUBE), ArgumentError)
error("take", "list out of range", lambda x: x[[0, 4]], normal(CUBE), BoundsError)
error("take", "ragged list", lambda x: x[[[0], [1, 2]]], normal(CUBE), ArgumentError)
error("take", "float indices", lambda x, i: x[i], normal(CUBE, (2,)), DTypeError)
error("take", "float list", lambda x: x[[0.5]], normal(CUBE), DTypeError)
error("take", "shapes of indices", lambda x: x[[0, 1], [0, 1, 2]], normal(CUBE), ShapeError)
error("take", "take of floats", lambda x, i: ga.take(x, i, 0), normal(CUBE, (2,)), DTypeError)
error("take", "axis", lambda x: ga.take(x, [0], 3), normal(CUBE), ShapeError)
error("take", "along axis, dimensions", lambda x: ga.take_along_axis(x, [0], 0), normal(CUBE), ShapeError)
error("take", "along axis, lengths", lambda x: ga.take_along_axis(x, [[0, 1]], 0), normal((4, 3)), ShapeError)
error("where", "mask of another shape", lambda x, m: x._with_item(m, 0), lambda rng: (
    rng.normal(size=CUBE), np.ones(3, bool)), BoundsError)  # fmt: skip
error("where", "value of another shape", lambda x, v: x._with_item(0, v), normal(CUBE, (2,)), ShapeError)
error("scatter_set", "value of another shape", lambda x, v: x._with_item([0, 1], v), normal(CUBE, (3, 5, 6)),
      ShapeError)  # fmt: skip
error("scatter_add", "source", lambda x, s: ga.scatter_add(x, [0, 1], s), normal((3,), (3,)), ShapeError)
error("scatter_add", "bool", lambda x: ga.scatter_add(x, [0], x), whole("bool", 1), DTypeError)
