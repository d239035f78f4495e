"""How a group of kernels runs strip by strip: a kernel in itself, whose units are the strips.

Its slots tell how many kernels, moves and strips there are. Then for each kernel its entry, where its slots are, its
units in a strip, its units in all, and whether it has a tail: a last unit that runs behind all others. Then for each
move which slot of a kernel changes from strip to strip, what it is for the first one, and what is taken off for each:
so all strips have the same memory.
"""

from __future__ import annotations

from llvmlite import ir

from graphjit.kernels.emit import I64, Int, load, loop, store

HEAD, WORDS, MOVE = 3, 5, 3  # words of slots before those of the kernels, of each kernel, of each move
ENTRY = ir.FunctionType(ir.VoidType(), [I64.as_pointer(), I64, I64])


def emit_strips(module: ir.Module) -> ir.Function:
    """void strips(int64 *slots, int64 start, int64 stop): run strips, and behind the last one the tails."""
    function = ir.Function(module, ENTRY, "strips")
    builder = ir.IRBuilder(function.append_basic_block("begin"))
    slots, start, stop = (Int(builder, x) for x in (builder.ptrtoint(function.args[0], I64), *function.args[1:]))
    kernels, moves, strips = (Int(builder, load(slots + 8 * i, I64, 8)) for i in range(HEAD))

    def run(i: Int, first: Int | None) -> None:
        entry, own, units, extent, tail = (
            Int(builder, load(slots + 8 * (HEAD + word) + i * (8 * WORDS), I64, 8)) for word in range(WORDS))
        begin = extent if first is None else first * units
        end = extent + tail if first is None else (begin + units).min(extent)
        with builder.if_then(begin < end):
            builder.call(builder.inttoptr(entry.value, ENTRY.as_pointer()),
                         [builder.inttoptr(own.value, I64.as_pointer()), begin.value, end.value])

    with loop(start, stop.min(strips)) as strip:
        with loop(0, moves) as i:
            at = slots + 8 * HEAD + kernels * (8 * WORDS) + i * (8 * MOVE)
            slot, first, step = (Int(builder, load(at + 8 * word, I64, 8)) for word in range(MOVE))
            store((first - step * strip).value, slot, 8)
        with loop(0, kernels) as i:
            run(i, strip)
    with builder.if_then(stop > strips), loop(0, kernels) as i:
        run(i, None)
    builder.ret_void()
    return function
