"""Samples of the reductions and of what is composed of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special

from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.ops import reduce as rd
from graphjit.ops import statistics as st
from graphjit.ops.cumulative import diff

from .make import INF, NAN, error, fixed, name, normal, sample

EDGES = np.array([[NAN, 1.0, 2.0], [INF, -INF, 0.0], [-INF, -1.0, -2.0], [-0.0, 0.0, -0.0], [INF, INF, 1.0]])


def both(
    op: str,
    id: str,
    function: Callable[..., Any],
    reference: Callable[..., Any],
    args: Callable[..., Any],
    more: dict[str, Any] | None = None,
    **static: Any,
) -> None:
    """The function and its reference with the same static arguments."""
    sample(
        op, id, lambda *a: function(*a, **static), args, lambda *a: reference(*a, **static), **(more or {})
    )


def positive(*shape: int) -> Callable[..., Any]:
    return lambda rng: (np.asarray(rng.uniform(0.5, 2, shape)),)


def distinct(*shape: int) -> Callable[..., Any]:
    """Values nowhere near each other, so that the extreme stays the extreme."""
    return lambda rng: (rng.permutation(int(np.prod(shape))).reshape(shape) * 0.5 - 2,)


# (shape, static arguments)
CASES: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((3, 4), {}),
    ((3, 4), {"axis": 0}),
    ((3, 4), {"axis": 1}),
    ((3, 4), {"axis": -1, "keepdims": True}),
    ((2, 3, 4), {"axis": (0, 2)}),
    ((2, 3, 4), {"axis": (-1, 0), "keepdims": True}),
    ((2, 3, 4), {"axis": 1}),
    ((2, 3, 4), {"axis": None, "keepdims": True}),
    ((1,), {}),
    ((1, 1), {"axis": 0}),
    ((5, 1), {"axis": 1}),
    ((3, 0), {"axis": 0}),
)
EMPTY: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((0,), {}),
    ((3, 0), {"axis": 1}),
    ((0, 3), {"axis": 0, "keepdims": True}),
)


for _op in ("sum", "prod", "max", "min"):
    _function, _reference = getattr(rd, _op), getattr(np, _op)
    for _shape, _static in CASES if _op in ("max", "min") else CASES + EMPTY:
        both(
            _op,
            name(_shape, _static),
            _function,
            _reference,
            distinct(*_shape) if _op in ("max", "min") else positive(*_shape),
            **_static,
        )
    both("reshape", f"{_op} of a scalar", _function, _reference, positive())
    for _dtype in ("int32", "int64", "uint8", "bool"):
        both(
            _op,
            _dtype,
            _function,
            _reference,
            lambda rng, d=_dtype: (rng.integers(0, 2 if d == "bool" else 9, (3, 4)).astype(d),),
            axis=1,
        )
    both(_op, "edges", _function, _reference, fixed(EDGES), more={"grad": False}, axis=1)
    both(
        _op,
        "one long axis",
        _function,
        _reference,
        lambda rng: (rng.uniform(0.9, 1.1, (300, 3)),),
        more={"grad": False, "rtol": 300 if _op == "prod" else 0},
        axis=0,
    )
    both(
        _op,
        "one long row",
        _function,
        _reference,
        lambda rng: (rng.uniform(0.9, 1.1, (2, 301)),),
        more={"grad": False, "rtol": 300 if _op == "prod" else 0},
        axis=1,
    )
    sample(
        _op, "method", lambda x, op=_op: getattr(x, op)(0), distinct(4, 2), lambda x, f=_reference: f(x, 0)
    )
both("sum", "dtype", rd.sum, np.sum, lambda rng: (rng.integers(0, 9, (3, 4)),), dtype=np.float64, axis=0)
for _dtype in ("int8", "int16", "uint16", "uint32", "uint64"):
    both("sum", _dtype, rd.sum, np.sum, lambda rng, d=_dtype: (rng.integers(0, 99, (50,)).astype(d),))
sample(
    "sum",
    "float32 along the first axis",
    lambda x: rd.sum(x, 0),
    fixed(np.full((5000, 3), 0.1)),
    lambda x: x.astype("f8").sum(0).astype(x.dtype),
    dtypes=("float32",),
    grad=False,
    rtol=4,
)
sample(
    "sum",
    "float32 of all",
    lambda x: rd.sum(x.T),
    fixed(np.full((5000, 3), 0.1)),
    lambda x: x.astype("f8").sum().astype(x.dtype),
    dtypes=("float32",),
    grad=False,
    rtol=4,
)
sample(
    "sum",
    "count_nonzero",
    lambda x: rd.count_nonzero(x, axis=1),
    fixed(EDGES),
    lambda x: np.count_nonzero(x, axis=1),
    grad=False,
)

sample(
    "prod",
    "one zero",
    lambda x: rd.prod(x, 1),
    fixed(np.array([[2.0, 0.0, 3.0], [1.0, 2.0, 3.0]])),
    lambda x: x.prod(1),
)
sample(
    "prod",
    "two zeros",
    lambda x: rd.prod(x, 1),
    fixed(np.array([[0.0, 5.0, 0.0, 2.0], [0.0, 0.0, 0.0, 1.0]])),
    lambda x: x.prod(1),
)
sample(
    "max",
    "of negatives",
    lambda x: rd.max(x, (0, 1)),
    fixed(np.array([[-3.0, -2.0], [-7.0, -5.0]])),
    lambda x: x.max(),
)
for _op in ("max", "min"):
    both(
        _op,
        "empty result",
        getattr(rd, _op),
        lambda x, axis: np.zeros(0, x.dtype),
        fixed(np.zeros((0, 0))),
        axis=0,
    )

for _op in ("any", "all"):
    _function, _reference = getattr(rd, _op), getattr(np, _op)
    for _shape, _static in CASES + EMPTY:
        both(
            _op,
            name(_shape, _static),
            _function,
            _reference,
            lambda rng, s=_shape: (rng.random(s) < 0.6,),
            **_static,
        )
    both(_op, "floats", _function, _reference, fixed(EDGES), more={"grad": False}, axis=1)
    both(_op, "ints", _function, _reference, fixed(np.array([[0, 2], [1, 3], [0, 0]])), axis=1)

for _op in ("argmax", "argmin"):
    _function, _reference = getattr(rd, _op), getattr(np, _op)
    for _shape, _static in (
        ((3, 4), {}),
        ((3, 4), {"axis": 0}),
        ((2, 3, 4), {"axis": 1}),
        ((3, 4), {"axis": -1, "keepdims": True}),
        ((3, 4), {"axis": None, "keepdims": True}),
        ((1,), {}),
        ((5, 1), {"axis": 1}),
        ((3, 0), {"axis": 0}),
        ((2, 40), {"axis": 1}),
        ((40, 3), {"axis": 0}),
    ):
        both(
            _op,
            name(_shape, _static),
            _function,
            _reference,
            distinct(*_shape),
            more={"grad": False},
            **_static,
        )
    both(_op, "ties", _function, _reference, fixed(np.array([[1, 3, 3], [2, 2, 2], [0, 5, 0]])), axis=1)
    both(_op, "edges", _function, _reference, fixed(EDGES), more={"grad": False}, axis=1)
    both(_op, "edges, first axis", _function, _reference, fixed(EDGES), more={"grad": False}, axis=0)
    both(_op, "bool", _function, _reference, fixed(np.array([[False, True], [False, False]])), axis=1)
    both(_op, "uint8", _function, _reference, fixed(np.array([[200, 255, 0, 255]], "uint8")), axis=1)

for _op in ("cumsum", "cumprod"):
    _function, _reference = getattr(rd, _op), getattr(np, _op)
    for _shape, _static in (
        ((5,), {}),
        ((3, 4), {"axis": 0}),
        ((3, 4), {"axis": 1}),
        ((2, 3, 4), {"axis": -2}),
        ((3, 4), {}),
        ((1,), {}),
        ((0,), {}),
        ((3, 0), {"axis": 1}),
        ((0, 3), {"axis": 1}),
        ((2, 1), {"axis": 1}),
    ):
        both(_op, name(_shape, _static), _function, _reference, normal(_shape), **_static)
    for _dtype in ("int32", "int64", "uint8", "bool"):
        both(
            _op,
            _dtype,
            _function,
            _reference,
            lambda rng, d=_dtype: (rng.integers(0, 2 if d == "bool" else 9, (3, 4)).astype(d),),
            axis=1,
        )
    both(_op, "edges", _function, _reference, fixed(EDGES), more={"grad": False}, axis=1)
sample(
    "cumprod",
    "zeros",
    lambda x: rd.cumprod(x, 1),
    fixed(np.array([[2.0, 0.0, 3.0, 4.0, 0.5], [0.0, 5.0, 0.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0, 0.0]])),
    lambda x: x.cumprod(1),
)
sample(
    "cumsum",
    "float32, long",
    lambda x: rd.cumsum(x, 0),
    fixed(np.full((4000, 2), 0.1)),
    lambda x: x.astype("f8").cumsum(0).astype(x.dtype),
    dtypes=("float32",),
    grad=False,
    rtol=4,
)

for _shape, _static in (
    ((5,), {}),
    ((5,), {"n": 3}),
    ((2,), {"n": 4}),
    ((0,), {}),
    ((3, 4), {"axis": 0}),
    ((3, 4), {"n": 0}),
    ((2, 3, 4), {"n": 2, "axis": -2}),
):
    sample("sub" if _static.get("n") != 0 else "copy", name("diff", _shape, _static),
           lambda x, h=_static: diff(x, **h), normal(_shape), lambda x, h=_static: np.diff(x, **h))
sample("sub", "diff with ends", lambda x, y, z: diff(x, axis=0, prepend=y, append=z), normal((3, 2), (1, 2), (2, 2)),
       lambda x, y, z: np.diff(x, axis=0, prepend=y, append=z))
sample("sub", "diff of ints", diff, fixed(np.array([[5, 3, 9]])), np.diff)
error("sub", "diff, negative n", lambda x: diff(x, -1), fixed(np.ones(3)), ArgumentError)
error("sub", "diff of bools", diff, fixed(np.ones(3, bool)), DTypeError)

# ---- composed

for _name in ("mean", "var", "std"):
    _function, _reference = getattr(st, _name), getattr(np, _name)
    for _shape, _static in CASES[:8]:
        both("sum", f"{_name} {name(_shape, _static)}", _function, _reference, positive(*_shape), **_static)
    both("sum", f"{_name} of ints", _function, _reference, fixed(np.array([[1, 2], [3, 5]])), axis=0)
    both("sum", f"{_name} of int8", _function, _reference, fixed(np.array([100, 100, 90], "int8")))
    both("sum", f"{_name} of bools", _function, _reference, fixed(np.array([True, False, True])))
    sample(
        "sum",
        f"{_name} method",
        lambda x, n=_name: getattr(x, n)(0, keepdims=True),
        normal((4, 2)),
        lambda x, f=_reference: f(x, 0, keepdims=True),
    )
sample(
    "sum",
    "var corrected",
    lambda x: st.var(x, 1, correction=1),
    normal((3, 4)),
    lambda x: np.var(x, 1, ddof=1),
)
sample("sum", "std corrected", lambda x: st.std(x, correction=1), normal((3, 4)), lambda x: np.std(x, ddof=1))
sample(
    "sum",
    "var far from zero",
    lambda x: st.var(x, 0),
    fixed(1000 + np.arange(8.0).reshape(4, 2)),
    lambda x: x.astype("f8").var(0).astype(x.dtype),
)

for _static in ({"axis": None}, {"axis": 1}, {"axis": (0, -1), "keepdims": True}, {"axis": 0}):
    both("sum", f"logsumexp {_static}", st.logsumexp, scipy.special.logsumexp, normal((2, 3, 4)), **_static)
sample(
    "sum",
    "logsumexp large",
    lambda x: st.logsumexp(x, 1),
    fixed(np.array([[1e4, 1e4], [-1e4, -1e4], [INF, 0], [-INF, -INF], [-INF, 1], [NAN, 0]])),
    lambda x: scipy.special.logsumexp(x, 1),
    grad=False,
)
for _axis in (-1, 0):
    for _name in ("softmax", "log_softmax"):
        both(
            "sum",
            f"{_name} {_axis}",
            getattr(st, _name),
            getattr(scipy.special, _name),
            normal((3, 4)),
            axis=_axis,
        )
sample(
    "exp_or_zero",
    "softmax large",
    st.softmax,
    fixed(np.array([[1e4, 1e4, 0], [-1e4, -1e4, -1e4], [0, -INF, 0]])),
    lambda x: scipy.special.softmax(x, -1),
    grad=False,
)
sample(
    "exp_in_sum",
    "log_softmax large",
    st.log_softmax,
    fixed(np.array([[1e4, 1e4, 0], [-1e4, -1e4, -1e4], [0, -INF, 0]])),
    lambda x: scipy.special.log_softmax(x, -1),
    grad=False,
)

# ---- errors


for _op in ("sum", "prod", "max", "min", "any", "all"):
    _function = getattr(rd, _op)
    error(_op, "axis too large", lambda x, f=_function: f(x, 2), fixed(np.ones((2, 3))), ShapeError)
    error(_op, "axis twice", lambda x, f=_function: f(x, (0, -2)), fixed(np.ones((2, 3))), ShapeError)
    error(_op, "axis is a float", lambda x, f=_function: f(x, 0.5), fixed(np.ones((2, 3))), ShapeError)
for _op in ("max", "min", "argmax", "argmin"):
    _function = getattr(rd, _op)
    error(_op, "nothing to choose from", lambda x, f=_function: f(x, 1), fixed(np.ones((2, 0))), ShapeError)
    error(_op, "nothing at all", _function, fixed(np.ones((0,))), ShapeError)
for _op in ("argmax", "argmin", "cumsum", "cumprod"):
    _function = getattr(rd, _op)
    error(_op, "axis too small", lambda x, f=_function: f(x, -3), fixed(np.ones((2, 3))), ShapeError)
error("sum", "softmax of a scalar", st.softmax, fixed(np.ones(())), ShapeError)
error("sum", "to complex", lambda x: rd.sum(x, dtype="complex64"), fixed(np.ones(2)), DTypeError)
