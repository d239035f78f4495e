"""The tile unit of a CPU (Intel AMX): eight registers of 16 lines of 64 bytes, and products of bfloat16 numbers between
them, added up in float32."""

from collections.abc import Callable, Iterator, Sequence
from itertools import count, product
from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import I64, Int, call, function, intrinsic, load, loop, pointer, store
from graphjit.kernels.follower import follow_function
from graphjit.kernels.split import CHUNK, LINES, PART, STEPS
from graphjit.kernels.split_ahead import Work, unit_function
from graphjit.kernels.target import Element
from graphjit.kernels.tiles import array

BYTE = ir.IntType(8)
# Parts of A and B that are multiplied, each pair another in one operand only: small products first.
_TURNS = (0, 4, 2, 5, 1, 6, 3, 7)  # of units within a chunk of products, which of a share stand where
_FOLLOWING = 12  # behind which product of a chunk what follows takes its turn
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


def tiles_function(module: Any, element: Element) -> Any:
    """`tiles(a, behind, b, b behind, chunks, c, c row, rows, columns, add, work, follower)`: one, two or four whole
    tiles of C; `work` is the state of what is split meanwhile (see `split_ahead`), `follower` that of what is done to
    C (see `follower`), or 0."""
    name = "tile_tiles"
    if name in module.globals:
        return module.globals[name]
    made, builder, (*given, rows, columns, add, work, follower) = function(module, name, 12)
    for down, across in _shapes(builder, rows, columns):
        _tiles(module, element, builder, down, across, (*given, add, work, follower))
    builder.ret_void()
    return made


def _tiles(module: Any, element: Element, builder: Any, down: int, across: int, given: Sequence[Int]) -> None:
    a, behind, b, b_behind, chunks, c, c_row, add, work, follower = given
    unit = _Unit(module, builder)
    places = [(2 * r + s, c + c_row * (LINES * r) + 64 * s) for r in range(down) for s in range(across)]
    unit.begin(places, c_row, add)
    share = Work(builder, work)["share"]

    def between(product: int) -> None:
        if product % 3 == 2:
            with builder.if_then(share > _TURNS[product // 3]):
                call(unit_function(module, element), builder, [work])
        if product == _FOLLOWING:
            with builder.if_then(follower != 0):
                call(follow_function(module), builder, [follower])

    with loop(0, chunks * CHUNK, CHUNK) as at:
        parts_a = [[a + behind * r + at + part * PART for part in range(3)] for r in range(down)]
        unit.multiply_chunk(parts_a, Int(builder, 64), [b + b_behind * s + at for s in range(across)],
                            between if down == across == 2 else None)
    for tile, place in places:
        unit.store(tile, place, c_row)


def taps_function(module: Any) -> Any:
    """`taps(a, row, part, table, b, steps, c, c row, rows, columns, add)`: one, two or four whole tiles of sums over
    chunks of A that lie anywhere: in the table are bytes from `a` on. Rows of A, and its three parts, have their
    distances."""
    name = "tile_taps"
    if name in module.globals:
        return module.globals[name]
    made, builder, (a, row, part, table, b, steps, c, c_row, rows, columns, add) = function(module, name, 11)
    unit = _Unit(module, builder)
    for down, across in _shapes(builder, rows, columns):
        places = [(2 * r + s, c + c_row * (LINES * r) + 64 * s) for r in range(down) for s in range(across)]
        unit.begin(places, c_row, add)
        panel = steps * CHUNK
        with loop(0, steps) as step:
            there = a + Int(builder, load(table + step * 8, I64, 8))
            parts_a = [[there + row * (LINES * r) + part * p for p in range(3)] for r in range(down)]
            unit.multiply_chunk(parts_a, row, [b + panel * s + step * CHUNK for s in range(across)])
        for tile, place in places:
            unit.store(tile, place, c_row)
    builder.ret_void()
    return made


def _shapes(builder: Any, rows: Int, columns: Int) -> Iterator[tuple[int, int]]:
    """How many tiles down and across so many rows and columns are: what is emitted for each runs if they are these."""
    with builder.if_else(rows > LINES) as (two_down, one_down):
        for down, branch in ((2, two_down), (1, one_down)):
            with branch, builder.if_else(columns > LINES) as (two_across, one_across):
                for across, inner in ((2, two_across), (1, one_across)):
                    with inner:
                        yield down, across


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

    def begin(self, places: Sequence[tuple[int, Int]], line: Int, add: Int) -> None:
        """Tiles from memory, if something is to be added to it, or else zero."""
        with self.builder.if_else(add != 0) as (loads, clears):
            with loads:
                for tile, place in places:
                    self.load(tile, place, line)
            with clears:
                for tile, _ in places:
                    self.clear(tile)

    def multiply_chunk(self, a: Sequence[Sequence[Int]], a_line: Int, b: Sequence[Int],
                       between: Callable[[int], None] | None = None) -> None:
        """Add products of chunks to one, two or four tiles; A's are the addresses of their parts. `between` emits what
        runs behind each product, given its number."""
        line, order = Int(self.builder, 64), list(product(range(len(a)), range(len(b))))
        before: tuple[int | None, int | None] = (None, None)
        products = count()
        for x, y in _PAIRS:
            # a load stands right before the first product that needs it
            fresh = set()
            for r, s in order if before[1] == y else sorted(order, key=lambda rs: rs[::-1]):
                if x != before[0] and ("a", r) not in fresh:
                    self.load(4 + r, a[r][x], a_line)
                if y != before[1] and ("b", s) not in fresh:
                    self.load(6 + s, b[s] + y * PART, line)
                fresh |= {("a", r), ("b", s)}
                self.multiply(2 * r + s, 4 + r, 6 + s)
                if between is not None:
                    between(next(products))
            before = x, y


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
