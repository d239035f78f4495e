"""NumPy and its BLAS: forward and backward written out, updates in place. What one can do without any framework."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from benchmarks.kinds import BETAS, EPS, MOMENTUM, Array, Chain, Mlp, Params, Workload
from benchmarks.peers import Runner, Unsupported

Result = tuple[Array, ...]


def build(w: Workload, form: str) -> Runner:
    match w:
        case Chain():
            function: Callable[..., Result] = chain
        case Mlp(norm=False):
            function = functools.partial(mlp_step, w, w.params(), updater(w))
        case _:
            raise Unsupported(type(w).__name__)
    return Runner(functools.partial(function, *w.inputs()), lambda parts: [float(v.sum()) for v in parts],
                  functools.partial(function, *w.inputs(w.other_batch)))


def chain(x: Array, y: Array) -> Result:
    t, s, e = np.tanh(x), np.sin(y), np.exp(-x * x)
    square, q = y * y, 1 / (1 + np.exp(-x * y))
    log, slope = np.log1p(square), q * (1 - q)
    value = (t * s + e * log - q).sum()
    gx = (1 - t * t) * s - 2 * x * e * log - slope * y
    gy = t * np.cos(y) + e * (2 * y / (1 + square)) - slope * x
    return value, gx, gy


def mlp_step(w: Mlp, params: Params, update: Callable[[Params, Params], None], x: Array, y: Array) -> Result:
    hidden = [x]
    for i in range(w.layers):
        z = hidden[-1] @ params[f"l{i}.weight"].T
        z += params[f"l{i}.bias"]
        if i < w.layers - 1:
            z = np.maximum(z, 0, out=z) if w.activation == "relu" else np.tanh(z, out=z)
        hidden.append(z)
    loss, d = hinge(hidden[-1], y) if w.loss == "hinge" else cross_entropy(hidden[-1], y)
    grads: Params = {}
    for i in reversed(range(w.layers)):
        h = hidden[i]
        grads[f"l{i}.weight"], grads[f"l{i}.bias"] = d.T @ h, d.sum(0)
        if i:
            d = d @ params[f"l{i}.weight"]
            d *= (h > 0) if w.activation == "relu" else 1 - h * h
    if w.loss == "hinge":
        for name, p in params.items():
            loss += w.decay * (p * p).sum()
            grads[name] += 2 * w.decay * p
    update(params, grads)
    return (loss,)


def cross_entropy(z: Array, labels: Array) -> tuple[Array, Array]:
    """Mean loss and its gradient."""
    rows = np.arange(len(labels))
    z = z - z.max(1, keepdims=True)
    d = np.exp(z)
    total = d.sum(1, keepdims=True)
    loss = np.log(total).mean() - z[rows, labels].mean()
    d /= total
    d[rows, labels] -= 1
    d /= len(labels)
    return loss, d


def hinge(score: Array, y: Array) -> tuple[Array, Array]:
    margin = 1 - y * score
    return np.maximum(margin, 0).mean(), -y * (margin > 0) / margin.dtype.type(margin.size)


def updater(w: Workload) -> Callable[[Params, Params], None]:
    """update(params, grads), in place; it may change the gradients."""
    zeros = {name: np.zeros_like(p) for name, p in w.params().items()}
    if w.optimizer == "sgd":
        return functools.partial(sgd, w.lr)
    if w.optimizer == "momentum":
        return functools.partial(momentum, w.lr, zeros)
    return functools.partial(adam, w.lr, zeros, {name: z.copy() for name, z in zeros.items()}, [0])


def sgd(lr: float, params: Params, grads: Params) -> None:
    for name, p in params.items():
        g = grads[name]
        g *= lr
        p -= g


def momentum(lr: float, means: Params, params: Params, grads: Params) -> None:
    for name, m in means.items():
        m *= MOMENTUM
        m += grads[name]
        np.multiply(m, lr, out=grads[name])
        params[name] -= grads[name]


def adam(lr: float, means: Params, squares: Params, clock: list[int], params: Params, grads: Params) -> None:
    clock[0] += 1
    beta1, beta2 = BETAS
    step_size, correction = lr / (1 - beta1 ** clock[0]), (1 - beta2 ** clock[0]) ** -0.5
    for name, g in grads.items():
        m, v = means[name], squares[name]
        m += (1 - beta1) * (g - m)
        v *= beta2
        v += (1 - beta2) * g * g
        params[name] -= step_size * m / (np.sqrt(v) * correction + EPS)
