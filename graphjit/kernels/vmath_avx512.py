"""What AVX-512 does in one instruction and LLVM makes of its own intrinsics only: lookups of constants, scaling.

A load with an index for each lane is a gather, which takes longer than the arithmetic a table saves; one register or
two are looked up in by an index for each lane at the cost of one addition.  Multiplying by a power of two is right
for results that overflow or are denormal, too.

The intrinsics stand in vector forms of functions (see `vmath_rare.py`).  Where `target().avx512` is false formulas do
without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llvmlite import ir

from graphjit.kernels.irmath import F32, V, declared, round_to_f32, suffix
from graphjit.kernels.vmath_parts import float_of
from graphjit.kernels.vmath_rare import vector_function

I32 = ir.IntType(32)
REGISTER = 512
PERMUTES = {  # by the width of an element and the number of registers
    (32, 1): "llvm.x86.avx512.permvar.sf.512",
    (32, 2): "llvm.x86.avx512.vpermi2var.ps.512",
    (64, 1): "llvm.x86.avx512.permvar.df.512",
    (64, 2): "llvm.x86.avx512.vpermi2var.pd.512",
}
SCALES = {32: "llvm.x86.avx512.mask.scalef.ps.512", 64: "llvm.x86.avx512.mask.scalef.pd.512"}
CURRENT_ROUNDING = I32(4)

Emit = Callable[..., Any]  # builder, registers -> register


def lookup(name: str, index: V, values: Sequence[float]) -> V:
    """values[index modulo their number], a float as wide as the index; their number fills one register or two.

    The name stands for the values in the whole module.
    """
    t = float_of(index).type
    return _call(f"table.{name}", t, lambda b, places: _permute(b, places, values, t), index)


def poly_by_table(name: str, index: V, x: V, coefficients: Sequence[Sequence[float]]) -> V:
    """Horner's rule with fused steps; each coefficient, from the highest power down, is looked up."""

    def horner(b: Any, places: Any, x: Any) -> Any:
        form = f"llvm.fma.v{x.type.count}{suffix(t)}"
        step = declared(b.module, form, x.type, [x.type] * 3)
        acc, *rest = (_permute(b, places, values, t) for values in coefficients)
        for c in rest:
            acc = b.call(step, [acc, x, c])
        return acc

    t = x.type
    return _call(f"poly.{name}", t, horner, index, x)


def _permute(b: Any, places: Any, values: Sequence[float], t: Any) -> Any:
    full = REGISTER // t.bits
    vector = ir.VectorType(t.llvm, full)
    rounded = [round_to_f32(value) if t == F32 else value for value in values]
    tables = [ir.Constant(vector, rounded[i : i + full]) for i in range(0, len(values), full)]
    operands = [tables[0], places, *tables[1:]]
    form = declared(b.module, PERMUTES[t.bits, len(tables)], vector, [operand.type for operand in operands])
    return b.call(form, operands)


def scale_by(x: V, n: V) -> V:
    """x 2^floor(n)."""
    bits = x.type.bits

    def scale(b: Any, x: Any, n: Any) -> Any:
        operands = [x, n, x, ir.IntType(REGISTER // bits)(-1), CURRENT_ROUNDING]
        form = declared(b.module, SCALES[bits], x.type, [operand.type for operand in operands])
        return b.call(form, operands)

    return _call("scale", x.type, scale, x, n)


def _call(name: str, t: Any, emit: Emit, *operands: V) -> V:
    """Call the function of that name, which `emit` defines for whole registers."""
    b = operands[0].builder
    name = f"graphjit.{name}.{suffix(t)}"
    function = b.module.globals.get(name)
    if function is None:
        function, forms = vector_function(b.module, name, t.llvm, [operand.ir.type for operand in operands])
        full = REGISTER // t.bits
        inner = ir.IRBuilder(function.append_basic_block())
        ones = [_widened(inner, x) for x in function.args]
        inner.ret(inner.extract_element(_by_registers(inner, emit, 1, full, ones), I32(0)))
        for lanes, form in forms.items():
            inner = ir.IRBuilder(form.append_basic_block())
            inner.ret(_by_registers(inner, emit, lanes, full, form.args))
    return V(b, b.call(function, [operand.ir for operand in operands]), t)


def _widened(b: Any, x: Any) -> Any:
    return b.insert_element(ir.Constant(ir.VectorType(x.type, 1), ir.Undefined), x, I32(0))


def _by_registers(b: Any, emit: Emit, lanes: int, full: int, operands: Sequence[Any]) -> Any:
    """What `emit` makes of so many lanes, register by register."""
    parts = []
    for first in range(0, lanes, full):
        places = _constant(min(i, lanes) for i in range(first, first + full))
        parts.append(emit(b, *(b.shuffle_vector(x, ir.Constant(x.type, ir.Undefined), places) for x in operands)))
    while len(parts) > 1:
        both = _constant(range(2 * parts[0].type.count))
        parts = [b.shuffle_vector(x, y, both) for x, y in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0] if lanes >= full else b.shuffle_vector(parts[0], parts[0], _constant(range(lanes)))


def _constant(places: Iterable[int]) -> Any:
    numbers = list(places)
    return ir.Constant(ir.VectorType(I32, len(numbers)), numbers)
