"""Blocks of short rows brought to tiles in which rows are the lanes of vectors, and back: statements of loop kernels.

In a tile number c of row r lies at `c * lanes + r`.
"""

import functools
from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import ENTRY, I64, Int, call, load, loop, store
from graphjit.kernels.packing import gather_function, scatter_function, transpose_function
from graphjit.kernels.target import Element, target
from graphjit.runtime.kernel import IRKernel

SIZES = (1, 4, 8)  # bytes of a number
BEHIND = 8         # numbers of a row that are read, and not used, behind the last one in a tile
_BYTE = ir.IntType(8)
STATEMENTS = ("to_lanes", "from_lanes")


@functools.cache
def mover(name: str, size: int) -> IRKernel:
    """The kernel that a statement calls. Its slots: the address of the first row, numbers from one row to the next,
    rows, numbers of each, the address of a tile, its lanes. Lanes without a row get the last one's numbers, or zeros.
    """
    return IRKernel(f"{name}_{8 * size}", (target().vector, target().masks), 6, functools.partial(_emit, name, size))


def call_mover(code: Int, arguments: Sequence[Int]) -> None:
    b = code.builder
    with b.goto_entry_block():
        slots = b.alloca(I64, len(arguments))
    for i, value in enumerate(arguments):
        b.store(value.value, b.gep(slots, [I64(i)]))
    b.call(b.inttoptr(code.value, ENTRY.as_pointer()), [slots, I64(0), I64(0)])


def _emit(name: str, size: int, b: Any, values: Sequence[Any]) -> None:
    element = Element("", size, target().vector // size)  # all numbers of a size are moved alike
    module = b.module
    address, row, rows, length, tile, lanes = (Int(b, value) for value in values[:6])
    row, line = row * size, lanes * size
    if size == 1:
        there = name == "to_lanes"
        with loop(0, lanes if there else rows) as lane, loop(0, length) as n:
            place, number = tile + line * n + lane, address + row * lane.min(rows - 1) + n
            store(load(number if there else place, _BYTE, 1), place if there else number, 1)
    elif name == "to_lanes":
        with loop(0, lanes, element.lanes) as lane:
            first = lane.min(rows - 1)
            source, to = address + row * first, tile + lane * size
            with b.if_else(length >= 16 // size) as (enough, few):
                with enough:
                    call(transpose_function(module, element), b, [source, row, to, line, length, rows - first])
                with few, loop(0, Int(b, element.lanes)) as n:
                    call(gather_function(module, element), b,
                         [source + row * n.min(rows - first - 1), Int(b, size), row, to + n * size, line, length,
                          Int(b, 1)])
    else:
        with loop(0, rows, element.lanes) as lane:
            call(scatter_function(module, element), b,
                 [tile + lane * size, line, address + row * lane, Int(b, size), row, length,
                  (rows - lane).min(element.lanes)])


def to_lanes(code: int, numbers: Any, at: int, row: int, rows: int, length: int, tile: Any, lanes: int) -> None:
    """The statement in Python."""
    for c in range(length):
        for r in range(lanes):
            tile[c * lanes + r] = numbers[at + min(r, rows - 1) * row + c]


def from_lanes(code: int, numbers: Any, at: int, row: int, rows: int, length: int, tile: Any, lanes: int) -> None:
    """The statement in Python."""
    for c in range(length):
        for r in range(rows):
            numbers[at + r * row + c] = tile[c * lanes + r]
