"""Closures, globals, helpers and objects change under a compiled function (see ``following``)."""

from __future__ import annotations

import sys
import types
from collections import deque
from functools import partial

import numpy as np
import pytest
from following import X, agree, changes

import graphjit as gj
from graphjit import nn

SCALE = 2.0


def test_closure_scalar():
    k = 2.0

    @gj.compile
    def f(x):
        return x * k

    def change():
        nonlocal k
        k = 3.0
    assert changes(f, change, X) == 2
    k = 2.0
    agree(f, X)
    assert f.trace_count == 2, "the first program serves again"


@pytest.mark.parametrize("before, after", [(1, 2), (True, False), ("a", "b"), (1, 1.5), (0.0, -0.0), (None, 1.0),
                                           (np.float32(1), np.float32(2)), ((1, 2), (1, 3))])
def test_kinds_of_closure_constants(before, after):
    k = before

    @gj.compile
    def f(x):
        if isinstance(k, str):
            return x + len(k) * ord(k)
        if isinstance(k, tuple):
            return x * k[1]
        if k is None:
            return -x
        return gj.atan2(x * 0 + float(k), -1.0) if type(k) is float and k == 0 else x * float(k)
    first = np.asarray(f(X))
    k = after
    second = np.asarray(f(X))
    np.testing.assert_array_equal(second, f.function(X))
    assert (first != second).any()
    k = type(after)(after) if after is not None else None
    f(X)
    assert f.trace_count == 2


def test_global_scalar(monkeypatch):
    @gj.compile
    def f(x):
        return x * SCALE
    changes(f, lambda: monkeypatch.setitem(globals(), "SCALE", 5.0), X)


def helper(x):
    return deeper(x) + 1


def deeper(x):
    return x * SCALE


def test_globals_of_helper_functions(monkeypatch):
    f = gj.compile(lambda x: helper(x))
    changes(f, lambda: monkeypatch.setitem(globals(), "SCALE", 6.0), X)


def test_a_helper_function_replaced(monkeypatch):
    f = gj.compile(lambda x: helper(x))
    changes(f, lambda: monkeypatch.setitem(globals(), "deeper", lambda x: x - 1), X)


def test_closures_of_helper_functions():
    k = 2.0

    def inner(x):
        return x * k

    def outer(x):
        return inner(x)
    f = gj.compile(lambda x: outer(x))

    def change():
        nonlocal k
        k = 3.0
    changes(f, change, X)


def test_a_module_read_by_attribute(monkeypatch):
    config = types.ModuleType("config_of_test")
    config.__file__ = __file__
    exec("alpha = 2.0\ndef act(x):\n    return x * alpha\n", vars(config))
    monkeypatch.setitem(sys.modules, "config_of_test", config)
    f = gj.compile(lambda x: x * config.alpha)
    changes(f, lambda: setattr(config, "alpha", 3.0), X)
    g = gj.compile(lambda x: config.act(x))
    changes(g, lambda: setattr(config, "alpha", 4.0), X)

    @gj.compile
    def h(x):
        from config_of_test import alpha
        return x * alpha
    changes(h, lambda: setattr(config, "alpha", 5.0), X)


@pytest.mark.parametrize("wrap", [
    lambda f: partial(f, s=1.0), lambda f: gj.grad(f), lambda f: gj.grad(gj.grad(f)), lambda f: gj.compile(f),
    lambda f: lambda x: gj.value_and_grad(f)(x)[1], lambda f: (lambda x: gj.vjp(f, x)[0]),
], ids=["partial", "grad", "grad of grad", "compiled", "value_and_grad", "vjp"])
def test_constants_under_wrappers(wrap):
    k = 2.0

    def cube(x, s=0.0):
        return (x * x * x).sum() * k + s
    inner = wrap(cube)
    if isinstance(inner, partial):
        inner = wrap(cube)
    x = gj.tensor(1.5)
    f = gj.compile(inner)
    g = gj.compile(lambda x: inner(x))
    for each in (f, g):
        k = 2.0
        before = float(each(x))
        k = 3.0
        assert float(each(x)) == pytest.approx(before / 2 * 3 if not isinstance(inner, partial)
                                               else (before - 1) / 2 * 3 + 1)


def test_a_custom_vjp():
    k = 2.0

    @gj.custom_vjp
    def f(x):
        return x * 1
    f.defvjp(lambda x: (x * 1, None), lambda _, g: (g * k,))
    df = gj.compile(gj.grad(lambda x: f(x).sum()))
    assert df(X).numpy()[0, 0] == 2
    k = 5.0
    assert df(X).numpy()[0, 0] == 5


def test_containers_changed_in_place():
    for held, change in [
        ([1.0, 2.0], lambda c: c.__setitem__(0, 3.0)),
        ([1.0], lambda c: c.append(2.0)),
        ({"a": 1.0}, lambda c: c.update(a=2.0)),
        ({"a": 1.0}, lambda c: c.update(b=2.0)),
        ({"a": [1.0]}, lambda c: c["a"].append(4.0)),
        (deque([1.0]), lambda c: c.append(2.0)),
        ((1.0, [2.0]), lambda c: c[1].append(5.0)),
    ]:
        def total(c):
            return sum(total(v) if isinstance(v, (list, tuple)) else v
                       for v in (c.values() if isinstance(c, dict) else c))

        def f(x, held=held, total=total):
            return x * total(held)
        f = gj.compile(f)
        changes(f, partial(change, held), X)


def test_large_list_of_numbers():
    data = [float(i) for i in range(5000)]
    f = gj.compile(lambda x: x * data[10])

    def change():
        data[10] = 99.0
    changes(f, change, X)


class Config:
    alpha = 1.0
    beta = 2.0


def test_attributes_of_plain_objects():
    config, space = Config(), types.SimpleNamespace(gamma=3.0)
    held = {"config": config}
    f = gj.compile(lambda x: x * config.alpha + space.gamma + held["config"].beta)

    def own():
        config.alpha = 4.0
    changes(f, own, X)

    def later():
        space.gamma = 5.0
    changes(f, later, X)

    def through_a_dict():
        config.beta = 7.0
    changes(f, through_a_dict, X)


def test_attributes_of_classes(monkeypatch):
    f = gj.compile(lambda x: x * Config.alpha)
    changes(f, lambda: monkeypatch.setattr(Config, "alpha", 3.0), X)


class Trainer:
    power = 2

    def __init__(self):
        self.w = gj.tensor([1.0, 2.0, 3.0, 4.0])
        self.scale = 2.0
        self.calls = 0
        self.model = nn.Sequential(nn.Tanh())

    @property
    def doubled(self):
        return self.scale * 2

    def helper(self, x):
        return self.model(x) * self.doubled

    @gj.compile
    def step(self, x):
        return self.helper(x) * self.w ** self.power


@pytest.mark.parametrize("name, value", [("scale", 3.0), ("power", 3), ("w", gj.tensor([4.0, 3.0, 2.0, 1.0])),
                                         ("model", nn.Sequential(nn.ReLU()))])
def test_methods_see_changed_attributes_of_self(name, value):
    t = Trainer()

    def same():
        np.testing.assert_allclose(t.step(X), Trainer.step.function(t, X), rtol=1e-6)
        return t.step(X).numpy()
    before = same()
    setattr(t, name, value)
    assert (same() != before).any()
    traces = Trainer.step.trace_count
    t.calls += 1  # not used by the method
    same()
    assert Trainer.step.trace_count == traces


def test_compiled_bound_method_and_callable_object():
    t = Trainer()
    f = gj.compile(t.helper)
    before = f(X).numpy()
    t.scale = 5.0
    np.testing.assert_allclose(f(X), t.helper(X), rtol=1e-6)
    assert (f(X).numpy() != before).any()

    class Affine:
        def __init__(self):
            self.k = 2.0

        def __call__(self, x):
            return x * self.k
    it = Affine()
    g = gj.compile(it)
    assert g(X).numpy()[0, 0] == -2
    it.k = 3.0
    assert g(X).numpy()[0, 0] == -3
    h = gj.compile(lambda x: it(x))
    h(X)
    it.k = 4.0
    assert h(X).numpy()[0, 0] == -4


def test_compiled_module():
    model = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5))
    f = gj.compile(model)
    f(X)
    model.eval()
    agree(f, X)
    assert "Sequential" in repr(f)


def test_functions_and_objects_as_arguments():
    k = 2.0

    def act(x):
        return x * k
    f = gj.compile(lambda x, g: g(x))
    assert f(X, act).numpy()[0, 0] == -2
    k = 3.0
    assert f(X, act).numpy()[0, 0] == -3
    assert f(X, gj.exp).numpy()[0, 0] == pytest.approx(np.exp(-1))
    c = Config()
    g = gj.compile(lambda x, c: x * c.alpha)
    assert g(X, c).numpy()[0, 0] == -1
    c.alpha = 6.0
    assert g(X, c).numpy()[0, 0] == -6
    model = nn.Dropout(0.5)
    h = gj.compile(lambda m, x: m(x))
    h(model, X)
    model.eval()
    assert (h(model, X).numpy() == X).all()


def test_side_effects_happen_once():
    calls, count = [], 0

    @gj.compile
    def f(x):
        nonlocal count
        calls.append(x.shape)
        count += 1
        return x * 2
    for _ in range(3):
        f(X)
    assert len(calls) == count == f.trace_count == 1
    t = Trainer()

    @gj.compile
    def g(x):
        t.calls += 1
        return x * t.calls
    g(X)
    g(X)
    assert t.calls == g.trace_count == 1
    t.calls = 5
    assert g(X).numpy()[0, 0] == -6


def test_a_name_rebound_to_a_traced_tensor():
    w = gj.tensor([1.0, 2.0, 3.0, 4.0])

    @gj.compile
    def f(x):
        nonlocal w
        w = w - x.sum(axis=0)
        return w
    f(X)
    with pytest.raises(gj.LeakedTensorError, match="assign"):
        f(X)
    w = gj.tensor([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(f(X), [1, 2, 3, 4] - X.sum(axis=0), rtol=1e-6)


def test_names_that_do_not_matter_trace_nothing():
    unused, log = 1.0, []

    @gj.compile
    def f(x):
        return x.sum() * 2

    for _ in range(3):
        unused += 1
        log.append(f(X))
        globals()["sum"] = len(log)  # a global that has the name of an attribute
    del globals()["sum"]
    assert f.trace_count == 1
