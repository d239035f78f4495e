"""Pooling, compiled: what the eager rules give, along channels or windows; the largest is the first of equals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from agreeing import Array, agree, names

import graphjit as gj
import graphjit.nn.functional as F
from graphjit.ir import Apply


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pools_by_themselves_agree(dtype: str) -> None:
    """Those of many channels run along them, wherever these lie."""
    rng = np.random.default_rng(7)
    functions: list[Callable[..., Any]] = []
    arrays: list[list[Array]] = []
    for kernel, how in ((2, {}), (3, {"stride": 2, "padding": 1}), (3, {"stride": 1, "padding": 1}), (5, {"stride": 3}),
                        ):  # fmt: skip
        for pool in (F.max_pool2d, F.avg_pool2d, F.max_pool1d, F.avg_pool1d):
            for channels in (3, 17):
                functions.append(lambda x, pool=pool, k=kernel, how=how: pool(gj.tanh(x), k, **how))
                sizes = (11, 12) if pool in (F.max_pool2d, F.avg_pool2d) else (13,)
                arrays.append([rng.integers(-3, 3, (2, channels, *sizes)).astype(dtype)])
    agree(functions, arrays, 1e-4 if dtype == "float32" else 1e-11)
    x = rng.standard_normal((2, 17, 11, 12)).astype(dtype)
    assert "max_pool_last" in names(lambda x: F.max_pool2d(x, 3, stride=1), x)
    assert "max_pool" in names(lambda x: F.max_pool2d(x, 2), x)


def test_a_pool_of_one_window_is_a_sum() -> None:
    x = np.ones((2, 17, 11, 12), np.float32)

    def pools(kernel: tuple[int, int]) -> set[str]:
        found = names(gj.value_and_grad(lambda x: (F.avg_pool2d(x, kernel) ** 3).sum()), x)
        return {n for n in found if "pool" in n}
    assert pools((11, 12)) == set() and pools((11, 6)) == {"sum_pool", "sum_pool_grad"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_first_largest_and_nan(dtype: str) -> None:
    """Where a window holds NaN, it is picked, and the gradient goes there."""
    rng = np.random.default_rng(6)
    x = rng.integers(-2, 2, (2, 1, 9, 10)).astype(dtype)
    x[0, 0, 2, 3] = x[0, 0, 3, 3] = x[1, 0, 8, 9] = np.nan
    x[1, 0, :4, :4] = -np.inf
    w = np.ones((5, 1, 1, 1), dtype)
    g = rng.normal(size=(2, 5, 5, 6)).astype(dtype)

    def step(x: Any, w: Any, g: Any) -> Any:
        y = F.conv2d(x, w).detach().requires_grad_()
        out = F.max_pool2d(y, 2, padding=1) if dtype == "float64" else F.max_pool2d(y, 2, ceil_mode=True)
        (out * g[:, :, :out.shape[2], :out.shape[3]]).sum().backward()
        return out, y.grad

    for found, wanted in zip(gj.compile(step)(x, w, g), step(x, w, g), strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted.numpy())


def test_relu_comes_after_the_pool_and_changes_no_bit() -> None:
    rng = np.random.default_rng(10)
    x = rng.integers(-3, 3, (2, 3, 9, 8)).astype(np.float32)
    x[0, 0, 0, 0] = x[1, 2, 4, 4] = np.nan
    g = rng.normal(size=(2, 3, 3, 3)).astype(np.float32)

    def step(x: Any, g: Any) -> Any:
        x = gj.tensor(x).requires_grad_()
        out = F.max_pool2d(gj.relu(x), 3, padding=1)
        (out * g).sum().backward()
        return out, x.grad, x.grad.sum(axis=(2, 3))

    compiled = gj.compile(step)
    for found, wanted in zip(compiled(x, g)[:2], step(x, g)[:2], strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted.numpy())
    np.testing.assert_allclose(compiled(x, g)[2].numpy(), step(x, g)[2].numpy(), rtol=1e-5, atol=1e-6)
    nodes = [n for n in compiled.latest.program.lowered.graph.nodes if isinstance(n, Apply)]
    (relu,) = (n for n in nodes if n.op.name == "relu")
    (below,) = relu.args
    assert relu.type.shape == (2, 3, 3, 3) and isinstance(below, Apply) and below.op.name == "max_pool"


@pytest.mark.parametrize(("length", "how"), [(2, {"stride": 1, "padding": 2, "dilation": 4}), (4, {"stride": 2})])
def test_a_window_of_padding_passes_no_gradient_on(length: int, how: dict[str, Any]) -> None:
    """The sum of a pool's gradient is that of its cotangent only where each window holds an element."""
    x = np.arange(length, dtype=np.float32).reshape(1, 1, -1)

    def total(x: Any) -> Any:
        x = gj.tensor(x).requires_grad_()
        F.max_pool1d(x, 2, **how).sum().backward()
        return x.grad.sum(axis=2)

    np.testing.assert_array_equal(gj.compile(total)(x).numpy(), total(x).numpy())
