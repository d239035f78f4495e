"""Element-wise ops on numbers: rows of the table and the functions of the same names.

Subgradient conventions stand in each rule: relu and abs have 0 at 0, maximum and minimum share a tie half and
half, clip passes the gradient at its bounds, sign and the roundings have 0 everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphjit.apply import apply
from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError
from graphjit.kernels import reference
from graphjit.op import Array, Elementwise, Op, register
from graphjit.operators import attach
from graphjit.ops.rules import same, to_bool
from graphjit.promotion import agreeing, promoted, result_dtype
from graphjit.tape import state
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import BOOL, FLOAT32, FLOAT64, DType, TensorType, check_dtype, is_float

NUMBER = "fiu"
Unary = Callable[[TensorLike], Tensor]
Binary = Callable[[TensorLike, TensorLike], Tensor]
ANY = "fiub"


def numeric(eager: Callable[..., Any]) -> Callable[..., Any]:
    """An eager rule that refuses the bools NumPy would make integers of, as the shape rule does."""
    def rule(x: Array, *more: Array) -> Any:
        if x.dtype.kind == "b":
            raise TypeError("bool operands")
        return eager(x, *more)
    return rule


def named(infix: str, function: str) -> Callable[[tuple[TensorType, ...], TensorType], str]:
    """Infix for floats; for integers the function that keeps their width."""
    def expr(types: tuple[TensorType, ...], out: TensorType) -> str:
        if is_float(types[0].dtype):
            return "{0} " + infix + " {1}"
        return function + "({0}, {1})"
    return expr


def _unary(name: str, eager: Callable[..., Any], vjp: Callable[..., tuple[Any, ...]] | None, *, expr: str = "",
           kinds: str = "f", to: Callable[[TensorType], Any] | None = None, cheap: bool = False) -> Op:
    return register(Op(name, eager, same(name, kinds, to), vjp,
                       Elementwise(expr or f"{name}({{0}})", cheap)))


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


@numeric
def _power(x: Array, y: Array) -> Any:
    # kernels cannot raise on data: a negative exponent of an integer counts as 0
    return np.power(x, np.maximum(y, 0) if x.dtype.kind == "i" else y)


def _pow_vjp(g: Tensor, out: Tensor, x: Tensor, y: Tensor) -> tuple[Any, Any]:
    # 0 ** y: the slope in x is y * x**(y-1), 0 where y is 0; the slope in y is 0 where x is 0 and y >= 0
    def base() -> Tensor:
        return g * where(y == 0, 0, y * x ** (y - 1))

    def exponent() -> Tensor:
        zero = (x == 0) & (y >= 0)
        return g * where(zero, 0, out * log(where(zero, 1, x)))
    return base, exponent


POW = register(Op("pow", _power, same("pow", NUMBER), _pow_vjp, Elementwise("pow_({0}, {1})", cheap=False)))
NEG = _unary("neg", np.negative, lambda g, out, x: (-g,), kinds=NUMBER, cheap=True)
ABS = _unary("abs", np.absolute, lambda g, out, x: (g * sign(x),), expr="abs_({0})", kinds=ANY, cheap=True)
SIGN = _unary("sign", np.sign, lambda g, out, x: (None,), kinds=NUMBER, cheap=True)
SQUARE = _unary("square", numeric(np.square), lambda g, out, x: (g * (x * 2),), kinds=NUMBER, cheap=True)
SQRT = _unary("sqrt", np.sqrt, lambda g, out, x: (g / (out * 2),))
RSQRT = _unary("rsqrt", lambda x: np.reciprocal(np.sqrt(x)), lambda g, out, x: (g * (out / x) * -0.5,))
RECIPROCAL = _unary("reciprocal", np.reciprocal, lambda g, out, x: (-g * out * out,))

# ---- exponentials, logarithms, trigonometry, sigmoids

EXP = _unary("exp", np.exp, lambda g, out, x: (g * out,))
EXPM1 = _unary("expm1", np.expm1, lambda g, out, x: (g * (out + 1),))
LOG = _unary("log", np.log, lambda g, out, x: (g / x,))
LOG1P = _unary("log1p", np.log1p, lambda g, out, x: (g / (x + 1),))
LOG2 = _unary("log2", np.log2, lambda g, out, x: (g / (x * math.log(2)),))
SIN = _unary("sin", np.sin, lambda g, out, x: (g * cos(x),))
COS = _unary("cos", np.cos, lambda g, out, x: (-g * sin(x),))
TAN = _unary("tan", np.tan, lambda g, out, x: (g * (out * out + 1),))
ASIN = _unary("asin", np.arcsin, lambda g, out, x: (g * rsqrt(1 - x * x),))
ACOS = _unary("acos", np.arccos, lambda g, out, x: (-g * rsqrt(1 - x * x),))
ATAN = _unary("atan", np.arctan, lambda g, out, x: (g / (x * x + 1),))
SINH = _unary("sinh", np.sinh, lambda g, out, x: (g * cosh(x),))
COSH = _unary("cosh", np.cosh, lambda g, out, x: (g * sinh(x),))
TANH = _unary("tanh", np.tanh, lambda g, out, x: (g * (1 - out * out),))
ATAN2 = register(Op("atan2", np.arctan2, same("atan2", "f"),
                    lambda g, out, y, x: (g * x / (x * x + y * y), -g * y / (x * x + y * y)),
                    Elementwise("atan2({0}, {1})", cheap=False)))
SIGMOID = _unary("sigmoid", reference.sigmoid, lambda g, out, x: (g * (out * (1 - out)),))
SOFTPLUS = _unary("softplus", reference.softplus, lambda g, out, x: (g * sigmoid(x),))
ERF = _unary("erf", reference.erf, lambda g, out, x: (g * (exp(-x * x) * (2 / math.sqrt(math.pi))),))
ERFINV = _unary("erfinv", reference.erfinv,
                lambda g, out, x: (g * (exp(out * out) * (math.sqrt(math.pi) / 2)),))
RELU = _unary("relu", numeric(lambda x: np.maximum(x, x.dtype.type(0))), lambda g, out, x: (where(out > 0, g, 0),),
              expr="maximum({0}, {zero})", kinds=NUMBER, cheap=True)

# ---- rounding (derivative 0 everywhere)

FLOOR = _unary("floor", np.floor, lambda g, out, x: (None,), cheap=True)
CEIL = _unary("ceil", np.ceil, lambda g, out, x: (None,), cheap=True)
ROUND = _unary("round", np.rint, lambda g, out, x: (None,), expr="rint({0})", cheap=True)
TRUNC = _unary("trunc", np.trunc, lambda g, out, x: (None,), expr="trunc_({0})", cheap=True)

# ---- choices


def _tie(g: Tensor, x: Tensor, y: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    half = where(x == y, g * 0.5, 0)
    return where(first, g, half), where(first | (x == y), half, g)


MAXIMUM = register(Op("maximum", np.maximum, same("maximum", "fiub"), lambda g, out, x, y: _tie(g, x, y, x > y),
                      Elementwise("maximum({0}, {1})")))
MINIMUM = register(Op("minimum", np.minimum, same("minimum", "fiub"), lambda g, out, x, y: _tie(g, x, y, x < y),
                      Elementwise("minimum({0}, {1})")))


def _infer_where(cond: TensorType, x: TensorType, y: TensorType) -> TensorType:
    from graphjit.errors import DTypeError
    from graphjit.ops.rules import broadcast, operands_text
    if cond.dtype != BOOL:
        raise DTypeError(f"where needs a bool condition, not {cond}", hint="Compare, or use cond.astype(bool).")
    if x.dtype != y.dtype:
        raise DTypeError("where needs two operands of one dtype", detail=operands_text((cond, x, y)))
    return TensorType(broadcast("where", (cond, x, y)), x.dtype, x.weak and y.weak)


WHERE = register(Op("where", np.where, _infer_where,
                    lambda g, out, cond, x, y: (None, where(cond, g, 0), where(cond, 0, g)),
                    Elementwise("where({0}, {1}, {2})")))


def _infer_cast(x: TensorType, dtype: DType) -> TensorType:
    return TensorType(x.shape, check_dtype(dtype))


def _cast_vjp(g: Tensor, out: Tensor, x: Tensor, dtype: DType) -> tuple[Any]:
    return (g.astype(x.dtype) if is_float(x.dtype) else None,)


CAST = register(Op("cast", lambda x, dtype: x.astype(dtype), _infer_cast, _cast_vjp,
                   Elementwise(lambda types, out: f"{short_name(out.dtype)}({{0}})")))


def short_name(dtype: DType) -> str:
    """The cast function of a dtype in generated source: f32, i64, b1, ..."""
    return "b1" if dtype.kind == "b" else f"{dtype.kind}{dtype.itemsize * 8}"


COPY = _unary("copy", lambda x: np.array(x, order="C"), lambda g, out, x: (g,), expr="{0}", kinds="fiub",
              cheap=True)

# ---- comparisons and logic (no derivative: the result is bool)

def _compare(name: str, function: str, eager: Callable[..., Any]) -> Op:
    return register(Op(name, eager, same(name, "fiub", to_bool), None, Elementwise(f"{function}({{0}}, {{1}})"),
                       why="its result is a truth value"))


EQUAL = _compare("equal", "eq", np.equal)
NOT_EQUAL = _compare("not_equal", "ne", np.not_equal)
LESS = _compare("less", "lt", np.less)
LESS_EQUAL = _compare("less_equal", "le", np.less_equal)
GREATER = _compare("greater", "gt", np.greater)
GREATER_EQUAL = _compare("greater_equal", "ge", np.greater_equal)

ISNAN = _unary("isnan", np.isnan, None, to=to_bool, cheap=True)
ISINF = _unary("isinf", np.isinf, None, to=to_bool, cheap=True)
ISFINITE = _unary("isfinite", np.isfinite, None, to=to_bool, cheap=True)


def _whole(name: str, function: str, eager: Callable[..., Any], kinds: str) -> Op:
    return register(Op(name, eager if "b" in kinds else numeric(eager), same(name, kinds), None,
                       Elementwise(f"{function}({{0}}, {{1}})"), why="its result is not continuous"))


BITWISE_AND = _whole("bitwise_and", "bit_and", np.bitwise_and, "iub")
BITWISE_OR = _whole("bitwise_or", "bit_or", np.bitwise_or, "iub")
BITWISE_XOR = _whole("bitwise_xor", "bit_xor", np.bitwise_xor, "iub")
BITWISE_NOT = _unary("bitwise_not", np.invert, None, expr="bit_not({0})", kinds="iub", cheap=True)
SHIFT_LEFT = _whole("bitwise_left_shift", "shl", np.left_shift, "iu")
SHIFT_RIGHT = _whole("bitwise_right_shift", "shr", np.right_shift, "iu")

FLOOR_DIVIDE = register(Op("floor_divide", numeric(np.floor_divide), same("floor_divide", NUMBER),
                           lambda g, out, x, y: (None, None), Elementwise("floor_divide({0}, {1})", cheap=False)))
REMAINDER = register(Op("remainder", numeric(np.remainder), same("remainder", NUMBER),
                        lambda g, out, x, y: (g, -g * floor_divide(x, y)),
                        Elementwise("remainder({0}, {1})", cheap=False)))


# ---- functions

def _floating(x: TensorLike) -> Tensor:
    """As a tensor that floating functions take: bools and integers become floats as in NumPy (int64 to float64)."""
    t = as_tensor(x)
    if state.trace is None and t.dtype.kind == "f":
        return t
    kind = t._type
    if kind.weak:
        return t.astype(FLOAT32)
    if is_float(kind.dtype):
        return t
    return t.astype(FLOAT32 if kind.dtype == BOOL or kind.dtype.itemsize < 4 else FLOAT64)


def _binary(op: Op, doc: str) -> Callable[[TensorLike, TensorLike], Tensor]:
    def function(x: TensorLike, y: TensorLike) -> Tensor:
        found = agreeing(x, y)
        return apply(op, *(promoted(x, y) if found is None else found))
    return _document(function, op, doc)


def _of_tensors(op: Op, doc: str) -> Callable[[TensorLike, TensorLike], Tensor]:
    """As ``_binary``, for functions that are no operators: they make tensors of Python floats."""
    def function(x: TensorLike, y: TensorLike) -> Tensor:
        found = agreeing(x, y)
        return apply(op, *(_strong(promoted(x, y)) if found is None else found))
    return _document(function, op, doc)


def _strong(tensors: list[Tensor]) -> list[Tensor]:
    """Run-time Python floats as float32, as they are eagerly."""
    weak = state.trace is not None and any(t._type.weak for t in tensors)
    return [t.astype(FLOAT32) for t in tensors] if weak else tensors


def _float_binary(op: Op, doc: str) -> Callable[[TensorLike, TensorLike], Tensor]:
    def function(x: TensorLike, y: TensorLike) -> Tensor:
        found = agreeing(x, y)
        if found is not None and found[0].dtype.kind == "f":
            return apply(op, *found)
        dtype = result_dtype((x, y))
        if not is_float(dtype):
            dtype = FLOAT32 if dtype == BOOL or dtype.itemsize < 4 else FLOAT64
        return apply(op, *promoted(x, y, dtype=dtype))
    return _document(function, op, doc)


def _float_unary(op: Op, doc: str) -> Callable[[TensorLike], Tensor]:
    def function(x: TensorLike) -> Tensor:
        return apply(op, _floating(x))
    return _document(function, op, doc)


def _any_unary(op: Op, doc: str) -> Callable[[TensorLike], Tensor]:
    def function(x: TensorLike) -> Tensor:
        return apply(op, as_tensor(x))
    return _document(function, op, doc)


def _document(function: Callable[..., Any], op: Op, doc: str) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = doc
    return function


add = _binary(ADD, "x + y, element-wise.")
subtract = _binary(SUB, "x - y, element-wise.")
multiply = _binary(MUL, "x * y, element-wise.")
divide = _float_binary(DIV, "x / y, element-wise; integers give a float.")
def pow(x: TensorLike, y: TensorLike) -> Tensor:
    """x ** y, element-wise; the exponents of integers must not be negative.

    Raises:
        ArgumentError: integers to a negative Python integer. (In arrays a negative exponent counts as 0.)
    """
    if isinstance(y, int) and y < 0 and not is_float(result_dtype((x, y))):
        raise ArgumentError(f"integers to the power {y}", hint="Convert with x.astype(...), or use gj.divide.")
    return apply(POW, *promoted(x, y))


negative = _any_unary(NEG, "-x, element-wise.")
abs = _any_unary(ABS, "Absolute value; its gradient at 0 is 0.")
sign: Unary = _any_unary(SIGN, "-1, 0 or 1 by the sign of x; NaN for NaN.")
square = _any_unary(SQUARE, "x * x.")
relu = _any_unary(RELU, "max(x, 0); its gradient at 0 is 0.")
sqrt = _float_unary(SQRT, "Square root; NaN below 0.")
rsqrt: Unary = _float_unary(RSQRT, "1 / sqrt(x).")
reciprocal = _float_unary(RECIPROCAL, "1 / x.")
exp: Unary = _float_unary(EXP, "e ** x.")
expm1 = _float_unary(EXPM1, "e ** x - 1, exact near 0.")
log = _float_unary(LOG, "Natural logarithm; -inf at 0, NaN below.")
log1p = _float_unary(LOG1P, "log(1 + x), exact near 0.")
log2 = _float_unary(LOG2, "Logarithm to base 2.")
sin: Unary = _float_unary(SIN, "Sine of x in radians.")
cos: Unary = _float_unary(COS, "Cosine of x in radians.")
tan = _float_unary(TAN, "Tangent of x in radians.")
asin = _float_unary(ASIN, "Arc sine in radians.")
acos = _float_unary(ACOS, "Arc cosine in radians.")
atan = _float_unary(ATAN, "Arc tangent in radians.")
atan2 = _float_binary(ATAN2, "Angle of the point (x=second, y=first) in radians, from -pi to pi.")
sinh: Unary = _float_unary(SINH, "Hyperbolic sine.")
cosh: Unary = _float_unary(COSH, "Hyperbolic cosine.")
tanh = _float_unary(TANH, "Hyperbolic tangent.")
sigmoid: Unary = _float_unary(SIGMOID, "1 / (1 + e ** -x), without overflow.")
softplus = _float_unary(SOFTPLUS, "log(1 + e ** x), without overflow.")
erf = _float_unary(ERF, "Error function, 2 / sqrt(pi) * integral of e ** -t**2 from 0 to x.")
erfinv = _float_unary(ERFINV, "Inverse of erf on (-1, 1).")
maximum = _of_tensors(MAXIMUM, "The larger of x and y, NaN if either is; a tie shares the gradient half and half.")
minimum = _of_tensors(MINIMUM, "The smaller of x and y, NaN if either is; a tie shares the gradient half and half.")
equal = _binary(EQUAL, "x == y.")
not_equal = _binary(NOT_EQUAL, "x != y.")
less = _binary(LESS, "x < y.")
less_equal = _binary(LESS_EQUAL, "x <= y.")
greater = _binary(GREATER, "x > y.")
greater_equal = _binary(GREATER_EQUAL, "x >= y.")
isnan = _float_unary(ISNAN, "Where x is NaN.")
isinf = _float_unary(ISINF, "Where x is infinite.")
isfinite = _float_unary(ISFINITE, "Where x is neither NaN nor infinite.")
bitwise_and = _binary(BITWISE_AND, "x & y on integers or bools.")
bitwise_or = _binary(BITWISE_OR, "x | y on integers or bools.")
bitwise_xor = _binary(BITWISE_XOR, "x ^ y on integers or bools.")
bitwise_not = _any_unary(BITWISE_NOT, "~x on integers or bools.")
bitwise_left_shift = _binary(SHIFT_LEFT, "x << y on integers.")
bitwise_right_shift = _binary(SHIFT_RIGHT, "x >> y on integers.")
floor_divide: Binary = _binary(FLOOR_DIVIDE, "floor(x / y), the sign rule of Python; 0 for an integer divided by 0.")
remainder = _binary(REMAINDER, "x - y * floor(x / y), the sign of y as in Python.")


def _rounding(op: Op, doc: str) -> Callable[[TensorLike], Tensor]:
    def function(x: TensorLike) -> Tensor:
        t = as_tensor(x)
        return apply(op, t) if is_float(t.dtype) else t
    return _document(function, op, doc)


floor = _rounding(FLOOR, "The largest integer not above x.")
ceil = _rounding(CEIL, "The smallest integer not below x.")
round = _rounding(ROUND, "The nearest integer, halves to even.")
trunc = _rounding(TRUNC, "x without its fraction.")


def astype(x: TensorLike, dtype: Any) -> Tensor:
    """x with another element type; the same tensor when it has it already."""
    t = as_tensor(x)
    if dtype is t.dtype and state.trace is None:
        return t
    kind = check_dtype(dtype)
    found = t._type
    return t if found.dtype == kind and not found.weak else apply(CAST, t, dtype=kind)


def where(cond: TensorLike, x: TensorLike, y: TensorLike) -> Tensor:
    """x where the condition holds, y elsewhere, all broadcast together.

    The branch not taken gets a gradient of exactly 0, so a NaN in it does no harm unless its own operation
    turns that 0 into NaN (0 * inf): guard the operand, as in ``where(x > 0, log(where(x > 0, x, 1)), 0)``.
    """
    found = agreeing(x, y)
    return apply(WHERE, astype(cond, BOOL), *(_strong(promoted(x, y)) if found is None else found))


def clip(x: TensorLike, min: TensorLike | None = None, max: TensorLike | None = None) -> Tensor:
    """x held between min and max (either may be None); the gradient passes at the bounds."""
    t = as_tensor(x)
    if min is not None:
        t = where(less(t, min), min, t)
    if max is not None:
        t = where(greater(t, max), max, t)
    return t


def masked_fill(x: TensorLike, mask: TensorLike, value: TensorLike) -> Tensor:
    """x with ``value`` where the mask holds."""
    return where(mask, as_tensor(value, as_tensor(x).dtype), x)


def logical_not(x: TensorLike) -> Tensor:
    """Where x is false (zero)."""
    return bitwise_not(astype(x, BOOL))


def logical_and(x: TensorLike, y: TensorLike) -> Tensor:
    """Where both are true (not zero)."""
    return bitwise_and(astype(x, BOOL), astype(y, BOOL))


def logical_or(x: TensorLike, y: TensorLike) -> Tensor:
    """Where either is true (not zero)."""
    return bitwise_or(astype(x, BOOL), astype(y, BOOL))


def logical_xor(x: TensorLike, y: TensorLike) -> Tensor:
    """Where exactly one is true (not zero)."""
    return bitwise_xor(astype(x, BOOL), astype(y, BOOL))


def _reflected(function: Callable[[TensorLike, TensorLike], Tensor]) -> Callable[[Tensor, TensorLike], Tensor]:
    return lambda self, other: function(other, self)


attach(
    __add__=add, __radd__=_reflected(add), __sub__=subtract, __rsub__=_reflected(subtract),
    __mul__=multiply, __rmul__=_reflected(multiply), __truediv__=divide, __rtruediv__=_reflected(divide),
    __floordiv__=floor_divide, __rfloordiv__=_reflected(floor_divide),
    __mod__=remainder, __rmod__=_reflected(remainder), __pow__=pow, __rpow__=_reflected(pow),
    __and__=bitwise_and, __rand__=_reflected(bitwise_and), __or__=bitwise_or, __ror__=_reflected(bitwise_or),
    __xor__=bitwise_xor, __rxor__=_reflected(bitwise_xor),
    __lshift__=bitwise_left_shift, __rshift__=bitwise_right_shift,
    __eq__=equal, __ne__=not_equal, __lt__=less, __le__=less_equal, __gt__=greater, __ge__=greater_equal,
    __neg__=negative, __pos__=as_tensor, __abs__=abs, __invert__=bitwise_not,
    abs=abs, sign=sign, square=square, sqrt=sqrt, rsqrt=rsqrt, reciprocal=reciprocal, exp=exp, expm1=expm1,
    log=log, log1p=log1p, log2=log2, sin=sin, cos=cos, tan=tan, tanh=tanh, sigmoid=sigmoid, relu=relu, erf=erf,
    floor=floor, ceil=ceil, round=round, trunc=trunc, pow=pow, maximum=maximum, minimum=minimum, clip=clip,
    isnan=isnan, isinf=isinf, isfinite=isfinite, logical_not=logical_not, logical_and=logical_and,
    logical_or=logical_or, astype=astype, masked_fill=masked_fill)

__all__ = [
    "abs", "acos", "add", "asin", "astype", "atan", "atan2", "bitwise_and", "bitwise_left_shift", "bitwise_not",
    "bitwise_or", "bitwise_right_shift", "bitwise_xor", "ceil", "clip", "cos", "cosh", "divide", "equal", "erf",
    "erfinv", "exp", "expm1", "floor", "floor_divide", "greater", "greater_equal", "isfinite", "isinf", "isnan",
    "less", "less_equal", "log", "log1p", "log2", "logical_and", "logical_not", "logical_or", "logical_xor",
    "masked_fill", "maximum", "minimum", "multiply", "negative", "not_equal", "pow", "reciprocal", "relu",
    "remainder", "round", "rsqrt", "sigmoid", "sign", "sin", "sinh", "softplus", "sqrt", "square", "subtract",
    "tan", "tanh", "trunc", "where",
]
