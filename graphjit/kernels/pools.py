"""Pooling over windows that tile their operand, channels last: vectors of channels, each element touched once.

They are emitted as IR because LLVM does not vectorise loops over a few channels: it unrolls them, or takes vectors that
are longer than the loop. The gradient writes each element once, the zeros too.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from graphjit.kernels.emit import Int, load, loop, store
from graphjit.kernels.target import Element, target
from graphjit.op import Params
from graphjit.runtime.compiler import IRKernel
from graphjit.types import Extent, TensorType, is_float

NAMES = ("image", "window", "result", "h0", "h1", "o0", "o1", "channels", "result_image", "result_row")
WRITTEN_OUT = 16  # most elements of a window


def plan_pool(op: str, image: TensorType, windows: TensorType,
              how: Params) -> tuple[IRKernel, tuple[int | str, ...]] | None:
    """The kernel and its slots; 'image', 'window' and 'result' stand for addresses, 'result_image' and
    'result_row' for the result's strides in elements. Its extent is the images.

    Args:
        op: max_pool_last, max_pool_grad_last, sum_pool_last or sum_pool_grad_last.
        image: (N, *sizes, C), of the operand or of the gradient by it.
        windows: (N, *places, C).

    Returns:
        None where windows overlap, leave gaps or reach into padding, or the caller chooses the channels.
    """
    kernel = tuple(int(k) for k in how["kernel"])
    size, count = image.dtype.itemsize, 1
    for k in kernel:
        count *= k
    if (not is_float(image.dtype) or isinstance(image.shape[-1], Extent) or count > WRITTEN_OUT
            or len(kernel) > 2 or any(s != k for s, k in zip(how["stride"], kernel, strict=True))
            or any(d != 1 for d in how.get("dilation", ())) or any(low or high for low, high in how["padding"])):
        return None
    lanes = target().lanes(size)
    channels = int(image.shape[-1])
    element = Element(image.dtype.name, size, lanes)
    sizes = [(1, *t.shape[1:-1])[-2:] for t in (image, windows)]
    key = (op, element.name, (kernel[-2] if len(kernel) > 1 else 1, kernel[-1]), channels >= lanes, channels % lanes)
    made = IRKernel(f"{op}_{element.name}", (*key, lanes), len(NAMES), functools.partial(_emit, element, *key))
    return made, ("image", "window", "result", *(int(n) for pair in sizes for n in pair), channels,
                  "result_image", "result_row")


def _emit(element: Element, op: str, name: str, kernel: tuple[int, int], whole: bool, tail: int, builder: Any,
          values: Sequence[Any]) -> None:
    *given, start, stop = (Int(builder, value) for value in values)
    at = dict(zip(NAMES, given, strict=True))
    backward, zero, size = "grad" in op, Int(builder, 0), element.size
    pixel = at["channels"] * size
    row, breadth = at["h1"] * pixel, at["o1"] * pixel
    to_row, used = at["result_row"] * size, breadth * kernel[1]
    compute: Callable[..., None] = {"max_pool_last": _max, "max_pool_grad_last": _max_grad, "sum_pool_last": _sum,
                                    "sum_pool_grad_last": _sum_grad}[op]  # fmt: skip

    def clear(address: Int, nbytes: Int) -> None:
        with loop(zero, nbytes, size) as j:
            store(ir.Constant(element.type, 0.0), address + j, size)

    with loop(start, stop) as i:
        image, result = at["image"] + row * at["h0"] * i, at["result"] + at["result_image"] * size * i
        window = at["window"] + breadth * at["o0"] * i
        with loop(zero, at["o0"]) as a0:
            from_row, to = image + row * kernel[0] * a0, result + to_row * (kernel[0] if backward else 1) * a0
            with loop(zero, at["o1"]) as a1:
                first = pixel * kernel[1] * a1
                here = window + breadth * a0 + pixel * a1 if backward else to + pixel * a1

                def turn(kind: Any, c: Int, from_row: Int = from_row, to: Int = to, first: Int = first,
                         here: Int = here) -> None:
                    taps = [(y, pixel * x + first + c) for y, x in itertools.product(*map(range, kernel))]
                    compute(builder, kind, size, [from_row + row * y + o for y, o in taps],
                            [to + to_row * y + o for y, o in taps], here + c)  # fmt: skip

                if whole:
                    with loop(zero, pixel - tail * size, element.lanes * size) as c:
                        turn(element.vector, c)
                if tail:
                    turn(ir.VectorType(element.type, tail), pixel - tail * size)
            if backward:
                for y in range(kernel[0]):
                    clear(to + to_row * y + used, row - used)
        if backward:
            with loop(at["o0"] * kernel[0], at["h0"]) as below:
                clear(result + to_row * below, row)


def _largest(b: Any, kind: Any, size: int, elements: Sequence[Int]) -> tuple[Any, list[Any]]:
    """The largest element, and for all but the first whether each beats those before; NaN beats all numbers."""
    best = load(elements[0], kind, size)
    better = []
    for at in elements[1:]:
        x = load(at, kind, size)
        better.append(b.and_(b.fcmp_unordered(">", x, best), b.fcmp_ordered("ord", best, best)))
        best = b.select(better[-1], x, best)
    return best, better


def _max(b: Any, kind: Any, size: int, elements: Sequence[Int], _: Sequence[Int], window: Int) -> None:
    store(_largest(b, kind, size, elements)[0], window, size)


def _max_grad(b: Any, kind: Any, size: int, elements: Sequence[Int], to: Sequence[Int], window: Int) -> None:
    _, better = _largest(b, kind, size, elements)
    g, zero = load(window, kind, size), ir.Constant(kind, None)
    for k in reversed(range(1, len(to))):
        store(b.select(better[k - 1], g, zero), to[k], size)
        g = b.select(better[k - 1], zero, g)  # what earlier elements may still get
    store(g, to[0], size)


def _sum(b: Any, kind: Any, size: int, elements: Sequence[Int], _: Sequence[Int], window: Int) -> None:
    total = load(elements[0], kind, size)
    for at in elements[1:]:
        total = b.fadd(total, load(at, kind, size))
    store(total, window, size)


def _sum_grad(b: Any, kind: Any, size: int, _: Sequence[Int], to: Sequence[Int], window: Int) -> None:
    g = load(window, kind, size)
    for at in to:
        store(g, at, size)
