"""Whole training steps: compiled and eager give the same losses, parameters, statistics and gradients."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim
from graphjit.runtime.compiler import compile_count

RNG = np.random.default_rng(0)
X = RNG.standard_normal((12, 6)).astype(np.float32)
LABELS = RNG.integers(0, 3, 12)


def network():
    gj.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.25), nn.Linear(8, 3))


def everything(model, opt):
    """All that a step may change, by name."""
    out = {name: t.numpy().copy() for name, t in model.state_dict().items()}
    for i, slots in opt.state_dict()["state"].items():
        out |= {f"{i}.{name}": t.numpy().copy() for name, t in slots.items()}
    return out


def train(wrap, make_opt, make_step, batches, model=None):
    model = model or network()
    opt = make_opt(model.parameters())
    step = wrap(make_step(model, opt))
    losses = [float(step(x, y)) for x, y in batches]
    return losses, everything(model, opt), step


def plain(model, opt):
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss
    return step


# the gradient of a bias before BatchNorm is 0; Adam divides its rounding noise by itself
NOISE = ("0.bias", "1.running_mean", "1.exp_avg", "1.exp_avg_sq", "1.max_exp_avg_sq")
BATCHES = [(X[i:i + n], LABELS[i:i + n]) for i, n in ((0, 6), (6, 6), (0, 5), (3, 6), (4, 2), (1, 5))]


@pytest.mark.parametrize("make_opt", [
    lambda p: optim.SGD(p, lr=0.1), lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    lambda p: optim.Adam(p, lr=0.01), lambda p: optim.AdamW(p, lr=0.01, amsgrad=True),
], ids=["sgd", "nesterov", "adam", "adamw"])
def test_training_agrees(make_opt):
    eager = train(lambda f: f, make_opt, plain, BATCHES)
    compiled = train(gj.compile, make_opt, plain, BATCHES)
    np.testing.assert_allclose(compiled[0], eager[0], rtol=1e-4)
    assert compiled[1].keys() == eager[1].keys()
    for name, want in eager[1].items():
        if name not in NOISE:
            np.testing.assert_allclose(compiled[1][name], want, rtol=1e-3, atol=1e-4, err_msg=name)
    assert compiled[2].trace_count == 3, "batches of 6, 5 and 2"


def test_float64_training_agrees_closely():
    batches = [(x.astype(np.float64), y) for x, y in BATCHES]

    def make_opt(p):
        return optim.Adam(p, lr=0.01)
    eager = train(lambda f: f, make_opt, plain, batches, network().double())
    compiled = train(gj.compile, make_opt, plain, batches, network().double())
    np.testing.assert_allclose(compiled[0], eager[0], rtol=1e-9)
    for name, want in eager[1].items():
        if name not in NOISE:
            np.testing.assert_allclose(compiled[1][name], want, rtol=1e-7, atol=1e-12, err_msg=name)


def test_training_evaluation_and_eager_steps_may_alternate():
    def run(wrap, evaluate):
        model = network()
        opt = optim.Adam(model.parameters(), lr=0.01)
        step = plain(model, opt)
        fast = wrap(step)
        predict = evaluate(lambda x: model(x).argmax(axis=1))
        out = []
        for i in range(4):
            out.append(float(fast(X, LABELS)))
            model.eval()
            out.append(predict(X).numpy().tolist())
            model.train()
            if i == 1:
                out.append(float(step(X, LABELS)))
        return out
    got, want = run(gj.compile, gj.compile), run(lambda f: f, lambda f: f)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)


def test_new_batch_sizes_compile_nothing():
    model = network()
    opt = optim.Adam(model.parameters(), lr=0.01)
    step = gj.compile(plain(model, opt))
    step(X[:8], LABELS[:8])
    before, own = compile_count(), step.compile_count
    x, y = np.tile(X, (6, 1)), np.tile(LABELS, 6)
    for n in range(2, 65):  # BatchNorm needs two
        assert np.isfinite(float(step(x[:n], y[:n])))
    assert compile_count() == before
    assert step.compile_count == own
    assert step.trace_count == 63
    assert step.reasons[1] == "x: axis 0 was 8; y: axis 0 was 8"


def test_new_batch_sizes_compile_nothing_from_one_on():
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    opt = optim.SGD(model.parameters(), lr=0.01)
    step, forward = gj.compile(plain(model, opt)), gj.compile(lambda x: F.softmax(model(x), dim=1))
    counts = []
    for n in (7, 1, 2, 12, 5):
        step(X[:n], LABELS[:n])
        np.testing.assert_allclose(forward(X[:n]).sum(axis=1), np.ones(n), rtol=1e-5)
        counts.append(compile_count())
    assert len(set(counts)) == 1


# ---- where gradients are, and are not

def gradient_patterns():
    def start(w, opt):
        def step(x):
            opt.zero_grad()
            loss = (w * w * x).sum()
            loss.backward()
            opt.step()
            return loss
        return step

    def end(w, opt):
        def step(x):
            loss = (w * w * x).sum()
            loss.backward()
            opt.step()
            opt.zero_grad()
            return loss
        return step

    def none(w, opt):
        def step(x):
            loss = (w * w * x).sum()
            loss.backward()
            opt.step()
            return loss
        return step

    def to_zero(w, opt):
        def step(x):
            opt.zero_grad(set_to_none=False)
            loss = (w * w * x).sum()
            loss.backward()
            opt.step()
            return loss
        return step

    def twice(w, opt):
        def step(x):
            opt.zero_grad()
            loss = (w * w * x).sum()
            loss.backward()
            (w * x).sum().backward()
            opt.step()
            return loss
        return step

    def clipped(w, opt):
        def step(x):
            opt.zero_grad()
            loss = (w * w * x).sum()
            loss.backward()
            norm = nn.utils.clip_grad_norm_([w], 0.5)
            opt.step()
            return loss + norm
        return step

    def by_hand(w, opt):
        def step(x):
            opt.zero_grad()
            loss = (w * w * x).sum()
            loss.backward()
            w.grad = w.grad.clip(-0.1, 0.1) * 2
            w.grad[0] = 0.5
            with gj.no_grad():
                w.assign(w - 0.1 * w.grad)
            return loss
        return step
    return [start, end, none, to_zero, twice, clipped, by_hand]


@pytest.mark.parametrize("keep", [False, True], ids=["", "keep_grads"])
@pytest.mark.parametrize("make", gradient_patterns(), ids=lambda f: f.__name__)
def test_patterns_of_gradients(make, keep):
    def run(wrap):
        w = nn.Parameter(np.linspace(1, 2, 4))
        step = wrap(make(w, optim.SGD([w], lr=0.01, momentum=0.5)))
        losses = [float(step(np.arange(4.0))) for _ in range(5)]
        return losses, w, step
    losses, w, _ = run(lambda f: f)
    got, v, step = run(lambda f: gj.compile(f, keep_grads=keep))
    np.testing.assert_allclose(got, losses, rtol=1e-12)
    np.testing.assert_allclose(v.data, w.data, rtol=1e-12)
    assert step.trace_count <= 2
    if w.grad is None:
        assert v.grad is None
    elif keep:
        np.testing.assert_allclose(v.grad, w.grad, rtol=1e-12)
    else:
        with pytest.raises(gj.GradientError, match="keep_grads"):
            _ = v.grad


def test_gradients_cleared_outside_of_the_step():
    def run(wrap):
        w = nn.Parameter(np.linspace(1, 2, 4))
        opt = optim.SGD([w], lr=0.01)

        def step(x):
            loss = (w * w * x).sum()
            loss.backward()
            opt.step()
            return loss
        step = wrap(step)
        for i in range(5):
            if i != 3:
                opt.zero_grad()
            step(np.arange(4.0))
        return w.data, step
    want, _ = run(lambda f: f)
    got, step = run(gj.compile)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    assert step.trace_count == 2


def test_accumulation_over_calls():
    def run(wrap):
        w = nn.Parameter(np.linspace(1, 2, 4))
        opt = optim.SGD([w], lr=0.01)

        def accumulate(x):
            loss = (w * w * x).sum()
            loss.backward()
            return loss

        def update():
            opt.step()
            opt.zero_grad()
        accumulate, update = wrap(accumulate), wrap(update)
        for i in range(6):
            accumulate(np.arange(4.0) + i)
            if i % 3 == 2:
                update()
        return w.data, accumulate
    want, _ = run(lambda f: f)
    for keep in (False, True):
        got, f = run(lambda g, keep=keep: gj.compile(g, keep_grads=keep))
        np.testing.assert_allclose(got, want, rtol=1e-12)
        assert f.trace_count == 2


def test_compiled_and_eager_backward_add_up():
    w = nn.Parameter(np.ones(3))

    @gj.compile(keep_grads=True)
    def f(x):
        (w * x).sum().backward()
    x = np.arange(3.0)
    f(x)
    np.testing.assert_array_equal(w.grad, x)
    (w * 2).sum().backward()
    np.testing.assert_array_equal(w.grad, x + 2)
    f(x)
    np.testing.assert_array_equal(w.grad, 2 * x + 2)
    f(x)
    np.testing.assert_array_equal(w.grad, 3 * x + 2)
    kept = w.grad
    f(x)
    np.testing.assert_array_equal(kept, 3 * x + 2)


def test_a_gradient_that_stayed_inside_is_never_stale():
    w = nn.Parameter(np.ones(3))

    @gj.compile
    def step(x):
        w.zero_grad()
        (w * x).sum().backward()
    for _ in range(2):
        step(np.ones(3))
        with pytest.raises(gj.GradientError, match="keep_grads"):
            _ = w.grad
        with pytest.raises(gj.GradientError, match="keep_grads"):
            (w * 2).sum().backward()
        w.zero_grad()
        assert w.grad is None
        (w * 2).sum().backward()
        np.testing.assert_array_equal(w.grad, [2, 2, 2])

    opt = optim.SGD([w], lr=0.1)
    step(np.ones(3))
    opt.zero_grad(set_to_none=False)
    np.testing.assert_array_equal(w.grad, [0, 0, 0])
    w.zero_grad()

    @gj.compile
    def another(x):
        (w * x).sum().backward()
    another(np.ones(3))
    step(np.ones(3))
    with pytest.raises(gj.GradientError, match="keep_grads"):
        another(np.ones(3))
    w.zero_grad()
    another(np.ones(3))


def test_gradients_kept():
    def run(wrap):
        model = network()
        f = wrap(lambda x, y: F.cross_entropy(model(x), y).backward())
        model.zero_grad()
        f(X, LABELS)
        return {n: p.grad for n, p in model.named_parameters()}
    got, want = run(lambda f: gj.compile(f, keep_grads=True)), run(lambda f: f)
    for name, g in want.items():
        np.testing.assert_allclose(got[name], g, rtol=1e-3, atol=1e-5, err_msg=name)


def test_gradients_as_results():
    w = nn.Parameter(np.ones(3))

    @gj.compile
    def f(x):
        w.zero_grad()
        (w * w * x).sum().backward()
        return w.grad, [w.grad * 2]
    g, (h,) = f(np.arange(3.0))
    np.testing.assert_array_equal(g, [0, 2, 4])
    np.testing.assert_array_equal(h, [0, 4, 8])


def test_functional_training():
    loss = gj.value_and_grad(lambda p, x: ((x @ p["w"] + p["b"]) ** 2).mean())

    @gj.compile
    def update(p, x, lr):
        value, g = loss(p, x)
        return value, {k: p[k] - lr * g[k] for k in p}
    p = {"w": RNG.standard_normal((6, 2)), "b": np.zeros(2)}
    q = p
    for i in range(4):
        value, p = update(p, X, 0.1 / (i + 1))
        want, g = loss(q, X)
        q = {k: q[k] - 0.1 / (i + 1) * g[k].numpy() for k in q}
        assert float(value) == pytest.approx(float(want), rel=1e-10)
        np.testing.assert_allclose(p["w"], q["w"], rtol=1e-10)
    assert update.trace_count == 1


def test_double_backward_inside_a_step():
    def run(wrap):
        w = nn.Parameter(np.linspace(1, 2, 4))
        opt = optim.SGD([w], lr=0.01)

        def step(x):
            opt.zero_grad()
            (w * w * w * x).sum().backward(create_graph=True)
            g = w.grad
            opt.zero_grad()
            (g * g).sum().backward()
            opt.step()
            return g
        step = wrap(step)
        return [step(np.arange(4.0)).numpy() for _ in range(3)], w.data
    got, want = run(gj.compile), run(lambda f: f)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-12)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-12)


# ---- modes, threads, processes

def test_eager_mode():
    calls = []

    @gj.compile
    def f(x):
        calls.append(type(x))
        return x * 2
    with gj.eager():
        for _ in range(3):
            out = f(np.ones(2))
            assert isinstance(out, gj.Tensor)
            np.testing.assert_array_equal(out, [2, 2])
    assert calls == [gj.Tensor] * 3, "the function itself runs, on tensors as in a program"
    assert f.trace_count == 0
    f(np.ones(2))
    f(np.ones(2))
    assert len(calls) == 4
    with gj.eager():
        assert bool(gj.compile(lambda x: x.sum() > 0 and True)(X) in (True, False))
    with pytest.raises(ValueError, match="inside"), gj.eager():
        raise ValueError("inside")
    f(np.ones(2))
    assert len(calls) == 4


def run_python(code, **environment):
    out = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=100,
                         env={**os.environ, **environment})
    assert out.returncode == 0, out.stderr
    return out.stdout


def test_eager_by_environment():
    code = ("import graphjit as gj, numpy as np\n"
            "f = gj.compile(lambda x: x * 2)\nprint(f(np.ones(2)).tolist(), f.trace_count)")
    assert run_python(code, GRAPHJIT_EAGER="1") == "[2.0, 2.0] 0\n"
    assert run_python(code, GRAPHJIT_EAGER="0") == "[2.0, 2.0] 1\n"


def test_threads_calling_the_same_step():
    total = gj.tensor(np.zeros(100_000))
    small = gj.tensor(np.zeros(3))
    errors = []

    @gj.compile
    def add(x):
        total.assign(total + x.sum())
        return x * 2

    @gj.compile
    def count(x):
        small.assign(small + x)
        return small * 1

    def work(k):
        try:
            for i in range(30):
                n = 50_000 + 1000 * (i % 3)  # several programs of one function
                out = add(np.full(n, 1.0 / n))
                np.testing.assert_array_equal(out.numpy(), np.full(n, 2.0 / n))
                count(np.ones(3))
        except Exception as error:
            errors.append(error)
    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors
    np.testing.assert_allclose(total.numpy(), np.full(100_000, 120.0), rtol=1e-6)
    np.testing.assert_array_equal(small, [120, 120, 120])
    assert add.trace_count == 3


def test_a_thread_traces_while_others_run():
    f, g = gj.compile(lambda x: gj.exp(x) + 1), gj.compile(lambda x: gj.exp(x) + 1)
    f(X)
    out = []

    def trace():
        for n in range(1, 12):
            out.append(g(X[:n]).numpy())
    t = threading.Thread(target=trace)
    t.start()
    while t.is_alive():
        np.testing.assert_allclose(f(X), np.exp(X) + 1, rtol=1e-5)
        assert f(X).numpy().shape == X.shape
    t.join()
    for n, got in enumerate(out, start=1):
        np.testing.assert_allclose(got, np.exp(X[:n]) + 1, rtol=1e-5)


FORK = """
import os, threading, warnings
import numpy as np, graphjit as gj
warnings.simplefilter("ignore", DeprecationWarning)
t = gj.tensor(np.zeros(200_000))
@gj.compile
def f(x):
    t.assign(t + x)
    return t.sum()
x = np.ones(200_000)
assert float(f(x)) == 200_000
g = gj.compile(lambda x: gj.exp(x).sum())
threading.Thread(target=lambda: f(x)).start()
child = os.fork()
expected = float(f(x))
assert float(g(np.zeros(5))) == 5
if child:
    _, status = os.waitpid(child, 0)
    print("parent", os.waitstatus_to_exitcode(status))
else:
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork():
    assert run_python(FORK) == "parent 0\n"
