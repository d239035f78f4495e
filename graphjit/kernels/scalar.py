"""NAMESPACE: every scalar function a generated kernel may call, by name.

Each entry is a Numba intrinsic that emits its formula as IR where it is called (see `irmath`).  Operands of one
call share one type, and the result has that type too unless the row says otherwise; mixing types is a typing
error, so no kernel widens to int64 or float64 unseen.  PYTHON_NAMESPACE holds the same names for NumPy scalars, so
that a kernel's source runs without the JIT.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import types

from graphjit.kernels import reference, vmath
from graphjit.kernels.irmath import (
    B1,
    FLOATS,
    INTS,
    NUMBERS,
    REASSOC,
    SCALARS,
    ResultRule,
    V,
    as_intrinsic,
    boolean,
    call,
    copysign,
    fabs,
    first_type,
    fma,
    is_float,
    is_signed,
    select,
    sqrt,
    width,
)
from graphjit.kernels.threefry import threefry2x32, threefry2x32_numpy
from graphjit.kernels.vmath_divide import floor_divide, remainder

NAMESPACE: dict[str, object] = {}
PYTHON_NAMESPACE: dict[str, object] = {}

BITS = (*INTS, B1)


def _define(
    name: str,
    formula: Callable[..., V],
    twin: Callable[..., Any],
    arity: int = 1,
    accepts: Sequence[Any] = SCALARS,
    result: ResultRule = first_type,
    alike: int = 0,
) -> None:
    """Enter one row; twin: the same function of NumPy scalars."""

    def quiet(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            return twin(*args)

    quiet.__name__ = name
    NAMESPACE[name] = as_intrinsic(name, formula, arity, accepts, result, alike)
    PYTHON_NAMESPACE[name] = quiet


# ---------------------------------------------------------------------------------------- casts

CASTS: dict[str, Any] = {
    "b1": types.boolean, "f32": types.float32, "f64": types.float64,
    "i8": types.int8, "i16": types.int16, "i32": types.int32, "i64": types.int64,
    "u8": types.uint8, "u16": types.uint16, "u32": types.uint32, "u64": types.uint64,
}  # fmt: skip


def _define_cast(name: str, to: Any) -> None:
    dtype = np.dtype(np.bool_ if to == B1 else str(to))
    _define(name, lambda x: x.to(to), lambda x: np.asarray(x).astype(dtype)[()], result=lambda _: to)


for _name, _type in CASTS.items():
    _define_cast(_name, _type)


# ---------------------------------------------------------------------------------------- formulas


def add(x: V, y: V) -> V:
    return x | y if x.type == B1 else x + y


def mul(x: V, y: V) -> V:
    return x & y if x.type == B1 else x * y


def abs_(x: V) -> V:
    if is_float(x.type):
        return fabs(x)
    return select(x.lt(0), -x, x) if is_signed(x.type) else x


def sign(x: V) -> V:
    if is_float(x.type):  # +0 for either zero, NaN for NaN
        return select(x.gt(0), 1.0, select(x.lt(0), -1.0, select(x.eq(0), 0.0, x)))
    positive = x.gt(0).to(x.type)
    return positive - x.lt(0).to(x.type) if is_signed(x.type) else positive


def maximum(x: V, y: V) -> V:
    """The test for a NaN in y folds away where y is constant: ReLU is one instruction."""
    if x.type == B1:
        return x | y
    larger = select(y.gt(x), y, x)
    return select(y.is_nan(), y, larger) if is_float(x.type) else larger


def minimum(x: V, y: V) -> V:
    if x.type == B1:
        return x & y
    smaller = select(y.lt(x), y, x)
    return select(y.is_nan(), y, smaller) if is_float(x.type) else smaller


def pow_(x: V, y: V) -> V:
    """x ** y; integers by repeated squaring with wraparound, y >= 0."""
    if is_float(x.type):
        return vmath.pow_(x, y)
    # A real loop, as long as the exponent has bits: integer powers are rare and need no vectors.
    b = x.builder
    head, loop, done = b.block, b.append_basic_block("ipow"), b.append_basic_block("ipow.done")
    b.cbranch(y.gt(0).ir, loop, done)
    b.position_at_end(loop)
    base, exponent, acc = (V(b, b.phi(x.ir.type), x.type) for _ in range(3))
    acc_next = select((exponent & 1).ne(0), acc * base, acc)
    exponent_next = exponent >> 1
    for phi, first, following in (
        (base, x, base * base), (exponent, y, exponent_next), (acc, x.const(1), acc_next),
    ):  # fmt: skip
        phi.ir.add_incoming(first.ir, head)
        phi.ir.add_incoming(following.ir, loop)
    b.cbranch(exponent_next.gt(0).ir, loop, done)
    b.position_at_end(done)
    out = V(b, b.phi(x.ir.type), x.type)
    out.ir.add_incoming(x.const(1).ir, head)
    out.ir.add_incoming(acc_next.ir, loop)
    return out


def _in_width(n: V) -> V:
    return n.cast_bits(getattr(types, f"uint{width(n.type)}")).lt(width(n.type))


def shl(x: V, n: V) -> V:
    """x << n; 0 for n outside [0, bits)."""
    ok = _in_width(n)
    return select(ok, x << select(ok, n, 0), 0)


def shr(x: V, n: V) -> V:
    """x >> n; for n outside [0, bits) 0, or -1 of a negative x."""
    ok = _in_width(n)
    if is_signed(x.type):
        return x >> select(ok, n, width(x.type) - 1)
    return select(ok, x >> select(ok, n, 0), 0)


def _rounding(intrinsic: str) -> Callable[[V], V]:
    return lambda x: call(intrinsic, x) if is_float(x.type) else x


def isnan(x: V) -> V:
    return x.is_nan() if is_float(x.type) else x.const(False, B1)


def isinf(x: V) -> V:
    return fabs(x).eq(float("inf")) if is_float(x.type) else x.const(False, B1)


def isfinite(x: V) -> V:
    return fabs(x).lt(float("inf")) if is_float(x.type) else x.const(True, B1)


def where(cond: V, x: V, y: V) -> V:
    return select(cond, x, y)


# Reductions: the accumulator comes first.  Only here may the compiler reorder, so that a loop over them is
# vectorised; elsewhere reassociation would cancel rounding tricks.


def radd(acc: V, x: V) -> V:
    return acc._arith(x, "fadd", "add", REASSOC)


def rmul(acc: V, x: V) -> V:
    return acc._arith(x, "fmul", "mul", REASSOC)


def rmax(acc: V, x: V) -> V:
    """NaN if either is; for floats as llvm.maximum, the one form the loop vectoriser reduces with NaN kept."""
    return call("llvm.maximum", acc, x) if is_float(acc.type) else maximum(acc, x)


def rmin(acc: V, x: V) -> V:
    return call("llvm.minimum", acc, x) if is_float(acc.type) else minimum(acc, x)


# ---------------------------------------------------------------------------------------- the table

_define("add", add, np.add, 2)
_define("sub", operator.sub, np.subtract, 2, NUMBERS)
_define("mul", mul, np.multiply, 2)
_define("div", operator.truediv, np.divide, 2, FLOATS)
_define("neg", operator.neg, np.negative, 1, NUMBERS)
_define("abs_", abs_, np.abs)
_define("sign", sign, np.sign, 1, NUMBERS)
_define("square", lambda x: x * x, np.square, 1, NUMBERS)
_define("minimum", minimum, np.minimum, 2)
_define("maximum", maximum, np.maximum, 2)
_define("floor_divide", floor_divide, np.floor_divide, 2, NUMBERS)
_define("remainder", remainder, np.remainder, 2, NUMBERS)
_define("pow_", pow_, np.power, 2, NUMBERS)

_define("bit_and", operator.and_, np.bitwise_and, 2, BITS)
_define("bit_or", operator.or_, np.bitwise_or, 2, BITS)
_define("bit_xor", operator.xor, np.bitwise_xor, 2, BITS)
_define("bit_not", operator.invert, np.bitwise_not, 1, BITS)
_define("shl", shl, np.left_shift, 2, INTS)
_define("shr", shr, np.right_shift, 2, INTS)

_define("reciprocal", lambda x: 1.0 / x, np.reciprocal, 1, FLOATS)
_define("sqrt", sqrt, np.sqrt, 1, FLOATS)
_define("rsqrt", lambda x: 1.0 / sqrt(x), lambda x: np.reciprocal(np.sqrt(x)), 1, FLOATS)
_define("floor", _rounding("llvm.floor"), np.floor)
_define("ceil", _rounding("llvm.ceil"), np.ceil)
_define("rint", _rounding("llvm.rint"), lambda x: np.rint(x) if x.dtype.kind == "f" else x)
_define("trunc_", _rounding("llvm.trunc"), np.trunc)
_define("isnan", isnan, np.isnan, result=boolean)
_define("isinf", isinf, np.isinf, result=boolean)
_define("isfinite", isfinite, np.isfinite, result=boolean)
_define("signbit", lambda x: x.bits().lt(0), np.signbit, 1, FLOATS, boolean)
_define("copysign", copysign, np.copysign, 2, FLOATS)
_define("fma", fma, lambda a, b, c: a * b + c, 3, FLOATS)
_define("where", where, lambda c, x, y: x if c else y, 3, result=lambda c, x, y: x, alike=1)

_define("eq", V.eq, np.equal, 2, result=boolean)
_define("ne", V.ne, np.not_equal, 2, result=boolean)
_define("lt", V.lt, np.less, 2, result=boolean)
_define("le", V.le, np.less_equal, 2, result=boolean)
_define("gt", V.gt, np.greater, 2, result=boolean)
_define("ge", V.ge, np.greater_equal, 2, result=boolean)

_define("radd", radd, np.add, 2, NUMBERS)
_define("rmul", rmul, np.multiply, 2, NUMBERS)
_define("rmax", rmax, np.maximum, 2)
_define("rmin", rmin, np.minimum, 2)

_define("threefry", threefry2x32, threefry2x32_numpy, 4, (types.uint32,))

_ELEMENTARY: dict[str, Callable[..., Any]] = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1,
    "log": np.log, "log1p": np.log1p, "log2": np.log2, "log10": np.log10,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "sigmoid": reference.sigmoid, "softplus": reference.softplus,
    "erf": reference.erf, "erfc": reference.erfc, "erfinv": reference.erfinv,
    "lgamma": reference.lgamma, "digamma": reference.digamma,
}  # fmt: skip

for _name, _ufunc in _ELEMENTARY.items():
    _define(_name, getattr(vmath, _name), _ufunc, 1, FLOATS)
_define("atan2", vmath.atan2, np.arctan2, 2, FLOATS)

# ---------------------------------------------------------------------------------------- what is not ours

for _namespace in (NAMESPACE, PYTHON_NAMESPACE):
    _namespace.update(range=range, min=min, max=max)
NAMESPACE.update({str(t): t for t in (*NUMBERS, B1)})
PYTHON_NAMESPACE.update({str(t): getattr(np, str(t)) for t in NUMBERS}, bool=np.bool_)
