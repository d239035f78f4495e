"""The gradient by a large table of which few rows were taken is never stored in full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lowering import floats

import graphjit as gj
from graphjit import nn, optim
from graphjit.ir import Apply
from graphjit.passes import touched_rows
from graphjit.runtime.compiler import compile_count

ROWS, WIDTH = 8400, 64
TABLE = floats(ROWS, WIDTH)

Step = Callable[..., gj.Tensor]
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: optim.Adam(p, lr=0.01),
}


def places(*shape: int, seed: int = 0, lowest: int = -ROWS) -> np.ndarray:
    """Some of them equal, some counted from the end."""
    found = np.random.default_rng(seed).integers(lowest, ROWS, shape)
    found.flat[::3] = 7
    return found


def one(table: gj.Tensor, x: gj.Tensor) -> gj.Tensor:
    return gj.tanh(table[x].mean(axis=1)).sum()


def two(table: gj.Tensor, x: gj.Tensor) -> gj.Tensor:
    return gj.tanh((table[x[:, 0]] * table[x[:, 1]]).sum(axis=1)).sum() + table[x].sum()


def trained(loss_of: Callable[[gj.Tensor, gj.Tensor], gj.Tensor], make: Callable[..., optim.Optimizer],
            clip: float = 0.0) -> tuple[Step, gj.Tensor]:
    table = gj.tensor(TABLE, requires_grad=True)
    opt = make([table])

    def step(x: gj.Tensor) -> gj.Tensor:
        opt.zero_grad()
        loss = loss_of(table, x)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_([table], clip)
        opt.step()
        return loss
    return step, table


def in_full(f: gj.CompiledFunction) -> bool:
    """Whether something else than a parameter or a moment has as many numbers as the table."""
    program = f.latest.program
    written = {n for step in program.steps for n in step.writes} - {*program.lowered.in_place}
    return any(isinstance(n, Apply) and n.type.size == ROWS * WIDTH for n in written)


@pytest.mark.parametrize("clip", [0.0, 0.1])
@pytest.mark.parametrize("loss_of", [one, two])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_agrees_with_eager_code(name: str, loss_of: Any, clip: float) -> None:
    (compiled, table), (eager, wanted) = (trained(loss_of, OPTIMIZERS[name], clip) for _ in range(2))
    f = gj.compile(compiled)
    for i in range(3):
        x = places(9, 5, seed=i)
        assert float(f(x)) == pytest.approx(float(eager(gj.tensor(x))), rel=1e-5)
    np.testing.assert_allclose(table.numpy(), wanted.numpy(), rtol=2e-5, atol=2e-6)
    assert not in_full(f)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("loss_of", [one, two])
def test_bits_are_those_of_gradients_in_full(loss_of: Any, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = gj.get_num_threads()
    tables = []
    try:
        gj.set_num_threads(threads)
        for least in (touched_rows.LEAST, 1 << 60):
            monkeypatch.setattr(touched_rows, "LEAST", least)
            step, table = trained(loss_of, OPTIMIZERS["adam"])
            f = gj.compile(step)
            for i in range(3):
                f(places(9, 5, seed=i))
            assert in_full(f) == (least == 1 << 60)
            tables.append(table.numpy().copy())
    finally:
        gj.set_num_threads(before)
    np.testing.assert_array_equal(*tables)


MEASURES: dict[str, tuple[bool, Callable[[gj.Tensor], gj.Tensor]]] = {
    "largest": (True, lambda g: abs(g).max()),
    "smallest": (True, lambda g: (g + 2).min()),
    "by columns": (True, lambda g: (g * g / 3).sum(axis=0)),
    "kept": (True, lambda g: (-g).sum(axis=(0, 1), keepdims=True)),
    "twice": (True, lambda g: (g / (g * g).sum() ** 0.5).square().sum()),
    "not of zero": (False, lambda g: gj.exp(g).sum()),
    "by rows": (False, lambda g: (g * g).sum(axis=1)),
    "of others too": (False, lambda g: (g * gj.tensor(TABLE)).sum()),
    "product": (False, lambda g: (1 + g).prod()),
}


@pytest.mark.parametrize("name", MEASURES)
def test_what_is_measured_of_a_gradient(name: str) -> None:
    by_rows, measure = MEASURES[name]
    table = gj.tensor(TABLE)

    def step(x: gj.Tensor) -> gj.Tensor:
        g = gj.grad(one)(table, x)
        table.assign(table - g)
        return measure(g)
    f, x = gj.compile(step), places(9, 5)
    found = f(x).numpy()
    table.assign(TABLE)
    np.testing.assert_allclose(found, step(gj.tensor(x)).numpy(), rtol=2e-5, atol=1e-6)
    assert in_full(f) != by_rows


def test_another_number_of_places_costs_no_compile() -> None:
    step, table = trained(one, OPTIMIZERS["adam"])
    f = gj.compile(step)
    f(places(9, 5))
    count = compile_count()
    for n in (12, 33, 1):
        f(places(n, 5))
    assert compile_count() == count
    assert not in_full(f)
    f(places(9, 500))  # so many that most rows are touched
    assert in_full(f)
    again, wanted = trained(one, OPTIMIZERS["adam"])
    for shape in ((9, 5), (12, 5), (33, 5), (1, 5), (9, 500)):
        again(gj.tensor(places(*shape)))
    np.testing.assert_allclose(table.numpy(), wanted.numpy(), rtol=2e-5, atol=2e-6)


def test_no_places_at_all() -> None:
    table = gj.tensor(TABLE, requires_grad=True)

    @gj.compile
    def step(x: gj.Tensor) -> gj.Tensor:
        table.grad = None
        loss = (table[x] ** 2).sum()
        loss.backward()
        assert table.grad is not None
        table.assign(table - 0.5 * table.grad)
        return loss
    assert float(step(np.zeros(0, np.int64))) == 0
    np.testing.assert_array_equal(table.numpy(), TABLE)
    step(np.array([3, 3, ROWS - 1]))
    wanted = TABLE.copy()
    wanted[3] -= 2 * TABLE[3]
    wanted[-1] -= TABLE[-1]
    np.testing.assert_allclose(table.numpy(), wanted, rtol=1e-6, atol=1e-6)


def test_a_gradient_that_is_wanted_comes_in_full() -> None:
    f = gj.compile(gj.grad(one))
    x = places(9, 5)
    found, wanted = f(TABLE, x).numpy(), gj.grad(one)(gj.tensor(TABLE), gj.tensor(x)).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert in_full(f)


def test_a_table_that_also_multiplies_has_a_gradient_in_full() -> None:
    def tied(table: gj.Tensor, x: gj.Tensor) -> gj.Tensor:
        return gj.tanh(table[x].mean(axis=1) @ table.T).sum()
    (step, table), (eager, wanted) = (trained(tied, OPTIMIZERS["momentum"]) for _ in range(2))
    f, x = gj.compile(step), places(9, 5)
    assert float(f(x)) == pytest.approx(float(eager(gj.tensor(x))), rel=1e-5)
    np.testing.assert_allclose(table.numpy(), wanted.numpy(), rtol=2e-5, atol=2e-6)
    assert in_full(f)


def test_a_place_out_of_range_changes_nothing() -> None:
    step, table = trained(one, OPTIMIZERS["momentum"])
    f = gj.compile(step)
    f(places(9, 5))
    before = table.numpy().copy()
    bad = places(9, 5)
    bad[4, 2] = ROWS
    with pytest.raises(gj.BoundsError, match=str(ROWS)):
        f(bad)
    np.testing.assert_array_equal(table.numpy(), before)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_rows(value: float) -> None:
    step, table = trained(lambda table, x: (table[x] * value).sum(), OPTIMIZERS["sgd"])
    gj.compile(step)(np.array([5, 17, 5]))
    found = np.isfinite(table.numpy()).all(axis=1)
    assert list(np.flatnonzero(~found)) == [5, 17]
