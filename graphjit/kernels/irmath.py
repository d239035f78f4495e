"""An expression builder for scalar LLVM IR.

A formula is a plain Python function over `V` values.  Running it emits straight-line scalar instructions at
the builder's place: nothing is type-inferred, nothing is compiled on its own, all is inlined by construction,
and the loop vectoriser widens what it finds.  Two rules keep it so: no branches (both sides are computed,
`select` picks one), and no calls but those to LLVM intrinsics that have a vector form.

Every floating instruction carries exactly the `contract` flag, which rounding tricks and error-free transforms
stand.  (LLVM contracts a product only into its single user; the products of an error-free transform have two.)
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llvmlite import ir

CONTRACT = ("contract",)
REASSOC = ("reassoc", "contract")


@dataclass(frozen=True, slots=True, eq=False)
class Type:
    """A scalar type; there is one of each name. A boolean value is one bit."""

    name: str
    kind: str  # one of "fiub"
    bits: int
    llvm: Any = field(repr=False)

    def __str__(self) -> str:
        return self.name


F32, F64 = FLOATS = Type("float32", "f", 32, ir.FloatType()), Type("float64", "f", 64, ir.DoubleType())
I8, I16, I32, I64 = SIGNED = tuple(Type(f"int{n}", "i", n, ir.IntType(n)) for n in (8, 16, 32, 64))
U8, U16, U32, U64 = UNSIGNED = tuple(Type(f"uint{n}", "u", n, ir.IntType(n)) for n in (8, 16, 32, 64))
B1 = Type("bool", "b", 1, ir.IntType(1))
INTS = SIGNED + UNSIGNED
NUMBERS = FLOATS + INTS
SCALARS = (*NUMBERS, B1)
WIDENED = (*SIGNED, U8, U16, U32)  # what int64 holds all numbers of
TYPES = {each.name: each for each in SCALARS}

Number = bool | int | float


def is_float(t: Type) -> bool:
    return t.kind == "f"


def is_signed(t: Type) -> bool:
    return t.kind == "i"


def int_of(t: Type) -> Type:
    """The signed integer type as wide as the float type t."""
    return I32 if t is F32 else I64


class V:
    """A scalar value of type `type` in the block `builder` writes to.

    Python numbers on the other side of an operator become constants of this value's type, rounded once.
    """

    __slots__ = ("builder", "ir", "type")

    def __init__(self, builder: Any, value: Any, type: Type) -> None:
        self.builder = builder
        self.ir = value
        self.type = type

    # constants and conversions ------------------------------------------------------------------

    def const(self, value: Number, type: Type | None = None) -> V:
        """A constant of the given type, by default of this value's."""
        type = self.type if type is None else type
        if type == F32:  # llvmlite refuses doubles that are no floats
            value = round_to_f32(value)
        elif is_float(type):
            value = float(value)
        elif type != B1:  # wrapped into the signed range, as LLVM prints them
            half = 1 << (type.bits - 1)
            value = (int(value) + half) % (2 * half) - half
        return V(self.builder, ir.Constant(type.llvm, value), type)

    def _lift(self, other: V | Number) -> V:
        if not isinstance(other, V):
            return self.const(other)
        if other.type != self.type:
            raise TypeError(f"operands of types {self.type} and {other.type}")
        return other

    def to(self, type: Type) -> V:
        """Convert as NumPy's `astype` does, without undefined results.

        Where NumPy leaves float -> integer to the platform, in-range values wrap through the next wider
        signed integer (as x86 does: -1.0 becomes uint8 255) and the rest saturates; NaN becomes 0.
        """
        b, old, lt = self.builder, self.type, type.llvm
        if old == type:
            return self
        if type == B1:
            return self.ne(0)
        if is_float(old):
            if is_float(type):
                return V(b, (b.fpext if type == F64 else b.fptrunc)(self.ir, lt), type)
            if type == U64:
                below = self._saturate(I64).cast_bits(type)
                return select(self.lt(2.0**63), below, self._saturate(type))
            wide = I64 if type.bits == 64 or type == U32 else I32
            return self._saturate(wide).to(type)
        if is_float(type):
            return V(b, (b.sitofp if is_signed(old) else b.uitofp)(self.ir, lt), type)
        if type.bits < old.bits:
            return V(b, b.trunc(self.ir, lt), type)
        if type.bits == old.bits:
            return V(b, self.ir, type)
        return V(b, (b.sext if is_signed(old) else b.zext)(self.ir, lt), type)

    def _saturate(self, type: Type) -> V:
        name = "llvm.fptosi.sat" if is_signed(type) else "llvm.fptoui.sat"
        form = f".i{type.bits}.{suffix(self.type)}"
        return V(self.builder, _call(self.builder, name + form, type.llvm, [self.ir]), type)

    def cast_bits(self, type: Type) -> V:
        """The same bits seen as another type of equal width."""
        lt = type.llvm
        same = self.ir.type == lt
        return V(self.builder, self.ir if same else self.builder.bitcast(self.ir, lt), type)

    def bits(self) -> V:
        """The bits of a float as a signed integer."""
        return self.cast_bits(int_of(self.type))

    # arithmetic ---------------------------------------------------------------------------------

    def arithmetic(self, other: V | Number, fop: str, iop: str, flags: tuple[str, ...] = CONTRACT) -> V:
        o = self._lift(other)
        if is_float(self.type):
            return V(self.builder, getattr(self.builder, fop)(self.ir, o.ir, flags=flags), self.type)
        return V(self.builder, getattr(self.builder, iop)(self.ir, o.ir), self.type)

    def __add__(self, other: V | Number) -> V:
        return self.arithmetic(other, "fadd", "add")

    def __sub__(self, other: V | Number) -> V:
        return self.arithmetic(other, "fsub", "sub")

    def __mul__(self, other: V | Number) -> V:
        return self.arithmetic(other, "fmul", "mul")

    def __truediv__(self, other: V | Number) -> V:
        o = self._lift(other)
        return V(self.builder, self.builder.fdiv(self.ir, o.ir, flags=CONTRACT), self.type)

    def __radd__(self, other: Number) -> V:
        return self.const(other) + self

    def __rsub__(self, other: Number) -> V:
        return self.const(other) - self

    def __rmul__(self, other: Number) -> V:
        return self.const(other) * self

    def __rtruediv__(self, other: Number) -> V:
        return self.const(other) / self

    def __neg__(self) -> V:
        b = self.builder
        return V(b, b.fneg(self.ir) if is_float(self.type) else b.neg(self.ir), self.type)

    def quotient(self, other: V | Number) -> V:
        """Integer quotient towards zero; dividing by zero or int_min by -1 is undefined."""
        o = self._lift(other)
        b = self.builder
        return V(b, (b.sdiv if is_signed(self.type) else b.udiv)(self.ir, o.ir), self.type)

    # bits ---------------------------------------------------------------------------------------

    def __and__(self, other: V | Number) -> V:
        return V(self.builder, self.builder.and_(self.ir, self._lift(other).ir), self.type)

    def __or__(self, other: V | Number) -> V:
        return V(self.builder, self.builder.or_(self.ir, self._lift(other).ir), self.type)

    def __xor__(self, other: V | Number) -> V:
        return V(self.builder, self.builder.xor(self.ir, self._lift(other).ir), self.type)

    def __invert__(self) -> V:
        return V(self.builder, self.builder.not_(self.ir), self.type)

    def __lshift__(self, other: V | Number) -> V:
        return V(self.builder, self.builder.shl(self.ir, self._lift(other).ir), self.type)

    def __rshift__(self, other: V | Number) -> V:
        """Arithmetic for signed integers, logical for unsigned."""
        b = self.builder
        return V(b, (b.ashr if is_signed(self.type) else b.lshr)(self.ir, self._lift(other).ir), self.type)

    def shift_right_logical(self, n: int) -> V:
        return V(self.builder, self.builder.lshr(self.ir, self.const(n).ir), self.type)

    # comparisons: false when an operand is NaN, but for `ne`, which is then true ---------------

    def _compare(self, other: V | Number, op: str) -> V:
        b, o = self.builder, self._lift(other)
        if is_float(self.type):
            compare = b.fcmp_unordered if op == "!=" else b.fcmp_ordered
            return V(b, compare(op, self.ir, o.ir, flags=CONTRACT), B1)
        return V(b, (b.icmp_signed if is_signed(self.type) else b.icmp_unsigned)(op, self.ir, o.ir), B1)

    def eq(self, other: V | Number) -> V:
        return self._compare(other, "==")

    def ne(self, other: V | Number) -> V:
        return self._compare(other, "!=")

    def lt(self, other: V | Number) -> V:
        return self._compare(other, "<")

    def le(self, other: V | Number) -> V:
        return self._compare(other, "<=")

    def gt(self, other: V | Number) -> V:
        return self._compare(other, ">")

    def ge(self, other: V | Number) -> V:
        return self._compare(other, ">=")

    def is_nan(self) -> V:
        b = self.builder
        return V(b, b.fcmp_unordered("uno", self.ir, self.ir, flags=CONTRACT), B1)


def suffix(t: Type) -> str:
    return f"f{t.bits}" if is_float(t) else f"i{t.bits}"


def declared(module: Any, name: str, result: Any, operands: Sequence[Any]) -> Any:
    """The declaration of a function by LLVM types, made when it is first asked for."""
    known = module.globals.get(name)
    return known or ir.Function(module, ir.FunctionType(result, operands), name)


def _call(builder: Any, name: str, result: Any, args: Sequence[Any]) -> Any:
    return builder.call(declared(builder.module, name, result, [a.type for a in args]), args)


def call(name: str, x: V, *more: V | Number) -> V:
    """An LLVM intrinsic whose operands and result share one type: `call("llvm.sqrt", x)`."""
    args = [x, *(x._lift(m) for m in more)]
    name = f"{name}.{suffix(x.type)}"
    return V(x.builder, _call(x.builder, name, x.type.llvm, [a.ir for a in args]), x.type)


def select(cond: V, a: V | Number, b: V | Number) -> V:
    """a where cond, else b; at least one of them a V.  Both are computed."""
    if isinstance(a, V):
        b = a._lift(b)
    elif isinstance(b, V):
        a = b._lift(a)
    else:
        raise TypeError("select needs a V")
    return V(cond.builder, cond.builder.select(cond.ir, a.ir, b.ir), a.type)


def fma(a: V, b: V | Number, c: V | Number) -> V:
    """a * b + c, rounded once."""
    return call("llvm.fma", a, b, c)


def fabs(x: V) -> V:
    return call("llvm.fabs", x)


def sqrt(x: V) -> V:
    return call("llvm.sqrt", x)


def copysign(magnitude: V | Number, sign: V) -> V:
    return call("llvm.copysign", sign._lift(magnitude), sign)


def round_to_f32(value: float) -> float:
    if math.isinf(value) or math.isnan(value):
        return float(value)
    return float(struct.unpack("f", struct.pack("f", value))[0])
