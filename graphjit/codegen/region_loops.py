"""The loop kernel of ``add_regions``: each row of the result is the sum of the parts that reach it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from math import prod

from graphjit.codegen.library_loops import Builder, LoopCall, Writer, short
from graphjit.kernels.target import target
from graphjit.op import Params
from graphjit.types import TensorType

BLOCK = 4096  # neighbours that one turn takes together: they stay in the nearest cache
FEW = 384  # bytes of rows that are better computed in one loop of masked vectors


class _Rows:
    """What is done to a row, [first, stop_) of it: where all parts reach it, they are added in one loop over what they
    all reach of it, and number by number around it; else part by part. ``masked``: one loop asks for each number what
    parts reach it."""

    def __init__(self, w: Writer, out: TensorType, factors: Sequence[float], masked: bool) -> None:
        self.w, self.factors, self.last, self.zero = w, factors, out.ndim - 1, f"{short(out.dtype)}(0)"
        self.masked = masked

    def write(self) -> None:
        w, last = self.w, self.last
        for k, _ in enumerate(self.factors):
            at = "0"
            for r in range(last):
                at = f"({at}) * m{k}_{r} + x{r} - s{k}_{r}"
            w.line(f"at{k} = ({at}) * m{k}_{last} - s{k}_{last}")
            w.line(f"end{k} = s{k}_{last} + m{k}_{last}")
        if self.masked:
            self.in_one_loop()
            return
        reached = " and ".join(self.reached(k) for k, _ in enumerate(self.factors)) if last else ""
        with w.block(f"if {reached}") if reached else nullcontext():
            self.together()
        if reached:
            with w.block("else"):
                self.apart()

    def reached(self, k: int) -> str:
        """Whether a part reaches the row."""
        return " and ".join(f"x{r} >= s{k}_{r} and x{r} < s{k}_{r} + m{k}_{r}" for r in range(self.last))

    def added(self, k: int, to: str) -> str:
        part, sign = f"g{k}[at{k} + j]", "-" if self.factors[k] == -1.0 else "+"
        return f"{to} {sign} " + (part if abs(self.factors[k]) == 1.0 else f"f{k} * {part}")

    def in_one_loop(self) -> None:
        w, last = self.w, self.last
        for k, _ in enumerate(self.factors):
            w.line(f"from{k} = n{last}")
            with w.block(f"if {self.reached(k)}") if last else nullcontext():
                w.line(f"from{k} = s{k}_{last}")
        with w.block("for j in few(first, stop_)"):
            w.line("near = i32(j)")  # a vector has room for twice as many
            w.line(f"total = {self.zero}")
            for k, _ in enumerate(self.factors):
                with w.block(f"if near >= i32(from{k}) and near < i32(end{k})"):
                    w.line("total = " + self.added(k, "total"))
            w.line("out[to + j] = total")

    def together(self) -> None:
        w, last = self.w, self.last
        begin, end = "first", "stop_"
        for k, _ in enumerate(self.factors):
            begin, end = f"maximum({begin}, s{k}_{last})", f"minimum({end}, end{k})"
        w.line(f"begin = minimum({begin}, stop_)")
        w.line(f"end = maximum({end}, begin)")
        for low, high in (("first", "begin"), ("end", "stop_")):
            with w.block(f"for j in range({low}, {high})"):
                w.line(f"out[to + j] = {self.zero}")
                for k, _ in enumerate(self.factors):
                    with w.block(f"if j >= s{k}_{last} and j < end{k}"):
                        w.line("out[to + j] = " + self.added(k, "out[to + j]"))
        with w.block("for j in range(begin, end)"):
            total = self.zero
            for k, _ in enumerate(self.factors):
                w.line(f"a{k} = {self.added(k, total)}")
                total = f"a{k}"
            w.line(f"out[to + j] = {total}")

    def apart(self) -> None:
        w, last = self.w, self.last
        with w.block("for j in range(first, stop_)"):
            w.line(f"out[to + j] = {self.zero}")
        for k, _ in enumerate(self.factors):
            with w.block(f"if {self.reached(k)}"), \
                    w.block(f"for j in range(maximum(first, s{k}_{last}), minimum(stop_, end{k}))"):
                w.line("out[to + j] = " + self.added(k, "out[to + j]"))


def _add_regions(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    rank, last = out.ndim, out.ndim - 1
    signs = {1.0: "1", -1.0: "m"}
    masked = target().masks and out.shape[-1] * out.dtype.itemsize <= FEW
    w = Writer(f"add_regions{rank}{'m' * masked}_{''.join(signs.get(f, 'x') for f in params['factors'])}_"
               f"{out.dtype.name}")
    for k, t in enumerate(types):
        w.pointer(f"g{k}", t.dtype, f"in{k}")
    w.pointer("out", out.dtype, "out")
    blocks = -(-out.shape[-1] // BLOCK)
    w.sizes(blocks=blocks, **{f"n{r}": n for r, n in enumerate(out.shape)})
    for k, (t, at, factor) in enumerate(zip(types, params["starts"], params["factors"], strict=True)):
        w.sizes(**{f"m{k}_{r}": n for r, n in enumerate(t.shape)}, **{f"s{k}_{r}": n for r, n in enumerate(at)})
        if factor not in signs:
            w.parameters.append((f"f{k}", out.dtype.name, factor))
    with ExitStack() as loops:
        if last:  # rows of the axis before the last one lie side by side: what the others say is known for all of them
            w.line(f"rows = n{last - 1} * blocks")
            loops.enter_context(w.block("for plane in range(start // rows, (stop + rows - 1) // rows)"))
            w.line("rest = plane")
            for r in reversed(range(last - 1)):
                w.line(f"x{r} = rest % n{r}")
                w.line(f"rest = rest // n{r}")
            loops.enter_context(w.block("for i in range(maximum(start - plane * rows, 0), "
                                        "minimum(stop - plane * rows, rows))"))
            w.line(f"x{last - 1} = i // blocks")
            w.line(f"to = (plane * n{last - 1} + x{last - 1}) * n{last}")
        else:
            loops.enter_context(w.block("for i in range(start, stop)"))
            w.line("to = 0")
        w.line(f"first = (i % blocks) * {BLOCK}")
        w.line(f"stop_ = minimum(first + {BLOCK}, n{last})")
        _Rows(w, out, params["factors"], masked).write()
    return w.call(prod(map(int, out.shape[:-1])) * int(blocks))


REGION_BUILDERS: dict[str, Builder] = {"add_regions": _add_regions}
