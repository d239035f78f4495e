"""A new batch size is a new trace and no new kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lowering import Array, floats

import graphjit as gj
from graphjit.runtime.kernel import LoopKernel, identity

SIZES = (32, 1, 2, 3, 7, 64, 8, 5)  # among them lengths that the programs below have along other axes
Step = Callable[..., Any]


def labels(n: int) -> Array:
    return np.arange(n) % 5


def parameters(*shapes: tuple[int, ...]) -> list[gj.Tensor]:
    return [gj.tensor(floats(*shape, seed=i) * 0.3, requires_grad=True) for i, shape in enumerate(shapes)]


def descend(loss: gj.Tensor, params: list[gj.Tensor]) -> gj.Tensor:
    loss.backward()
    with gj.no_grad():
        for p in params:
            assert p.grad is not None
            p.assign(p - 0.1 * p.grad)
            p.zero_grad()
    return loss


def cross_entropy(x: gj.Tensor, y: gj.Tensor) -> gj.Tensor:
    return -gj.take_along_axis(gj.log_softmax(x, 1), y.reshape(-1, 1), 1).mean()


def perceptron() -> tuple[Step, Callable[[int], tuple[Array, ...]]]:
    params = parameters((8, 7), (7,), (7, 5), (5,))
    w0, b0, w1, b1 = params

    def step(x: gj.Tensor, y: gj.Tensor) -> gj.Tensor:
        hidden = gj.relu(x @ w0 + b0) * gj.bernoulli(0.8, (x.shape[0], 7))
        return descend(cross_entropy(hidden @ w1 + b1, y), params)
    return step, lambda n: (floats(n, 8), labels(n))


def batch_norm() -> tuple[Step, Callable[[int], tuple[Array, ...]]]:
    params = parameters((8, 5), (5,), (5,))
    w, scale, shift = params
    running = gj.tensor(floats(5))

    def step(x: gj.Tensor, y: gj.Tensor) -> gj.Tensor:
        z = x @ w
        centred = z - z.mean(0)
        var = (centred * centred).mean(0)
        running.assign(running * 0.9 + var.detach() * 0.1)
        return descend(cross_entropy(centred * gj.rsqrt(var + 1e-5) * scale + shift, y), params)
    return step, lambda n: (floats(n, 8), labels(n))


def layer_norm() -> tuple[Step, Callable[[int], tuple[Array, ...]]]:
    params = parameters((8, 5), (8,), (8,))
    w, scale, shift = params

    def step(x: gj.Tensor, y: gj.Tensor) -> gj.Tensor:
        centred = x - x.mean(-1, keepdims=True)
        z = centred * gj.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * scale + shift
        return descend(cross_entropy(z @ w, y), params)
    return step, lambda n: (floats(n, 8), labels(n))


def attention() -> tuple[Step, Callable[[int], tuple[Array, ...]]]:
    params = parameters((8, 8), (8, 8), (8, 8), (8, 8))

    def step(x: gj.Tensor) -> gj.Tensor:
        n, t, d = x.shape
        q, k, v = ((x @ w).reshape(n, t, 2, d // 2).permute_dims(0, 2, 1, 3) for w in params[:3])
        mixed = gj.softmax(q @ k.mT / 2.0, -1) @ v
        out = mixed.permute_dims(0, 2, 1, 3).reshape(n, t, d) @ params[3]
        return descend((out * out).mean(), params)
    return step, lambda n: (floats(n, 3, 8),)


def convolution() -> tuple[Step, Callable[[int], tuple[Array, ...]]]:
    from graphjit.nn import functional as F
    params = parameters((3, 2, 3, 3), (3,), (27, 5))
    w, b, v = params

    def step(x: gj.Tensor, y: gj.Tensor) -> gj.Tensor:
        hidden = F.max_pool2d(gj.relu(F.conv2d(x, w, b, padding=1)), 2)
        return descend(cross_entropy(hidden.reshape(x.shape[0], 27) @ v, y), params)
    return step, lambda n: (floats(n, 2, 6, 6), labels(n))


def array_functions() -> tuple[Step, Callable[[int], tuple[Array, ...]]]:
    w = gj.tensor(floats(8))

    def step(x: gj.Tensor) -> Any:
        return (x - x.mean(0)).T, (x * w).sum(1), x.T @ x, gj.softmax(x, 0), x.max(0), x.reshape(-1), \
            gj.concat([x, x]), x[::-1], x[:, 1:] * 2, gj.cumsum(x, 0), gj.argmax(x, 1), gj.tril(x @ x.T), \
            gj.pad(x, 1), gj.sort(x, 0), gj.one_hot(gj.argmax(x, 1), 8), gj.take(x, gj.argmax(x, 0), 0), \
            gj.stack([x, x], 1), gj.var(x), gj.prod(x, 0), gj.arange(x.shape[0]) * x[:, 0], \
            x[:(x.shape[0] + 1) // 2] * 3
    return step, lambda n: (floats(n, 8),)


@pytest.mark.parametrize("case", [perceptron, batch_norm, layer_norm, attention, convolution, array_functions],
                         ids=lambda case: case.__name__)
def test_a_new_batch_size_needs_no_new_kernel(case: Callable[[], Any]) -> None:
    function, data = case()
    step = gj.compile(function)
    known: set[str] = set()
    for n in SIZES:
        step(*data(n))
        found = {identity(k.kernel): k for k in step.latest.program.kernels
                 if isinstance(k.kernel, LoopKernel)}
        new = [k for key, k in found.items() if key not in known]
        assert not known or not new, f"batch {n} needs\n" + "\n".join(k.source for k in new)
        known |= set(found)
    assert step.trace_count == len(SIZES)


@pytest.mark.parametrize("n", SIZES)
def test_products_of_every_batch_size_are_few_kernels(n: int) -> None:
    """The hand-made kernels take sizes and strides at run time: at most one for each way the operands lie."""
    kernels = set()
    for m in SIZES:
        step = gj.compile(lambda x, w: (x @ w, x.T @ x, x @ w @ w.T))
        step(floats(m, 8), floats(8, n))
        kernels |= {identity(k.kernel) for k in step.latest.program.kernels if not isinstance(k.kernel, LoopKernel)}
    assert len(kernels) <= 4
