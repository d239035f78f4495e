"""The loop that follows a product element for element, as AVX-512 assembly that works on the sums of a register tile.

Updates of weights most of all: they read and write a few arrays, and take a gradient that then is nowhere in memory.
A tile ends with a call of this code where it would store its sums otherwise; in a processor that looks far ahead, most
of it runs beside the multiply-adds of the next tile.

What does not differ between elements (a learning rate, whether there is weight decay) is computed before the product's
first tile by a kernel of its own, which leaves it in memory as `Words`, beside the addresses of arrays and code. The
code has an entry for each height of a tile, and goes up from its last row to the first. Registers of the sums are the
tile's; those of rows that are done are free.
"""

import ast
import functools
import itertools
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, NamedTuple

from llvmlite import ir

from graphjit.kernels.emit import I64, Int, load, store
from graphjit.kernels.register_code import code_of
from graphjit.kernels.register_loop import ABS, OFFSET, ROOM, ROW, SIGN, WIDEST, RegisterLoop, Unsuited, Words
from graphjit.kernels.target import Element
from graphjit.kernels.tiles import assembled, tile_shape, tile_table
from graphjit.runtime.compiler import IRKernel, LoopKernel
from graphjit.runtime.kernel import normalised

_REGISTERS = 32
_ENOUGH = 8  # registers for numbers that do not differ between elements, and to work with
_CODE = ir.FunctionType(ir.VoidType(), [])


class TileFollower(NamedTuple):
    """kernel: is called with the loop's slots, and the address of the words in place of a range; words: how many."""

    kernel: IRKernel
    words: int


@functools.lru_cache(64)
def tile_follower(loop: LoopKernel, hole: int, element: Element) -> TileFollower | None:
    """The code for a loop of which this parameter is the product; None if it does what the code cannot do."""
    try:
        made = RegisterLoop(loop, hole, element)
        for holds in _ways(made):  # the row with the fewest registers: all that is read finds its word
            made.assume(holds)
            _row(made, WIDEST, tile_shape().heights[WIDEST - 1] - 1)
    except Unsuited:
        return None
    key = (normalised(loop.name, loop.source), loop.args, hole, element.name, tile_shape().heights)
    emit = functools.partial(_emit, made, loop.args)
    return TileFollower(IRKernel(f"{loop.name}_of_tiles", key, len(loop.args), emit), Words.NUMBERS + len(made.words))


def _text(loop: RegisterLoop) -> str:
    """The assembly: for all ways that conditions can be, tiles of all widths. `CODE` stands for its name."""
    lines = []
    for number, holds in enumerate(_ways(loop)):
        loop.assume(holds)
        for width in range(1, WIDEST + 1):
            lines += [line.replace("CODE", f"CODE_{number}") for line in _of_width(loop, width)]
    return "\n".join(lines)


def _ways(loop: RegisterLoop) -> Iterable[Sequence[bool]]:
    return itertools.product((False, True), repeat=len(loop.conditions))


def _of_width(loop: RegisterLoop, width: int) -> list[str]:
    """Rows from the last one to the first. As soon as there are registers for them, numbers that do not differ between
    elements are in some: their loads would take as long as all else."""
    tallest = tile_shape().heights[width - 1]
    rows = min(tallest, (_REGISTERS - _ENOUGH) // width)  # as many as leave enough registers
    free = [f"%zmm{r}" for r in range(rows * width, _REGISTERS)]
    for count in reversed(range(len(free))):
        with suppress(Unsuited):
            loop.hold(free[:count])
            below = [line for i in reversed(range(rows)) for line in _row(loop, width, i)]
            break
    else:
        raise Unsuited
    load = loop.loads()
    loop.hold([])
    above = [line for i in reversed(range(rows, tallest)) for line in _row(loop, width, i)]
    entries = [line for height in range(1, tallest + 1) for line in (
        f"CODE_{height}x{width}:", *(load if height <= rows else ()), f"jmp CODE_row{height}x{width}")]
    return [*entries, *above, *load, *below, "ret"]


def _row(loop: RegisterLoop, width: int, i: int) -> list[str]:
    size = loop.element.size * loop.element.lanes
    lines = [f"CODE_row{i + 1}x{width}:"]
    for j in range(width):
        above = [f"%zmm{r}" for r in range((i + 1) * width, _REGISTERS)]
        done = [f"%zmm{r}" for r in range(i * width, i * width + j)]
        others = [r for r in above if r not in loop.room]
        lines += code_of(loop, f"%zmm{i * width + j}", done + others, size * j, j == width - 1)
    return [*lines, f"sub {ROW}, {OFFSET}"] if i else lines


# ---- what is computed before ------------------------------------------------------------------------------------


def _emit(loop: RegisterLoop, codes: Sequence[str], builder: Any, values: Sequence[Any]) -> None:
    """The kernel that leaves the words at the address that it is given as the start of its range."""
    from graphjit.kernels.irmath import TYPES
    from graphjit.runtime.walk import Pointer, emit

    *slots, start, _ = values
    words = Int(builder, start)
    bases = [Int(builder, slots[loop.parameters.index(name)]) for name in loop.arrays]
    differences = [(bases[i] if i < len(bases) else bases[0]) - bases[0] for i in (1, 2)] if bases else []
    for word, value in [*enumerate(bases, Words.BASE), *zip((Words.OTHER, Words.THIRD), differences, strict=False)]:
        store(value.value, words + 8 * word, 8)
    numbers, bits = (Pointer(builder, builder.inttoptr(start, kind.llvm.as_pointer()), kind)
                     for kind in (TYPES[loop.element.name], TYPES["int64"]))  # fmt: skip
    given = [_given(builder, slot, code) for slot, code in zip(slots, codes, strict=True)]
    emit(builder, _head(loop), [*given, numbers, bits])
    table = _table(builder, loop, _text(loop))
    for i in range(len(loop.conditions)):
        holds = Int(builder, load(words + 8 * (Words.NUMBERS + i), I64, 8))
        table = table + holds * (8 * ROOM * (WIDEST + 1) << len(loop.conditions) - 1 - i)
    store(table.value, words + 8 * Words.TABLE, 8)


def _given(builder: Any, slot: Any, code: str) -> Any:
    """A slot as what the loop's parameter is."""
    from graphjit.kernels.irmath import TYPES, V
    from graphjit.runtime.walk import Pointer

    kind = TYPES[code.removeprefix("*")]
    if code.startswith("*"):
        return Pointer(builder, builder.inttoptr(slot, kind.llvm.as_pointer()), kind)
    narrow = builder.trunc(slot, ir.IntType(kind.bits)) if kind.bits < 64 else slot
    return V(builder, builder.bitcast(narrow, kind.llvm) if kind.kind == "f" else narrow, kind)


def _head(loop: RegisterLoop) -> ast.FunctionDef:
    """What stands before the loop, and then the numbers go to their words."""
    (made,) = ast.parse(f"def head({', '.join((*loop.parameters, 'numbers', 'bits'))}):\n    pass").body
    assert isinstance(made, ast.FunctionDef)
    sign = -(1 << 8 * loop.element.size - 1)
    lines = []
    for i, expression in enumerate(loop.words, Words.NUMBERS):
        if expression in (ABS, SIGN):
            lines.append(f"bits[{i}] = {sign if expression == SIGN else -1 - sign}")
        elif expression.startswith("where("):
            lines.append(f"bits[{i}] = {expression}")
        else:
            lines.append(f"numbers[{i * 8 // loop.element.size}] = {expression}")
    made.body = [*loop.head, *ast.parse("\n".join(lines)).body]
    return made


def _table(builder: Any, loop: RegisterLoop, text: str) -> Int:
    """The address of the code's entries, a table for each way behind the other."""
    module, name = builder.module, "follow_" + sha256(text.encode()).hexdigest()[:16]
    ways, heights = len(list(_ways(loop))), tile_shape().heights
    shapes = {f"{name}_{way}_{height}x{width}": (height, way * (WIDEST + 1) + width) for way in range(ways)
              for width in range(1, WIDEST + 1) for height in range(1, heights[width - 1] + 1)}  # fmt: skip

    def make() -> dict[tuple[int, int], Any]:
        entries = assembled(module, name, text.replace("CODE", name), _CODE, shapes)
        return dict(zip(shapes.values(), entries, strict=True))

    lines = ways * (WIDEST + 1) - 1
    return Int(builder, builder.ptrtoint(tile_table(module, f"{name}_table", _CODE, lines, make), I64))
