"""Hessian eigenvalues against the whole Hessian, the parts of a step's cost, growth with size."""

import json

import numpy as np
import pytest

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim
from graphjit.training.analysis import median_seconds, performance, scaling
from graphjit.training.curvature import hessian_eigenvalues, lanczos

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 4)), np.arange(30) % 3


def model():
    gj.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3))


def dense(net, x, y):
    """The eigenvalues of the whole Hessian, of a model written out by hand."""
    net = net.double()

    def loss(p):
        h = x @ p["0.weight"].T + p["0.bias"]
        h = (h - net[1].running_mean) / gj.sqrt(net[1].running_var + net[1].eps) * p["1.weight"] + p["1.bias"]
        return F.cross_entropy(gj.tanh(h) @ p["4.weight"].T + p["4.bias"], y)
    at = {name: p.detach() for name, p in net.named_parameters()}
    blocks = gj.hessian(loss)(at)
    rows = [np.concatenate([blocks[a][b].numpy().reshape(at[a].size, at[b].size) for b in at], axis=1) for a in at]
    values = np.linalg.eigvalsh(np.concatenate(rows))
    return values[np.argsort(-abs(values))]


def symmetric(values):
    q = np.linalg.qr(RNG.normal(size=(len(values), len(values)))).Q
    return q @ np.diag(values) @ q.T


@pytest.mark.parametrize("eager", [False, True])
def test_eigenvalues_are_those_of_the_whole_hessian(eager):
    calls = []
    found = hessian_eigenvalues(model(), F.cross_entropy, X, Y, k=6, tolerance=1e-9, eager=eager,
                                on_product=lambda: calls.append(1))
    np.testing.assert_allclose(found.eigenvalues, dense(model(), X, Y)[:6], rtol=1e-8)
    assert found.converged and len(calls) == found.products <= found.parameters == 53
    assert found.samples == 30 and found.product_seconds > 0
    assert json.loads(json.dumps(found.asdict()))["eigenvalues"] == list(found.eigenvalues)


def test_the_model_stays_as_it_was():
    net = model()
    before, kinds = {n: t.numpy().copy() for n, t in net.state_dict().items()}, [type(p) for p in net.parameters()]
    hessian_eigenvalues(net, F.cross_entropy, X.astype(np.float32), Y, k=2)
    performance(net, F.cross_entropy, optim.Adam, X.astype(np.float32), Y, budget=0)
    assert net.training and [type(p) for p in net.parameters()] == kinds
    after = net.state_dict()
    assert all(t.dtype == before[n].dtype and (t.numpy() == before[n]).all() for n, t in after.items())


def test_a_loss_with_one_curvature_for_each_column():
    # mean of (w x)**2: the Hessian is 2 x.T x / n
    x = RNG.normal(size=(50, 3))
    want = np.linalg.eigvalsh(2 * x.T @ x / 50)[::-1]
    found = hessian_eigenvalues(nn.Linear(3, 1, bias=False), F.mse_loss, x, np.zeros((50, 1)), k=9)
    np.testing.assert_allclose(found.eigenvalues, want, rtol=1e-9)  # k above their number: all there are


def test_shared_parameters_count_once_and_fixed_ones_not():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2, bias=False)
            self.b = self.a
            self.c = nn.Parameter(gj.ones(2))
            self.c.requires_grad = False

        def forward(self, x):
            return self.b(self.a(x)) * self.c
    net = Twice()
    w = np.array([[1.0, 0.5], [-0.5, 2.0]])
    net.a.weight.assign(w)
    x, y = RNG.normal(size=(10, 2)), np.zeros((10, 2))
    want = np.linalg.eigvalsh(gj.hessian(lambda v: F.mse_loss(x @ v.T @ v.T, y))(gj.tensor(w)).numpy().reshape(4, 4))
    found = hessian_eigenvalues(net, F.mse_loss, x, y, k=4)
    np.testing.assert_allclose(found.eigenvalues, want[np.argsort(-abs(want))], rtol=1e-9)
    assert found.parameters == 4


def test_lanczos_finds_the_largest_of_both_signs_before_the_end():
    values = np.concatenate([[-9.0, 8.0, -7.0, 6.0], RNG.uniform(-1, 1, 196)])
    a = symmetric(values)
    calls = []
    found, bounds = lanczos(lambda v: calls.append(1) or a @ v, 200, 4, tolerance=1e-8)
    np.testing.assert_allclose(found, [-9, 8, -7, 6], rtol=1e-10)
    assert len(calls) < 60 and (bounds <= 9e-8).all()


def test_bounds_hold_when_the_limit_comes_first():
    values = np.linspace(1, 2, 100)
    a = symmetric(values)
    found, bounds = lanczos(lambda v: a @ v, 100, 3, tolerance=1e-12, limit=12)
    assert (bounds > 1e-6).all()
    assert all(abs(values - f).min() <= b + 1e-12 for f, b in zip(found, bounds, strict=True))


def test_an_eigenvalue_that_occurs_twice_is_found_twice():
    a = symmetric([5.0, 5.0, 1.0, 1.0])
    np.testing.assert_allclose(lanczos(lambda v: a @ v, 4, 3)[0], [5, 5, 1], rtol=1e-9)


def test_a_matrix_of_zeros():
    assert lanczos(lambda v: 0 * v, 5, 2)[0].tolist() == [0, 0]


def test_lanczos_says_what_it_cannot_do():
    with pytest.raises(gj.ArgumentError, match="at least one"):
        lanczos(lambda v: v, 3, 0)
    with pytest.raises(gj.NumericalError, match="not finite"):
        lanczos(lambda v: v * np.inf, 3, 1)
    with pytest.raises(gj.ArgumentError, match="without parameters"):
        hessian_eigenvalues(nn.ReLU(), F.mse_loss, X, X)
    net = nn.Linear(4, 1)
    net.bias.assign([np.nan])
    with pytest.raises(gj.NumericalError, match="the loss is nan"):
        hessian_eigenvalues(net, F.mse_loss, X, np.zeros((30, 1)))


def test_performance_has_every_part_of_both_modes():
    measured = []
    found = performance(model(), F.cross_entropy, lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9),
                        X.astype(np.float32), Y, budget=0, on_measure=lambda: measured.append(1))
    assert found.batch_size == 30 and found.parameters == 53 and len(measured) >= 6
    for cost in (found.eager, found.compiled):
        s = cost.seconds
        assert s["step"] > 0 and s["forward"] > 0 and min(s.values()) >= 0
        assert cost.samples_per_second == pytest.approx(30 / s["step"])
        assert cost.memory > 30 * 5 * 4 and cost.first_call_seconds > 0  # an activation at least
    assert found.speedup == pytest.approx(found.eager.seconds["step"] / found.compiled.seconds["step"])
    assert sum(k["share"] for k in found.kernels) == pytest.approx(1)
    assert [k["us"] for k in found.kernels] == sorted((k["us"] for k in found.kernels), reverse=True)
    assert json.loads(json.dumps(found.asdict()))["compiled"]["seconds"].keys() == found.eager.seconds.keys()


def test_scaling_measures_both_modes_at_each_size():
    def problem(width):
        net = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))
        return net, X.astype(np.float32), Y
    measured = []
    found = scaling("width", [2, 4, 8], problem, F.cross_entropy, optim.Adam, budget=0,
                    on_measure=lambda: measured.append(1))
    assert len(measured) == 3
    assert found.parameters == [19, 35, 67] and found.sizes == [2, 4, 8] and found.what == "width"
    assert all(len(found.seconds[mode]) == 3 and min(found.seconds[mode]) > 0 for mode in ("eager", "compiled"))
    with pytest.raises(gj.ArgumentError, match="sizes"):
        scaling("width", [], problem, F.cross_entropy, optim.Adam)


def test_median_seconds_takes_turns(monkeypatch):
    now, order = [0.0], []

    def call(name, seconds):
        order.append(name)
        now[0] += seconds
    monkeypatch.setattr("graphjit.training.analysis.time.perf_counter", lambda: now[0])
    calls = {"slow": lambda: call("slow", 1.0), "fast": lambda: call("fast", 0.002)}
    assert median_seconds(calls, budget=0) == pytest.approx({"slow": 1.0, "fast": 0.002})
    turn = ["slow"] + ["fast"] * 3
    assert order == ["slow", "fast"] + 3 * turn  # three at least, after one that does not count
    order.clear()
    median_seconds(calls, budget=5)
    assert order.count("slow") == 1 + 10
