"""Samples of pad and concat, and of what is made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphjit.apply import apply
from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.ops import creation as cr
from graphjit.ops import join as jn
from graphjit.ops import movement as mv

from .make import error, fixed, name, normal, sample, whole

# ---- pad

for _id, _shape, _widths in (
    ("all", (2, 3), 1),
    ("pair", (2, 3), (0, 2)),
    ("one pair", (2, 3), ((1, 2),)),
    ("each", (2, 3), ((1, 0), (0, 2))),
    ("nothing", (2, 3), 0),
    ("empty", (0, 2), 1),
    ("cube", (2, 1, 3), ((0, 1), (2, 0), (1, 1))),
    ("scalar", (), 1),
):
    sample("pad", _id, lambda x, w=_widths: jn.pad(x, w), normal(_shape), lambda x, w=_widths: np.pad(x, w))
sample(
    "pad",
    "value",
    lambda x: jn.pad(x, 1, constant_values=-2.5),
    normal((2, 2)),
    lambda x: np.pad(x, 1, constant_values=-2.5),
)
sample(
    "pad",
    "tensor value",
    lambda x, v: jn.pad(x, (1, 0), constant_values=v),
    normal((2, 2), ()),
    lambda x, v: np.pad(x, (1, 0), constant_values=v),
)
sample(
    "pad",
    "infinite",
    lambda x: jn.pad(x, 1, constant_values=-np.inf),
    normal((3,)),
    lambda x: np.pad(x, 1, constant_values=-np.inf),
    grad=False,
)
sample(
    "pad",
    "ints",
    lambda x: jn.pad(x, 2, constant_values=7),
    whole("int32", 3),
    lambda x: np.pad(x, 2, constant_values=7),
)
sample(
    "pad",
    "bools",
    lambda x: jn.pad(x, 1, constant_values=True),
    whole("bool", 3),
    lambda x: np.pad(x, 1, constant_values=True),
)
sample(
    "pad",
    "interior",
    lambda x: apply(mv.PAD, x, low=(1, 0), high=(0, 2), interior=(2, 1), value=0.5),
    normal((2, 3)),
    lambda x: _spaced(x, (5, 7), (1, 0), (3, 2), 0.5),
)
sample(
    "pad",
    "interior of nothing",
    lambda x: apply(mv.PAD, x, low=(1,), high=(1,), interior=(3,), value=0.0),
    normal((0,)),
    lambda x: np.zeros(2, x.dtype),
)
sample(
    "pad",
    "of a transpose, and arithmetic",
    lambda x: jn.pad(x.T * 2, 1) + 1,
    normal((2, 3)),
    lambda x: np.pad(x.T * 2, 1) + 1,
)


def _spaced(
    x: Any, shape: tuple[int, ...], low: tuple[int, ...], steps: tuple[int, ...], value: float
) -> Any:
    out = np.full(shape, value, x.dtype)
    out[low[0] :: steps[0], low[1] :: steps[1]][: x.shape[0], : x.shape[1]] = x
    return out


# ---- concat and what is made of it

for _id, _shapes, _axis in (
    ("rows", ((2, 3), (1, 3)), 0),
    ("columns", ((2, 3), (2, 1), (2, 2)), 1),
    ("negative", ((2, 1, 2), (2, 3, 2)), -2),
    ("one operand", ((2, 3),), 0),
    ("with empty", ((0, 2), (3, 2), (0, 2)), 0),
    ("all empty", ((0, 2), (0, 2)), 1),
    ("vectors", ((1,), (2,), (3,)), 0),
):
    sample(
        "concat",
        _id,
        lambda *x, a=_axis: jn.concat(x, axis=a),
        normal(*_shapes),
        lambda *x, a=_axis: np.concatenate(x, axis=a),
    )
sample(
    "concat",
    "flattened",
    lambda x, y: jn.concat([x, y], axis=None),
    normal((2, 3), (4,)),
    lambda x, y: np.concatenate([x, y], axis=None),
)
sample(
    "concat",
    "of itself",
    lambda x: jn.concat([x, x * 2, x]),
    normal((2, 2)),
    lambda x: np.concatenate([x, x * 2, x]),
)
sample(
    "concat",
    "of views",
    lambda x: jn.concat([x.T, mv.flip(x)], 1) * 3,
    normal((2, 2)),
    lambda x: np.concatenate([x.T, np.flip(x)], 1) * 3,
)
sample(
    "concat",
    "promoted",
    lambda x, y: jn.concatenate([x, y]),
    lambda rng: (rng.integers(0, 9, 3), rng.normal(size=2)),
    lambda x, y: np.concatenate([x, y]),
)
sample("concat", "bools", lambda x: jn.concat([x, ~x]), whole("bool", 3), lambda x: np.concatenate([x, ~x]))
for _axis in (0, 1, -1):
    sample(
        "concat",
        f"stack {_axis}",
        lambda x, y, a=_axis: jn.stack([x, y], a),
        normal((2, 3), (2, 3)),
        lambda x, y, a=_axis: np.stack([x, y], a),
    )
sample(
    "concat",
    "stack of scalars",
    lambda x, y: jn.stack([x, y, 1.5]),
    normal((), ()),
    lambda x, y: np.stack([x, y, x.dtype.type(1.5)]),
)
for _id, _shape, _shift, _axis in (
    ("flat", (3, 4), 2, None),
    ("axis", (3, 4), 1, 0),
    ("back", (3, 4), -1, 1),
    ("far", (3,), 7, 0),
    ("two", (3, 4), (1, -2), (0, 1)),
    ("both", (3, 4), 1, (0, 1)),
    ("empty", (0, 2), 1, 0),
    ("none", (3,), 0, 0),
    ("of one", (1, 2), 1, 0),
):
    sample(
        "concat",
        f"roll {_id}",
        lambda x, s=_shift, a=_axis: jn.roll(x, s, a),
        normal(_shape),
        lambda x, s=_shift, a=_axis: np.roll(x, s, a),
    )
for _shape, _shifts in (
    ((5,), (2,)),
    ((4, 3), (1, -1)),
    ((2, 6, 5), (0, 0, -2)),
    ((3, 2, 4), (-1, 0, 2)),
    ((4, 1), (2, 0)),
):
    sample(
        "rolled",
        name(_shape, _shifts),
        lambda x, s=_shifts: apply(jn.ROLLED, x, shifts=s),
        normal(_shape),
        lambda x, s=_shifts: np.roll(x, s, tuple(range(len(s)))),
        grad=False,
        second=False,
    )
for _id, _parts, _axis in (
    ("sections", 2, 1),
    ("indices", [1, 3], 1),
    ("outside", [1, 9], 0),
    ("negative", [-1], 1),
    ("falling", [3, 1], 1),
    ("none", [], 0),
):
    sample(
        "slice",
        f"split {_id}",
        lambda x, p=_parts, a=_axis: jn.split(x, p, a),
        normal((3, 4)),
        lambda x, p=_parts, a=_axis: np.split(x, p, a),
    )
sample("slice", "unstack", lambda x: jn.unstack(x, 1), normal((3, 2)), lambda x: (x[:, 0], x[:, 1]))
sample("slice", "unstack nothing", lambda x: [*jn.unstack(x), x], normal((0, 2)), lambda x: [x])

# ---- repeat, tile, diagonals, grids

for _shape, _count, _axis in (
    ((3,), 2, 0),
    ((2, 3), 2, None),
    ((2, 3), 3, 1),
    ((2, 3), 0, 0),
    ((0, 2), 2, 0),
    ((1,), 1, 0),
):
    sample(
        "broadcast_to",
        f"repeat {_shape} {_count} {_axis}",
        lambda x, n=_count, a=_axis: x.repeat(n, a),
        normal(_shape),
        lambda x, n=_count, a=_axis: np.repeat(x, n, a),
    )
for _shape, _reps in (
    ((3,), 2),
    ((2, 3), (2, 1)),
    ((2, 3), 2),
    ((3,), (2, 2)),
    ((2, 1), (1, 3, 2)),
    ((2,), 0),
    ((), 3),
):
    sample(
        "broadcast_to",
        f"tile {_shape} {_reps}",
        lambda x, r=_reps: jn.tile(x, r),
        normal(_shape),
        lambda x, r=_reps: np.tile(x, r),
    )
for _k in (0, 1, -2, 5):
    for _shape in ((3,), (4, 3), (3, 5), (1,), (0,), (1, 1)):
        sample(
            "pad" if len(_shape) == 1 else "slice",
            f"diag {_shape} {_k}",
            lambda x, k=_k: jn.diag(x, k),
            normal(_shape),
            lambda x, k=_k: np.diag(x, k) if x.ndim == 1 or abs(k) < 5 else np.zeros(0, x.dtype),
        )
    for _name, _function, _reference in (("tril", cr.tril, np.tril), ("triu", cr.triu, np.triu)):
        sample(
            "where",
            f"{_name} {_k}",
            lambda x, k=_k, f=_function: f(x, k),
            normal((2, 3, 4)),
            lambda x, k=_k, f=_reference: f(x, k),
        )
sample("where", "tril of bools", cr.tril, whole("bool", 3, 3), np.tril)
sample("where", "triu of ints", cr.triu, whole("uint8", 3, 2), np.triu)
for _indexing in ("xy", "ij"):
    sample(
        "broadcast_to",
        f"meshgrid {_indexing}",
        lambda x, y, z, i=_indexing: jn.meshgrid(x, y, z, indexing=i),
        normal((2,), (3,), ()),
        lambda x, y, z, i=_indexing: np.meshgrid(x, y, z, indexing=i),
    )

# ---- errors

_23 = fixed(np.ones((2, 3)))
error("broadcast_to", "repeat", lambda x: x.repeat(-1, 0), _23, ArgumentError)
error("slice", "split", lambda x: jn.split(x, 2, 1), _23, ShapeError)
error("pad", "negative", lambda x: jn.pad(x, -1), _23, ArgumentError)
error("pad", "form", lambda x: jn.pad(x, (1, 2, 3)), _23, ArgumentError)
error("pad", "float widths", lambda x: jn.pad(x, 0.5), _23, ArgumentError)
error(
    "pad", "float into ints", lambda x: jn.pad(x, 1, constant_values=0.5), fixed(np.ones(2, int)), DTypeError
)
error("pad", "too large", lambda x: jn.pad(x, 1, constant_values=300), fixed(np.ones(2, "uint8")), DTypeError)
error(
    "pad",
    "op, negative",
    lambda x: apply(mv.PAD, x, low=(-1,), high=(3,), interior=(0,), value=0.0),
    fixed(np.ones(2)),
    ShapeError,
)
error("pad", "diag of a cube", jn.diag, fixed(np.ones((2, 2, 2))), ShapeError)
error("concat", "shapes", lambda x, y: jn.concat([x, y]), fixed(np.ones((2, 3)), np.ones((2, 4))), ShapeError)
error("concat", "ranks", lambda x, y: jn.concat([x, y]), fixed(np.ones((2, 3)), np.ones(3)), ShapeError)
error("concat", "scalars", lambda x: jn.concat([x, x]), fixed(np.ones(())), ShapeError)
error("concat", "nothing", lambda x: jn.concat([]), _23, ArgumentError)
error("concat", "axis", lambda x: jn.concat([x, x], 2), _23, ShapeError)
error("concat", "stack", lambda x, y: jn.stack([x, y]), fixed(np.ones(2), np.ones(3)), ShapeError)
