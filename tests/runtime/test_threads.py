"""Threads: the same bits on any number of them, concurrent callers, forked children."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim
from graphjit.runtime import threads


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    before = list(threads._chosen)
    yield
    threads._chosen[:] = before


def build(seed: int = 0) -> gj.CompiledFunction:
    gj.manual_seed(seed)
    model = nn.Sequential(nn.Linear(300, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 10))
    opt = optim.Adam(model.parameters(), lr=1e-3)

    @gj.compile
    def step(x: np.ndarray, y: np.ndarray) -> gj.Tensor:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss
    return step


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((200, 300)).astype(np.float32), rng.integers(0, 10, 200)


def losses(n: int, steps: int = 4) -> list[float]:
    gj.set_num_threads(n)
    step = build()
    return [float(step(*data())) for _ in range(steps)]


def test_a_step_gives_the_same_bits_on_any_number_of_threads() -> None:
    alone = losses(1)
    assert losses(2) == alone
    assert losses(3) == alone


def test_work_is_shared_out() -> None:
    gj.set_num_threads(2)
    step = build()
    step(*data())
    table = step.latest.program.table
    assert (table[:, 4] > 0).any()
    assert all(0 < grain < stop for stop, grain in table[:, 3:5] if grain)


def test_two_python_threads_may_call_at_once() -> None:
    alone = losses(1, 20)
    gj.set_num_threads(2)
    found: dict[int, list[float]] = {}
    steps = [build(), build()]

    def train(i: int) -> None:
        found[i] = [float(steps[i](*data())) for _ in range(20)]
    running = [threading.Thread(target=train, args=(i,)) for i in range(2)]
    for t in running:
        t.start()
    for t in running:
        t.join()
    assert np.isfinite(found[0]).all()
    assert np.isfinite(found[1]).all()
    # each model has its own weights, the generator is common: the first step's loss differs by the mask alone
    assert abs(found[0][-1] - alone[-1]) < 1.0


def test_two_python_threads_may_call_one_function() -> None:
    gj.set_num_threads(2)

    @gj.compile
    def f(x: gj.Tensor) -> gj.Tensor:
        return (gj.exp(x) * 2 + x).sum(axis=1)
    x = np.linspace(0, 1, 400_000, dtype=np.float32).reshape(400, 1000)
    want = f(x).numpy()
    bad: list[int] = []

    def call() -> None:
        for i in range(30):
            if not np.array_equal(f(x).numpy(), want):
                bad.append(i)
    running = [threading.Thread(target=call) for _ in range(3)]
    for t in running:
        t.start()
    for t in running:
        t.join()
    assert bad == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_trains_on() -> None:
    gj.set_num_threads(2)
    step = build()
    first = float(step(*data()))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        value = float(step(*data()))
        os.write(writing, repr(value).encode())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    os.close(writing)
    text = os.read(reading, 100).decode()
    assert status == 0
    assert float(text) == float(step(*data())) != first


def test_a_bad_number_of_threads_is_refused() -> None:
    with pytest.raises(gj.ArgumentError, match="whole number"):
        gj.set_num_threads(0)
