"""Programs on sequences: recurrent nets, attention and convolutions over time, state-space models."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.programs.parts import transformer, transformer_params
from benchmarks.programs.program import Case, Random, Tree, normal, program, zeros


@program
def lstm(rng: Random) -> Case:
    """An LSTM of 64 units on 32 sequences of 30 times 16 features, one number each, squared error."""
    params = {"in": normal(rng, 16, 256, scale=0.1), "hidden": normal(rng, 64, 256, scale=0.1), "bias": zeros(256),
              "out": normal(rng, 64, 1, scale=0.1)}

    def loss(xp: Any, w: Tree, x: Any, y: Any) -> Any:
        h = xp.lstm(x, w["in"], w["hidden"], w["bias"])
        return (((h @ w["out"])[:, 0] - y) ** 2).mean()

    return Case(loss, params, (normal(rng, 32, 30, 16), normal(rng, 32)))


@program
def gru(rng: Random) -> Case:
    """A GRU of 96 units on 16 sequences of 40 times 24 features, 8 classes after the last time."""
    params = {"in": normal(rng, 24, 288, scale=0.1), "in_bias": zeros(288),
              "hidden": normal(rng, 96, 288, scale=0.1), "hidden_bias": zeros(288),
              "out": normal(rng, 96, 8, scale=0.1)}

    def loss(xp: Any, w: Tree, x: Any, y: Any) -> Any:
        h = xp.gru(x, w["in"], w["in_bias"], w["hidden"], w["hidden_bias"])
        return xp.cross_entropy(h @ w["out"], y)

    return Case(loss, params, (normal(rng, 16, 40, 24), rng.integers(0, 8, 16)))


@program
def longattn(rng: Random) -> Case:
    """One causal transformer block, 64 wide, 4 heads, on 2 sequences of 512 times; 10 classes."""
    params = {"in": normal(rng, 32, 64, scale=0.1), "blocks": transformer_params(rng, 1, 64),
              "out": normal(rng, 64, 10, scale=0.1)}

    def loss(xp: Any, p: Tree, x: Any, y: Any) -> Any:
        h = transformer(xp, p["blocks"], x @ p["in"], heads=4, causal=True)
        return xp.cross_entropy(h.mean(1) @ p["out"], y)

    return Case(loss, params, (normal(rng, 2, 512, 32), rng.integers(0, 10, 2)))


@program
def tcn(rng: Random) -> Case:
    """Five convolutions of 32 channels, dilated by 1 to 16, with short cuts; 16 signals of 256, squared error."""
    params = {"first": normal(rng, 32, 1, 3, scale=0.3),
              "others": [normal(rng, 32, 32, 3, scale=0.1) for _ in range(4)],
              "out": normal(rng, 1, 32, 1, scale=0.1)}

    def loss(xp: Any, w: Tree, x: Any, y: Any) -> Any:
        h = xp.relu(xp.conv1d(x, w["first"], padding=1))
        for i, windows in enumerate(w["others"], start=1):
            h = h + xp.relu(xp.conv1d(h, windows, padding=2**i, dilation=2**i))
        return ((xp.conv1d(h, w["out"]) - y) ** 2).mean()

    return Case(loss, params, (normal(rng, 16, 1, 256), normal(rng, 16, 1, 256)))


@program
def hmm(rng: Random) -> Case:
    """Likelihood of a hidden Markov model by the forward algorithm in logarithms: 20 states, 16 series of 50 times."""
    params = {"start": normal(rng, 20), "moves": normal(rng, 20, 20), "mean": normal(rng, 20), "log_std": zeros(20)}

    def loss(xp: Any, p: Tree, y: Any) -> Any:
        apart = (y[:, :, None] - p["mean"]) * xp.exp(-p["log_std"])
        seen = -0.5 * apart * apart - p["log_std"]
        moves = xp.log_softmax(p["moves"], -1)

        def forward(alpha: Any, seen: Any) -> Any:
            return xp.logsumexp(alpha[:, :, None] + moves, 1) + seen

        alpha = xp.fold(forward, xp.log_softmax(p["start"], -1) + seen[0], seen[1:])
        return -xp.logsumexp(alpha, -1).mean()

    return Case(loss, params, (normal(rng, 50, 16),))


@program
def kalman(rng: Random) -> Case:
    """Likelihood of a linear Gaussian model by a Kalman filter in float64: 4 states, 2 measured, 50 times."""
    params = {"move": 0.9 * np.eye(4) + 0.05 * rng.standard_normal((4, 4)), "measure": rng.standard_normal((2, 4)),
              "log_noise": np.full(4, -1.0), "log_error": np.full(2, -1.0)}

    def loss(xp: Any, p: Tree, y: Any) -> Any:
        move, measure = p["move"], p["measure"]
        noise, error = xp.diag(xp.exp(p["log_noise"])), xp.diag(xp.exp(p["log_error"]))

        def step(state: Any, y: Any) -> Any:
            mean, cov, total = state
            mean, cov = move @ mean, move @ cov @ move.T + noise
            apart, shared = y - measure @ mean, measure @ cov
            spread = shared @ measure.T + error
            gain = xp.solve(spread, shared).T
            cost = xp.logdet(spread) + (apart * xp.solve(spread, apart[:, None])[:, 0]).sum()
            return mean + gain @ apart, cov - gain @ shared, total + 0.5 * cost

        start = xp.zeros(4, dtype=y.dtype), xp.eye(4, dtype=y.dtype), xp.zeros((), dtype=y.dtype)
        return xp.fold(step, start, y)[2]

    return Case(loss, params, (rng.standard_normal((50, 2)),))
