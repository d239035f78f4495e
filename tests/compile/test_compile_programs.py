"""Signatures and programs: what traces, what compiles, what is kept, and the reasons given."""

from __future__ import annotations

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

import graphjit as gj
from graphjit import jit, nn, optim
from graphjit.jit import PROGRAMS
from graphjit.runtime.program import Program

X = np.ones((3, 4), np.float32)


def test_one_program_for_each_signature():
    f = gj.compile(lambda x, y: x + y)
    calls = [(X, X), (X, X[0]), (X.astype(float), X), (gj.tensor(X), X), (X, 1.0), (X, 2.0), (X, 1), (X, 1)]
    for _ in range(2):
        for a, b in calls:
            np.testing.assert_array_equal(f(a, b), np.asarray(a) + b)
    assert f.trace_count == 5


def test_reasons():
    @gj.compile
    def f(x, scale=1, *, mode="a", tree=None):
        return x * scale
    f(X)
    f(X[:2])
    f(X[:2].astype(np.float64))
    f(X[:2].astype(np.float64), 3)
    f(X[:2].astype(np.float64), 3, mode="b")
    f(X, tree={"w": X})
    f(X, tree={"w": X[:1]})
    f(X, 0.5)
    with gj.no_grad():
        f(X)
    f(gj.tensor(X, requires_grad=True))
    f(X[0])
    assert f.reasons == [
        "first call", "x: axis 0 was 3", "x: was float32[2, 4], is float64[2, 4]",
        "arguments are nested in another way",
        "arguments are nested in another way", "arguments are nested in another way", "tree['w']: axis 0 was 3",
        "x: was float64[2, 4], is float32[3, 4]; scale: was 3, is a float", "gradients are disabled now",
        "x: was float32[3, 4], is float32[3, 4] requiring a gradient", "x: was float32[2, 4], is float32[4]"]


def test_reasons_name_what_changed_outside():
    k, table, model, w = 2.0, [1.0, 2.0], nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), gj.tensor(np.ones(4))

    @gj.compile
    def f(x):
        return model(x) * k + table[0] + w
    changes = {
        "k: was 2.0, is 3.0": lambda: None,
        "table: its elements were changed": lambda: table.append(3.0),
        "model.1.p: was 0.5, is 0.25": lambda: setattr(model[1], "p", 0.25),
        "model.training: was True, is False": lambda: model.eval(),
        "model.0: was a Linear, is a Identity": lambda: model.__setitem__(0, nn.Identity()),
        "model.2: is new": lambda: model.append(nn.Identity()),
        "model.0.note: is new": lambda: setattr(model[0], "note", 1),
        "state0: was float64[4], is float32[4]": lambda: setattr(w, "data", np.ones(4, np.float32)),
        "w: another Tensor": lambda: None,
    }
    f(X)
    for reason, change in changes.items():
        change()
        if reason[0] == "k":
            k = 3.0
        if reason[0] == "w":
            w = w + 0
        f(X)
        assert reason in f.reasons[-1], f.reasons[-1]
    assert f.trace_count == len(changes) + 1


def test_reasons_of_static_arguments_name_values():
    @gj.compile
    def f(x, n, model):
        return model(x) * n
    a, b = nn.Linear(4, 2), nn.Linear(4, 2)
    f(X, 1, a)
    f(X, 2, a)
    f(X, 2, b)
    assert f.reasons[1] == "n: was 1, is 2"
    assert f.reasons[2] == "model: another Linear"
    g = gj.compile(lambda x, s: x)
    g(X, "a" * 1000)
    g(X, "b" * 1000)
    assert len(g.reasons[1]) < 200


def test_compile_count():
    f = gj.compile(lambda x: gj.exp(x) * 3 + gj.sin(x) * 17)
    g = gj.compile(lambda x: gj.exp(x) * 4 + gj.sin(x) * 19)
    f(X)
    g(X)
    assert g.compile_count == 0, "equal kernels are one kernel, whatever their constants"
    x = gj.tensor(X, requires_grad=True)
    f(x).sum().backward()
    assert f.compile_count >= 0


def test_the_number_of_programs_is_bounded():
    f = gj.compile(lambda x, n: x * n)
    for n in range(PROGRAMS + 10):
        f(X, n)
        f(X, 0)
    assert len(f._used) == PROGRAMS
    assert sum(map(len, f._programs.values())) == PROGRAMS
    traces = f.trace_count
    f(X, 0)
    f(X, PROGRAMS + 9)
    assert f.trace_count == traces
    f(X, 1)
    assert f.trace_count == traces + 1, "the least recently used went"
    np.testing.assert_array_equal(f(X, 1), X)


def living_programs():
    gc.collect()
    return sum(type(each) is Program for each in gc.get_objects())  # isinstance asks some objects for their class


def test_many_signatures_leak_nothing():
    w = nn.Parameter(np.ones(4, np.float32))

    @gj.compile
    def f(x):
        w.zero_grad()
        (w * x).sum().backward()
        return gj.exp(x * w)
    f(X)
    before = living_programs()
    for n in range(1, 100):
        f(np.ones((n, 4), np.float32))
    gc.collect()
    tracemalloc.start()
    for n in range(100, 150):
        f(np.ones((n, 4), np.float32))
    gc.collect()
    first, _ = tracemalloc.get_traced_memory()
    for n in range(150, 200):
        f(np.ones((n, 4), np.float32))
    gc.collect()
    second, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert living_programs() <= before + PROGRAMS
    assert second - first < 1_000_000
    assert len(f.reasons) <= 200


def test_calls_leak_nothing():
    f = gj.compile(lambda x: gj.exp(x))
    w = gj.tensor(X, requires_grad=True)
    for _ in range(50):
        f(X)
        f(w).sum().backward()
    gc.collect()
    tracemalloc.start()
    base, _ = tracemalloc.get_traced_memory()
    for _ in range(200):
        f(X)
        f(w).sum().backward()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size - base < 50_000


def test_nothing_is_kept_alive():
    t = gj.tensor(np.ones(1000))
    f = gj.compile(lambda x: x * t)
    f(np.ones(1000))
    kept, program = weakref.ref(t), weakref.ref(f.latest.program)
    del f
    t = None
    gc.collect()
    assert kept() is None
    assert program() is None
    model = nn.Linear(4, 4)
    g = gj.compile(lambda m, x: m(x))
    g(model, X)
    kept = weakref.ref(model)
    del model
    g.clear_cache()
    gc.collect()
    assert kept() is None


def test_large_arguments_and_results_are_let_go():
    f = gj.compile(lambda x: x * 2)
    x = np.ones(100_000)
    y = f(x)
    kept = weakref.ref(x), weakref.ref(y.data)
    del x, y
    gc.collect()
    f(np.ones(3))
    assert kept[0]() is None
    assert kept[1]() is None


def test_rebinding_in_a_loop_is_bounded():
    w = gj.tensor(np.ones(4))
    f = gj.compile(lambda x: x * w)
    for _ in range(PROGRAMS + 20):
        w = w + 1
        np.testing.assert_array_equal(f(X)[0], w.numpy())
    assert len(f._used) <= PROGRAMS


def test_functions_made_in_a_loop_share_kernels():
    counts = []
    for k in range(20):
        f = gj.compile(lambda x, k=k: gj.tanh(x) * (k + 0.1) + k)
        np.testing.assert_allclose(f(X), np.tanh(X) * (k + 0.1) + k, rtol=1e-5)
        counts.append(f.compile_count)
    assert sum(counts[4:]) == 0, "but for numbers like 1.0 and 2.0, which stand in the source"


def test_many_compiled_functions_of_one_parameter():
    w = nn.Parameter(np.ones(4))
    for _ in range(30):
        opt = optim.SGD([w], lr=0.1)

        @gj.compile
        def step(x, opt=opt):
            opt.zero_grad()
            (w * x).sum().backward()
            opt.step()
        step(np.ones(4))
    np.testing.assert_allclose(w.data, np.ones(4) - 3, rtol=1e-12)


def test_the_graph_prints():
    f = gj.compile(lambda x: (gj.exp(x) + 1).sum(axis=0))
    f(X)
    text = str(f.graph)
    assert "exp" in text
    assert "test_compile_programs.py" in text
    assert f.graph.to_dot().startswith("digraph")


@pytest.mark.parametrize("shape", [(), (1,), (5,), (0,), (2, 0, 3)])
def test_odd_shapes_share_a_function(shape):
    f = gj.compile(lambda x: (x * 2, x.sum()))
    a, b = f(np.ones(shape))
    np.testing.assert_array_equal(a, np.full(shape, 2.0))
    assert float(b) == np.ones(shape).sum()


def test_a_shortcut_is_made_once(monkeypatch):
    made = []
    real = jit.shortcut
    monkeypatch.setattr(jit, "shortcut", lambda *found: made.append(found) or real(*found))
    model = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5))
    f = gj.compile(lambda x: model(x))
    with gj.no_grad():
        for _ in range(5):
            f(X)
            model[1].p = 0.5  # set anew, to what it was
            f(X)
            model.train(not model.training)
    assert f.trace_count == len(made) == 2


def test_a_column_of_labels_is_no_axis_to_loop_over():
    w = gj.tensor(np.linspace(-1, 1, 4).reshape(4, 1), requires_grad=True)

    def loss(x, y):
        return (gj.relu(1 - y * (x @ w).reshape(y.shape)) ** 2).mean()
    column, flat = gj.compile(gj.value_and_grad(loss)), gj.compile(gj.value_and_grad(loss))
    rng = np.random.default_rng(0)
    for n in (20, 7, 1):
        x, y = rng.standard_normal((n, 4)), np.sign(rng.standard_normal((n, 1)))
        value, grad = column(x, y)
        for got, right in zip((value, grad), flat(x, y[:, 0]), strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-12)
        assert len(column.latest.program.kernels) == len(flat.latest.program.kernels)
        assert column.latest.kernels.compiled == 0 or n == 20


@pytest.mark.parametrize("shapes", [[(3, 1), (3, 4), (1, 4), (3, 1, 1), (1, 1), (1, 1, 1)]])
def test_axes_of_one_and_of_more(shapes):
    f = gj.compile(lambda x: ((x * 2).sum(axis=-1, keepdims=True) + x, x.mean(axis=0), x.T * x.shape[-1]))
    for shape in shapes * 2:
        x = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
        for got, right in zip(f(x), ((x * 2).sum(-1, keepdims=True) + x, x.mean(0), x.T * shape[-1]), strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-12)
