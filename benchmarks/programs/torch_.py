"""PyTorch: the loss eagerly, with its fused layers and losses, then ``torch.autograd.grad``; loops are Python's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import (
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
    lgamma,
    log,
    log_softmax,
    logdet,
    logsumexp,
    minimum,
    relu,
    roll,
    sigmoid,
    sin,
    softmax,
    sqrt,
    stack,
    swapaxes,
    tanh,
    where,
    zeros,
)
from torch import amax as max
from torch import permute as permute_dims
from torch import take_along_dim as take_along_axis
from torch.linalg import cholesky, solve
from torch.nn.functional import cross_entropy, huber_loss, leaky_relu, softplus

from benchmarks.programs.program import Array, Tree, leaves, mapped

__all__ = [
    "abs", "attention", "batch_norm", "cholesky", "clip", "concat", "conv1d", "conv2d", "conv_transpose2d", "cos",
    "cross_entropy", "cumsum", "diag", "einsum", "exp", "eye", "fold", "gelu", "grad", "gru", "huber_loss", "iterate",
    "layer_norm", "leaky_relu", "lgamma", "linear", "log", "log_softmax", "logdet", "logsumexp", "lstm", "max",
    "max_pool2d", "minimum", "pad", "permute_dims", "relu", "roll", "segment_sum", "sigmoid", "sin", "softmax",
    "softplus", "solve", "solve_triangular", "sort", "sqrt", "stack", "swapaxes", "take", "take_along_axis", "tanh",
    "upsample2d", "where", "zeros",
]


def calls(loss: Callable[..., Any], params: Tree, data: tuple[Array, ...]) -> list[Callable[[], Any]]:
    """One, or where there are images two: with the channels first and, as PyTorch advises on CPUs, last."""
    forms = [torch.contiguous_format]
    if any(leaf.ndim == 4 for leaf in leaves((params, data))):
        forms.append(torch.channels_last)
    return [partial(value_and_grad, loss, *placed(params, data, form)) for form in forms]


def placed(params: Tree, data: tuple[Array, ...], form: torch.memory_format) -> tuple[Tree, tuple[Tensor, ...]]:
    def tensor(x: Array) -> Tensor:
        return torch.tensor(x).contiguous(memory_format=form if x.ndim == 4 else torch.contiguous_format)

    return mapped(lambda x: tensor(x).requires_grad_(), params), mapped(tensor, data)


def value_and_grad(loss: Callable[..., Any], params: Tree, data: tuple[Tensor, ...]) -> Any:
    value = loss(params, *data)
    return value.detach(), torch.autograd.grad(value, leaves(params))


# ---- layers


def linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.linear(x, w.T, b)


def conv1d(x: Tensor, w: Tensor, padding: int = 0, dilation: int = 1) -> Tensor:
    return F.conv1d(x, w, padding=padding, dilation=dilation)


def conv2d(x: Tensor, w: Tensor, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
    return F.conv2d(x, w, stride=stride, padding=padding, groups=groups)


def conv_transpose2d(x: Tensor, w: Tensor, stride: int, padding: int) -> Tensor:
    return F.conv_transpose2d(x, w, stride=stride, padding=padding)


def max_pool2d(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2)


def upsample2d(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def batch_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, scale, shift, training=True)


def layer_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.layer_norm(x, scale.shape, scale, shift)


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def lstm(x: Tensor, w: Tensor, hidden: Tensor, bias: Tensor) -> Tensor:
    """h after the last time, by what ``nn.LSTM`` calls."""
    start = x.new_zeros(1, x.shape[0], hidden.shape[0])
    weights = (w.T, hidden.T, bias, torch.zeros_like(bias))
    return torch.lstm(x, (start, start), weights, True, 1, 0.0, True, False, True)[1][0]


def gru(x: Tensor, w: Tensor, bias: Tensor, hidden: Tensor, hidden_bias: Tensor) -> Tensor:
    """h after the last time, by what ``nn.GRU`` calls."""
    start = x.new_zeros(1, x.shape[0], hidden.shape[0])
    weights = (w.T, hidden.T, bias, hidden_bias)
    return torch.gru(x, start, weights, True, 1, 0.0, True, False, True)[1][0]


# ---- indices, matrices, derivatives, loops


def pad(x: Tensor, width: int) -> Tensor:
    return F.pad(x, (width,) * (2 * x.ndim))


def take(x: Tensor, rows: Tensor) -> Tensor:
    return torch.index_select(x, 0, rows)


def segment_sum(x: Tensor, segments: Tensor, count: int) -> Tensor:
    return torch.zeros((count, *x.shape[1:]), dtype=x.dtype).index_add(0, segments, x)


def solve_triangular(lower: Tensor, b: Tensor) -> Tensor:
    found: Tensor = torch.linalg.solve_triangular(lower, b, upper=False)
    return found


def sort(x: Tensor) -> Tensor:
    ordered: Tensor = torch.sort(x).values
    return ordered


def grad(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The gradient, as a part of the graph: what is done with it can be differentiated again."""
    def gradient(x: Tensor) -> Tensor:
        x = x if x.requires_grad else x.detach().requires_grad_()
        (found,) = torch.autograd.grad(function(x), x, create_graph=True)
        return found

    return gradient


def fold(step: Callable[[Any, Tensor], Any], state: Any, xs: Tensor) -> Any:
    for x in xs.unbind():
        state = step(state, x)
    return state


def iterate(step: Callable[[Any], Any], state: Any, count: int) -> Any:
    for _ in range(count):
        state = step(state)
    return state
