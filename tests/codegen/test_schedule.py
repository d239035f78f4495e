"""The order of steps: updates as soon as can be, checks before anything is written."""

import numpy as np
import pytest

import graphjit as gj
from graphjit import nn, optim
from graphjit.errors import GraphjitError
from graphjit.nn import functional as F


def deep(layers: int = 4):
    gj.manual_seed(0)
    model = nn.Sequential(*(layer for _ in range(layers) for layer in (nn.Linear(24, 24), nn.Tanh())))
    opt = optim.Adam(model.parameters(), lr=0.01)

    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    return model, step


def data(rows: int = 16):
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, 24)).astype(np.float32), rng.integers(0, 24, rows)


def test_each_layer_is_updated_before_the_gradients_of_layers_before_it_are_computed():
    model, step = deep()
    fast = gj.compile(step)
    fast(*data())
    program = fast.latest.program
    named = {p.data.ctypes.data: i for i, p in enumerate(model.parameters()) if p.ndim == 2}
    states = {node: named[at] for node, array in program.fixed.items() if (at := array.ctypes.data) in named}
    written = [states[n] for k in program.kernels for n in k.writes if n in states]
    assert written == sorted(written, reverse=True) and len(written) == 4
    products = [i for i, k in enumerate(program.kernels) if "matmul" in k.title]
    first = next(i for i, k in enumerate(program.kernels) if any(n in states for n in k.writes))
    assert first < products[-4], [k.title for k in program.kernels]


def test_gradients_of_layers_take_memory_no_longer_than_until_the_update():
    sizes, rows = [], 200
    for layers in (4, 12):
        _, step = deep(layers)
        fast = gj.compile(step)
        fast(*data(rows))
        sizes.append(fast.latest.program.plan.size)
    # of each layer more its result is kept, but no gradient
    assert (sizes[1] - sizes[0]) / 8 < 1.5 * rows * 24 * 4


def test_values_are_those_of_eager_steps():
    model, step = deep()
    losses = [step(*data()).item() for _ in range(5)]
    twin, again = deep()
    fast = gj.compile(again)
    np.testing.assert_allclose([fast(*data()).item() for _ in range(5)], losses, rtol=1e-4)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(q.numpy(), p.numpy(), rtol=1e-2, atol=1e-3)


def test_a_bad_label_changes_nothing_though_updates_come_early():
    model, step = deep()
    fast = gj.compile(step)
    x, y = data()
    fast(x, y)
    before = [p.numpy().copy() for p in model.parameters()]
    y[3] = 99
    with pytest.raises(GraphjitError):
        fast(x, y)
    for p, old in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.numpy(), old)
