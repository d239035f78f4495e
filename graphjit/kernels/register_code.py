"""The instructions of a `register_loop` for one vector."""

import ast
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from graphjit.kernels.register_loop import ABS, BASES, OFFSET, SIGN, RegisterLoop, Unsuited

LONGEST = 20  # instructions for a vector; measured: little of more runs beside a tile's multiply-adds
_MASKS = ("%k2", "%k3", "%k4", "%k5", "%k6", "%k7")
_TAIL = "%k1"  # live lanes of a row's last vector
_BINARY: dict[type[ast.AST], str] = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}
_COMMUTE = ("add", "mul")
# a comparison's number, and that of the one with operands turned round
_COMPARED = {"lt": (0x11, 0x1E), "gt": (0x1E, 0x11), "le": (0x12, 0x1D), "ge": (0x1D, 0x12), "eq": (0, 0), "ne": (4, 4)}
_CALLED = ("abs_", "sqrt", "square", *_COMPARED)


def code_of(loop: RegisterLoop, sums: str, free: Sequence[str], offset: int, masked: bool) -> list[str]:
    """The instructions for one vector, so many bytes behind the first of its row. ``free``: registers that nothing
    stands in; ``masked``: whether only lanes of the tail's mask are there."""
    lines = _Vector(loop, sums, free, offset, masked).lines
    if len(lines) > LONGEST:
        raise Unsuited
    return lines


class Operand(NamedTuple):
    """text: as instructions name it; kind: 'register', 'array', 'word' (one number for all lanes) or 'mask';
    dies: whether this is its last use."""

    text: str
    kind: str
    dies: bool = False


class _Vector:
    """Writes the loop's body for one vector."""

    def __init__(self, loop: RegisterLoop, sums: str, free: Sequence[str], offset: int, masked: bool) -> None:
        self.loop, self.masked = loop, masked
        self.arrays = {name: f"{offset}({base},{OFFSET})" for name, base in zip(loop.arrays, BASES, strict=False)}
        size, self.lanes = loop.element.size, loop.element.lanes
        self.kind, self.bits = ("ps", "d") if size == 4 else ("pd", "q")
        self.spread = "vbroadcastss" if size == 4 else "vbroadcastsd"
        self.lines: list[str] = []
        self.free, self.free_masks = list(free), list(_MASKS)
        self.known = {loop.hole: Operand(sums, "register")}
        # how often names are still read; what is loaded counts for its array
        self.left = Counter(self.source(node) for node in loop.expressions() if isinstance(node, ast.Name))
        self.waiting = dict(loop.stores)
        for name, value in loop.values.items():
            found = self.value(value)
            if found.kind == "array" or (found.kind in ("register", "mask") and not found.dies):
                raise Unsuited  # a second name for what may change
            self.known[name] = found._replace(dies=False)
            if not self.left[name]:
                self.release(found)
            self.store_what_can_be()
        while self.waiting:
            before = len(self.waiting)
            self.store_what_can_be()
            if len(self.waiting) == before:
                raise Unsuited  # arrays change places

    def source(self, node: ast.AST) -> str:
        name = node.id if isinstance(node, ast.Name) else ""
        return self.loop.loaded.get(name, name)

    def store_what_can_be(self) -> None:
        """Store what is known where nothing but itself needs what was there before."""
        for array, value in list(self.waiting.items()):
            names = [self.source(node) for node in ast.walk(value) if isinstance(node, ast.Name)]
            if self.left[array] > names.count(array) or any(name in self.loop.values and name not in self.known
                                                            for name in names):  # fmt: skip
                continue
            del self.waiting[array]
            x = self.in_register(self.value(value))
            mask = f"{{{_TAIL}}}" if self.masked else ""
            self.lines.append(f"vmovu{self.kind} {x.text}, {self.arrays[array]}{mask}")
            self.release(x)

    # ---- expressions

    def value(self, node: ast.expr) -> Operand:
        """One operation, of operands that are none themselves: of those one could be lost before the other is used."""
        match node:
            case ast.BinOp(x, op, y) if type(op) in _BINARY:
                return self.binary(_BINARY[type(op)], self.operand(x), self.operand(y))
            case ast.UnaryOp(ast.USub(), x):
                return self.bitwise("xor", SIGN, self.operand(x))
            case ast.Call(ast.Name("where"), [condition, x, y]):
                return self.where(condition, self.operand(x), self.operand(y))
            case ast.Call(ast.Name(name), operands) if name in _CALLED:
                return self.call(name, [self.operand(each) for each in operands])
        return self.operand(node)

    def operand(self, node: ast.expr) -> Operand:
        loop, name = self.loop, self.source(node) or self.loop.element_of(node)
        match node:
            case ast.Call(ast.Name("f32" | "f64"), [ast.Constant()]):
                return self.word(ast.unparse(node))
            case ast.Name() | ast.Subscript() if name in loop.uniform or name in self.arrays or name in self.known:
                self.left[name] -= 1
                if name in loop.uniform:
                    return self.word(name)
                if name in self.arrays:
                    return Operand(self.arrays[name], "array")
                return self.known[name]._replace(dies=self.left[name] == 0)
        raise Unsuited

    def word(self, expression: str) -> Operand:
        text = self.loop.number(expression)
        return Operand(text, "register" if text.startswith("%") else "word")

    def call(self, name: str, operands: list[Operand]) -> Operand:
        match name, operands:
            case "abs_", [x]:
                return self.bitwise("and", ABS, x)
            case "sqrt", [x]:
                return self.result(f"vsqrt{self.kind} {x.text}", x, self.masked and x.kind == "array")
            case "square", [x]:
                x = self.in_register(x)
                return self.result(f"vmul{self.kind} {x.text}, {x.text}", x)
            case _, [x, y]:
                return self.compare(*_COMPARED[name], x, y)
        raise Unsuited

    def binary(self, op: str, x: Operand, y: Operand) -> Operand:
        if op in _COMMUTE and x.kind != "register" and y.kind == "register":
            x, y = y, x
        x = self.in_register(x)
        return self.result(f"v{op}{self.kind} {y.text}, {x.text}", x, self.masked and y.kind == "array", y)

    def bitwise(self, op: str, bits: str, x: Operand) -> Operand:
        x = self.in_register(x)
        return self.result(f"vp{op}{self.bits} {self.word(bits).text}, {x.text}", x)

    def compare(self, number: int, turned: int, x: Operand, y: Operand) -> Operand:
        if x.kind != "register" and y.kind == "register":
            x, y, number = y, x, turned
        x = self.in_register(x)
        if not self.free_masks:
            raise Unsuited
        to = self.free_masks.pop(0)
        mask = f"{{{_TAIL}}}" if self.masked and y.kind == "array" else ""
        self.lines.append(f"vcmp{self.kind} ${number}, {y.text}, {x.text}, {to}{mask}")
        self.release(x, y)
        return Operand(to, "mask", True)

    def where(self, condition: ast.expr, x: Operand, y: Operand) -> Operand:
        mask = self.operand(condition)
        if mask.kind != "mask":
            raise Unsuited
        x = self.in_register(x) if self.masked and x.kind == "array" else x
        y = self.in_register(y)
        found = self.result(f"vblendm{self.kind} {x.text}, {y.text}", y, False, x, f"{{{mask.text}}}")
        self.release(mask)
        return found

    # ---- registers

    def in_register(self, x: Operand) -> Operand:
        if x.kind == "register":
            return x
        if x.kind not in ("array", "word") or not self.free:
            raise Unsuited
        to = self.free.pop()
        if x.kind == "word":
            self.lines.append(f"{self.spread} {x.text.partition('{')[0]}, {to}")
        else:
            mask = f"{{{_TAIL}}}{{z}}" if self.masked else ""
            self.lines.append(f"vmovu{self.kind} {x.text}, {to}{mask}")
        return Operand(to, "register", True)

    def result(self, instruction: str, x: Operand, masked: bool = False, y: Operand | None = None,
               mask: str = "") -> Operand:  # fmt: skip
        """Complete an instruction by where its result goes: to a register of an operand that is not needed again."""
        given = [each for each in (x, y) if each is not None and each.kind == "register" and each.dies]
        texts = list(dict.fromkeys(each.text for each in given))
        if not texts and not self.free:
            raise Unsuited
        to = texts.pop(0) if texts else self.free.pop()
        self.free += texts
        self.lines.append(f"{instruction}, {to}{mask or (f'{{{_TAIL}}}{{z}}' if masked else '')}")
        return Operand(to, "register", True)

    def release(self, *operands: Operand) -> None:
        for text, kind in dict.fromkeys((x.text, x.kind) for x in operands if x.dies):
            if kind == "register":
                self.free.append(text)
            elif kind == "mask":
                self.free_masks.append(text)
