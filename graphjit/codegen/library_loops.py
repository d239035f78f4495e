"""Plain loop kernels for the ops that no generated loop nest computes: ``build`` gives the source of one.

All operands are C-contiguous buffers. Sizes are run-time arguments, so that a new batch size needs no new
kernel; what belongs to the model (strides, dilation, padding, the window's shape) is written into the source.
Each result element is written by one turn of the outermost loop, whatever part of it a thread runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from graphjit.kernels.target import target
from graphjit.op import Params
from graphjit.types import DType, Shape, TensorType, is_float, is_one

FEW = 252  # bytes of rows that are better computed in one loop of masked vectors
COLUMNS = 64  # neighbouring columns that one turn of a loop takes together
SET, PLACE, ADDED = 0.03, 2.5, 0.02  # ns a byte of a scatter's result, a place, a byte of its row


@dataclass(frozen=True, slots=True)
class LoopCall:
    """A loop kernel and its arguments.

    Attributes:
        name: of the function in ``source``.
        source: text of ``def name(..., start, stop):`` over typed flat pointers and 64-bit integers.
        args: type code of each parameter but the last two; bools are bytes ("*uint8").
        values: "in0", "in1", ..., "out", "status" or "room" for each pointer, the number for each scalar.
        extent: the outermost loop runs over [0, extent) or any part of it.
        room: bytes of memory that a call has for itself.
        cost: estimated time on one thread, ns; 0 if nothing better is known than the size of the result.
    """

    name: str
    source: str
    args: tuple[str, ...]
    values: tuple[str | int | float, ...]
    extent: int
    room: int = 0
    cost: float = 0.0


class Writer:
    """Writes a kernel: parameters as they are named, lines indented as blocks open."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parameters: list[tuple[str, str, str | int | float]] = []
        self.lines: list[str] = []
        self.depth = 1

    def pointer(self, name: str, dtype: DType, value: str) -> None:
        self.parameters.append((name, "*uint8" if dtype.kind == "b" else f"*{dtype.name}", value))

    def sizes(self, **sizes: int) -> None:
        for name, value in sizes.items():
            self.parameters.append((name, "int64", int(value)))

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    @contextmanager
    def block(self, header: str) -> Iterator[None]:
        self.line(header + ":")
        self.depth += 1
        yield
        self.depth -= 1

    def call(self, extent: int, room: int = 0, cost: float = 0.0) -> LoopCall:
        names, args, values = zip(*self.parameters, strict=True)
        header = f"def {self.name}({', '.join(names)}, start, stop):"
        return LoopCall(self.name, "\n".join([header, *self.lines, ""]), args, values, extent, room, cost)


def short(dtype: DType) -> str:
    """The cast function of a dtype as it stands in memory."""
    return "u8" if dtype.kind == "b" else f"{dtype.kind}{dtype.itemsize * 8}"


def plus(dtype: DType, x: str, y: str) -> str:
    """Text of x + y in this dtype: that of integers may wrap, which indices, the integers beside a `+`, do not."""
    return f"{x} + {y}" if is_float(dtype) else f"add({x}, {y})"


def multiply_add(dtype: DType, x: str, y: str, acc: str) -> str:
    return f"fma({x}, {y}, {acc})" if is_float(dtype) else f"add({acc}, mul({x}, {y}))"


def around(shape: Shape, axis: int) -> tuple[int, int, int]:
    """Numbers of elements before an axis, along it, after it."""
    return math.prod(shape[:axis]), int(shape[axis]), math.prod(shape[axis + 1:])


# ---- products of integers

def _matmul(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    x, y = types
    batch = out.shape[:-2]
    w = Writer(f"matmul_{out.dtype.name}")
    w.pointer("x", x.dtype, "in0")
    w.pointer("y", y.dtype, "in1")
    w.pointer("out", out.dtype, "out")
    m, k, n = x.shape[-2], x.shape[-1], y.shape[-1]
    w.sizes(m=m, k=k, n=n)
    for axis, length in enumerate(batch):
        w.sizes(**{f"n{axis}": length, f"x{axis}": _batch_stride(x, axis - len(batch)),
                   f"y{axis}": _batch_stride(y, axis - len(batch))})
    with w.block("for i in range(start, stop)"):
        w.line("rest = i // m")
        w.line("row = (i % m) * k")
        w.line("column = 0")
        for axis in reversed(range(len(batch))):
            w.line(f"row += rest % n{axis} * x{axis}")
            w.line(f"column += rest % n{axis} * y{axis}")
            w.line(f"rest = rest // n{axis}")
        with w.block("for j in range(n)"):
            w.line(f"out[i * n + j] = {short(out.dtype)}(0)")
        with w.block("for q in range(k)"):
            w.line("a = x[row + q]")
            with w.block("for j in range(n)"):
                acc = multiply_add(out.dtype, "a", "y[column + q * n + j]", "out[i * n + j]")
                w.line(f"out[i * n + j] = {acc}")
    return w.call(math.prod(batch) * m)


def _batch_stride(x: TensorType, axis: int) -> int:
    """Elements from one matrix to the next along a batch axis (counted from the last one), 0 if stretched."""
    at = x.ndim - 2 + axis
    return 0 if at < 0 or x.shape[at] == 1 else math.prod(x.shape[at + 1:])


# ---- indices

def _check_index(types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    (x,) = types
    label = bool(params.get("what"))  # none counts from the end
    w = Writer(f"check_{'label' if label else 'index'}_{x.dtype.name}")
    w.pointer("x", x.dtype, "in0")
    w.pointer("status", out.dtype, "status")
    w.pointer("out", out.dtype, "out")
    w.sizes(size=params["size"])
    w.line("bad = i64(0)")
    with w.block("for i in range(start, stop)"):
        if x.dtype.kind == "u" or label:
            w.line("place = u64(x[i])")
        else:
            w.line("signed = i64(x[i])")
            w.line("place = u64(where(lt(signed, i64(0)), add(signed, i64(size)), signed))")
        w.line("wrong = ge(place, u64(size))")  # a negative number is a huge unsigned one
        w.line("bad = bit_or(bad, i64(wrong))")
        w.line("out[i] = where(wrong, i64(0), i64(place))")
    with w.block("if bad != 0"):
        w.line("status[0] = i64(1)")
    return w.call(x.size)


def _scatter(op: str, types: tuple[TensorType, ...], out: TensorType, params: Params) -> LoopCall:
    """scatter_add, scatter_set and take_grad: by blocks of columns, in each the places in their order. take_grads adds
    several sources, added_rows picks rows of one, each with a weight if there are weights."""
    base, picked = op in ("scatter_add", "scatter_set"), op == "added_rows"
    axis = params.get("axis", 0)
    outer, n, inner = around(out.shape, axis)
    sources = range(1 if picked else len(types) // 2)
    single = all(is_one(m) for m in out.shape[axis + 1:])
    few = "few" if target().masks and 1 < inner <= FEW // out.dtype.itemsize else "range"
    w = Writer(f"{op}{len(types) if op == 'take_grads' or picked else ''}_{'one_' if single else ''}{out.dtype.name}")
    if base:
        w.pointer("x", out.dtype, "in0")
    for k in sources:
        w.pointer(f"idx{k}", types[base + 2 * k].dtype, f"in{base + 2 * k}")
        w.pointer(f"src{k}", types[base + 2 * k + 1].dtype, f"in{base + 2 * k + 1}")
        w.sizes(**{f"count{k}": types[base + 2 * k].size})
    if picked:
        w.pointer("picks", types[2].dtype, "in2")
    if len(types) == 4 and picked:
        w.pointer("weights", out.dtype, "in3")
    w.pointer("out", out.dtype, "out")
    blocks = -(-inner // COLUMNS)
    w.sizes(n=n, inner=inner, blocks=blocks)
    with w.block("for i in range(start, stop)"):
        w.line("outer = i // blocks")
        w.line(f"first = (i % blocks) * {COLUMNS}")
        w.line(f"last = minimum(first + {COLUMNS}, inner)")
        start = "x[at + j]" if base else f"{short(out.dtype)}(0)"
        with w.block("if blocks == 1"):  # whole rows, one behind the other
            w.line("at = outer * n * inner")
            with w.block("for j in range(n * inner)"):
                w.line(f"out[at + j] = {start}")
        with w.block("else"), w.block("for row in range(n)"):
            w.line("at = (outer * n + row) * inner")
            with w.block("for j in range(first, last)"):
                w.line(f"out[at + j] = {start}")
        for k in sources:
            with w.block(f"for q in range(count{k})"):
                w.line(f"at = (outer * n + idx{k}[q]) * inner")
                w.line("from_ = picks[q] * inner" if picked else f"from_ = (outer * count{k} + q) * inner")
                with nullcontext() if single else w.block(f"for j in {few}(first, last)"):
                    to, value = ("out[at]", f"src{k}[from_]") if single else ("out[at + j]", f"src{k}[from_ + j]")
                    value += " * weights[q]" if picked and len(types) == 4 else ""
                    w.line(f"{to} = " + (value if op == "scatter_set" else plus(out.dtype, to, value)))
    places = outer * sum(types[base + 2 * k].size for k in sources)
    return w.call(outer * blocks, cost=SET * out.nbytes + places * (PLACE + ADDED * inner * out.dtype.itemsize))


# ---- the door

Builder = Callable[[tuple[TensorType, ...], TensorType, Params], LoopCall]


def named(builder: Callable[..., LoopCall], op: str) -> Builder:
    return lambda types, out, params: builder(op, types, out, params)


BUILDERS: dict[str, Builder] = {
    "matmul": _matmul,
    "check_index": _check_index,
    **{op: named(_scatter, op) for op in ("scatter_add", "scatter_set", "take_grad", "take_grads", "added_rows")},
}


def build(op: str, in_types: tuple[TensorType, ...], out_type: TensorType,
          params: Mapping[str, Any]) -> LoopCall | None:
    """The loop kernel of a library op for operands of these types; None for an op that has none."""
    from graphjit.codegen.axis_loops import AXIS_BUILDERS
    from graphjit.codegen.channel_loops import CHANNEL_BUILDERS
    from graphjit.codegen.region_loops import REGION_BUILDERS
    from graphjit.codegen.window_loops import WINDOW_BUILDERS

    families = BUILDERS, AXIS_BUILDERS, WINDOW_BUILDERS, CHANNEL_BUILDERS, REGION_BUILDERS
    builder = next((found[op] for found in families if op in found), None)
    return builder(in_types, out_type, params) if builder is not None else None
