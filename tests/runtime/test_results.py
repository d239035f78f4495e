"""The memory of large results: handed out again, never while anything reaches it, bounded, freed with the program."""

import gc
import threading
import weakref

import numpy as np
import pytest

import graphjit as gj
from graphjit.runtime import results
from graphjit.runtime.results import LARGE, LIMIT, Results, idle_bytes

X = np.linspace(-1, 1, LARGE, dtype=np.float32)


@pytest.fixture(autouse=True)
def _nothing_idle():
    gc.collect()
    results._idle.clear()
    yield
    gc.collect()
    results._idle.clear()


def address(array):
    return array.ctypes.data


def test_memory_that_nobody_holds_is_handed_out_again():
    f = gj.compile(lambda x: (gj.exp(x), gj.sin(x)))
    seen = set()
    for _ in range(20):
        a, b = f(X)
        np.testing.assert_allclose(a.data, np.exp(X), rtol=1e-6)
        np.testing.assert_allclose(b.data, np.sin(X), rtol=1e-6, atol=1e-7)
        seen |= {address(a.data), address(b.data)}
    assert len(seen) == 4  # the results that are held, and those of the call that replaces them
    assert all(at % 64 == 0 for at in seen)


@pytest.mark.parametrize("holder", [
    lambda t: t,
    lambda t: t.data,
    lambda t: t.data[5:][::3].reshape(-1, 1),
    lambda t: memoryview(t.data)[3:],
    lambda t: np.from_dlpack(t.data)[:7],
    lambda t: t.data.view(np.uint8).T,
])
def test_what_is_held_is_not_handed_out(holder):
    f = gj.compile(lambda x: x * 2)
    kept = holder(f(X))
    before = np.array(getattr(kept, "data", kept) if isinstance(kept, gj.Tensor) else kept)
    for k in range(5):
        f(X + k)
    np.testing.assert_array_equal(np.array(kept.data if isinstance(kept, gj.Tensor) else kept), before)


def test_a_result_may_be_the_next_argument():
    f = gj.compile(lambda x: x + 1)
    t = gj.tensor(X)
    for _ in range(10):
        t = f(t)
    np.testing.assert_allclose(t.data, X + 10, atol=1e-5)


def test_a_tape_holds_what_it_saved():
    f = gj.compile(lambda x: gj.exp(x))
    x = gj.tensor(X, requires_grad=True)
    y = f(x) * f(x)
    for _ in range(4):
        f(X * 3)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.data, 2 * np.exp(2 * X), rtol=1e-5)


def test_writing_to_a_result_changes_no_other():
    f = gj.compile(lambda x: x * 2)
    a = f(X)
    a.data[:] = 7
    b = f(X)
    np.testing.assert_array_equal(b.data, X * 2)
    assert (a.data == 7).all()


def test_results_that_show_one_buffer_are_copies():
    def twice(x):
        y = gj.exp(x)
        return y, y.reshape(-1, 8)
    f = gj.compile(twice)
    for _ in range(3):
        a, b = f(X)
        assert not np.shares_memory(a.data, b.data)
        np.testing.assert_array_equal(a.data, b.data.reshape(-1))


def test_idle_memory_goes_with_the_program():
    f = gj.compile(lambda x: x * 2)
    outlives = f(X)
    f(X)
    assert idle_bytes() == X.nbytes
    program = weakref.ref(f.latest.program)
    del f
    gc.collect()
    assert program() is None and idle_bytes() == 0
    np.testing.assert_array_equal(outlives.data, X * 2)
    del outlives
    assert idle_bytes() == 0


def test_idle_memory_is_bounded_and_the_oldest_goes_first():
    source = Results()
    sizes = [LIMIT // 4 + i * 4096 for i in range(6)]
    for size in sizes:
        source.empty((size,), np.dtype(np.uint8))
        assert idle_bytes() <= LIMIT
    assert list(results._idle) == sizes[-3:]


def test_small_results_are_left_to_the_allocator():
    source = Results()
    source.empty((LARGE - 1,), np.dtype(np.uint8))
    assert idle_bytes() == 0 and source.empty((5, 3), np.dtype(np.int64)).shape == (5, 3)


def test_threads_that_call_at_once_share_no_results():
    f = gj.compile(lambda x: x * 2)
    f(X)
    wrong = []

    def work(k):
        mine = np.full_like(X, k)
        held = []
        for _ in range(40):
            held.append(f(mine).data)
            held = held[-3:]
            if not all((h == 2 * k).all() for h in held):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
