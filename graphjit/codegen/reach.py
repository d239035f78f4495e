"""How a nest in the making reaches its values: in the buffers where they lie. (`row_tiles` has another way.)"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from graphjit.codegen.access import Access
from graphjit.codegen.source import Body
from graphjit.types import DType

if TYPE_CHECKING:
    from graphjit.codegen.loops import LoopWriter

Spot = tuple[str, str]  # a pointer and an index, in the source


class Reach:
    """What `LoopWriter` asks where values come from and go to: their buffers."""

    def __init__(self, w: LoopWriter) -> None:
        self.w = w

    def turn(self, k: int, body: Body) -> str:
        """The number of a loop's turn."""
        return f"i{k}"

    def source(self, a: Access, body: Body) -> Spot:
        """Where a value is read."""
        return self.w.arguments.pointer(a.buffer, a.offset), self.w.index(a, body)

    def destination(self, a: Access, body: Body) -> Spot:
        """Where a value is stored."""
        return self.w.arguments.pointer(a.buffer, a.offset, writes=True), self.w.index(a, body)

    def stored(self, a: Access, body: Body, key: Hashable) -> str:
        """The name of a value that has been stored."""
        return self.w.read(a, body, key)

    def scratch(self, key: object, loops: Sequence[int], dtype: DType) -> str:
        """Memory for a value at each turn of some loops."""
        return self.w.arguments.scratch(key, loops, dtype)

    def span(self, k: int) -> str:
        """How many turns of a loop such memory has room for."""
        return self.w.arguments.extent(k)

    def header(self, k: int, split: bool) -> str:
        """Of a loop over all its turns, or those of the caller's share."""
        if split and self.w.cuts and k == len(self.w.loops) - 1:
            return self.w.header_of(k, "stop", "start")
        if split:
            return f"for i{k} in {'apart' if self.w.is_apart(k) else 'range'}(start, stop):"
        return self.w.header_of(k, self.w.arguments.extent(k))

    def stages(self, out: Body) -> Body:
        """What the stages of a column nest are written to."""
        return out

    def around(self, stages: Body, out: Body, split: bool) -> None:
        """Write what they need around them."""
