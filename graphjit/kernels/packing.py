"""Panels of B (or of A) copied to where the register tile wants them: `vectors` whole vectors a row of k.

A panel is dense and small: it stays in the first-level cache while all rows of A pass by, which rows of a large
matrix, a power of two apart, would not. Nothing outside the operand is touched; what lies behind its last
column does not matter to tiles.
"""

from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum
from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import (
    I32,
    Int,
    call,
    function,
    live_lanes,
    load,
    loop,
    masked_by,
    masked_load,
    store,
)
from graphjit.kernels.target import Element, target

FEW = 8  # rows that are taken apart out of dense memory


class Packing(IntEnum):
    """How B lies, and so how its panels are made."""

    NONE = 0  # rows contiguous, read where they are
    COPY = 1  # rows contiguous
    TRANSPOSE = 2  # columns contiguous
    GATHER = 3  # neither: number by number


def copy_function(module: Any, element: Element) -> Any:
    """`copy(source, row, panel, panel row, rows, columns)`: rows of contiguous numbers, filled up with zeros to whole
    vectors. (Whatever lay there could be denormal, and slow down all multiply-adds it gets into.)"""
    name = f"copy_{element.suffix}"
    if name in module.globals:
        return module.globals[name]
    made, b, (source, row, panel, panel_row, rows, columns) = function(module, name, 6)
    lanes, size, kind = element.lanes, element.size, element.vector
    whole = columns // lanes
    rest = columns - whole * lanes
    with loop(0, rows) as k:
        line, to = source + row * k, panel + panel_row * k
        with loop(0, whole) as j:
            store(load(line + j * (lanes * size), kind, size), to + j * (lanes * size), size)
        line, to = line + whole * (lanes * size), to + whole * (lanes * size)
        with b.if_then(rest > 0):
            if target().masks:
                store(masked_load(module, element, line, rest), to, size)
            else:
                store(ir.Constant(kind, None), to, size)
                with loop(0, rest) as n:
                    store(load(line + n * size, element.type, size), to + n * size, size)
    b.ret_void()
    return made


def gather_function(module: Any, element: Element) -> Any:
    """`gather(source, row, column, panel, panel row, rows, columns)`: any strides, one number at a time."""
    name = f"gather_{element.suffix}"
    if name in module.globals:
        return module.globals[name]
    made, b, (source, row, column, panel, panel_row, rows, columns) = function(module, name, 7)
    with loop(0, rows) as k, loop(0, columns) as n:
        value = load(source + row * k + column * n, element.type, element.size)
        store(value, panel + panel_row * k + n * element.size, element.size)
    b.ret_void()
    return made


def apart_function(module: Any, element: Element) -> Any:
    """`apart(source, panel, panel row, rows, columns)`: panel[i, j] = source[j, i], where the source is dense and has 2
    to FEW rows, and at least as many columns as a vector has numbers. The last vector may overlap the one before it."""
    name = f"apart_{element.suffix}"
    if name in module.globals:
        return module.globals[name]
    made, b, (source, panel, panel_row, rows, columns) = function(module, name, 5)
    lanes, size = element.lanes, element.size
    for count in range(2, FEW + 1):
        kind = ir.VectorType(element.type, count * lanes)
        with b.if_then(rows == count), loop(0, columns, lanes) as start:
            at = start.min(columns - lanes)
            found = load(source + at * (count * size), kind, size)
            for i in range(count):
                row = _shuffle(b, found, ir.Constant(kind, ir.Undefined), list(range(i, count * lanes, count)))
                store(row, panel + panel_row * i + at * size, size)
    b.ret_void()
    return made


def transpose_function(module: Any, element: Element) -> Any:
    """`transpose(source, line, panel, panel row, rows, columns)`: panel[k, n] = source[n, k] for n < lanes.

    Blocks of lanes x lanes numbers, then of lanes x 128 bits, are transposed in registers; where columns are few,
    blocks are narrower, and zeros fill the vectors. Fewer columns than a block has repeat the last one; the last block
    of rows overlaps the one before it, so `rows` is 128 bits or more.
    """
    name = f"transpose_{element.suffix}"
    if name in module.globals:
        return module.globals[name]
    made, b, (source, line, panel, panel_row, rows, columns) = function(module, name, 6)
    lanes, size = element.lanes, element.size
    part = 16 // size  # numbers in 128 bits, within which shuffles are cheapest
    kind = ir.VectorType(element.type, part)

    def transpose(lines: list[Int], k: Int, depth: int) -> None:
        # Row i of the blocks is lines i, i + part, ... side by side. All parts of a line are loaded together: there
        # are more lines than registers for their addresses.
        blocks: list[list[Any]] = [[] for _ in range(depth // part)]
        for i in range(part):
            pieces = [[load(lines[n] + (k + at) * size, kind, size) for at in range(0, depth, part)]
                      for n in range(i, len(lines), part)]  # fmt: skip
            for block, piece in zip(blocks, zip(*pieces, strict=True), strict=True):
                block.append(_side_by_side(b, list(piece)))
        to = panel + panel_row * k
        for block in blocks:
            for column in _transpose_parts(b, block, part):
                store(_filled_up(b, column, lanes), to, size)
                to = to + panel_row

    done = b.append_basic_block("done")
    for count in (part, 2 * part):
        if count < lanes:
            with b.if_then(columns <= count):
                lines = [source + line * (columns - 1).min(n) for n in range(count)]
                with loop(0, rows, part) as k:
                    transpose(lines, k.min(rows - part), part)
                b.branch(done)
    lines = [source + line * (columns - 1).min(n) for n in range(lanes)]
    whole = rows // lanes * lanes
    with loop(0, whole, lanes) as k:
        transpose(lines, k, lanes)
    with loop(whole, rows, part) as k:
        transpose(lines, k.min(rows - part), part)
    b.branch(done)
    b.position_at_end(done)
    b.ret_void()
    return made


def across(b: Any, element: Element, lines: Sequence[Int]) -> list[Any]:
    """As many columns as there are numbers in 128 bits, each as a vector of all lines."""
    part = 16 // element.size
    kind = ir.VectorType(element.type, part)
    rows = [_side_by_side(b, [load(line, kind, element.size) for line in lines[i::part]]) for i in range(part)]
    return list(_transpose_parts(b, rows, part))


def _filled_up(b: Any, x: Any, lanes: int) -> Any:
    """A vector that starts with x and goes on with zeros."""
    count = x.type.count
    if count == lanes:
        return x
    return _shuffle(b, x, ir.Constant(x.type, None), list(range(count)) + [count] * (lanes - count))


def _shuffle(b: Any, x: Any, y: Any, order: list[int]) -> Any:
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(order)), order))


def _side_by_side(b: Any, parts: list[Any]) -> Any:
    while len(parts) > 1:
        parts = [_shuffle(b, x, y, list(range(2 * x.type.count)))
                 for x, y in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _transpose_parts(b: Any, rows: list[Any], part: int) -> list[Any]:
    """Transpose each part x part block of `part` vectors, all blocks at once."""

    def interleave(x: Any, y: Any, half: int, width: int) -> Any:
        """Of each block the low or high half of x and y, groups of `width` numbers in turn."""
        order = []
        for block in range(0, x.type.count, part):
            for group in range(block + half * part // 2, block + (half + 1) * part // 2, width):
                order += [*range(group, group + width), *range(x.type.count + group, x.type.count + group + width)]
        return _shuffle(b, x, y, order)

    if part == 2:
        return [interleave(rows[0], rows[1], half, 1) for half in (0, 1)]
    low, high = ([interleave(rows[i], rows[i + 1], half, 1) for i in (0, 2)] for half in (0, 1))
    return [interleave(x, y, half, 2) for x, y in (low, high) for half in (0, 1)]


def pack_function(module: Any, element: Element) -> Any:
    """`pack(kind, source, row, column, panel, panel row, rows, columns)`: a panel by its `Packing`."""
    name = f"pack_{element.suffix}"
    if name in module.globals:
        return module.globals[name]
    transpose, copy = transpose_function(module, element), copy_function(module, element)
    gather = gather_function(module, element)
    made, b, arguments = function(module, name, 8)
    kind, source, row, column, panel, panel_row, rows, columns = arguments
    fits = b.and_(kind == Packing.TRANSPOSE, rows >= 16 // element.size)
    with b.if_else(fits) as (transposed, other):
        with transposed, loop(0, columns, element.lanes) as n:
            to: Int = panel + n * element.size
            call(transpose, b, [source + column * n, column, to, panel_row, rows, columns - n])
        with other, b.if_else(kind == Packing.COPY) as (contiguous, strided):
            with contiguous:
                call(copy, b, [source, row, panel, panel_row, rows, columns])
            with strided:
                # zeros behind the last column, as copy leaves them
                with loop(0, rows) as k:
                    end = (columns - 1) // element.lanes * (element.lanes * element.size)
                    store(ir.Constant(element.vector, None), panel + panel_row * k + end, element.size)
                call(gather, b, [source, row, column, panel, panel_row, rows, columns])
    b.ret_void()
    return made


def scatter_function(module: Any, element: Element) -> Any:
    """`scatter(tile, tile row, target, row, column, rows, columns)`: the reverse of gather, for a strided C.

    Where columns of the target are contiguous, blocks are transposed in registers. (Rows of the tile are whole vectors,
    and there is room for as many as a block has.)
    """
    name = f"scatter_{element.suffix}"
    if name in module.globals:
        return module.globals[name]
    made, b, (tile, tile_row, to, row, column, rows, columns) = function(module, name, 7)
    size, part, lanes = element.size, 16 // element.size, element.lanes

    def one_by_one(rows: Int, tile: Int = tile, to: Int = to) -> None:
        # a loop over the longer side within one over the other
        upright = rows > columns
        outer, inner = columns.where(upright, rows), rows.where(upright, columns)
        far, near = Int(b, size).where(upright, tile_row), tile_row.where(upright, size)
        far_to, near_to = column.where(upright, row), row.where(upright, column)
        with loop(0, outer) as i:
            source, target = tile + far * i, to + far_to * i
            with loop(0, inner) as j:
                store(load(source + near * j, element.type, size), target + near_to * j, size)

    def block(height: int, first_row: Int, first: Int) -> list[Any]:
        """A whole vector of columns, as vectors of so many rows."""
        lines = [load(tile + tile_row * (first_row + r) + first * size, element.vector, size) for r in range(height)]
        # a column is in 128 bits of each group, as many columns apart; those of two groups come side by side
        above, *below = (_transpose_parts(b, lines[at : at + part], part) for at in range(0, height, part))
        found = {}
        for start in range(0, lanes, height):
            for q, x in enumerate(above):
                columns = range(start, min(start + height, lanes), part)
                if below:
                    x = _shuffle(b, x, below[0][q], [i for at in columns for other in (at, lanes + at)
                                                     for i in range(other, other + part)])  # fmt: skip
                for n, at in enumerate(columns):
                    found[at + q] = _shuffle(b, x, x, list(range(n * height, (n + 1) * height)) if below
                                             else list(range(at, at + part)))  # fmt: skip
        return [found[at] for at in range(lanes)]

    def blocks(height: int, first_row: Int, masked: bool) -> None:
        """So many rows, or what there is of them."""
        part_of = replace(element, lanes=height)
        live = live_lanes(b, height, rows - first_row) if masked else None
        line, whole = to + first_row * size, columns // lanes * lanes
        rest = columns - whole
        with loop(0, whole, lanes) as n:
            for at, value in enumerate(block(height, first_row, n)):
                masked_by(module, part_of, value, line + column * (n + at), live)
        with b.if_then(rest > 0):
            values = block(height, first_row, whole)
            for group in range(0, lanes, part):
                with b.if_then(rest > group):
                    # columns that are not there go where the last one goes, before it does
                    for at in reversed(range(group, group + part)):
                        masked_by(module, part_of, values[at], line + column * (whole + (rest - 1).min(at)), live)

    with b.if_else(b.and_(row == size, rows > 1)) as (dense, strided):
        with dense:
            masks = target().masks
            end = rows // part * part
            with loop(0, rows if masks else end, 2 * part) as i:
                left = rows - i
                with b.if_else(left > part if masks else left >= 2 * part) as (high, low):
                    with high:
                        blocks(2 * part, i, masks)
                    with low, b.if_then(left >= part):
                        blocks(part, i, False)
            if masks:
                with b.if_then(b.and_(rows > end, (rows & part) == 0)):
                    blocks(part, end, True)
            else:
                one_by_one(rows - end, tile + tile_row * end, to + end * size)
        with strided:
            one_by_one(rows)
    b.ret_void()
    return made
