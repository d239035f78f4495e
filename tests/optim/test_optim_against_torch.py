"""Optimizers against PyTorch's, in float64."""

import numpy as np
import pytest

from graphjit import nn, optim

torch = pytest.importorskip("torch")

CASES = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.8, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"maximize": True, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {"amsgrad": True, "maximize": True}),
    ("AdamW", {}),
    ("AdamW", {"weight_decay": 0.3, "amsgrad": True}),
]


@pytest.mark.parametrize("name, options", CASES, ids=lambda v: str(v))
def test_same_steps_as_pytorch(name, options, mode):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(3, 2)), rng.normal(size=4)]
    ours = [nn.Parameter(v) for v in values]
    theirs = [torch.nn.Parameter(torch.tensor(v)) for v in values]
    opt = getattr(optim, name)(ours, lr=0.05, **options)
    reference = getattr(torch.optim, name)(theirs, lr=0.05, **options)

    @mode
    def step(x, y):
        opt.zero_grad()
        ((ours[0] * x).sin().sum() + (ours[1] * y).square().sum()).backward()
        opt.step()
    for i in range(8):
        x, y = rng.normal(size=(3, 2)), rng.normal(size=4)
        if i == 4:  # a schedule
            opt.param_groups[0]["lr"] = reference.param_groups[0]["lr"] = 0.02
        step(x, y)
        reference.zero_grad()
        ((theirs[0] * torch.tensor(x)).sin().sum() + (theirs[1] * torch.tensor(y)).square().sum()).backward()
        reference.step()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-10)


@pytest.mark.parametrize("name, options", [("SGD", {"momentum": 0.9, "dampening": 0.5}), ("Adam", {})])
def test_state_of_pytorch_is_taken_over(name, options):
    p, q = nn.Parameter(np.ones(3)), torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    opt = getattr(optim, name)([p], lr=0.1, **options)
    reference = getattr(torch.optim, name)([q], lr=0.1, **options)
    for _ in range(3):
        reference.zero_grad()
        (q * q).sum().backward()
        reference.step()
    p.assign(q.detach().numpy())
    opt.load_state_dict(reference.state_dict())
    for _ in range(2):
        for o, t in ((opt, p), (reference, q)):
            o.zero_grad()
            (t * t).sum().backward()
            o.step()
    np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-12)
