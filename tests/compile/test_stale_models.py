"""Modules and optimizers change under a compiled function (see ``following``)."""

from __future__ import annotations

import types

import numpy as np
import pytest
from following import X, agree, changes

import graphjit as gj
from graphjit import nn, optim

SCALE = 2.0


# ---- modules

def test_eval_and_train():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    f = gj.compile(lambda x: model(x))
    f(X)
    model.eval()
    agree(f, X)
    traces = f.trace_count
    assert traces == 2
    model.train()
    a, b = f(X).numpy(), f(X).numpy()
    assert (a != b).any(), "masks are drawn again"
    model.eval()
    agree(f, X)
    assert f.trace_count == traces, "both programs are still there"


@pytest.mark.parametrize("where", ["top", "deep"])
def test_mode_of_one_layer(where):
    inner = nn.Dropout(0.5)
    model = inner if where == "top" else nn.Sequential(nn.Sequential(nn.Identity(), inner))
    f = gj.compile(lambda x: model(x))
    assert (f(X).numpy() == 0).any()
    inner.eval()
    assert (f(X).numpy() == X).all()


def test_dropout_rate():
    model = nn.Sequential(nn.Dropout(0.5))
    f = gj.compile(lambda x: model(x))
    x = np.ones((100, 4), np.float32)
    assert set(np.unique(f(x))) == {0.0, 2.0}
    model[0].p = 0.75
    assert set(np.unique(f(x))) == {0.0, 4.0}
    model[0].p = 0.0
    assert set(np.unique(f(x))) == {1.0}
    assert f.trace_count == 3


def test_swapped_layer():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    f = gj.compile(lambda x: model(x))

    def swap():
        model[1] = nn.Tanh()
    changes(f, swap, X)

    def other_weights():
        model[2] = nn.Linear(4, 2)
    changes(f, other_weights, X)


def test_layer_added_and_removed():
    model = nn.Sequential(nn.Linear(4, 4))
    f = gj.compile(lambda x: model(x))
    changes(f, lambda: model.append(nn.Tanh()), X)

    def remove():
        del model[1]
    changes(f, remove, X)


def test_batch_norm_momentum_and_eps():
    model = nn.BatchNorm1d(4).eval()
    f = gj.compile(lambda x: model(x))

    def set_eps():
        model.eps = 1.0
    changes(f, set_eps, X)


class Scaled(nn.Module):
    factor = 1.0

    def __init__(self):
        super().__init__()
        self.own = 3.0
        self.options = {"shift": 1.0}
        self.steps = [1.0, 2.0]
        self.settings = types.SimpleNamespace(power=1.0)

    def forward(self, x):
        return (x * self.own * self.factor * SCALE + self.options["shift"] + self.steps[0]
                + self.settings.power)


@pytest.mark.parametrize("name", ["own", "options", "steps", "settings", "class", "global"])
def test_what_a_users_module_reads(name, monkeypatch):
    model = nn.Sequential(Scaled())
    f = gj.compile(lambda x: model(x))

    def change():
        match name:
            case "own":
                model[0].own = 5.0
            case "options":
                model[0].options["shift"] = 7.0
            case "steps":
                model[0].steps[0] = 9.0
            case "settings":
                model[0].settings.power = 2.0
            case "class":
                monkeypatch.setattr(Scaled, "factor", 4.0)
            case "global":
                monkeypatch.setitem(globals(), "SCALE", 4.0)
    changes(f, change, X)


# ---- optimizers

def training_step(opt, w):
    def step(x):
        opt.zero_grad()
        loss = (w * x).sum()
        loss.backward()
        opt.step()
        return loss
    return step


def weights():
    return nn.Parameter(np.linspace(1, 2, 4))


def twins(make):
    """The same training eagerly and compiled."""
    wa, wb = weights(), weights()
    a, b = make([wa]), make([wb])
    return a, b, wa, wb, training_step(a, wa), gj.compile(training_step(b, wb))


@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, lr=0.1), lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
                                  lambda p: optim.Adam(p, lr=0.1)], ids=["sgd", "momentum", "adam"])
@pytest.mark.parametrize("write", [
    lambda opt: setattr(opt, "lr", 0.5),
    lambda opt: opt.param_groups[0].__setitem__("lr", 0.25),
    lambda opt: opt.param_groups[0].__setitem__("weight_decay", 0.3),
], ids=["opt.lr", "group lr", "weight_decay"])
def test_hyperparameters_without_a_retrace(make, write):
    a, b, wa, wb, eager, compiled = twins(make)
    x = np.arange(4.0)
    for i in range(4):
        if i == 2:
            write(a)
            write(b)
        np.testing.assert_allclose(compiled(x), eager(x), rtol=1e-12)
        np.testing.assert_allclose(wb.data, wa.data, rtol=1e-12)
    assert compiled.trace_count == 1


def test_betas_and_eps_without_a_retrace():
    a, b, wa, wb, eager, compiled = twins(lambda p: optim.Adam(p, lr=0.1))
    x = np.arange(4.0)
    for i in range(4):
        if i == 2:
            for opt in (a, b):
                opt.param_groups[0]["betas"] = (0.5, 0.6)
                opt.param_groups[0]["eps"] = 0.1
        eager(x)
        compiled(x)
    np.testing.assert_allclose(wb.data, wa.data, rtol=1e-12)
    assert compiled.trace_count == 1


def test_a_schedule_inside_the_step():
    w, lr = weights(), gj.tensor(np.array(1.0))
    opt = optim.SGD([w], lr=1.0)

    @gj.compile
    def step(x):
        opt.zero_grad()
        (w * x).sum().backward()
        opt.param_groups[0]["lr"] = lr
        opt.step()
        lr.assign(lr * 0.5)
    x, start = np.ones(4), w.data.copy()
    for _ in range(3):
        step(x)
    np.testing.assert_allclose(w.data, start - (1 + 0.5 + 0.25))
    assert step.trace_count == 1


def test_momentum_switched_on_traces_again():
    a, b, wa, wb, eager, compiled = twins(lambda p: optim.SGD(p, lr=0.1))
    for i in range(4):
        if i == 2:
            a.momentum = b.momentum = 0.9
        eager(X[0].astype(float))
        compiled(X[0].astype(float))
    np.testing.assert_allclose(wb.data, wa.data, rtol=1e-12)


def test_a_parameter_group_added():
    def run(wrap):
        w, v = weights(), weights()
        opt = optim.SGD([w], lr=0.1)

        def step(x):
            opt.zero_grad()
            (w * x + v * x).sum().backward()
            opt.step()
        step = wrap(step)
        step(np.arange(4.0))
        opt.add_param_group({"params": [v], "lr": 0.5})
        step(np.arange(4.0))
        return w.data, v.data
    np.testing.assert_allclose(run(gj.compile), run(lambda f: f))


def test_a_new_optimizer_under_the_same_name():
    w = weights()
    opt = optim.SGD([w], lr=0.1)

    @gj.compile
    def step(x):
        opt.zero_grad()
        (w * x).sum().backward()
        opt.step()
    start = w.data.copy()
    step(np.ones(4))
    np.testing.assert_allclose(w.data, start - 0.1)
    opt = optim.SGD([w], lr=1.0)
    step(np.ones(4))
    np.testing.assert_allclose(w.data, start - 1.1)


def test_loaded_weights_and_optimizer_state_without_a_retrace():
    def make():
        gj.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        opt = optim.Adam(model.parameters(), lr=0.1)

        def step(x):
            opt.zero_grad()
            loss = (model(x) ** 2).sum()
            loss.backward()
            opt.step()
            return loss
        return model, opt, step
    model_a, opt_a, eager = make()
    model_b, opt_b, step = make()
    compiled = gj.compile(step)
    x = X * X
    for f in (eager, compiled):
        f(x)
        f(x)
    kept = [(m.state_dict(), o.state_dict()) for m, o in ((model_a, opt_a), (model_b, opt_b))]
    values = [{k: v.numpy().copy() for k, v in s.items()} for s, _ in kept]
    losses = [[float(f(x)) for _ in range(3)] for f in (eager, compiled)]
    for (m, o), (weights_, state) in zip(((model_a, opt_a), (model_b, opt_b)), kept, strict=True):
        m.load_state_dict(weights_)
        o.load_state_dict(state)
    for (s, _), before in zip(kept, values, strict=True):
        for name, t in s.items():
            np.testing.assert_array_equal(t, before[name], err_msg=f"{name}: kept while training went on")
    again = [[float(f(x)) for _ in range(3)] for f in (eager, compiled)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    assert again[0] == losses[0]
    assert again[1] == losses[1]
    assert compiled.trace_count == 1
