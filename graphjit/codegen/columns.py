"""The column form of a reducing nest: the innermost loop runs over a kept axis and vectorises.

    for each stage:
        for j: start the accumulators        (small arrays over j)
        for r: for j: fold
        for j: outer values that the next stage needs
"""

from __future__ import annotations

from math import prod

from graphjit.codegen.loops import LoopWriter
from graphjit.codegen.source import COLUMN_BLOCK, FOLD, Body, fold_kind, load, start_of, store
from graphjit.ir import Apply, Node
from graphjit.passes.layout import base
from graphjit.types import FLOAT32, FLOAT64, SHORT, Extent


def write_columns(w: LoopWriter, top: Body) -> int:
    """Write the nest; gives the loop that is split, -1 for none."""
    j = len(w.loops) - 1
    outer = [k for k, kind in enumerate(w.loop_kind) if kind == "O"]
    few = w.known.get(j, SHORT + 1) <= SHORT  # nothing to share, and their number stands in the source
    split = not outer and not few
    out = Body(frozenset(a for k in outer for a in w.loops[k].axes), top) if outer else top
    stages = w.reach.stages(out)
    for stage in range(w.last + 1):
        roots = w.full_roots(stage)
        if roots:
            outer_values(w, roots, stages, j, split)
            _stage(w, stage, roots, stages, j, split)
    late_values(w, stages, j, split)
    w.reach.around(stages, out, split)
    if outer:
        top.nest([w.reach.header(k, split=k == 0) for k in outer], out.lines)
    return j if split else 0 if outer else -1


def late_values(w: LoopWriter, out: Body, j: int, split: bool) -> None:
    """Store what follows from the last folds."""
    late = w.late()
    if late:
        body = Body(w.cluster.outer, out)
        for node in late:
            w.put(node, body)
        body.flush()
        out.nest([w.reach.header(j, split)], body.lines)


def outer_values(w: LoopWriter, roots: list[Apply], out: Body, j: int, split: bool) -> None:
    """Compute the outer members that this stage's loops read, into small arrays."""
    needed: dict[Apply, None] = {}
    seen: set[Node] = set()
    stack: list[Node] = list(roots)
    while stack:
        node = stack.pop()
        if node in seen or not isinstance(node, Apply):
            continue
        seen.add(node)
        for operand in node.args:
            below = base(operand)
            if below in w.cluster.members and isinstance(below, Apply):
                if w.cluster.is_full(below):
                    stack.append(below)
                elif not w.cluster.folds(below) and below not in w.arrays:
                    needed[below] = None
            elif below in w.inline:
                stack.append(below)
    todo = [n for n in w.cluster.members if n in needed]
    if not todo:
        return
    body = Body(w.cluster.outer, out)
    names: dict[Apply, str] = {}
    for node in todo:
        value = w.value(node, w.cluster.members[node], body)
        names[node] = w.reach.scratch(("outer", node), [j], node.type.dtype)
        body.lines.append(store(names[node], f"i{j}", value, node.type.dtype))
    for node, name in names.items():
        w.arrays[node] = (name, f"i{j}")
    out.nest([w.reach.header(j, split)], body.lines)


def _stage(w: LoopWriter, stage: int, roots: list[Apply], out: Body, j: int, split: bool) -> None:
    arrays = column_folds(w, stage, roots, out, j, split, None)
    at = f"i{j}"
    finish = [f"{arrays[n][0]}[{at}] = f32({total}[{at}])" for n, total in w.totals.items() if n in arrays]
    if finish:
        out.nest([w.reach.header(j, split)], finish)
    w.mark_written(roots)
    w.arrays.update(arrays)


def column_folds(w: LoopWriter, stage: int, roots: list[Apply], out: Body, j: int, split: bool,
                 span: tuple[str, str] | None) -> dict[Node, tuple[str, str]]:
    """The loops of a stage; ``span`` is what the first reduced one runs over, None for all.

    Gives the arrays of the folds. Those in ``w.totals`` have their results there, in float64, and not yet in the array.
    """
    reduced = [k for k, kind in enumerate(w.loop_kind) if kind == "R"]
    bounds = {k: ("0", w.arguments.extent(k)) if span is None or k != reduced[0] else span for k in reduced}
    headers = [w.header_of(k, end, begin) for k, (begin, end) in bounds.items()]
    rows = Body(out.axes | frozenset(a for k in reduced for a in w.loops[k].axes), out)
    body = Body(w.cluster.all_axes, rows)
    last = reduced[-1]
    lengths = [w.loops[k].extent for k in reduced]
    long = any(isinstance(n, Extent) for n in lengths) or prod(lengths) > COLUMN_BLOCK
    start: list[str] = []        # before all rows
    block_start: list[str] = []  # before a block of rows
    block_end: list[str] = []    # after a block of rows
    arrays: dict[Node, tuple[str, str]] = {}
    at = f"i{j}"
    for node in roots:
        if not w.cluster.folds(node):
            w.put(node, body)
            continue
        dtype, kind = node.type.dtype, fold_kind(node)
        value = w.operand(node, 0, w.cluster.members[node], body)
        acc = w.reach.scratch(("fold", node), [j], dtype)
        body.stores.append((body, store(acc, at, FOLD[kind].format(load(acc, at, dtype), value), dtype)))
        zero = store(acc, at, start_of(kind, dtype), dtype)
        arrays[node] = (acc, at)
        w.count_fold()
        if kind == "sum" and dtype == FLOAT32 and long:
            # float32 partial sums of a block of rows, added up in float64
            total = w.reach.scratch(("total", node), [j], FLOAT64)
            start.append(f"{total}[{at}] = f64(0.0)")
            block_start.append(zero)
            block_end.append(f"{total}[{at}] = {total}[{at}] + f64({acc}[{at}])")
            w.totals[node] = total
        else:
            start.append(zero)
    w.keep_stage(stage, body)
    body.flush()
    rows.nest([w.reach.header(j, split)], body.lines)
    if start:
        out.nest([w.reach.header(j, split)], start)
    if not block_end:
        out.nest(headers, rows.lines)
        return arrays
    (begin, end), b = bounds[last], f"block{last}"
    inner = Body(frozenset())
    inner.nest([w.reach.header(j, split)], block_start)
    inner.nest([f"for i{last} in range({b}, minimum({b} + {COLUMN_BLOCK}, {end})):"], rows.lines)
    inner.nest([w.reach.header(j, split)], block_end)
    out.nest([*headers[:-1], f"for {b} in range({begin}, {end}, {COLUMN_BLOCK}):"], inner.lines)
    return arrays

