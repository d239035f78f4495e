"""JAX: one jitted step over a dict of parameters, its state donated; NCHW or NHWC; or 16 steps in one ``lax.scan``.

Weights are stored (in, out) and, for NHWC, windows (*window, in, out), as Flax does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.kinds import (
    BETAS,
    EPS,
    MOMENTUM,
    NORM_EPS,
    NORM_MOMENTUM,
    Bag,
    Call,
    Chain,
    ConvNet,
    Gpt,
    Hvp,
    Mlp,
    Rnn,
    Workload,
)
from benchmarks.peers import Runner, Unsupported

SCANNED = 16
Tree = dict[str, Any]
# loss(params, buffers, key, x, y) -> (loss, new buffers)
Loss = Callable[[Tree, Tree, Any, Any, Any], tuple[Any, Tree]]


def build(w: Workload, form: str) -> Runner:
    if w.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    inputs, other = place(w.inputs()), place(w.inputs(w.other_batch))
    if w.optimizer:
        return train(w, form, inputs, other)
    if form == "scan":
        raise Unsupported("it has no update to repeat")
    function, numbers = function_of(w)
    call = jax.jit(function)
    if isinstance(w, Hvp):
        call = functools.partial(call, *({name: jnp.asarray(v) for name, v in tree.items()}
                                         for tree in (w.params(), w.direction())))
    return Runner(functools.partial(call, *inputs), numbers, functools.partial(call, *other), jax.block_until_ready)


def place(arrays: tuple[np.ndarray[Any, Any], ...]) -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(x) for x in arrays)


# ---- functions without an update


def function_of(w: Workload) -> tuple[Callable[..., Any], Callable[[Any], list[float]]]:
    match w:
        case Chain():
            return jax.value_and_grad(chain, argnums=(0, 1)), value_and_sums
        case Call():
            return (lambda x: x + 1), lambda y: [float(v) for v in y]
        case Hvp():
            return functools.partial(hvp, w), lambda tree: [float(jnp.abs(tree[name]).sum()) for name in w.params()]
        case _:
            raise Unsupported(type(w).__name__)


def chain(x: Any, y: Any) -> Any:
    return (jnp.tanh(x) * jnp.sin(y) + jnp.exp(-x * x) * jnp.log1p(y * y) - jax.nn.sigmoid(x * y)).sum()


def value_and_sums(result: Any) -> list[float]:
    value, (gx, gy) = result
    return [float(value), float(gx.sum()), float(gy.sum())]


def hvp(w: Hvp, params: Tree, direction: Tree, x: Any, y: Any) -> Tree:
    def loss(p: Tree) -> Any:
        h = x
        for i in range(len(w.sizes) - 1):
            h = (jnp.tanh(h) if i else h) @ p[f"l{i}.weight"].T + p[f"l{i}.bias"]
        return ((h - y) ** 2).mean()

    tangent: Tree = jax.jvp(jax.grad(loss), (params,), (direction,))[1]
    return tangent


# ---- training steps


def train(w: Workload, form: str, inputs: tuple[Any, ...], other: tuple[Any, ...]) -> Runner:
    last = form == "nhwc" or (form == "scan" and isinstance(w, ConvNet))
    if last:
        inputs, other = ((jnp.moveaxis(x, 1, -1), y) for x, y in (inputs, other))
    params = parameters(w, last)
    key = jax.random.key(0)
    state = (params, buffers(w), moments(w, params), jnp.zeros((), jnp.int32), key)
    step = one_step(w, loss_of(w, last))
    if form == "scan":
        call = jax.jit(lambda state, x, y: lax.scan(lambda s, _: step(s, x, y), state, length=SCANNED),
                       donate_argnums=0)
    else:
        call = jax.jit(step, donate_argnums=0)

    def run(data: tuple[Any, ...]) -> Any:
        nonlocal state
        state, loss = call(state, *data)
        return loss

    return Runner(functools.partial(run, inputs), lambda loss: [float(v) for v in np.atleast_1d(loss)],
                  functools.partial(run, other), jax.block_until_ready, SCANNED if form == "scan" else 1)


def one_step(w: Workload, loss: Loss) -> Callable[..., Any]:
    update = UPDATES[w.optimizer]
    random = isinstance(w, Mlp) and w.dropout > 0

    def step(state: Any, x: Any, y: Any) -> Any:
        params, buffers, moments, count, key = state
        key, used = jax.random.split(key) if random else (key, key)
        (value, buffers), grads = jax.value_and_grad(loss, has_aux=True)(params, buffers, used, x, y)
        count = count + 1
        new = {name: update(w.lr, count, p, grads[name], *moments[name]) for name, p in params.items()}
        params = {name: parts[0] for name, parts in new.items()}
        return (params, buffers, {name: parts[1:] for name, parts in new.items()}, count, key), value

    return step


def moments(w: Workload, params: Tree) -> Tree:
    count = {"sgd": 0, "momentum": 1, "adam": 2}[w.optimizer]
    return {name: tuple(jnp.zeros_like(p) for _ in range(count)) for name, p in params.items()}


def sgd(lr: float, count: Any, p: Any, g: Any) -> tuple[Any, ...]:
    return (p - lr * g,)


def momentum(lr: float, count: Any, p: Any, g: Any, m: Any) -> tuple[Any, ...]:
    m = MOMENTUM * m + g
    return p - lr * m, m


def adam(lr: float, count: Any, p: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
    beta1, beta2 = BETAS
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    step_size, correction = lr / (1 - beta1**count), lax.rsqrt(1 - beta2**count)
    return p - (step_size * m / (jnp.sqrt(v) * correction + EPS)).astype(p.dtype), m, v


UPDATES: dict[str, Callable[..., tuple[Any, ...]]] = {"sgd": sgd, "momentum": momentum, "adam": adam}


# ---- models


def parameters(w: Workload, last: bool) -> Tree:
    """The workload's parameters in JAX's layouts."""
    values: Tree = {}
    for name, p in w.params().items():
        if isinstance(w, ConvNet) and last and p.ndim > 2:
            p = np.moveaxis(p, (0, 1), (-1, -2))
        elif isinstance(w, ConvNet) and last and name == "l0.weight":  # the image is flattened in another order
            images = p.reshape(-1, w.windows[-1].out, *w.last_lengths)
            p = np.moveaxis(images, 1, -1).reshape(p.shape).T
        elif p.ndim == 2 and name.split(".")[0] not in ("token", "place", "words"):
            p = p.T
        values[name] = jnp.array(p)
    return values


def buffers(w: Workload) -> Tree:
    """Running mean and variance of each normalised layer."""
    if not (isinstance(w, Mlp) and w.norm):
        return {}
    return {f"n{i}": (jnp.zeros(n), jnp.ones(n)) for i, n in enumerate(w.sizes[1:-1])}


def loss_of(w: Workload, last: bool) -> Loss:
    def plain(forward: Callable[[Tree, Any], Any]) -> Loss:
        return lambda p, buffers, key, x, y: (cross_entropy(forward(p, x), y), buffers)

    match w:
        case Mlp():
            return functools.partial(mlp_loss, w)
        case ConvNet():
            return plain(functools.partial(conv_net, w, last))
        case Gpt():
            return plain(functools.partial(gpt, w))
        case Rnn():
            return plain(rnn)
        case Bag():
            return plain(lambda p, ids: linear(p, "out", p["words.weight"][ids].mean(1)))
        case _:
            raise Unsupported(type(w).__name__)


def linear(p: Tree, name: str, x: Any) -> Any:
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def cross_entropy(logits: Any, labels: Any) -> Any:
    log_p = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_p, labels[..., None], axis=-1).mean()


def mlp_loss(w: Mlp, p: Tree, buffers: Tree, key: Any, x: Any, y: Any) -> tuple[Any, Tree]:
    buffers = dict(buffers)
    for i in range(w.layers - 1):
        x = linear(p, f"l{i}", x)
        if w.norm:
            x, buffers[f"n{i}"] = batch_norm(p, f"n{i}", x, *buffers[f"n{i}"])
        x = jax.nn.relu(x) if w.activation == "relu" else jnp.tanh(x)
        if w.dropout:
            key, used = jax.random.split(key)
            x = jnp.where(jax.random.bernoulli(used, 1 - w.dropout, x.shape), x / (1 - w.dropout), 0)
    x = linear(p, f"l{w.layers - 1}", x)
    if w.loss == "hinge":
        return jax.nn.relu(1 - y * x).mean() + w.decay * sum((v * v).sum() for v in p.values()), buffers
    return cross_entropy(x, y), buffers


def batch_norm(p: Tree, name: str, x: Any, mean: Any, var: Any) -> tuple[Any, tuple[Any, Any]]:
    m, v = x.mean(0), x.var(0)
    n = x.shape[0]
    new = (mean + NORM_MOMENTUM * (m - mean), var + NORM_MOMENTUM * (v * (n / (n - 1)) - var))
    y = (x - m) * lax.rsqrt(v + NORM_EPS) * p[f"{name}.weight"] + p[f"{name}.bias"]
    return y, lax.stop_gradient(new)


def conv_net(w: ConvNet, last: bool, p: Tree, x: Any) -> Any:
    axes = "HW"[: len(w.lengths)]
    layout = (f"N{axes}C", f"{axes}IO", f"N{axes}C") if last else (f"NC{axes}", f"OI{axes}", f"NC{axes}")
    rank = len(axes)
    for i, window in enumerate(w.windows):
        x = lax.conv_general_dilated(x, p[f"c{i}.weight"], (window.stride,) * rank,
                                     [(window.padding, window.padding)] * rank, dimension_numbers=layout)
        bias = p[f"c{i}.bias"]
        x = jax.nn.relu(x + (bias if last else bias.reshape(-1, *(1,) * rank)))
        if window.pool > 1:
            x = max_pool(x, window.pool, range(1, 1 + rank) if last else range(2, 2 + rank))
    x = x.reshape(x.shape[0], -1)
    for i in range(len(w.dense_sizes)):
        x = linear(p, f"l{i}", jax.nn.relu(x) if i else x)
    return x


def max_pool(x: Any, size: int, axes: range) -> Any:
    """Windows side by side as a maximum over split axes: its gradient is several times faster on a CPU than
    that of ``lax.reduce_window``.
    """
    shape: list[int] = []
    for axis, n in enumerate(x.shape):
        shape += [n // size, size] if axis in axes else [n]
    return x.reshape(shape).max([axis + 1 + k for k, axis in enumerate(axes)])


def gpt(w: Gpt, p: Tree, ids: Any) -> Any:
    x = p["token.weight"][ids] + p["place.weight"]
    for i in range(w.blocks):
        name = f"b{i}"
        x = x + linear(p, f"{name}.project", attention(w, linear(p, f"{name}.qkv", layer_norm(p, f"{name}.norm1", x))))
        x = x + linear(p, f"{name}.down", jax.nn.gelu(linear(p, f"{name}.up", layer_norm(p, f"{name}.norm2", x))))
    return layer_norm(p, "norm", x) @ p["head.weight"]


def attention(w: Gpt, qkv: Any) -> Any:
    batch, time, _ = qkv.shape
    q, k, v = (part.reshape(batch, time, w.heads, -1) for part in jnp.split(qkv, 3, axis=-1))
    scores = jnp.einsum("bthd,bshd->bhts", q, k) * q.shape[-1] ** -0.5
    scores = jnp.where(jnp.tril(jnp.ones((time, time), bool)), scores, -jnp.inf)
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v).reshape(batch, time, w.width)


def layer_norm(p: Tree, name: str, x: Any) -> Any:
    m = x.mean(-1, keepdims=True)
    v = x.var(-1, keepdims=True)
    return (x - m) * lax.rsqrt(v + NORM_EPS) * p[f"{name}.weight"] + p[f"{name}.bias"]


def rnn(p: Tree, x: Any) -> Any:
    pulses = jnp.swapaxes(x @ p["ih.weight"], 0, 1)
    start = jnp.zeros(pulses.shape[1:], pulses.dtype)
    h, _ = lax.scan(lambda h, pulse: (jnp.tanh(pulse + h @ p["hh.weight"]), None), start, pulses)
    return linear(p, "out", h)
