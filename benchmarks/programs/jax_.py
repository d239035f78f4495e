"""JAX: ``jit`` of ``value_and_grad``, called with arrays on the device; loops are ``lax.scan``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array as Tensor
from jax import grad, lax
from jax.nn import gelu, leaky_relu, log_softmax, logsumexp, relu, sigmoid, softmax, softplus
from jax.numpy import (
    abs,
    clip,
    cos,
    cumsum,
    diag,
    einsum,
    exp,
    eye,
    log,
    max,
    minimum,
    pad,
    permute_dims,
    roll,
    sin,
    sort,
    sqrt,
    stack,
    swapaxes,
    take_along_axis,
    tanh,
    where,
    zeros,
)
from jax.numpy import concatenate as concat
from jax.numpy.linalg import cholesky, solve
from jax.scipy.special import gammaln as lgamma

from benchmarks.programs.parts import gru_cell, lstm_cell
from benchmarks.programs.program import Array, Tree, is_double, mapped

__all__ = [
    "abs", "attention", "batch_norm", "cholesky", "clip", "concat", "conv1d", "conv2d", "conv_transpose2d", "cos",
    "cross_entropy", "cumsum", "diag", "einsum", "exp", "eye", "fold", "gelu", "grad", "gru", "huber_loss", "iterate",
    "layer_norm", "leaky_relu", "lgamma", "linear", "log", "log_softmax", "logdet", "logsumexp", "lstm", "max",
    "max_pool2d", "minimum", "pad", "permute_dims", "relu", "roll", "segment_sum", "sigmoid", "sin", "softmax",
    "softplus", "solve", "solve_triangular", "sort", "sqrt", "stack", "swapaxes", "take", "take_along_axis", "tanh",
    "upsample2d", "where", "zeros",
]

EPS = 1e-5  # PyTorch's, of its norms


def calls(loss: Callable[..., Any], params: Tree, data: tuple[Array, ...]) -> list[Callable[[], Any]]:
    if is_double(params):
        jax.config.update("jax_enable_x64", True)
    step = jax.jit(jax.value_and_grad(loss))
    params, data = mapped(jnp.asarray, params), mapped(jnp.asarray, data)
    return [lambda: jax.block_until_ready(step(params, *data))]


# ---- layers


def linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return x @ w + b


def conv1d(x: Tensor, w: Tensor, padding: int = 0, dilation: int = 1) -> Tensor:
    return lax.conv_general_dilated(x, w, (1,), [(padding, padding)], rhs_dilation=(dilation,))


def conv2d(x: Tensor, w: Tensor, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
    return lax.conv_general_dilated(x, w, (stride, stride), [(padding, padding)] * 2, feature_group_count=groups)


def conv_transpose2d(x: Tensor, w: Tensor, stride: int, padding: int) -> Tensor:
    """The gradient of a convolution: windows turned around go over an image with gaps."""
    around = w.shape[-1] - 1 - padding
    turned = jnp.flip(w, (2, 3)).swapaxes(0, 1)
    return lax.conv_general_dilated(x, turned, (1, 1), [(around, around)] * 2, lhs_dilation=(stride, stride))


def max_pool2d(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    return x.reshape(batch, channels, height // 2, 2, width // 2, 2).max((3, 5))


def upsample2d(x: Tensor) -> Tensor:
    return jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3)


def batch_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return (x - mean) * lax.rsqrt(var + EPS) * scale[:, None, None] + shift[:, None, None]


def layer_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(var + EPS) * scale + shift


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -jnp.inf)
    return jax.nn.softmax(scores) @ v


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1).mean()


def huber_loss(x: Tensor, y: Tensor) -> Tensor:
    apart = jnp.abs(x - y)
    return jnp.where(apart < 1, 0.5 * apart * apart, apart - 0.5).mean()


def lstm(x: Tensor, w: Tensor, hidden: Tensor, bias: Tensor) -> Tensor:
    """h after the last time."""
    start = zeros((x.shape[0], hidden.shape[0]), dtype=x.dtype)
    pulses = swapaxes(linear(x, w, bias), 0, 1)
    h: Tensor = fold(partial(lstm_cell, jax.nn, hidden), (start, start), pulses)[0]
    return h


def gru(x: Tensor, w: Tensor, bias: Tensor, hidden: Tensor, hidden_bias: Tensor) -> Tensor:
    """h after the last time."""
    start = zeros((x.shape[0], hidden.shape[0]), dtype=x.dtype)
    pulses = swapaxes(linear(x, w, bias), 0, 1)
    h: Tensor = fold(partial(gru_cell, jax.nn, hidden, hidden_bias), start, pulses)
    return h


# ---- indices, matrices, loops


def take(x: Tensor, rows: Tensor) -> Tensor:
    return x[rows]


def segment_sum(x: Tensor, segments: Tensor, count: int) -> Tensor:
    return jax.ops.segment_sum(x, segments, count)


def solve_triangular(lower: Tensor, b: Tensor) -> Tensor:
    return jax.scipy.linalg.solve_triangular(lower, b, lower=True)


def logdet(a: Tensor) -> Tensor:
    return jnp.linalg.slogdet(a).logabsdet


def fold(step: Callable[[Any, Tensor], Any], state: Any, xs: Tensor) -> Any:
    return lax.scan(lambda state, x: (step(state, x), None), state, xs)[0]


def iterate(step: Callable[[Any], Any], state: Any, count: int) -> Any:
    return lax.scan(lambda state, _: (step(state), None), state, length=count)[0]
