"""RMSprop, Adagrad and L-BFGS: state, groups, what they refuse."""

import copy

import numpy as np
import pytest

import graphjit as gj
from graphjit import nn, optim
from graphjit.errors import ArgumentError, TraceError

START = np.array([1.0, -2.0, 3.0])
MAKERS = {
    "rmsprop": lambda ps: optim.RMSprop(ps, lr=0.05, momentum=0.9, centered=True),
    "plain rmsprop": lambda ps: optim.RMSprop(ps, lr=0.05), "adagrad": lambda ps: optim.Adagrad(ps, lr=0.5),
    "adagrad with decay": lambda ps: optim.Adagrad(ps, lr=0.5, lr_decay=0.1, initial_accumulator_value=0.2),
}


def trained(make, mode, steps, dtype="float64"):
    p = nn.Parameter(START.astype(dtype))
    opt = make([p])

    @mode
    def step():
        opt.zero_grad()
        (p * p).sum().backward()
        opt.step()
    for _ in range(steps):
        step()
    return p, opt, step


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_saved_state_continues_as_if_nothing_had_happened(make, mode):
    p, opt, step = trained(make, mode, 3)
    saved, values = copy.deepcopy(opt.state_dict()), p.data.copy()
    assert saved["state"][0]["step"].item() == 3
    step()
    q, other, again = trained(make, mode, 2)
    q.assign(values)
    other.load_state_dict(saved)
    again()
    np.testing.assert_array_equal(q.data, p.data)
    assert getattr(again, "trace_count", 1) == 1


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_state_has_the_dtype_of_its_parameter(make, mode):
    p, opt, _ = trained(make, mode, 2, "float32")
    assert p.dtype == np.float32
    assert all(t.dtype == np.float32 for name, t in opt.state[p].items() if name != "step")


def test_numbers_are_state(mode):
    p, opt, step = trained(MAKERS["rmsprop"], mode, 1)
    opt.param_groups[0].update(alpha=0.5, eps=1e-3, weight_decay=0.1)
    opt.lr = 0.0
    before = p.data.copy()
    step()
    np.testing.assert_array_equal(p.data, before)
    assert opt.alpha == 0.5 and getattr(step, "trace_count", 1) == 1
    opt.centered = False
    step()
    assert getattr(step, "trace_count", 2) == 2


def test_parameters_without_a_gradient_are_passed_over(mode):
    a, b = nn.Parameter(START), nn.Parameter(START)
    opt = optim.Adagrad([a, b], lr=0.1, lr_decay=1.0)

    def step(*used):
        opt.zero_grad()
        sum((p * p).sum() for p in used).backward()
        opt.step()
    both, one = mode(lambda: step(a, b)), mode(lambda: step(a))
    for run in (both, one, both):
        run()
    assert [opt.state[p]["step"].item() for p in (a, b)] == [3, 2]
    alone, _, _ = trained(lambda ps: optim.Adagrad(ps, lr=0.1, lr_decay=1.0), lambda f: f, 2)
    np.testing.assert_allclose(b.data, alone.data, rtol=1e-12)


def test_groups_have_their_own_numbers():
    a, b = nn.Parameter(START), nn.Parameter(START)
    for kind in (optim.RMSprop, optim.Adagrad):
        opt = kind([{"params": [a]}, {"params": [b], "lr": 0.0}], lr=0.1)
        opt.zero_grad()
        (a + b).sum().backward()
        opt.step()
        np.testing.assert_array_equal(b.data, START)
        assert (a.data != START).all() and set(opt.param_groups[0]) == {"params", *opt.defaults}


def test_what_they_refuse():
    p = nn.Parameter(START)
    for wrong in (lambda: optim.RMSprop([p], alpha=-1.0), lambda: optim.Adagrad([p], lr_decay=-1.0),
                  lambda: optim.Adagrad([p], initial_accumulator_value=-1.0), lambda: optim.RMSprop([p], betas=1),
                  lambda: optim.LBFGS([p], line_search_fn="armijo"), lambda: optim.LBFGS([p], max_iter=-1),
                  lambda: optim.LBFGS([{"params": [p]}, {"params": [nn.Parameter(START)]}]),
                  lambda: optim.LBFGS([p]).step(), lambda: optim.LBFGS([p]).step(lambda: None)):
        with pytest.raises((ArgumentError, TypeError)):
            wrong()


# ---- L-BFGS

def valley(opt, p, loss):
    def closure():
        opt.zero_grad()
        found = loss(p)
        found.backward()
        return found
    return closure


def rosenbrock(p):
    return 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2


@pytest.mark.parametrize("wrap", [lambda f: f, gj.compile], ids=["eager", "compiled loss"])
def test_lbfgs_finds_the_end_of_the_valley(wrap):
    p = nn.Parameter(np.array([-1.2, 1.0]))
    opt = optim.LBFGS([p], line_search_fn="strong_wolfe")
    closure = valley(opt, p, wrap(rosenbrock))
    first = opt.step(closure).item()
    opt.step(closure)
    opt.step(closure)
    assert first == pytest.approx(24.2)
    np.testing.assert_allclose(p.data, [1, 1], atol=1e-4)  # where its tolerance for the loss stops it


def test_lbfgs_over_several_parameters_and_one_without_a_gradient():
    a, b, c = nn.Parameter(np.ones((2, 2))), nn.Parameter(np.ones(3)), nn.Parameter(np.ones(1))
    opt = optim.LBFGS([a, b, c], line_search_fn="strong_wolfe")
    opt.step(valley(opt, (a, b), lambda ps: ((ps[0] - 2) ** 2).sum() + ((ps[1] + 1) ** 2 * 3).sum()))
    np.testing.assert_allclose(a.data, np.full((2, 2), 2.0), atol=1e-7)
    np.testing.assert_allclose(b.data, np.full(3, -1.0), atol=1e-7)
    assert c.tolist() == [1.0]


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_continues_from_saved_state(search):
    def make(start):
        p = nn.Parameter(start)
        opt = optim.LBFGS([p], lr=0.1 if search is None else 1, max_iter=4, line_search_fn=search, history_size=3)
        return p, opt, valley(opt, p, lambda p: (p ** 4).sum() + (p * p).sum())
    p, opt, closure = make(START)
    for _ in range(2):
        opt.step(closure)
    saved, values = copy.deepcopy(opt.state_dict()), p.data.copy()
    q, other, again = make(values)
    other.load_state_dict(saved)
    opt.step(closure)
    other.step(again)
    np.testing.assert_array_equal(q.data, p.data)
    assert saved["state"][0]["n_iter"].item() == 8 and saved["state"][0]["old_dirs"].shape == (3, 3)
    with pytest.raises(ArgumentError, match="does not fit LBFGS"):
        make(np.ones(2))[1].load_state_dict(saved)


def test_lbfgs_stops_where_nothing_is_left_to_do():
    p = nn.Parameter(np.zeros(2))
    opt = optim.LBFGS([p])
    assert opt.step(valley(opt, p, lambda p: (p * p).sum())).item() == 0 and p.tolist() == [0.0, 0.0]
    assert optim.LBFGS([p]).state_dict()["state"] == {}


def test_lbfgs_runs_eagerly_only():
    p = nn.Parameter(START)
    opt = optim.LBFGS([p])
    step = gj.compile(lambda: opt.step(valley(opt, p, lambda p: (p * p).sum())))
    with pytest.raises(TraceError, match="decides by the values"):
        step()
    with gj.eager():
        step()
    np.testing.assert_allclose(p.data, 0, atol=1e-6)
