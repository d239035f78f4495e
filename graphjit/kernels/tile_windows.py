"""Convolutions on a CPU's tile unit: C[y, x, n] = sum over t, u, k of A[y + t, x + u, k] B[t, u, k, n].

As in `tile_product`, float32 numbers are split into three bfloat16 numbers each. A is split once, number for number,
into three arrays that stay in the second-level cache; what one tap reads for 16 places is a tile there, found at the
tap's distance. B is split once for each call.

Places lie one behind the other, over the ends of lines too: what stands between two lines is computed and left out,
where that is less than what lines leave free in their last tiles. Taps that lie dense are one longer sum, and the last
32 steps of a sum read what lies behind it, times zeros. Where that is infinite or NaN, so is the product; where
products overflow, they may cancel to NaN. So where there are such numbers, NaNs of the result are computed again by
multiply-adds.
"""

import functools
from math import ceil, gcd, inf, prod
from typing import Any, NamedTuple

from llvmlite import ir

from graphjit.kernels import emit
from graphjit.kernels.emit import F32, I32, Int, call, intrinsic, load, loop, store, walk
from graphjit.kernels.problem import Axis, Windows
from graphjit.kernels.slots import Slots
from graphjit.kernels.split import CHUNK, LINES, STEPS
from graphjit.kernels.split_dense import (
    ELEMENT,
    FLOATS,
    INTS,
    NOTHING,
    doubtful,
    lines_function,
    some,
    store_pairs,
    words,
)
from graphjit.kernels.target import target
from graphjit.kernels.tile_unit import configure, release, taps_function
from graphjit.kernels.tiles import array, balanced
from graphjit.runtime.compiler import IRKernel

BATCH_DIMS = 2
BLOCK = 2 * LINES  # rows and columns of C that are computed together
PANEL = 4 * BLOCK * BLOCK  # bytes of their sums
# Measured cycles: of a number that is split, near or in memory far away; of one of B; of one that is stored; of a chunk
# of A times one of B
SPLITTING, SPLITTING_FAR, SPLITTING_B, STORING, MULTIPLYING = 0.6, 1.3, 1.0, 0.5, 104
NEARLY = 1.02
ALONE = 1 << 40  # rows from a line to the next where each line is computed by itself
NAMES = (
    "a", "b", "c", "bias", "workspace", "relu", "n", "columns", "places", "lines", "block", "blocks", "batch1",
    "a_batch0", "a_batch1", "c_batch0", "c_batch1", "c_line", "c_row", "b_tap", "b_place", "b_row",
    "a_line", "line_step", "tap_step", "span", "line", "phase", "row", "part", "pitch",
    "taps", "runs", "run", "run_step", "channels", "steps",
)  # fmt: skip


class WindowsPlan(NamedTuple):
    """A kernel, its arguments ('a', 'b', 'c', 'bias', 'workspace' stand for addresses), the units it may be split in,
    how many should run together, bytes of scratch memory for each concurrent call, and an estimate of cycles: of this
    product, and of what it takes at least as one of many units."""

    kernel: IRKernel
    slots: tuple[int | str, ...]
    extent: int
    least: int
    workspace: int
    cycles: float
    at_best: float


def plan_windows(w: Windows, bias: bool = False, relu: bool = False, limit: float = inf) -> WindowsPlan | None:
    """Plan the product of float32 numbers, if it can be computed here, and maybe in so many cycles."""
    lines, places, batch = w.lines, w.places, w.batch
    across, along, channels = w.across, w.along, w.channels.length
    axes = (*batch, lines, places, across, along, w.channels)
    if (not target().tile_unit or len(batch) > BATCH_DIMS or any(x.length == 0 or x.first < 0 for x in axes)
            or places.first == 0 or w.channels.first != 1 or w.n == 0):  # fmt: skip
        return None
    dense = along.length > 1 and along.first == channels
    run, runs = (channels * along.length, 1) if dense else (channels, along.length)
    a_line = gcd(lines.first * (lines.length > 1), across.first * (across.length > 1)) or 1
    line_step = lines.first // a_line if lines.length > 1 else 1
    tap_step = across.first // a_line if across.length > 1 else 0
    span = (places.length - 1) * places.first + (runs - 1) * along.first + run
    chunks = ceil(run / STEPS)
    steps = across.length * runs * chunks
    extent = prod(axis.length for axis in batch)
    if MULTIPLYING * extent * lines.length * places.length / LINES * ceil(w.n / LINES) * steps > limit:
        return None
    # so long a line of split numbers that places go on evenly in the next
    even = ceil(span / places.first) * places.first
    alone = ceil(span / STEPS) * STEPS
    pitch = even // places.first

    def tiles(block: int) -> tuple[float, bool]:
        """What so many lines take; whether each is best computed by itself."""
        own, joint = block * _rows(places.length), _rows((block - 1) * pitch + places.length)
        return (own, True) if own < joint else (joint, False)

    def phase_lines(block: int) -> int:
        """Lines are split by their rest on division by the step from one line of C to the next: so many of each."""
        return block + (across.length - 1) * tap_step // line_step

    groups = ceil(w.n / BLOCK / max(1, int(0.45 * target().l2 / (2 * CHUNK * steps))))
    columns = BLOCK * balanced(ceil(w.n / BLOCK), ceil(ceil(w.n / BLOCK) / groups))

    far = 4 * extent * lines.length * line_step * span > target().l2 // 2

    def unit(block: int, splitting: float) -> float:
        """Cycles."""
        return (MULTIPLYING * tiles(block)[0] * ceil(w.n / LINES) * steps + STORING * block * places.length * w.n
                + splitting * groups * phase_lines(block) * line_step * span)  # fmt: skip

    room = target().l2 // 8
    cuts = sorted({ceil(lines.length / units) for units in range(1, lines.length + 1)})
    times = {b: ceil(lines.length / b) * unit(b, SPLITTING_FAR if far else SPLITTING) for b in cuts
             if b == 1 or 6 * even * line_step * phase_lines(b) <= room}  # fmt: skip
    least = NEARLY * min(times.values())
    block = next(b for b in times if times[b] <= least)
    by_itself = tiles(block)[1]
    line = alone if by_itself else even
    part = 2 * line * phase_lines(block) * line_step
    part = ceil(part / 64) * 64 + 64
    split_b = columns // LINES * steps * CHUNK
    if max(part * 3, split_b) > target().l2 // 2:
        return None
    outer, inner = [Axis(1, 0, 0)] * (BATCH_DIMS - len(batch)) + list(batch)
    blocks = ceil(lines.length / block)
    named: dict[str, int | str] = {
        "a": "a", "b": "b", "c": "c", "bias": "bias" if bias else 0, "workspace": "workspace", "relu": int(relu),
        "n": w.n, "columns": columns, "places": places.length, "lines": lines.length, "block": block, "blocks": blocks,
        "batch1": inner.length, "a_batch0": 4 * outer.first, "a_batch1": 4 * inner.first,
        "c_batch0": 4 * outer.second, "c_batch1": 4 * inner.second, "c_line": 4 * lines.second,
        "c_row": 4 * places.second, "b_tap": 4 * across.second, "b_place": 4 * along.second,
        "b_row": 4 * w.channels.second, "a_line": 4 * a_line, "line_step": line_step, "tap_step": tap_step,
        "span": span, "line": 2 * line, "phase": 2 * line * phase_lines(block), "row": 2 * places.first, "part": part,
        "pitch": ALONE if by_itself else pitch,
        "taps": across.length, "runs": runs, "run": run, "run_step": 2 * along.first, "channels": channels,
        "steps": steps,
    }  # fmt: skip
    table = ceil(8 * steps / 64) * 64
    # what rows behind the last one read
    behind = 2 * BLOCK * places.first + 64
    workspace = table + PANEL + split_b + 3 * part + behind
    extent *= blocks
    once, each = SPLITTING_B * w.n * steps * STEPS + 2000, times[block] / blocks
    return WindowsPlan(windows_kernel(), tuple(named[name] for name in NAMES), extent, ceil(10 * once / each),
                       workspace, extent * each + once, extent * unit(block, SPLITTING))


def _rows(rows: int) -> float:
    """Tiles that so many rows are, by the time they take: one by itself reads more for each product."""
    return rows // BLOCK * 2 + (0, 1.12, 2)[ceil(rows % BLOCK / LINES)]


@functools.cache
def windows_kernel() -> IRKernel:
    """The kernel."""
    return IRKernel("tile_windows", (), len(NAMES), _emit)


def _emit(builder: Any, values: Any) -> None:
    """The loops over groups of columns, units, blocks of places, blocks of columns."""
    module = builder.module
    at = Slots(builder, NAMES)
    start, stop = (Int(builder, value) for value in values[-2:])
    doubt = array(builder, I32, 16)
    store(words(NOTHING), doubt, 64)
    panel = at["workspace"]
    table = panel + PANEL
    split_b = table + (at["steps"] * 8 + 63) // 64 * 64
    split_a = split_b + at["columns"] // LINES * at["steps"] * CHUNK
    configure(module, builder)
    _write_table(at, table)
    with loop(0, at["n"], at["columns"]) as group:
        end = (group + at["columns"]).min(at["n"])
        _split_b(module, at, group, end, split_b, doubt)
        with loop(start, stop) as unit:
            y0 = unit % at["blocks"] * at["block"]
            outer = unit // at["blocks"]
            inner, outer = outer % at["batch1"], outer // at["batch1"]
            a = (at["a"] + at["a_batch0"] * outer + at["a_batch1"] * inner) + at["a_line"] * at["line_step"] * y0
            c = (at["c"] + at["c_batch0"] * outer + at["c_batch1"] * inner) + at["c_line"] * y0
            height = at["block"].min(at["lines"] - y0)
            count = (height - 1) * at["line_step"] + (at["taps"] - 1) * at["tap_step"] + 1
            with loop(0, at["line_step"].min(count)) as phase:
                call(lines_function(module), builder,
                     [a + at["a_line"] * phase, at["a_line"] * at["line_step"],
                      (count - phase + (at["line_step"] - 1)) // at["line_step"], at["span"],
                      split_a + at["phase"] * phase, at["line"], at["part"], doubt])  # fmt: skip
            alone = at["pitch"] == ALONE
            rows = at["places"] + (height - 1).where(builder.not_(alone), 0) * at["pitch"]
            with loop(0, height.where(alone, 1)) as y, loop(0, rows, BLOCK) as i, loop(group, end, BLOCK) as j:
                there = split_a + at["line"] * y + at["row"] * i
                call(taps_function(module), builder,
                     [there, at["row"], at["part"], table, split_b + (j - group) // LINES * at["steps"] * CHUNK,
                      at["steps"], panel, Int(builder, 4 * BLOCK), rows - i, end - j, Int(builder, 0)])  # fmt: skip
                place = (y, i, (i + BLOCK).min(rows), j, (end - j).min(BLOCK))
                with builder.if_then(doubtful(module, doubt), likely=False):
                    _repair(module, at, a, panel, *place)
                _copy_out(module, at, c, panel, *place)
    release(module, builder)


def _write_table(at: Slots, table: Int) -> None:
    """For each step of 32 of the sum, where in the split operand the tap's numbers for the first place lie."""
    chunks = (at["run"] + (STEPS - 1)) // STEPS
    with loop(0, at["taps"]) as t, loop(0, at["runs"]) as u, loop(0, chunks) as i:
        line = at["tap_step"] * t
        to = at["phase"] * (line % at["line_step"]) + at["line"] * (line // at["line_step"])
        store((to + at["run_step"] * u + i * (2 * STEPS)).value,
              table + ((t * at["runs"] + u) * chunks + i) * 8, 8)  # fmt: skip


def _row_of_b(at: Slots, t: Int, u: Int, r: Int) -> Int:
    """The address of what step r of a run is multiplied with."""
    return (at["b"] + at["b_tap"] * t) + at["b_place"] * (u + r // at["channels"]) + at["b_row"] * (r % at["channels"])


def _split_b(module: Any, at: Slots, first: Int, end: Int, to: Int, doubt: Int) -> None:
    """Columns [first, end) in chunks: two steps stand together, the pairs of 16 columns one behind the other."""
    b = at.builder
    chunks = (at["run"] + (STEPS - 1)) // STEPS
    with loop(0, at["taps"]) as t, loop(0, at["runs"]) as u, loop(0, chunks * (STEPS // 2)) as pair:
        step = (t * at["runs"] + u) * chunks + pair // (STEPS // 2)
        into = to + step * CHUNK + pair % (STEPS // 2) * 64
        both = [(_row_of_b(at, t, u, r), r < at["run"]) for r in (pair * 2, pair * 2 + 1)]
        with loop(first, end, LINES) as j:
            live = (end - j).min(LINES)
            x, y = (emit.masked_load(module, ELEMENT, row + j * 4, live.where(inside, 0)) for row, inside in both)
            store_pairs(b, x, y, into + (j - first) // LINES * at["steps"] * CHUNK, doubt)


def _repair(module: Any, at: Slots, a: Int, panel: Int, y: Int, i: Int, end: Int, j: Int, columns: Int) -> None:
    """What is NaN in the panel once more, as chains of multiply-adds, which end when all are NaN again."""
    b = at.builder
    multiply_add = intrinsic(module, "llvm.fma.v16f32", FLOATS, FLOATS, FLOATS, FLOATS)
    a_row, run = at["row"] * 2, at["run"]
    with loop(i, end) as r, loop(0, columns, 16) as v:
        to = panel + (r - i) * (4 * BLOCK) + v * 4
        found = load(to, FLOATS, 64)
        wrong = b.fcmp_unordered("uno", found, found)
        line, place = y + r // at["pitch"], r % at["pitch"]
        live = (columns - v).min(16)
        with b.if_then(b.and_(some(b, wrong), place < at["places"])):
            store(b.select(wrong, ir.Constant(FLOATS, None), found), to, 64)
            from_a = a + at["a_line"] * at["line_step"] * line + a_row * place
            with walk(Int(b, 0), at["taps"] * at["runs"] * run) as here:
                tap, k = here.at // run, here.at % run
                t, u = tap // at["runs"], tap % at["runs"]
                x = load(from_a + at["a_line"] * at["tap_step"] * t + at["run_step"] * 2 * u + k * 4, F32, 4)
                x = b.insert_element(ir.Constant(FLOATS, ir.Undefined), x, I32(0))
                x = b.shuffle_vector(x, x, ir.Constant(INTS, None))
                row = emit.masked_load(module, ELEMENT, _row_of_b(at, t, u, k) + (j + v) * 4, live)
                before = load(to, FLOATS, 64)
                total = b.select(wrong, b.call(multiply_add, [x, row, before]), before)
                store(total, to, 64)
                going = some(b, b.and_(wrong, b.fcmp_ordered("ord", total, total)))
                here.step = Int(b, 1).where(going, ALONE)


def _copy_out(module: Any, at: Slots, c: Int, panel: Int, y: Int, i: Int, end: Int, j: Int, columns: Int) -> None:
    """Add the bias to what belongs to a line, rectify it, and store it."""
    b = at.builder
    none = ir.Constant(FLOATS, None)
    biased = at["bias"] != 0
    vectors = [(v, (columns - v).max(0).min(16)) for v in (0, 16)]
    bias = [emit.masked_load(module, ELEMENT, at["bias"] + (j + v) * 4, live.where(biased, 0)) for v, live in vectors]
    relu = at["relu"] != 0
    with walk(i, end) as here:
        line, place = y + here.at // at["pitch"], here.at % at["pitch"]
        here.step = (at["pitch"] - place).min(end - here.at)
        to = c + at["c_line"] * line + at["c_row"] * place + j * 4
        with loop(0, (at["places"] - place).max(0).min(here.step)) as r:
            for (v, live), offset in zip(vectors, bias, strict=True):
                x = b.fadd(load(panel + (here.at - i + r) * (4 * BLOCK) + 4 * v, FLOATS, 64), offset)
                x = b.select(relu, b.select(b.fcmp_ordered("<=", x, none), none, x), x)
                emit.masked_store(module, ELEMENT, x, to + at["c_row"] * r + 4 * v, live)
