"""Loop kernels along one axis: the places of the largest elements, running sums and products."""

from __future__ import annotations

from graphjit.codegen.library_loops import COLUMNS, Builder, LoopCall, Writer, around, named, short
from graphjit.op import Params
from graphjit.types import FLOAT32, FLOAT64, TensorType, is_one

WIDE = 256  # neighbouring columns whose running sums stay in the cache


def _argreduce(op: str, types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    (x,) = types
    axis = params["axis"]
    outer, n, inner = around(x.shape, axis)
    rows = all(is_one(m) for m in x.shape[axis + 1:])
    w = Writer(f"{op}_{'rows' if rows else 'columns'}_{x.dtype.name}")
    w.pointer("x", x.dtype, "in0")
    w.pointer("out", out.dtype, "out")
    if rows:
        # the extreme by a loop that vectorises, then its first place; a NaN is the extreme if there is one
        w.sizes(n=n)
        with w.block("for i in range(start, stop)"):
            w.line("at = i * n")
            w.line("best = x[at]")
            with w.block("for j in range(n)"):
                w.line(f"best = {'rmax' if op == 'argmax' else 'rmin'}(best, x[at + j])")
            w.line("place = 0")
            with w.block("for j in range(n)"):
                w.line("value = x[at + j]")
                with w.block("if value == best or value != value"):
                    w.line("place = j")
                    w.line("break")
            w.line("out[i] = place")
        return w.call(outer)
    blocks = -(-inner // COLUMNS)
    w.sizes(n=n, inner=inner, blocks=blocks)
    with w.block("for i in range(start, stop)"):
        w.line("outer = i // blocks")
        w.line(f"first = (i % blocks) * {COLUMNS}")
        w.line(f"last = minimum(first + {COLUMNS}, inner)")
        with w.block("for j in range(first, last)"):
            w.line("out[outer * inner + j] = 0")
        sign = ">" if op == "argmax" else "<"
        with w.block("for row in range(1, n)"), w.block("for j in range(first, last)"):
            w.line("best = x[(outer * n + out[outer * inner + j]) * inner + j]")
            w.line("value = x[(outer * n + row) * inner + j]")
            with w.block(f"if value {sign} best or (value != value and best == best)"):
                w.line("out[outer * inner + j] = row")
    return w.call(outer * blocks)


def _cumulative(op: str, types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    (x,) = types
    outer, n, inner = around(x.shape, params["axis"])
    wide = op == "cumsum" and x.dtype == FLOAT32  # running sums in double precision
    rows = all(is_one(m) for m in x.shape[params["axis"] + 1:])
    cast, back = ("f64", "f32") if wide else (short(x.dtype), "")
    start, grown = (0, "add") if op == "cumsum" else (1, "mul")
    reverse = bool(params.get("reverse"))
    w = Writer(f"{op}_{'rows' if rows else 'columns'}_{'reversed_' * reverse}{x.dtype.name}")
    w.pointer("x", x.dtype, "in0")
    w.pointer("out", out.dtype, "out")
    w.sizes(n=n, inner=inner)
    if rows:
        with w.block("for i in range(start, stop)"):
            w.line(f"acc = {cast}({start})")
            with w.block("for j in range(n)"):
                w.line("at = i * n + " + ("n - 1 - j" if reverse else "j"))
                w.line(f"acc = {grown}(acc, {cast}(x[at]))")
                w.line(f"out[at] = {back}(acc)")
        return w.call(outer)
    blocks, kind = -(-inner // WIDE), FLOAT64 if wide else x.dtype
    w.pointer("acc", kind, "room")
    w.sizes(blocks=blocks)
    with w.block("for i in range(start, stop)"):
        w.line(f"first = (i % blocks) * {WIDE}")
        w.line(f"width = minimum({WIDE}, inner - first)")
        with w.block("for j in range(width)"):
            w.line(f"acc[j] = {cast}({start})")
        with w.block("for row in range(n)"):
            w.line(f"at = (i // blocks * n + {'n - 1 - row' if reverse else 'row'}) * inner + first")
            with w.block("for j in range(width)"):
                w.line(f"value = {grown}(acc[j], {cast}(x[at + j]))")
                w.line("acc[j] = value")
                w.line(f"out[at + j] = {back}(value)")
    return w.call(outer * blocks, room=WIDE * kind.itemsize)


def _largest(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    """The places of the k largest: each element that is larger than the last of those so far goes to its place."""
    (x,) = types
    outer, n, inner = around(x.shape, params["axis"])
    w = Writer(f"largest_{x.dtype.name}")
    w.pointer("x", x.dtype, "in0")
    w.pointer("out", out.dtype, "out")
    w.sizes(n=n, inner=inner, k=params["k"])
    larger = "value > other or (value != value and other == other)"
    with w.block("for i in range(start, stop)"):
        w.line("at = i // inner * n * inner + i % inner")
        w.line("to = i // inner * k * inner + i % inner")
        w.line("other = x[at]")
        with w.block("for row in range(n)"):
            w.line("value = x[at + row * inner]")
            with w.block(f"if row < k or {larger}"):
                w.line("place = minimum(row, k - 1)")
                with w.block("for step in range(minimum(row, k - 1))"):
                    w.line("before = out[to + (place - 1) * inner]")
                    w.line("other = x[at + before * inner]")
                    with w.block(f"if not ({larger})"):
                        w.line("break")
                    w.line("out[to + place * inner] = before")
                    w.line("place = place - 1")
                w.line("out[to + place * inner] = row")
                with w.block("if row >= k - 1"):
                    w.line("other = x[at + out[to + (k - 1) * inner] * inner]")
    return w.call(outer * inner)


AXIS_BUILDERS: dict[str, Builder] = {
    **{op: named(_argreduce, op) for op in ("argmax", "argmin")},
    **{op: named(_cumulative, op) for op in ("cumsum", "cumprod")},
    "largest": _largest,
}
