"""Captured arrays, tensors, views and gradients change under a compiled function (see ``following``)."""

from __future__ import annotations

import numpy as np
import pytest
from following import X, agree, changes

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim

TABLE = gj.tensor([1.0, 2.0, 3.0, 4.0])


# ---- arrays and tensors

def test_captured_array_changed_in_place_and_rebound():
    a = np.arange(4, dtype=np.float32)
    f = gj.compile(lambda x: x * a)

    def in_place():
        a[1] = 50
    assert changes(f, in_place, X) == 1

    def rebind():
        nonlocal a
        a = np.full(4, 3, np.float32)
    assert changes(f, rebind, X) == 2
    changes(f, in_place, X)


@pytest.mark.parametrize("kind", ["transposed", "big-endian", "strided", "int", "read-only", "large"])
def test_captured_arrays_of_all_kinds(kind):
    base = np.arange(64, dtype=np.float32).reshape(8, 8)
    a = {"transposed": base.T, "big-endian": base.astype(">f4"), "strided": base[:, ::2], "int": base.astype(np.int32),
         "read-only": base[:], "large": np.zeros((200, 8), np.float32)}[kind]
    owner = a if kind not in ("read-only",) else base
    if kind == "read-only":
        a.flags.writeable = False
    f = gj.compile(lambda x: (x + a).sum(axis=1) + gj.tensor(a)[:, 0])

    def in_place():
        owner[0, 0] = 1000
    assert changes(f, in_place, np.float32(1)) == 1


def test_captured_tensor_assigned_rebound_and_replaced():
    t = gj.tensor([1.0, 2.0, 3.0, 4.0])
    f = gj.compile(lambda x: x * t)
    assert changes(f, lambda: t.assign([4.0, 3.0, 2.0, 1.0]), X) == 1

    def item():
        t[0] = 9.0
    assert changes(f, item, X) == 1

    def data():
        t.data = np.array([5, 6, 7, 8], np.float32)
    assert changes(f, data, X) == 1

    def through_data():
        t.data[2] = -7
    assert changes(f, through_data, X) == 1

    def rebind():
        nonlocal t
        t = t * 2
    changes(f, rebind, X)

    def other_dtype():
        t.data = np.array([5.5, 6, 7, 8], np.float64)
    changes(f, other_dtype, X)
    assert f(X).dtype == np.float64

    def other_shape():
        t.data = np.array([[2.0]], np.float32)
    changes(f, other_shape, X)

    def strided():
        t.data = np.arange(8, dtype=np.float32)[::2]
    changes(f, strided, X)


def test_global_tensor_rebound(monkeypatch):
    f = gj.compile(lambda x: x * TABLE)
    changes(f, lambda: monkeypatch.setitem(globals(), "TABLE", gj.tensor([9.0, 8.0, 7.0, 6.0])), X)


def test_parameter_replaced():
    model = nn.Linear(4, 4)
    f = gj.compile(lambda x: model(x))

    def data():
        model.weight.data = np.eye(4, dtype=np.float32)
    assert changes(f, data, X) == 1

    def parameter():
        model.weight = nn.Parameter(np.full((4, 4), 2, np.float32))
    changes(f, parameter, X)
    model.double()
    agree(f, X)
    assert f(X).dtype == np.float64
    changes(f, lambda: model.float().weight.assign(np.ones((4, 4))), X)


def test_requires_grad_toggled():
    w, v = nn.Parameter(np.ones(4)), nn.Parameter(np.ones(4))

    @gj.compile(keep_grads=True)
    def f(x):
        w.zero_grad()
        v.zero_grad()
        (w * x + v * x).sum().backward()
    f(np.ones(4))
    assert w.grad is not None
    assert v.grad is not None
    w.requires_grad = False
    f(np.ones(4))
    assert w.grad is None
    assert v.grad is not None
    w.requires_grad = True
    f(np.ones(4))
    assert w.grad is not None
    assert f.trace_count == 2


def test_frozen_layers_in_a_training_step():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    opt = optim.SGD(model.parameters(), lr=0.1)

    @gj.compile
    def step(x):
        opt.zero_grad()
        model(x).sum().backward()
        opt.step()
    step(X * X)
    model[0].requires_grad_(False)
    before = model[0].weight.numpy().copy(), model[1].weight.numpy().copy()
    step(X * X)
    assert (model[0].weight.numpy() == before[0]).all()
    assert (model[1].weight.numpy() != before[1]).any()


def test_seed_and_generator():
    f = gj.compile(lambda: gj.random.uniform((4,)))
    gj.manual_seed(5)
    a = f().numpy()
    gj.manual_seed(5)
    assert (f().numpy() == a).all()
    assert (f().numpy() != a).any()
    g = gj.Generator(1)
    h = gj.compile(lambda: gj.random.uniform((4,), generator=g))
    b = h().numpy()
    g.manual_seed(1)
    assert (h().numpy() == b).all()
    g = gj.Generator(2)
    assert (h().numpy() != b).any()
    assert h.trace_count == 2


# ---- views

def test_a_captured_view_keeps_what_it_showed():
    w = gj.tensor(np.arange(6.0).reshape(2, 3))
    row = w[0]
    f = gj.compile(lambda: row * 2)
    f()
    w.assign(w * 0 + 7)
    np.testing.assert_array_equal(f(), [0, 2, 4])
    np.testing.assert_array_equal(f(), row * 2)


def test_writing_a_captured_view_leaves_its_base_alone():
    w = gj.tensor(np.arange(6.0).reshape(2, 3))
    row = w[0]

    @gj.compile
    def f():
        row.assign(row + 100)
        return w.sum()
    assert float(f()) == 15
    assert float(f()) == 15
    np.testing.assert_array_equal(row, [200, 201, 202])
    np.testing.assert_array_equal(w, np.arange(6.0).reshape(2, 3))


def test_writing_a_tensor_leaves_captured_views_alone():
    w = gj.tensor(np.arange(6.0).reshape(2, 3))
    row, held = w[0], w.detach()

    @gj.compile
    def f():
        w.assign(w + 100)
        return row + 0, w.sum()
    for i in (1, 2):
        a, b = f()
        np.testing.assert_array_equal(a, [0, 1, 2])
        assert float(b) == 15 + 600 * i
    np.testing.assert_array_equal(held, np.arange(6.0).reshape(2, 3))
    later = w.detach()
    f()
    assert later.sum().item() == 15 + 1200


def test_a_tensor_over_the_callers_array_takes_a_copy_first():
    a = np.zeros(3)
    t = gj.Tensor(a)

    @gj.compile
    def f():
        t.assign(t + 1)
    f()
    f()
    np.testing.assert_array_equal(t, [2, 2, 2])
    np.testing.assert_array_equal(a, [0, 0, 0])


def test_a_computed_tensor_that_is_captured():
    w = gj.tensor([1.0, 2.0], requires_grad=True)
    h = w * 2
    f = gj.compile(lambda: h * 3)
    np.testing.assert_array_equal(f(), [6, 12])
    h[0] = 5.0
    np.testing.assert_array_equal(f(), [15, 12])
    b = gj.zeros(2)
    g = gj.compile(lambda: b + 1)
    np.testing.assert_array_equal(g(), [1, 1])
    b[0] = w[1]
    np.testing.assert_array_equal(g(), [3, 1])


# ---- gradients found on entry

def test_a_compiled_update_reads_gradients_left_eagerly():
    w = nn.Parameter(np.ones(4))
    opt = optim.SGD([w], lr=1.0)

    @gj.compile
    def update():
        opt.step()
    for i in range(1, 4):
        opt.zero_grad()
        (w * float(i)).sum().backward()
        before = w.data.copy()
        update()
        np.testing.assert_allclose(w.data, before - i)
    assert update.trace_count == 1
    opt.zero_grad()
    before = w.data.copy()
    update()
    np.testing.assert_array_equal(w.data, before)


def test_a_result_of_a_gradient_follows_it():
    w = nn.Parameter(np.ones(4))
    f = gj.compile(lambda: w.grad * 2)
    for i in (1.0, 2.0):
        w.zero_grad()
        (w * i).sum().backward()
        np.testing.assert_array_equal(f(), [2 * i] * 4)
    w.grad = np.arange(4.0)
    np.testing.assert_array_equal(f(), [0, 2, 4, 6])
    w.grad[1] = 10.0
    np.testing.assert_array_equal(f(), [0, 20, 4, 6])
    assert f.trace_count == 1


# ---- reports

def test_reasons_name_what_changed():
    k, model = 2.0, nn.Dropout(0.5)

    @gj.compile
    def f(x):
        return model(x) * k
    f(X)
    k = 3.0
    f(X)
    model.eval()
    f(X)
    f(X[:2])
    assert f.reasons[0] == "first call"
    assert "k" in f.reasons[1]
    assert f.reasons[2] == "model.training: was True, is False"
    assert f.reasons[3] == "x: axis 0 was 3"


def test_functional_names_are_not_watched():
    f = gj.compile(lambda x: F.relu(gj.exp(x)) + np.pi)
    f(X)
    assert not [name for name, _ in f.latest.capture.objects() if name not in ("F", "gj", "np")]
