"""Denormal numbers count, or are zero where a thread says so: in eager mode, in kernels and in those that help them."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphjit as gj
from graphjit.runtime import threads as pools

pytestmark = pytest.mark.skipif(not gj.set_flush_denormal(False), reason="no such mode is known on this CPU")
DENORMAL = np.linspace(-100, -90, 1 << 20).astype(np.float32)  # e^x is


@pytest.fixture(autouse=True)
def flushing() -> Iterator[None]:
    assert gj.set_flush_denormal(True)
    yield
    gj.set_flush_denormal(False)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = list(pools._chosen)
    gj.set_num_threads(request.param)
    yield request.param
    pools._chosen[:] = before
    pools.look_again()


def test_results_are_zero_on_all_threads_and_count_again_afterwards(threads: int) -> None:
    step = gj.compile(lambda x: gj.exp(x) * 0.5)
    for _ in range(4):
        gj.set_flush_denormal(True)
        np.testing.assert_array_equal(step(DENORMAL).numpy(), 0)
        gj.set_flush_denormal(False)
        assert (step(DENORMAL).numpy() > 0).all()
    assert bool(step.latest.program.table[:, 4].any()) == (threads > 1)  # the kernel is shared


@pytest.mark.parametrize("wrap", [gj.compile, lambda f: f], ids=["compiled", "eager"])
def test_operands_count_as_zero(wrap: Callable[..., Any]) -> None:
    x = np.array([1e-40, 2e-38], np.float32)
    np.testing.assert_array_equal(wrap(lambda x: x * 4)(gj.tensor(x)).numpy() > 0, [False, True])


def test_the_mode_is_the_threads_own() -> None:
    step = gj.compile(lambda x: gj.exp(x) * 0.5)
    np.testing.assert_array_equal(step(DENORMAL).numpy(), 0)
    found = []

    def other() -> None:
        gj.set_flush_denormal(False)
        found.append((step(DENORMAL).numpy() > 0).all())
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found == [True]
    np.testing.assert_array_equal(step(DENORMAL).numpy(), 0)


def test_saying_it_twice_changes_nothing_else() -> None:
    assert gj.set_flush_denormal(True)
    with np.errstate(all="raise"):
        assert np.float64(1.0) / np.float64(3.0) == 1 / 3
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        assert np.isinf(np.float64(1.0) / np.float64(0.0))
