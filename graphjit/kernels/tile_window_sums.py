"""Gradients of convolutions by their weight on a CPU's tile unit: C[t, u, k, n] = sum over y, x of A[y + t, x + u, k]
B[y, x, n].

The steps of these sums are places. A is split into a row of places for each channel, lines one behind the other: what
a tap reads for 16 channels and 32 places is a tile there, at the tap's distance. B is split into chunks of as many
places, with zeros between the lines. Where A is infinite or NaN there, so is the product: as in `tile_windows`, NaNs of
the result are then computed again by multiply-adds.
"""

import functools
from math import ceil, gcd, inf
from typing import Any

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
    columns_function,
    doubtful,
    some,
    store_pairs,
    words,
)
from graphjit.kernels.target import target
from graphjit.kernels.tile_unit import configure, release, taps_function
from graphjit.kernels.tile_windows import ALONE, BLOCK, WindowsPlan
from graphjit.kernels.tiles import array, balanced
from graphjit.runtime.compiler import IRKernel

DEEP = 4  # most chunks of places whose sums are added up before they are stored: all taps find them in the cache
# Measured cycles of a number of A, of B, of a sum that is loaded and stored, of a chunk of A times one of B
TURNING, SPLITTING, MOVING, MULTIPLYING = 1.3, 1.2, 0.4, 120
NAMES = (
    "a", "b", "c", "workspace", "parts_a", "parts_b", "parts_c", "n", "channels", "group", "groups",
    "batch", "a_batch", "b_batch", "places", "lines", "block", "a_line", "a_place", "line_step", "place_step",
    "b_line", "b_place", "taps", "runs", "tap_step", "run_step", "c_tap", "c_run", "c_row", "s_tap", "s_run", "s_row",
    "direct", "sums", "deep", "pitch", "even", "phase", "row", "part",
)  # fmt: skip


def plan_sums(w: Windows, parts: Axis, part_c: int, limit: float = inf) -> WindowsPlan | None:
    """Plan the sums of float32 numbers, if they can be computed here, and maybe in so many cycles.

    Args:
        w: the axes, B and C in each other's place.
        parts: how many parts of the sum are computed one by one, and how far apart they lie in A and B.
        part_c: and in C.
        limit: cycles.
    """
    lines, places, (across, along), channels = w.lines, w.places, (w.across, w.along), w.channels.length
    axes = (*w.batch, lines, places, across, along, w.channels)
    if (not target().tile_unit or len(w.batch) > 1 or any(x.length == 0 or x.first < 0 for x in axes)
            or w.channels.first != 1 or w.n == 0):  # fmt: skip
        return None
    (batch,) = w.batch or (Axis(1, 0, 0),)
    vectors, taps = ceil(w.n / LINES), across.length * along.length
    kept = MULTIPLYING * taps * vectors * ceil(channels / LINES) * parts.length * batch.length
    if kept * lines.length * places.length / STEPS > limit:
        return None
    a_line, line_step, tap_step = _common(lines, across)
    a_place, place_step, run_step = _common(places, along)
    pitch = places.length + (along.length - 1) * run_step // place_step
    behind = (across.length - 1) * tap_step // line_step
    # all lines of a phase are one
    even = line_step * a_line == pitch * place_step * a_place
    shared = parts.length == 1 and channels > BLOCK
    group = ceil(balanced(channels, max(BLOCK, channels // 2)) / BLOCK) * BLOCK if shared else channels
    groups = ceil(channels / group)
    rows = ceil(group / LINES) * LINES
    phases = line_step * place_step

    def chunks(block: int) -> int:
        return ceil(((block - 1) * pitch + places.length) / STEPS)

    def row(block: int) -> int:
        """Bytes of a channel's places, an odd number of cache lines."""
        wide = 2 * ((block + behind + 1) * pitch + chunks(block) * STEPS - block * pitch + STEPS)
        return ceil(wide / 64) // 2 * 128 + 64

    def room(block: int) -> int:
        return 3 * phases * rows * row(block) + chunks(block) * vectors * CHUNK

    def cycles(block: int) -> float:
        """Of a part, for all its lines."""
        deep, passes = chunks(block), ceil(chunks(block) / DEEP)
        tiles = taps * vectors * rows // LINES
        turned = (block + behind) * line_step * (pitch if even else ceil(pitch / STEPS) * STEPS) * place_step * rows
        return ceil(lines.length / block) * batch.length * groups * (
            tiles * (MULTIPLYING * deep + MOVING * passes * 256) + TURNING * turned
            + SPLITTING * deep * STEPS * vectors * LINES)  # fmt: skip

    cuts = {ceil(lines.length / units) for units in range(1, lines.length + 1)}
    fitting = {block: cycles(block) for block in cuts if room(block) <= target().l2 * 0.45}
    if not fitting:
        return None
    block = min(fitting, key=lambda b: (fitting[b], b))
    deep = balanced(chunks(block), DEEP)
    direct = w.n % LINES == 0 and group % LINES == 0 and channels % LINES == 0
    s_row = vectors * LINES * 4
    size = 0 if direct else taps * rows * s_row
    c_strides = [4 * axis.second for axis in (across, along, w.channels)]
    s_strides = c_strides if direct else [along.length * rows * s_row, rows * s_row, s_row]
    phase = rows * row(block)
    named: dict[str, int | str] = {
        "a": "a", "b": "b", "c": "c", "workspace": "workspace", "parts_a": 4 * parts.first, "parts_b": 4 * parts.second,
        "parts_c": 4 * part_c, "n": w.n, "channels": channels, "group": group, "groups": groups, "batch": batch.length,
        "a_batch": 4 * batch.first, "b_batch": 4 * batch.second, "places": places.length, "lines": lines.length,
        "block": block, "a_line": 4 * a_line, "a_place": 4 * a_place, "line_step": line_step, "place_step": place_step,
        "b_line": 4 * lines.second, "b_place": 4 * places.second, "taps": across.length, "runs": along.length,
        "tap_step": tap_step, "run_step": run_step, "direct": int(direct), "sums": size, "pitch": pitch,
        "even": int(even), "phase": phase, "row": row(block), "part": phases * phase, "deep": deep,
    }  # fmt: skip
    for i, name in enumerate(("tap", "run", "row")):
        named |= {f"c_{name}": c_strides[i], f"s_{name}": s_strides[i]}
    workspace = size + 3 * phases * phase + chunks(block) * vectors * CHUNK + 64
    total = fitting[block] * parts.length
    return WindowsPlan(sums_kernel(), tuple(named[name] for name in NAMES), parts.length * groups, 1, workspace, total,
                       total)


def _common(kept: Axis, taps: Axis) -> tuple[int, int, int]:
    """The distance in A of which both axes' are multiples, and of which."""
    step = gcd(kept.first * (kept.length > 1), taps.first * (taps.length > 1)) or 1
    return step, kept.first // step if kept.length > 1 else 1, taps.first // step if taps.length > 1 else 0


@functools.cache
def sums_kernel() -> IRKernel:
    """The kernel."""
    return IRKernel("tile_window_sums", (DEEP,), len(NAMES), _emit)


def _emit(builder: Any, values: Any) -> None:
    """The loops over units (parts of the sum, groups of channels), blocks of lines, chunks of places, tiles of C."""
    module = builder.module
    at = Slots(builder, NAMES)
    start, stop = (Int(builder, value) for value in values[-2:])
    doubt, table = array(builder, I32, 16), array(builder, emit.I64, DEEP)
    store(words(NOTHING), doubt, 64)
    for chunk in range(DEEP):
        store(emit.I64(2 * STEPS * chunk), table + 8 * chunk, 8)
    split_a = at["workspace"] + at["sums"]
    split_b = split_a + at["part"] * 3
    with loop(split_a, split_b, 64) as byte:  # what is never written lies between lines and behind them
        store(ir.Constant(FLOATS, None), byte, 64)
    configure(module, builder)
    with loop(start, stop) as unit:
        part, first = unit // at["groups"], unit % at["groups"] * at["group"]
        width = at["group"].min(at["channels"] - first)
        a, b = at["a"] + at["parts_a"] * part + first * 4, at["b"] + at["parts_b"] * part
        c = at["c"] + at["parts_c"] * part + at["c_row"] * first
        sums = c.where(at["direct"] != 0, at["workspace"])
        with loop(0, at["batch"]) as z, loop(0, at["lines"], at["block"]) as y0:
            height = at["block"].min(at["lines"] - y0)
            from_a = (a + at["a_batch"] * z) + at["a_line"] * at["line_step"] * y0
            chunks = ((height - 1) * at["pitch"] + at["places"] + (STEPS - 1)) // STEPS
            _split_b(module, at, (b + at["b_batch"] * z) + at["b_line"] * y0, height, chunks, split_b, doubt)
            _split_a(module, at, from_a, height, width, split_a, doubt)
            with loop(0, chunks, at["deep"]) as k, loop(0, at["n"], BLOCK) as j, loop(0, width, BLOCK) as i:
                deep = (chunks - k).min(at["deep"])
                panel = split_b + (k * _vectors(at) + deep * (j // LINES)) * CHUNK
                with loop(0, at["taps"]) as t, loop(0, at["runs"]) as u:
                    line, place = at["tap_step"] * t, at["run_step"] * u
                    phase = line % at["line_step"] * at["place_step"] + place % at["place_step"]
                    there = (split_a + at["phase"] * phase + at["row"] * i
                             + (line // at["line_step"] * at["pitch"] + place // at["place_step"] + k * STEPS) * 2)
                    to = (sums + at["s_tap"] * t) + at["s_run"] * u + at["s_row"] * i + j * 4
                    call(taps_function(module), builder,
                         [there, at["row"], at["part"], table, panel, deep, to, at["s_row"], width - i, at["n"] - j,
                          k + y0 + z])  # fmt: skip
        with builder.if_then(doubtful(module, doubt), likely=False):
            _repair(module, at, a, b, sums, width)
        with (builder.if_then(at["direct"] == 0), loop(0, at["taps"]) as t, loop(0, at["runs"]) as u,
              loop(0, width) as i, loop(0, at["n"], 16) as j):  # fmt: skip
            total = load((sums + at["s_tap"] * t) + at["s_run"] * u + at["s_row"] * i + j * 4, FLOATS, 64)
            to = (c + at["c_tap"] * t) + at["c_run"] * u + at["c_row"] * i + j * 4
            emit.masked_store(module, ELEMENT, total, to, (at["n"] - j).min(16))
    release(module, builder)


def _vectors(at: Slots) -> Int:
    return (at["n"] + (LINES - 1)) // LINES


def _split_b(module: Any, at: Slots, b: Int, height: Int, chunks: Int, to: Int, doubt: Int) -> None:
    """Places of some lines in chunks, those of some chunks and 16 columns one behind the other."""
    builder = at.builder

    def place(p: Int) -> tuple[Int, Any]:
        line, x = p // at["pitch"], p % at["pitch"]
        return b + at["b_line"] * line + at["b_place"] * x, builder.and_(line < height, x < at["places"])

    with loop(0, chunks * (STEPS // 2)) as pair:
        chunk = pair // (STEPS // 2)
        k = chunk - chunk % at["deep"]
        deep = (chunks - k).min(at["deep"])
        into = to + (k * _vectors(at) + chunk % at["deep"]) * CHUNK + pair % (STEPS // 2) * 64
        both = [place(pair * 2), place(pair * 2 + 1)]
        with loop(0, at["n"], LINES) as j:
            live = (at["n"] - j).min(LINES)
            x, y = (emit.masked_load(module, ELEMENT, row + j * 4, live.where(inside, 0)) for row, inside in both)
            store_pairs(builder, x, y, into + j // LINES * deep * CHUNK, doubt)


def _split_a(module: Any, at: Slots, a: Int, height: Int, width: Int, to: Int, doubt: Int) -> None:
    """Channels of some lines, which are split by their rest, and places by theirs: those of one phase are those of C's
    lines and places moved on by a tap."""
    lines = (height - 1) * at["line_step"] + (at["taps"] - 1) * at["tap_step"] + 1
    places = (at["places"] - 1) * at["place_step"] + (at["runs"] - 1) * at["run_step"] + 1
    even = at["even"] != 0
    with loop(0, at["line_step"].min(lines)) as y, loop(0, at["place_step"].min(places)) as x:
        count = (lines - y + (at["line_step"] - 1)) // at["line_step"]
        length = (places - x + (at["place_step"] - 1)) // at["place_step"]
        one = Int(at.builder, 1)
        call(columns_function(module), at.builder,
             [a + at["a_line"] * y + at["a_place"] * x, at["a_line"] * at["line_step"], one.where(even, count),
              at["a_place"] * at["place_step"], length + ((count - 1) * at["pitch"]).where(even, 0), width,
              to + at["phase"] * (y * at["place_step"] + x), at["pitch"] * 2, at["row"], at["part"],
              doubt])  # fmt: skip


def _repair(module: Any, at: Slots, a: Int, b: Int, sums: Int, width: Int) -> None:
    """What is NaN once more, as chains of multiply-adds, which end when all are NaN again."""
    builder = at.builder
    multiply_add = intrinsic(module, "llvm.fma.v16f32", FLOATS, FLOATS, FLOATS, FLOATS)
    with (loop(0, at["taps"]) as t, loop(0, at["runs"]) as u, loop(0, width) as i,
          loop(0, at["n"], 16) as j):  # fmt: skip
        to = (sums + at["s_tap"] * t) + at["s_run"] * u + at["s_row"] * i + j * 4
        found = load(to, FLOATS, 4)
        wrong = builder.fcmp_unordered("uno", found, found)
        live = (at["n"] - j).min(16)
        with builder.if_then(some(builder, wrong)):
            store(builder.select(wrong, ir.Constant(FLOATS, None), found), to, 4)
            with walk(Int(builder, 0), at["batch"] * at["lines"] * at["places"]) as here:
                x, z = here.at % at["places"], here.at // at["places"]
                y, z = z % at["lines"], z // at["lines"]
                one = load((a + at["a_batch"] * z) + at["a_line"] * (at["line_step"] * y + at["tap_step"] * t)
                           + at["a_place"] * (at["place_step"] * x + at["run_step"] * u) + i * 4, F32, 4)  # fmt: skip
                value = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), one, I32(0))
                value = builder.shuffle_vector(value, value, ir.Constant(INTS, None))
                row = (b + at["b_batch"] * z) + at["b_line"] * y + at["b_place"] * x + j * 4
                before = load(to, FLOATS, 4)
                total = builder.call(multiply_add, [value, emit.masked_load(module, ELEMENT, row, live), before])
                total = builder.select(wrong, total, before)
                store(total, to, 4)
                going = some(builder, builder.and_(wrong, builder.fcmp_ordered("ord", total, total)))
                here.step = Int(builder, 1).where(going, ALONE)
