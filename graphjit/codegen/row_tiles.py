"""Nests that fold short rows: the column form, with some rows at once as the lanes of vectors.

    for each block of rows:
        bring what is read to tiles: number c of row r lies at tile[c * lanes + r]
        the stages, whose innermost loop runs over the lanes
        bring what is stored from tiles to its place

One row fills no vector well, and to join the lanes of one takes as long as a dear function of all its numbers.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from graphjit.codegen.access import Access
from graphjit.codegen.reach import Reach, Spot
from graphjit.codegen.source import Body, load, store
from graphjit.kernels.row_tiles import BEHIND, mover
from graphjit.types import DType

if TYPE_CHECKING:
    from graphjit.codegen.loops import LoopWriter


class RowTiles(Reach):
    """The tiles of a nest in the making: of what is read by row, and of what is stored. Some have a number for each row
    only."""

    def __init__(self, w: LoopWriter) -> None:
        super().__init__(w)
        self.rows = len(w.loops) - 1
        self.along = self.rows - 1
        self.tiles: dict[tuple[Access, bool], str] = {}  # and whether they are stored

    def turn(self, k: int, body: Body) -> str:
        """Of the loop over rows, the number of the lane's row; lanes behind the last one are of that."""
        if k != self.rows:
            return super().turn(k, body)
        known = body.find("row")
        if known is None:
            known = self.w.fresh("r")
            body.add(f"{known} = block + minimum(i{k}, rows - 1)")
            body.known["row"] = known
        return known

    def source(self, a: Access, body: Body) -> Spot:
        """In a tile, if it differs from row to row."""
        return self._tile(a, stored=False) if self._stride(a, self.rows) else super().source(a, body)

    def destination(self, a: Access, body: Body) -> Spot:
        return self._tile(a, stored=True)

    def stored(self, a: Access, body: Body, key: Hashable) -> str:
        return self.w.named(load(*self._tile(a, stored=True), a.buffer.type.dtype), body, key)

    def _tile(self, a: Access, stored: bool) -> Spot:
        """The tile of an access, and the index in it."""
        w, long, key = self.w, self._long(a), (a, stored)
        if key not in self.tiles:
            self.tiles[key] = w.arguments.scratch(("tile", *key), [self.along] if long else [], a.buffer.type.dtype,
                                                  w.row_lanes, BEHIND if long else 0)
        lane = f"i{self.rows}"
        return self.tiles[key], f"i{self.along} * {w.row_lanes} + {lane}" if long else lane

    def scratch(self, key: object, loops: Sequence[int], dtype: DType) -> str:
        return self.w.arguments.scratch(key, [k for k in loops if k != self.rows], dtype, self.w.row_lanes)

    def span(self, k: int) -> str:
        return str(self.w.row_lanes)

    def header(self, k: int, split: bool) -> str:
        return f"for i{k} in lanes({self.w.row_lanes}):" if k == self.rows else super().header(k, split)

    def stages(self, out: Body) -> Body:
        return Body(out.axes, out)

    def around(self, stages: Body, out: Body, split: bool) -> None:
        """Put the loop over blocks around the stages."""
        w, inner = self.w, Body(out.axes, out)
        begin, end = ("start", "stop") if split else ("0", w.arguments.extent(self.rows))
        inner.add(f"rows = minimum({end} - block, {w.row_lanes})")
        self._move_all(inner, stored=False)
        inner.lines += stages.lines
        self._move_all(inner, stored=True)
        out.nest([f"for block in range({begin}, {end}, {w.row_lanes}):"], inner.lines)

    def _move_all(self, body: Body, stored: bool) -> None:
        for (a, is_stored), tile in self.tiles.items():
            if is_stored == stored:
                self._move(body, a, tile, stored)

    def _move(self, body: Body, a: Access, tile: str, stored: bool) -> None:
        w, dtype = self.w, a.buffer.type.dtype
        pointer, stride = w.arguments.pointer(a.buffer, a.offset, writes=stored), w.stride(a, self.rows)
        outer = [f"i{k} * {w.stride(a, k)}" for k in range(self.along) if self._stride(a, k)]
        first = " + ".join([*outer, f"block * {stride}"])
        if self._long(a):
            name = "from_lanes" if stored else "to_lanes"
            code = w.arguments.entry(mover(name, 1 if dtype.kind == "b" else dtype.itemsize))
            body.add(f"{name}({code}, {pointer}, {first}, {stride}, rows, {w.arguments.extent(self.along)}, {tile}, "
                     f"{w.row_lanes})")
            return
        here = f"{first} + lane * {stride}"
        if stored:
            body.nest(["for lane in range(rows):"], [store(pointer, here, load(tile, "lane", dtype), dtype)])
            return
        there = f"{first} + minimum(lane, rows - 1) * {stride}"
        body.nest([f"for lane in lanes({w.row_lanes}):"], [store(tile, "lane", load(pointer, there, dtype), dtype)])

    def _stride(self, a: Access, k: int) -> int:
        return a.strides[self.w.loops[k].axes[-1]]

    def _long(self, a: Access) -> bool:
        return bool(self._stride(a, self.along))
