"""Threads: the same bits on any number of them, concurrent callers, forked children."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim
from graphjit.codegen.call import Address, Scratch
from graphjit.runtime import threads
from graphjit.runtime.bound import GUARD
from graphjit.runtime.memory import ALIGN


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    before = list(threads._chosen)
    yield
    threads._chosen[:] = before
    threads.look_again()


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


def test_threads_have_scratch_memory_apart_from_each_other() -> None:
    gj.set_num_threads(3)
    step = build()
    step(*data())
    program = step.latest.program
    places: list[list[tuple[int, int]]] = [[], [], []]
    for call in (call for row in program.kernels for call in row.calls):
        for slot in call.slots:
            if isinstance(slot, Address) and isinstance(slot.buffer, Scratch) and not slot.buffer.common:
                begin = program.plan.offsets[slot.buffer]
                for thread, rooms in enumerate(places):
                    rooms.append((begin + thread * program._own, begin + thread * program._own + slot.buffer.nbytes))
    ends = [max(end for _, end in rooms) for rooms in places]
    begins = [min(begin for begin, _ in rooms) for rooms in places]
    shared = [at + (key.nbytes if isinstance(key, Scratch) else key.type.nbytes)
              for key, at in program.plan.offsets.items() if not isinstance(key, Scratch) or key.common]
    assert all(begin >= end + GUARD for begin, end in zip(begins, [max(shared), *ends], strict=False))
    assert ends[-1] <= program.plan.size < ends[-1] + ALIGN


def test_work_is_shared_out() -> None:
    gj.set_num_threads(2)
    step = build()
    step(*data())
    table = step.latest.program.table
    assert (table[:, 4] > 0).any()
    assert all(0 < abs(grain) < stop for stop, grain in table[:, 3:5] if grain)


@pytest.mark.parametrize("shape", [(0,), (1,), (900,), (30_000,), (300_000,), (3, 100_000), (100_000, 3)])
def test_folds_of_everything_are_shared_out_in_chunks(shape: tuple[int, ...]) -> None:
    """The chunks follow from the length alone, and are put together in their order."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(shape).astype(np.float32), rng.standard_normal(shape[::-1]).astype(np.float32)

    def f(x: gj.Tensor, y: gj.Tensor) -> tuple[gj.Tensor, ...]:
        z = gj.tanh(x) * y.T
        return z.sum(), (z * z).mean() + 1, gj.all(z < 3), gj.exp(z), gj.any(z > 3)
    found = []
    for n in (1, 2, 3):
        gj.set_num_threads(n)
        step = gj.compile(f)
        found.append([t.numpy() for t in step(x, y)])
        shares = step.latest.program.table[:, 4].any()
        assert not shares or (n > 1 and x.size > 900)
        assert shares or n == 1 or x.size < 300_000
    z = np.tanh(x.astype(np.float64)) * y.T
    with np.errstate(invalid="ignore"):
        expected = z.sum(), (z * z).sum() / np.float64(z.size) + 1, np.all(z < 3), np.exp(z), np.any(z > 3)
    for i, want in enumerate(expected):
        np.testing.assert_allclose(found[0][i], want, rtol=2e-5, atol=1e-6 * max(1, z.size) ** 0.5)
        assert found[0][i].tobytes() == found[1][i].tobytes() == found[2][i].tobytes()


@pytest.mark.parametrize("rows", [0, 1, 100, 20_000])
def test_folds_of_rows_are_shared_out_in_chunks(rows: int) -> None:
    """As the gradient of a bias, with the step that follows from it."""
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((rows, 5), (5, 24), (24,)))

    def run(threads: int) -> tuple[list[np.ndarray], bool]:
        gj.set_num_threads(threads)
        weight, bias = gj.tensor(w), gj.tensor(b)

        @gj.compile
        def f(x: gj.Tensor) -> tuple[gj.Tensor, ...]:
            z = x @ weight + bias
            bias.assign(bias - 0.01 * (z * bias).sum(0))
            return z, (z * 2).sum(0), gj.any(z > 4, 0)
        out = [t.numpy() for t in f(x)]
        return [*out, bias.numpy()], bool((f.latest.program.table[:, 4] < 0).any())
    (found, _), *others = [run(n) for n in (1, 2, 3)]
    z = x.astype(np.float64) @ w + b
    for got, want in zip(found, (z, (z * 2).sum(0), (z > 4).any(0), b - 0.01 * (z * b).sum(0)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)
    for again, shared in others:
        assert shared == (rows > 1000)
        assert [a.tobytes() for a in again] == [a.tobytes() for a in found]


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


@pytest.mark.parametrize(("files", "cpus"), [
    ({"cpu.max": "max 100000"}, 0), ({"cpu.max": "200000 100000"}, 2), ({"cpu.max": "150000 100000"}, 1),
    ({"cpu.max": "5000 100000"}, 1), ({"cpu.max": ""}, 0), ({}, 0),
    ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
    ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 0),
])
def test_the_limit_of_a_container_counts(tmp_path: Path, files: dict[str, str], cpus: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert threads.container_cpus(tmp_path) == cpus


def test_a_bad_number_of_threads_is_refused() -> None:
    with pytest.raises(gj.ArgumentError, match="whole number"):
        gj.set_num_threads(0)
