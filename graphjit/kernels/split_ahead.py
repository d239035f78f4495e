"""Panels of a tile product's operands, split while tiles that are ready are multiplied.

A tile product keeps the core waiting for most of its 16 cycles, and splitting 32 numbers takes about 11 on the vector
units. So panels, 32 lines of an operand each, are split in units of some 50 cycles, of which `tile_unit` runs a few
within each step of its products: what is left of a panel when the products are done is little.

The state of that work is some int64 words in memory.
"""

from collections.abc import Sequence
from typing import Any

from graphjit.kernels.emit import I64, Int, call, function, load, loop, store
from graphjit.kernels.packing import across
from graphjit.kernels.slots import Words
from graphjit.kernels.split import CHUNK, FLOATS, LINES, STEPS, collect, split_function, store_pair
from graphjit.kernels.target import Element
from graphjit.kernels.tiles import array

WORDS = (
    "is_a",                 # which operand it is
    "next", "units",        # how many units are done, and how many there are of whole chunks
    "source", "line", "step", "turned",  # where the panel is, the rest as `split_function` takes it
    "near", "far",          # of line and step the one from vector to vector of a unit, and the other one
    "lines", "depth", "to", "behind",
    "share",                # units that are to run within a step of a product
    "largest",
)  # fmt: skip
UNITS = 8    # of 32 steps of k of a panel
VECTORS = 4  # pairs that a unit splits


class Work(Words):
    """The state of one operand's work."""

    def __init__(self, builder: Any, base: Int | None = None) -> None:
        super().__init__(builder, WORDS, array(builder, I64, len(WORDS)) if base is None else base)

    def begin(self, source: Int, lines: Int, to: Int, steps: Int) -> None:
        """Take up the next panel, which is to be done within so many steps of products."""
        units = (self["depth"] // STEPS * UNITS).where(lines == 2 * LINES, 0)
        self.set(source=source, lines=lines, to=to, next=0, units=units, share=(units + steps - 1) // steps)


def split_lines(module: Any, element: Element, is_a: Int, arguments: Sequence[Int]) -> None:
    """Call `split_function` for operand A or B."""
    builder = is_a.builder
    with builder.if_else(is_a != 0) as (of_a, of_b):
        for which, branch in (("a", of_a), ("b", of_b)):
            with branch:
                call(split_function(module, element, which), builder, arguments)


def finish_function(module: Any, element: Element) -> Any:
    """`finish(state)`: split what is left of a panel."""
    name = "split_finish"
    if name in module.globals:
        return module.globals[name]
    made, b, (address,) = function(module, name, 1)
    work = Work(b, address)
    with loop(work["next"], work["units"]):
        call(unit_function(module, element), b, [address])
    done, depth = work["units"] // UNITS, work["depth"]
    with b.if_then(done * STEPS < depth):
        line, step, turned, lines, behind, largest = (
            work[name] for name in ("line", "step", "turned", "lines", "behind", "largest"))  # fmt: skip
        split_lines(module, element, work["is_a"], [
            work["source"] + step * STEPS * done, line, step, turned, lines, depth - done * STEPS,
            work["to"] + done * CHUNK, behind, largest])  # fmt: skip
    b.ret_void()
    return made


def unit_function(module: Any, element: Element) -> Any:
    """`unit(state)`: run the next unit, if there is one."""
    name = "split_unit"
    if name in module.globals:
        return module.globals[name]
    made, b, (address,) = function(module, name, 1)
    work = Work(b, address)
    number = work["next"]
    with b.if_then(number < work["units"]):
        work.set(next=number + 1)
        near, far, largest = work["near"], work["far"], work["largest"]
        part, group, chunk = number & 3, (number >> 2) & 1, number >> 3
        first = work["source"] + work["step"] * STEPS * chunk + work["line"] * LINES * group + near * VECTORS * part
        second = first + work["step"] * (STEPS // 2)
        to = work["to"] + work["behind"] * group + chunk * CHUNK + part * (64 * VECTORS)
        with b.if_else(work["turned"] != 0) as (turned, upright):
            with turned:
                pairs = [across(b, element, [place + far * n for n in range(LINES)]) for place in (first, second)]
                _split(module, pairs, to, largest)
            with upright:
                pairs = [[load(place + near * i, FLOATS, 4) for i in range(VECTORS)] for place in (first, second)]
                _split(module, pairs, to, largest)
    b.ret_void()
    return made


def _split(module: Any, vectors: Sequence[Sequence[Any]], to: Int, largest: Int) -> None:
    """Split vectors of the first 16 steps, and of the others, of a chunk."""
    found = load(largest, FLOATS, 64)
    for i, pair in enumerate(zip(*vectors, strict=True)):
        found = collect(module, to.builder, found, pair)
        store_pair(to.builder, pair, to + i * 64)
    store(found, largest, 64)
