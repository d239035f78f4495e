"""Kinds of workloads: what is computed, on which seeded data, and how much work that is.

All frameworks get the same NumPy arrays. Layouts and names are PyTorch's: a weight is (out, in), a convolution's
(out, in, *window), an image (batch, channel, *place); parameters stand in the order of the layers. A peer that
wants another layout converts them once.

``flops`` counts the multiplications and additions of matrix products and convolutions, forward and backward,
without the gradient of the input. ``bytes`` counts what must move even if every intermediate stayed in registers:
arguments read, results written, parameters and optimizer state read and written once a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Params = dict[str, Array]

STATE = {"": 0, "sgd": 2, "momentum": 4, "adam": 6}  # times the parameters' bytes that a step reads and writes
MOMENTUM = 0.9
BETAS, EPS = (0.9, 0.999), 1e-8
NORM_EPS, NORM_MOMENTUM = 1e-5, 0.1


@dataclass(frozen=True)
class Workload:
    """What every workload has.

    Attributes:
        target: the ratio of graphjit's time to the best peer's that we aim at.
        optimizer: "sgd", "momentum" (0.9), "adam", or "" when there is no update.
        slow: names of peers that compile for long; they are measured here without ``--all``.
        like: the workload whose losses are compared instead, for one whose own are random.
    """

    name: str
    text: str
    batch: int
    target: float = 1.0
    optimizer: str = ""
    lr: float = 0.0
    dtype: str = "float32"
    slow: tuple[str, ...] = ()
    like: str = ""

    def params(self) -> Params:
        """Parameters to start from."""
        return {}

    def inputs(self, batch: int | None = None) -> tuple[Array, ...]:
        """The arguments of a step, for the workload's own batch size or another one."""
        raise NotImplementedError

    @property
    def other_batch(self) -> int:
        """A batch size that was not seen before, as of a last, odd-sized batch."""
        return self.batch - self.batch // 3 if self.batch > 1 else 2

    @property
    def flops(self) -> int:
        return 0

    @property
    def bytes(self) -> int:
        state = sum(p.nbytes for p in self.params().values()) * STATE[self.optimizer]
        return state + sum(x.nbytes for x in self.inputs())

    def rng(self, *more: int) -> np.random.Generator:
        return np.random.default_rng([sum(self.name.encode()), *more])

    def dense(self, name: str, out: int, into: int, rng: np.random.Generator, bias: bool = True) -> Params:
        """Parameters of a linear layer, uniform in +-1/sqrt(in)."""
        bound = into**-0.5
        values = {f"{name}.weight": rng.uniform(-bound, bound, (out, into)).astype(self.dtype)}
        if bias:
            values[f"{name}.bias"] = rng.uniform(-bound, bound, out).astype(self.dtype)
        return values


@dataclass(frozen=True)
class Mlp(Workload):
    """Linear layers; each but the last followed by [BatchNorm1d], the activation, [dropout].

    ``loss`` is "cross_entropy", or "hinge": mean(relu(1 - y * score)) + decay * the sum of all squared parameters.
    """

    sizes: tuple[int, ...] = ()
    activation: str = "relu"
    norm: bool = False
    dropout: float = 0.0
    loss: str = "cross_entropy"
    decay: float = 1e-4

    @property
    def layers(self) -> int:
        return len(self.sizes) - 1

    def params(self) -> Params:
        rng = self.rng()
        values: Params = {}
        gain = 1.6 if self.layers > 10 else 1.0  # a deep net's signal would die out
        for i, (into, out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            values |= self.dense(f"l{i}", out, into, rng)
            values[f"l{i}.weight"] *= np.dtype(self.dtype).type(gain)
            if self.norm and i < self.layers - 1:
                values[f"n{i}.weight"] = np.ones(out, self.dtype)
                values[f"n{i}.bias"] = np.zeros(out, self.dtype)
        return values

    def inputs(self, batch: int | None = None) -> tuple[Array, ...]:
        n, rng = batch or self.batch, self.rng(1)
        if self.loss == "hinge":
            return two_moons(n, rng, self.dtype)
        x = rng.standard_normal((n, self.sizes[0])).astype(self.dtype)
        return x, rng.integers(0, self.sizes[-1], n)

    @property
    def flops(self) -> int:
        per_row = sum(a * b * (2 if i == 0 else 3) for i, (a, b) in
                      enumerate(zip(self.sizes, self.sizes[1:], strict=False)))
        return 2 * self.batch * per_row


def two_moons(n: int, rng: np.random.Generator, dtype: str) -> tuple[Array, Array]:
    """Two interleaved half circles with noise; labels -1 and 1. x: (n, 2), y: (n, 1)."""
    t = np.linspace(0, np.pi, n)
    label = np.where(np.arange(n) % 2 == 0, -1.0, 1.0)
    x = np.where(label < 0, np.cos(t), 1 - np.cos(t)), np.where(label < 0, np.sin(t), 0.5 - np.sin(t))
    return (np.stack(x, 1) + rng.normal(0, 0.1, (n, 2))).astype(dtype), label[:, None].astype(dtype)


@dataclass(frozen=True)
class Window:
    """A convolution, ReLU, and then a max-pooling when ``pool`` > 1; the same along every axis."""

    into: int
    out: int
    size: int
    stride: int = 1
    padding: int = 0
    pool: int = 1

    def lengths(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """Lengths after the convolution."""
        return tuple((n + 2 * self.padding - self.size) // self.stride + 1 for n in lengths)


@dataclass(frozen=True)
class ConvNet(Workload):
    """Convolutions over images of ``lengths``, flattened, then linear layers with ReLU between; cross-entropy."""

    lengths: tuple[int, ...] = ()
    windows: tuple[Window, ...] = ()
    dense_sizes: tuple[int, ...] = ()

    def stages(self) -> Iterator[tuple[Window, tuple[int, ...]]]:
        """Each convolution with the lengths of its result."""
        lengths = self.lengths
        for window in self.windows:
            lengths = window.lengths(lengths)
            yield window, lengths
            lengths = tuple(n // window.pool for n in lengths)

    @property
    def last_lengths(self) -> tuple[int, ...]:
        """Lengths where the image is flattened."""
        window, lengths = list(self.stages())[-1]
        return tuple(n // window.pool for n in lengths)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the linear layers."""
        return (self.windows[-1].out * int(np.prod(self.last_lengths)), *self.dense_sizes)

    def params(self) -> Params:
        rng = self.rng()
        values: Params = {}
        for i, w in enumerate(self.windows):
            shape = (w.out, w.into) + (w.size,) * len(self.lengths)
            bound = float(np.prod(shape[1:])) ** -0.5
            values[f"c{i}.weight"] = rng.uniform(-bound, bound, shape).astype(self.dtype)
            values[f"c{i}.bias"] = rng.uniform(-bound, bound, w.out).astype(self.dtype)
        for i, (into, out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            values |= self.dense(f"l{i}", out, into, rng)
        return values

    def inputs(self, batch: int | None = None) -> tuple[Array, ...]:
        n, rng = batch or self.batch, self.rng(1)
        x = rng.standard_normal((n, self.windows[0].into, *self.lengths)).astype(self.dtype)
        return x, rng.integers(0, self.sizes[-1], n)

    @property
    def flops(self) -> int:
        per_image = sum(a * b * 3 for a, b in zip(self.sizes, self.sizes[1:], strict=False))
        for i, (w, lengths) in enumerate(self.stages()):
            taps = w.into * w.out * w.size ** len(lengths)
            per_image += taps * int(np.prod(lengths)) * (2 if i == 0 else 3)
        return 2 * self.batch * per_image


@dataclass(frozen=True)
class Chain(Workload):
    """Value and both gradients of sum(tanh(x) sin(y) + exp(-x x) log1p(y y) - sigmoid(x y))."""

    def inputs(self, batch: int | None = None) -> tuple[Array, ...]:
        rng = self.rng(1)
        return tuple(rng.uniform(0.1, 2.0, batch or self.batch).astype(self.dtype) for _ in range(2))

    @property
    def bytes(self) -> int:
        return 2 * sum(x.nbytes for x in self.inputs())


@dataclass(frozen=True)
class Gpt(Workload):
    """Pre-norm transformer: token and position embedding, blocks, LayerNorm, linear head without bias.

    A block is x + project(attention(norm(x))), then x + down(gelu(up(norm(x)))), GELU by tanh; the query, key and
    value weights are one (3 d, d) matrix; attention is causal. Cross-entropy over all positions.
    """

    vocabulary: int = 65
    width: int = 128
    heads: int = 4
    blocks: int = 2
    context: int = 64

    def params(self) -> Params:
        rng, d = self.rng(), self.width
        values = {"token.weight": 0.1 * rng.standard_normal((self.vocabulary, d)),
                  "place.weight": 0.1 * rng.standard_normal((self.context, d))}
        for i in range(self.blocks):
            values |= _norm(f"b{i}.norm1", d)
            values |= self.dense(f"b{i}.qkv", 3 * d, d, rng)
            values |= self.dense(f"b{i}.project", d, d, rng)
            values |= _norm(f"b{i}.norm2", d)
            values |= self.dense(f"b{i}.up", 4 * d, d, rng)
            values |= self.dense(f"b{i}.down", d, 4 * d, rng)
        values |= _norm("norm", d)
        values |= self.dense("head", self.vocabulary, d, rng, bias=False)
        return {name: value.astype(self.dtype) for name, value in values.items()}

    def inputs(self, batch: int | None = None) -> tuple[Array, ...]:
        text = self.rng(1).integers(0, self.vocabulary, (batch or self.batch, self.context + 1))
        return text[:, :-1].copy(), text[:, 1:].copy()

    @property
    def flops(self) -> int:
        tokens = self.batch * self.context
        weights = self.blocks * 12 * self.width**2 + self.vocabulary * self.width
        attention = self.blocks * 2 * self.batch * self.context**2 * self.width
        return 2 * 3 * (tokens * weights + attention)


def _norm(name: str, n: int) -> Params:
    return {f"{name}.weight": np.ones(n), f"{name}.bias": np.zeros(n)}


@dataclass(frozen=True)
class Call(Workload):
    """``x + 1`` on one element: what a call costs."""

    def inputs(self, batch: int | None = None) -> tuple[Array, ...]:
        return (np.full(batch or self.batch, 0.5, self.dtype),)


@dataclass(frozen=True)
class Rnn(Workload):
    """h = tanh(x_t W_ih^T + h W_hh^T) over all times, then a linear layer on the last h; cross-entropy."""

    times: int = 100
    features: int = 8
    width: int = 64
    classes: int = 10

    def params(self) -> Params:
        rng = self.rng()
        return {**self.dense("ih", self.width, self.features, rng, bias=False),
                **self.dense("hh", self.width, self.width, rng, bias=False),
                **self.dense("out", self.classes, self.width, rng)}

    def inputs(self, batch: int | None = None) -> tuple[Array, ...]:
        n, rng = batch or self.batch, self.rng(1)
        return rng.standard_normal((n, self.times, self.features)).astype(self.dtype), rng.integers(0, self.classes, n)

    @property
    def flops(self) -> int:
        step = 2 * self.features * self.width + 3 * self.width**2
        return 2 * self.batch * (self.times * step + 3 * self.width * self.classes)


@dataclass(frozen=True)
class Bag(Workload):
    """Mean of the embeddings of some words, then a linear layer; cross-entropy."""

    vocabulary: int = 10_000
    width: int = 64
    words: int = 20
    classes: int = 20

    def params(self) -> Params:
        rng = self.rng()
        table = rng.standard_normal((self.vocabulary, self.width)).astype(self.dtype)
        return {"words.weight": table, **self.dense("out", self.classes, self.width, rng)}

    def inputs(self, batch: int | None = None) -> tuple[Array, ...]:
        n, rng = batch or self.batch, self.rng(1)
        return rng.integers(0, self.vocabulary, (n, self.words)), rng.integers(0, self.classes, n)

    @property
    def flops(self) -> int:
        return 2 * 3 * self.batch * self.width * self.classes


@dataclass(frozen=True)
class Hvp(Workload):
    """Hessian-vector product of a tanh MLP's mean squared error, with respect to all parameters."""

    sizes: tuple[int, ...] = ()

    def params(self) -> Params:
        rng = self.rng()
        values: Params = {}
        for i, (into, out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            values |= self.dense(f"l{i}", out, into, rng)
        return values

    def direction(self) -> Params:
        """The vector."""
        rng = self.rng(2)
        return {name: np.asarray(rng.standard_normal(p.shape), self.dtype) for name, p in self.params().items()}

    def inputs(self, batch: int | None = None) -> tuple[Array, ...]:
        n, rng = batch or self.batch, self.rng(1)
        return tuple(rng.standard_normal((n, k)).astype(self.dtype) for k in (self.sizes[0], self.sizes[-1]))

    @property
    def flops(self) -> int:
        # products of a layer: forward 1 and its tangent 2, dx 1 and 2, the tangent of dW 2; the first layer's
        # input has neither tangent nor gradient
        per_row = sum(a * b * (3 if i == 0 else 8) for i, (a, b) in
                      enumerate(zip(self.sizes, self.sizes[1:], strict=False)))
        return 2 * self.batch * per_row

    @property
    def bytes(self) -> int:
        return super().bytes + 3 * sum(p.nbytes for p in self.params().values())
