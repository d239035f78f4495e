"""PyTorch: the loss eagerly with a fused optimizer; the same with the loss through ``torch.compile``; or the whole
step, gradient by ``torch.func`` and the update written out, through ``torch.compile``.

Losses are functions of a dict of tensors: ``nn.Module`` would only add overhead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

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
    ConvNet,
    Gpt,
    Hvp,
    Mlp,
    Params,
    Rnn,
    Workload,
)
from benchmarks.peers import Runner, Unsupported

Tree = dict[str, Tensor]
Loss = Callable[..., tuple[Tensor, Tree]]  # loss(params, buffers, x, y) -> (loss, new buffers)


def build(w: Workload, form: str) -> Runner:
    inputs, other = tensors(w.inputs()), tensors(w.inputs(w.other_batch))
    function, numbers = training(w, form) if w.optimizer else function_of(w, form)
    return Runner(functools.partial(function, *inputs), numbers, functools.partial(function, *other))


def tensors(arrays: tuple[Array, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor(x) for x in arrays)


def tree(params: Params) -> Tree:
    return {name: tensor(p) for name, p in params.items()}


def tensor(x: Array) -> Tensor:
    """Shares memory, except that images and their windows are channels-last, as PyTorch advises on CPUs."""
    return torch.from_numpy(x).to(memory_format=torch.channels_last if x.ndim == 4 else torch.preserve_format)


# ---- functions without an update


def function_of(w: Workload, form: str) -> tuple[Callable[..., Any], Callable[[Any], list[float]]]:
    match w, form:
        case Call(), "func":
            raise Unsupported("the same as torch.compile")
        case Call(), _:
            return compiled(form, lambda x: x + 1), lambda y: [float(v) for v in y]
        case Chain(), "func":
            both = torch.compile(torch.func.grad_and_value(chain, argnums=(0, 1)))
            return both, lambda result: value_and_sums(result[1], result[0])
        case Chain(), _:
            function = compiled(form, chain)

            def value_and_grad(x: Tensor, y: Tensor) -> Any:
                x.requires_grad_()
                y.requires_grad_()
                value = function(x, y)
                return value, torch.autograd.grad(value, (x, y))

            return value_and_grad, lambda result: value_and_sums(*result)
        case Hvp(), "compile":
            raise Unsupported("torch.compile does not differentiate twice")
        case Hvp(), _:
            function = torch.compile(forward_over_reverse) if form == "func" else reverse_over_reverse
            call = functools.partial(function, tree(w.params()), tree(w.direction()))
            return call, lambda product: [float(v.abs().sum()) for v in product]
        case _:
            raise Unsupported(type(w).__name__)


def compiled(form: str, function: Callable[..., Any]) -> Callable[..., Any]:
    return function if form == "eager" else torch.compile(function)


def chain(x: Tensor, y: Tensor) -> Tensor:
    return (torch.tanh(x) * torch.sin(y) + torch.exp(-x * x) * torch.log1p(y * y) - torch.sigmoid(x * y)).sum()


def value_and_sums(value: Tensor, grads: tuple[Tensor, Tensor]) -> list[float]:
    return [float(value.detach()), *(float(g.sum()) for g in grads)]


def tanh_mlp(params: Tree, x: Tensor, y: Tensor) -> Tensor:
    h = x
    for i in range(len(params) // 2):
        h = F.linear(torch.tanh(h) if i else h, params[f"l{i}.weight"], params[f"l{i}.bias"])
    return ((h - y) ** 2).mean()


def forward_over_reverse(params: Tree, direction: Tree, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    gradient = torch.func.grad(tanh_mlp)
    product = torch.func.jvp(lambda p: gradient(p, x, y), (params,), (direction,))[1]
    return tuple(product[name] for name in params)


def reverse_over_reverse(params: Tree, direction: Tree, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    leaves = [p.requires_grad_() for p in params.values()]
    grads = torch.autograd.grad(tanh_mlp(params, x, y), leaves, create_graph=True)
    return torch.autograd.grad(grads, leaves, grad_outputs=list(direction.values()))


# ---- training steps


def training(w: Workload, form: str) -> tuple[Callable[..., Tensor], Callable[[Any], list[float]]]:
    return (whole_step(w) if form == "func" else by_parts(w, form)), lambda loss: [float(loss.detach())]


def by_parts(w: Workload, form: str) -> Callable[..., Tensor]:
    params, state = tree(w.params()), buffers(w)
    for p in params.values():
        p.requires_grad_()
    loss_function = compiled(form, loss_of(w, form))
    opt: torch.optim.Optimizer
    match w.optimizer:
        case "sgd":
            opt = torch.optim.SGD(params.values(), lr=w.lr, fused=True)
        case "momentum":
            opt = torch.optim.SGD(params.values(), lr=w.lr, momentum=MOMENTUM, fused=True)
        case _:
            opt = torch.optim.Adam(params.values(), lr=w.lr, betas=BETAS, eps=EPS, fused=True)

    def step(x: Tensor, y: Tensor) -> Tensor:
        opt.zero_grad()
        loss: Tensor = loss_function(params, state, x, y)[0]
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        opt.step()
        return loss

    return step


def whole_step(w: Workload) -> Callable[..., Tensor]:
    params, state = tree(w.params()), buffers(w)
    count = {"sgd": 0, "momentum": 1, "adam": 2}[w.optimizer]
    moments = {name: tuple(torch.zeros_like(p) for _ in range(count)) for name, p in params.items()}
    clock = torch.zeros(())
    update = UPDATES[w.optimizer]
    gradient = torch.func.grad_and_value(loss_of(w, "func"), has_aux=True)

    @torch.compile
    def step(params: Tree, state: Tree, moments: Any, clock: Tensor, x: Tensor, y: Tensor) -> Tensor:
        grads, (loss, new_state) = gradient(params, state, x, y)
        clock.add_(1)
        for name, p in params.items():
            new, *new_moments = update(w.lr, clock, p, grads[name], *moments[name])
            p.copy_(new)
            for old, m in zip(moments[name], new_moments, strict=True):
                old.copy_(m)
        for name, buffer in state.items():
            buffer.copy_(new_state[name])
        return loss  # type: ignore[no-any-return]  # what torch compiled

    def call(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            return step(params, state, moments, clock, x, y)

    return call


def sgd(lr: float, clock: Tensor, p: Tensor, g: Tensor) -> tuple[Tensor, ...]:
    return (p - lr * g,)


def momentum(lr: float, clock: Tensor, p: Tensor, g: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    m = MOMENTUM * m + g
    return p - lr * m, m


def adam(lr: float, clock: Tensor, p: Tensor, g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    beta1, beta2 = BETAS
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    step_size, correction = lr / (1 - beta1**clock), torch.rsqrt(1 - beta2**clock)
    return p - step_size * m / (torch.sqrt(v) * correction + EPS), m, v


UPDATES: dict[str, Callable[..., tuple[Tensor, ...]]] = {"sgd": sgd, "momentum": momentum, "adam": adam}


# ---- models


def buffers(w: Workload) -> Tree:
    """Running mean and variance of each normalised layer."""
    if not (isinstance(w, Mlp) and w.norm):
        return {}
    sizes = dict(enumerate(w.sizes[1:-1]))
    return {f"n{i}.mean": torch.zeros(n) for i, n in sizes.items()} | \
           {f"n{i}.var": torch.ones(n) for i, n in sizes.items()}


def loss_of(w: Workload, form: str) -> Loss:
    def plain(forward: Callable[[Tree, Tensor], Tensor]) -> Loss:
        return lambda p, state, x, y: (F.cross_entropy(forward(p, x), y), state)

    match w:
        case Mlp():
            return functools.partial(mlp_loss, w, batch_norm_apart if form == "func" else batch_norm)
        case ConvNet():
            return plain(functools.partial(conv_net, w))
        case Gpt():
            return lambda p, state, x, y: (F.cross_entropy(gpt(w, p, x).flatten(0, 1), y.flatten()), state)
        case Rnn():
            return plain(rnn if form == "eager" else unrolled)
        case Bag():
            return plain(lambda p, ids: linear(p, "out", F.embedding_bag(ids, p["words.weight"], mode="mean")))
        case _:
            raise Unsupported(type(w).__name__)


def linear(p: Tree, name: str, x: Tensor) -> Tensor:
    return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def mlp_loss(w: Mlp, norm: Callable[..., Tensor], p: Tree, state: Tree, x: Tensor, y: Tensor) -> tuple[Tensor, Tree]:
    state = dict(state)
    for i in range(w.layers - 1):
        x = linear(p, f"l{i}", x)
        if w.norm:
            x = norm(p, state, f"n{i}", x)
        x = torch.relu(x) if w.activation == "relu" else torch.tanh(x)
        if w.dropout:
            x = F.dropout(x, w.dropout)
    x = linear(p, f"l{w.layers - 1}", x)
    if w.loss == "hinge":
        return torch.relu(1 - y * x).mean() + w.decay * sum((v * v).sum() for v in p.values()), state
    return F.cross_entropy(x, y), state


def batch_norm(p: Tree, state: Tree, name: str, x: Tensor) -> Tensor:
    return F.batch_norm(x, state[f"{name}.mean"], state[f"{name}.var"], p[f"{name}.weight"], p[f"{name}.bias"],
                        training=True, momentum=NORM_MOMENTUM, eps=NORM_EPS)


def batch_norm_apart(p: Tree, state: Tree, name: str, x: Tensor) -> Tensor:
    """Inside ``torch.func.grad`` what is captured cannot be changed in place: the statistics become results."""
    var, mean = torch.var_mean(x, 0, correction=0)
    n = x.shape[0]
    for key, value in (("mean", mean), ("var", var * (n / (n - 1)))):
        old = state[f"{name}.{key}"]
        state[f"{name}.{key}"] = old + NORM_MOMENTUM * (value.detach() - old)
    return (x - mean) * torch.rsqrt(var + NORM_EPS) * p[f"{name}.weight"] + p[f"{name}.bias"]


def conv_net(w: ConvNet, p: Tree, x: Tensor) -> Tensor:
    convolve, pool = ((F.conv1d, F.max_pool1d), (F.conv2d, F.max_pool2d))[len(w.lengths) - 1]
    for i, window in enumerate(w.windows):
        x = torch.relu(convolve(x, p[f"c{i}.weight"], p[f"c{i}.bias"], window.stride, window.padding))
        if window.pool > 1:
            x = pool(x, window.pool)
    x = x.flatten(1)
    for i in range(len(w.dense_sizes)):
        x = linear(p, f"l{i}", torch.relu(x) if i else x)
    return x


def gpt(w: Gpt, p: Tree, ids: Tensor) -> Tensor:
    x = F.embedding(ids, p["token.weight"]) + p["place.weight"]
    for i in range(w.blocks):
        name = f"b{i}"
        qkv = linear(p, f"{name}.qkv", layer_norm(p, f"{name}.norm1", x))
        x = x + linear(p, f"{name}.project", attention(w, qkv))
        hidden = F.gelu(linear(p, f"{name}.up", layer_norm(p, f"{name}.norm2", x)), approximate="tanh")
        x = x + linear(p, f"{name}.down", hidden)
    return F.linear(layer_norm(p, "norm", x), p["head.weight"])


def attention(w: Gpt, qkv: Tensor) -> Tensor:
    batch, time, _ = qkv.shape
    q, k, v = (part.reshape(batch, time, w.heads, -1).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return mixed.transpose(1, 2).reshape(batch, time, w.width)


def layer_norm(p: Tree, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), p[f"{name}.weight"], p[f"{name}.bias"], NORM_EPS)


def rnn(p: Tree, x: Tensor) -> Tensor:
    """What ``nn.RNN`` calls."""
    start = x.new_zeros(1, x.shape[0], p["hh.weight"].shape[0])
    _, h = torch.rnn_tanh(x, start, (p["ih.weight"], p["hh.weight"]), has_biases=False, num_layers=1, dropout=0.0,
                          train=True, bidirectional=False, batch_first=True)
    return linear(p, "out", h[0])


def unrolled(p: Tree, x: Tensor) -> Tensor:
    """For ``torch.compile``, which does not look into ``rnn_tanh``."""
    pulses = F.linear(x, p["ih.weight"])
    h = torch.tanh(pulses[:, 0])
    for t in range(1, x.shape[1]):
        h = torch.tanh(pulses[:, t] + F.linear(h, p["hh.weight"]))
    return linear(p, "out", h)
