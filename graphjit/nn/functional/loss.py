"""Losses of two operands of one shape: distances, and what is between probabilities. Each takes
``reduction``: 'mean', 'sum', or 'none' for a value per element.
"""

from __future__ import annotations

import math
from typing import Any

from graphjit.composed import composed
from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, ShapeError
from graphjit.ops.elementwise import abs, maximum, where
from graphjit.ops.transcendental import exp, log, log1p, softplus
from graphjit.promotion import promoted
from graphjit.tensor import Tensor, TensorLike
from graphjit.transforms import custom_vjp
from graphjit.types import is_float

LEAST_LOG = -100.0      # what a logarithm of 0 counts as in binary_cross_entropy
LEAST_VARIANCE = 1e-12  # of a probability p, p * (1 - p): bounds the slope there


def reduction_name(reduction: str) -> str:
    """The name of a reduction.

    Raises:
        ArgumentError: it is none.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError(f"reduction is 'mean', 'sum' or 'none', not {reduction!r}")
    return reduction


def reduced(losses: Tensor, reduction: str, count: Any = None) -> Tensor:
    """Reduce; ``count`` is what a mean divides by, the number of losses when not given."""
    reduction_name(reduction)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    return losses.mean() if count is None else losses.sum() / count


def pair(name: str, input: TensorLike, target: TensorLike) -> tuple[Tensor, Tensor]:
    """Two operands of one shape; a target of integers or bools takes the input's dtype.

    Raises:
        ShapeError: the shapes differ.
    """
    x, y = as_tensor(input), as_tensor(target)
    if is_float(x.dtype) and not is_float(y.dtype):
        y = y.astype(x.dtype)
    x, y = promoted(x, y)
    if x.shape != y.shape:
        raise ShapeError(f"{name} needs two operands of one shape",
                         detail=(f"input: {x._type}", f"target: {y._type}"),
                         hint="They would broadcast, which is hardly ever meant; use reshape or expand_dims.")
    return x, y


# ---- distances

@composed
def mse_loss(input: TensorLike, target: TensorLike, *, reduction: str = "mean") -> Tensor:
    """(input - target)**2, of two operands of one shape."""
    x, y = pair("mse_loss", input, target)
    d = x - y
    return reduced(d * d, reduction)


@composed
def l1_loss(input: TensorLike, target: TensorLike, *, reduction: str = "mean") -> Tensor:
    """abs(input - target), of two operands of one shape; its gradient is 0 where they are equal."""
    x, y = pair("l1_loss", input, target)
    return reduced(abs(x - y), reduction)


@composed
def smooth_l1_loss(input: TensorLike, target: TensorLike, *, reduction: str = "mean",
                   beta: float = 1.0) -> Tensor:
    """``d**2 / (2 * beta)`` where ``d = abs(input - target)`` is below beta, ``d - beta / 2`` elsewhere
    (Girshick, 2015).

    Args:
        input, target: of one shape.
        beta: where the one goes over into the other, from 0 (then it is ``l1_loss``) up.

    >>> from graphjit.nn import functional as F
    >>> F.smooth_l1_loss([0.5, 3.0], [0.0, 0.0], reduction="none").tolist()
    [0.125, 2.5]
    """
    if beta < 0:
        raise ArgumentError(f"smooth_l1_loss takes a beta of 0 or more, not {beta}")
    x, y = pair("smooth_l1_loss", input, target)
    d = abs(x - y)
    return reduced(d if beta == 0 else where(d < beta, d * d * (0.5 / beta), d - 0.5 * beta), reduction)


@composed
def huber_loss(input: TensorLike, target: TensorLike, *, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """``d**2 / 2`` where ``d = abs(input - target)`` is at most delta, ``delta * (d - delta / 2)`` elsewhere
    (Huber, 1964).

    Args:
        input, target: of one shape.
        delta: where the one goes over into the other, above 0.
    """
    if delta <= 0:
        raise ArgumentError(f"huber_loss takes a delta above 0, not {delta}")
    x, y = pair("huber_loss", input, target)
    d = abs(x - y)
    return reduced(where(d <= delta, d * d * 0.5, (d - 0.5 * delta) * delta), reduction)


# ---- probabilities

def _binary_losses(p: Tensor, y: Tensor) -> Tensor:
    yes, no = maximum(log(p), LEAST_LOG), maximum(log1p(-p), LEAST_LOG)
    return (y - 1) * no - y * yes


def _binary_pull(saved: tuple[Tensor, Tensor], g: Tensor) -> tuple[Tensor, Tensor]:
    p, y = saved
    slope = (p - y) / maximum(p * (1 - p), LEAST_VARIANCE)
    return g * slope, g * (maximum(log1p(-p), LEAST_LOG) - maximum(log(p), LEAST_LOG))


# a rule of its own: at 0 and 1 the plain one would multiply infinity by 0
_binary = custom_vjp(_binary_losses)
_binary.defvjp(lambda p, y: (_binary_losses(p, y), (p, y)), _binary_pull)


def binary_cross_entropy(input: TensorLike, target: TensorLike, weight: TensorLike | None = None, *,
                         reduction: str = "mean") -> Tensor:
    """``-(target * log(input) + (1 - target) * log(1 - input))``, the logarithms held above -100.

    Args:
        input: probabilities from 0 to 1; elsewhere the loss is NaN. Scores (logits) are better given to
            ``binary_cross_entropy_with_logits``.
        target: probabilities from 0 to 1 (or bools), of the same shape.
        weight: a factor for each element; broadcasts.

    >>> from graphjit.nn import functional as F
    >>> round(F.binary_cross_entropy([0.5, 0.5], [1.0, 0.0]).item(), 4)
    0.6931
    """
    p, y = pair("binary_cross_entropy", input, target)
    losses = _binary(p, y)
    return reduced(losses if weight is None else losses * as_tensor(weight).astype(p.dtype), reduction)


@composed
def binary_cross_entropy_with_logits(
        input: TensorLike, target: TensorLike, weight: TensorLike | None = None, *, reduction: str = "mean",
        pos_weight: TensorLike | None = None) -> Tensor:
    """-(target * log(p) + (1 - target) * log(1 - p)) with p = sigmoid(input), without overflow.

    Args:
        input: scores, floating. target: probabilities from 0 to 1 (or bools), of the same shape.
        weight: a factor for each element. pos_weight: a factor for the first term; both broadcast.
    """
    x, y = pair("binary_cross_entropy_with_logits", input, target)
    if pos_weight is None:
        losses = softplus(x) - x * y
    else:
        factor = (as_tensor(pos_weight).astype(x.dtype) - 1) * y + 1
        losses = (1 - y) * x + factor * softplus(-x)
    return reduced(losses if weight is None else losses * as_tensor(weight).astype(x.dtype), reduction)


def kl_div(input: TensorLike, target: TensorLike, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """``target * (log(target) - input)``, 0 where the target is 0 (Kullback and Leibler, 1951).

    Args:
        input: log probabilities. target: probabilities, or their logarithms if ``log_target``; of one shape.
        reduction: also 'batchmean', the sum over the first axis's length: the divergence itself. ('mean'
            divides by the number of elements.)

    >>> from graphjit.nn import functional as F
    >>> F.kl_div([[-0.5, -0.5]], [[0.0, 1.0]], reduction="batchmean").item()
    0.5
    """
    x, y = pair("kl_div", input, target)
    if log_target:
        losses = exp(y) * (y - x)
    else:
        some = y > 0
        losses = where(some, y * (log(where(some, y, 1)) - x), where(y == 0, 0, math.nan))
    if reduction != "batchmean":
        return reduced(losses, reduction)
    if not x.ndim:
        raise ShapeError("reduction 'batchmean' of a scalar")
    return losses.sum() / x.shape[0]
