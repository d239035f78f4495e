"""PyTensor in Numba mode: one function whose updates write the shared parameters. It has no convolution of images."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from benchmarks.kinds import (
    BETAS,
    EPS,
    MOMENTUM,
    NORM_EPS,
    NORM_MOMENTUM,
    Array,
    Bag,
    Call,
    Chain,
    Gpt,
    Hvp,
    Mlp,
    Rnn,
    Workload,
)
from benchmarks.peers import Runner, Unsupported

Variables = dict[str, Any]


def build(w: Workload, form: str) -> Runner:
    pytensor.config.floatX = w.dtype
    arrays = w.inputs()
    inputs = [pt.tensor(dtype=x.dtype, shape=(None,) * x.ndim) for x in arrays]
    outputs, updates, numbers = graph(w, *inputs)
    start = time.perf_counter()
    function = pytensor.function([pytensor.In(x, borrow=True) for x in inputs],
                                 [pytensor.Out(out, borrow=True) for out in outputs],
                                 updates=updates, mode="NUMBA")
    spent = time.perf_counter() - start
    function.trust_input = True
    return Runner(functools.partial(function, *arrays), numbers,
                  functools.partial(function, *w.inputs(w.other_batch)), compiled=spent)


def graph(w: Workload, *inputs: Any) -> tuple[list[Any], Variables, Callable[[Any], list[float]]]:
    """Outputs, updates, and how the outputs are read."""
    match w:
        case Chain():
            value = chain(*inputs)
            return [value, *pytensor.grad(value, inputs)], {}, lambda parts: [float(v.sum()) for v in parts]
        case Call():
            return [inputs[0] + number(w, 1)], {}, lambda parts: [float(v) for v in parts[0]]
        case Hvp():
            return hvp(w, *inputs), {}, lambda parts: [float(abs(v).sum()) for v in parts]
        case _:
            loss, updates = training(w, *inputs)
            return [loss], updates, lambda parts: [float(parts[0])]


def chain(x: Any, y: Any) -> Any:
    return (pt.tanh(x) * pt.sin(y) + pt.exp(-x * x) * pt.log1p(y * y) - pt.sigmoid(x * y)).sum()


def hvp(w: Hvp, x: Any, y: Any) -> list[Any]:
    params = shared(w)
    h = x
    for i in range(len(w.sizes) - 1):
        h = linear(params, f"l{i}", pt.tanh(h) if i else h)
    grads = pytensor.grad(((h - y) ** 2).mean(), list(params.values()))
    direction = [turned(name, v) for name, v in w.direction().items()]
    along = sum((g * v).sum() for g, v in zip(grads, direction, strict=True))
    products: list[Any] = pytensor.grad(along, list(params.values()))
    return products


# ---- training steps


def shared(w: Workload) -> Variables:
    return {name: pytensor.shared(turned(name, p), name=name, borrow=True) for name, p in w.params().items()}


def turned(name: str, p: Array) -> Array:
    """A parameter in the layout used here: weights of linear layers as (in, out)."""
    linear_weight = p.ndim == 2 and name.split(".")[0] not in ("token", "place", "words")
    return np.ascontiguousarray(p.T) if linear_weight else p


def training(w: Workload, x: Any, y: Any) -> tuple[Any, Variables]:
    params = shared(w)
    updates: Variables = {}
    loss = loss_of(w, params, updates, x, y)
    grads = pytensor.grad(loss, list(params.values()))
    update = {"sgd": sgd, "momentum": momentum, "adam": adam}[w.optimizer]
    updates |= update(w, params.values(), grads)
    return loss, updates


def sgd(w: Workload, params: Any, grads: Any) -> Variables:
    return {p: p - number(w, w.lr) * g for p, g in zip(params, grads, strict=True)}


def momentum(w: Workload, params: Any, grads: Any) -> Variables:
    updates: Variables = {}
    for p, g in zip(params, grads, strict=True):
        m = zeros_like(p)
        updates[m] = number(w, MOMENTUM) * m + g
        updates[p] = p - number(w, w.lr) * updates[m]
    return updates


def adam(w: Workload, params: Any, grads: Any) -> Variables:
    beta1, beta2 = (number(w, b) for b in BETAS)
    one = number(w, 1)
    clock = pytensor.shared(number(w, 0))
    updates = {clock: clock + one}
    t = updates[clock]
    step_size, correction = number(w, w.lr) / (one - beta1**t), one / pt.sqrt(one - beta2**t)
    for p, g in zip(params, grads, strict=True):
        m, v = zeros_like(p), zeros_like(p)
        updates[m] = beta1 * m + (one - beta1) * g
        updates[v] = beta2 * v + (one - beta2) * g * g
        updates[p] = p - step_size * updates[m] / (pt.sqrt(updates[v]) * correction + number(w, EPS))
    return updates


def number(w: Workload, value: float) -> Any:
    """A constant of the workload's type; a Python float would turn float32 into float64."""
    return np.asarray(value, w.dtype)


def zeros_like(p: Any) -> Any:
    return pytensor.shared(np.zeros_like(p.get_value(borrow=True)), borrow=True)


# ---- models


def loss_of(w: Workload, p: Variables, updates: Variables, x: Any, y: Any) -> Any:
    match w:
        case Mlp(loss="hinge"):
            decay = number(w, w.decay) * sum((v * v).sum() for v in p.values())
            return pt.maximum(number(w, 1) - y * mlp(w, p, updates, x), number(w, 0)).mean() + decay
        case Mlp(dropout=0.0):
            return cross_entropy(mlp(w, p, updates, x), y)
        case Gpt():
            return cross_entropy(gpt(w, p, x).reshape((-1, w.vocabulary)), y.flatten())
        case Rnn():
            return cross_entropy(rnn(w, p, x), y)
        case Bag():
            return cross_entropy(linear(p, "out", p["words.weight"][x].mean(1)), y)
        case _:
            raise Unsupported(type(w).__name__)


def linear(p: Variables, name: str, x: Any) -> Any:
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def cross_entropy(logits: Any, labels: Any) -> Any:
    log_p = pt.special.log_softmax(logits, axis=-1)
    return -log_p[pt.arange(labels.shape[0]), labels].mean()


def mlp(w: Mlp, p: Variables, updates: Variables, x: Any) -> Any:
    for i in range(w.layers - 1):
        x = linear(p, f"l{i}", x)
        if w.norm:
            x = batch_norm(w, p, updates, f"n{i}", x)
        x = pt.maximum(x, number(w, 0)) if w.activation == "relu" else pt.tanh(x)
    return linear(p, f"l{w.layers - 1}", x)


def batch_norm(w: Workload, p: Variables, updates: Variables, name: str, x: Any) -> Any:
    mean, var = x.mean(0), x.var(0)
    n = x.shape[0].astype(w.dtype)
    size = p[f"{name}.bias"].get_value(borrow=True).size
    for old, value in ((np.zeros(size, w.dtype), mean), (np.ones(size, w.dtype), var * (n / (n - number(w, 1))))):
        running = pytensor.shared(old)
        updates[running] = running + number(w, NORM_MOMENTUM) * (value - running)
    return (x - mean) / pt.sqrt(var + number(w, NORM_EPS)) * p[f"{name}.weight"] + p[f"{name}.bias"]


def gpt(w: Gpt, p: Variables, ids: Any) -> Any:
    x = p["token.weight"][ids] + p["place.weight"]
    for i in range(w.blocks):
        name = f"b{i}"
        qkv = linear(p, f"{name}.qkv", layer_norm(w, p, f"{name}.norm1", x))
        x = x + linear(p, f"{name}.project", attention(w, qkv))
        hidden = gelu(w, linear(p, f"{name}.up", layer_norm(w, p, f"{name}.norm2", x)))
        x = x + linear(p, f"{name}.down", hidden)
    return layer_norm(w, p, "norm", x) @ p["head.weight"]


def attention(w: Gpt, qkv: Any) -> Any:
    shape = (qkv.shape[0], w.context, 3, w.heads, w.width // w.heads)
    parts = qkv.reshape(shape)
    q, k, v = (parts[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    scores = (q @ k.transpose(0, 1, 3, 2)) * number(w, shape[-1] ** -0.5)
    later = np.triu(np.ones((w.context, w.context), bool), 1)
    weights = pt.special.softmax(pt.where(later, number(w, -np.inf), scores), axis=-1)
    return (weights @ v).transpose(0, 2, 1, 3).reshape((qkv.shape[0], w.context, w.width))


def layer_norm(w: Workload, p: Variables, name: str, x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    var = (centred * centred).mean(-1, keepdims=True)
    return centred / pt.sqrt(var + number(w, NORM_EPS)) * p[f"{name}.weight"] + p[f"{name}.bias"]


def gelu(w: Workload, x: Any) -> Any:
    inner = number(w, (2 / np.pi) ** 0.5) * (x + number(w, 0.044715) * x * x * x)
    return number(w, 0.5) * x * (number(w, 1) + pt.tanh(inner))


def rnn(w: Rnn, p: Variables, x: Any) -> Any:
    pulses = (x @ p["ih.weight"]).transpose(1, 0, 2)
    start = pt.zeros((x.shape[0], w.width), dtype=w.dtype)
    states = pytensor.scan(lambda pulse, h, hh: pt.tanh(pulse + h @ hh), sequences=[pulses],
                           outputs_info=[start], non_sequences=[p["hh.weight"]], return_updates=False)
    return linear(p, "out", states[-1])
