"""Optimizers against their formulas and PyTorch's habits, eager and compiled."""

import copy
import pickle

import numpy as np
import pytest

import graphjit as gj
from graphjit import nn, optim
from graphjit.errors import ArgumentError, TraceError
from graphjit.tape import clock

START = np.array([1.0, -2.0, 3.0])


def quadratic(make, mode, steps=5, dtype="float64"):
    """A few steps on (p * p).sum(); gives the parameter, the optimizer and the step."""
    p = nn.Parameter(START.astype(dtype))
    opt = make([p])

    @mode
    def step():
        opt.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        opt.step()
        return loss
    for _ in range(steps):
        step()
    return p, opt, step


def test_sgd_with_momentum(mode):
    p, _, _ = quadratic(lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9), mode)
    q, buf = START.copy(), 0
    for _ in range(5):
        buf = 0.9 * buf + 2 * q
        q = q - 0.1 * buf
    np.testing.assert_allclose(p.data, q, rtol=1e-13)


def test_adam(mode):
    p, opt, _ = quadratic(lambda ps: optim.Adam(ps, lr=0.1), mode)
    q, m, v = START.copy(), 0, 0
    for t in range(1, 6):
        g = 2 * q
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        q = q - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(p.data, q, rtol=1e-12)
    assert opt.state[p]["step"].item() == 5 and opt.state[p]["exp_avg"].dtype == np.float64


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_state_has_the_dtype_of_its_parameter(name, dtype, mode):
    options = {"momentum": 0.9} if name == "SGD" else {"amsgrad": True}
    p, opt, _ = quadratic(lambda ps: getattr(optim, name)(ps, lr=0.1, **options), mode, dtype=dtype)
    assert p.dtype == dtype
    assert all(t.dtype == dtype for key, t in opt.state[p].items() if key != "step")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [
    lambda ps: optim.SGD(ps, lr=0.1, momentum=0.5), lambda ps: optim.Adam(ps, betas=(0.5, 0.5)),
    lambda ps: optim.AdamW(ps, betas=(0.5, 0.5), amsgrad=True),
    lambda ps: optim.RMSprop(ps, alpha=0.5, momentum=0.5, centered=True)],
    ids=["SGD", "Adam", "AdamW", "RMSprop"])
def test_state_that_fades_becomes_zero_and_not_denormal(make, dtype, mode):
    """Denormal numbers would stay, as they round to themselves, and each step with them is slow."""
    p = nn.Parameter(np.ones(3, dtype))
    opt = make([p])
    smallest = np.finfo(dtype).smallest_normal

    @mode
    def step(factor):
        opt.zero_grad()
        (p * factor).sum().backward()
        opt.step()
    step(np.ones(3, dtype))
    fading = [t for name, t in opt.state[p].items() if name not in ("step", "max_exp_avg_sq")]
    assert fading and all((t.data > 0).all() for t in fading)
    for t in fading:
        t.assign(np.array([1.5, 4, np.nan], dtype) * smallest)
    step(np.zeros(3, dtype))
    for t in fading:
        np.testing.assert_array_equal(t.data[:2] > 0, [False, True], t.label)
        np.testing.assert_array_equal(t.data[:2] >= smallest, [False, True], t.label)
        assert np.isnan(t.data[2])


def test_the_learning_rate_is_state(mode):
    _, opt, step = quadratic(lambda ps: optim.Adam(ps, lr=0.1, weight_decay=0), mode, 1)
    tick = clock.structure
    p = opt.param_groups[0]["params"][0]
    before = p.data.copy()
    opt.lr = 0.0
    step()
    np.testing.assert_array_equal(p.data, before)
    opt.param_groups[0]["lr"] = 0.1
    opt.param_groups[0]["weight_decay"] = 10.0
    opt.param_groups[0]["betas"] = (0.5, 0.9)
    step()
    assert (p.data != before).all() and opt.lr == 0.1 and opt.betas == (0.5, 0.9)
    assert clock.structure == tick
    assert getattr(step, "trace_count", 1) == 1


def test_switching_momentum_on_is_seen(mode):
    p, opt, step = quadratic(lambda ps: optim.SGD(ps, lr=0.1), mode, 1)
    opt.momentum = 0.9
    q, buf = START - 0.2 * START, 0
    for _ in range(2):
        step()
        buf = 0.9 * buf + 2 * q
        q = q - 0.1 * buf
    np.testing.assert_allclose(p.data, q, rtol=1e-13)


def test_a_zero_weight_decay_changes_nothing_whatever_the_parameter_holds(mode):
    p = nn.Parameter(np.array([np.inf, 1.0]))
    opt = optim.SGD([p], lr=1.0)

    @mode
    def step():
        opt.zero_grad()
        (p * np.array([0.0, 1.0]))[1].backward()
        opt.step()
    step()
    assert p.tolist() == [np.inf, 0.0]


def test_schedules_run_inside_a_compiled_step():
    p = nn.Parameter(np.ones(2, np.float32))
    opt = optim.SGD([p], lr=1.0)

    @gj.compile
    def step():
        opt.zero_grad()
        p.sum().backward()
        opt.step()
        opt.lr = opt.lr * 0.5

    for _ in range(3):
        step()
    assert opt.lr == 0.125 and p.tolist() == [1 - 1.75] * 2 and step.trace_count == 1

    @gj.compile
    def penalty(x):
        return x * opt.lr
    assert penalty(gj.ones(2)).dtype == np.float32


def test_parameters_without_a_gradient_are_passed_over_and_count_for_themselves(mode):
    a, b = nn.Parameter(START), nn.Parameter(START)
    opt = optim.Adam([a, b], lr=0.1)

    def step(*used):
        opt.zero_grad()
        sum((p * p).sum() for p in used).backward()
        opt.step()
    both, one = mode(lambda: step(a, b)), mode(lambda: step(a))
    for run in (both, one, one, both):
        run()
    assert opt.state[a]["step"].item() == 4 and opt.state[b]["step"].item() == 2
    alone, _, _ = quadratic(lambda ps: optim.Adam(ps, lr=0.1), lambda f: f, 2)
    np.testing.assert_allclose(b.data, alone.data, rtol=1e-12)


def test_groups_have_their_own_hyperparameters():
    a, b = nn.Parameter(START), nn.Parameter(START)
    opt = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    (a + b).sum().backward()
    opt.step()
    np.testing.assert_allclose(a.data, START - 0.1)
    np.testing.assert_allclose(b.data, START - 0.5)
    with pytest.raises(ArgumentError, match="the groups differ in lr"):
        print(opt.lr)
    opt.lr = 0.2
    assert [g["lr"] for g in opt.param_groups] == [0.2, 0.2] and opt.lr == 0.2
    assert set(opt.param_groups[0]) == {"params", "lr", "momentum", "dampening", "weight_decay", "nesterov",
                                        "maximize"}
    with pytest.raises(AttributeError):
        print(opt.beta)


def test_what_an_optimizer_refuses():
    p = nn.Parameter(START)
    for params in ([], p, [1.0], [gj.tensor([1, 2])], [p, p], [p * 2], {"params": [p]}):
        with pytest.raises(ArgumentError):
            optim.SGD(params)
    for options in ({"lr": -1.0}, {"lr": "fast"}, {"momentum": -0.1}, {"nesterov": True}, {"lr": None},
                    {"weight_decay": -1}):
        with pytest.raises(ArgumentError):
            optim.SGD([p], **options)
    for options in ({"betas": (0.9, 1.0)}, {"betas": (0.9,)}, {"eps": -1.0}, {"lr": float("nan")}):
        with pytest.raises(ArgumentError):
            optim.Adam([p], **options)
    with pytest.raises(ArgumentError, match="no hyperparameter speed"):
        optim.SGD([{"params": [p], "speed": 1}])
    opt = optim.SGD([p])
    with pytest.raises(ArgumentError):
        opt.lr = -1
    with pytest.raises(ArgumentError):
        opt.param_groups[0]["params"] = []
    with pytest.raises(TraceError, match="inside a compiled function"):
        gj.compile(lambda x: optim.SGD([p]))(START)


def test_zero_grad_and_closure():
    p = nn.Parameter(START)
    opt = optim.SGD([p], lr=0.1, maximize=True)

    def closure():
        opt.zero_grad()
        loss = p.sum()
        loss.backward()
        return loss
    assert opt.step(closure).item() == 2.0
    np.testing.assert_allclose(p.data, START + 0.1)
    opt.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0.0] * 3
    opt.zero_grad()
    assert p.grad is None
    opt.step()
    np.testing.assert_allclose(p.data, START + 0.1)


@pytest.mark.parametrize("make", [
    lambda ps: optim.SGD(ps, lr=0.01, momentum=0.9, dampening=0.5),
    lambda ps: optim.Adam(ps, lr=0.01, weight_decay=0.1),
    lambda ps: optim.AdamW(ps, lr=0.01, amsgrad=True)], ids=["sgd", "adam", "adamw"])
def test_saved_state_continues_as_if_nothing_had_happened(make, mode):
    p, opt, step = quadratic(make, mode, 3)
    saved, values = opt.state_dict(), p.data.copy()
    kept = copy.deepcopy(saved)
    step()
    wanted = p.data.copy()
    q, other, again = quadratic(make, mode, 2)
    tensors = dict(other.state[q])
    for state in (saved, kept, pickle.loads(pickle.dumps(kept))):
        q.assign(values)
        other.load_state_dict(state)
        again()
        np.testing.assert_array_equal(q.data, wanted)
    assert other.state[q] is not tensors and all(other.state[q][k] is t for k, t in tensors.items())
    assert getattr(again, "trace_count", 1) == 1


def test_state_dict_has_the_layout_of_pytorch():
    p, opt, _ = quadratic(lambda ps: optim.Adam(ps, lr=0.1), lambda f: f)
    state = opt.state_dict()
    assert set(state) == {"state", "param_groups"} and set(state["state"]) == {0}
    assert set(state["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
    assert state["param_groups"] == [{"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0,
                                      "amsgrad": False, "maximize": False, "params": [0]}]
    fresh = optim.Adam([p])
    fresh.load_state_dict(state)
    assert fresh.lr == 0.1 and fresh.state[p]["step"].item() == 5
    fresh.load_state_dict({"state": {}, "param_groups": state["param_groups"]})
    assert fresh.state[p]["step"].item() == 0 and not fresh.state[p]["exp_avg"].data.any()


def test_a_state_that_does_not_fit_changes_nothing():
    p, opt, _ = quadratic(lambda ps: optim.Adam(ps, lr=0.1), lambda f: f)
    other = optim.Adam([nn.Parameter(np.ones(2))], lr=0.3)
    with pytest.raises(ArgumentError, match=r"exp_avg of parameter has shape \(3,\)"):
        other.load_state_dict(opt.state_dict())
    with pytest.raises(ArgumentError, match="parameters in each group"):
        optim.Adam([p, nn.Parameter([1.0])]).load_state_dict(opt.state_dict())
    assert other.lr == 0.3


def test_loaded_steps_may_differ():
    a, b = nn.Parameter(START), nn.Parameter(START)
    opt = optim.Adam([a, b])
    (a.sum() + b.sum()).backward()
    opt.step()
    assert opt.state[a]["step"] is opt.state[b]["step"]
    state = opt.state_dict()
    state["state"][1]["step"] = gj.tensor(7.0)
    opt.load_state_dict(state)
    assert [opt.state[p]["step"].item() for p in (a, b)] == [1, 7]
    opt.step()
    assert [opt.state[p]["step"].item() for p in (a, b)] == [2, 8]


def test_a_copied_optimizer_follows_its_copied_model():
    model = nn.Linear(2, 1)
    opt = optim.Adam(model.parameters(), lr=0.1)
    model2, opt2 = copy.deepcopy((model, opt))
    model2(np.ones((3, 2), np.float32)).sum().backward()
    before = model.weight.data.copy()
    opt2.step()
    np.testing.assert_array_equal(model.weight.data, before)
    assert (model2.weight.data != before).all() and opt2.lr == 0.1


def test_state_follows_a_model_that_becomes_double():
    p = nn.Parameter(START.astype(np.float32))
    opt = optim.Adam([p], lr=0.1)
    p.sum().backward()
    opt.step()
    p.data = p.data.astype(np.float64)
    p.grad = None
    p.sum().backward()
    opt.step()
    assert opt.state[p]["exp_avg"].dtype == np.float64 and p.dtype == np.float64


def test_the_signature_of_an_optimizer():
    p = nn.Parameter(START)
    opt = optim.SGD([p], lr=0.1)
    signature = opt._static_signature()
    opt.lr = 0.2
    assert signature == opt._static_signature() and hash(signature) == hash(opt._static_signature())
    opt.momentum = 0.9
    assert signature != opt._static_signature()
    signature = opt._static_signature()
    opt.param_groups[0]["nesterov"] = True
    assert signature != opt._static_signature()
    signature = opt._static_signature()
    opt.add_param_group({"params": [nn.Parameter(START)]})
    assert signature != opt._static_signature()


def test_repr_lists_the_hyperparameters():
    text = repr(optim.SGD([nn.Parameter(START)], lr=0.5))
    assert text.startswith("SGD (\nParameter Group 0\n") and "    lr: 0.5\n" in text


def test_a_double_model_and_a_diverging_counter_inside_a_trace():
    a, b = (nn.Parameter(START.astype(np.float32)) for _ in range(2))
    opt = optim.Adam([a, b], lr=0.1)

    def step(*used):
        opt.zero_grad()
        sum(p.sum() for p in used).backward()
        opt.step()
    step(a, b)
    for p in (a, b):
        p.data = p.data.astype(np.float64)
    gj.compile(lambda: step(a))()
    gj.compile(lambda: step(a, b))()
    assert [opt.state[p]["step"].item() for p in (a, b)] == [3, 2]
    assert {t.dtype.name for t in opt.state[a].values()} == {"float64"}
