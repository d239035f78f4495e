"""Loop kernels of windows with the channels last: (N, *sizes, C).

The innermost loop runs along the channels. Small windows that lie inside of the operand have their elements written
out in it, so that it vectorises; windows in the padding, and large ones, go element by element. The number of channels
belongs to the model and is in the source, unless it is small or the caller chose it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from graphjit.codegen.library_loops import Builder, LoopCall, plus, short
from graphjit.codegen.window_loops import Window, _lowest
from graphjit.op import Params
from graphjit.types import Extent, TensorType, is_float

WRITTEN_OUT = 16  # elements of a window
FEW = 8           # channels: LLVM unrolls so short a loop before it could vectorise it, if it knows the number


class ChannelWindow(Window):
    """A kernel over windows whose elements ``at + c`` are channels."""

    def __init__(self, op: str, x: TensorType, places: tuple[int, ...], params: Params,
                 operands: dict[str, tuple[TensorType, str]]) -> None:
        first = TensorType((x.shape[0], x.shape[-1], *x.shape[1:-1]), x.dtype)
        super().__init__(f"{op}_last", first, places, params["kernel"], params)
        self.dtype = x.dtype
        self.clears = False  # the result is zero but for what windows put there
        for name, (t, value) in operands.items():
            self.pointer(name, t.dtype, value)
        self.sizes(**self.spatial)
        channels = x.shape[-1]
        self.channels = str(int(channels))
        if isinstance(channels, Extent) or channels <= FEW:
            self.sizes(channels=channels)
            self.channels = "channels"
        self.small = math.prod(self.kernel) <= WRITTEN_OUT
        self.apart = all(s >= d * (k - 1) + 1 for s, d, k in
                         zip(self.stride, self.dilation, self.kernel, strict=True))

    def base(self, places: bool) -> str:
        """The index of channel 0 of the window's result, or of its first element."""
        return f"({self.window('i') if places else self.corner()}) * {self.channels}"

    def corner(self) -> str:
        out = "i"
        for r in self.axes:
            start = f" - {self.low[r]}" if self.low[r] else ""
            out = f"({out}) * h{r} + a{r} * {self.stride[r]}{start}"
        return out

    def offsets(self) -> list[str]:
        """Of each element of a window from its first."""
        out = []
        for at in itertools.product(*map(range, self.kernel)):
            text = str(at[0] * self.dilation[0])
            for r in range(1, self.rank):
                text = f"({text}) * h{r} + {at[r] * self.dilation[r]}"
            out.append(f"({text}) * {self.channels}")
        return out

    def clear_image(self, value: str) -> None:
        count = " * ".join([*(f"h{r}" for r in self.axes), self.channels])
        with self.block(f"for j in range({count})"):
            self.line(f"out[i * ({count}) + j] = {value}")

    def each_window(self, inside: Sequence[Callable[[list[str]], None]],
                    element_by_element: Callable[[], None]) -> None:
        """For each place of image i what one channel needs: ``inside(elements)`` where the whole window is.

        Each of ``inside`` is a loop of its own, which stores at one place only: one with several would not vectorise.
        """
        with ExitStack() as stack:
            stack.enter_context(self.block("for i in range(start, stop)"))
            if self.clears:
                self.clear_image(f"{short(self.dtype)}(0)")
            self.nest(stack, "a", [f"o{r}" for r in self.axes])
            self.line(f"to = {self.base(places=True)}")
            loop = f"for c in range({self.channels})"
            if not self.small:
                with self.block(loop):
                    element_by_element()
                return
            if self.padded:
                tests = [f"a{r} * {s} >= {low} and a{r} * {s} + {d * (k - 1) - low} < h{r}" for r, s, low, d, k in
                         zip(self.axes, self.stride, self.low, self.dilation, self.kernel, strict=True)]
                with self.block("if " + " and ".join(tests)):
                    self.whole(loop, inside)
                with self.block("else"), self.block(loop):
                    element_by_element()
            else:
                self.whole(loop, inside)

    def whole(self, loop: str, inside: Sequence[Callable[[list[str]], None]]) -> None:
        self.line(f"at = {self.base(places=False)}")
        for k, offset in enumerate(self.offsets()):
            self.line(f"at{k} = at + {offset}")
        for store in inside:
            with self.block(loop):
                store([f"at{k} + c" for k in range(math.prod(self.kernel))])

    def here(self) -> str:
        """The index of element t, channel c."""
        return f"({self.element('i')}) * {self.channels} + c"

    def pick(self) -> None:
        """The index of the first largest element of channel c; -1 where all is padding."""
        dtype = self.dtype
        self.line(f"best = {_lowest(dtype)}")
        self.line("found = i64(-1)")
        with ExitStack() as inner:
            self.taps(inner)
            self.line(f"here = {self.here()}")
            self.line("value = x[here]")
            self.line("better = bit_or(found < 0, value > best)")
            if is_float(dtype):
                self.line("better = bit_or(better, bit_and(value != value, best == best))")
            self.line("best = where(better, value, best)")
            self.line("found = where(better, here, found)")

    def largest(self, elements: list[str]) -> None:
        """Elements x0, x1, ... of a window, and whether each equals the largest: same0, same1, ..."""
        for k, at in enumerate(elements):
            self.line(f"x{k} = x[{at}]")
        self.line("m0 = x0")
        for k in range(1, len(elements)):
            self.line(f"m{k} = maximum(m{k - 1}, x{k})")
        m = f"m{len(elements) - 1}"
        for k in range(len(elements)):
            same = f"x{k} == {m}"
            if is_float(self.dtype):
                same = f"bit_or({same}, bit_and(x{k} != x{k}, {m} != {m}))"
            self.line(f"same{k} = {same}")

    def first_largest(self, k: int, value: str, zero: str) -> str:
        """``value`` where element k is the first that equals the largest, else ``zero``."""
        text = f"where(same{k}, {value}, {zero})"
        for j in reversed(range(k)):
            text = f"where(same{j}, {zero}, {text})"
        return text


def _window(op: str, x: TensorType, windows: TensorType, params: Params,
            operands: dict[str, tuple[TensorType, str]]) -> ChannelWindow:
    return ChannelWindow(op, x, windows.shape[1:-1], params, operands)


def _max_pool(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    (x,) = types
    w = _window("max_pool", x, out, params, {"x": (x, "in0"), "out": (out, "out")})

    def inside(elements: list[str]) -> None:
        w.line(f"m0 = x[{elements[0]}]")
        for k, at in enumerate(elements[1:]):
            w.line(f"m{k + 1} = maximum(m{k}, x[{at}])")
        w.line(f"out[to + c] = m{len(elements) - 1}")

    def one_by_one() -> None:
        w.line(f"best = {_lowest(x.dtype)}")
        with ExitStack() as inner:
            w.taps(inner)
            w.line(f"best = maximum(best, x[{w.here()}])")
        w.line("out[to + c] = best")

    w.each_window([inside], one_by_one)
    return w.call(out.shape[0])


def _max_pool_grad(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    x, g = types
    w = _window("max_pool_grad", x, g, params, {"x": (x, "in0"), "g": (g, "in1"), "out": (out, "out")})
    zero = f"{short(out.dtype)}(0)"
    w.clears = True

    def inside(k: int, elements: list[str]) -> None:
        w.largest(elements)
        part, at = w.first_largest(k, "g[to + c]", zero), elements[k]
        w.line(f"part = {part}")
        w.line(f"out[{at}] = part" if w.apart else f"out[{at}] = {plus(out.dtype, f'out[{at}]', 'part')}")

    def one_by_one() -> None:
        w.pick()
        with w.block("if found >= 0"):
            w.line(f"out[found] = {plus(out.dtype, 'out[found]', 'g[to + c]')}")

    w.each_window([partial(inside, k) for k in range(math.prod(w.kernel))], one_by_one)
    return w.call(out.shape[0])


def _max_pool_pick(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    x, h = types
    w = _window("max_pool_pick", x, out, params, {"x": (x, "in0"), "h": (h, "in1"), "out": (out, "out")})
    zero = f"{short(out.dtype)}(0)"

    def inside(elements: list[str]) -> None:
        w.largest(elements)
        w.line(f"picked = h[{elements[-1]}]")
        for k in reversed(range(len(elements) - 1)):
            w.line(f"picked = where(same{k}, h[{elements[k]}], picked)")
        w.line("out[to + c] = picked")

    def one_by_one() -> None:
        w.pick()
        w.line(f"picked = {zero}")
        with w.block("if found >= 0"):
            w.line("picked = h[found]")
        w.line("out[to + c] = picked")

    w.each_window([inside], one_by_one)
    return w.call(out.shape[0])


def _sum_pool(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    (x,) = types
    w = _window("sum_pool", x, out, params, {"x": (x, "in0"), "out": (out, "out")})
    wide = "f64" if is_float(x.dtype) else short(x.dtype)

    def inside(elements: list[str]) -> None:
        w.line(f"s0 = x[{elements[0]}]")
        for k, at in enumerate(elements[1:]):
            w.line(f"s{k + 1} = {plus(x.dtype, f's{k}', f'x[{at}]')}")
        w.line(f"out[to + c] = s{len(elements) - 1}")

    def one_by_one() -> None:
        w.line(f"total = {wide}(0)")
        with ExitStack() as inner:
            w.taps(inner)
            w.line(f"total = radd(total, {wide}(x[{w.here()}]))")
        w.line(f"out[to + c] = {short(x.dtype)}(total)")

    w.each_window([inside], one_by_one)
    return w.call(out.shape[0])


def _sum_pool_grad(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    (g,) = types
    w = _window("sum_pool_grad", out, g, params, {"g": (g, "in0"), "out": (out, "out")})
    w.clears = True

    def inside(k: int, elements: list[str]) -> None:
        at, value = elements[k], "g[to + c]"
        w.line(f"out[{at}] = " + (value if w.apart else plus(out.dtype, f"out[{at}]", value)))

    def one_by_one() -> None:
        w.line("value = g[to + c]")
        with ExitStack() as inner:
            w.taps(inner)
            w.line(f"here = {w.here()}")
            w.line(f"out[here] = {plus(out.dtype, 'out[here]', 'value')}")

    w.each_window([partial(inside, k) for k in range(math.prod(w.kernel))], one_by_one)
    return w.call(out.shape[0])


def _overlap_add(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    """A turn for each place along the first spatial axis, so that a single image has several."""
    (g,) = types
    rank = len(params["kernel"])
    w = ChannelWindow("overlap_add", out, g.shape[1:rank + 1], params, {"g": (g, "in0"), "out": (out, "out")})
    with ExitStack() as stack:
        stack.enter_context(w.block("for i in range(start, stop)"))
        w.line("image = i // h0")
        w.line("x0 = i % h0")
        if rank == 2:
            stack.enter_context(w.block("for x1 in range(h1)"))
        w.line(f"to = {'i' if rank == 1 else 'i * h1 + x1'}")
        w.line(f"to = to * {w.channels}")
        with w.block(f"for c in range({w.channels})"):
            w.line(f"out[to + c] = {short(out.dtype)}(0)")
        for r in w.axes:
            stack.enter_context(w.block(f"for t{r} in range({w.kernel[r]})"))
            w.line(f"from{r} = x{r} + {w.low[r]} - t{r} * {w.dilation[r]}")
            reached = f"from{r} >= 0 and from{r} < o{r} * {w.stride[r]}"
            if w.stride[r] > 1:
                reached += f" and from{r} % {w.stride[r]} == 0"
            stack.enter_context(w.block(f"if {reached}"))
            w.line(f"a{r} = from{r} // {w.stride[r]}")
        w.line(f"at = (({w.window('image')}) * {math.prod(w.kernel)} + {w.tap()}) * {w.channels}")
        with w.block(f"for c in range({w.channels})"):
            w.line(f"out[to + c] = {plus(out.dtype, 'out[to + c]', 'g[at + c]')}")
    return w.call(out.shape[0] * out.shape[1])


CHANNEL_BUILDERS: dict[str, Builder] = {
    "overlap_add_last": _overlap_add,
    "max_pool_last": _max_pool,
    "max_pool_grad_last": _max_pool_grad,
    "max_pool_pick_last": _max_pool_pick,
    "sum_pool_last": _sum_pool,
    "sum_pool_grad_last": _sum_pool_grad,
}
