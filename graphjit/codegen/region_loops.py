"""The loop kernel of ``add_regions``: each row of the result is cleared, then every part that reaches it is added."""

from __future__ import annotations

from contextlib import ExitStack
from math import prod

from graphjit.codegen.library_loops import Builder, LoopCall, Writer, short
from graphjit.op import Params
from graphjit.types import TensorType

BLOCK = 4096  # neighbours that one turn takes together: they stay in the nearest cache


def _add_regions(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    rank, last = out.ndim, out.ndim - 1
    signs = {1.0: "1", -1.0: "m"}
    w = Writer(f"add_regions{rank}_{''.join(signs.get(f, 'x') for f in params['factors'])}_{out.dtype.name}")
    for k, t in enumerate(types):
        w.pointer(f"g{k}", t.dtype, f"in{k}")
    w.pointer("out", out.dtype, "out")
    blocks = -(-out.shape[-1] // BLOCK)
    w.sizes(blocks=blocks, **{f"n{r}": n for r, n in enumerate(out.shape)})
    for k, (t, at, factor) in enumerate(zip(types, params["starts"], params["factors"], strict=True)):
        w.sizes(**{f"m{k}_{r}": n for r, n in enumerate(t.shape)}, **{f"s{k}_{r}": n for r, n in enumerate(at)})
        if factor not in signs:
            w.parameters.append((f"f{k}", out.dtype.name, factor))
    with w.block("for i in range(start, stop)"):
        w.line("rest = i // blocks")
        w.line(f"to = rest * n{last}")
        for r in reversed(range(last)):
            w.line(f"x{r} = rest % n{r}")
            w.line(f"rest = rest // n{r}")
        w.line(f"first = (i % blocks) * {BLOCK}")
        w.line(f"stop_ = minimum(first + {BLOCK}, n{last})")
        with w.block("for j in range(first, stop_)"):
            w.line(f"out[to + j] = {short(out.dtype)}(0)")
        for k, factor in enumerate(params["factors"]):
            with ExitStack() as stack:
                at = "0"
                for r in range(last):
                    stack.enter_context(w.block(f"if x{r} >= s{k}_{r} and x{r} < s{k}_{r} + m{k}_{r}"))
                    at = f"({at}) * m{k}_{r} + x{r} - s{k}_{r}"
                w.line(f"at = ({at}) * m{k}_{last} - s{k}_{last}")
                head = f"for j in range(maximum(first, s{k}_{last}), minimum(stop_, s{k}_{last} + m{k}_{last}))"
                stack.enter_context(w.block(head))
                part, sign = f"g{k}[at + j]", "-" if factor == -1.0 else "+"
                part = part if factor in signs else f"f{k} * {part}"
                w.line(f"out[to + j] = out[to + j] {sign} {part}")
    return w.call(prod(map(int, out.shape[:-1])) * int(blocks))


REGION_BUILDERS: dict[str, Builder] = {"add_regions": _add_regions}
