"""Convolutions, forward and both gradients, beside PyTorch, one thread each.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.conv            the layers of issue 3, and larger ones
    ... python -m benchmarks.conv --kernels                     what each kernel of a layer takes

A layer is timed as it stands inside a training step: input, weight and cotangent in memory, aligned as there, results
left in memory; images have the channels last, weights and their gradients the order in which such a step holds them.
PyTorch has the better of its two memory formats. Times are CPU time of the process, the best of many bursts; the flops
are those of the definition.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import graphjit as gj
from graphjit.apply import apply
from graphjit.arrays import lasting_copy
from graphjit.op import TABLE
from graphjit.passes.unfolded import reads_rows
from graphjit.runtime.driver import ROW
from graphjit.types import inverse


class Layer(NamedTuple):
    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: int
    padding: int

    @property
    def name(self) -> str:
        return f"{'x'.join(map(str, self.x))} -> {self.w[0]} k{self.w[-1]} s{self.stride} p{self.padding}"

    @property
    def places(self) -> int:
        return int(np.prod([(n + 2 * self.padding - k) // self.stride + 1
                            for n, k in zip(self.x[2:], self.w[2:], strict=True)]))

    @property
    def flops(self) -> int:
        return 2 * self.x[0] * self.places * int(np.prod(self.w))

    @property
    def order(self) -> tuple[int, ...]:
        """The axes of the weight as a compiled step holds them: by rows where windows are copied out, else by taps."""
        taps, pointwise = range(2, len(self.w)), set(self.w[2:]) == {self.stride} == {1} and not self.padding
        return (0, *taps, 1) if reads_rows(self.w, self.places, pointwise) else (*taps, 1, 0)


LAYERS = [
    Layer((64, 1, 140), (16, 1, 7), 1, 3), Layer((64, 16, 140), (32, 16, 5), 2, 2),
    Layer((64, 32, 70), (32, 32, 3), 2, 1), Layer((64, 1, 28, 28), (8, 1, 3, 3), 1, 1),
    Layer((64, 8, 14, 14), (16, 8, 3, 3), 1, 1), Layer((32, 32, 16, 16), (32, 32, 3, 3), 1, 1),
    Layer((32, 64, 14, 14), (64, 64, 3, 3), 1, 1), Layer((32, 128, 7, 7), (128, 128, 3, 3), 1, 1),
    Layer((8, 256, 8, 8), (256, 256, 3, 3), 1, 1), Layer((8, 512, 4, 4), (512, 512, 3, 3), 1, 1),
    Layer((32, 256, 14, 14), (64, 256, 1, 1), 1, 0),
]  # fmt: skip


def best(run: Callable[[], Any], seconds: float = 0.15) -> float:
    """CPU seconds of one call."""
    run()
    found: list[float] = []
    count, end = 1, time.perf_counter() + seconds
    while time.perf_counter() < end or len(found) < 5:
        start = time.process_time()
        for _ in range(count):
            run()
        took = (time.process_time() - start) / count
        found.append(took)
        count = max(1, min(1000, int(2e-3 / max(took, 1e-7))))
    return min(found)


def kernels(function: Callable[..., Any], *arrays: np.ndarray[Any, Any]) -> dict[str, float]:
    """CPU seconds of each kernel of a compiled function."""
    step = gj.compile(function)
    step(*arrays)
    program = step.latest.program
    start, out = program.table.ctypes.data, {}
    for i, kernel in enumerate(program.kernels):
        kept = step(*arrays)  # what this kernel reads, and memory for what it writes
        at = start + 8 * ROW * i
        out[f"{i} {kernel.title}"] = best(partial(program._run, at, 1, program._status_address, 0), 0.05)
        del kept
    return out


def parts(layer: Layer) -> dict[str, tuple[Callable[..., Any], list[np.ndarray[Any, Any]]]]:
    """Forward, and gradients by input and weight, between activations with the channels last."""
    rng = np.random.default_rng(0)
    rank = len(layer.x) - 2
    how: dict[str, Any] = {"stride": (layer.stride,) * rank, "padding": ((layer.padding,) * 2,) * rank,
                           "dilation": (1,) * rank, "groups": 1}
    to_last, to_first = (0, *range(2, rank + 2), 1), (0, rank + 1, *range(1, rank + 1))
    x, w = (rng.standard_normal(s).astype(np.float32) for s in (layer.x, layer.w))
    g = np.asarray(TABLE["conv"].eager(x, w, **how))
    xl, gl, held = (lasting_copy(a.transpose(axes)) for a, axes in ((x, to_last), (g, to_last), (w, layer.order)))

    def plain(w: gj.Tensor) -> gj.Tensor:
        return w.permute_dims(inverse(layer.order))

    def forward(x: gj.Tensor, w: gj.Tensor) -> gj.Tensor:
        return apply(TABLE["conv"], x.permute_dims(to_first), plain(w), **how).permute_dims(to_last)

    def by_input(g: gj.Tensor, w: gj.Tensor) -> gj.Tensor:
        dx = apply(TABLE["conv_input_grad"], g.permute_dims(to_first), plain(w), size=layer.x[2:], **how)
        return dx.permute_dims(to_last)

    def by_weight(g: gj.Tensor, x: gj.Tensor) -> gj.Tensor:
        return apply(TABLE["conv_weight_grad"], g.permute_dims(to_first), x.permute_dims(to_first),
                     kernel=layer.w[2:], **how).permute_dims(layer.order)

    return {"forward": (forward, [xl, held]), "by input": (by_input, [gl, held]), "by weight": (by_weight, [gl, xl])}


def torch_times(layer: Layer) -> dict[str, float]:
    """The same in PyTorch; of its memory formats the faster."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)
    rank = len(layer.x) - 2
    conv = torch.nn.functional.conv1d if rank == 1 else torch.nn.functional.conv2d
    found: dict[str, float] = {}
    for last in (False, True) if rank == 2 else (False,):
        x, w = torch.randn(layer.x), torch.randn(layer.w)
        if last:
            x, w = (t.to(memory_format=torch.channels_last) for t in (x, w))
        forward = partial(conv, x, w, stride=layer.stride, padding=layer.padding)
        given = (torch.randn_like(forward()), x, w, None, [layer.stride] * rank, [layer.padding] * rank, [1] * rank,
                 False, [0] * rank, 1)
        backward = torch.ops.aten.convolution_backward
        with torch.no_grad():
            times = {"forward": best(forward), "by input": best(partial(backward, *given, [True, False, False])),
                     "by weight": best(partial(backward, *given, [False, True, False]))}
        found = {k: min(v, found.get(k, v)) for k, v in times.items()}
    return found


def main() -> None:
    gj.set_num_threads(1)
    for layer in LAYERS:
        print(f"{layer.name}   {layer.flops / 1e6:.1f} MFLOP")
        others = torch_times(layer)
        for part, (function, arrays) in parts(layer).items():
            each = kernels(function, *arrays)
            took = sum(each.values())
            beside = f"   torch {layer.flops / others[part] / 1e9:6.1f}   x{others[part] / took:.2f}" if others else ""
            print(f"  {part:10} {took * 1e6:8.1f} us {layer.flops / took / 1e9:7.1f} GF/s{beside}", flush=True)
            if "--kernels" in sys.argv:
                for title, seconds in each.items():
                    print(f"      {seconds * 1e6:8.1f} us  {title}")


if __name__ == "__main__":
    main()
