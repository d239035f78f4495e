"""An elementwise loop as AVX-512 assembly over vectors that stand in registers (`tile_follower` says what for).

The loop's source is that of a `LoopKernel`: what does not differ between elements stands before the loop, one operation
a line in it. There is code of its own for each way in which conditions that do not differ can be. Arrays are read where
they are used, as operands in memory: there are few registers, and what has no place in them is no loop for this code.
An element is stored as soon as nothing needs what was there before.
"""

import ast
import copy
from collections.abc import Iterator, Sequence
from enum import IntEnum

from graphjit.kernels.target import Element
from graphjit.runtime.kernel import LoopKernel

BASES = ("%r9", "%r10", "%r12", "%r8")  # addresses of arrays
WORDS, OFFSET, ROW = "%r15", "%rcx", "%rax"  # address of `Words`, the vector's place in the arrays, bytes between rows
WIDEST = 2  # vectors of the tiles that call such code
ROOM = 32  # heights in a line of a table of such code, or of tiles
ABS, SIGN = "abs", "sign"  # words of bits: all but that of the sign, that of the sign
CONDITIONS = 2  # that do not differ between elements, at most


class Words(IntEnum):
    """What tiles and this code find in memory, int64 words."""

    TABLE = 0  # the code's entries by width and height of a tile
    BASE = 1  # addresses of arrays, four at most
    OTHER = 5  # bytes from the first array to the second and to the third one; to the first where there is none
    THIRD = 6
    NUMBERS = 7  # then those that do not differ between elements


class Unsuited(Exception):
    """The loop does what this code cannot do."""


class RegisterLoop:
    """A loop that fits, or `Unsuited`.

    Attributes:
        arrays: names of the arrays it goes through, but for the one in registers.
        conditions: names of those that do not differ between elements.
        words: what is read of values that do not, in order: expressions (conditions first), or `ABS`, `SIGN`.
    """

    def __init__(self, loop: LoopKernel, hole: int, element: Element) -> None:
        match ast.parse(loop.source).body:
            case [ast.FunctionDef(args=ast.arguments(args=parameters), body=[*head, ast.For(
                    ast.Name(index), ast.Call(ast.Name("range"), [ast.Name("start"), ast.Name("stop")]), body)])]:
                self.parameters, self.head, self.index = [each.arg for each in parameters[:-2]], head, index
            case _:
                raise Unsuited
        codes = dict(zip(self.parameters, loop.args, strict=True))
        self.element, self.hole = element, self.parameters[hole]
        self.uniform = {name for name, code in codes.items() if not code.startswith("*")}
        for each in head:
            match each:
                case ast.Assign([ast.Name(name)]):
                    self.uniform.add(name)
                case _:
                    raise Unsuited
        self.loaded: dict[str, str] = {}  # names of what is only loaded, and from where
        self.stores: dict[str, ast.expr] = {}
        self.values: dict[str, ast.expr] = {}
        self.conditions: list[str] = []
        for each in body:
            if any(self.element_of(node) in self.stores for node in ast.walk(each)):
                raise Unsuited  # reads or writes again what it has written
            match each:
                case ast.Assign([ast.Name(name)], ast.Subscript() as source):
                    self.loaded[name] = self.element_of(source) or ""
                case ast.Assign([ast.Name(name)], value):
                    self.values[name] = value
                    condition = self.condition(value)
                    if condition is not None and condition not in self.conditions:
                        self.conditions.append(condition)
                case ast.Assign([ast.Subscript() as target], value):
                    self.stores[self.element_of(target) or ""] = value
                case _:
                    raise Unsuited
        through = {*self.loaded.values(), *self.stores, *(self.element_of(x) for x in self.expressions())} - {None}
        self.arrays = [name for name in self.parameters if name in through and name != self.hole]
        if (len(self.arrays) > len(BASES) or len(self.conditions) > CONDITIONS or self.hole in self.stores
                or any(codes.get(name or "") != "*" + element.name for name in through)):  # fmt: skip
            raise Unsuited
        self.words = {f"where({name}, 1, 0)": i for i, name in enumerate(self.conditions)}
        self._all = self.values, self.stores
        self.held: dict[str, str] = {}
        self.room: Sequence[str] = ()

    def hold(self, registers: Sequence[str]) -> None:
        """Have these registers hold numbers from now on, in the order in which they are read first."""
        self.held, self.room = {}, registers

    def number(self, expression: str) -> str:
        """A number that does not differ between elements: the register that holds it, else its place in memory."""
        if expression not in self.held and len(self.held) < len(self.room):
            self.held[expression] = self.room[len(self.held)]
        return self.held.get(expression) or f"{self.place(expression)}{{1to{self.element.lanes}}}"

    def place(self, expression: str) -> str:
        return f"{8 * (Words.NUMBERS + self.words.setdefault(expression, len(self.words)))}({WORDS})"

    def loads(self) -> list[str]:
        """Instructions that load what registers hold."""
        spread = "vbroadcastss" if self.element.size == 4 else "vbroadcastsd"
        return [f"{spread} {self.place(x)}, {register}" for x, register in self.held.items()]

    def condition(self, value: ast.expr) -> str | None:
        """Of a choice that is the same for all elements what it goes by."""
        match value:
            case ast.Call(ast.Name("where"), [ast.Name(name), _, _]) if name in self.uniform:
                return name
        return None

    def assume(self, holds: Sequence[bool]) -> None:
        """Take these conditions to hold or not: choices by them and what they leave out are not computed."""
        chosen = _Replaced()
        values: dict[str, ast.expr] = {}
        for name, value in self._all[0].items():
            value = chosen.visit(copy.deepcopy(value))
            condition = self.condition(value)
            if condition is None:
                values[name] = value
            else:
                assert isinstance(value, ast.Call)
                chosen.instead[name] = value.args[1 if holds[self.conditions.index(condition)] else 2]
        self.stores = {array: chosen.visit(copy.deepcopy(value)) for array, value in self._all[1].items()}
        needed = {node.id for value in self.stores.values() for node in ast.walk(value) if isinstance(node, ast.Name)}
        for name, value in reversed(values.items()):
            if name in needed:
                needed |= {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}
        self.values = {name: value for name, value in values.items() if name in needed}

    def element_of(self, node: ast.AST) -> str | None:
        """The array whose element this is."""
        match node:
            case ast.Subscript(ast.Name(array), ast.Name(index)) if index == self.index:
                return array
            case ast.Subscript():
                raise Unsuited
        return None

    def expressions(self) -> Iterator[ast.AST]:
        """All nodes of what is computed."""
        for value in (*self.values.values(), *self.stores.values()):
            yield from ast.walk(value)


class _Replaced(ast.NodeTransformer):
    """Puts other expressions in place of names."""

    def __init__(self) -> None:
        self.instead: dict[str, ast.expr] = {}

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.instead.get(node.id, node)
