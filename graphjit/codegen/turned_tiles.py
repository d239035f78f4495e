"""Nests without folds that read what lies apart along the innermost loop, and together along another one.

    for each block of turns of both:
        bring what is read so to tiles: what the innermost loop reads at once lies together there
        the loops over the block

A loop over the buffer itself would load numbers one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphjit.codegen.access import LINE, Access, Loop
from graphjit.codegen.reach import Reach, Spot
from graphjit.codegen.source import Body
from graphjit.kernels.row_tiles import mover
from graphjit.types import Extent, is_one

if TYPE_CHECKING:
    from graphjit.codegen.loops import LoopWriter

ROWS = 64  # turns of the other loop in a block
FEWEST = 4  # turns of it: those of a line are turned by fours, in half to a quarter of the time of single ones
MOVED = (4, 8)  # bytes of numbers that tiles are made of by shuffles


def is_long(loop: Loop, least: int = LINE) -> bool:
    """Whether a loop's turns fill a line, or are at least so many, for all that is known: how many the caller chose is
    not."""
    return isinstance(loop.extent, Extent) or loop.extent >= least


class TurnedTiles(Reach):
    """The tiles of a nest in the making.

    Attributes:
        near: the loop along which what is read lies together; None as long as nothing does so.
    """

    def __init__(self, w: LoopWriter) -> None:
        super().__init__(w)
        self.near: int | None = None
        self.tiles: dict[Access, str] = {}

    def source(self, a: Access, body: Body) -> Spot:
        if not self._is_apart(a):
            return super().source(a, body)
        w, last = self.w, len(self.w.loops) - 1
        if a not in self.tiles:
            self.tiles[a] = w.arguments.scratch(("tile", a), [], a.buffer.type.dtype, ROWS * LINE)
        return self.tiles[a], f"(i{self.near} - near) * {LINE} + i{last} - block"

    def _is_apart(self, a: Access) -> bool:
        """Whether an access is to be turned, which is decided by the first one that can be."""
        w, last = self.w, len(self.w.loops) - 1
        step = self._stride(a, last)
        if step in (0, 1) or a.buffer.type.dtype.itemsize not in MOVED:
            return False
        if self.near is None:
            found = [k for k in range(last) if is_one(self._stride(a, k)) and is_long(w.loops[k], FEWEST)]
            self.near = max(found, default=None)
        return self.near is not None and is_one(self._stride(a, self.near))

    def _stride(self, a: Access, k: int) -> int:
        return a.strides[self.w.loops[k].axes[-1]]

    def around(self, stages: Body, out: Body, split: bool) -> None:
        """Write the loops around the inside of the innermost but one."""
        w, near, last = self.w, self.near, len(self.w.loops) - 1
        assert near is not None
        headers = [self.header(k, split and k == 0) for k in range(last)]
        begin, end = ("start", "stop") if split and near == 0 else ("0", w.arguments.extent(near))
        headers[near] = f"for near in range({begin}, {end}, {ROWS}):"
        inner = Body(out.axes, out)
        inner.add(f"rows = minimum({w.arguments.extent(last)} - block, {LINE})")
        inner.add(f"turns = minimum({end} - near, {ROWS})")
        for a, tile in self.tiles.items():
            dtype, step = a.buffer.type.dtype, w.stride(a, last)
            others = [f"i{k} * {w.stride(a, k)}" for k in range(last) if k != near and self._stride(a, k)]
            first = " + ".join([*others, "near", f"block * {step}"])
            code = w.arguments.entry(mover("to_lanes", dtype.itemsize))
            inner.add(f"to_lanes({code}, {w.arguments.pointer(a.buffer, a.offset)}, {first}, {step}, rows, turns, "
                      f"{tile}, {LINE})")
        inner.nest([f"for i{near} in range(near, near + turns):"], stages.lines)
        out.nest([*headers, f"for block in range(0, {w.arguments.extent(last)}, {LINE}):"], inner.lines)
