"""The loops of a blocked product whose tiles fetch what is needed behind them: see `blocked_loops`."""

import functools
from typing import Any

from graphjit.kernels.blocked_loops import Block, Loops, Panel, Strip
from graphjit.kernels.emit import Int, call, loop, only_if, power_of_two
from graphjit.kernels.follower import LEAST, follow_function, rest_function
from graphjit.kernels.microkernel import LINE, NEVER, Frame
from graphjit.kernels.packing import Packing
from graphjit.kernels.tiles import panel_row, tile_shape


class LookingLoops(Loops):
    """For a B that is far away, one whose panels stay packed for all rows of A, or a follower.

    With a follower, strips are a few tiles, and panels of B stay packed for all of them.
    """

    def emit(self, start: Int, stop: Int) -> None:
        at, builder = self.at, self.builder
        self.follows, self.across = at["follower"] != 0, at["n"] + at["edge"]
        self.follower.take_up(at["follower"], self.follows, self.across, self.element.size)
        super().emit(start, stop)
        with builder.if_then(self.follows):
            call(rest_function(self.module), builder, [self.follower.base])

    def emit_rows(self, block: Block) -> None:
        at, row0, row1 = self.at, self.row0, self.row1
        with loop(row0, row1, at["a_block"]) as first:
            last = (first + at["a_block"]).min(row1)
            a = self.block_of_a(self.a + at["a_row"] * first + at["a_col"] * block.first, block.depth, last - first)
            with loop(first, last, at["m_block"]) as row:
                height = at["m_block"].min(last - row)
                strip = Strip(row, height, a + self.steps_of_a(block.depth, row - first), row == row0,
                              row + height == row1)
                [c] = only_if(self.follows, [self.c], functools.partial(self.buffer_less, row))
                self.emit_strip(block, strip, c)
                with self.builder.if_then(self.follows):
                    self.hand_on(strip)

    def hand_on(self, strip: Strip) -> None:
        at, follower = self.at, self.follower
        call(rest_function(self.module), self.builder, [follower.base])
        panels = (at["vectors"] + at["panel_vectors"] - 1) // at["panel_vectors"]
        follower.set(most=((strip.height * self.across + panels - 1) // panels).max(LEAST))
        follower.begin(self.buffer(strip.row), strip.height, self.across, self.across * strip.row)

    def panel(self, block: Block, strip: Strip, vector: Int, breadth: Int, columns: Int) -> Panel:
        at, builder = self.at, self.builder
        is_packed = builder.and_(at["panel_step"] != 0, builder.not_(strip.is_first))
        with builder.if_then(self.follows):
            self.fetch_for_follower(strip, block.depth)
        follows = builder.and_(is_packed, self.follows)
        with builder.if_then(builder.and_(at["far_b"] != 0, builder.not_(follows))):
            self.fetch_panel(block, strip, vector + breadth, is_packed)
        return Panel(vector, breadth, columns, self.place(vector), is_packed)

    def place(self, vector: Int) -> Int:
        """Where the panel that begins with this vector is packed."""
        return self.at["workspace"] + self.at["panel_step"] * (vector - self.vector0)

    def behind_panel(self) -> None:
        with self.builder.if_then(self.follows):
            call(follow_function(self.module), self.builder, [self.follower.base])

    def fetch_panel(self, block: Block, strip: Strip, behind: Int, is_packed: Any) -> None:
        """Have them fetch the next panel, or what it is packed from, a few lines each: lines so far apart would be
        waited for one by one. Two vectors of each row of B, or two columns for each tile."""
        at, builder, frame, depth = self.at, self.builder, self.frame, block.depth
        copies = builder.or_(at["b_packing"] == Packing.COPY, is_packed)
        row = at["tile_b_row"].where(is_packed, at["b_row"])
        # so often that all tiles together fetch all rows, in the steps that are not for what a follower reads
        steps = depth - frame[Frame.NEAR]
        often = (strip.height // self.tallest(2)).where(copies, LINE // self.element.size)
        narrow = panel_row(self.element) <= LINE  # two rows of it are two lines
        across, down = (row, row * 2) if narrow else (Int(builder, LINE), row)
        every = power_of_two((often * (1 + narrow)).where(copies, often) * steps // depth)
        over = behind == self.vector1
        on = at["k_block"].where(builder.and_(over, strip.is_last), 0)
        near = self.vector0.where(over, behind)
        frame[Frame.SOON] = self.place(near).where(is_packed, self.source(block.first + on, near))
        frame[Frame.SOON_OTHER] = across.where(copies, at["b_col"])
        frame[Frame.SOON_STEP] = down.where(copies, LINE)
        frame[Frame.SOON_TILE] = (down * (steps // every)).where(copies, at["b_col"] * 2)
        frame[Frame.SOON_EVERY] = every - 1

    def fetch_for_follower(self, strip: Strip, depth: Int) -> None:
        """Have them fetch what the follower's next call reads."""
        follower, frame = self.follower, self.frame
        near, other, size = follower["near"], follower["other"], follower["size"]
        steps = (strip.height // self.tallest(2)).max(1) * depth
        every = power_of_two(steps // (follower["most"] * size // LINE + 1))
        frame[Frame.SOON] = near + follower.place * size
        frame[Frame.SOON_OTHER], frame[Frame.SOON_STEP] = other.where(other != 0, near) - near, Int(self.builder, LINE)
        frame[Frame.SOON_TILE] = depth // every * LINE
        some = self.builder.and_(near != 0, follower["row"] < follower["rows"])
        frame[Frame.SOON_EVERY] = (every - 1).where(some, NEVER)

    def buffer(self, row: Int) -> Int:
        """Where the strip of C lies that begins with this row: two of them take turns."""
        at = self.at
        turn = (row - self.row0) // at["m_block"] % 2
        return at["workspace"] + at["strips"] + at["c_row"] * at["m_block"] * turn

    def buffer_less(self, row: Int) -> list[Int]:
        """Where C would have to lie for this row to be there."""
        return [self.buffer(row) - self.at["c_row"] * row]

    def steps_of_a(self, depth: Int, rows: Int) -> Int:
        """From the first row of a block of A to a later one, the first of a tile."""
        each = Int(self.builder, tile_shape().packing[0])
        packed = self.step_of_a(depth, each) * (rows // each)
        return packed.where(self.at["a_packing"] != 0, self.at["tile_a_row"] * rows)
