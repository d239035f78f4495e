"""Programs of statistics: regressions, Gaussian processes, mixtures, variational inference, transport."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.programs.parts import mlp
from benchmarks.programs.program import Case, Random, Tree, dense, normal, program, zeros


def logistic_loss(xp: Any, p: Tree, x: Any, y: Any) -> Any:
    """Mean negative log-likelihood of a logistic regression, and an L2 penalty."""
    logits = x @ p["w"] + p["b"]
    return (xp.softplus(logits) - logits * y).mean() + 1e-3 * (p["w"] ** 2).sum()


@program
def logreg(rng: Random) -> Case:
    """Logistic regression of 10,000 rows of 100 numbers."""
    data = normal(rng, 10000, 100), (normal(rng, 10000) > 0).astype(np.float32)
    return Case(logistic_loss, {"w": normal(rng, 100, scale=0.1), "b": zeros()}, data)


@program
def logreg64(rng: Random) -> Case:
    """Logistic regression of 2000 rows of 30 numbers in float64."""
    data = rng.standard_normal((2000, 30)), (rng.standard_normal(2000) > 0).astype(np.float64)
    return Case(logistic_loss, {"w": rng.standard_normal(30), "b": np.zeros(())}, data)


@program
def bayes(rng: Random) -> Case:
    """Variational inference of a logistic regression: 8 samples of 50 normal weights, 2000 rows."""
    params = {"mean": normal(rng, 50, scale=0.1), "log_std": zeros(50) - 1}

    def loss(xp: Any, p: Tree, x: Any, y: Any, noise: Any) -> Any:
        weights = p["mean"] + xp.exp(p["log_std"]) * noise
        logits = weights @ x.T
        nll = (xp.softplus(logits) - logits * y).sum(-1).mean()
        divergence = 0.5 * (p["mean"] ** 2 + xp.exp(2 * p["log_std"]) - 1).sum() - p["log_std"].sum()
        return nll + divergence

    return Case(loss, params, (normal(rng, 2000, 50), (normal(rng, 2000) > 0).astype(np.float32), normal(rng, 8, 50)))


@program
def counts(rng: Random) -> Case:
    """Negative binomial regression of 5000 counts by 20 numbers."""
    params = {"w": normal(rng, 20, scale=0.1), "b": zeros(), "log_size": zeros()}

    def loss(xp: Any, p: Tree, x: Any, y: Any) -> Any:
        log_mean, size = x @ p["w"] + p["b"], xp.exp(p["log_size"])
        log_odds = log_mean - p["log_size"]
        each = xp.lgamma(y + size) - xp.lgamma(y + 1) + y * log_odds - (y + size) * xp.softplus(log_odds)
        return xp.lgamma(size) - each.mean()

    return Case(loss, params, (normal(rng, 5000, 20), rng.negative_binomial(2, 0.4, 5000).astype(np.float32)))


@program
def quantile(rng: Random) -> Case:
    """Nine quantiles by an MLP 10-32-32-9 and the pinball loss, 256 rows."""
    def loss(xp: Any, layers: Tree, x: Any, y: Any, tau: Any) -> Any:
        apart = y[:, None] - mlp(xp, xp.relu, layers, x)
        return xp.where(apart > 0, tau * apart, (tau - 1) * apart).mean()

    levels = np.linspace(0.1, 0.9, 9, dtype=np.float32)
    return Case(loss, dense(rng, 10, 32, 32, 9), (normal(rng, 256, 10), normal(rng, 256), levels))


@program
def robust(rng: Random) -> Case:
    """Regression by an MLP 13-64-64-1 with Huber's loss, 512 rows with outliers."""
    def loss(xp: Any, layers: Tree, x: Any, y: Any) -> Any:
        return xp.huber_loss(mlp(xp, xp.tanh, layers, x)[:, 0], y)

    return Case(loss, dense(rng, 13, 64, 64, 1), (normal(rng, 512, 13), rng.standard_t(1.5, 512).astype(np.float32)))


@program
def crps(rng: Random) -> Case:
    """A linear forecast of 4000 numbers by 20, in order, against those measured, in order."""
    def loss(xp: Any, w: Any, x: Any, y: Any) -> Any:
        ordered = xp.sort(x @ w)
        return xp.abs(ordered - y).mean() + 1e-3 * xp.cumsum(ordered * ordered, 0).mean()

    return Case(loss, normal(rng, 20, scale=0.3), (normal(rng, 4000, 20), np.sort(normal(rng, 4000))))


@program
def gmm(rng: Random) -> Case:
    """Likelihood of a mixture of 10 normal distributions with diagonal covariance, 5000 points of 4 numbers."""
    params = {"mean": normal(rng, 10, 4), "log_std": zeros(10, 4), "weight": zeros(10)}

    def loss(xp: Any, p: Tree, x: Any) -> Any:
        white = (x[:, None, :] - p["mean"]) * xp.exp(-p["log_std"])
        each = -0.5 * (white * white).sum(-1) - p["log_std"].sum(-1) + xp.log_softmax(p["weight"], -1)
        return -xp.logsumexp(each, -1).mean()

    return Case(loss, params, (normal(rng, 5000, 4),))


@program
def expfit(rng: Random) -> Case:
    """Three exponentials and a Gaussian peak fitted to 1000 points in float64."""
    params = {"amplitude": np.array([1.0, 2.0, 3.0]), "log_rate": np.array([0.0, 0.5, 1.0]), "height": np.array(0.5),
              "centre": np.array(0.3), "width": np.array(0.7)}

    def loss(xp: Any, p: Tree, t: Any, y: Any) -> Any:
        decay = (p["amplitude"] * xp.exp(-t[:, None] * xp.exp(p["log_rate"]))).sum(-1)
        peak = p["height"] * xp.exp(-(((t - p["centre"]) / p["width"]) ** 2))
        return ((decay + peak - y) ** 2).sum()

    return Case(loss, params, (np.linspace(0, 5, 1000), rng.standard_normal(1000)))


@program
def rbf(rng: Random) -> Case:
    """A net of 50 radial basis functions, 8 to 3 numbers, 1000 rows."""
    params = {"centre": normal(rng, 50, 8), "log_scale": zeros(50), "w": normal(rng, 50, 3, scale=0.1)}

    def loss(xp: Any, p: Tree, x: Any, y: Any) -> Any:
        squared = ((x[:, None, :] - p["centre"]) ** 2).sum(-1)
        return ((xp.exp(-squared * xp.exp(p["log_scale"])) @ p["w"] - y) ** 2).mean()

    return Case(loss, params, (normal(rng, 1000, 8), normal(rng, 1000, 3)))


@program
def gp(rng: Random) -> Case:
    """Marginal likelihood of a Gaussian process with a scale for each of 4 inputs, 200 points, float64."""
    params = {"log_variance": np.array(0.0), "log_scale": np.zeros(4), "log_noise": np.array(-2.0)}

    def loss(xp: Any, p: Tree, x: Any, y: Any) -> Any:
        apart = x[:, None, :] - x
        squared = (apart * apart * xp.exp(p["log_scale"])).sum(-1)
        noise = xp.exp(p["log_noise"]) * xp.eye(x.shape[0], dtype=x.dtype)
        factor = xp.cholesky(xp.exp(p["log_variance"]) * xp.exp(-0.5 * squared) + noise)
        white = xp.solve_triangular(factor, y[:, None])
        return 0.5 * (white * white).sum() + xp.log(xp.diag(factor)).sum()

    return Case(loss, params, (rng.standard_normal((200, 4)), rng.standard_normal(200)))


@program
def periodic(rng: Random) -> Case:
    """Kernel regression with 3 periodic components of a spectral mixture, by 150 points for 50 others, float64."""
    params = {"log_weight": np.zeros(3), "frequency": np.array([0.5, 1.0, 2.0]), "log_width": np.full(3, -1.0),
              "log_noise": np.array(-1.0)}

    def loss(xp: Any, p: Tree, x: Any, y: Any, others: Any, wanted: Any) -> Any:
        def kernel(a: Any, b: Any) -> Any:
            apart = (a[:, None] - b)[..., None]
            damped = xp.exp(p["log_weight"] - 0.5 * (apart * xp.exp(p["log_width"])) ** 2)
            return (damped * xp.cos(2 * np.pi * apart * p["frequency"])).sum(-1)

        noise = xp.exp(p["log_noise"]) * xp.eye(x.shape[0], dtype=x.dtype)
        found = kernel(others, x) @ xp.solve(kernel(x, x) + noise, y[:, None])
        return ((found[:, 0] - wanted) ** 2).mean()

    return Case(loss, params, (rng.uniform(0, 5, 150), rng.standard_normal(150),
                               rng.uniform(0, 5, 50), rng.standard_normal(50)))


@program
def sinkhorn(rng: Random) -> Case:
    """What it costs to move 100 points of the plane to 120 others: entropic transport, 30 rounds in logarithms."""
    blur = 0.1

    def loss(xp: Any, x: Any, y: Any) -> Any:
        cost = ((x[:, None, :] - y) ** 2).sum(-1)
        log_x, log_y = -math.log(x.shape[0]), -math.log(y.shape[0])

        def balance(potentials: Any) -> Any:
            _, g = potentials
            f = -blur * xp.logsumexp((g - cost) / blur + log_y, 1)
            return f, -blur * xp.logsumexp((f[:, None] - cost) / blur + log_x, 0)

        f, g = xp.iterate(balance, (0 * cost[:, 0], 0 * cost[0]), 30)
        return f.mean() + g.mean()

    return Case(loss, normal(rng, 100, 2), (normal(rng, 120, 2),))
