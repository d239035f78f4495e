"""graphjit: models of ``nn`` and optimizers of ``optim``; the step compiled, or the same function eagerly."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import graphjit as gj
import graphjit.nn.functional as F
from benchmarks.kinds import MOMENTUM, Bag, Call, Chain, ConvNet, Gpt, Hvp, Mlp, Params, Rnn, Workload
from benchmarks.peers import Runner, Unsupported
from graphjit import Tensor, nn, optim

Loss = Callable[[Tensor, Tensor], Tensor]


def build(w: Workload, form: str) -> Runner:
    function, numbers = function_of(w)
    call = gj.compile(function) if form == "compiled" else eagerly(function)
    other = w.inputs(w.other_batch)
    return Runner(functools.partial(call, *w.inputs()), numbers, functools.partial(call, *other),
                  alone=functools.partial(alone, w) if form == "compiled" else None)


def alone(w: Workload) -> Runner:
    """A compiled step that runs on one thread whatever others run on: how many is settled when it is compiled."""
    threads = gj.get_num_threads()
    gj.set_num_threads(1)
    try:
        runner = build(w, "compiled")
        runner.step()
    finally:
        gj.set_num_threads(threads)
    return runner


def eagerly(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arrays: np.ndarray[Any, Any]) -> Any:
        return function(*(gj.tensor(x) for x in arrays))

    return call


def function_of(w: Workload) -> tuple[Callable[..., Any], Callable[[Any], list[float]]]:
    """What is compiled, and how its result is read."""
    match w:
        case Chain():
            return gj.value_and_grad(chain, argnums=(0, 1)), value_and_sums
        case Call():
            return (lambda x: x + 1), lambda y: [float(v) for v in y.numpy()]
        case Hvp():
            return hessian_vector_product(w), lambda tree: [float(abs(t.numpy()).sum()) for t in tree]
        case _:
            return train_step(w), lambda loss: [float(loss.item())]


def chain(x: Tensor, y: Tensor) -> Tensor:
    return (gj.tanh(x) * gj.sin(y) + gj.exp(-x * x) * gj.log1p(y * y) - gj.sigmoid(x * y)).sum()


def value_and_sums(result: Any) -> list[float]:
    value, (gx, gy) = result
    return [float(value.item()), float(gx.numpy().sum()), float(gy.numpy().sum())]


def hessian_vector_product(w: Hvp) -> Callable[[Tensor, Tensor], Any]:
    params = [gj.tensor(p) for p in w.params().values()]
    direction = [gj.tensor(v) for v in w.direction().values()]

    def product(x: Tensor, y: Tensor) -> Any:
        def loss(params: list[Tensor]) -> Tensor:
            h = x
            for i in range(0, len(params), 2):
                h = F.linear(gj.tanh(h) if i else h, params[i], params[i + 1])
            return F.mse_loss(h, y)

        return gj.hvp(loss, params, direction)

    return product


def train_step(w: Workload) -> Loss:
    model, loss_of = model_and_loss(w)
    load(model, w.params())
    match w.optimizer:
        case "sgd":
            opt: optim.Optimizer = optim.SGD(model.parameters(), lr=w.lr)
        case "momentum":
            opt = optim.SGD(model.parameters(), lr=w.lr, momentum=MOMENTUM)
        case _:
            opt = optim.Adam(model.parameters(), lr=w.lr)

    def step(x: Tensor, y: Tensor) -> Tensor:
        opt.zero_grad()
        loss = loss_of(x, y)
        loss.backward()
        opt.step()
        return loss

    return step


def load(model: nn.Module, params: Params) -> None:
    """The workload's values; its order is that of the layers."""
    own = list(model.parameters())
    for p, value in zip(own, params.values(), strict=True):
        p.assign(value)


def model_and_loss(w: Workload) -> tuple[nn.Module, Loss]:
    match w:
        case Mlp(loss="hinge"):
            model = mlp(w)
            return model, lambda x, y: hinge(model, x, y, w.decay)
        case Mlp():
            model = mlp(w)
        case ConvNet():
            model = conv_net(w)
        case Gpt():
            model = Transformer(w)
            return model, lambda x, y: F.cross_entropy(model(x).reshape(-1, w.vocabulary), y.reshape(-1))
        case Rnn():
            model = Recurrent(w)
        case Bag():
            model = WordBag(w)
        case _:
            raise Unsupported(type(w).__name__)
    return model, lambda x, y: F.cross_entropy(model(x), y)


def hinge(model: nn.Module, x: Tensor, y: Tensor, decay: float) -> Tensor:
    data_loss = F.relu(1 - y * model(x)).mean()
    return data_loss + decay * sum((p * p).sum() for p in model.parameters())


def mlp(w: Mlp) -> nn.Module:
    layers: list[nn.Module] = []
    for i, (into, out) in enumerate(zip(w.sizes, w.sizes[1:], strict=False)):
        layers.append(nn.Linear(into, out, dtype=w.dtype))
        if i == w.layers - 1:
            break
        if w.norm:
            layers.append(nn.BatchNorm1d(out))
        layers.append(nn.ReLU() if w.activation == "relu" else nn.Tanh())
        if w.dropout:
            layers.append(nn.Dropout(w.dropout))
    return nn.Sequential(*layers)


def conv_net(w: ConvNet) -> nn.Module:
    conv, pool = ((nn.Conv1d, nn.MaxPool1d), (nn.Conv2d, nn.MaxPool2d))[len(w.lengths) - 1]
    layers: list[nn.Module] = []
    for window in w.windows:
        layers += [conv(window.into, window.out, window.size, stride=window.stride, padding=window.padding),
                   nn.ReLU()]
        if window.pool > 1:
            layers.append(pool(window.pool))
    layers.append(nn.Flatten())
    for i, (into, out) in enumerate(zip(w.sizes, w.sizes[1:], strict=False)):
        layers += [nn.ReLU()] * (i > 0) + [nn.Linear(into, out)]
    return nn.Sequential(*layers)


class Block(nn.Module):
    """Attention and an MLP, each on the normalised residual stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.project(self.attention(self.norm1(x)))
        added: Tensor = self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))
        return x + added

    def attention(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        q, k, v = (part.reshape(batch, time, self.heads, -1).transpose(0, 2, 1, 3)
                   for part in gj.split(self.qkv(x), 3, axis=-1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.transpose(0, 2, 1, 3).reshape(batch, time, width)


class Transformer(nn.Module):
    """Logits of the next token at each position."""

    def __init__(self, w: Gpt) -> None:
        super().__init__()
        self.token = nn.Embedding(w.vocabulary, w.width)
        self.place = nn.Embedding(w.context, w.width)
        self.blocks = nn.Sequential(*(Block(w.width, w.heads) for _ in range(w.blocks)))
        self.norm = nn.LayerNorm(w.width)
        self.head = nn.Linear(w.width, w.vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids) + self.place.weight
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


class Recurrent(nn.Module):
    """Logits after the last time."""

    def __init__(self, w: Rnn) -> None:
        super().__init__()
        self.ih = nn.Linear(w.features, w.width, bias=False)
        self.hh = nn.Linear(w.width, w.width, bias=False)
        self.out = nn.Linear(w.width, w.classes)

    def forward(self, x: Tensor) -> Tensor:
        pulses = self.ih(x)
        h = gj.tanh(pulses[:, 0])
        for t in range(1, x.shape[1]):
            h = gj.tanh(pulses[:, t] + self.hh(h))
        logits: Tensor = self.out(h)
        return logits


class WordBag(nn.Module):
    """Logits of a bag of words."""

    def __init__(self, w: Bag) -> None:
        super().__init__()
        self.words = nn.Embedding(w.vocabulary, w.width)
        self.out = nn.Linear(w.width, w.classes)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.out(self.words(ids).mean(axis=1))
        return logits
