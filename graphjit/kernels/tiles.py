"""The register tiles of this machine, and panels of C cut into them.

All tiles' addresses stand in a table by width and height: a panel is two calls, of a tile that steps down it and of
the one for the rows that are left.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from graphjit.kernels import assembly, microkernel
from graphjit.kernels.emit import I64, Int, call, function, load, loop, only_if, store
from graphjit.kernels.microkernel import NEVER, TILE, Frame
from graphjit.kernels.packing import gather_function, scatter_function
from graphjit.kernels.register_loop import ROOM
from graphjit.kernels.target import Element, target


@dataclass(frozen=True)
class TileShape:
    """`heights[v - 1]`: rows of the tallest tile of v vectors; `packing`: rows and most vectors of tiles that pack."""

    heights: tuple[int, ...]
    packing: tuple[int, int]

    @property
    def broadest(self) -> int:
        return len(self.heights)

    @property
    def names(self) -> dict[str, tuple[int, int, bool]]:
        """Height, width and whether it packs, of all tiles by name."""
        rows, most = self.packing
        found = {f"{height}x{vectors}": (height, vectors, False) for vectors, tallest in enumerate(self.heights, 1)
                 for height in range(1, tallest + 1)}  # fmt: skip
        return found | {f"{rows}x{vectors}p": (rows, vectors, True) for vectors in range(1, most + 1)}


@functools.cache
def tile_shape() -> TileShape:
    """Tiles that fill the registers. Few rows take broad tiles: each k then has enough independent sums."""
    if target().assembly:
        return TileShape((21, 14, 9, 6, 5, 4, 3, 3), (14, 2))
    if target().registers == 32:
        return TileShape((12, 10, 8, 1, 1, 1, 1, 1), (8, 3))
    return TileShape((12, 6, 1, 1), (6, 2))


def balanced(length: int, limit: int) -> int:
    """Blocks of at most `limit`, all nearly as large."""
    return max(1, ceil(length / max(1, ceil(length / limit))))


def tile_heights(rows: int, heights: Sequence[int] | None = None) -> int:
    """The height of the tiles that so many rows are cut into, a byte for each width."""
    return sum(balanced(rows, tallest) << 8 * i for i, tallest in enumerate(heights or tile_shape().heights))


def panel_row(element: Element) -> int:
    """Bytes of a row of a packed panel."""
    return tile_shape().packing[1] * element.lanes * element.size


def array(builder: Any, kind: Any, length: int) -> Int:
    """The address of an array on the stack."""
    made = builder.alloca(ir.ArrayType(kind, length))
    made.align = 64
    return Int(builder, builder.ptrtoint(made, I64))


def tile_array(builder: Any, element: Element) -> Int:
    """The address of an array on the stack that holds any tile, its rows filled up to whole blocks of `scatter`."""
    unit = 16 // element.size
    most = max(ceil(height / unit) * unit * vectors for vectors, height in enumerate(tile_shape().heights, 1))
    return array(builder, element.type, most * element.lanes)


class FrameArray:
    """The array that tells tiles what does not change between them, by `Frame`."""

    def __init__(self, address: Int) -> None:
        self.address = address

    @classmethod
    def new(cls, builder: Any) -> "FrameArray":
        made = cls(array(builder, I64, Frame.A_ROW + max(tile_shape().heights) // 2))
        made[Frame.SOON_EVERY], none = Int(builder, NEVER), Int(builder, 0)
        made[Frame.BIAS] = made[Frame.FOLLOWER] = made[Frame.NEAR] = none
        return made

    def set_a(self, row: Int, column: Int) -> None:
        """Strides of A. (Beside them tiles need the step from one to the next.)"""
        self[Frame.A_COL], self[Frame.A_ROW] = column, row
        if not target().assembly:
            for i in range(3, max(tile_shape().heights), 2):
                self[Frame.A_ROW + i // 2] = row * i

    def __getitem__(self, field: int) -> Int:
        return Int(self.address.builder, load(self.address + 8 * field, I64, 8))

    def __setitem__(self, field: int, value: Int) -> None:
        store(value.value, self.address + 8 * field, 8)


# ---- the tiles ----------------------------------------------------------------------------------------------


def _tiles(module: Any, element: Element) -> dict[str, Any]:
    """All tiles, as functions of a module that they are added to."""
    prefix = f"tile_{element.suffix}_"
    shapes = {prefix + name: shape for name, shape in tile_shape().names.items()}
    if next(iter(shapes)) not in module.globals:
        if target().assembly:
            text = assembly.tiles(element, ((each, *shape) for each, shape in shapes.items()))
            assembled(module, prefix + "all", text, TILE, shapes)
        else:
            for name, (height, vectors, packs) in shapes.items():
                ahead = vectors == tile_shape().packing[1] and not packs  # those of most rows of large products
                microkernel.tile_function(module, element, name, height, vectors, packs, ahead)
    return {name.removeprefix(prefix): module.globals[name] for name in shapes}


def assembled(module: Any, name: str, text: str, kind: Any, names: Iterable[str]) -> list[Any]:
    """Functions of a module that assembly text defines, which is known by `name`."""
    llvm.initialize_native_asmparser()
    _Text(module, name, text)
    functions = [ir.Function(module, kind, each) for each in names]
    for each in functions:
        each.calling_convention = "x86_64_sysvcc"
    return functions


class _Text(ir.GlobalVariable):  # type: ignore[misc]  # llvmlite is untyped
    """Assembly as a part of a module. Modules of several kernels become one: the first of equal texts counts."""

    def __init__(self, module: Any, name: str, text: str) -> None:
        super().__init__(module, ir.IntType(8), name)
        self.text = f".ifndef {name}\n{name}:\n{text}\n.endif"

    def __str__(self) -> str:
        return 'module asm "' + self.text.replace("\n", "\\0A") + '"'


def tile_table(module: Any, name: str, kind: Any, widths: int, make: Callable[[], dict[tuple[int, int], Any]]) -> Any:
    """The addresses of tiles, of which `make` gives each by height and width, in lines of equal width."""
    if name not in module.globals:
        tiles, none = make(), ir.Constant(kind.as_pointer(), None)
        made = ir.GlobalVariable(module, ir.ArrayType(none.type, (widths + 1) * ROOM), name)
        places = [(height, width) for width in range(widths + 1) for height in range(ROOM)]
        made.initializer = ir.Constant(made.type.pointee, [tiles.get(place, none) for place in places])
        made.linkage, made.global_constant = "internal", True
    return module.globals[name]


def call_tile(table: Any, width: Int, height: Int, arguments: list[Int]) -> Int:
    """Call the tile that stands there in the table."""
    builder = width.builder
    place = Int(builder, builder.ptrtoint(table, I64)) + (width * ROOM + height) * 8
    return _call(load(place, table.type.pointee.element, 8), builder, arguments)


def _call(tile: Any, builder: Any, arguments: list[Int]) -> Int:
    cconv = "x86_64_sysvcc" if target().assembly else None
    return Int(builder, builder.call(tile, [argument.value for argument in arguments], cconv=cconv))


def packing_tile(element: Element, breadth: Int, place: list[Int]) -> None:
    """Run the packing tile of `breadth` vectors at (frame, a, b, c)."""
    builder = breadth.builder
    tiles = _tiles(builder.module, element)
    rows, most = tile_shape().packing
    tile = tiles[f"{rows}x{most}p"]
    for vectors in range(1, most):
        tile = builder.select(breadth == vectors, tiles[f"{rows}x{vectors}p"], tile)
    _call(tile, builder, [*place, Int(builder, rows)])


def call_panel(element: Element, detours: Any, place: list[Int], detour: list[Int]) -> None:
    """Compute a panel of C: `place` is (frame, breadth, tallest, rows, a, b, c). `detours`: where vectors cannot be
    stored to C, None for nowhere; `detour` is (c row, c column, buffer, columns)."""
    builder = place[0].builder
    module = builder.module
    if detours is None:
        call(panel_function(module, element), builder, place)
        return
    with builder.if_else(detours, likely=False) as (indirect, direct):
        with indirect:
            call(detour_function(module, element), builder, [*place, *detour])
        with direct:
            call(panel_function(module, element), builder, place)


def _table(module: Any, element: Element) -> Any:
    """The addresses of the tiles that do not pack by height and width."""
    tiles, shapes = _tiles(module, element), tile_shape().names
    return tile_table(module, f"tiles_{element.suffix}", TILE, tile_shape().broadest, lambda: {
        shapes[each][:2]: tile for each, tile in tiles.items() if not shapes[each][2]})  # fmt: skip


def panel_function(module: Any, element: Element) -> Any:
    """`panel(frame, breadth, tallest, rows, a, b, c)`: rows of C, `breadth` vectors each, in tiles of the tallest
    height and one of what is left."""
    name = f"panel_{element.suffix}"
    if name in module.globals:
        return module.globals[name]
    table = _table(module, element)
    made, builder, (address, breadth, tallest, rows, a, b, c) = function(module, name, 7)
    frame = FrameArray(address)

    def tile(height: Int, *place: Int) -> Int:
        return call_tile(table, breadth, height, [address, *place])

    frame[Frame.A_NEXT], frame[Frame.C_NEXT] = a, c
    (left,) = only_if(rows >= tallest, [rows], lambda: [tile(tallest, a, b, c, rows)])
    with builder.if_then(left > 0):
        tile(left, frame[Frame.A_NEXT], b, frame[Frame.C_NEXT], left)
    builder.ret_void()
    return made


def detour_function(module: Any, element: Element) -> Any:
    """`detour(frame, breadth, tallest, rows, a, b, c, c row, c column, buffer, columns)`: as `panel`, where vectors
    cannot be stored to C: each tile lies in a buffer on its way. Sets the frame's row of C."""
    name = f"detour_{element.suffix}"
    if name in module.globals:
        return module.globals[name]
    table, gather, scatter = (make(module, element) for make in (_table, gather_function, scatter_function))
    made, builder, given = function(module, name, 11)
    address, breadth, tallest, rows, a, b, c, c_row, c_col, buffer, columns = given
    frame, row = FrameArray(address), breadth * (element.lanes * element.size)
    frame[Frame.C_ROW], frame[Frame.A_NEXT] = row, a
    with loop(0, rows, tallest) as i:
        height, to = tallest.min(rows - i), c + c_row * i
        with builder.if_then(frame[Frame.ADD] != 0):
            call(gather, builder, [to, c_row, c_col, buffer, row, height, columns])
        call_tile(table, breadth, height, [address, frame[Frame.A_NEXT], b, buffer, height])
        call(scatter, builder, [buffer, row, to, c_row, c_col, height, columns])
    builder.ret_void()
    return made
