"""graphjit: ``compile`` of ``value_and_grad``, called with NumPy arrays; loops are Python's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import graphjit as gj
import graphjit.nn.functional as F
from benchmarks.programs.parts import gru_cell, lstm_cell
from benchmarks.programs.program import Array, Tree
from graphjit import (
    Tensor,
    abs,
    clip,
    concat,
    cos,
    cumsum,
    diag,
    einsum,
    exp,
    eye,
    grad,
    lgamma,
    log,
    log_softmax,
    logsumexp,
    max,
    minimum,
    pad,
    permute_dims,
    relu,
    roll,
    sigmoid,
    sin,
    softmax,
    softplus,
    sort,
    sqrt,
    stack,
    swapaxes,
    take_along_axis,
    tanh,
    where,
    zeros,
)
from graphjit.linalg import cholesky, solve
from graphjit.nn.functional import cross_entropy, huber_loss, leaky_relu

__all__ = [
    "abs", "attention", "batch_norm", "cholesky", "clip", "concat", "conv1d", "conv2d", "conv_transpose2d", "cos",
    "cross_entropy", "cumsum", "diag", "einsum", "exp", "eye", "fold", "gelu", "grad", "gru", "huber_loss", "iterate",
    "layer_norm", "leaky_relu", "lgamma", "linear", "log", "log_softmax", "logdet", "logsumexp", "lstm", "max",
    "max_pool2d", "minimum", "pad", "permute_dims", "relu", "roll", "segment_sum", "sigmoid", "sin", "softmax",
    "softplus", "solve", "solve_triangular", "sort", "sqrt", "stack", "swapaxes", "take", "take_along_axis", "tanh",
    "upsample2d", "where", "zeros",
]


def calls(loss: Callable[..., Any], params: Tree, data: tuple[Array, ...]) -> list[Callable[[], Any]]:
    step = gj.compile(gj.value_and_grad(loss))
    return [lambda: step(params, *data)]


def alone(loss: Callable[..., Any], params: Tree, data: tuple[Array, ...]) -> Callable[[], Any]:
    """A call that runs on one thread whatever others run on: how many is settled when it is compiled."""
    threads = gj.get_num_threads()
    gj.set_num_threads(1)
    try:
        (call,) = calls(loss, params, data)
        call()
    finally:
        gj.set_num_threads(threads)
    return call


# ---- layers


def linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return x @ w + b


def conv1d(x: Tensor, w: Tensor, padding: int = 0, dilation: int = 1) -> Tensor:
    return F.conv1d(x, w, padding=padding, dilation=dilation)


def conv2d(x: Tensor, w: Tensor, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
    return F.conv2d(x, w, stride=stride, padding=padding, groups=groups)


def conv_transpose2d(x: Tensor, w: Tensor, stride: int, padding: int) -> Tensor:
    return F.conv_transpose2d(x, w, stride=stride, padding=padding)


def max_pool2d(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2)


def upsample2d(x: Tensor) -> Tensor:
    return gj.repeat(gj.repeat(x, 2, axis=2), 2, axis=3)


def batch_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, scale, shift, training=True)


def layer_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1], scale, shift)


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def lstm(x: Tensor, w: Tensor, hidden: Tensor, bias: Tensor) -> Tensor:
    """h after the last time."""
    start = zeros((x.shape[0], hidden.shape[0]), dtype=x.dtype)
    pulses = swapaxes(linear(x, w, bias), 0, 1)
    h: Tensor = fold(partial(lstm_cell, gj, hidden), (start, start), pulses)[0]
    return h


def gru(x: Tensor, w: Tensor, bias: Tensor, hidden: Tensor, hidden_bias: Tensor) -> Tensor:
    """h after the last time."""
    start = zeros((x.shape[0], hidden.shape[0]), dtype=x.dtype)
    pulses = swapaxes(linear(x, w, bias), 0, 1)
    h: Tensor = fold(partial(gru_cell, gj, hidden, hidden_bias), start, pulses)
    return h


# ---- indices, matrices, loops


def take(x: Tensor, rows: Tensor) -> Tensor:
    return gj.take(x, rows, axis=0)


def segment_sum(x: Tensor, segments: Tensor, count: int) -> Tensor:
    return gj.scatter_add(gj.zeros((count, *x.shape[1:]), dtype=x.dtype), segments, x)


def solve_triangular(lower: Tensor, b: Tensor) -> Tensor:
    return gj.linalg.solve_triangular(lower, b, upper=False)


def logdet(a: Tensor) -> Tensor:
    return gj.linalg.slogdet(a).logabsdet


def fold(step: Callable[[Any, Tensor], Any], state: Any, xs: Tensor) -> Any:
    for x in xs:
        state = step(state, x)
    return state


def iterate(step: Callable[[Any], Any], state: Any, count: int) -> Any:
    for _ in range(count):
        state = step(state)
    return state
