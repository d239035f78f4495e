"""Loop kernels of convolution and pooling.

One turn of the outermost loop makes one plane of the result (all spatial elements of a channel of one image),
or, for a weight's gradient, one kernel. The innermost loop runs along the last spatial axis, with every
factor that the loop over window elements fixes in a register.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from graphjit.codegen.library_loops import Builder, LoopCall, Writer, multiply_add, plus, short
from graphjit.op import Params
from graphjit.types import DType, TensorType, is_float


class Window(Writer):
    """A kernel over windows: sizes of the spatial axes ``h0, ...``, of the places ``o0, ...``."""

    def __init__(self, op: str, x: TensorType, places: Sequence[int], kernel: Sequence[int],
                 params: Params) -> None:
        rank = len(kernel)
        super().__init__(f"{op}{rank}d_{x.dtype.name}")
        self.rank = rank
        self.kernel = [int(k) for k in kernel]
        self.stride = [int(s) for s in params["stride"]]
        self.dilation = [int(d) for d in params.get("dilation", (1,) * rank)]
        self.low = [int(low) for low, _ in params["padding"]]
        self.padded = any(low or high for low, high in params["padding"])
        self.spatial = {f"h{r}": n for r, n in enumerate(x.shape[2:])}
        self.spatial |= {f"o{r}": n for r, n in enumerate(places)}

    @property
    def axes(self) -> range:
        return range(self.rank)

    def nest(self, stack: ExitStack, variable: str, ends: Sequence[str | int]) -> None:
        """Nested loops over the spatial axes."""
        for r, end in enumerate(ends):
            stack.enter_context(self.block(f"for {variable}{r} in range({end})"))

    def window(self, plane: str) -> str:
        """The index of window ``a`` of a plane."""
        out = plane
        for r in self.axes:
            out = f"({out}) * o{r} + a{r}"
        return out

    def element(self, plane: str) -> str:
        """The index of element ``t`` of window ``a`` of a plane."""
        out = plane
        for r in self.axes:
            start = f" - {self.low[r]}" if self.low[r] else ""
            out = f"({out}) * h{r} + a{r} * {self.stride[r]} + t{r} * {self.dilation[r]}{start}"
        return out

    def tap(self) -> str:
        """The number of element ``t`` in its window."""
        out = "t0"
        for r in range(1, self.rank):
            out = f"({out}) * {self.kernel[r]} + t{r}"
        return out

    def taps(self, stack: ExitStack) -> None:
        """Loops over the elements of a window whose place is fixed, those in the padding left out."""
        for r in self.axes:
            k, s, d, low = self.kernel[r], self.stride[r], self.dilation[r], self.low[r]
            if not self.padded:
                stack.enter_context(self.block(f"for t{r} in range({k})"))
                continue
            self.line(f"first{r} = maximum(0, ({low + d - 1} - a{r} * {s}) // {d})")
            self.line(f"last{r} = minimum({k}, (h{r} + {low + d - 1} - a{r} * {s}) // {d})")
            stack.enter_context(self.block(f"for t{r} in range(first{r}, last{r})"))

    def places(self, stack: ExitStack, axes: Sequence[int]) -> None:
        """Loops over the windows whose element ``t``, which is fixed, is not in the padding."""
        for r in axes:
            s, d, low = self.stride[r], self.dilation[r], self.low[r]
            if not self.padded:
                stack.enter_context(self.block(f"for a{r} in range(o{r})"))
                continue
            self.line(f"begin{r} = maximum(0, ({low + s - 1} - t{r} * {d}) // {s})")
            self.line(f"end{r} = minimum(o{r}, (h{r} - 1 + {low} - t{r} * {d}) // {s} + 1)")
            stack.enter_context(self.block(f"for a{r} in range(begin{r}, end{r})"))

    def clear(self, sizes: str, value: str) -> None:
        """Fill plane i of the result."""
        count = " * ".join(f"{sizes}{r}" for r in self.axes)
        with self.block(f"for j in range({count})"):
            self.line(f"out[i * ({count}) + j] = {value}")


# ---- convolution

def _conv(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    x, weight = types
    w = Window("conv", x, out.shape[2:], weight.shape[2:], params)
    for name, t, value in (("x", x, "in0"), ("w", weight, "in1"), ("out", out, "out")):
        w.pointer(name, t.dtype, value)
    channels, part = weight.shape[0], weight.shape[0] // params["groups"]
    w.sizes(channels=channels, part=part, depth=weight.shape[1], all_depth=x.shape[1], **w.spatial)
    with ExitStack() as stack:
        stack.enter_context(w.block("for i in range(start, stop)"))
        w.line("image = i // channels")
        w.line("channel = i % channels")
        w.clear("o", f"{short(out.dtype)}(0)")
        stack.enter_context(w.block("for c in range(depth)"))
        w.line("plane = image * all_depth + channel // part * depth + c")
        w.nest(stack, "t", w.kernel)
        w.line(f"factor = w[(channel * depth + c) * {math.prod(w.kernel)} + {w.tap()}]")
        w.places(stack, w.axes)
        w.line(f"to = {w.window('i')}")
        w.line(f"at = {w.element('plane')}")
        w.line(f"out[to] = {multiply_add(out.dtype, 'factor', 'x[at]', 'out[to]')}")
    return w.call(out.shape[0] * channels)


def _conv_input_grad(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    g, weight = types
    w = Window("conv_input_grad", out, g.shape[2:], weight.shape[2:], params)
    for name, t, value in (("g", g, "in0"), ("w", weight, "in1"), ("out", out, "out")):
        w.pointer(name, t.dtype, value)
    w.sizes(channels=weight.shape[0], part=weight.shape[0] // params["groups"], depth=weight.shape[1],
            all_depth=out.shape[1], **w.spatial)
    with ExitStack() as stack:
        stack.enter_context(w.block("for i in range(start, stop)"))
        w.line("image = i // all_depth")
        w.line("group = i % all_depth // depth")
        w.line("c = i % depth")
        w.clear("h", f"{short(out.dtype)}(0)")
        stack.enter_context(w.block("for channel in range(group * part, group * part + part)"))
        w.nest(stack, "t", w.kernel)
        w.line(f"factor = w[(channel * depth + c) * {math.prod(w.kernel)} + {w.tap()}]")
        w.places(stack, w.axes)
        w.line(f"at = {w.window('image * channels + channel')}")
        w.line(f"to = {w.element('i')}")
        w.line(f"out[to] = {multiply_add(out.dtype, 'factor', 'g[at]', 'out[to]')}")
    return w.call(out.shape[0] * out.shape[1])


def _conv_weight_grad(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    g, x = types
    w = Window("conv_weight_grad", x, g.shape[2:], out.shape[2:], params)
    for name, t, value in (("g", g, "in0"), ("x", x, "in1"), ("out", out, "out")):
        w.pointer(name, t.dtype, value)
    w.sizes(images=x.shape[0], channels=out.shape[0], part=out.shape[0] // params["groups"],
            depth=out.shape[1], all_depth=x.shape[1], **w.spatial)
    dtype = out.dtype
    wide = "f64" if is_float(dtype) else short(dtype)  # rows in the dtype, their sum in double precision
    with ExitStack() as stack:
        stack.enter_context(w.block("for i in range(start, stop)"))
        w.line("channel = i // depth")
        w.line("c = i % depth")
        w.nest(stack, "t", w.kernel)
        w.line(f"total = {wide}(0)")
        with ExitStack() as inner:
            inner.enter_context(w.block("for image in range(images)"))
            w.line("plane = image * all_depth + channel // part * depth + c")
            w.places(inner, w.axes[:-1])
            w.line(f"row = {short(dtype)}(0)")
            with ExitStack() as row:
                w.places(row, w.axes[-1:])
                w.line(f"at = {w.window('image * channels + channel')}")
                w.line(f"under = {w.element('plane')}")
                product = "g[at] * x[under]" if is_float(dtype) else "mul(g[at], x[under])"
                w.line(f"row = radd(row, {product})")
            w.line(f"total = {plus(dtype, 'total', f'{wide}(row)')}")
        w.line(f"out[i * {math.prod(w.kernel)} + {w.tap()}] = {short(dtype)}(total)")
    return w.call(out.shape[0] * out.shape[1])


# ---- pooling

def _lowest(dtype: DType) -> str:
    return f"{short(dtype)}({'-1e999' if is_float(dtype) else np.iinfo(dtype).min})"


def _pool(op: str, x: TensorType, places: Sequence[int], params: Params,
          operands: dict[str, tuple[TensorType, str]]) -> Window:
    w = Window(op, x, places, params["kernel"], params)
    for name, (t, value) in operands.items():
        w.pointer(name, t.dtype, value)
    w.sizes(**w.spatial)
    return w


def _max_pool(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    (x,) = types
    w = _pool("max_pool", x, out.shape[2:], params, {"x": (x, "in0"), "out": (out, "out")})
    with ExitStack() as stack:
        stack.enter_context(w.block("for i in range(start, stop)"))
        w.nest(stack, "a", [f"o{r}" for r in w.axes])
        w.line(f"best = {_lowest(x.dtype)}")
        with ExitStack() as inner:
            w.taps(inner)
            w.line(f"best = maximum(best, x[{w.element('i')}])")
        w.line(f"out[{w.window('i')}] = best")
    return w.call(out.shape[0] * out.shape[1])


def _pick(w: Window, dtype: DType) -> None:
    """Find the index of the first largest element of window ``a``; -1 where all is padding."""
    w.line(f"best = {_lowest(dtype)}")
    w.line("found = i64(-1)")
    with ExitStack() as inner:
        w.taps(inner)
        w.line(f"at = {w.element('i')}")
        w.line("value = x[at]")
        # without branches: which element is the largest cannot be predicted
        w.line("better = bit_or(found < 0, value > best)")
        if is_float(dtype):
            w.line("better = bit_or(better, bit_and(value != value, best == best))")
        w.line("best = where(better, value, best)")
        w.line("found = where(better, at, found)")


def _max_pool_grad(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    x, g = types
    w = _pool("max_pool_grad", x, g.shape[2:], params,
              {"x": (x, "in0"), "g": (g, "in1"), "out": (out, "out")})
    with ExitStack() as stack:
        stack.enter_context(w.block("for i in range(start, stop)"))
        w.clear("h", f"{short(out.dtype)}(0)")
        w.nest(stack, "a", [f"o{r}" for r in w.axes])
        _pick(w, x.dtype)
        with w.block("if found >= 0"):
            w.line(f"out[found] = {plus(out.dtype, 'out[found]', 'g[' + w.window('i') + ']')}")
    return w.call(out.shape[0] * out.shape[1])


def _max_pool_pick(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    x, h = types
    w = _pool("max_pool_pick", x, out.shape[2:], params,
              {"x": (x, "in0"), "h": (h, "in1"), "out": (out, "out")})
    with ExitStack() as stack:
        stack.enter_context(w.block("for i in range(start, stop)"))
        w.nest(stack, "a", [f"o{r}" for r in w.axes])
        _pick(w, x.dtype)
        w.line(f"picked = {short(out.dtype)}(0)")
        with w.block("if found >= 0"):
            w.line("picked = h[found]")
        w.line(f"out[{w.window('i')}] = picked")
    return w.call(out.shape[0] * out.shape[1])


def _sum_pool(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    (x,) = types
    w = _pool("sum_pool", x, out.shape[2:], params, {"x": (x, "in0"), "out": (out, "out")})
    wide = "f64" if is_float(x.dtype) else short(x.dtype)
    with ExitStack() as stack:
        stack.enter_context(w.block("for i in range(start, stop)"))
        w.nest(stack, "a", [f"o{r}" for r in w.axes])
        w.line(f"total = {wide}(0)")
        with ExitStack() as inner:
            w.taps(inner)
            w.line(f"total = radd(total, {wide}(x[{w.element('i')}]))")
        w.line(f"out[{w.window('i')}] = {short(x.dtype)}(total)")
    return w.call(out.shape[0] * out.shape[1])


def _sum_pool_grad(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    (g,) = types
    w = _pool("sum_pool_grad", out, g.shape[2:], params, {"g": (g, "in0"), "out": (out, "out")})
    with ExitStack() as stack:
        stack.enter_context(w.block("for i in range(start, stop)"))
        w.clear("h", f"{short(out.dtype)}(0)")
        w.nest(stack, "a", [f"o{r}" for r in w.axes])
        w.line(f"value = g[{w.window('i')}]")
        w.taps(stack)
        w.line(f"at = {w.element('i')}")
        w.line(f"out[at] = {plus(out.dtype, 'out[at]', 'value')}")
    return w.call(out.shape[0] * out.shape[1])


WINDOW_BUILDERS: dict[str, Builder] = {
    "conv": _conv,
    "conv_input_grad": _conv_input_grad,
    "conv_weight_grad": _conv_weight_grad,
    "max_pool": _max_pool,
    "max_pool_grad": _max_pool_grad,
    "max_pool_pick": _max_pool_pick,
    "sum_pool": _sum_pool,
    "sum_pool_grad": _sum_pool_grad,
}
