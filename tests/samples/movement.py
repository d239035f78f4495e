"""Samples of the views."""

from __future__ import annotations

import numpy as np

from graphjit.errors import ArgumentError, ShapeError
from graphjit.ops import movement as mv
from graphjit.ops import shape as sh

from .make import error, fixed, normal, sample, whole

# ---- reshape

for _shape, _to in (
    ((3, 4), (12,)),
    ((3, 4), (2, -1)),
    ((2, 3, 4), (6, 4)),
    ((2, 3, 4), (2, 1, 12)),
    ((), (1, 1)),
    ((1, 1), ()),
    ((0, 3), (3, 0)),
    ((0, 3), (-1, 3)),
    ((1, 6), (6, 1)),
):
    sample(
        "reshape",
        f"{_shape} to {_to}".replace(" ", ""),
        lambda x, s=_to: sh.reshape(x, s),
        normal(_shape),
        lambda x, s=_to: x.reshape(s),
    )
sample(
    "reshape",
    "of a transpose",
    lambda x: sh.reshape(x.T, (2, 6)),
    normal((3, 4)),
    lambda x: x.T.reshape(2, 6),
)
sample(
    "reshape",
    "of a stretched",
    lambda x: x.broadcast_to(3, 4).reshape(12) * 2,
    normal((1, 4)),
    lambda x: np.broadcast_to(x, (3, 4)).reshape(12) * 2,
)
sample(
    "reshape", "of a flip", lambda x: mv.flip(x).reshape(12), normal((3, 4)), lambda x: np.flip(x).reshape(12)
)
sample(
    "reshape",
    "of a slice",
    lambda x: mv.slice_axes(x, (1, 0), (2, 2), (1, 2)).reshape(4),
    normal((3, 4)),
    lambda x: x[1:, ::2].reshape(4),
)
sample(
    "reshape",
    "within a transpose",
    lambda x: x.transpose(1, 0, 2).reshape(3, 2, 2, 2),
    normal((2, 3, 4)),
    lambda x: x.transpose(1, 0, 2).reshape(3, 2, 2, 2),
)
sample(
    "reshape", "method, ints", lambda x: x.reshape(2, -1), whole("int32", 4, 3), lambda x: x.reshape(2, -1)
)
sample("reshape", "bool", lambda x: x.reshape(-1), whole("bool", 4, 3), lambda x: x.reshape(-1))
sample("reshape", "flatten", lambda x: x.flatten(1), normal((2, 3, 4)), lambda x: x.reshape(2, 12))
sample(
    "reshape", "flatten some", lambda x: sh.flatten(x, 0, -2), normal((2, 3, 4)), lambda x: x.reshape(6, 4)
)
sample("reshape", "flatten 0-d", sh.flatten, normal(()), lambda x: x.reshape(1))
sample("reshape", "ravel", sh.ravel, normal((2, 0)), np.ravel)
sample("reshape", "squeeze", sh.squeeze, normal((1, 3, 1)), np.squeeze)
sample("reshape", "squeeze one", lambda x: x.squeeze(-1), normal((1, 3, 1)), lambda x: x.squeeze(-1))
sample("reshape", "squeeze two", lambda x: sh.squeeze(x, (0, 2)), normal((1, 3, 1)), np.squeeze)
sample("reshape", "expand_dims", lambda x: x.expand_dims(1), normal((2, 3)), lambda x: np.expand_dims(x, 1))
sample(
    "reshape",
    "expand_dims several",
    lambda x: sh.expand_dims(x, (0, -1)),
    normal((2, 3)),
    lambda x: np.expand_dims(x, (0, -1)),
)

# ---- permute

sample("permute_dims", "T", lambda x: x.T, normal((2, 3, 4)), lambda x: x.T)
sample("permute_dims", "T of a vector", lambda x: x.T, normal((3,)), lambda x: x.T)
sample("permute_dims", "T of a scalar", lambda x: x.T, normal(()), lambda x: x.T)
sample("permute_dims", "mT", lambda x: x.mT, normal((2, 3, 4)), lambda x: x.mT)
sample(
    "permute_dims",
    "axes",
    lambda x: mv.permute_dims(x, (1, 2, 0)),
    normal((2, 3, 4)),
    lambda x: x.transpose(1, 2, 0),
)
sample(
    "permute_dims",
    "negative axes",
    lambda x: x.permute_dims(-1, 0, 1),
    normal((2, 3, 4)),
    lambda x: x.transpose(-1, 0, 1),
)
sample(
    "permute_dims",
    "transpose",
    lambda x: mv.transpose(x, (0, 2, 1)),
    normal((2, 1, 4)),
    lambda x: x.transpose(0, 2, 1),
)
sample("permute_dims", "empty", lambda x: x.transpose(), normal((0, 3)), lambda x: x.T)
sample("permute_dims", "ints", lambda x: x.transpose(1, 0), whole("int64", 3, 2), lambda x: x.T)
sample("permute_dims", "bools, and arithmetic", lambda x: x.T | x, whole("bool", 3, 3), lambda x: x.T | x)
sample(
    "permute_dims", "swapaxes", lambda x: x.swapaxes(0, -1), normal((2, 3, 4)), lambda x: x.swapaxes(0, -1)
)
sample(
    "permute_dims",
    "moveaxis",
    lambda x: mv.moveaxis(x, 0, -1),
    normal((2, 3, 4)),
    lambda x: np.moveaxis(x, 0, -1),
)
sample(
    "permute_dims",
    "moveaxis two",
    lambda x: mv.moveaxis(x, (0, 2), (1, 0)),
    normal((2, 3, 4)),
    lambda x: np.moveaxis(x, (0, 2), (1, 0)),
)
sample("permute_dims", "with its transpose", lambda x: x * x.T + x.T, normal((3, 3)), lambda x: x * x.T + x.T)

# ---- broadcast

for _shape, _to in (
    ((3, 1), (3, 4)),
    ((4,), (3, 4)),
    ((), (2, 3)),
    ((1, 1), (0, 3)),
    ((3,), (3,)),
    ((2, 1, 3), (2, 4, 3)),
    ((1,), (1,)),
    ((0, 1), (0, 5)),
    ((1,), (1, 1)),
):
    sample(
        "broadcast_to",
        f"{_shape} to {_to}".replace(" ", ""),
        lambda x, s=_to: x.broadcast_to(*s),
        normal(_shape),
        lambda x, s=_to: np.broadcast_to(x, s),
    )
sample(
    "broadcast_to",
    "ints",
    lambda x: mv.broadcast_to(x, (2, 3)),
    whole("int32", 3),
    lambda x: np.broadcast_to(x, (2, 3)),
)
sample("broadcast_to", "arrays", mv.broadcast_arrays, normal((3, 1), (4,), ()), np.broadcast_arrays)

# ---- slice, flip

for _id, _shape, _starts, _sizes, _steps in (
    ("rows", (5, 3), (1, 0), (2, 3), (1, 1)),
    ("steps", (7, 5), (1, 0), (3, 3), (2, 2)),
    ("nothing", (4,), (2,), (0,), (1,)),
    ("one", (4,), (3,), (1,), (5,)),
    ("all", (2, 3), (0, 0), (2, 3), (1, 1)),
    ("of nothing", (0, 3), (0, 1), (0, 2), (1, 1)),
    ("cube", (3, 4, 5), (1, 1, 1), (2, 2, 2), (1, 2, 3)),
    ("scalar", (), (), (), ()),
):
    sample(
        "slice",
        _id,
        lambda x, a=_starts, n=_sizes, k=_steps: mv.slice_axes(x, a, n, k),
        normal(_shape),
        lambda x, a=_starts, n=_sizes, k=_steps: x[
            tuple(slice(i, i + m * j, j) for i, m, j in zip(a, n, k, strict=True))
        ],
    )
sample(
    "slice",
    "of a transpose",
    lambda x: mv.slice_axes(x.T, (1, 0), (2, 2), (1, 2)) * 2,
    normal((3, 4)),
    lambda x: x.T[1:3, ::2] * 2,
)
sample(
    "slice",
    "differences",
    lambda x: mv.cut(x, 0, 1, 4) - mv.cut(x, 0, 0, 4),
    normal((5, 2)),
    lambda x: np.diff(x, axis=0),
)
sample("slice", "ints", lambda x: mv.cut(x, 0, 1, 2), whole("uint8", 4), lambda x: x[1:3])
sample("slice", "bools", lambda x: mv.cut(x, 0, 1, 2), whole("bool", 4), lambda x: x[1:3])
for _id, _shape, _axis in (
    ("all", (3, 4), None),
    ("one", (3, 4), 1),
    ("two", (2, 3, 4), (0, -1)),
    ("empty", (0, 3), 0),
    ("scalar", (), None),
    ("of length one", (1, 3), 0),
    ("none", (2,), ()),
):
    sample("flip", _id, lambda x, a=_axis: mv.flip(x, a), normal(_shape), lambda x, a=_axis: np.flip(x, a))
sample("flip", "with itself", lambda x: x * x.flip(0) + x, normal((4, 2)), lambda x: x * x[::-1] + x)
sample("flip", "ints", mv.flip, whole("int32", 2, 3), np.flip)
sample(
    "flip",
    "of a step",
    lambda x: mv.slice_axes(x, (1,), (3,), (2,)).flip(),
    normal((6,)),
    lambda x: x[1::2][::-1],
)

# ---- errors

_23 = fixed(np.ones((2, 3)))
error("reshape", "size", lambda x: x.reshape(4, 2), _23, ShapeError)
error("reshape", "-1 does not come out", lambda x: x.reshape(4, -1), _23, ShapeError)
error("reshape", "-1 twice", lambda x: x.reshape(-1, -1), _23, ShapeError)
error("reshape", "-2", lambda x: x.reshape(-2, -3), _23, ShapeError)
error("reshape", "-1 of nothing", lambda x: x.reshape(-1, 0), fixed(np.ones((0, 3))), ShapeError)
error("reshape", "float", lambda x: x.reshape(2.0, 3), _23, ArgumentError)
error("reshape", "squeeze", lambda x: x.squeeze(1), _23, ShapeError)
error("reshape", "expand_dims", lambda x: x.expand_dims(4), _23, ShapeError)
error("reshape", "flatten", lambda x: x.flatten(1, 0), _23, ShapeError)
error("permute_dims", "too few", lambda x: x.permute_dims(0), _23, ShapeError)
error("permute_dims", "twice", lambda x: x.permute_dims(0, 0), _23, ShapeError)
error("permute_dims", "outside", lambda x: x.permute_dims(0, 2), _23, ShapeError)
error("permute_dims", "swapaxes", lambda x: x.swapaxes(0, 2), _23, ShapeError)
error("permute_dims", "mT", lambda x: x.mT, fixed(np.ones(3)), ShapeError)
error("permute_dims", "moveaxis", lambda x: mv.moveaxis(x, (0, 0), (0, 1)), _23, ShapeError)
error("broadcast_to", "misfit", lambda x: x.broadcast_to(2, 4), _23, ShapeError)
error("broadcast_to", "fewer axes", lambda x: x.broadcast_to(3), _23, ShapeError)
error("broadcast_to", "negative", lambda x: x.broadcast_to(-1, 2, 3), _23, ShapeError)
error("slice", "outside", lambda x: mv.slice_axes(x, (0, 1), (2, 3), (1, 1)), _23, ShapeError)
error("slice", "negative start", lambda x: mv.slice_axes(x, (-1, 0), (1, 3), (1, 1)), _23, ShapeError)
error("slice", "step zero", lambda x: mv.slice_axes(x, (0, 0), (1, 1), (0, 1)), _23, ShapeError)
error("flip", "axis", lambda x: x.flip(2), _23, ShapeError)
