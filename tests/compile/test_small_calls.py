"""Calls of small programs, which native code makes whole: what it takes, gives, refuses and leaves alone."""

import collections
import gc
import sys
import threading

import numpy as np
import pytest

import graphjit as gj
from graphjit import nn, optim, shortcut
from graphjit.errors import GraphjitError
from graphjit.runtime.calling import ITEM, SHAPE
from graphjit.runtime.driver import caller, runner
from graphjit.tree import flatten, unflatten

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(params=["native", "python"], autouse=True)
def _way(request, monkeypatch):
    """Everything again as where the fields of Python's objects are not known."""
    assert shortcut.fields_are_known()
    if request.param == "python":
        monkeypatch.setattr(shortcut, "fields_are_known", lambda: False)


def native(f):
    """Whether the function's latest call may take the native way."""
    return f.latest.program.native(True, None, None, np.zeros(0, np.int64)) is not None


def doubled():
    f = gj.compile(lambda x: x * 2 + 1)
    f(X)
    assert native(f)
    return f


@pytest.mark.parametrize("made", [
    lambda: X.T.copy().T, lambda: np.repeat(X, 2, 1)[:, ::2], lambda: X[::-1, ::-1], lambda: np.asfortranarray(X),
    lambda: np.broadcast_to(np.float32(3), (2, 3)), lambda: np.frombuffer(b"?" + X.tobytes(), np.uint8)[1:].view(
        np.float32).reshape(2, 3), lambda: gj.tensor(X), lambda: gj.tensor(X.T.copy().T)],
    ids=["transposed", "stepped", "backwards", "fortran", "broadcast", "unaligned", "tensor", "tensor transposed"])
def test_arrays_of_any_layout(made):
    f = doubled()
    for _ in range(3):
        np.testing.assert_array_equal(f(made()), np.asarray(made()) * 2 + 1)
    assert f.trace_count == 1


@pytest.mark.parametrize("other", [X.astype(np.float64), X[:1], X.reshape(3, 2), X[0], X.astype(">f4"), 2.0, 3,
                                   np.float32(2), X.view(np.recarray), X.tolist()[0][0]],
                         ids=lambda x: f"{type(x).__name__}{getattr(x, 'dtype', '')}{getattr(x, 'shape', '')}")
def test_arguments_of_another_kind_get_a_program_of_their_own(other):
    f = doubled()
    for _ in range(2):
        np.testing.assert_array_equal(f(other), np.asarray(other) * 2 + 1)
        np.testing.assert_array_equal(f(X), X * 2 + 1)


def test_wrong_numbers_of_arguments_raise():
    f = doubled()
    for args in ((), (X, X)):
        with pytest.raises(TypeError):
            f(*args)
    np.testing.assert_array_equal(f(x=X), X * 2 + 1)


def test_a_result_is_a_tensor_like_any_other():
    f = doubled()
    out, eager = f(X), gj.tensor(X) * 2 + 1
    assert type(out) is gj.Tensor and type(out.data) is np.ndarray and type(out._value) is type(eager._value)
    for name in type(out._value).__slots__:
        if name not in ("__weakref__", "data", "stamp", "op", "inputs", "params"):
            assert getattr(out._value, name) == getattr(eager._value, name), name
    assert out.data.flags.c_contiguous and out.data.flags.owndata and out.data.flags.writeable
    assert out.grad is None and out.label == "" and out.requires_grad is False
    assert eager._value.stamp < f(X)._value.stamp < f(X)._value.stamp
    assert gc.is_tracked(out)
    out.requires_grad = True
    (out * 3).sum().backward()
    np.testing.assert_array_equal(out.grad, np.full((2, 3), 3))


def test_results_do_not_share_memory():
    f = gj.compile(lambda x: (x * 2, x.sum(), {"n": x + 1}))
    first = f(X)
    second = f(X + 1)
    assert native(f)
    np.testing.assert_array_equal(first[0], X * 2)
    np.testing.assert_array_equal(first[2]["n"], X + 1)
    assert float(first[1]) == X.sum() and float(second[1]) == X.sum() + 6 and second[1].shape == ()


Pair = collections.namedtuple("Pair", "first second")


@pytest.mark.parametrize("give", [
    lambda a, b: (a, (b, a)), lambda a, b: [a], lambda a, b: (b,), lambda a, b: {"z": a, "a": [b, None]},
    lambda a, b: Pair(a, b), lambda a, b: {1: (), (2, "b"): {"x": b}, "n": Pair(1, [a])}, lambda a, b: (a, 3, "text"),
    lambda a, b: None, lambda a, b: (), lambda a, b: [[[a]], collections.OrderedDict(b=b, a=a)]])
def test_results_in_containers(give):
    f = gj.compile(lambda x: give(x * 2, x.sum()))
    wanted, kind = flatten(give(X * 2, X.sum()))
    for _ in range(3):
        out = f(X)
        leaves, found = flatten(out)
        assert found == kind and repr(unflatten(found, "abcdefgh"[:len(leaves)])) == repr(
            unflatten(kind, "abcdefgh"[:len(leaves)]))
        for got, right in zip(leaves, wanted, strict=True):
            np.testing.assert_array_equal(got, right)


def test_transposed_results():
    f = gj.compile(lambda x, y: [(x @ y).T, (x + 1).T, x[:, 1:]])
    y = np.arange(120, dtype=np.float32).reshape(3, 40)
    for _ in range(3):
        a, b, c = f(X, y)
        np.testing.assert_array_equal(a, (X @ y).T)
        np.testing.assert_array_equal(b, (X + 1).T)
        np.testing.assert_array_equal(c, X[:, 1:])
        assert all(r.data.flags.c_contiguous and r.data.flags.owndata for r in (a, b, c))
    assert native(f) and not f.latest.program.lock.locked()


def test_programs_that_let_other_threads_run():
    def power(x):
        y = x
        for _ in range(12):
            y = y @ x
        return y
    f = gj.compile(power)
    x = (np.random.default_rng(0).standard_normal((60, 60)) / 8).astype(np.float32)
    f(x)
    assert native(f) and f.latest.program._run is runner()
    found = [None] * 4

    def work(i):
        for _ in range(100):
            found[i] = f(x * (i / 4)).data
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i, out in enumerate(found):
        np.testing.assert_allclose(out, power(x * (i / 4)), rtol=1e-3, atol=1e-3)
    assert f.trace_count == 1 and not f.latest.program.lock.locked()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int8", "bool"])
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 1, 3)])
def test_types_of_results(dtype, shape):
    f = gj.compile(lambda x: (x, gj.zeros(2)))
    x = np.ones(shape, dtype)
    for _ in range(3):
        out = f(x)[0]
        assert out.dtype == x.dtype and out.shape == shape
        np.testing.assert_array_equal(out, x)


def test_floats_are_values_not_constants():
    f = gj.compile(lambda x, a: x * a)
    for a in (1.0, 2.5, float("inf"), -0.0):
        np.testing.assert_array_equal(f(X[1], a), X[1] * a)
    assert f.trace_count == 1 and native(f)
    np.testing.assert_array_equal(f(X[1], True), X[1])
    np.testing.assert_array_equal(f(X[1], np.float64(2)), X[1].astype(np.float64) * 2)


def test_tensors_that_require_gradients_are_not_taken():
    f = doubled()
    t = gj.tensor(X, requires_grad=True)
    for _ in range(2):
        f(t).sum().backward()
    np.testing.assert_array_equal(t.grad, np.full((2, 3), 4))
    f(X)
    caught = gj.compile(lambda x: f(x).sum())  # called in a trace
    assert float(caught(X)) == (X * 2 + 1).sum()


def test_gradients_of_tensors_in_any_order_of_memory():
    f = gj.compile(lambda x, y: (x * y).sum())
    f(X, X)
    f(X, X)
    y = gj.tensor(X.T.copy().T, requires_grad=True)
    f(gj.tensor(X.T.copy().T), y).backward()
    np.testing.assert_array_equal(y.grad, X)


def test_modes_are_seen():
    f = gj.compile(lambda x: x * 2)
    f(X)
    f(X)
    with gj.no_grad():
        f(X)
        assert f.trace_count == 2
        f(X)
    f(X)
    with gj.eager():
        assert not isinstance(f(gj.tensor(X, requires_grad=True))._value.op, type(None))
    f(X)
    assert f.trace_count == 2


def test_an_index_out_of_range_raises_and_changes_nothing():
    count = gj.tensor(np.zeros(1, np.float32))

    @gj.compile
    def pick(x, i):
        count.assign(count + 1)
        return gj.take(x, i, axis=0)

    good, bad = np.array([0, 1]), np.array([0, 2])
    for calls in (1, 2, 3):
        np.testing.assert_array_equal(pick(X, good), X[good])
        with pytest.raises(GraphjitError, match=r"out of range|out of bounds"):
            pick(X, bad)
        assert count.tolist() == [calls]


def test_a_state_as_argument_counts_as_it_is_on_entry():
    w = gj.tensor(np.ones(3, np.float32))

    @gj.compile
    def step(x):
        w.assign(w * 2)
        return w + x
    for now in (1.0, 2.0, 4.0):
        np.testing.assert_array_equal(step(w), np.full(3, 3 * now))
    assert native(step)


def test_what_was_saved_before_a_step_is_known_to_be_overwritten():
    w = nn.Parameter(np.ones(3))
    opt = optim.SGD([w], lr=0.1)

    @gj.compile
    def step(x):
        opt.zero_grad()
        loss = (w * x).sum()
        loss.backward()
        opt.step()
        return loss
    for _ in range(3):
        step(np.ones(3))
        saved = (w * w).sum()
        step(np.ones(3))
        with pytest.raises(GraphjitError):
            saved.backward()


def test_containers_and_cells_are_compared():
    scales, table = [1.0, 2.0], {"a": 3.0, "b": 4.0}
    queue, chosen, power = collections.deque([5.0]), {6.0}, 1.0

    @gj.compile
    def f(x):
        return x * scales[0] * sum(table.values()) * len(scales) + sum(queue) + sum(chosen) + power

    def check():
        for _ in range(2):
            np.testing.assert_allclose(f(X), f.function(gj.tensor(X)).data)
    changes = [lambda: scales.append(2.0), lambda: scales.__setitem__(0, 7.0), lambda: table.update(a=5.0),
               lambda: table.__setitem__("c", 1.5), lambda: table.pop("a"), lambda: queue.append(2.5),
               lambda: chosen.clear() or chosen.add(1.0),
               lambda: chosen.add(9.5), lambda: scales.clear() or scales.extend([1.0])]
    check()
    for change in changes:
        change()
        check()
    power = 2.0
    check()
    assert f.trace_count == len(changes) + 2


def test_names_that_go():
    space = {"gj": gj, "scale": 2.0}
    exec("def f(x):\n    try:\n        return x * scale\n    except NameError:\n        return x", space)
    f = gj.compile(space["f"])
    np.testing.assert_array_equal(f(X), X * 2)
    np.testing.assert_array_equal(f(X), X * 2)
    del space["scale"]
    np.testing.assert_array_equal(f(X), X)
    np.testing.assert_array_equal(f(X), X)


class Scaled:
    scale = 2.0

    def __call__(self, x):
        return x * self.scale


def test_attributes_of_classes():
    it = Scaled()
    f = gj.compile(lambda x: it(x))
    try:
        for scale in (2.0, 2.0, 3.0, 3.0, 2.0):
            Scaled.scale = scale
            np.testing.assert_array_equal(f(X), X * scale)
            assert sys.exc_info() == (None, None, None)
        it.scale = 5.0
        np.testing.assert_array_equal(f(X), X * 5)
        del it.scale
        np.testing.assert_array_equal(f(X), X * 2)
    finally:
        Scaled.scale = 2.0


def test_a_program_waits_for_its_lock():
    f = doubled()
    found = []
    with f.latest.program.lock:
        thread = threading.Thread(target=lambda: found.append(f(X)))
        thread.start()
        thread.join(0.05)
        assert not found
    thread.join()
    np.testing.assert_array_equal(found[0], X * 2 + 1)


def test_nothing_leaks():
    f = gj.compile(lambda x, a: (x * a, x.sum()))
    i = gj.compile(lambda x, i: gj.take(x, i, axis=0))
    y, bad = X.copy(), np.array([7])
    counted = (None, True, False, (), y, np.dtype("float32"), gj.Tensor, type(gj.tensor(1)._value))

    def calls():
        for _ in range(50):
            f(y, 2.0), f(y.T.copy().T, 3.0), f(gj.tensor(y), 4.0)
            i(y, np.array([1]))
            with pytest.raises(GraphjitError):
                i(y, bad)
            f(y, 2.0)
        gc.collect()
        return [sys.getrefcount(x) for x in counted]
    calls()
    before = calls()
    after = calls()
    assert [abs(b - a) < 25 for a, b in zip(before, after, strict=True)] == [True] * len(counted)


def test_errors_of_allocation_are_python_errors():
    """A plan of a result of more bytes than there can be: the call says so, and gives back what it took."""
    f = doubled()
    plan, alive = f.latest.program.native(True, None, None, np.zeros(0, np.int64))
    huge = np.array([1 << 60, 3], np.int64)
    words = plan.copy()
    words[SHAPE - ITEM] = huge.ctypes.data
    with pytest.raises((MemoryError, ValueError)):
        caller(words)(X)
    np.testing.assert_array_equal(caller(plan)(X), X * 2 + 1)
    assert alive


def test_threads_call_the_same_small_program():
    f = gj.compile(lambda x: (x * 2 + 1, x.T))
    g = gj.compile(lambda x: x * 2 + 1)
    f(X), g(X)
    wrong = []

    def work(i):
        x = X + i
        for n in range(300):
            a, b = f(x if n % 3 else x.T.copy().T)
            c = g(x if n % 5 else x.view(np.recarray))  # the long way
            if not ((a.data == x * 2 + 1).all() and (b.data == x.T).all() and (c.data == x * 2 + 1).all()):
                wrong.append(i)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong and f.trace_count == g.trace_count == 1
