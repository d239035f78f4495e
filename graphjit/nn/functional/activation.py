"""Activations."""

from __future__ import annotations

import math

from graphjit.apply import with_rule
from graphjit.composed import composed
from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError
from graphjit.ops.elementwise import relu, where
from graphjit.ops.families import floating
from graphjit.ops.transcendental import erf, exp, expm1, sigmoid, tanh
from graphjit.ops.transcendental import softplus as plain_softplus
from graphjit.tensor import Tensor, TensorLike

__all__ = [
    "elu", "gelu", "hardtanh", "leaky_relu", "log_softmax", "relu", "sigmoid", "silu", "softmax", "softplus",
    "tanh",
]


@composed
def leaky_relu(x: TensorLike, negative_slope: float = 0.01) -> Tensor:
    """x above 0, ``negative_slope * x`` elsewhere (Maas et al., 2013).

    >>> from graphjit.nn import functional as F
    >>> F.leaky_relu([-2.0, 3.0], 0.5).tolist()
    [-1.0, 3.0]
    """
    t = as_tensor(x)
    return where(t > 0, t, t * negative_slope)


@composed
def elu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """x above 0, ``alpha * (e ** x - 1)`` elsewhere (Clevert et al., 2016)."""
    t = as_tensor(x)
    above = t > 0
    return where(above, t, expm1(where(above, 0, t)) * alpha)


@composed
def silu(x: TensorLike) -> Tensor:
    """x * sigmoid(x), also called swish (Elfwing et al., 2018)."""
    t = floating(x)
    s = sigmoid(t)
    return with_rule("silu", t * s, t, lambda g, t, s: g * (s * (t * (1 - s) + 1)), t, s)


@composed
def softplus(x: TensorLike, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """``log(1 + e ** (beta * x)) / beta``, without overflow; x itself where ``beta * x > threshold``.

    >>> from graphjit.nn import functional as F
    >>> F.softplus([0.0, 1000.0]).numpy().round(4).tolist()
    [0.6930999755859375, 1000.0]
    """
    t = as_tensor(x)
    scaled = t if beta == 1 else t * beta
    soft = plain_softplus(scaled)
    return where(scaled > threshold, t, soft if beta == 1 else soft / beta)


@composed
def hardtanh(x: TensorLike, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """x held between two bounds; its gradient is 0 at the bounds and beyond.

    Raises:
        ArgumentError: ``min_val`` is above ``max_val``.
    """
    if min_val > max_val:
        raise ArgumentError(f"hardtanh from {min_val} to {max_val}")
    t = as_tensor(x)
    return where(t <= min_val, min_val, where(t >= max_val, max_val, t))


@composed
def gelu(x: TensorLike, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x (Hendrycks and Gimpel, 2016).

    Args:
        x: floating, any shape.
        approximate: 'none', or 'tanh' for 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x**3))).

    Raises:
        ArgumentError: another ``approximate``.
    """
    t = floating(x)
    # rules of their own: the gradient is g times one number, which is all that is saved of an element
    if approximate == "none":
        below = (erf(t * math.sqrt(0.5)) + 1) * 0.5
        return with_rule("gelu", t * below, t,
                         lambda g, t, below: g * (t * (exp(t * t * -0.5) * (1 / math.sqrt(2 * math.pi))) + below),
                         t, below)
    if approximate == "tanh":
        square, scale = t * t, 2 * math.sqrt(2 / math.pi)
        s = sigmoid(t * (square * (0.044715 * scale) + scale))  # (1 + tanh(x)) / 2 without its cancellation
        return with_rule("gelu", t * s, t,
                         lambda g, t, s, square:
                         g * (s * (t * ((1 - s) * (square * (3 * 0.044715 * scale) + scale)) + 1)), t, s, square)
    raise ArgumentError(f"approximate is 'none' or 'tanh', not {approximate!r}")


def softmax(x: TensorLike, dim: int | None = None, *, axis: int | None = None) -> Tensor:
    """e ** x, scaled to sum to 1 along ``dim`` (or ``axis``, the same), without overflow."""
    return as_tensor(x).softmax(one_axis("softmax", dim, axis))


def log_softmax(x: TensorLike, dim: int | None = None, *, axis: int | None = None) -> Tensor:
    """The logarithm of softmax along ``dim`` (or ``axis``, the same), exact where that is near 0 or 1."""
    return as_tensor(x).log_softmax(one_axis("log_softmax", dim, axis))


def one_axis(name: str, dim: int | None, axis: int | None) -> int:
    """The axis given under either name.

    Raises:
        ArgumentError: given under both, or not at all (PyTorch guesses from the number of dimensions).
    """
    chosen = dim if axis is None else axis
    if chosen is None or (dim is not None and axis is not None):
        raise ArgumentError(f"{name} needs dim= (or axis=, the same)", hint="dim=-1 is the last axis.")
    return chosen
