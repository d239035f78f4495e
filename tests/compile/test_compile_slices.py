"""The gradient of slices: a sum of arrays that are zero elsewhere becomes one concatenation."""

from __future__ import annotations

import numpy as np
import pytest

import graphjit as gj
from graphjit.ir import Apply


def parts_of(x, axis, bounds):
    for start, stop in bounds:
        yield x[(slice(None),) * axis + (slice(start, stop),)]


@pytest.mark.parametrize("bounds", [
    [(0, 2), (2, 5), (5, 6)], [(5, 6), (2, 5), (0, 2)], [(2, 5), (0, 2), (5, 6)], [(1, 3), (3, 4)],
    [(0, 3), (2, 6)], [(0, 1), (4, 6)], [(0, 0), (0, 6)], [(0, 6), (1, 2), (2, 3)],
], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_gradients_of_slices(bounds, axis):
    def f(x):
        return sum((part * (i + 2)).square().sum() for i, part in enumerate(parts_of(x * 3, axis, bounds)))

    x = np.random.default_rng(0).standard_normal((6, 6))
    np.testing.assert_allclose(gj.compile(gj.grad(f))(x).numpy(), gj.grad(f)(x).numpy(), rtol=1e-12)


@pytest.mark.parametrize("bounds", [[(0, 2), (2, 6)], [(2, 6), (0, 2)]], ids=str)
def test_slices_of_what_is_used_as_a_whole_too(bounds):
    def f(x):
        y = x * 3
        return sum(((part * (i + 2)).square().sum() for i, part in enumerate(parts_of(y, 0, bounds))), (y ** 3).sum())

    x = np.random.default_rng(0).standard_normal((6, 6))
    found = gj.compile(gj.grad(f))
    np.testing.assert_allclose(found(x).numpy(), gj.grad(f)(x).numpy(), rtol=1e-12)
    assert sum(isinstance(n, Apply) and n.op.name == "pad" for n in found.graph.nodes) == 0


@pytest.mark.parametrize("backwards", [False, True])
def test_a_loop_over_time_adds_no_arrays_of_all_times(backwards):
    w = gj.tensor(np.ones((3, 3)), requires_grad=True)

    @gj.compile
    def step(x):
        h, inputs = gj.zeros((2, 3), dtype="float64"), x @ w
        for t in reversed(range(8)) if backwards else range(8):
            h = gj.tanh(h + inputs[:, t])
        loss = h.sum()
        loss.backward()
        with gj.no_grad():
            w.assign(w - w.grad)
        return loss

    step(np.ones((2, 8, 3)))
    ops = [n for n in step.graph.nodes if isinstance(n, Apply)]
    assert not [n for n in ops if n.op.name in ("add", "pad") and n.type.shape == (2, 8, 3)]
    assert sum(n.op.name == "concat" for n in ops) == 1
