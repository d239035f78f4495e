"""The loops of a product summed over segments, as LLVM IR: groups of the batch and blocks of rows, outer segments,
panels of columns, register tiles."""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from graphjit.kernels import segment_text, segment_tiles
from graphjit.kernels.emit import I64, Int, load, loop, store
from graphjit.kernels.microkernel import TILE
from graphjit.kernels.segment_tiles import SHARED, Field
from graphjit.kernels.target import Element, target
from graphjit.kernels.tiles import array, assembled, balanced, call_tile, tile_table


def tallest_tiles() -> tuple[int, ...]:
    """Rows of the tallest tile of one vector, two, three: their sums fill the registers."""
    return (14, 14, 9) if target().assembly else (12, 10, 8) if target().registers == 32 else (12, 6, 4)


def _tiles(module: Any, element: Element) -> dict[tuple[int, int], Any]:
    """All tiles, as functions of a module that they are added to, by height and width."""
    prefix, heights = f"segment_tile_{element.suffix}", tallest_tiles()
    shapes = {(height, vectors): f"{prefix}_{height}x{vectors}" for vectors, tallest in enumerate(heights, 1)
              for height in range(1, tallest + 1)}  # fmt: skip
    if not target().assembly:
        return {shape: segment_text.SegmentTile(module, element, name, TILE, *shape) for shape, name in shapes.items()}
    shapes |= {(height, SHARED): f"{prefix}_{height}x{SHARED}" for height in range(1, heights[0] + 1)}
    text = segment_tiles.tiles(element, ((name, *shape) for shape, name in shapes.items()))
    return dict(zip(shapes, assembled(module, f"{prefix}_all", text, TILE, shapes.values()), strict=True))


def emit(element: Element, names: Sequence[str], builder: Any, values: Sequence[Any]) -> None:
    """The loops over groups of the batch and blocks of rows, outer segments, panels of columns."""
    *given, start, stop = (Int(builder, value) for value in values)
    at = dict(zip(names, given, strict=True))
    lanes, size = element.lanes, element.size
    widest, tallest_of_all = len(tallest_tiles()), max(tallest_tiles())
    table = tile_table(builder.module, f"segment_tiles_{element.suffix}", TILE, widest,
                       lambda: _tiles(builder.module, element))
    frame = array(builder, I64, Field.A_ROWS + (tallest_of_all + 1) // 2)

    def tell(field: Field, value: Int) -> None:
        store(value.value, frame + 8 * field, 8)

    k, segments, zero, one = at["k"], at["segments1"], Int(builder, 0), Int(builder, 1)
    tell(Field.A_ROW, at["a_row"])
    for i in range(3, tallest_of_all + 1, 2):
        store((at["a_row"] * i).value, frame + 8 * (Field.A_ROWS - 1 + i // 2), 8)
    tell(Field.A_COL, at["a_col"])
    tell(Field.B_ROW, at["b_row"])
    tell(Field.C_ROW, at["c_row"])
    tell(Field.A_SEGMENT, at["a_segment1"] - at["a_col"] * k)
    tell(Field.B_SEGMENT, at["b_segment1"] - at["b_row"] * k)
    tell(Field.K, k)
    tell(Field.OUTER, at["segments0"])
    tell(Field.A_OUTER, at["a_segment0"] - at["a_segment1"] * segments)
    vectors = (at["n"] + (lanes - 1)) // lanes
    panels = (vectors + (widest - 1)) // widest
    share, larger = vectors // panels.max(1), vectors % panels.max(1)
    inner = at["segments0"] // at["sweeps"].max(1)
    in_order = at["b_segment1"] >= at["b_row"] * k
    together = at["together"] > 1
    with builder.if_then(together):
        _share(element, at)
    b, bias = (at["workspace"].where(together, at[name]) for name in ("b", "bias"))
    b = b + zero.where(builder.not_(together), element.lanes * size)
    with loop(zero, at["sweeps"]) as sweep, loop(start, stop) as unit:
        i0 = unit % at["blocks"] * at["block"]
        outer = unit // at["blocks"]
        first = outer % at["groups"] * at["group"]
        outer = outer // at["groups"]
        height = at["block"].min(at["m"] - i0)
        a, c = at["a"] + at["a_row"] * i0, at["c"] + at["c_row"] * i0
        of_batch = b + at["b_batch2"] * first
        for axis, index in enumerate((outer // at["batch1"], outer % at["batch1"])):
            a, c = a + at[f"a_batch{axis}"] * index, c + at[f"c_batch{axis}"] * index
            of_batch = of_batch + at[f"b_batch{axis}"] * index
        with loop(inner * sweep, one.where(together, inner * (sweep + 1))) as s:
            tell(Field.START, one.where(s > 0, at["start"]))
            tell(Field.RELU, at["relu"].where(builder.or_(together, s == at["segments0"] - 1), 0))
            from_a = a + at["a_segment0"] * s
            with loop(zero, panels) as p:
                breadth = share + p.flag(p < larger)
                j0 = (share * p + p.min(larger)) * lanes
                columns = (breadth * lanes).min(at["n"] - j0)
                live = columns - (breadth - 1) * lanes
                tell(Field.MASK, Int(builder, builder.sub(builder.shl(I64(1), live.value), I64(1))))
                tell(Field.ROW, bias + j0 * size)
                # the last rows, whose last vector may end behind B, are read by live lanes only
                behind = zero.where(together, breadth * (lanes * size) - columns * size)
                unsafe = ((behind + at["b_row"] - 1) // at["b_row"].max(1)).where(behind > 0, 0)
                masked = builder.and_(behind > 0, builder.or_(unsafe > k, builder.not_(in_order)))
                tail = unsafe > 0
                full = (segments - zero.flag(tail)).where(k > 0, 0)
                tell(Field.SEGMENTS, zero.where(masked, full))
                tell(Field.LAST, zero.where(masked, (k - unsafe).where(tail, 0)).where(k > 0, 0))
                tell(Field.TAILS, segments.where(masked, zero.flag(tail)).where(k > 0, 0))
                tell(Field.K_TAIL, k.where(masked, unsafe))
                tallest = at["heights"] >> (breadth - 1) * 8 & 255
                width = Int(builder, SHARED).where(together, breadth)
                from_b = of_batch + j0 * size + at["b_segment0"] * s
                with loop(first, (first + at["group"]).min(at["batch2"])) as z:
                    there, to = from_a + at["a_batch2"] * z, c + at["c_batch2"] * z + j0 * size

                    before = builder.block
                    with builder.if_then(height >= tallest):
                        rest = call_tile(table, width, tallest, [frame, there, from_b, to, height])
                        after = builder.block
                    phi = builder.phi(I64)
                    phi.add_incoming(height.value, before)
                    phi.add_incoming(rest.value, after)
                    left = Int(builder, phi)
                    with builder.if_then(left > 0):
                        done = height - left
                        call_tile(table, width, left, [frame, there + at["a_row"] * done, from_b,
                                                       to + at["c_row"] * done, left])


def heights(rows: int) -> int:
    """The height of the tiles that so many rows are cut into, a byte for each width."""
    return sum(balanced(rows, tallest) << 8 * i for i, tallest in enumerate(tallest_tiles()))


def _share(element: Element, at: dict[str, Int]) -> None:
    """Write, for rows of C that lie in one vector, their bias and their common B to the workspace: for each segment the
    lanes it counts for, then its rows, each row of C reading a tap that is `shift` before that of the one above."""
    builder, size, width = at["b"].builder, element.size, element.lanes * element.size
    zero, one, n = Int(builder, 0), Int(builder, 1), at["one"]
    lanes = Int(builder, builder.sub(builder.shl(I64(1), n.value), I64(1)))
    with builder.if_then(at["start"] == 2), loop(zero, at["together"]) as p, loop(zero, n) as o:
        store(load(at["bias"] + o * size, element.type, size), at["workspace"] + (n * p + o) * size, size)
    with loop(zero, at["segments0"]) as s, loop(zero, at["segments1"]) as t:
        to = at["workspace"] + width + ((at["segments1"] * s + t) * (at["k"] + 1)) * width
        # what no row of C reads is 0: other bits might be numbers that are slow to multiply
        with loop(zero, (at["k"] + 1) * width, width) as j:
            store(ir.Constant(element.vector, None), to + j, size)
        with loop(zero, at["together"]) as p:
            tap = t - at["shift"] * p
            with builder.if_then(builder.and_(tap >= 0, tap < at["taps"])):
                mask = Int(builder, load(to, I64, 8)) + Int(builder, builder.shl(lanes.value, (n * p).value))
                store(mask.value, to, 8)
                of = at["b"] + at["w_segment0"] * s + at["w_tap"] * tap
                with loop(zero, at["k"]) as k, loop(zero, n) as o:
                    value = load(of + at["w_row"] * k + o * size, element.type, size)
                    store(value, to + (k + one) * width + (n * p + o) * size, size)
