"""Activations."""

from __future__ import annotations

import math

from graphjit.errors import ArgumentError
from graphjit.ops.elementwise import erf, relu, sigmoid, tanh
from graphjit.tensor import Tensor, TensorLike, as_tensor

__all__ = ["gelu", "log_softmax", "relu", "sigmoid", "softmax", "tanh"]


def gelu(x: TensorLike, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x (Hendrycks and Gimpel, 2016).

    Args:
        x: floating, any shape.
        approximate: 'none', or 'tanh' for 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x**3))).

    Raises:
        ArgumentError: another ``approximate``.
    """
    t = as_tensor(x)
    if approximate == "none":
        return t * ((erf(t * math.sqrt(0.5)) + 1) * 0.5)
    if approximate == "tanh":
        inner = (t + t * t * t * 0.044715) * math.sqrt(2 / math.pi)
        return t * ((tanh(inner) + 1) * 0.5)
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
