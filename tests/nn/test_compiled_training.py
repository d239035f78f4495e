"""A compiled training step is never stale: whatever is changed between two calls, it does as eager code does."""

import numpy as np
import pytest

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 40)


def build():
    # no bias before the normalization: its gradient is 0 but for rounding, which Adam blows up
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


class Run:
    """A model, its optimizer and a step in one mode."""

    def __init__(self, wrap, make=lambda ps: optim.Adam(ps, lr=0.01)):
        gj.manual_seed(0)
        self.model = build()
        self.opt = make(self.model.parameters())
        self.generator = gj.random.Generator(7)
        self.model[3].generator = self.generator
        self.scale = 1.0

        def step(x, y):
            self.opt.zero_grad()
            loss = F.cross_entropy(self.model(x), y) * self.scale
            loss.backward()
            self.opt.step()
            return loss
        self.step = wrap(step)
        self.score = wrap(lambda x: self.model(x).argmax(axis=1))

    def losses(self, *sizes):
        return [self.step(X[:n], Y[:n]).item() for n in sizes]


def swap_layer(run):
    gj.manual_seed(1)
    run.model[4] = nn.Linear(8, 3)
    run.opt = optim.Adam(run.model.parameters(), lr=0.02)


def grow(run):
    gj.manual_seed(2)
    run.model.append(nn.Linear(3, 3))
    run.opt.add_param_group({"params": run.model[-1].parameters(), "lr": 0.1})


def load_other_weights(run):
    gj.manual_seed(3)
    other = build()
    run.model.load_state_dict(other.state_dict())


def freeze(run):
    run.model[0].requires_grad_(False)


def start_over(run):
    fresh = optim.Adam(run.model.parameters(), lr=0.5)
    run.opt.load_state_dict(fresh.state_dict())


CHANGES = {
    "eval": lambda run: run.model.eval(),
    "train": lambda run: run.model.train(),
    "dropout": lambda run: setattr(run.model[3], "p", 0.9),
    "momentum": lambda run: setattr(run.model[1], "momentum", None),
    "lr": lambda run: setattr(run.opt, "lr", 0.1),
    "betas": lambda run: run.opt.param_groups[0].update(betas=(0.5, 0.5)),
    "decay": lambda run: run.opt.param_groups[0].update(weight_decay=0.5),
    "amsgrad": lambda run: run.opt.param_groups[0].update(amsgrad=True),
    "assign": lambda run: run.model[0].weight.assign(np.ones((8, 6))),
    "data": lambda run: setattr(run.model[4].bias, "data", np.ones(3, np.float32)),
    "double": lambda run: run.model.double(),
    "swap": swap_layer, "grow": grow, "load": load_other_weights, "freeze": freeze, "start over": start_over,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_changed_between_two_steps_counts(change):
    eager, compiled = Run(lambda f: f), Run(gj.compile)
    results = []
    for run in (eager, compiled):
        found = run.losses(32, 8, 32)
        change(run)
        found += run.losses(32, 8)
        run.model.eval()
        labels = run.score(X).tolist()
        run.model.train()
        results.append((found + run.losses(32), labels))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=2e-4)
    assert results[1][1] == results[0][1]
    for a, b in zip(compiled.model.state_dict().values(), eager.model.state_dict().values(), strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("change", ["lr", "betas", "decay", "assign", "load", "start over"])
def test_values_are_not_baked_in(change):
    run = Run(gj.compile)
    run.losses(32, 8)
    CHANGES[change](run)
    run.losses(32, 8)
    assert run.step.trace_count == 2


def test_going_back_and_forth_between_modes_traces_once_for_each():
    run = Run(gj.compile)
    for _ in range(3):
        run.losses(32)
        run.model.eval()
        run.losses(32)
        run.model.train()
    assert run.step.trace_count == 2


def test_batches_of_any_size_share_their_kernels():
    run = Run(gj.compile)
    run.losses(32)
    kernels = run.step.compile_count
    run.losses(2, 3, 17, 31, 33, 40)
    assert run.step.compile_count == kernels


def test_gradient_clipping_and_a_penalty_inside_the_step():
    def penalized(wrap):
        run = Run(lambda f: f, lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True))

        @wrap
        def step(x, y):
            run.opt.zero_grad()
            loss = F.cross_entropy(run.model(x), y, label_smoothing=0.1)
            loss = loss + sum((p * p).sum() for p in run.model.parameters()) * 1e-3
            loss.backward()
            norm = nn.utils.clip_grad_norm_(run.model.parameters(), 0.5)
            run.opt.step()
            return loss, norm
        return [float(v.item()) for n in (32, 8, 40) for v in step(X[:n], Y[:n])]
    np.testing.assert_allclose(penalized(gj.compile), penalized(lambda f: f), rtol=2e-5)


def test_two_optimizers_in_one_step():
    def alternating(wrap):
        run = Run(lambda f: f)
        first = optim.SGD(run.model[0].parameters(), lr=0.1, momentum=0.5, dampening=0.2)
        second = optim.AdamW(run.model[4].parameters(), lr=0.05)

        @wrap
        def step(x, y):
            for opt in (first, second):
                run.model.zero_grad()
                F.cross_entropy(run.model(x), y).backward()
                opt.step()
            return F.cross_entropy(run.model(x), y)
        return [step(X, Y).item() for _ in range(4)]
    np.testing.assert_allclose(alternating(gj.compile), alternating(lambda f: f), rtol=2e-5)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_callers_own_array_is_never_written(replaced):
    array = np.ones(3)
    t = gj.tensor(np.zeros(3)) if replaced else gj.Tensor(array)
    step = gj.compile(lambda: t.assign(t + 1).sum())
    if replaced:
        step()
        t.data = array
    assert step().item() == 6 and step().item() == 9
    assert array.tolist() == [1.0] * 3 and t.tolist() == [3.0] * 3
