"""Folds of everything, or of all rows to one, in chunks that threads share.

    for chunk in range(start, stop): fold a part of the outermost reduced loop; keep the results
    the last unit: put the parts together in their order, and compute what follows from them

How long a chunk is depends on the number of elements alone, so the result has the same bits on any number of
threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from graphjit.codegen.arguments import Count, Room
from graphjit.codegen.axes import result_map
from graphjit.codegen.columns import column_folds, late_values, outer_values
from graphjit.codegen.loops import LoopWriter
from graphjit.codegen.nest import COLUMNS, Nest
from graphjit.codegen.rows import fold_body, fold_loops
from graphjit.codegen.source import (
    COLUMN_BLOCK,
    FOLD,
    ROW_BLOCK,
    Body,
    fold_kind,
    load,
    short,
    start_of,
    store,
    stored_name,
)
from graphjit.ir import Apply
from graphjit.types import FLOAT64, DType, Extent

SHORTEST, MOST = 2048, 64  # elements of a chunk (but the last one), and chunks


def in_chunks(w: Nest) -> bool:
    """Whether a nest folds all there is, in one go, along something that may be long: it depends on no batch size."""
    if not w.cluster.reduced or "O" in w.loop_kind or w.last > 0 or w.row_lanes:
        return False
    first, *others = (loop.extent for loop in w.loops)
    if w.column and others.pop() > COLUMNS:
        return False
    return bool(others) or isinstance(first, Extent) or first > (COLUMN_BLOCK if w.column else ROW_BLOCK)


def write_chunks(w: LoopWriter, top: Body) -> Count:
    """Write the nest; gives the number of units: the chunks, and the last unit, which must run behind them."""
    block = _block(w)
    chunks = w.arguments.add("chunks", "n", "int64", partial(_chunks, block))
    step = w.arguments.add("chunk", "n", "int64", partial(_chunk, block))
    part, last = Body(frozenset(), top), Body(frozenset())
    part.lines = [f"first = chunk * {step}", f"end = minimum(first + {step}, {w.arguments.extent(0)})"]
    (_columns if w.column else _everything)(w, top, part, last, chunks)
    top.nest([f"for chunk in range(start, minimum(stop, {chunks})):"], part.lines)
    top.nest([f"if stop > {chunks}:"], last.lines)
    return partial(_units, block)


def chunk_length(w: Nest) -> int:
    """How many turns of the first loop each chunk runs over, but the last one."""
    return _chunk(_block(w), [int(loop.extent) for loop in w.loops])


def _block(w: Nest) -> int:
    return 1 if len(w.loops) > 1 + w.column else COLUMN_BLOCK if w.column else ROW_BLOCK


def _chunk(block: int, lengths: Sequence[int]) -> int:
    """How many turns of the first loop are a chunk: whole blocks."""
    size = max(-(-SHORTEST // max(math.prod(lengths[1:]), 1)), -(-lengths[0] // MOST))
    return -(-size // block) * block


def _chunks(block: int, lengths: Sequence[int]) -> int:
    return -(-lengths[0] // _chunk(block, lengths))


def _units(block: int, lengths: Sequence[int]) -> int:
    return _chunks(block, lengths) + 1


def _everything(w: LoopWriter, top: Body, part: Body, last: Body, chunks: str) -> None:
    body, roots = Body(w.cluster.all_axes, top), w.full_roots(0)
    folded = fold_body(w, 0, roots, body)
    totals = fold_loops(w, folded, body, part, list(range(len(w.loops))), ("first", "end"))
    last.known.update(top.known)
    for node, acc in folded:
        kept, dtype, start, fold = _kept(node, acc, f"{acc}_total" if acc in totals else None)
        parts = _parts(w, node, (), dtype)
        part.add(store(parts, "chunk", kept, dtype))
        last.add(f"{kept} = {start}")
        last.nest([f"for chunk in range({chunks}):"], [f"{kept} = " + fold.format(kept, load(parts, "chunk", dtype))])
        if kept != acc:
            last.add(f"{acc} = {short(node.type.dtype)}({kept})")
        last.known[node, result_map(node, w.cluster.members[node])] = acc
    w.mark_written(roots)
    for node in w.late():
        w.put(node, last)
    last.flush()


def _columns(w: LoopWriter, top: Body, part: Body, last: Body, chunks: str) -> None:
    j, roots = len(w.loops) - 1, w.full_roots(0)
    outer_values(w, roots, top, j, split=False)
    arrays = column_folds(w, 0, roots, part, j, False, ("first", "end"))
    last.known.update(top.known)
    columns, keep, begin, join, end = w.arguments.extent(j), list[str](), list[str](), list[str](), list[str]()
    for node in (n for n in roots if n in arrays):
        array, at = arrays[node]
        kept, dtype, start, fold = _kept(node, array, w.totals.get(node))
        parts, place = _parts(w, node, (j,), dtype), f"chunk * {columns} + {at}"
        keep.append(store(parts, place, load(kept, at, dtype), dtype))
        begin.append(store(kept, at, start, dtype))
        join.append(store(kept, at, fold.format(load(kept, at, dtype), load(parts, place, dtype)), dtype))
        if kept != array:
            end.append(f"{array}[{at}] = {short(node.type.dtype)}({kept}[{at}])")
    header = w.reach.header(j, split=False)
    part.nest([header], keep)
    last.nest([header], begin)
    last.nest([f"for chunk in range({chunks}):", header], join)
    if end:
        last.nest([header], end)
    w.mark_written(roots)
    w.arrays.update(arrays)
    late_values(w, last, j, split=False)


def _kept(node: Apply, acc: str, total: str | None) -> tuple[str, DType, str, str]:
    """Where a chunk has the result of a fold, its dtype, what the fold starts from, and the fold."""
    kind, dtype = fold_kind(node), node.type.dtype
    if total is None:
        return acc, dtype, start_of(kind, dtype), FOLD[kind]
    return total, FLOAT64, start_of(kind, FLOAT64), FOLD[kind]


def _parts(w: LoopWriter, node: Apply, columns: tuple[int, ...], dtype: DType) -> str:
    """Memory for the results of each chunk: one, or so many as a loop has turns."""
    room = Room(partial(_bytes, columns, MOST * dtype.itemsize), common=True)
    return w.arguments.add(("parts", node), "t", "*" + stored_name(dtype), room)


def _bytes(columns: tuple[int, ...], each: int, lengths: Sequence[int]) -> int:
    return each * max(math.prod([lengths[k] for k in columns]), 1)
