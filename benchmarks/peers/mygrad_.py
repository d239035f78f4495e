"""MyGrad: NumPy with reverse mode; optimizers are the user's own, as its documentation shows."""

from __future__ import annotations

import functools
from typing import Any

import mygrad as mg
import numpy as np
from mygrad.nnet.activations import relu
from mygrad.nnet.losses import softmax_crossentropy

from benchmarks.kinds import NORM_EPS, NORM_MOMENTUM, Array, Bag, Chain, Mlp, Rnn, Workload
from benchmarks.peers import Runner, Unsupported
from benchmarks.peers.numpy_ import updater

Variables = dict[str, Any]


def build(w: Workload, form: str) -> Runner:
    mg.turn_memory_guarding_off()  # checks of writes into arrays, which cost time
    match w:
        case Chain():
            return Runner(functools.partial(chain, *w.inputs()), lambda parts: [float(v.sum()) for v in parts],
                          functools.partial(chain, *w.inputs(w.other_batch)))
        case Mlp(dropout=0.0) | Rnn() | Bag():
            step = train_step(w)
            return Runner(functools.partial(step, *w.inputs()), lambda loss: [float(loss)],
                          functools.partial(step, *w.inputs(w.other_batch)))
        case _:
            raise Unsupported(type(w).__name__)


def chain(x: Array, y: Array) -> tuple[Array, ...]:
    a, b = mg.tensor(x), mg.tensor(y)
    value = (mg.tanh(a) * mg.sin(b) + mg.exp(-a * a) * mg.log1p(b * b) - 1 / (1 + mg.exp(-a * b))).sum()
    value.backward()
    return value.data, a.grad, b.grad


def train_step(w: Workload) -> Any:
    params = {name: mg.tensor(p) for name, p in w.params().items()}
    arrays = {name: p.data for name, p in params.items()}
    buffers = norm_buffers(w)
    update = updater(w)

    def step(x: Array, y: Array) -> Any:
        loss = loss_of(w, params, buffers, x, y)
        loss.backward()
        update(arrays, {name: p.grad for name, p in params.items()})
        return loss.data

    return step


def loss_of(w: Workload, p: Variables, buffers: dict[str, Array], x: Any, y: Array) -> Any:
    match w:
        case Mlp(loss="hinge"):
            data_loss = mg.mean(relu(1 - y * mlp(w, p, buffers, x)))
            return data_loss + w.decay * sum(mg.sum(v * v) for v in p.values())
        case Mlp():
            logits = mlp(w, p, buffers, x)
        case Rnn():
            logits = rnn(w, p, x)
        case _:
            logits = linear(p, "out", mg.mean(p["words.weight"][x], axis=1))
    return softmax_crossentropy(logits, y)


def linear(p: Variables, name: str, x: Any) -> Any:
    return mg.matmul(x, p[f"{name}.weight"].T) + p[f"{name}.bias"]


def norm_buffers(w: Workload) -> dict[str, Array]:
    """Running mean and variance of each normalised layer."""
    if not (isinstance(w, Mlp) and w.norm):
        return {}
    sizes = dict(enumerate(w.sizes[1:-1]))
    return {f"n{i}": np.stack([np.zeros(n, w.dtype), np.ones(n, w.dtype)]) for i, n in sizes.items()}


def mlp(w: Mlp, p: Variables, buffers: dict[str, Array], x: Any) -> Any:
    for i in range(w.layers - 1):
        x = linear(p, f"l{i}", x)
        if w.norm:
            x = batch_norm(p, f"n{i}", buffers[f"n{i}"], x)
        x = relu(x) if w.activation == "relu" else mg.tanh(x)
    return linear(p, f"l{w.layers - 1}", x)


def batch_norm(p: Variables, name: str, running: Array, x: Any) -> Any:
    n = len(x)
    mean, var = mg.mean(x, axis=0), mg.var(x, axis=0)
    running += NORM_MOMENTUM * (np.stack([mean.data, var.data * (n / (n - 1))]) - running)
    return (x - mean) / mg.sqrt(var + NORM_EPS) * p[f"{name}.weight"] + p[f"{name}.bias"]


def rnn(w: Rnn, p: Variables, x: Array) -> Any:
    h = mg.tanh(mg.matmul(x[:, 0], p["ih.weight"].T))
    for t in range(1, x.shape[1]):
        h = mg.tanh(mg.matmul(x[:, t], p["ih.weight"].T) + mg.matmul(h, p["hh.weight"].T))
    return linear(p, "out", h)
