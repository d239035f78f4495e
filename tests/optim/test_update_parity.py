"""Every optimizer (10 steps) and schedule (30 epochs) against PyTorch's, in float64 at 1e-10."""

import numpy as np
import pytest

import graphjit as gj
from graphjit import nn, optim

torch = pytest.importorskip("torch")
from benchmarks.parity import LIMIT, compilable, optimizer_difference, scheduler_difference  # noqa: E402  # needs torch
from benchmarks.parity_cases import OPTIMIZERS, SCHEDULES  # noqa: E402


@pytest.mark.parametrize("case", OPTIMIZERS, ids=str)
def test_optimizer(case):
    assert optimizer_difference(case) <= LIMIT


@pytest.mark.parametrize("case", [c for c in OPTIMIZERS if compilable(c)], ids=str)
def test_compiled_optimizer(case):
    assert optimizer_difference(case, gj.compile) <= LIMIT


@pytest.mark.parametrize("case", SCHEDULES, ids=str)
def test_schedule(case, mode):
    assert scheduler_difference(case, mode) <= LIMIT


def test_every_optimizer_and_schedule_has_a_case():
    assert set(optim.__all__) - {"Optimizer", "ParamGroup", "lr_scheduler"} == {c.name for c in OPTIMIZERS}
    assert set(optim.lr_scheduler.__all__) - {"LRScheduler"} == {c.name for c in SCHEDULES}


@pytest.mark.parametrize("name, options", [
    ("RMSprop", {"momentum": 0.9, "centered": True}), ("Adagrad", {"lr_decay": 0.1}), ("LBFGS", {"max_iter": 4})])
def test_state_of_pytorch_is_taken_over(name, options):
    p, q = nn.Parameter(np.array([1.0, -2.0, 3.0])), torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]).double())
    opt = getattr(optim, name)([p], lr=0.1, **options)
    its = getattr(torch.optim, name)([q], lr=0.1, **options)

    def step(optimizer, t):
        def closure():
            optimizer.zero_grad()
            loss = (t.sin() + t * t * 0.1).sum()
            loss.backward()
            return loss
        if name == "LBFGS":
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    for _ in range(3):
        step(its, q)
    p.assign(q.detach().numpy())
    opt.load_state_dict(its.state_dict())
    for _ in range(3):
        step(opt, p)
        step(its, q)
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-10)
