"""Slow paths for operands that hardly ever occur, which leave the loop around them vectorised.

A branch in a formula would stop the loop vectoriser, and so would a call, were it not that LLVM widens a call
to a function that names vector forms of itself in the attribute `vector-function-abi-variant` (LLVM language
reference, "Vector Function ABI variants").  `rarely` emits such a function once in each module.  Its vector forms
test all lanes at once, and only if one is rare do they hand the lanes to a loop over the slow path.  They are
inlined once the loop is vectorised (`runtime/machine.py`), so that a test costs two or three instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from graphjit.kernels.irmath import V, declared, fabs, select, suffix

LANES = (2, 4, 8, 16)
I32 = ir.IntType(32)
# pure, so that the optimiser may treat the call as arithmetic
PURE = ("nounwind", "willreturn", "speculatable", "memory(none)")


def rarely(
    name: str, bound: float, slow: Callable[..., V], usual: V, measure: V, *operands: V,
    below: bool = False, together: bool = False,
) -> V:  # fmt: skip
    """`usual` where |measure| < bound or is NaN, else slow(measure, *operands); all of one float type.

    With `below`, what is rare is measure < bound.  With `together`, the slow path is one for all lanes, with no
    branches in it: whole arrays may be rare; and NaN is rare as well, but with `below`.  `slow` must be a fixed
    function of its operands: the name stands for it in the whole module.
    """
    b = usual.builder
    name = f"graphjit.{name}.{suffix(usual.type)}"
    function = b.module.globals.get(name)
    if function is None:
        function = _Rare(b.module, name, bound, below, together, slow, usual.type, len(operands)).scalar
    return V(b, b.call(function, [usual.ir, measure.ir, *(v.ir for v in operands)]), usual.type)


class _Rare:
    """The functions of one slow path in a module."""

    def __init__(self, module: Any, name: str, bound: float, below: bool, together: bool, slow: Callable[..., V],
                 t: Any, operands: int) -> None:
        self.module, self.name, self.bound, self.below, self.together = module, name, bound, below, together
        self.slow, self.type, self.element = slow, t, t.llvm
        self.arity = 2 + operands
        self.scalar, forms = vector_function(module, name, self.element, [self.element] * self.arity)
        lanes = self._define_lanes()
        self._define_scalar(lanes)
        for n, form in forms.items():
            self._define_form(n, form, lanes)

    def _define_scalar(self, lanes: Any) -> None:
        b = ir.IRBuilder(self.scalar.append_basic_block())
        measure = V(b, self.scalar.args[1], self.type)
        self._decide(b, self.scalar.args, self._is_rare(measure).ir, lanes, 1)

    def _decide(self, b: Any, values: Sequence[Any], rare: Any, lanes: Any, n: int) -> None:
        """Return the first of the values, or what `lanes` makes of them if anything is rare."""
        places = [b.alloca(value.type) for value in values]
        with b.if_then(rare, likely=False):
            for value, place in zip(values, places, strict=True):
                b.store(value, place)
            b.call(lanes, [*(b.bitcast(place, self.element.as_pointer()) for place in places), I32(n)])
            b.ret(b.load(places[0]))
        b.ret(values[0])

    def _is_rare(self, measure: V) -> V:
        if self.below:
            return measure.lt(self.bound)
        return ~fabs(measure).lt(self.bound) if self.together else fabs(measure).ge(self.bound)

    def _define_lanes(self) -> Any:
        """void lanes(usual*, measure*, operands*..., n): the slow path in place of what is usual, where it is rare."""
        pointers = [self.element.as_pointer()] * self.arity
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [*pointers, I32]), f"{self.name}.lanes")
        function.linkage = "weak_odr"
        for name in ("noinline", "nounwind", *(() if self.together else ("cold", "optsize"))):
            attribute(function, name)
        *arrays, n = function.args
        for array in arrays:
            array.add_attribute("noalias")
        entry, head, done = (function.append_basic_block(block) for block in ("", "loop", "done"))
        b = ir.IRBuilder(entry)
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(I32)
        i.add_incoming(I32(0), entry)
        places = [b.gep(array, [i]) for array in arrays]
        measure, *operands = (V(b, b.load(place), self.type) for place in places[1:])
        if self.together:
            usual = V(b, b.load(places[0]), self.type)
            b.store(select(self._is_rare(measure), self.slow(measure, *operands), usual).ir, places[0])
        else:
            with b.if_then(self._is_rare(measure).ir):
                b.store(self.slow(measure, *operands).ir, places[0])
        following = b.add(i, I32(1))
        i.add_incoming(following, b.block)
        b.cbranch(b.icmp_signed("<", following, n), head, done)
        b.position_at_end(done)
        b.ret_void()
        return function

    def _define_form(self, n: int, function: Any, lanes: Any) -> None:
        b = ir.IRBuilder(function.append_basic_block())
        measure = function.args[1]
        bounds = ir.Constant(measure.type, [self.bound] * n)
        if self.below:
            rare = b.fcmp_ordered("<", measure, bounds)
        else:
            form = f"llvm.fabs.v{n}{suffix(self.type)}"
            size = b.call(declared(self.module, form, measure.type, [measure.type]), [measure])
            rare = (b.fcmp_unordered if self.together else b.fcmp_ordered)(">=", size, bounds)
        bits = ir.IntType(n)
        self._decide(b, function.args, b.icmp_unsigned("!=", b.bitcast(rare, bits), bits(0)), lanes, n)


def vector_function(module: Any, name: str, result: Any, operands: Sequence[Any]) -> tuple[Any, dict[int, Any]]:
    """A pure function of scalars and, by their lanes, its vector forms: all without a body yet."""

    def declare(name: str, lanes: int | None = None) -> Any:
        first, *rest = (ir.VectorType(t, lanes) if lanes else t for t in (result, *operands))
        function = ir.Function(module, ir.FunctionType(first, rest), name)
        # not discardable: until the vectoriser runs, only the attribute refers to the vector forms
        function.linkage = "weak_odr"
        for each in PURE:
            attribute(function, each)
        return function

    scalar = declare(name)
    # kept whole until the vectoriser has seen it
    attribute(scalar, "noinline")
    # `_LLVM_`: the form is used on whatever instruction set; N: not masked; v: a vector in each operand's place
    mapping = ",".join(f"_ZGV_LLVM_N{n}{'v' * len(operands)}_{name}({name}.x{n})" for n in LANES)
    attribute(scalar, f'"vector-function-abi-variant"="{mapping}"')
    forms = {n: declare(f"{name}.x{n}", n) for n in LANES}
    for form in forms.values():
        attribute(form, "alwaysinline")
    return scalar, forms


def attribute(function: Any, text: str) -> None:
    """llvmlite checks names of attributes against a list that lacks ours; it prints what the set holds."""
    set.add(function.attributes, text)
