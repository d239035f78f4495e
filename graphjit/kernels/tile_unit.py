"""The tile unit of a CPU (Intel AMX): eight registers of 16 lines of 64 bytes, and products of bfloat16 numbers between
them, added up in float32."""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import I64, Int, function, intrinsic, loop, pointer, store
from graphjit.kernels.split import CHUNK, LINES, PART, STEPS
from graphjit.kernels.tiles import array

BYTE = ir.IntType(8)
# Parts of A and B that are multiplied, each pair another in one operand only: small products first.
_PAIRS = ((0, 2), (0, 1), (1, 1), (1, 0), (2, 0), (0, 0))


def configure(module: Any, builder: Any) -> None:
    """All eight tiles hold 16 lines of 64 bytes."""
    words = array(builder, I64, 8)
    # palette 1; from byte 16 on bytes of a line, two bytes each; from byte 48 on lines, one byte each
    for i, word in enumerate((1, 0, *[0x0040_0040_0040_0040] * 2, 0, 0, 0x1010_1010_1010_1010, 0)):
        store(I64(word), words + 8 * i, 8)
    byte = BYTE.as_pointer()
    builder.call(intrinsic(module, "llvm.x86.ldtilecfg", ir.VoidType(), byte), [pointer(words, BYTE)])


def release(module: Any, builder: Any) -> None:
    """Give the registers back: a thread that holds them is slower to switch to."""
    builder.call(intrinsic(module, "llvm.x86.tilerelease", ir.VoidType()), [])


def tiles_function(module: Any) -> Any:
    """`tiles(a, behind, b, chunks, c, c row, rows, columns, add)`: one, two or four whole tiles of C."""
    name = "tile_tiles"
    if name in module.globals:
        return module.globals[name]
    made, builder, (a, behind, b, chunks, c, c_row, rows, columns, add) = function(module, name, 9)
    with builder.if_else(rows > LINES) as (two_down, one_down):
        for down, branch in ((2, two_down), (1, one_down)):
            with branch, builder.if_else(columns > LINES) as (two_across, one_across):
                for across, inner in ((2, two_across), (1, one_across)):
                    with inner:
                        _tiles(module, builder, down, across, (a, behind, b, chunks, c, c_row, add))
    builder.ret_void()
    return made


def _tiles(module: Any, builder: Any, down: int, across: int, given: Sequence[Int]) -> None:
    a, behind, b, chunks, c, c_row, add = given
    unit = _Unit(module, builder)
    places = [(2 * r + s, c + c_row * (LINES * r) + 64 * s) for r in range(down) for s in range(across)]
    with builder.if_else(add != 0) as (loads, clears):
        with loads:
            for tile, place in places:
                unit.load(tile, place, c_row)
        with clears:
            for tile, _ in places:
                unit.clear(tile)
    line, panel = Int(builder, 64), chunks * CHUNK
    with loop(0, panel, CHUNK) as at:
        lines_a = [a + behind * r + at for r in range(down)]
        lines_b = [b + panel * s + at for s in range(across)]
        before: tuple[int | None, int | None] = (None, None)
        for x, y in _PAIRS:
            # a load stands right before the first product that needs it
            fresh = set()
            order = [(r, s) for r in range(down) for s in range(across)]
            for r, s in order if before[1] == y else sorted(order, key=lambda rs: rs[::-1]):
                for operand, number, part, old in (("a", r, x, before[0]), ("b", s, y, before[1])):
                    if part != old and (operand, number) not in fresh:
                        fresh.add((operand, number))
                        source = (lines_a if operand == "a" else lines_b)[number]
                        unit.load((4 if operand == "a" else 6) + number, source + part * PART, line)
                unit.multiply(2 * r + s, 4 + r, 6 + s)
            before = x, y
    for tile, place in places:
        unit.store(tile, place, c_row)


class _Unit:
    """Instructions of the tile unit: tiles are numbers, memory is an address and the distance of lines in bytes."""

    def __init__(self, module: Any, builder: Any) -> None:
        self.module, self.builder = module, builder

    def _do(self, name: str, tiles: Sequence[int], *rest: Any) -> None:
        kinds = [BYTE] * len(tiles) + [value.type for value in rest]
        made = intrinsic(self.module, f"llvm.x86.{name}", ir.VoidType(), *kinds)
        self.builder.call(made, [*(BYTE(tile) for tile in tiles), *rest])

    def clear(self, tile: int) -> None:
        self._do("tilezero", [tile])

    def load(self, tile: int, address: Int, line: Int) -> None:
        self._do("tileloadd64", [tile], pointer(address, BYTE), line.value)

    def store(self, tile: int, address: Int, line: Int) -> None:
        self._do("tilestored64", [tile], pointer(address, BYTE), line.value)

    def multiply(self, to: int, a: int, b: int) -> None:
        self._do("tdpbf16ps", [to, a, b])


CHAIN_FLOPS = 4 * 2 * LINES * LINES * STEPS // len(_PAIRS)  # in a trip of `emit_chains`, of float32 operations


def emit_chains(trips: int, builder: Any, values: Sequence[Any]) -> None:
    """Products of tiles that wait for nothing: four chains."""
    module = builder.module
    unit = _Unit(module, builder)
    configure(module, builder)
    for tile in range(8):
        unit.clear(tile)
    with loop(0, Int(builder, trips)):
        for tile in range(4):
            unit.multiply(tile, 4 + tile // 2, 6 + tile % 2)
    release(module, builder)
