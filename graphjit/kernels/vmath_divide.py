"""Floor division and remainder with the sign rules of Python and NumPy, for integers and floats."""

from __future__ import annotations

from llvmlite import ir

from graphjit.kernels.irmath import F32, F64, I32, U32, V, call, copysign, fma, is_float, is_signed, select
from graphjit.kernels.vmath_rare import rarely


def _quotient(x: V, y: V) -> V:
    """Integer x / y towards zero for any y but 0; int_min / -1 wraps to int_min.

    No x86 has a vector integer division.  Up to 32 bits the correctly rounded float64 quotient (float32 up to
    16 bits) truncates to the exact one: it cannot round up to an integer, being at least 1/|y| below it.
    """
    b, bits = x.builder, x.type.bits
    if isinstance(y.ir, ir.Constant):  # by multiplication
        return -x if is_signed(x.type) and y.ir.constant == -1 else x.quotient(y)
    if bits == 64:
        if not is_signed(x.type):
            return x.quotient(y)
        flip = y.eq(-1)
        return select(flip, -x, x.quotient(select(flip, 1, y)))
    wide = F64 if bits == 32 else F32
    q = x.to(wide) / y.to(wide)
    if x.type == U32:
        return V(b, b.fptoui(q.ir, x.type.llvm), x.type)
    q = select(q.eq(2.0**31), -(2.0**31), q)
    return V(b, b.fptosi(q.ir, I32.llvm), I32).to(x.type)


def _divide_floor(x: V, y: V) -> tuple[V, V]:
    """Python's // and % of integers; both 0 where y is 0, as in NumPy."""
    if isinstance(y.ir, ir.Constant) and y.ir.constant != 0:
        return _floored(x, y)
    zero = y.eq(0)
    q, r = _floored(x, select(zero, 1, y))
    return select(zero, 0, q), select(zero, 0, r)


def _floored(x: V, y: V) -> tuple[V, V]:
    q = _quotient(x, y)
    r = x - q * y
    if is_signed(x.type):
        wrong = r.ne(0) & (r ^ y).lt(0)
        q, r = q - wrong.to(x.type), r + select(wrong, y, 0)
    return q, r


# below it an integral quotient and its successor are exact
QUOTIENT_BOUND = {F32: 2.0**22, F64: 2.0**51}


def _fmod(x: V, y: V) -> V:
    """C's fmod, exactly: x - n y with n = x / y towards zero, which one fma computes without error."""
    q = x / y
    n = call("llvm.trunc", q)
    r = fma(-n, y, x)
    # the quotient may have been rounded up to an integer
    one_less = fma(copysign(1.0, q) - n, y, x)
    r = select(r.ne(0) & (r.bits() ^ x.bits()).lt(0), one_less, r)
    r = select(n.eq(0), x, r)  # also for infinite y
    return rarely("fmod", QUOTIENT_BOUND[x.type], _slow_fmod, r, q, x, y)


def _slow_fmod(_quotient: V, x: V, y: V) -> V:
    return V(x.builder, x.builder.frem(x.ir, y.ir), x.type)


def remainder(x: V, y: V) -> V:
    """np.remainder: the sign of y; for floats exact, NaN where y is 0, and a zero has the sign of y."""
    if not is_float(x.type):
        return _divide_floor(x, y)[1]
    r = _fmod(x, y)
    moved = select(r.lt(0) ^ y.lt(0), r + y, r)
    return select(r.eq(0), copysign(0.0, y), moved)


def floor_divide(x: V, y: V) -> V:
    """np.floor_divide: for floats the floor of the exact quotient, x / 0 where y is 0."""
    if not is_float(x.type):
        return _divide_floor(x, y)[0]
    r = _fmod(x, y)
    q = (x - r) / y
    q = select(r.ne(0) & (r.lt(0) ^ y.lt(0)), q - 1.0, q)
    down = call("llvm.floor", q)
    down = select((q - down).gt(0.5), down + 1.0, down)
    down = select(q.eq(0), copysign(0.0, x / y), down)
    return select(y.eq(0), x / y, down)
