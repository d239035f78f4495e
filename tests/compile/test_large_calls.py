"""Calls of programs with large arguments and results, and of those that threads share, made whole by native code."""

import gc
import sys
import threading
import weakref

import numpy as np
import pytest

import graphjit as gj
from graphjit import shortcut
from graphjit.errors import ArgumentError, GraphjitError
from graphjit.runtime import threads
from graphjit.runtime.bound import STAGED
from graphjit.runtime.results import LARGE, Results
from graphjit.runtime.sharing import LIMIT
from graphjit.runtime.threads import pool

X = np.linspace(-1, 1, LARGE, dtype=np.float32).reshape(512, -1)  # of 512 KB


@pytest.fixture(params=["native", "python"])
def _way(request, monkeypatch):
    """Everything again as where the fields of Python's objects are not known."""
    if request.param == "python":
        monkeypatch.setattr(shortcut, "fields_are_known", lambda: False)


@pytest.fixture(params=[1, 2], autouse=True)
def _threads(request):
    before = list(threads._chosen)
    gj.set_num_threads(request.param)
    yield request.param
    threads._chosen[:] = before
    threads.look_again()


both_ways = pytest.mark.usefixtures("_way")


def compiled(function, *args):
    f = gj.compile(function)
    for _ in range(2):
        f(*args)
    assert f.latest.program.native(True, None, None, np.zeros(0, np.int64)) is not None
    return f


def scaled(x, y):
    return gj.exp(x) * y


def is_free(f):
    """Whether a call gave back what it took."""
    helpers = pool()
    return not f.latest.program.lock.locked() and (helpers is None or not helpers.free.locked())


@both_ways
@pytest.mark.parametrize("made", [
    lambda x: x, lambda x: x.T.copy().T, lambda x: np.repeat(x, 2, 1)[:, ::2], lambda x: x[::-1, ::-1],
    lambda x: np.broadcast_to(x[0], x.shape), lambda x: np.frombuffer(b"?" + x.tobytes(), np.uint8)[1:].view(
        x.dtype).reshape(x.shape), lambda x: gj.tensor(x), lambda x: gj.tensor(x.T.copy().T)],
    ids=["plain", "transposed", "stepped", "backwards", "broadcast", "unaligned", "tensor", "tensor transposed"])
def test_large_arrays_of_any_layout(made):
    f = compiled(scaled, X, X)
    for k in range(3):
        x, y = made(X + k), X - k
        np.testing.assert_allclose(f(x, y).data, np.exp(np.asarray(x)) * y, rtol=1e-5, atol=1e-30)
    assert f.trace_count == 1 and is_free(f)


@both_ways
@pytest.mark.parametrize("other", [X.astype(np.float64), X[:, :5], X.reshape(-1), X.astype(">f4"), X.view(np.recarray),
                                   X[0].copy(), 2.0], ids=lambda x: f"{type(x).__name__}{getattr(x, 'dtype', '')}")
def test_arguments_of_another_kind_get_a_program_of_their_own(other):
    f = compiled(lambda x: x * 2, X)
    for _ in range(2):
        np.testing.assert_array_equal(f(other), np.asarray(other) * 2)
        np.testing.assert_array_equal(f(X), X * 2)


@both_ways
def test_results_of_every_kind():
    """Of kernels' own memory, an argument, parts and other orders of one, of another result, a constant, a state."""
    held, fixed = gj.tensor(X * 3), X + 4

    def f(x, small):
        y = gj.exp(x)
        return y, y.reshape(-1), y.T, x, x[1:, ::2], y[:20], small, small.T, held, held.T, gj.tensor(fixed), x.max()
    g = compiled(f, X, X[:4, :3].copy())
    for k in range(3):
        x, small = X + k, X[:4, :3] - k
        y = np.exp(x)
        wanted = [y, y.reshape(-1), y.T, x, x[1:, ::2], y[:20], small, small.T, X * 3, (X * 3).T, fixed, x.max()]
        found = [t.data for t in g(x, small.copy())]
        for got, want in zip(found, wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-3)
            assert got.shape == want.shape and got.flags.c_contiguous and got.flags.writeable
        assert not any(np.shares_memory(a, b) for i, a in enumerate(found) for b in (*found[:i], x, held.data, fixed))
    assert is_free(g)


@both_ways
def test_a_function_that_computes_nothing():
    f = compiled(lambda x, y: (y, x), X, X[0])
    for k in range(3):
        a, b = f(X + k, X[0] - k)
        np.testing.assert_array_equal(a, X[0] - k)
        np.testing.assert_array_equal(b, X + k)


@both_ways
def test_a_large_state_as_argument_counts_as_it_is_on_entry():
    w = gj.tensor(X.copy())
    assert X.nbytes > STAGED

    def step(x):
        w.assign(w * 2)
        return gj.flip(x, (0, 1)) + w
    f = compiled(step, X)
    now = X * 4
    for k in range(3):
        np.testing.assert_array_equal(f(w), now[::-1, ::-1] + now * 2)
        np.testing.assert_array_equal(f(X), X[::-1, ::-1] + now * 4)
        now = X * (k + 5)
        w.data = now.copy()  # a buffer that has to be known from the next call on
        np.testing.assert_array_equal(f(X), X[::-1, ::-1] + now * 2)
        now = now * 2


@both_ways
def test_an_index_out_of_range_raises_and_changes_nothing():
    count, rows = gj.tensor(np.zeros(1, np.float32)), np.arange(512)

    def pick(x, i, j):
        count.assign(count + 1)
        return gj.take(gj.exp(x), i, axis=0), gj.take(x, j, axis=1)
    f = compiled(pick, X, rows, rows[:9])
    bad = np.where(rows == 300, 512, rows)
    for calls in (3, 4, 5):
        for wrong, length in (((bad, rows[:9]), 512), ((rows, bad[295:304]), 256)):
            with pytest.raises(GraphjitError, match=rf"out of range for an axis of length {length}"):
                f(X, *wrong)
            assert count.tolist() == [calls - 1] and is_free(f)
        np.testing.assert_allclose(f(X, rows[::-1].copy(), rows[:9])[0], np.exp(X)[::-1], rtol=1e-6)
        assert count.tolist() == [calls]


@both_ways
def test_a_call_keeps_nothing():
    f = compiled(lambda x, y, i: (scaled(x, y), x, gj.take(y, i, axis=0)), X, X, np.array([1]))
    arrays = [X.copy(), X.copy(), np.array([5]), np.array([512])]
    t = gj.tensor(X.copy())
    counted = (*arrays, np.dtype("float32"), None, f, t, t.data, *(() if pool() is None else (pool(),)))

    def calls():
        x, y, i, bad = arrays
        for _ in range(30):
            f(x, y, i), f(x.T.copy().T, t, i)
            for wrong in ((x, y, bad), (x, y)):
                with pytest.raises((GraphjitError, TypeError)):
                    f(*wrong)
        gc.collect()
        return [sys.getrefcount(it) for it in counted]
    calls()
    before = calls()
    assert [abs(b - a) < 15 for a, b in zip(calls(), before, strict=True)] == [True] * len(counted)


@both_ways
@pytest.mark.parametrize("last", [1, 512])
def test_a_call_keeps_no_array(last):
    f = compiled(lambda x, i: (gj.exp(x), x, gj.take(x, i, axis=0)), X, np.array([1]))
    x = X.copy()
    results = [t.data for t in f(x, np.array([5]))]
    try:
        f(x, np.array([last]))
    except GraphjitError:
        assert last == 512
    gone = [weakref.ref(it) for it in (x, *results)]
    del x, results
    gc.collect()
    assert all(it() is None for it in gone)


@pytest.mark.parametrize(("what", "function"), [
    ("empty", lambda x: gj.exp(x)), ("copy", lambda x: (gj.exp(x).T, x, gj.exp(x)[1:])),
    ("copy", lambda x: (x, x + 1))])
def test_errors_while_results_are_made_give_back_what_was_taken(monkeypatch, what, function):
    real, left = getattr(Results, what), []

    def refuse(self, *args):
        if left:
            left.pop()
            raise MemoryError("on purpose")
        return real(self, *args)
    monkeypatch.setattr(Results, what, refuse)
    f = compiled(function, X)
    x = X.copy()
    counts = sys.getrefcount(x)
    for _ in range(3):
        left.append(1)
        with pytest.raises(MemoryError, match="on purpose"):
            f(x)
        assert not left and is_free(f) and sys.getrefcount(x) == counts
        f(x)
    assert is_free(f)


def shared(n=2):
    gj.set_num_threads(n)
    f = compiled(scaled, X, X)
    assert f.latest.program._shares
    return f


def check(f):
    np.testing.assert_allclose(f(X, X), np.exp(X) * X, rtol=1e-5)


def test_errors_while_the_pool_is_asked_give_back_what_was_taken(monkeypatch):
    f, helpers = shared(), pool()
    before = sys.getrefcount(helpers)
    with monkeypatch.context() as patched:
        threads._chosen[:] = []
        patched.setenv("GRAPHJIT_NUM_THREADS", "many")
        threads.look_again()
        with pytest.raises(ArgumentError, match="many"):
            f(X, X)
    gj.set_num_threads(2)
    assert is_free(f) and pool() is helpers
    check(f)
    assert sys.getrefcount(helpers) < before + 20


@both_ways
def test_who_cannot_have_the_pool_runs_alone():
    f = shared()
    with pool().free:
        check(f)
        assert pool().free.locked()
    assert is_free(f)


@both_ways
def test_a_pool_of_fewer_threads_than_the_program_is_for():
    f = shared(3)
    for n in (2, 1, 3, 2, 5):
        gj.set_num_threads(n)
        check(f)
        helpers = pool()
        if helpers is not None:
            assert helpers.threads == n and helpers.block[LIMIT] == min(n, 3)


@both_ways
def test_a_pool_that_goes_while_a_program_uses_it():
    f = shared()
    x = np.tile(X, (8, 1))
    f(x, x)
    stop, wrong = threading.Event(), []

    def work():
        while not stop.is_set():
            if not np.array_equal(f(x, x).data, wanted):
                wrong.append(1)
    wanted = f(x, x).numpy()
    running = [threading.Thread(target=work) for _ in range(2)]
    for t in running:
        t.start()
    for n in (3, 2, 1, 2, 3, 2) * 3:
        gj.set_num_threads(n)
        f(x, x)
    stop.set()
    for t in running:
        t.join()
    assert not wrong and is_free(f)


@both_ways
def test_threads_call_the_same_program():
    f = compiled(lambda x, y: (scaled(x, y), (x * y).sum(1), x.T), X, X)
    wrong = []

    def work(i):
        x, y = X + i, X * i
        wanted = [t.numpy() for t in f(x, y)]
        np.testing.assert_allclose(wanted[0], np.exp(x) * y, rtol=1e-5)
        for n in range(40):
            found = f(x if n % 3 else x.T.copy().T, gj.tensor(y))
            if not all(np.array_equal(a.data, b) for a, b in zip(found, wanted, strict=True)):
                wrong.append(i)
    running = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for t in running:
            t.start()
        for t in running:
            t.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong and f.trace_count == 1 and is_free(f)


@both_ways
def test_a_tensor_may_be_given_another_array_while_a_program_reads_it():
    f = compiled(lambda x: gj.exp(gj.tanh(gj.sin(x))).sum(), X)
    t = gj.tensor(X.copy())
    arrays = [float(f(np.full_like(X, k))) for k in range(8)]
    stop, seen = threading.Event(), []

    def work():
        while not stop.is_set():
            seen.append(float(f(t)))
    t.data = np.full_like(X, 0)
    thread = threading.Thread(target=work)
    thread.start()
    for k in [*range(8)] * 40:
        t.data = np.full_like(X, k)  # the last reference to the one before
    stop.set()
    thread.join()
    assert set(seen) <= set(arrays) and is_free(f)
