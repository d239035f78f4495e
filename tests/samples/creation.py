"""Samples of creation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.apply import apply
from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.ops import creation as cr

from .make import error, fixed, normal, sample

# ---- creation


def made(op: str, id: str, function: Callable[[], Any], reference: Callable[[], Any]) -> None:
    sample(op, id, function, fixed(), reference, grad=False)


made("iota", "op", lambda: apply(cr.IOTA, shape=(2, 3)), lambda: np.arange(6).reshape(2, 3))
made("iota", "op, empty", lambda: apply(cr.IOTA, shape=(0, 3)), lambda: np.zeros((0, 3), int))
made("iota", "op, scalar", lambda: apply(cr.IOTA, shape=()), lambda: np.array(0))
for _args in ((5,), (0,), (-3,), (2, 6), (2, 9, 3), (9, 2, -3), (1, 1)):
    made("iota", f"arange {_args}", lambda a=_args: cr.arange(*a), lambda a=_args: np.arange(*a))
for _args in ((2.5,), (0, 1, 0.25), (1, -1, -0.5), (0.1, 0.7, 0.2)):
    made(
        "iota",
        f"arange {_args}",
        lambda a=_args: cr.arange(*a),
        lambda a=_args: np.arange(*a).astype("float32"),
    )
made("iota", "arange dtype", lambda: cr.arange(5, dtype="float64"), lambda: np.arange(5.0))
for _args in ((0, 1, 5), (1, -1, 4), (2, 3, 1), (0, 1, 0), (-1.5, 7)):
    made(
        "iota",
        f"linspace {_args}",
        lambda a=_args: cr.linspace(*a),
        lambda a=_args: np.linspace(*a, dtype="float32"),
    )
made(
    "iota",
    "linspace open",
    lambda: cr.linspace(0, 1, 4, endpoint=False, dtype="float64"),
    lambda: np.linspace(0, 1, 4, endpoint=False),
)
sample(
    "iota",
    "linspace of tensors",
    lambda a, b: cr.linspace(a, b, 5, dtype="float64"),
    normal((), ()),
    lambda a, b: np.linspace(a, b, 5, dtype="float64"),
    dtypes=("float64",),
)
for _args in ((3,), (2, 3), (3, 2, 1), (2, 4, -1), (0,)):
    made("iota", f"eye {_args}", lambda a=_args: cr.eye(*a), lambda a=_args: np.eye(*a, dtype="float32"))
made("iota", "identity", lambda: cr.identity(2, dtype="int64"), lambda: np.identity(2, dtype="int64"))
made("broadcast_to", "zeros", lambda: cr.zeros((2, 3)), lambda: np.zeros((2, 3), "float32"))
made("broadcast_to", "ones of ints", lambda: cr.ones(3, dtype="int32"), lambda: np.ones(3, "int32"))
made("broadcast_to", "full of int", lambda: cr.full((2, 1), 7), lambda: np.full((2, 1), 7))
made("broadcast_to", "full of bool", lambda: cr.full((), True), lambda: np.full((), True))
made("broadcast_to", "full of float", lambda: cr.full((0, 2), 0.5), lambda: np.full((0, 2), 0.5, "float32"))
sample(
    "broadcast_to", "full of a tensor", lambda x: cr.full((2, 2), x), normal(()), lambda x: np.full((2, 2), x)
)
sample(
    "broadcast_to",
    "likes",
    lambda x: [cr.zeros_like(x), cr.ones_like(x, dtype="int64"), cr.full_like(x, 3)],
    normal((2, 3)),
    lambda x: [np.zeros_like(x), np.ones_like(x, dtype="int64"), np.full_like(x, 3)],
    grad=False,
)
sample(
    "iota",
    "one_hot",
    lambda x: cr.one_hot(x, 4),
    fixed(np.array([[0, 3], [1, 4], [-1, 2]])),
    lambda x: (x[..., None] == np.arange(4)).astype("float32"),
)
sample(
    "iota",
    "one_hot of uint8",
    lambda x: cr.one_hot(x, 3, dtype="int32"),
    fixed(np.array([2, 0], "uint8")),
    lambda x: (x[..., None] == np.arange(3)).astype("int32"),
)

# ---- errors

_23 = fixed(np.ones((2, 3)))
error("iota", "negative", lambda x: cr.zeros((-1, 2)), _23, ShapeError)
error("iota", "step zero", lambda x: cr.arange(0, 3, 0), _23, ArgumentError)
error("iota", "one_hot of floats", lambda x: cr.one_hot(x, 3), _23, DTypeError)
error("where", "tril", cr.tril, fixed(np.ones(3)), ShapeError)
