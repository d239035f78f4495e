"""Samples of views, of joining and taking apart, and of creation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.ops import creation as cr
from graphjit.ops import join as jn
from graphjit.ops import movement as mv
from graphjit.ops import shape as sh
from graphjit.tensor import apply

from .base import ERRORS, SAMPLES, ErrorSample, Sample


def sample(op: str, id: str, function: Callable[..., Any], args: Callable[..., Any],
           reference: Callable[..., Any], **more: Any) -> None:
    SAMPLES.append(Sample(id, (op,), function, args, reference, **more))


def error(op: str, id: str, function: Callable[..., Any], args: Callable[..., Any], kind: type[Exception]) -> None:
    ERRORS.append(ErrorSample(id, (op,), function, args, kind))


def fixed(*arrays: Any) -> Callable[..., Any]:
    return lambda rng: arrays


def normal(*shapes: tuple[int, ...]) -> Callable[..., Any]:
    return lambda rng: tuple(np.asarray(rng.normal(size=s)) for s in shapes)


def whole(dtype: str, *shape: int) -> Callable[..., Any]:
    return lambda rng: (rng.integers(0, 2 if dtype == "bool" else 99, shape).astype(dtype),)


# ---- reshape

for _shape, _to in (((3, 4), (12,)), ((3, 4), (2, -1)), ((2, 3, 4), (6, 4)), ((2, 3, 4), (2, 1, 12)), ((), (1, 1)),
                    ((1, 1), ()), ((0, 3), (3, 0)), ((0, 3), (-1, 3)), ((1, 6), (6, 1))):
    sample("reshape", f"{_shape} to {_to}".replace(" ", ""), lambda x, s=_to: sh.reshape(x, s), normal(_shape),
           lambda x, s=_to: x.reshape(s))
sample("reshape", "of a transpose", lambda x: sh.reshape(x.T, (2, 6)), normal((3, 4)), lambda x: x.T.reshape(2, 6))
sample("reshape", "of a stretched", lambda x: x.broadcast_to(3, 4).reshape(12) * 2, normal((1, 4)),
       lambda x: np.broadcast_to(x, (3, 4)).reshape(12) * 2)
sample("reshape", "of a flip", lambda x: mv.flip(x).reshape(12), normal((3, 4)), lambda x: np.flip(x).reshape(12))
sample("reshape", "of a slice", lambda x: mv.slice_axes(x, (1, 0), (2, 2), (1, 2)).reshape(4), normal((3, 4)),
       lambda x: x[1:, ::2].reshape(4))
sample("reshape", "within a transpose", lambda x: x.transpose(1, 0, 2).reshape(3, 2, 2, 2), normal((2, 3, 4)),
       lambda x: x.transpose(1, 0, 2).reshape(3, 2, 2, 2))
sample("reshape", "method, ints", lambda x: x.reshape(2, -1), whole("int32", 4, 3), lambda x: x.reshape(2, -1))
sample("reshape", "bool", lambda x: x.reshape(-1), whole("bool", 4, 3), lambda x: x.reshape(-1))
sample("reshape", "flatten", lambda x: x.flatten(1), normal((2, 3, 4)), lambda x: x.reshape(2, 12))
sample("reshape", "flatten some", lambda x: sh.flatten(x, 0, -2), normal((2, 3, 4)), lambda x: x.reshape(6, 4))
sample("reshape", "flatten 0-d", sh.flatten, normal(()), lambda x: x.reshape(1))
sample("reshape", "ravel", sh.ravel, normal((2, 0)), np.ravel)
sample("reshape", "squeeze", sh.squeeze, normal((1, 3, 1)), np.squeeze)
sample("reshape", "squeeze one", lambda x: x.squeeze(-1), normal((1, 3, 1)), lambda x: x.squeeze(-1))
sample("reshape", "squeeze two", lambda x: sh.squeeze(x, (0, 2)), normal((1, 3, 1)), np.squeeze)
sample("reshape", "expand_dims", lambda x: x.expand_dims(1), normal((2, 3)), lambda x: np.expand_dims(x, 1))
sample("reshape", "expand_dims several", lambda x: sh.expand_dims(x, (0, -1)), normal((2, 3)),
       lambda x: np.expand_dims(x, (0, -1)))

# ---- permute

sample("permute_dims", "T", lambda x: x.T, normal((2, 3, 4)), lambda x: x.T)
sample("permute_dims", "T of a vector", lambda x: x.T, normal((3,)), lambda x: x.T)
sample("permute_dims", "T of a scalar", lambda x: x.T, normal(()), lambda x: x.T)
sample("permute_dims", "mT", lambda x: x.mT, normal((2, 3, 4)), lambda x: x.mT)
sample("permute_dims", "axes", lambda x: mv.permute_dims(x, (1, 2, 0)), normal((2, 3, 4)), lambda x: x.transpose(1, 2, 0))
sample("permute_dims", "negative axes", lambda x: x.permute_dims(-1, 0, 1), normal((2, 3, 4)),
       lambda x: x.transpose(-1, 0, 1))
sample("permute_dims", "transpose", lambda x: mv.transpose(x, (0, 2, 1)), normal((2, 1, 4)),
       lambda x: x.transpose(0, 2, 1))
sample("permute_dims", "empty", lambda x: x.transpose(), normal((0, 3)), lambda x: x.T)
sample("permute_dims", "ints", lambda x: x.transpose(1, 0), whole("int64", 3, 2), lambda x: x.T)
sample("permute_dims", "bools, and arithmetic", lambda x: x.T | x, whole("bool", 3, 3), lambda x: x.T | x)
sample("permute_dims", "swapaxes", lambda x: x.swapaxes(0, -1), normal((2, 3, 4)), lambda x: x.swapaxes(0, -1))
sample("permute_dims", "moveaxis", lambda x: mv.moveaxis(x, 0, -1), normal((2, 3, 4)), lambda x: np.moveaxis(x, 0, -1))
sample("permute_dims", "moveaxis two", lambda x: mv.moveaxis(x, (0, 2), (1, 0)), normal((2, 3, 4)),
       lambda x: np.moveaxis(x, (0, 2), (1, 0)))
sample("permute_dims", "with its transpose", lambda x: x * x.T + x.T, normal((3, 3)), lambda x: x * x.T + x.T)

# ---- broadcast

for _shape, _to in (((3, 1), (3, 4)), ((4,), (3, 4)), ((), (2, 3)), ((1, 1), (0, 3)), ((3,), (3,)), ((2, 1, 3), (2, 4, 3)),
                    ((1,), (1,)), ((0, 1), (0, 5)), ((1,), (1, 1))):
    sample("broadcast_to", f"{_shape} to {_to}".replace(" ", ""), lambda x, s=_to: x.broadcast_to(*s), normal(_shape),
           lambda x, s=_to: np.broadcast_to(x, s))
sample("broadcast_to", "ints", lambda x: mv.broadcast_to(x, (2, 3)), whole("int32", 3), lambda x: np.broadcast_to(x, (2, 3)))
sample("broadcast_to", "arrays", mv.broadcast_arrays, normal((3, 1), (4,), ()), np.broadcast_arrays)

# ---- slice, flip

for _id, _shape, _starts, _sizes, _steps in (
        ("rows", (5, 3), (1, 0), (2, 3), (1, 1)), ("steps", (7, 5), (1, 0), (3, 3), (2, 2)),
        ("nothing", (4,), (2,), (0,), (1,)), ("one", (4,), (3,), (1,), (5,)), ("all", (2, 3), (0, 0), (2, 3), (1, 1)),
        ("of nothing", (0, 3), (0, 1), (0, 2), (1, 1)), ("cube", (3, 4, 5), (1, 1, 1), (2, 2, 2), (1, 2, 3)),
        ("scalar", (), (), (), ())):
    sample("slice", _id, lambda x, a=_starts, n=_sizes, k=_steps: mv.slice_axes(x, a, n, k), normal(_shape),
           lambda x, a=_starts, n=_sizes, k=_steps: x[tuple(
               slice(i, i + m * j, j) for i, m, j in zip(a, n, k, strict=True))])
sample("slice", "of a transpose", lambda x: mv.slice_axes(x.T, (1, 0), (2, 2), (1, 2)) * 2, normal((3, 4)),
       lambda x: x.T[1:3, ::2] * 2)
sample("slice", "differences", lambda x: mv.cut(x, 0, 1, 4) - mv.cut(x, 0, 0, 4), normal((5, 2)),
       lambda x: np.diff(x, axis=0))
sample("slice", "ints", lambda x: mv.cut(x, 0, 1, 2), whole("uint8", 4), lambda x: x[1:3])
sample("slice", "bools", lambda x: mv.cut(x, 0, 1, 2), whole("bool", 4), lambda x: x[1:3])
for _id, _shape, _axis in (("all", (3, 4), None), ("one", (3, 4), 1), ("two", (2, 3, 4), (0, -1)), ("empty", (0, 3), 0),
                           ("scalar", (), None), ("of length one", (1, 3), 0), ("none", (2,), ())):
    sample("flip", _id, lambda x, a=_axis: mv.flip(x, a), normal(_shape), lambda x, a=_axis: np.flip(x, a))
sample("flip", "with itself", lambda x: x * x.flip(0) + x, normal((4, 2)), lambda x: x * x[::-1] + x)
sample("flip", "ints", mv.flip, whole("int32", 2, 3), np.flip)
sample("flip", "of a step", lambda x: mv.slice_axes(x, (1,), (3,), (2,)).flip(), normal((6,)), lambda x: x[1::2][::-1])

# ---- pad

for _id, _shape, _widths in (("all", (2, 3), 1), ("pair", (2, 3), (0, 2)), ("one pair", (2, 3), ((1, 2),)),
                             ("each", (2, 3), ((1, 0), (0, 2))), ("nothing", (2, 3), 0), ("empty", (0, 2), 1),
                             ("cube", (2, 1, 3), ((0, 1), (2, 0), (1, 1))), ("scalar", (), 1)):
    sample("pad", _id, lambda x, w=_widths: jn.pad(x, w), normal(_shape), lambda x, w=_widths: np.pad(x, w))
sample("pad", "value", lambda x: jn.pad(x, 1, constant_values=-2.5), normal((2, 2)),
       lambda x: np.pad(x, 1, constant_values=-2.5))
sample("pad", "tensor value", lambda x, v: jn.pad(x, (1, 0), constant_values=v), normal((2, 2), ()),
       lambda x, v: np.pad(x, (1, 0), constant_values=v))
sample("pad", "infinite", lambda x: jn.pad(x, 1, constant_values=-np.inf), normal((3,)),
       lambda x: np.pad(x, 1, constant_values=-np.inf), grad=False)
sample("pad", "ints", lambda x: jn.pad(x, 2, constant_values=7), whole("int32", 3), lambda x: np.pad(x, 2, constant_values=7))
sample("pad", "bools", lambda x: jn.pad(x, 1, constant_values=True), whole("bool", 3),
       lambda x: np.pad(x, 1, constant_values=True))
sample("pad", "interior", lambda x: apply(mv.PAD, x, low=(1, 0), high=(0, 2), interior=(2, 1), value=0.5), normal((2, 3)),
       lambda x: _spaced(x, (5, 7), (1, 0), (3, 2), 0.5))
sample("pad", "interior of nothing", lambda x: apply(mv.PAD, x, low=(1,), high=(1,), interior=(3,), value=0.0),
       normal((0,)), lambda x: np.zeros(2, x.dtype))
sample("pad", "of a transpose, and arithmetic", lambda x: jn.pad(x.T * 2, 1) + 1, normal((2, 3)),
       lambda x: np.pad(x.T * 2, 1) + 1)


def _spaced(x: Any, shape: tuple[int, ...], low: tuple[int, ...], steps: tuple[int, ...], value: float) -> Any:
    out = np.full(shape, value, x.dtype)
    out[low[0]::steps[0], low[1]::steps[1]][:x.shape[0], :x.shape[1]] = x
    return out


# ---- concat and what is made of it

for _id, _shapes, _axis in (("rows", ((2, 3), (1, 3)), 0), ("columns", ((2, 3), (2, 1), (2, 2)), 1),
                            ("negative", ((2, 1, 2), (2, 3, 2)), -2), ("one operand", ((2, 3),), 0),
                            ("with empty", ((0, 2), (3, 2), (0, 2)), 0), ("all empty", ((0, 2), (0, 2)), 1),
                            ("vectors", ((1,), (2,), (3,)), 0)):
    sample("concat", _id, lambda *x, a=_axis: jn.concat(x, axis=a), normal(*_shapes),
           lambda *x, a=_axis: np.concatenate(x, axis=a))
sample("concat", "flattened", lambda x, y: jn.concat([x, y], axis=None), normal((2, 3), (4,)),
       lambda x, y: np.concatenate([x, y], axis=None))
sample("concat", "of itself", lambda x: jn.concat([x, x * 2, x]), normal((2, 2)), lambda x: np.concatenate([x, x * 2, x]))
sample("concat", "of views", lambda x: jn.concat([x.T, mv.flip(x)], 1) * 3, normal((2, 2)),
       lambda x: np.concatenate([x.T, np.flip(x)], 1) * 3)
sample("concat", "promoted", lambda x, y: jn.concatenate([x, y]), lambda rng: (rng.integers(0, 9, 3), rng.normal(size=2)),
       lambda x, y: np.concatenate([x, y]))
sample("concat", "bools", lambda x: jn.concat([x, ~x]), whole("bool", 3), lambda x: np.concatenate([x, ~x]))
for _axis in (0, 1, -1):
    sample("concat", f"stack {_axis}", lambda x, y, a=_axis: jn.stack([x, y], a), normal((2, 3), (2, 3)),
           lambda x, y, a=_axis: np.stack([x, y], a))
sample("concat", "stack of scalars", lambda x, y: jn.stack([x, y, 1.5]), normal((), ()),
       lambda x, y: np.stack([x, y, x.dtype.type(1.5)]))
for _id, _shape, _shift, _axis in (("flat", (3, 4), 2, None), ("axis", (3, 4), 1, 0), ("back", (3, 4), -1, 1),
                                   ("far", (3,), 7, 0), ("two", (3, 4), (1, -2), (0, 1)), ("both", (3, 4), 1, (0, 1)),
                                   ("empty", (0, 2), 1, 0), ("none", (3,), 0, 0), ("of one", (1, 2), 1, 0)):
    sample("concat", f"roll {_id}", lambda x, s=_shift, a=_axis: jn.roll(x, s, a), normal(_shape),
           lambda x, s=_shift, a=_axis: np.roll(x, s, a))
for _id, _parts, _axis in (("sections", 2, 1), ("indices", [1, 3], 1), ("outside", [1, 9], 0), ("negative", [-1], 1),
                           ("falling", [3, 1], 1), ("none", [], 0)):
    sample("slice", f"split {_id}", lambda x, p=_parts, a=_axis: jn.split(x, p, a), normal((3, 4)),
           lambda x, p=_parts, a=_axis: np.split(x, p, a))
sample("slice", "unstack", lambda x: jn.unstack(x, 1), normal((3, 2)), lambda x: (x[:, 0], x[:, 1]))
sample("slice", "unstack nothing", lambda x: [*jn.unstack(x), x], normal((0, 2)), lambda x: [x])

# ---- repeat, tile, diagonals, grids

for _shape, _count, _axis in (((3,), 2, 0), ((2, 3), 2, None), ((2, 3), 3, 1), ((2, 3), 0, 0), ((0, 2), 2, 0), ((1,), 1, 0)):
    sample("broadcast_to", f"repeat {_shape} {_count} {_axis}", lambda x, n=_count, a=_axis: x.repeat(n, a), normal(_shape),
           lambda x, n=_count, a=_axis: np.repeat(x, n, a))
for _shape, _reps in (((3,), 2), ((2, 3), (2, 1)), ((2, 3), 2), ((3,), (2, 2)), ((2, 1), (1, 3, 2)), ((2,), 0), ((), 3)):
    sample("broadcast_to", f"tile {_shape} {_reps}", lambda x, r=_reps: jn.tile(x, r), normal(_shape),
           lambda x, r=_reps: np.tile(x, r))
for _k in (0, 1, -2, 5):
    for _shape in ((3,), (4, 3), (3, 5), (1,), (0,), (1, 1)):
        sample("pad" if len(_shape) == 1 else "slice", f"diag {_shape} {_k}", lambda x, k=_k: jn.diag(x, k), normal(_shape),
               lambda x, k=_k: np.diag(x, k) if x.ndim == 1 or abs(k) < 5 else np.zeros(0, x.dtype))
    for _name in ("tril", "triu"):
        sample("where", f"{_name} {_k}", lambda x, k=_k, f=getattr(cr, _name): f(x, k), normal((2, 3, 4)),
               lambda x, k=_k, f=getattr(np, _name): f(x, k))
sample("where", "tril of bools", cr.tril, whole("bool", 3, 3), np.tril)
sample("where", "triu of ints", cr.triu, whole("uint8", 3, 2), np.triu)
for _indexing in ("xy", "ij"):
    sample("broadcast_to", f"meshgrid {_indexing}", lambda x, y, z, i=_indexing: jn.meshgrid(x, y, z, indexing=i),
           normal((2,), (3,), ()), lambda x, y, z, i=_indexing: np.meshgrid(x, y, z, indexing=i))

# ---- creation


def made(op: str, id: str, function: Callable[[], Any], reference: Callable[[], Any]) -> None:
    sample(op, id, function, fixed(), reference, grad=False)


made("iota", "op", lambda: apply(cr.IOTA, shape=(2, 3)), lambda: np.arange(6).reshape(2, 3))
made("iota", "op, empty", lambda: apply(cr.IOTA, shape=(0, 3)), lambda: np.zeros((0, 3), int))
made("iota", "op, scalar", lambda: apply(cr.IOTA, shape=()), lambda: np.array(0))
for _args in ((5,), (0,), (-3,), (2, 6), (2, 9, 3), (9, 2, -3), (1, 1)):
    made("iota", f"arange {_args}", lambda a=_args: cr.arange(*a), lambda a=_args: np.arange(*a))
for _args in ((2.5,), (0, 1, 0.25), (1, -1, -0.5), (0.1, 0.7, 0.2)):
    made("iota", f"arange {_args}", lambda a=_args: cr.arange(*a), lambda a=_args: np.arange(*a).astype("float32"))
made("iota", "arange dtype", lambda: cr.arange(5, dtype="float64"), lambda: np.arange(5.0))
for _args in ((0, 1, 5), (1, -1, 4), (2, 3, 1), (0, 1, 0), (-1.5, 7)):
    made("iota", f"linspace {_args}", lambda a=_args: cr.linspace(*a), lambda a=_args: np.linspace(*a, dtype="float32"))
made("iota", "linspace open", lambda: cr.linspace(0, 1, 4, endpoint=False, dtype="float64"),
     lambda: np.linspace(0, 1, 4, endpoint=False))
sample("iota", "linspace of tensors", lambda a, b: cr.linspace(a, b, 5, dtype="float64"), normal((), ()),
       lambda a, b: np.linspace(a, b, 5, dtype="float64"), dtypes=("float64",))
for _args in ((3,), (2, 3), (3, 2, 1), (2, 4, -1), (0,)):
    made("iota", f"eye {_args}", lambda a=_args: cr.eye(*a), lambda a=_args: np.eye(*a, dtype="float32"))
made("iota", "identity", lambda: cr.identity(2, dtype="int64"), lambda: np.identity(2, dtype="int64"))
made("broadcast_to", "zeros", lambda: cr.zeros((2, 3)), lambda: np.zeros((2, 3), "float32"))
made("broadcast_to", "ones of ints", lambda: cr.ones(3, dtype="int32"), lambda: np.ones(3, "int32"))
made("broadcast_to", "full of int", lambda: cr.full((2, 1), 7), lambda: np.full((2, 1), 7))
made("broadcast_to", "full of bool", lambda: cr.full((), True), lambda: np.full((), True))
made("broadcast_to", "full of float", lambda: cr.full((0, 2), 0.5), lambda: np.full((0, 2), 0.5, "float32"))
sample("broadcast_to", "full of a tensor", lambda x: cr.full((2, 2), x), normal(()), lambda x: np.full((2, 2), x))
sample("broadcast_to", "likes", lambda x: [cr.zeros_like(x), cr.ones_like(x, dtype="int64"), cr.full_like(x, 3)],
       normal((2, 3)), lambda x: [np.zeros_like(x), np.ones_like(x, dtype="int64"), np.full_like(x, 3)], grad=False)
sample("iota", "one_hot", lambda x: cr.one_hot(x, 4), fixed(np.array([[0, 3], [1, 4], [-1, 2]])),
       lambda x: (x[..., None] == np.arange(4)).astype("float32"))
sample("iota", "one_hot of uint8", lambda x: cr.one_hot(x, 3, dtype="int32"), fixed(np.array([2, 0], "uint8")),
       lambda x: (x[..., None] == np.arange(3)).astype("int32"))

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
error("broadcast_to", "repeat", lambda x: x.repeat(-1, 0), _23, ArgumentError)
error("slice", "outside", lambda x: mv.slice_axes(x, (0, 1), (2, 3), (1, 1)), _23, ShapeError)
error("slice", "negative start", lambda x: mv.slice_axes(x, (-1, 0), (1, 3), (1, 1)), _23, ShapeError)
error("slice", "step zero", lambda x: mv.slice_axes(x, (0, 0), (1, 1), (0, 1)), _23, ShapeError)
error("slice", "split", lambda x: jn.split(x, 2, 1), _23, ShapeError)
error("flip", "axis", lambda x: x.flip(2), _23, ShapeError)
error("pad", "negative", lambda x: jn.pad(x, -1), _23, ArgumentError)
error("pad", "form", lambda x: jn.pad(x, (1, 2, 3)), _23, ArgumentError)
error("pad", "float widths", lambda x: jn.pad(x, 0.5), _23, ArgumentError)
error("pad", "float into ints", lambda x: jn.pad(x, 1, constant_values=0.5), fixed(np.ones(2, int)), DTypeError)
error("pad", "too large", lambda x: jn.pad(x, 1, constant_values=300), fixed(np.ones(2, "uint8")), DTypeError)
error("pad", "op, negative", lambda x: apply(mv.PAD, x, low=(-1,), high=(3,), interior=(0,), value=0.0),
      fixed(np.ones(2)), ShapeError)
error("pad", "diag of a cube", jn.diag, fixed(np.ones((2, 2, 2))), ShapeError)
error("concat", "shapes", lambda x, y: jn.concat([x, y]), fixed(np.ones((2, 3)), np.ones((2, 4))), ShapeError)
error("concat", "ranks", lambda x, y: jn.concat([x, y]), fixed(np.ones((2, 3)), np.ones(3)), ShapeError)
error("concat", "scalars", lambda x: jn.concat([x, x]), fixed(np.ones(())), ShapeError)
error("concat", "nothing", lambda x: jn.concat([]), _23, ArgumentError)
error("concat", "axis", lambda x: jn.concat([x, x], 2), _23, ShapeError)
error("concat", "stack", lambda x, y: jn.stack([x, y]), fixed(np.ones(2), np.ones(3)), ShapeError)
error("iota", "negative", lambda x: cr.zeros((-1, 2)), _23, ShapeError)
error("iota", "step zero", lambda x: cr.arange(0, 3, 0), _23, ArgumentError)
error("iota", "one_hot of floats", lambda x: cr.one_hot(x, 3), _23, DTypeError)
error("where", "tril", cr.tril, fixed(np.ones(3)), ShapeError)
