"""Words for writing LLVM IR: run-time integers that add up like Python ones, loops, function frames.

The matrix-product kernels are emitted as IR and not written as Python loops: a register tile must be spelled out vector
by vector anyway.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llvmlite import ir

if TYPE_CHECKING:
    from graphjit.kernels.target import Element

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
F32, F64 = ir.FloatType(), ir.DoubleType()
ENTRY = ir.FunctionType(ir.VoidType(), [I64.as_pointer(), I64, I64])  # of kernels: (slots, start, stop)


class Int:
    """An int64 known when the kernel runs; `+ - * // %`, comparisons and `min` emit instructions."""

    __hash__ = None  # type: ignore[assignment]  # == emits an instruction, so it cannot be a key

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder = builder
        self.value = ir.Constant(I64, value) if isinstance(value, int) else value

    def _with(self, other: "Int | int") -> Any:
        return ir.Constant(I64, other) if isinstance(other, int) else other.value

    def __add__(self, other: "Int | int") -> "Int":
        return self if isinstance(other, int) and other == 0 else self._of(self.builder.add, other)

    def __sub__(self, other: "Int | int") -> "Int":
        return self._of(self.builder.sub, other)

    def __mul__(self, other: "Int | int") -> "Int":
        return self if isinstance(other, int) and other == 1 else self._of(self.builder.mul, other)

    def __floordiv__(self, other: "Int | int") -> "Int":
        """Quotient of non-negative numbers."""
        return self._of(self.builder.udiv, other)

    def __mod__(self, other: "Int | int") -> "Int":
        return self._of(self.builder.urem, other)

    def __and__(self, other: "Int | int") -> "Int":
        return self._of(self.builder.and_, other)

    def __rshift__(self, other: "Int | int") -> "Int":
        return self._of(self.builder.lshr, other)

    def _of(self, instruction: Callable[[Any, Any], Any], other: "Int | int") -> "Int":
        return Int(self.builder, instruction(self.value, self._with(other)))

    def _is(self, sign: str, other: "Int | int") -> Any:
        return self.builder.icmp_signed(sign, self.value, self._with(other))

    def __lt__(self, other: "Int | int") -> Any:
        return self._is("<", other)

    def __gt__(self, other: "Int | int") -> Any:
        return self._is(">", other)

    def __le__(self, other: "Int | int") -> Any:
        return self._is("<=", other)

    def __ge__(self, other: "Int | int") -> Any:
        return self._is(">=", other)

    def __eq__(self, other: object) -> Any:
        assert isinstance(other, Int | int)
        return self._is("==", other)

    def __ne__(self, other: object) -> Any:
        assert isinstance(other, Int | int)
        return self._is("!=", other)

    def where(self, condition: Any, other: "Int | int") -> "Int":
        """This number where the condition holds, the other elsewhere."""
        return Int(self.builder, self.builder.select(condition, self.value, self._with(other)))

    def min(self, other: "Int | int") -> "Int":
        return self.where(self < other, other)

    def max(self, other: "Int | int") -> "Int":
        return self.where(self > other, other)

    def flag(self, condition: Any) -> "Int":
        """A condition as 0 or 1."""
        return Int(self.builder, self.builder.zext(condition, I64))


def power_of_two(x: Int) -> Int:
    """The largest power of two that is not above x, or 1."""
    b = x.builder
    leading = b.ctlz(x.max(1).value, ir.Constant(I1, 1))
    return (Int(b, b.lshr(I64(-1), leading)) >> 1) + 1


class Walk:
    """Where a walk stands, and by how much it goes on: `step` is set in its body."""

    def __init__(self, at: Int) -> None:
        self.at = self.step = at


@contextmanager
def walk(start: Int, stop: Int) -> Iterator[Walk]:
    """From start to stop in steps that differ: the body is what is emitted inside the `with`."""
    b = stop.builder
    before = b.block
    head, body, done = (b.append_basic_block(name) for name in ("walk", "body", "done"))
    b.branch(head)
    b.position_at_end(head)
    phi = b.phi(I64)
    phi.add_incoming(start.value, before)
    here = Walk(Int(b, phi))
    b.cbranch(here.at < stop, body, done)
    b.position_at_end(body)
    yield here
    phi.add_incoming((here.at + here.step).value, b.block)
    b.branch(head)
    b.position_at_end(done)


@contextmanager
def loop(start: Int | int, stop: Int, step: Int | int = 1) -> Iterator[Int]:
    """for index in range(start, stop, step): the body is what is emitted inside the `with`."""
    b = stop.builder
    with walk(Int(b, start) if isinstance(start, int) else start, stop) as here:
        here.step = Int(b, step) if isinstance(step, int) else step
        yield here.at


def carried(index: Int, first: Any, before: Any) -> Any:
    """A value that turns of a loop hand on, of which this is the index: at first the one given, which the block before
    the loop has. What the next turn gets is to be added."""
    b, body = index.builder, index.builder.block
    b.position_after(index.value)
    phi = b.phi(first.type)
    phi.add_incoming(first, before)
    b.position_at_end(body)
    return phi


def only_if(condition: Any, otherwise: Sequence[Int], values: Callable[[], Sequence[Int]]) -> list[Int]:
    """`values()` if the condition holds, else the others: unlike with `where`, nothing is computed in vain."""
    b = otherwise[0].builder
    before = b.block
    with b.if_then(condition):
        computed = [value.value for value in values()]
        after = b.block
    chosen = []
    for other, value in zip(otherwise, computed, strict=True):
        phi = b.phi(I64)
        phi.add_incoming(other.value, before)
        phi.add_incoming(value, after)
        chosen.append(Int(b, phi))
    return chosen


@contextmanager
def pieces(start: Int, stop: Int, limit: Int, unit: int = 1) -> Iterator[Walk]:
    """Walk over a range in nearly equal pieces of at most `limit`, all but the last a multiple of `unit`."""
    b = stop.builder
    total = (stop - start + (unit - 1)) // unit

    def divided() -> list[Int]:
        most = (limit // unit).max(1)
        count = (total + most - 1) // most
        small = total // count
        return [small, (total - small * count) * (small + 1)]

    # pieces of small + 1 units, up to a bound, then of `small`
    small, bound = only_if(total * unit > limit, [total, Int(b, 0)], divided)
    bound = start + bound * unit
    with walk(start, stop) as here:
        here.step = ((small + small.flag(here.at < bound)) * unit).min(stop - here.at)
        yield here


def function(module: Any, name: str, nargs: int) -> tuple[Any, Any, list[Int]]:
    """A new function of int64 arguments: itself, its builder and its arguments.

    Functions of equal name hold equal code; `linkonce_odr` makes the linker keep one of them, whatever the
    number of kernels compiled together.
    """
    made = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * nargs), name)
    made.linkage = "linkonce_odr"
    made.attributes.add("noinline")
    made.attributes.add("nounwind")
    builder = ir.IRBuilder(made.append_basic_block("entry"))
    return made, builder, [Int(builder, argument) for argument in made.args]


def call(made: Any, builder: Any, arguments: Sequence[Int]) -> None:
    builder.call(made, [argument.value for argument in arguments])


def pointer(address: Int, kind: Any) -> Any:
    return address.builder.inttoptr(address.value, kind.as_pointer())


def load(address: Int, kind: Any, align: int) -> Any:
    value = address.builder.load(pointer(address, kind))
    value.align = align
    return value


def store(value: Any, address: Int, align: int) -> None:
    address.builder.store(value, pointer(address, value.type)).align = align


def live_lanes(builder: Any, lanes: int, count: Int) -> Any:
    """The mask of a vector of which `count` lanes count."""
    index = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
    spread = builder.insert_element(ir.Constant(index.type, ir.Undefined), builder.trunc(count.value, I32), I32(0))
    return builder.icmp_unsigned("<", index, builder.shuffle_vector(spread, spread, ir.Constant(index.type, None)))


def masked_load(module: Any, element: "Element", address: Int, count: Int) -> Any:
    """The first `count` numbers of a vector, and zeros; memory behind them is not touched."""
    kind, b = element.vector, address.builder
    made = intrinsic(module, f"llvm.masked.load.{element.suffix}.p0", kind, kind.as_pointer(), I32,
                     ir.VectorType(I1, element.lanes), kind)  # fmt: skip
    mask = live_lanes(b, element.lanes, count)
    return b.call(made, [pointer(address, kind), I32(element.size), mask, ir.Constant(kind, None)])


def masked_store(module: Any, element: "Element", value: Any, address: Int, count: Int) -> None:
    """Store the first `count` numbers of a vector; memory behind them is not touched."""
    masked_by(module, element, value, address, live_lanes(address.builder, element.lanes, count))


def masked_by(module: Any, element: "Element", value: Any, address: Int, mask: Any) -> None:
    """Store the numbers of a vector that a mask tells; all without one."""
    if mask is None:
        store(value, address, element.size)
        return
    kind, b = element.vector, address.builder
    made = intrinsic(module, f"llvm.masked.store.{element.suffix}.p0", ir.VoidType(), kind, kind.as_pointer(), I32,
                     ir.VectorType(I1, element.lanes))  # fmt: skip
    b.call(made, [value, pointer(address, kind), I32(element.size), mask])


def intrinsic(module: Any, name: str, result: Any, *arguments: Any) -> Any:
    """The declaration of an LLVM intrinsic function."""
    found = module.globals.get(name)
    return found or ir.Function(module, ir.FunctionType(result, arguments), name)
