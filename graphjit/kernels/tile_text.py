"""Register tiles as LLVM IR: what is written of all of them."""

from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import I64, intrinsic
from graphjit.kernels.target import Element


class TileText(ir.Function):  # type: ignore[misc]  # llvmlite is untyped
    """A function whose body is written as LLVM assembly: with thousands of instructions in a kernel, llvmlite's
    objects for each would take four times as long as all of LLVM's passes.

    Args:
        kind: its type.
        height, vectors: the tile's size.
    """

    def __init__(self, module: Any, element: Element, name: str, kind: Any, height: int, vectors: int) -> None:
        super().__init__(module, kind, name)
        self.element, self.height, self.vectors = element, height, vectors
        self.kind = f"<{element.lanes} x {element.type}>"
        self.width = element.lanes * element.size
        self.lines: list[str] = []
        vector, mask = element.vector, ir.VectorType(ir.IntType(1), element.lanes)
        byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        intrinsic(module, f"llvm.fmuladd.{element.suffix}", vector, vector, vector, vector)
        intrinsic(module, "llvm.prefetch.p0", ir.VoidType(), byte, i32, i32, i32)
        intrinsic(module, "llvm.ctpop.i64", I64, I64)
        pointer = vector.as_pointer()
        intrinsic(module, f"llvm.masked.load.{element.suffix}.p0", vector, pointer, i32, mask, vector)
        intrinsic(module, f"llvm.masked.store.{element.suffix}.p0", ir.VoidType(), vector, pointer, i32, mask)
        self.write()

    def write(self) -> None:
        """All lines."""
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n".join(self.lines)

    @property
    def mask(self) -> str:
        return f"<{self.element.lanes} x i1>"

    @property
    def cells(self) -> list[tuple[int, int]]:
        return [(i, j) for i in range(self.height) for j in range(self.vectors)]

    def emit(self, *lines: str) -> None:
        self.lines += lines

    def phi(self, name: str, kind: str, **incoming: str) -> None:
        pairs = ", ".join(f"[ {value}, %{block} ]" for block, value in incoming.items())
        self.emit(f"%{name} = phi {kind} {pairs}")

    def address(self, name: str, base: str, offset: int | str) -> str:
        """Name an address: a base plus bytes."""
        if offset == 0:
            return base
        self.emit(f"%{name} = getelementptr i8, ptr {base}, i64 {offset}")
        return f"%{name}"

    def load_vector(self, name: str, base: str, j: int, masked: bool) -> None:
        """Vector j of a row; ``masked``: of the last one lanes that are not live read as 0."""
        at = self.address(f"{name}.at", base, j * self.width)
        if masked and j == self.vectors - 1:
            self.emit(f"%{name} = call {self.kind} @llvm.masked.load.{self.element.suffix}.p0(ptr {at}, "
                      f"i32 {self.element.size}, {self.mask} %mask, {self.kind} zeroinitializer)")  # fmt: skip
        else:
            self.emit(f"%{name} = load {self.kind}, ptr {at}, align {self.element.size}")

    def store_vector(self, value: str, name: str, base: str, j: int, masked: bool) -> None:
        at = self.address(f"{name}.at", base, j * self.width)
        if masked and j == self.vectors - 1:
            self.emit(f"call void @llvm.masked.store.{self.element.suffix}.p0({self.kind} {value}, ptr {at}, "
                      f"i32 {self.element.size}, {self.mask} %mask)")  # fmt: skip
        else:
            self.emit(f"store {self.kind} {value}, ptr {at}, align {self.element.size}")

    def splat(self, name: str, kind: str, number: str) -> None:
        lanes = self.element.lanes
        vector = f"<{lanes} x {kind}>"
        self.emit(f"%{name}.first = insertelement {vector} undef, {kind} {number}, i32 0",
                  f"%{name} = shufflevector {vector} %{name}.first, {vector} undef, "
                  f"<{lanes} x i32> zeroinitializer")  # fmt: skip

    def prefetch(self, at: str, write: bool = False, level: int = 1) -> None:
        """Into the cache of a level, and those behind it."""
        self.emit(f"call void @llvm.prefetch.p0(ptr {at}, i32 {int(write)}, i32 {4 - level}, i32 1)")

    def odd_rows(self, row: int, place: int) -> dict[str, int]:
        """Fields of an array of int64 that hold odd multiples of the stride from row to row of A: that itself in
        ``row``, 3, 5, ... times it in ``place`` + 1, + 2, ...

        x86 scales an offset by 2, 4 or 8 in the load itself, so only the odd ones take a register. They are loaded,
        not computed: LLVM would undo that, and replace the offsets by a chain of additions in the loop.
        """
        return {f"odd{i}": row if i == 1 else place + i // 2 for i in range(1, max(self.height, 2), 2)}

    def number_of_a(self, i: int, base: str, here: str = "") -> str:
        """A number of row i of A, in all lanes; ``here`` tells this place from others."""
        name, twos = f"{here}a{i}", (i & -i).bit_length() - 1
        if twos > 0:
            self.emit(f"%{name}.off = shl i64 %odd{i >> twos}, {twos}")
        row = self.address(f"{name}.at", base, 0 if i == 0 else f"%{name}.off" if twos else f"%odd{i}")
        kind = self.element.type
        self.emit(f"%{name}.one = load {kind}, ptr {row}, align {self.element.size}")
        self.splat(name, str(kind), f"%{name}.one")
        return f"%{name}"
