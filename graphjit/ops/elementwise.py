"""Arithmetic, rounding, choices and casts: rows of the table and the functions of the same names.

Subgradient conventions stand in each rule: relu and abs have 0 at 0, maximum and minimum share a tie half and
half, clip passes the gradient at its bounds, sign and the roundings have 0 everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.apply import apply
from graphjit.composed import composed
from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, DTypeError
from graphjit.kernels.reference import MANY, select
from graphjit.op import INTERNAL, Array, Elementwise, Op, register
from graphjit.operators import attach
from graphjit.ops.families import (
    ANY,
    NUMBER,
    Binary,
    Unary,
    any_unary,
    binary,
    document,
    float_binary,
    named,
    numeric,
    of_tensors,
    reflected,
    strong,
    unary,
)
from graphjit.ops.rules import broadcast, operands_text, same
from graphjit.ops.transcendental import log
from graphjit.promotion import agreeing, promoted, result_dtype
from graphjit.tape import state
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import BOOL, DTYPES, DType, TensorType, check_dtype, is_float

# ---- arithmetic

def _mul_vjp(g: Tensor, out: Tensor, x: Tensor, y: Tensor) -> tuple[Any, Any]:
    if x._value is y._value:  # a square
        return lambda: g * (x + x), None
    return lambda: g * y, lambda: g * x


ADD = register(Op("add", np.add, same("add", ANY), lambda g, out, x, y: (g, g),
                  Elementwise(named("+", "add"))))
SUB = register(Op("sub", np.subtract, same("sub", NUMBER), lambda g, out, x, y: (g, lambda: -g),
                  Elementwise(named("-", "sub"))))
MUL = register(Op("mul", np.multiply, same("mul", ANY), _mul_vjp,
                  Elementwise(named("*", "mul"))))
DIV = register(Op("div", np.divide, same("div", "f"), lambda g, out, x, y: (lambda: g / y, lambda: -g * out / y),
                  Elementwise("{0} / {1}")))


def _power(x: Array, y: Array) -> Any:
    kind = x.dtype.kind
    if kind == "b":
        raise TypeError("bool operands")
    # kernels cannot raise on data: a negative exponent of an integer counts as 0
    return np.power(x, np.maximum(y, 0) if kind == "i" else y)


def _pow_vjp(g: Tensor, out: Tensor, x: Tensor, y: Tensor) -> tuple[Any, Any]:
    # 0 ** y: the slope in x is y * x**(y-1), 0 where y is 0; the slope in y is 0 where x is 0 and y >= 0
    def base() -> Tensor:
        return g * where(y == 0, 0, y * x ** (y - 1))

    def exponent() -> Tensor:
        zero = (x == 0) & (y >= 0)
        return g * where(zero, 0, out * log(where(zero, 1, x)))
    return base, exponent


POW = register(Op("pow", _power, same("pow", NUMBER), _pow_vjp, Elementwise("pow_({0}, {1})", cheap=False)))
NEG = unary("neg", np.negative, lambda g, out, x: (-g,), kinds=NUMBER, cheap=True)
ABS = unary("abs", np.absolute, lambda g, out, x: (g * sign(x),), expr="abs_({0})", kinds=ANY, cheap=True)
SIGN = unary("sign", np.sign, lambda g, out, x: (None,), kinds=NUMBER, cheap=True)
SQUARE = unary("square", numeric(np.square), lambda g, out, x: (g * (x * 2),), kinds=NUMBER, cheap=True)
FLOOR_DIVIDE = register(Op("floor_divide", numeric(np.floor_divide), same("floor_divide", NUMBER),
                           lambda g, out, x, y: (None, None), Elementwise("floor_divide({0}, {1})", cheap=False)))
REMAINDER = register(Op("remainder", numeric(np.remainder), same("remainder", NUMBER),
                        lambda g, out, x, y: (g, -g * floor_divide(x, y)),
                        Elementwise("remainder({0}, {1})", cheap=False)))

# ---- rounding (derivative 0 everywhere)

FLOOR = unary("floor", np.floor, lambda g, out, x: (None,), cheap=True)
CEIL = unary("ceil", np.ceil, lambda g, out, x: (None,), cheap=True)
ROUND = unary("round", np.rint, lambda g, out, x: (None,), expr="rint({0})", cheap=True)
TRUNC = unary("trunc", np.trunc, lambda g, out, x: (None,), expr="trunc_({0})", cheap=True)

# ---- choices

_ZEROS = {dtype: np.zeros((), dtype) for dtype in DTYPES}  # an array is taken quicker than a scalar


def _relu_vjp(g: Tensor, out: Tensor, x: Tensor) -> tuple[Tensor]:
    return (where(out > 0, g, 0),)


RELU = unary("relu", numeric(lambda x: np.maximum(x, _ZEROS[x.dtype])), _relu_vjp,
              expr="maximum({0}, {zero})", kinds=NUMBER, cheap=True)


def _tie(g: Tensor, x: Tensor, y: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    half = where(x == y, g * 0.5, 0)
    return where(first, g, half), where(first | (x == y), half, g)


MAXIMUM = register(Op("maximum", np.maximum, same("maximum", "fiub"), lambda g, out, x, y: _tie(g, x, y, x > y),
                      Elementwise("maximum({0}, {1})")))
MINIMUM = register(Op("minimum", np.minimum, same("minimum", "fiub"), lambda g, out, x, y: _tie(g, x, y, x < y),
                      Elementwise("minimum({0}, {1})")))


def _infer_where(cond: TensorType, x: TensorType, y: TensorType) -> TensorType:
    if cond.dtype != BOOL:
        raise DTypeError(f"where needs a bool condition, not {cond}", hint="Compare, or use cond.astype(bool).")
    if x.dtype != y.dtype:
        raise DTypeError("where needs two operands of one dtype", detail=operands_text((cond, x, y)))
    return TensorType(broadcast("where", (cond, x, y)), x.dtype, x.weak and y.weak)


def _where_vjp(g: Tensor, out: Tensor, cond: Tensor, x: Tensor, y: Tensor) -> tuple[None, Tensor, Tensor]:
    return None, where(cond, g, 0), where(cond, 0, g)


WHERE = register(Op("where", select, _infer_where, _where_vjp, Elementwise("where({0}, {1}, {2})"),
                    text=lambda types, how: "np.where({0}, {1}, {2})" if types[0].size < MANY else ""))


def _infer_cast(x: TensorType, dtype: DType) -> TensorType:
    return TensorType(x.shape, check_dtype(dtype))


def _cast_vjp(g: Tensor, out: Tensor, x: Tensor, dtype: DType) -> tuple[Any]:
    return (g.astype(x.dtype) if is_float(x.dtype) else None,)


CAST = register(Op("cast", lambda x, dtype: x.astype(dtype), _infer_cast, _cast_vjp,
                   Elementwise(lambda types, out: f"{short_name(out.dtype)}({{0}})"), text="{0}.astype({dtype})"))


def short_name(dtype: DType) -> str:
    """The cast function of a dtype in generated source: f32, i64, b1, ..."""
    return "b1" if dtype.kind == "b" else f"{dtype.kind}{dtype.itemsize * 8}"


COPY = unary("copy", lambda x: np.array(x, order="C"), lambda g, out, x: (g,), expr="{0}", kinds="fiub",
              cheap=True)
TURN = register(Op("turn", lambda x: np.array(x, order="C"), same("turn", "fiub"), None,  # a copy in another order
                   Elementwise("{0}", cheap=False, apart=True), INTERNAL))

# ---- functions

add = binary(ADD, "x + y, element-wise.")
subtract = binary(SUB, "x - y, element-wise.")
multiply = binary(MUL, "x * y, element-wise.")
divide = float_binary(DIV, "x / y, element-wise; integers give a float.")
def pow(x: TensorLike, y: TensorLike) -> Tensor:
    """x ** y, element-wise; the exponents of integers must not be negative.

    Raises:
        ArgumentError: integers to a negative Python integer. (In arrays a negative exponent counts as 0.)
    """
    if isinstance(y, int) and y < 0 and not is_float(result_dtype((x, y))):
        raise ArgumentError(f"integers to the power {y}", hint="Convert with x.astype(...), or use gj.divide.")
    base, exponent = promoted(x, y)
    return apply(POW, base, exponent)


negative = any_unary(NEG, "-x, element-wise.")
abs = any_unary(ABS, "Absolute value; its gradient at 0 is 0.")
sign: Unary = any_unary(SIGN, "-1, 0 or 1 by the sign of x; NaN for NaN.")
square = any_unary(SQUARE, "x * x.")
relu = any_unary(RELU, "max(x, 0); its gradient at 0 is 0.")
maximum = of_tensors(MAXIMUM, "The larger of x and y, NaN if either is; a tie shares the gradient half and half.")
minimum = of_tensors(MINIMUM, "The smaller of x and y, NaN if either is; a tie shares the gradient half and half.")
floor_divide: Binary = binary(FLOOR_DIVIDE, "floor(x / y), the sign rule of Python; 0 for an integer divided by 0.")
remainder = binary(REMAINDER, "x - y * floor(x / y), the sign of y as in Python.")


def _rounding(op: Op, doc: str) -> Callable[[TensorLike], Tensor]:
    def function(x: TensorLike) -> Tensor:
        t = as_tensor(x)
        return apply(op, t) if is_float(t.dtype) else t
    return document(function, op, doc)


floor = _rounding(FLOOR, "The largest integer not above x.")
ceil = _rounding(CEIL, "The smallest integer not below x.")
round = _rounding(ROUND, "The nearest integer, halves to even.")
trunc = _rounding(TRUNC, "x without its fraction.")


def astype(x: TensorLike, dtype: Any) -> Tensor:
    """x with another element type; the same tensor when it has it already."""
    t = as_tensor(x)
    if dtype is t.dtype and state.trace is None:
        return t
    return _cast(t, dtype) if state.trace is not None or check_dtype(dtype) != t.dtype else t


@composed
def _cast(t: Tensor, dtype: Any) -> Tensor:
    kind = check_dtype(dtype)
    found = t._type
    return t if found.dtype == kind and not found.weak else apply(CAST, t, dtype=kind)


@composed
def where(cond: TensorLike, x: TensorLike, y: TensorLike) -> Tensor:
    """x where the condition holds, y elsewhere, all broadcast together.

    The branch not taken gets a gradient of exactly 0, so a NaN in it does no harm unless its own operation
    turns that 0 into NaN (0 * inf): guard the operand, as in ``where(x > 0, log(where(x > 0, x, 1)), 0)``.
    """
    found = agreeing(x, y)
    return apply(WHERE, astype(cond, BOOL), *(strong(promoted(x, y)) if found is None else found))


@composed
def clip(x: TensorLike, min: TensorLike | None = None, max: TensorLike | None = None) -> Tensor:
    """x held between min and max (either may be None); the gradient passes at the bounds."""
    t = as_tensor(x)
    if min is not None:
        t = where(t < min, min, t)
    if max is not None:
        t = where(t > max, max, t)
    return t


@composed
def masked_fill(x: TensorLike, mask: TensorLike, value: TensorLike) -> Tensor:
    """x with ``value`` where the mask holds."""
    return where(mask, as_tensor(value, as_tensor(x).dtype), x)


attach(
    __add__=add, __radd__=reflected(add), __sub__=subtract, __rsub__=reflected(subtract), __mul__=multiply,
    __rmul__=reflected(multiply), __truediv__=divide, __rtruediv__=reflected(divide), __floordiv__=floor_divide,
    __rfloordiv__=reflected(floor_divide), __mod__=remainder, __rmod__=reflected(remainder), __pow__=pow,
    __rpow__=reflected(pow), __neg__=negative, __pos__=as_tensor, __abs__=abs, abs=abs, sign=sign, square=square,
    relu=relu, floor=floor, ceil=ceil, round=round, trunc=trunc, pow=pow, maximum=maximum, minimum=minimum, clip=clip,
    astype=astype, masked_fill=masked_fill)

__all__ = [
    "abs", "add", "astype", "ceil", "clip", "divide", "floor", "floor_divide", "masked_fill", "maximum", "minimum",
    "multiply", "negative", "pow", "relu", "remainder", "round", "sign", "square", "subtract", "trunc", "where",
]
