"""The body of a loop kernel becomes LLVM IR, in the function that Numba makes for it (`frontend`).

The source is Python, but little of it: loops over ranges (`HINTS` has their other names), ifs, assignments,
arithmetic, elements of pointers, calls of `kernels.scalar`'s functions. Types are known line by line as NumPy's are:
Python numbers take the type of the operand beside them, integers of different types become int64, and to mix others is
an error. So one walk over the syntax tree emits the instructions. A name that is assigned once is a value, known in its
block; one that is assigned again is a place in memory, which LLVM makes a register of.
"""

from __future__ import annotations

import ast
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphjit.kernels.irmath import Type, V

Value = Any  # a V, a Python number, or a pointer

MASKED = "llvm.loop.vectorize.predicate.enable"  # the last turns are a vector of which some lanes are masked
APART = "llvm.loop.parallel_accesses"  # no turn touches what another one writes, but for scratch memory
HINTS = {"range": "", "lanes": "llvm.loop.unroll.disable", "few": MASKED, "apart": APART}  # LLVM is told of these loops
SCRATCH = "t"  # what names of pointers to scratch memory begin with

_FOLDED: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.USub: operator.neg,
}  # fmt: skip
_INTEGERS: dict[type[ast.AST], str] = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul"}
_FLOATS: dict[type[ast.AST], str] = {ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"}
_COMPARED: dict[type[ast.AST], str] = {
    ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge",
}  # fmt: skip


def emit(builder: Any, tree: ast.FunctionDef, given: Sequence[Value]) -> None:
    """The body of a function, where the builder is."""
    _Body(builder, tree, given)


@dataclass(frozen=True, slots=True)
class Pointer:
    builder: Any
    ir: Any
    type: Type  # of its elements


class _Body:
    """Emits the statements of a function."""

    def __init__(self, builder: Any, tree: ast.FunctionDef, given: Sequence[Value]) -> None:
        from graphjit.kernels import irmath, scalar, vmath_divide

        self.builder, self.irmath, self.scalar = builder, irmath, scalar
        self.divided = {ast.FloorDiv: vmath_divide.floor_divide, ast.Mod: vmath_divide.remainder}
        self.places: dict[str, Pointer] = {}
        self.known: dict[str, Value] = {}
        self.exits: list[Any] = []  # of the loops around
        self.group: Any = None  # of the accesses of the loop around whose turns are apart
        names = [argument.arg for argument in tree.args.args]
        counts = Counter([*names, *_assigned(tree.body)])
        self.changing = {name for name, count in counts.items() if count > 1}
        for name, value in zip(names, given, strict=True):
            self.assign(name, value)
        self.block(tree.body)

    # ---- statements

    def block(self, statements: Sequence[ast.stmt]) -> None:
        known = dict(self.known)
        for each in statements:
            self.statement(each)
        self.known = known

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign([ast.Name(name)], value):
                self.assign(name, self.scalar_of(self.value(value)))
            case ast.Assign([ast.Subscript() as target], value):
                self.store(target, self.value(value))
            case ast.AugAssign(target, op, value):
                read = ast.Subscript(target.value, target.slice) if isinstance(target, ast.Subscript) else target
                total = self.binary(op, self.value(read), self.value(value))
                if isinstance(target, ast.Name):
                    self.assign(target.id, total)
                else:
                    self.store(target, total)
            case ast.For(ast.Name(name), ast.Call(ast.Name(over), bounds), body, []) if over in HINTS:
                self.loop(name, [self.value(each) for each in bounds], body, HINTS[over])
            case ast.If(test, body, rest):
                self.branch(self.value(test), body, rest)
            case ast.Expr(ast.Call(ast.Name(name), operands, [])):
                self.move(name, [self.value(each) for each in operands])
            case ast.Break():
                self.builder.branch(self.exits[-1])
            case ast.Pass():
                pass
            case _:
                raise TypeError(f"no statement of kernels: {ast.unparse(node)}")

    def assign(self, name: str, value: Value) -> None:
        if name not in self.changing:
            self.known[name] = value
            return
        if name not in self.places:
            with self.builder.goto_entry_block():
                self.places[name] = Pointer(self.builder, self.builder.alloca(value.type.llvm, name=name), value.type)
        place = self.places[name]
        if value.type is not place.type:
            raise TypeError(f"{name} is {place.type} and {value.type}")
        self.builder.store(value.ir, place.ir)

    def store(self, target: ast.expr, value: Value) -> None:
        match target:
            case ast.Subscript(pointer, index):
                to = self.value(pointer)
                value = self.scalar_of(value, to.type)
                if value.type is self.irmath.B1:
                    value = value.to(to.type)
                if value.type is not to.type:
                    raise TypeError(f"{value.type} stored as {to.type}")
                self.grouped(pointer, self.builder.store(value.ir, self.element(to, index)))
            case _:
                raise TypeError(f"no target: {ast.unparse(target)}")

    def move(self, name: str, operands: Sequence[Value]) -> None:
        """A statement of `kernels.row_tiles`."""
        from graphjit.kernels import row_tiles
        from graphjit.kernels.emit import Int

        if name not in row_tiles.STATEMENTS:
            raise NameError(f"there is no statement {name} of kernels")
        code, numbers, at, *counts, tile, lanes = operands
        size = numbers.type.bits // 8
        first, to, *counted = (Int(self.builder, value) for value in (
            *(self.builder.ptrtoint(p.ir, self.irmath.I64.llvm) for p in (numbers, tile)),
            *(self.integer(n).ir for n in (at, *counts, lanes, code))))
        start, row, rows, length, across, entry = counted
        row_tiles.call_mover(entry, [first + start * size, row, rows, length, to, across])

    def loop(self, name: str, bounds: Sequence[Value], body: Sequence[ast.stmt], hint: str) -> None:
        """The test stands at the end, and once before the loop. ``hint``: what LLVM is told of it, if anything."""
        if name in self.known or name in self.changing:
            raise TypeError(f"{name} is a loop's, and assigned elsewhere")
        b, number = self.builder, self.irmath.I64
        first, last = ([0, *bounds] if len(bounds) == 1 else bounds)[:2]
        step = bounds[2] if len(bounds) == 3 else 1
        if not isinstance(step, int) or step < 1:
            raise TypeError("loops step by a positive number")
        start, stop = (self.integer(each) for each in (first, last))
        before, inside, done = b.block, b.append_basic_block(), b.append_basic_block()
        b.cbranch(start.lt(stop).ir, inside, done)
        b.position_at_end(inside)
        turn = self.irmath.V(b, b.phi(number.llvm), number)
        turn.ir.add_incoming(start.ir, before)
        known, group = dict(self.known), self.group
        if hint == APART:
            self.group = _group(b.module)
        self.exits.append(done)
        self.known[name] = turn
        self.block(body)
        self.exits.pop()
        told = {APART: self.group, MASKED: True}.get(hint)
        self.known, self.group = known, group
        if not b.block.is_terminated:
            following = self.irmath.V(b, b.add(turn.ir, number.llvm(step), flags=("nsw",)), number)
            turn.ir.add_incoming(following.ir, b.block)
            back = b.cbranch(following.lt(stop).ir, inside, done)
            if hint:
                back.set_metadata("llvm.loop", _told(b.module, hint, told))
        b.position_at_end(done)

    def grouped(self, pointer: ast.expr, access: Any) -> Any:
        """A load or store, which belongs to the loop whose turns are apart."""
        if self.group is not None and isinstance(pointer, ast.Name) and not pointer.id.startswith(SCRATCH):
            access.set_metadata("llvm.access.group", self.group)
        return access

    def branch(self, test: V, body: Sequence[ast.stmt], rest: Sequence[ast.stmt]) -> None:
        b = self.builder
        then, otherwise = b.append_basic_block(), b.append_basic_block()
        done = b.append_basic_block() if rest else otherwise
        b.cbranch(test.ir, then, otherwise)
        for block, statements in ((then, body), (otherwise, rest)):
            if block is done:
                continue
            b.position_at_end(block)
            self.block(statements)
            if not b.block.is_terminated:
                b.branch(done)
        b.position_at_end(done)

    # ---- expressions

    def value(self, node: ast.expr) -> Value:
        match node:
            case ast.Name(name):
                if name in self.known:
                    return self.known[name]
                if name not in self.places:
                    raise NameError(f"name {name} is not defined")
                place = self.places[name]
                return self.irmath.V(self.builder, self.builder.load(place.ir), place.type)
            case ast.Constant(bool() | int() | float() as number):
                return number
            case ast.BinOp(left, op, right):
                return self.binary(op, self.value(left), self.value(right))
            case ast.UnaryOp(ast.USub(), operand):
                return -self.value(operand)
            case ast.UnaryOp(ast.Not(), operand):
                return ~self.scalar_of(self.value(operand))
            case ast.Compare(left, [op], [right]):
                x, y = self.pair(self.value(left), self.value(right))
                return getattr(x, _COMPARED[type(op)])(y)
            case ast.BoolOp(op, values):  # all are computed
                return self.joined(op, [self.value(each) for each in values])
            case ast.Subscript(pointer, index):
                source = self.value(pointer)
                found = self.grouped(pointer, self.builder.load(self.element(source, index)))
                return self.irmath.V(self.builder, found, source.type)
            case ast.IfExp(test, body, rest):
                return self.either(self.value(test), body, rest)
            case ast.Call(ast.Name(name), operands, []):
                return self.call(name, [self.value(each) for each in operands])
            case _:
                raise TypeError(f"no expression of kernels: {ast.unparse(node)}")

    def either(self, test: V, body: ast.expr, rest: ast.expr) -> V:
        """One of two values; only that one is computed."""
        b = self.builder
        then, otherwise, done = (b.append_basic_block() for _ in range(3))
        b.cbranch(test.ir, then, otherwise)
        found: list[tuple[V, Any]] = []
        for block, node in ((then, body), (otherwise, rest)):
            b.position_at_end(block)
            found.append((self.scalar_of(self.value(node)), b.block))
            b.branch(done)
        b.position_at_end(done)
        kind = found[0][0].type
        if found[1][0].type is not kind:
            raise TypeError(f"either {kind} or {found[1][0].type}")
        value = b.phi(kind.llvm)
        for each, block in found:
            value.add_incoming(each.ir, block)
        return self.irmath.V(b, value, kind)

    def binary(self, op: ast.operator, x: Value, y: Value) -> Value:
        if _is_number(x) and _is_number(y):
            return _FOLDED[type(op)](x, y)
        x, y = self.pair(x, y)
        if type(op) in self.divided:
            return self.divided[type(op)](x, y)
        # No fast-math flag, not even contract: a value computed again in another kernel must have the same bits, or
        # x == max(x) holds for no element. Integers are indices, which do not wrap.
        if x.type.kind == "f":
            return self.irmath.V(self.builder, getattr(self.builder, _FLOATS[type(op)])(x.ir, y.ir), x.type)
        flags = ("nsw",) if x.type.kind == "i" else ()
        return self.irmath.V(self.builder, getattr(self.builder, _INTEGERS[type(op)])(x.ir, y.ir, flags=flags), x.type)

    def pair(self, x: Value, y: Value) -> tuple[V, V]:
        """Operands of one type."""
        if _is_number(x):
            x = self.scalar_of(x, y.type if not _is_number(y) else None)
        y = self.scalar_of(y, x.type)
        if x.type is not y.type:
            if any(each.type not in self.irmath.WIDENED for each in (x, y)):
                raise TypeError(f"operands of types {x.type} and {y.type}")
            x, y = x.to(self.irmath.I64), y.to(self.irmath.I64)
        return x, y

    def joined(self, op: ast.boolop, values: Sequence[V]) -> V:
        found, *more = values
        for each in more:
            found = found & each if isinstance(op, ast.And) else found | each
        return found

    def call(self, name: str, operands: Sequence[Value]) -> V:
        row = self.scalar.TABLE.get(name)
        if row is None:
            raise NameError(f"there is no kernel function {name}")
        if name in self.scalar.CASTS and len(operands) == 1 and _is_number(operands[0]):
            return self.scalar_of(operands[0], self.scalar.CASTS[name])
        beside = next((each.type for each in operands[row.alike:] if not _is_number(each)), None)
        return row.apply(name, [self.scalar_of(each, beside) for each in operands])

    def scalar_of(self, x: Value, beside: Type | None = None) -> V:
        """A Python number as a value, of the type beside it."""
        if isinstance(x, self.irmath.V):
            return x
        if beside is None or (isinstance(x, float) and beside.kind != "f"):
            beside = self.irmath.B1 if isinstance(x, bool) else self.irmath.I64 if isinstance(x, int) else \
                self.irmath.F64
        return self.irmath.V(self.builder, None, beside).const(x)

    def integer(self, x: Value) -> V:
        number = self.scalar_of(x)
        if number.type.kind not in "iu":
            raise TypeError(f"{number.type} for an integer")
        return number.to(self.irmath.I64)

    def element(self, pointer: Pointer, index: ast.expr) -> Any:
        return self.builder.gep(pointer.ir, [self.integer(self.value(index)).ir])


def _is_number(x: Value) -> bool:
    return isinstance(x, (int, float))


def _assigned(statements: Sequence[ast.stmt]) -> Iterator[str]:
    """The names that statements assign, but for loops', as often as they do."""
    for node in statements:
        match node:
            case ast.Assign([ast.Name(name)]):
                yield name
            case ast.AugAssign(ast.Name(name)):
                yield from (name, name)
            case ast.For() | ast.If():
                yield from _assigned([*node.body, *node.orelse])


def _told(module: Any, hint: str, value: Any) -> Any:
    """What tells LLVM of a loop: a node of its own, which begins with itself."""
    from llvmlite import ir

    values = [ir.Constant(ir.IntType(1), 1)] if value is True else [] if value is None else [value]
    told = module.add_metadata([ir.MetaDataString(module, hint), *values])
    node = module.add_metadata([told, ir.MetaDataString(module, str(len(module.metadata)))])
    node.operands = (node, told)
    return node


def _group(module: Any) -> Any:
    """A node for a group of accesses, equal to no other; llvmlite knows no such nodes."""
    from llvmlite import ir

    class Group(ir.MDValue):  # type: ignore[misc]  # a subclass of Any
        def descr(self, buf: list[str]) -> None:
            buf.append("distinct !{}\n")

    return Group(module, (), name=str(len(module.metadata)))
