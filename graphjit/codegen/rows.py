"""The row form: outer loops, and inside them a loop over the reduced axes for each stage, folding into variables."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from graphjit.codegen.access import LINE
from graphjit.codegen.axes import result_map
from graphjit.codegen.loops import LoopWriter
from graphjit.codegen.source import FOLD, ROW_BLOCK, Body, fold_kind, short, start_of
from graphjit.codegen.turned_tiles import TurnedTiles
from graphjit.ir import Apply
from graphjit.types import Extent, is_one

ROWS = 256  # turns of another loop that read on in them, before the next lines are read


def write_rows(w: LoopWriter, top: Body) -> int:
    """Write the nest; gives the loop that is split, -1 for none."""
    reduces = bool(w.cluster.reduced)
    if reduces:
        outer = [k for k, kind in enumerate(w.loop_kind) if kind == "O"]
    else:
        outer = list(range(len(w.loops) - 1))
    inner = [k for k in range(len(w.loops)) if k not in outer]
    outer_axes = frozenset(a for k in outer for a in w.loops[k].axes)
    out = Body(outer_axes, top) if outer else top
    for stage in range(w.last + 1):
        roots = w.full_roots(stage)
        if roots:
            _stage(w, stage, roots, out, inner, split_inner=not outer and not reduces)
    for node in w.late():
        w.put(node, out)
    out.flush()
    if outer and _is_tiled(w):
        assert isinstance(w.reach, TurnedTiles)
        w.reach.around(out, top, split=True)
    elif outer:
        top.nest(_outer_headers(w, outer), out.lines)
    if outer or (inner and not reduces):
        return 0
    return -1


def _stage(w: LoopWriter, stage: int, roots: list[Apply], out: Body, inner: list[int], split_inner: bool) -> None:
    body = Body(w.cluster.all_axes, out) if inner else out
    accumulators = fold_body(w, stage, roots, body)
    totals = fold_loops(w, accumulators, body, out, inner, ("start", "stop") if split_inner else None)
    types = {acc: node.type.dtype for node, acc in accumulators}
    out.lines.extend(f"{acc} = {short(types[acc])}({acc}_total)" for acc in totals)
    w.mark_written(roots)
    for node, acc in accumulators:
        out.known[node, result_map(node, w.cluster.members[node])] = acc


def fold_body(w: LoopWriter, stage: int, roots: list[Apply], body: Body) -> list[tuple[Apply, str]]:
    """What the loops of a stage do in each turn; gives its folds and the variables they are in."""
    accumulators: list[tuple[Apply, str]] = []
    for node in roots:
        if w.cluster.folds(node):
            value = w.operand(node, 0, w.cluster.members[node], body)
            acc = w.fresh("a")
            if _ranked(node):
                value = value if fold_kind(node) == "max" else f"neg({value})"
                body.stores.append((body, f"{acc}_rank = rmax({acc}_rank, rank({value}))"))
            else:
                body.stores.append((body, f"{acc} = " + FOLD[fold_kind(node)].format(acc, value)))
            accumulators.append((node, acc))
            w.count_fold()
        else:
            w.put(node, body)
    w.keep_stage(stage, body)
    body.flush()
    return accumulators


def fold_loops(w: LoopWriter, accumulators: list[tuple[Apply, str]], body: Body, out: Body, inner: list[int],
               span: tuple[str, str] | None) -> list[str]:
    """The loops of a stage around its body; ``span`` is what the first of them runs over, None for all.

    Gives the folds that are in a float64 total ``{acc}_total`` then.
    """
    sums = [acc for node, acc in accumulators if fold_kind(node) == "sum" and node.type.dtype.kind == "f"]
    starts = {acc: f"{acc} = {start_of(fold_kind(node), node.type.dtype)}" if not _ranked(node) else
              f"{acc}_rank = rank({start_of('max', node.type.dtype)})" for node, acc in accumulators}
    ends = [f"{acc} = " + ("unrank({0})" if fold_kind(node) == "max" else "neg(unrank({0}))").format(f"{acc}_rank")
            for node, acc in accumulators if _ranked(node)]
    if not inner:
        return []
    first, last = inner[0], inner[-1]
    if span is None and _is_tiled(w):
        out.nest([f"if rows == {LINE}:", f"for i{last} in lanes(block, block + {LINE}):"], body.lines)
        out.nest([f"if rows != {LINE}:", f"for i{last} in range(block, {w.arguments.extent(last)}):"], body.lines)
        return []
    if span is None and _nearest(w) is not None:
        over = "lanes" if last == w.lanes else "range"  # or LLVM unrolls it: 10 times as long to compile, and slower
        out.nest([f"for i{last} in {over}(block, minimum(block + {LINE}, {w.arguments.extent(last)})):"], body.lines)
        return []
    bounds = {k: ("0", w.arguments.extent(k)) if span is None or k != first else span for k in inner}
    headers = [w.header_of(k, end, begin) for k, (begin, end) in bounds.items()]
    if not sums or not _many(w, inner):
        out.lines.extend(starts.values())
        if span is None and _has_last_vector(w):
            out.lines.extend(_with_last_vector(w, body.lines))
        else:
            out.nest(headers, body.lines)
        out.lines.extend(ends)
        return []
    # two levels: float32 partial sums added up in float64, as accurate as pairwise summation
    out.lines.extend(text for acc, text in starts.items() if acc not in sums)
    out.lines.extend(f"{acc}_total = f64(0.0)" for acc in sums)
    (begin, end), b = bounds[last], f"block{last}"
    block = [starts[acc] for acc in sums]
    inside = Body(frozenset())
    inside.nest([w.header_of(last, f"minimum({b} + {ROW_BLOCK}, {end})", b)], body.lines)
    block += inside.lines
    block += [f"{acc}_total = {acc}_total + f64({acc})" for acc in sums]
    out.nest([*headers[:-1], f"for {b} in range({begin}, {end}, {ROW_BLOCK}):"], block)
    out.lines.extend(ends)
    return sums


def _many(w: LoopWriter, inner: Sequence[int]) -> bool:
    """Whether more numbers may be added up than float32 holds without a loss."""
    lengths = [w.loops[k].extent for k in inner]
    return any(isinstance(n, Extent) and k not in w.known for n, k in zip(lengths, inner, strict=True)) \
        or prod(lengths) > ROW_BLOCK


def _has_last_vector(w: LoopWriter) -> bool:
    """Whether the last turns of the innermost loop are to be a whole vector, which begins before the end of the one
    before it, where LLVM would compute them one by one: of a loop that runs again and again, and computes what is dear.
    (Folds would have more lanes to join.)"""
    k = len(w.loops) - 1
    n, width = w.known.get(k, 0), w.full_vector
    may = w.last_vector and not w.few and k > 0
    return may and (k not in w.known or (k == w.lanes and n > width and n % width != 0))


def _with_last_vector(w: LoopWriter, lines: Sequence[str]) -> list[str]:
    k, found = len(w.loops) - 1, Body(frozenset())
    end, width = w.arguments.extent(k), w.full_vector
    if k in w.known:
        found.nest([w.header_of(k, str(w.known[k] // width * width))], lines)
        found.nest([f"for i{k} in lanes({w.known[k] - width}, {end}):"], lines)
        return found.lines
    found.nest([w.header_of(k, f"{end} // {width} * {width}")], lines)
    found.nest([f"if {end} >= {width} and {end} % {width} != 0:", f"for i{k} in lanes({end} - {width}, {end}):"], lines)
    found.nest([f"if {end} < {width}:", w.header_of(k, end)], lines)
    return found.lines


def _outer_headers(w: LoopWriter, outer: Sequence[int]) -> list[str]:
    headers = [w.reach.header(k, split=k == 0) for k in outer]
    near = _nearest(w)
    if near is not None:
        begin, end = ("start", "stop") if near == 0 else ("0", w.arguments.extent(near))
        headers[near] = f"for near in range({begin}, {end}, {ROWS}):"
        headers.append(f"for block in range(0, {w.arguments.extent(len(w.loops) - 1)}, {LINE}):")
        headers.append(f"for i{near} in range(near, minimum(near + {ROWS}, {end})):")
    return headers


def _is_tiled(w: LoopWriter) -> bool:
    return isinstance(w.reach, TurnedTiles) and bool(w.reach.tiles)


def _nearest(w: LoopWriter) -> int | None:
    """The loop along which there are the neighbours of what the innermost one reads apart, if it is to run in blocks:
    some turns of the one, and some of the other, so that all of the lines that they read is read while these are in the
    cache. What is stored once for many turns is to be stored once."""
    whole = all(w.cluster.is_full(n) for n in w.cluster.members if n in w.stored)
    if w.cluster.reduced or not whole or w.cuts:
        return None
    found = [k for k in range(len(w.loops) - 1) for a in w.steps if is_one(a.strides[w.loops[k].axes[-1]])]
    return max(found, key=lambda k: (found.count(k), k), default=None)


def _ranked(node: Apply) -> bool:
    """Whether a fold runs over the ranks of floats: the largest of a vector's lanes is found faster."""
    return fold_kind(node) in ("max", "min") and node.type.dtype.kind == "f"
