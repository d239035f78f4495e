"""Folds of as many numbers each that are added up become the fold of what is added up before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit as gj
from graphjit.ir import Apply
from graphjit.tensor import Tensor

X = np.random.default_rng(0).standard_normal((6, 40, 8))


def folds(function: Callable[..., Any], *args: Any) -> int:
    """How many sums are computed, once values have been compared with those of eager mode."""
    run = gj.compile(function)
    np.testing.assert_allclose(run(*args).numpy(), function(*map(gj.tensor, args)).numpy(), rtol=1e-12)
    return sum(isinstance(n, Apply) and n.op.name == "sum" for n in run.graph.nodes)


@pytest.mark.parametrize(("term", "expected"), [
    (lambda t, i: t.sum(0), 1), (lambda t, i: t[:20].sum(), 1), (lambda t, i: t.sum(1, keepdims=True), 1),
    (lambda t, i: -0.5 * t.sum(0), 1), (lambda t, i: -t[0].exp().sum(), 1),
    (lambda t, i: t.sum(0) * (1 + i % 2), 6),  # three of each factor are too few
    (lambda t, i: t[: 5 + i].sum(0), 6), (lambda t, i: t.sum(0).exp(), 6), (lambda t, i: t.sum(0) / (2 + i), 6),
])
def test_folds_that_are_added_up(term: Callable[[Tensor, int], Tensor], expected: int) -> None:
    def total(x: Tensor) -> Tensor:
        found = term(x[0], 0)
        for i in range(1, 6):
            found = found + term(x[i], i)
        return found
    assert folds(total, X) == expected


def test_a_fold_that_is_read_elsewhere_stays() -> None:
    def total(x: Tensor) -> Tensor:
        first, *others = (x[i].sum(0) for i in range(6))
        return sum(others, first) * first
    assert folds(total, X) == 2


@pytest.mark.parametrize(("shape", "axis"), [((300, 200), 0), ((40, 8), None)])
def test_folds_of_large_arrays_stay_where_their_operands_are_computed(shape: tuple[int, ...], axis: int | None) -> None:
    x = np.ones((6, *shape))
    assert folds(lambda x: sum(((x[i] ** 2).sum(axis) for i in range(1, 6)), (x[0] ** 2).sum(axis)), x) == 6


def test_the_gradient_by_a_bias_of_every_turn_is_one_fold() -> None:
    w = np.eye(8) * 0.5

    def loss(x: Tensor, bias: Tensor) -> Tensor:
        h = 0 * x[0]
        for i in range(6):
            h = gj.tanh(h @ w + x[i] + bias)
        return (h * h).mean()
    assert folds(gj.grad(loss, argnums=1), X, np.zeros(8)) == 1
