"""What is kept for the backward pass: what values follow from cheaply, where that is smaller."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lowering import compiled, floats, program_of

import graphjit as gj

ROWS, WIDTH = 12, 16
X, W = floats(ROWS, WIDTH), floats(WIDTH, WIDTH, seed=1)


def normalised(axis: int) -> Any:
    def f(x: gj.Tensor) -> gj.Tensor:
        centred = x - x.mean(axis, keepdims=True)
        return centred * gj.rsqrt((centred * centred).mean(axis, keepdims=True) + 1e-5)
    return f


def gated(x: gj.Tensor) -> gj.Tensor:
    return 0.5 * x * (1 + gj.tanh(x * 0.8))


def gradients(f: Any) -> Any:
    """The layer between two products, which keep its forward and backward kernels apart."""
    def loss(x: gj.Tensor, w: gj.Tensor) -> gj.Tensor:
        return (gj.tanh(f(x @ w) @ w) ** 2).sum()
    return lambda x, w: gj.value_and_grad(loss, argnums=(0, 1))(x, w)


def stored(function: Any, *args: Any) -> int:
    """How many arrays of the layer's size kernels write."""
    return len({n for step in program_of(function, *args).steps for n in step.writes
                if n.type.shape == (ROWS, WIDTH)})


@pytest.mark.parametrize("layer", [normalised(0), normalised(1), gated])
def test_values_are_those_of_eager_mode(layer: Any) -> None:
    f = gradients(layer)
    value, grads = compiled(f, X, W)(X, W)
    wanted, eager = f(gj.tensor(X), gj.tensor(W))
    np.testing.assert_allclose(value.data, wanted.data, rtol=1e-5)
    for got, want in zip(grads, eager, strict=True):
        np.testing.assert_allclose(got.data, want.data, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mean_is_kept_and_not_what_is_centred_by_it(axis: int) -> None:
    # three products, the layer's result, their cotangents that products read, x's gradient: nothing else
    assert stored(gradients(normalised(axis)), X, W) == 7


def test_one_tanh_is_kept_and_not_two_factors_made_of_it() -> None:
    assert stored(gradients(gated), X, W) == 8


def test_a_mask_is_kept_and_not_the_longer_numbers_it_follows_from() -> None:
    def f(x: gj.Tensor, w: gj.Tensor) -> gj.Tensor:
        y = x @ w
        seen = gj.tanh(y) > 0.5
        return gj.where(seen, gj.where(seen, y, 0) @ w, 0)
    np.testing.assert_allclose(compiled(f, X, W)(X, W).data, f(gj.tensor(X), gj.tensor(W)).data, rtol=1e-5, atol=1e-5)
    written = [n for step in program_of(f, X, W).steps for n in step.writes]
    assert [n.op.name for n in written if n.type.dtype == bool] == ["greater"]
    assert not [n for n in written if n.op.name == "tanh"]
