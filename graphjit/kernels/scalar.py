"""TABLE: every scalar function a generated kernel may call, by name.

A row holds its formula over `irmath.V`, which emits it as IR where it is called, the same function of NumPy scalars,
and the types it takes.  PYTHON_NAMESPACE is made from it, with which a kernel's source runs without the JIT.
Operands of one call share one type, and the result has that type too unless the row says otherwise; mixing types
is an error, so no kernel widens to int64 or float64 unseen.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphjit.kernels import reference, vmath
from graphjit.kernels.irmath import (
    B1,
    F32,
    F64,
    FLOATS,
    I8,
    I16,
    I32,
    I64,
    INTS,
    NUMBERS,
    REASSOC,
    SCALARS,
    TYPES,
    U8,
    U16,
    U32,
    U64,
    Type,
    V,
    call,
    copysign,
    fabs,
    fma,
    int_of,
    is_float,
    is_signed,
    select,
    sqrt,
)
from graphjit.kernels.row_tiles import from_lanes, to_lanes
from graphjit.kernels.threefry import threefry2x32, threefry2x32_numpy
from graphjit.kernels.vmath_divide import floor_divide, remainder
from graphjit.kernels.vmath_exp import exp_in_sum, exp_or_zero

TABLE: dict[str, Row] = {}
BITS = (*INTS, B1)


def first_type(*args: Type) -> Type:
    return args[0]


def boolean(*_: Type) -> Type:
    return B1


@dataclass(frozen=True)
class Row:
    """A kernel function.

    Attributes:
        formula: operands and result as `irmath.V`.
        twin: the same of NumPy scalars.
        arity: how many operands; those from position `alike` on share one type, one of `accepts`, and those before
            are booleans.
        result: operand types -> result type.
    """

    formula: Callable[..., V]
    twin: Callable[..., Any]
    arity: int = 1
    accepts: Sequence[Type] = SCALARS
    result: Callable[..., Type] = first_type
    alike: int = 0

    def apply(self, name: str, operands: Sequence[V]) -> V:
        """The formula of operands, where their types are right."""
        types = [x.type for x in operands]
        same = types[self.alike:]
        if (len(types) != self.arity or same[0] not in self.accepts or any(t is not same[0] for t in same)
                or any(t is not B1 for t in types[:self.alike])):
            raise TypeError(f"kernel function {name}: no rule for {', '.join(map(str, types))}")
        out = self.formula(*operands)
        if out.type is not self.result(*types):
            raise TypeError(f"kernel function {name}: formula gives {out.type}, not {self.result(*types)}")
        return out

    def quiet_twin(self, *args: Any) -> Any:
        with np.errstate(all="ignore"):
            return self.twin(*args)


# ---------------------------------------------------------------------------------------- casts

CASTS: dict[str, Type] = {
    "b1": B1, "f32": F32, "f64": F64, "i8": I8, "i16": I16, "i32": I32, "i64": I64,
    "u8": U8, "u16": U16, "u32": U32, "u64": U64,
}  # fmt: skip


def _cast(to: Type) -> Row:
    dtype = np.dtype(to.name)
    return Row(lambda x: x.to(to), lambda x: np.asarray(x).astype(dtype)[()], result=lambda _: to)


TABLE.update((name, _cast(to)) for name, to in CASTS.items())


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
    return n.cast_bits(TYPES[f"uint{n.type.bits}"]).lt(n.type.bits)


def shl(x: V, n: V) -> V:
    """x << n; 0 for n outside [0, bits)."""
    ok = _in_width(n)
    return select(ok, x << select(ok, n, 0), 0)


def shr(x: V, n: V) -> V:
    """x >> n; for n outside [0, bits) 0, or -1 of a negative x."""
    ok = _in_width(n)
    if is_signed(x.type):
        return x >> select(ok, n, x.type.bits - 1)
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
    return acc.arithmetic(x, "fadd", "add", REASSOC)


def rmul(acc: V, x: V) -> V:
    return acc.arithmetic(x, "fmul", "mul", REASSOC)


def rmax(acc: V, x: V) -> V:
    """NaN if either is: llvm.maximum is the one form that the loop vectoriser reduces with NaN kept."""
    return call("llvm.maximum", acc, x) if is_float(acc.type) else maximum(acc, x)


def rmin(acc: V, x: V) -> V:
    return call("llvm.minimum", acc, x) if is_float(acc.type) else minimum(acc, x)


def rank(x: V) -> V:
    """An integer in the order of floats, -0 below 0 and NaN on top: one instruction finds the larger of two, where
    `rmax` takes five, each waiting for the one before, at each halving of a vector."""
    bits = select(x.is_nan(), x.const(float("nan")).bits(), x.bits())
    return bits ^ (bits >> (x.type.bits - 1)).shift_right_logical(1)


def unrank(n: V) -> V:
    """The float of a `rank`."""
    return (n ^ (n >> (n.type.bits - 1)).shift_right_logical(1)).cast_bits(float_of(n.type))


def float_of(t: Type) -> Type:
    """The float type as wide as a signed integer type."""
    return F32 if t is I32 else F64


def _rank(x: Any) -> Any:
    return _flipped(np.where(np.isnan(x), x.dtype.type(np.nan), x).view(f"i{x.dtype.itemsize}"))[()]


def _flipped(n: Any) -> Any:
    return n ^ ((n >> (8 * n.dtype.itemsize - 1)) & np.iinfo(n.dtype).max)


# ---------------------------------------------------------------------------------------- the table


def _unless_integer(ufunc: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: ufunc(x) if np.asarray(x).dtype.kind == "f" else x


TABLE.update({
    "add": Row(add, np.add, 2),
    "sub": Row(operator.sub, np.subtract, 2, NUMBERS),
    "mul": Row(mul, np.multiply, 2),
    "div": Row(operator.truediv, np.divide, 2, FLOATS),
    "neg": Row(operator.neg, np.negative, 1, NUMBERS),
    "abs_": Row(abs_, np.abs),
    "sign": Row(sign, np.sign, 1, NUMBERS),
    "square": Row(lambda x: x.arithmetic(x, "fmul", "mul", ()), np.square, 1, NUMBERS),  # contracted with nothing
    "minimum": Row(minimum, np.minimum, 2),
    "maximum": Row(maximum, np.maximum, 2),
    "floor_divide": Row(floor_divide, np.floor_divide, 2, NUMBERS),
    "remainder": Row(remainder, np.remainder, 2, NUMBERS),
    "pow_": Row(pow_, np.power, 2, NUMBERS),
    "bit_and": Row(operator.and_, np.bitwise_and, 2, BITS),
    "bit_or": Row(operator.or_, np.bitwise_or, 2, BITS),
    "bit_xor": Row(operator.xor, np.bitwise_xor, 2, BITS),
    "bit_not": Row(operator.invert, np.bitwise_not, 1, BITS),
    "shl": Row(shl, np.left_shift, 2, INTS),
    "shr": Row(shr, np.right_shift, 2, INTS),
    "reciprocal": Row(lambda x: 1.0 / x, np.reciprocal, 1, FLOATS),
    "sqrt": Row(sqrt, np.sqrt, 1, FLOATS),
    "rsqrt": Row(lambda x: 1.0 / sqrt(x), lambda x: np.reciprocal(np.sqrt(x)), 1, FLOATS),
    "floor": Row(_rounding("llvm.floor"), _unless_integer(np.floor)),
    "ceil": Row(_rounding("llvm.ceil"), _unless_integer(np.ceil)),
    "rint": Row(_rounding("llvm.rint"), _unless_integer(np.rint)),
    "trunc_": Row(_rounding("llvm.trunc"), _unless_integer(np.trunc)),
    "isnan": Row(isnan, np.isnan, result=boolean),
    "isinf": Row(isinf, np.isinf, result=boolean),
    "isfinite": Row(isfinite, np.isfinite, result=boolean),
    "signbit": Row(lambda x: x.bits().lt(0), np.signbit, 1, FLOATS, boolean),
    "copysign": Row(copysign, np.copysign, 2, FLOATS),
    "fma": Row(fma, lambda a, b, c: a * b + c, 3, FLOATS),  # the twin rounds twice
    "where": Row(where, lambda c, x, y: x if c else y, 3, SCALARS, lambda c, x, y: x, alike=1),
    "eq": Row(V.eq, np.equal, 2, result=boolean),
    "ne": Row(V.ne, np.not_equal, 2, result=boolean),
    "lt": Row(V.lt, np.less, 2, result=boolean),
    "le": Row(V.le, np.less_equal, 2, result=boolean),
    "gt": Row(V.gt, np.greater, 2, result=boolean),
    "ge": Row(V.ge, np.greater_equal, 2, result=boolean),
    "radd": Row(radd, np.add, 2, NUMBERS),
    "rmul": Row(rmul, np.multiply, 2, NUMBERS),
    "rmax": Row(rmax, np.maximum, 2),
    "rmin": Row(rmin, np.minimum, 2),
    "rank": Row(rank, _rank, 1, FLOATS, int_of),
    "unrank": Row(unrank, lambda n: _flipped(np.asarray(n)).view(f"f{n.dtype.itemsize}")[()], 1,
                  (I32, I64), float_of),
    "threefry": Row(threefry2x32, threefry2x32_numpy, 4, (U32,)),
    "exp": Row(vmath.exp, np.exp, 1, FLOATS),
    "exp_or_zero": Row(exp_or_zero, np.exp, 1, FLOATS),
    "exp_in_sum": Row(exp_in_sum, np.exp, 1, FLOATS),
    "exp2": Row(vmath.exp2, np.exp2, 1, FLOATS),
    "expm1": Row(vmath.expm1, np.expm1, 1, FLOATS),
    "log": Row(vmath.log, np.log, 1, FLOATS),
    "log1p": Row(vmath.log1p, np.log1p, 1, FLOATS),
    "log2": Row(vmath.log2, np.log2, 1, FLOATS),
    "log10": Row(vmath.log10, np.log10, 1, FLOATS),
    "sigmoid": Row(vmath.sigmoid, reference.sigmoid, 1, FLOATS),
    "softplus": Row(vmath.softplus, reference.softplus, 1, FLOATS),
    "sin": Row(vmath.sin, np.sin, 1, FLOATS),
    "cos": Row(vmath.cos, np.cos, 1, FLOATS),
    "tan": Row(vmath.tan, np.tan, 1, FLOATS),
    "asin": Row(vmath.asin, np.arcsin, 1, FLOATS),
    "acos": Row(vmath.acos, np.arccos, 1, FLOATS),
    "atan": Row(vmath.atan, np.arctan, 1, FLOATS),
    "atan2": Row(vmath.atan2, np.arctan2, 2, FLOATS),
    "sinh": Row(vmath.sinh, np.sinh, 1, FLOATS),
    "cosh": Row(vmath.cosh, np.cosh, 1, FLOATS),
    "tanh": Row(vmath.tanh, np.tanh, 1, FLOATS),
    "asinh": Row(vmath.asinh, np.arcsinh, 1, FLOATS),
    "acosh": Row(vmath.acosh, np.arccosh, 1, FLOATS),
    "atanh": Row(vmath.atanh, np.arctanh, 1, FLOATS),
    "erf": Row(vmath.erf, reference.erf, 1, FLOATS),
    "erfc": Row(vmath.erfc, reference.erfc, 1, FLOATS),
    "erfinv": Row(vmath.erfinv, reference.erfinv, 1, FLOATS),
    "lgamma": Row(vmath.lgamma, reference.lgamma, 1, FLOATS),
    "digamma": Row(vmath.digamma, reference.digamma, 1, FLOATS),
})

PYTHON_NAMESPACE: dict[str, object] = {
    "range": range, "lanes": range, "few": range, "apart": range, "to_lanes": to_lanes, "from_lanes": from_lanes,
    **{name: row.quiet_twin for name, row in TABLE.items()}}
