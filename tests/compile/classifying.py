"""Training steps of models that classify, for tests of what compiled ones hold."""

import numpy as np

import graphjit.nn.functional as F
from graphjit import nn


def stepping(model, opt, clip=0.0):
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        opt.step()
        return loss
    return step


def agree(a, b, rtol=2e-4, atol=2e-5):
    """Whether the parameters of two models do."""
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol, atol, err_msg=name)
