"""Operands of a tile product, split into three bfloat16 numbers an element.

A float32 x is high + middle + low, 8 bits of its 24 each: `high` is x rounded to a bfloat16, `middle` what remains of x
cut off after 8 bits, `low` the rest; all differences are exact. Of the nine partial products of two such sums
`tile_product` adds up the six that reach into float32's precision. (The idea: Henry, Tang, Heinecke, "Leveraging the
bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations", 2019.)

An operand is cut into *chunks*: 16 lines (rows of A, columns of B) by 32 steps of k, for each part 1 KB as the tile
unit wants it: k and k + 16 stand together; these pairs of a line one behind the other for A, those of 16 lines for B.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import F32, I32, Int, call, function, intrinsic, load, loop, masked_load, only_if, store
from graphjit.kernels.packing import transpose_function
from graphjit.kernels.target import Element
from graphjit.kernels.tiles import array

LINES, STEPS = 16, 32  # of a chunk
PART = 64 * LINES      # bytes of one part of a chunk
CHUNK = 3 * PART

_INTS = ir.VectorType(I32, 16)
FLOATS = ir.VectorType(F32, 16)
_HIGH_BITS = 0xFFFF0000
DOUBTFUL = 2.0**50  # where no number is as large, no sum of products overflows
_LARGER, _CURRENT_ROUNDING = I32(0b1011), I32(4)  # of two numbers the larger one's absolute value; not NaN


def split_function(module: Any, element: Element, which: str) -> Any:
    """`split(source, line, step, turned, lines, depth, to, behind, largest)`: operand "a" or "b" in chunks, those of
    the same lines together, `behind` bytes before those of the next ones.

    Strides are bytes from line to line and from one k to the next; `turned` says that the operand's contiguous
    direction is the other one than its chunks want (k for A, lines for B). What lies behind the last k is zero.
    The vector at `largest` collects the largest absolute values: from `DOUBTFUL` on products may have overflowed.
    """
    name = f"split_{which}"
    if name in module.globals:
        return module.globals[name]
    chunk = _chunk_function(module, which)
    turn = transpose_function(module, element)
    made, b, (source, line, step, turned, lines, depth, to, behind, largest) = function(module, name, 9)
    straight, across = (array(b, F32, LINES * STEPS) for _ in range(2))
    turned = turned != 0
    # an outer line of memory, as the chunk wants it or not, and the distance between those of a staged chunk
    wanted, other = (line, step) if which == "a" else (step, line)
    staged, staged_other = (4 * STEPS, 4 * LINES) if which == "a" else (4 * LINES, 4 * STEPS)
    with loop(0, lines, LINES) as first, loop(0, depth, STEPS) as k:
        here = source + line * first + step * k
        live, deep = (lines - first).min(LINES), (depth - k).min(STEPS)
        place = to + behind * (first // LINES) + k // STEPS * CHUNK
        whole = b.and_(live == LINES, deep == STEPS)
        outer, inner = (live, deep) if which == "a" else (deep, live)

        def turning() -> list[Int]:
            """Two square blocks are transposed."""
            ragged = [across, Int(b, staged_other)]

            def copied() -> list[Int]:
                _copy_edge(module, element, here, other, across, inner, outer, *_sides(which)[::-1])
                return ragged
            begin, apart = only_if(b.not_(whole), [here, other], copied)
            for half in range(2):
                # 16 lines, 32 k: blocks lie behind each other along k
                shift = (apart * (16 * half), 64 * half) if which == "a" else (64 * half, 16 * half * staged)
                call(turn, b, [begin + shift[0], apart, straight + shift[1], Int(b, staged), Int(b, 16), Int(b, 16)])
            return [straight, Int(b, staged)]

        def upright() -> list[Int]:
            def copied() -> list[Int]:
                _copy_edge(module, element, here, wanted, straight, outer, inner, *_sides(which))
                return [straight, Int(b, staged)]
            return only_if(b.not_(whole), [here, wanted], copied)

        direct = only_if(b.not_(turned), [straight, Int(b, staged)], upright)
        ready = only_if(turned, direct, turning)
        call(chunk, b, [*ready, place, largest])
    b.ret_void()
    return made


def _sides(which: str) -> tuple[int, int]:
    """Lines of memory of a chunk as it is wanted, and numbers in each."""
    return (LINES, STEPS) if which == "a" else (STEPS, LINES)


def _copy_edge(module: Any, element: Element, source: Int, line: Int, to: Int, count: Int, width: Int, height: int,
               breadth: int) -> None:
    """Copy `count` lines of `width` numbers into height x breadth zeros."""
    b = source.builder
    with loop(0, Int(b, height)) as r:
        for v in range(breadth // 16):
            live = (width - 16 * v).max(0).min(16).where(r < count, 0)
            store(masked_load(module, element, source + line * r + 64 * v, live), to + r * (4 * breadth) + 64 * v, 64)


def _chunk_function(module: Any, which: str) -> Any:
    """`chunk(source, line, to, largest)`: split a whole chunk, of dense lines of k for A, or of lines for B."""
    name = f"split_chunk_{which}"
    if name in module.globals:
        return module.globals[name]
    made, b, (source, line, to, largest) = function(module, name, 4)
    found = b.alloca(FLOATS)  # stays in a register, as nothing else may point there
    b.store(load(largest, FLOATS, 64), found)
    with loop(0, Int(b, 16)) as r:
        at = source + line * r
        pair = [load(at, FLOATS, 4), load(at + (64 if which == "a" else line * 16), FLOATS, 4)]
        b.store(collect(module, b, b.load(found), pair), found)
        store_pair(b, pair, to + r * 64)
    store(b.load(found), largest, 64)
    b.ret_void()
    return made


def collect(module: Any, b: Any, found: Any, vectors: Sequence[Any]) -> Any:
    """The largest absolute values of those found before and of some more vectors; NaN does not count."""
    kinds = [FLOATS, FLOATS, I32, FLOATS, ir.IntType(16), I32]
    larger = intrinsic(module, "llvm.x86.avx512.mask.range.ps.512", FLOATS, *kinds)
    for x in vectors:
        found = b.call(larger, [x, found, _LARGER, ir.Constant(FLOATS, None), ir.IntType(16)(-1), _CURRENT_ROUNDING])
    return found


def store_pair(b: Any, pair: Sequence[Any], to: Int) -> None:
    """Two vectors of numbers that stand together in a chunk: all three parts."""
    for part, (x, y) in enumerate(zip(*(thirds(b, x) for x in pair), strict=True)):
        store(b.or_(b.lshr(x, _ints(16)), y), to + part * PART, 64)


def _ints(value: int) -> Any:
    return ir.Constant(_INTS, [value] * 16)


def thirds(b: Any, x: Any) -> list[Any]:
    """The bits of high, middle and low, each in the upper half of an int32 whose lower half is zero."""
    high = b.and_(b.add(b.bitcast(x, _INTS), _ints(0x8000)), _ints(_HIGH_BITS))
    rest = b.fsub(x, b.bitcast(high, FLOATS))
    middle = b.and_(b.bitcast(rest, _INTS), _ints(_HIGH_BITS))
    low = b.bitcast(b.fsub(rest, b.bitcast(middle, FLOATS)), _INTS)
    # all 8 bits of a denormal number may stand in the lower half
    return [high, middle, b.and_(low, _ints(_HIGH_BITS))]
