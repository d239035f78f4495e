"""Slow paths for operands that hardly ever occur, which leave the loop around them vectorised.

A branch in a formula would stop the loop vectoriser, and so would a call, were it not that LLVM widens a call
to a function that names vector forms of itself in the attribute `vector-function-abi-variant` (LLVM language
reference, "Vector Function ABI variants").  `rarely` emits such a function once in each module: its vector
forms test all lanes at once, and only if one is rare do they compute lane by lane.  The cost is one call for
each vector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from graphjit.kernels.irmath import V, declared, fabs, llvm_type, suffix

LANES = (2, 4, 8, 16)
# pure, so that the optimiser may treat the call as arithmetic; kept whole until the vectoriser has seen it
PURE = ("noinline", "nounwind", "willreturn", "speculatable", "memory(none)")


def rarely(name: str, bound: float, slow: Callable[..., V], usual: V, measure: V, *operands: V) -> V:
    """`usual` where |measure| < bound or is NaN, else slow(measure, *operands); all of one float type.

    `slow` must be a fixed function of its operands: the name stands for it in the whole module.
    """
    b = usual.builder
    function = _function(b.module, name, bound, slow, usual.type, 2 + len(operands))
    return V(b, b.call(function, [usual.ir, measure.ir, *(v.ir for v in operands)]), usual.type)


def _function(module: Any, name: str, bound: float, slow: Callable[..., V], t: Any, arity: int) -> Any:
    name = f"graphjit.{name}.{suffix(t)}"
    if name in module.globals:
        return module.globals[name]
    scalar = _declare(module, name, llvm_type(t), arity)
    # `_LLVM_`: the form is used on whatever instruction set; N: not masked; v: a vector in each operand's
    # place
    mapping = ",".join(f"_ZGV_LLVM_N{n}{'v' * arity}_{name}({name}.x{n})" for n in LANES)
    _attribute(scalar, f'"vector-function-abi-variant"="{mapping}"')

    b = ir.IRBuilder(scalar.append_basic_block())
    usual, measure, *operands = (V(b, a, t) for a in scalar.args)
    rare = fabs(measure).ge(bound)
    with b.if_then(rare.ir, likely=False):
        b.ret(slow(measure, *operands).ir)
    b.ret(usual.ir)

    for n in LANES:
        _define_lanes(module, f"{name}.x{n}", scalar, bound, n)
    return scalar


def _define_lanes(module: Any, name: str, scalar: Any, bound: float, n: int) -> None:
    element = scalar.args[0].type
    vector = ir.VectorType(element, n)
    form = f"llvm.fabs.v{n}{'f32' if element == ir.FloatType() else 'f64'}"
    function = _declare(module, name, vector, len(scalar.args))
    b = ir.IRBuilder(function.append_basic_block())
    usual, measure = function.args[:2]
    absolute = declared(module, form, vector, [vector])
    rare = b.fcmp_ordered(">=", b.call(absolute, [measure]), ir.Constant(vector, [bound] * n))
    lanes = ir.IntType(n)
    with b.if_then(b.icmp_unsigned("!=", b.bitcast(rare, lanes), lanes(0)), likely=False):
        out = usual
        for i in range(n):
            lane = ir.IntType(32)(i)
            value = b.call(scalar, [b.extract_element(a, lane) for a in function.args])
            out = b.insert_element(out, value, lane)
        b.ret(out)
    b.ret(usual)


def _declare(module: Any, name: str, t: Any, arity: int) -> Any:
    function = ir.Function(module, ir.FunctionType(t, [t] * arity), name)
    # not discardable: until the vectoriser runs, only the attribute refers to the vector forms
    function.linkage = "weak_odr"
    for attribute in PURE:
        _attribute(function, attribute)
    return function


def _attribute(function: Any, text: str) -> None:
    """llvmlite checks names of attributes against a list that lacks ours; it prints what the set holds."""
    set.add(function.attributes, text)
