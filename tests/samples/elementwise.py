"""Samples of the element-wise ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special

import graphjit as gj
from graphjit.apply import apply
from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.ops.elementwise import COPY, TURN
from graphjit.types import DTYPES

from .make import INF, NAN, between, error, fixed, integers, sample

EDGES = np.array([NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1e30, -1e30, 1e-30, 3.7, -3.7])
INTS = ("int32", "int64", "uint8")


# ---- functions of one float


def unary(op: str, reference: Callable[..., Any], low: float, high: float, second: bool = True) -> None:
    function = getattr(gj, op)
    sample(op, "values", function, between(low, high, (3, 4)), reference, second=second)
    sample(op, "scalar", function, between(low, high, ()), reference, second=second)
    sample(op, "empty", function, between(low, high, (0, 3)), reference, second=second)
    sample(op, "one", function, between(low, high, (1, 1)), reference, second=second)
    sample(op, "edges", function, fixed(EDGES), reference, grad=False)


def _sigmoid(x: Any) -> Any:
    return np.where(x < 0, np.exp(-abs(x)), 1).astype(x.dtype) / (1 + np.exp(-abs(x)))


def _lgamma(x: Any) -> Any:  # SciPy's is -inf at -inf
    return np.where(np.isinf(x), abs(x), scipy.special.gammaln(x))


for _op, _reference, _low, _high in (
    ("sqrt", np.sqrt, 0.5, 3),
    ("rsqrt", lambda x: 1 / np.sqrt(x), 0.5, 3),
    ("reciprocal", lambda x: 1 / x, 0.5, 3),
    ("square", np.square, -2, 2),
    ("exp", np.exp, -2, 2),
    ("exp2", np.exp2, -2, 2),
    ("expm1", np.expm1, -1, 1),
    ("log", np.log, 0.5, 3),
    ("log1p", np.log1p, -0.5, 2),
    ("log2", np.log2, 0.5, 3),
    ("log10", np.log10, 0.5, 3),
    ("sin", np.sin, -3, 3),
    ("cos", np.cos, -3, 3),
    ("tan", np.tan, -1, 1),
    ("asin", np.arcsin, -0.7, 0.7),
    ("acos", np.arccos, -0.7, 0.7),
    ("atan", np.arctan, -3, 3),
    ("sinh", np.sinh, -2, 2),
    ("cosh", np.cosh, -2, 2),
    ("tanh", np.tanh, -2, 2),
    ("asinh", np.arcsinh, -3, 3),
    ("acosh", np.arccosh, 1.5, 3),
    ("atanh", np.arctanh, -0.7, 0.7),
    ("sigmoid", _sigmoid, -3, 3),
    ("softplus", lambda x: np.logaddexp(x, 0).astype(x.dtype), -3, 3),
    ("erf", scipy.special.erf, -2, 2),
    ("erfc", scipy.special.erfc, -2, 2),
    ("erfinv", scipy.special.erfinv, -0.8, 0.8),
    ("lgamma", _lgamma, 1, 4),
    ("digamma", scipy.special.psi, 0.5, 4),
):
    unary(_op, _reference, _low, _high)

for _op, _reference in (("lgamma", _lgamma), ("digamma", scipy.special.psi)):
    sample(_op, "between negative integers", getattr(gj, _op), between(-2.7, -2.3, (5,)), _reference)
    sample(_op, "large", getattr(gj, _op), between(9, 99, (5,)), _reference)

# away from their kinks and jumps
for _op, _reference in (
    ("neg", np.negative),
    ("abs", np.abs),
    ("sign", np.sign),
    ("relu", lambda x: np.maximum(x, x.dtype.type(0))),
):
    _function = gj.negative if _op == "neg" else getattr(gj, _op)
    sample(_op, "positive", _function, between(0.5, 3, (3, 4)), _reference)
    sample(_op, "negative", _function, between(-3, -0.5, (2, 1, 3)), _reference)
    sample(_op, "empty", _function, between(0, 1, (0, 3)), _reference)
    sample(_op, "scalar", _function, between(0.5, 1, ()), _reference)
    sample(_op, "edges", _function, fixed(EDGES), _reference, grad=False)
    for _dtype in INTS:
        _low = 0 if _dtype == "uint8" or _op == "relu" else -50
        sample(_op, _dtype, _function, integers(_dtype, _low, 50, (5,)), _reference)
for _dtype in INTS:
    sample("square", _dtype, gj.square, integers(_dtype, 0, 10, (5,)), np.square)
for _op, _reference in (("floor", np.floor), ("ceil", np.ceil), ("round", np.round), ("trunc", np.trunc)):
    _function = getattr(gj, _op)
    sample(
        _op,
        "values",
        _function,
        lambda rng: (rng.integers(-4, 4, (3, 4)) + rng.uniform(0.1, 0.4, (3, 4)),),
        _reference,
    )
    sample(
        _op,
        "edges",
        _function,
        fixed(np.append(EDGES, [0.5, 1.5, 2.5, -2.5, 1e15 + 0.5])),
        _reference,
        grad=False,
    )
    sample(_op, "empty", _function, between(0, 1, (0, 3)), _reference)
    sample(_op, "ints", _function, integers("int32", -9, 9, (4,)), lambda x: x)

# integers and bools become floats where a float is meant
for _op, _reference in (("exp", np.exp), ("tanh", np.tanh), ("sqrt", np.sqrt)):
    for _dtype, _to in (("int64", "float64"), ("int32", "float64"), ("int8", "float32"), ("bool", "float32")):
        sample(
            _op,
            f"from {_dtype}",
            getattr(gj, _op),
            integers(_dtype, 0, 2, (2, 3)),
            lambda x, f=_reference, to=_to: f(x.astype(to)),
        )

for _op, _reference in (
    ("isnan", np.isnan),
    ("isinf", np.isinf),
    ("isfinite", np.isfinite),
    ("signbit", lambda x: np.signbit(x.astype("f8"))),
):
    sample(_op, "edges", getattr(gj, _op), fixed(EDGES.reshape(2, 7)), _reference, grad=False)
    sample(_op, "empty", getattr(gj, _op), fixed(np.zeros((0, 3))), _reference, grad=False)
    sample(_op, "ints", getattr(gj, _op), integers("int64", -3, 3, (4,)), _reference)


# ---- functions of two numbers

SHAPES = (
    ((3, 4), (3, 4)),
    ((3, 1), (1, 4)),
    ((2, 3), (3,)),
    ((), (2, 2)),
    ((0, 3), (1, 3)),
    ((1,), (1,)),
    ((0, 1), (1, 3)),
)


def binary(
    op: str,
    function: Callable[..., Any],
    reference: Callable[..., Any],
    low: float,
    high: float,
    ints: bool = True,
    second: bool = True,
) -> None:
    for x, y in SHAPES:
        sample(op, f"{x}{y}".replace(" ", ""), function, between(low, high, x, y), reference, second=second)
    sample(op, "edges", function, fixed(EDGES[:, None], EDGES), reference, grad=False)
    if ints:
        for dtype in INTS:
            sample(op, dtype, function, integers(dtype, 20, 50, (3, 1), (4,)), reference)
            least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
            ends = np.array([least, most, most - 1, least + 1, 0, 1], dtype)
            sample(op, f"{dtype} wraps", function, fixed(ends[:, None], ends), reference)


binary("add", gj.add, np.add, -3, 3)
binary("sub", gj.subtract, np.subtract, -3, 3)
binary("mul", gj.multiply, np.multiply, -3, 3)
binary("div", gj.divide, np.divide, 0.5, 3, ints=False)
binary("atan2", gj.atan2, np.arctan2, 0.5, 3, ints=False)
binary("copysign", gj.copysign, np.copysign, 0.5, 3, ints=False)
for _op, _function, _reference in (("where", gj.hypot, np.hypot), ("log1p", gj.logaddexp, np.logaddexp)):
    _name = _function.__name__
    for _x, _y in SHAPES:
        sample(_op, f"{_name} {_x}{_y}".replace(" ", ""), _function, between(0.5, 3, _x, _y), _reference)
    sample(_op, f"{_name} edges", _function, fixed(EDGES[:, None], EDGES), _reference, grad=False)
    sample(_op, f"{_name} of ints", _function, integers("int64", -3, 3, (3, 1), (4,)), _reference)

_SIGNED = np.array([-2.0, 2.0, -0.5, 0.5])
sample("copysign", "signs", gj.copysign, fixed(_SIGNED[:, None], -_SIGNED), np.copysign)
sample("where", "hypot of signs", gj.hypot, fixed(_SIGNED[:, None], _SIGNED), np.hypot)
sample("log1p", "logaddexp far apart", gj.logaddexp, fixed(np.array([-25.0, 0, 700]), np.array([0.0, -25, -700])),
       np.logaddexp)
sample("copysign", "of ints", gj.copysign, integers("int64", -3, 3, (3, 1), (4,)), np.copysign)

for _op in ("add", "mul"):
    _function, _reference = {"add": (gj.add, np.add), "mul": (gj.multiply, np.multiply)}[_op]
    sample(_op, "bool", _function, fixed(np.array([[True], [False]]), np.array([True, False])), _reference)
    sample(
        _op,
        "int with float",
        _function,
        lambda rng: (rng.integers(0, 5, (2, 1)), rng.normal(size=3)),
        _reference,
        dtypes=("float64",),
    )
    sample(
        _op,
        "Python int",
        lambda x, f=_function: f(x, 3),
        between(-2, 2, (3,)),
        lambda x, f=_reference: f(x, 3),
    )
    sample(
        _op,
        "Python float on ints",
        lambda x, f=_function: f(0.5, x),
        integers("int64", 0, 9, (3,)),
        lambda x, f=_reference: f(0.5, x),
    )
    sample(
        _op,
        "uint8 with int32",
        _function,
        lambda rng: (rng.integers(0, 9, 3).astype("uint8"), rng.integers(-9, 9, 3).astype("int32")),
        _reference,
    )
sample("div", "ints", gj.divide, integers("int64", 1, 9, (3, 1), (4,)), np.divide)
sample(
    "div", "int8", gj.divide, integers("int8", 1, 9, (3,), (3,)), lambda x, y: x.astype("f4") / y.astype("f4")
)
sample("sub", "operator, reflected", lambda x: 1 - x, between(-1, 1, (3,)), lambda x: 1 - x)
sample("div", "operator, reflected", lambda x: 1 / x, between(1, 2, (3,)), lambda x: 1 / x)

sample("pow", "positive base", gj.pow, between(0.5, 2, (3, 1), (1, 4)), np.power)
sample("pow", "operator, cube", lambda x: x**3, between(-2, 2, (3, 4)), lambda x: x**3)
sample("pow", "operator, reflected", lambda x: 2**x, between(-2, 2, (3,)), lambda x: 2**x)
sample("pow", "square at zero", lambda x: x**2, fixed(np.array([0.0, 1.0, -1.0])), lambda x: x**2)
sample("pow", "negative power", lambda x: x**-1.5, between(0.5, 2, (3,)), lambda x: x**-1.5)
sample("pow", "empty", gj.pow, between(1, 2, (0, 3), (3,)), np.power)
sample("pow", "edges", gj.pow, fixed(EDGES[:, None], np.append(EDGES, [2, 3, -2, -3])), np.power, grad=False)
for _dtype in INTS:
    sample("pow", _dtype, gj.pow, integers(_dtype, 0, 6, (3, 1), (4,)), np.power)
sample("pow", "negative int base", gj.pow, fixed(np.array([-3, -2, -1, 0]), np.array([3, 2, 0, 0])), np.power)


def _separate(rng: np.random.Generator) -> tuple[Any, Any]:
    """Two broadcasting arrays nowhere near each other."""
    x = rng.uniform(-1, 1, (3, 1))
    return x, rng.choice([-3.0, 3.0], (4,)) + rng.uniform(-0.5, 0.5, (4,))


for _op, _reference in (("maximum", np.maximum), ("minimum", np.minimum)):
    _function = getattr(gj, _op)
    sample(_op, "apart", _function, _separate, _reference)
    sample(_op, "empty", _function, between(0, 1, (0, 3), (1, 3)), _reference)
    sample(_op, "edges", _function, fixed(EDGES[:, None], EDGES), _reference, grad=False)
    for _dtype in (*INTS, "bool"):
        sample(
            _op,
            _dtype,
            _function,
            integers(_dtype, 0, 2 if _dtype == "bool" else 50, (3, 1), (4,)),
            _reference,
        )


def _quotient(rng: np.random.Generator) -> tuple[Any, Any]:
    """x and y of both signs, x / y away from integers."""
    y = rng.uniform(1, 2, (1, 4)) * rng.choice([-1, 1], (1, 4))
    return (rng.integers(-3, 3, (3, 4)) + rng.uniform(0.2, 0.8, (3, 4))) * y, y


for _op, _reference in (("floor_divide", np.floor_divide), ("remainder", np.remainder)):
    _function = getattr(gj, _op)
    sample(_op, "signs", _function, _quotient, _reference)
    sample(_op, "empty", _function, between(1, 2, (0, 3), (3,)), _reference)
    sample(
        _op,
        "whole",
        _function,
        fixed(np.array([6.0, -6.0, 7.5, -7.5])[:, None], np.array([3.0, -3.0, 2.5])),
        _reference,
        grad=False,
    )
    sample(_op, "edges", _function, fixed(EDGES[:, None], EDGES), _reference, grad=False)
    for _dtype in ("int32", "int64", "int8"):
        sample(
            _op,
            _dtype,
            _function,
            fixed(np.array([7, -7, 6, -6, 0], _dtype)[:, None], np.array([3, -3, 5, -1, 0], _dtype)),
            _reference,
        )
    sample(
        _op,
        "uint8",
        _function,
        fixed(np.array([7, 200, 0], "uint8")[:, None], np.array([3, 255, 0], "uint8")),
        _reference,
    )

# ---- comparisons, logic, bits

for _op, _reference in (
    ("equal", np.equal),
    ("not_equal", np.not_equal),
    ("less", np.less),
    ("less_equal", np.less_equal),
    ("greater", np.greater),
    ("greater_equal", np.greater_equal),
):
    _function = getattr(gj, _op)
    sample(_op, "edges", _function, fixed(EDGES[:, None], EDGES), _reference, grad=False)
    sample(_op, "empty", _function, fixed(np.zeros((0, 3)), np.zeros((1, 3))), _reference, grad=False)
    for _dtype in (*INTS, "bool"):
        sample(_op, _dtype, _function, integers(_dtype, 0, 2, (3, 1), (4,)), _reference)
    sample(
        _op,
        "int with float",
        _function,
        fixed(np.arange(4), np.array([0.0, 1.5, 2.0, 2.5])),
        _reference,
        grad=False,
    )
    sample(
        _op,
        "Python number",
        lambda x, f=_function: f(x, 1),
        integers("int32", 0, 3, (5,)),
        lambda x, f=_reference: f(x, 1),
    )

for _op, _reference in (
    ("bitwise_and", np.bitwise_and),
    ("bitwise_or", np.bitwise_or),
    ("bitwise_xor", np.bitwise_xor),
):
    for _dtype in (*INTS, "bool"):
        sample(
            _op,
            _dtype,
            getattr(gj, _op),
            integers(_dtype, 0, 2 if _dtype == "bool" else 100, (3, 1), (4,)),
            _reference,
        )
    sample(_op, "negative", getattr(gj, _op), integers("int64", -100, 100, (5,), (5,)), _reference)
    _logical = _op.replace("bitwise", "logical")
    sample(
        _op,
        _logical,
        getattr(gj, _logical),
        fixed(np.array([0.0, 2.0, NAN])[:, None], np.array([0.0, 1.0])),
        getattr(np, _logical),
        grad=False,
    )
for _dtype in (*INTS, "bool"):
    sample("bitwise_not", _dtype, gj.bitwise_not, integers(_dtype, 0, 2, (3, 4)), np.invert)
sample(
    "bitwise_not",
    "logical_not",
    gj.logical_not,
    fixed(np.array([0.0, -0.0, 2.0, NAN])),
    np.logical_not,
    grad=False,
)
for _op, _reference in (("bitwise_left_shift", np.left_shift), ("bitwise_right_shift", np.right_shift)):
    for _dtype in INTS:
        sample(_op, _dtype, getattr(gj, _op), integers(_dtype, 0, 7, (3, 1), (4,)), _reference)
    sample(
        _op,
        "negative",
        getattr(gj, _op),
        fixed(np.array([-9, -1, 5])[:, None], np.array([0, 1, 3, 63])),
        _reference,
    )

# ---- choices and casts

_MASK = np.array([[True], [False], [True]])
sample(
    "where",
    "broadcast",
    lambda x, y: gj.where(_MASK, x, y),
    between(-1, 1, (4,), (3, 1)),
    lambda x, y: np.where(_MASK, x, y),
)
sample(
    "where",
    "mask given",
    gj.where,
    lambda rng: (rng.random((2, 3)) < 0.5, rng.normal(size=(3,)), rng.normal(size=())),
    np.where,
)
sample(
    "where",
    "Python numbers",
    lambda x: gj.where(x > 0, x, 0),
    between(0.5, 1, (3,)),
    lambda x: np.where(x > 0, x, 0),
)
sample(
    "where",
    "ints",
    gj.where,
    lambda rng: (rng.random(4) < 0.5, rng.integers(0, 9, 4), rng.integers(0, 9, (2, 1))),
    np.where,
)
sample("where", "bools", gj.where, lambda rng: tuple(rng.random((3, 2)) < 0.5 for _ in range(3)), np.where)
sample(
    "where",
    "empty",
    lambda x, y: gj.where(np.zeros((0, 1), bool), x, y),
    between(0, 1, (3,), ()),
    lambda x, y: np.where(np.zeros((0, 1), bool), x, y),
)
sample(
    "where",
    "clip",
    lambda x: gj.clip(x, -1, 1),
    fixed(np.array([-3.0, -0.5, 0.5, 3.0])),
    lambda x: np.clip(x, -1, 1),
)
sample(
    "where",
    "clip below",
    lambda x: gj.clip(x, min=0),
    fixed(np.array([-3, 4, 0])),
    lambda x: np.clip(x, 0, None),
)
sample(
    "where",
    "clip by tensors",
    gj.clip,
    fixed(np.array([[-3.0], [0.1], [3.0]]), np.array([-1.0, -2.0]), np.array(1.5)),
    np.clip,
)
sample(
    "where", "clip edges", lambda x: gj.clip(x, -1, 1), fixed(EDGES), lambda x: np.clip(x, -1, 1), grad=False
)
sample(
    "where",
    "masked_fill",
    lambda x: gj.masked_fill(x, _MASK, -9),
    between(-1, 1, (3, 2)),
    lambda x: np.where(_MASK, x.dtype.type(-9), x),
)

for _source in DTYPES:
    _numbers = {
        "b": [True, False, True],
        "u": [0, 1, 100, 200],
        "i": [0, 1, -1, 100, -128],
        "f": [0.0, -0.0, 1.0, 1.75, 100.7],
    }[_source.kind]
    sample(
        "cast",
        f"from {_source}",
        lambda x: [x.astype(d) for d in DTYPES],
        fixed(np.array(_numbers, _source)),
        lambda x: [x.astype(d) for d in DTYPES],
        dtypes=(str(_source),) if _source.kind == "f" else (),
        grad=False,
    )
sample(
    "cast",
    "there and back",
    lambda x: x.astype("float64").astype("float32").astype(x.dtype) * 2,
    fixed(np.array([0.5, 1.25, -3.0])),
    lambda x: x * 2,
    grad=False,
)
sample(
    "cast",
    "widening",
    lambda x: x.astype("float64") * 3,
    between(-1, 1, (2, 3)),
    lambda x: x.astype("f8") * 3,
    dtypes=("float32",),
)
sample(
    "cast",
    "empty",
    lambda x: x.astype(np.int32),
    fixed(np.zeros((0, 2))),
    lambda x: x.astype(np.int32),
    grad=False,
)

for _dtype in ("float32", "float64", *INTS, "bool"):
    sample(
        "copy",
        f"of {_dtype}",
        lambda x: apply(COPY, x),
        fixed(np.array([[0, 1, 2], [3, 0, 5]], _dtype)),
        lambda x: x,
        dtypes=(_dtype,),
    )
sample("copy", "of a transpose", lambda x: apply(COPY, x.T), between(-1, 1, (3, 2)), lambda x: x.T)
sample("turn", "of a transpose", lambda x: apply(TURN, x.T), between(-1, 1, (3, 2)), lambda x: x.T, grad=False,
       second=False)
sample("copy", "of a scalar", lambda x: apply(COPY, x), between(-1, 1, ()), lambda x: x)

# ---- errors

for _op, _function in (
    ("add", gj.add),
    ("sub", gj.subtract),
    ("mul", gj.multiply),
    ("div", gj.divide),
    ("pow", gj.pow),
    ("maximum", gj.maximum),
    ("less", gj.less),
    ("atan2", gj.atan2),
    ("remainder", gj.remainder),
    ("floor_divide", gj.floor_divide),
    ("equal", gj.equal),
):
    error(_op, "shapes", _function, fixed(np.ones((2, 3)), np.ones((2, 4))), ShapeError)
error("where", "shapes", gj.where, fixed(np.ones(3, bool), np.ones(4), np.ones(())), ShapeError)
for _op in ("sub", "pow", "floor_divide", "remainder"):
    _function = gj.subtract if _op == "sub" else getattr(gj, _op)
    error(_op, "bools", _function, fixed(np.ones(2, bool), np.ones(2, bool)), DTypeError)
for _op in ("neg", "sign", "square", "relu"):
    error(
        _op, "bools", gj.negative if _op == "neg" else getattr(gj, _op), fixed(np.ones(2, bool)), DTypeError
    )
for _op in ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift"):
    error(_op, "floats", getattr(gj, _op), fixed(np.ones(2), np.ones(2)), DTypeError)
for _op in ("bitwise_left_shift", "bitwise_right_shift"):
    error(_op, "bools", getattr(gj, _op), fixed(np.ones(2, bool), np.ones(2, bool)), DTypeError)
error("bitwise_not", "floats", gj.bitwise_not, fixed(np.ones(2)), DTypeError)
error("pow", "negative exponent of ints", lambda x: x**-1, fixed(np.array([1, 2])), ArgumentError)
error("cast", "complex", lambda x: x.astype("complex64"), fixed(np.ones(2)), DTypeError)
error("cast", "no dtype", lambda x: x.astype("float33"), fixed(np.ones(2)), DTypeError)
error("add", "int does not fit", lambda x: x + 300, fixed(np.ones(2, "uint8")), DTypeError)
