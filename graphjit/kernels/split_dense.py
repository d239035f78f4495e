"""float32 numbers split into three bfloat16 numbers each where they lie: the operands of convolutions.

An operand of chunks, as `split` makes them, has all 32 steps of a sum side by side. Here numbers keep their order in
memory, so that tiles can be read from any place on; of the other operand's chunks two steps stand together.
"""

from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import F32, I32, Int, call, function, intrinsic, load, loop, masked_load, store
from graphjit.kernels.packing import transpose_function
from graphjit.kernels.split import LINES, PART, STEPS, thirds
from graphjit.kernels.target import Element
from graphjit.kernels.tiles import array

INTS, FLOATS, HALVES = ir.VectorType(I32, 16), ir.VectorType(F32, 16), ir.VectorType(ir.IntType(16), 32)
ELEMENT = Element("float32", 4, 16)
NOTHING = 0x7FFFFFFF  # what a vector of doubts begins with
DOUBTFUL = 0x7F800000 - 0x58800000  # 2**50: where no number is as large, no sum of products overflows


def words(value: int) -> Any:
    return ir.Constant(INTS, [value] * 16)


def collect(b: Any, doubt: Int, *vectors: Any) -> None:
    """The vector at `doubt` gets the least distance of numbers' bits from infinity's; NaN's is negative."""
    least = load(doubt, INTS, 64)
    for x in vectors:
        below = b.sub(words(0x7F800000), b.and_(b.bitcast(x, INTS), words(0x7FFFFFFF)))
        least = b.select(b.icmp_signed("<", below, least), below, least)
    store(least, doubt, 64)


def doubtful(module: Any, doubt: Int) -> Any:
    """Whether there were numbers so large that products may have overflowed, or NaN."""
    least = intrinsic(module, "llvm.vector.reduce.smin.v16i32", I32, INTS)
    return doubt.builder.icmp_signed("<=", doubt.builder.call(least, [load(doubt, INTS, 64)]), I32(DOUBTFUL))


def some(b: Any, flags: Any) -> Any:
    """Whether any of 16 flags is set."""
    return b.icmp_unsigned("!=", b.bitcast(flags, ir.IntType(16)), ir.IntType(16)(0))


def store_pairs(b: Any, x: Any, y: Any, to: Int, doubt: Int) -> None:
    """Two steps of 16 columns, into a line of a chunk."""
    collect(b, doubt, x, y)
    for part, (first, second) in enumerate(zip(thirds(b, x), thirds(b, y), strict=True)):
        store(b.or_(b.lshr(first, words(16)), second), to + part * PART, 64)


def store_dense(b: Any, x: Any, y: Any, to: Int, part: Int, doubt: Int) -> None:
    """32 numbers in their order; parts are so far apart."""
    collect(b, doubt, x, y)
    upper = ir.Constant(ir.VectorType(I32, 32), list(range(1, 64, 2)))
    for number, (first, second) in enumerate(zip(thirds(b, x), thirds(b, y), strict=True)):
        store(b.shuffle_vector(b.bitcast(first, HALVES), b.bitcast(second, HALVES), upper), to + part * number, 2)


def lines_function(module: Any) -> Any:
    """`split_lines(source, line, lines, length, to, line there, part, doubt)`: split lines of A, number for number,
    and zeros behind each, where sums end between whole chunks."""
    name = "tile_split_lines"
    if name in module.globals:
        return module.globals[name]
    made, b, (source, line, lines, length, to, there, part, doubt) = function(module, name, 8)
    with loop(0, lines) as i:
        here, into = source + line * i, to + there * i
        whole = length - length % STEPS
        with loop(0, whole, STEPS) as k:
            store_dense(b, load(here + k * 4, FLOATS, 4), load(here + k * 4 + 64, FLOATS, 4), into + k * 2, part, doubt)
        with b.if_then(whole < length):
            rest = length - whole
            x, y = (masked_load(module, ELEMENT, here + (whole + v) * 4, (rest - v).max(0).min(16))
                    for v in (0, 16))  # fmt: skip
            store_dense(b, x, y, into + whole * 2, part, doubt)
        for number in range(3):
            store(ir.Constant(HALVES, None), into + length * 2 + part * number, 2)
    b.ret_void()
    return made


def columns_function(module: Any) -> Any:
    """`split_columns(source, line, lines, place, places, channels, to, line there, row, part, doubt)`: split places of
    lines, of dense channels, into a row for each channel, and zeros up to a multiple of 32 places behind each line."""
    name = "tile_split_columns"
    if name in module.globals:
        return module.globals[name]
    turn = transpose_function(module, ELEMENT)
    made, b, (source, line, lines, place, places, channels, to, there, row, part, doubt) = function(module, name, 11)
    edge, straight = (array(b, F32, LINES * STEPS) for _ in range(2))
    with loop(0, lines) as i, loop(0, places, STEPS) as p, loop(0, channels, LINES) as c:
        here = source + line * i + place * p + c * 4
        live, deep = (places - p).min(STEPS), (channels - c).min(LINES)
        whole = b.and_(live == STEPS, deep == LINES)
        with b.if_then(b.not_(whole)), loop(0, Int(b, STEPS)) as r:
            store(masked_load(module, ELEMENT, here + place * r, deep.where(r < live, 0)), edge + r * 64, 64)
        begin, apart = here.where(whole, edge), place.where(whole, 64)
        for half in range(2):
            call(turn, b, [begin + apart * (16 * half), apart, straight + 64 * half, Int(b, 4 * STEPS), Int(b, 16),
                           Int(b, 16)])  # fmt: skip
        into = to + there * i + row * c + p * 2
        with loop(0, Int(b, LINES)) as r:
            x, y = (load(straight + r * (4 * STEPS) + 64 * half, FLOATS, 64) for half in range(2))
            store_dense(b, x, y, into + row * r, part, doubt)
    b.ret_void()
    return made
