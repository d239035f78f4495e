"""profile() of a step whose arguments live in the arena only until they are read."""

from __future__ import annotations

import numpy as np

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim


def test_profiling_a_step_with_labels_reads_them_anew_in_every_run() -> None:
    gj.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
    opt = optim.Adam(model.parameters(), lr=1e-3)

    @gj.compile
    def step(x: gj.Tensor, y: gj.Tensor) -> gj.Tensor:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 64)).astype(np.float32), rng.integers(0, 10, 32)
    before = float(step(x, y))
    profile = step.profile(x, y)
    assert len(profile.rows) == len(step.latest.program.steps)
    assert "matmul" in str(profile)
    assert np.isfinite(float(step(x, y))) and before > 0
