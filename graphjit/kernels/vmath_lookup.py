"""Small tables of constants in formulas, which vectors look up in registers.

A load with an index for each lane is a gather, which takes longer than the arithmetic a table saves.  AVX-512 looks
up one register or two by an index for each lane in one instruction, which LLVM makes of its own intrinsics only:
they stand in vector forms of a function (see `vmath_rare.py`).  Elsewhere (`target().permutes`) formulas do without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from graphjit.kernels.irmath import V, declared, llvm_type, suffix, width
from graphjit.kernels.vmath_parts import float_of
from graphjit.kernels.vmath_rare import vector_function

I32 = ir.IntType(32)
REGISTER = 512
INTRINSICS = {  # by the width of an element and the number of registers
    (32, 1): "llvm.x86.avx512.permvar.sf.512",
    (32, 2): "llvm.x86.avx512.vpermi2var.ps.512",
    (64, 1): "llvm.x86.avx512.permvar.df.512",
    (64, 2): "llvm.x86.avx512.vpermi2var.pd.512",
}


def lookup(name: str, index: V, values: Sequence[float]) -> V:
    """values[index modulo their number], a float as wide as the index; their number is a power of two.

    The name stands for the values in the whole module.
    """
    t = float_of(index).type
    values = [index.const(value, t).ir.constant for value in values]
    name = f"graphjit.table.{name}.{suffix(t)}"
    module = index.builder.module
    function = module.globals.get(name) or _define(module, name, values, t, index.ir.type)
    return V(index.builder, index.builder.call(function, [index.ir]), t)


def _load(b: Any, name: str, index: Any, values: Sequence[float], t: Any) -> Any:
    array = ir.Constant(ir.ArrayType(llvm_type(t), len(values)), list(values))
    table = b.module.globals.get(f"{name}.values")
    if table is None:
        table = ir.GlobalVariable(b.module, array.type, f"{name}.values")
        table.initializer, table.global_constant, table.linkage = array, True, "internal"
    place = b.and_(index, ir.Constant(index.type, len(values) - 1))
    return b.load(b.gep(table, [I32(0), place], inbounds=True))


def _define(module: Any, name: str, values: Sequence[float], t: Any, index: Any) -> Any:
    scalar, forms = vector_function(module, name, llvm_type(t), [index])
    b = ir.IRBuilder(scalar.append_basic_block())
    b.ret(_load(b, name, scalar.args[0], values, t))
    for lanes, form in forms.items():
        b = ir.IRBuilder(form.append_basic_block())
        b.ret(_permuted(b, form.args[0], lanes, values, t))
    return scalar


def _permuted(b: Any, index: Any, lanes: int, values: Sequence[float], t: Any) -> Any:
    """The lookup of so many lanes: a permutation for each register of them."""
    full = REGISTER // width(t)
    vector = ir.VectorType(llvm_type(t), full)
    tables = [ir.Constant(vector, list(values[i : i + full])) for i in range(0, len(values), full)]
    operands = [vector, index.type.__class__(index.type.element, full), *[vector] * (len(tables) - 1)]
    permute = declared(b.module, INTRINSICS[width(t), len(tables)], vector, operands)
    parts = []
    for first in range(0, lanes, full):
        places = [min(i, lanes) for i in range(first, first + full)]
        undefined = ir.Constant(index.type, ir.Undefined)
        part = b.shuffle_vector(index, undefined, ir.Constant(ir.VectorType(I32, full), places))
        parts.append(b.call(permute, [tables[0], part, *tables[1:]]))
    while len(parts) > 1:
        both = ir.Constant(ir.VectorType(I32, 2 * parts[0].type.count), list(range(2 * parts[0].type.count)))
        parts = [b.shuffle_vector(x, y, both) for x, y in zip(parts[::2], parts[1::2], strict=True)]
    return b.shuffle_vector(parts[0], parts[0], ir.Constant(ir.VectorType(I32, lanes), list(range(lanes))))
