"""Losses that ask for a margin: hinges, and the cosine between two vectors."""

from __future__ import annotations

from graphjit.composed import composed
from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.nn.functional.bounds import below
from graphjit.nn.functional.loss import pair, reduced
from graphjit.ops.creation import arange
from graphjit.ops.elementwise import relu, where
from graphjit.ops.transcendental import sqrt
from graphjit.promotion import promoted
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import is_float

LEAST_SQUARE = 1e-12  # added to squared lengths


@composed
def hinge_loss(input: TensorLike, target: TensorLike, *, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """``relu(margin - target * input)``, the loss of a support vector machine (Cortes and Vapnik, 1995).

    Args:
        input: scores, any shape. target: labels -1 and 1, of the same shape.
        margin: the product of score and label from which on nothing is lost.

    >>> from graphjit.nn import functional as F
    >>> F.hinge_loss([2.0, -0.5, 0.5], [1, -1, -1], reduction="none").tolist()
    [0.0, 0.5, 1.5]
    """
    x, y = pair("hinge_loss", input, target)
    return reduced(relu(margin - x * y), reduction)


def hinge_embedding_loss(input: TensorLike, target: TensorLike, *, margin: float = 1.0,
                         reduction: str = "mean") -> Tensor:
    """input where the target is 1, ``relu(margin - input)`` where it is -1.

    Args:
        input: distances, any shape. target: labels -1 and 1, of the same shape.
    """
    x, y = pair("hinge_embedding_loss", input, target)
    return reduced(where(y != -1, x, 0) + where(y != 1, relu(margin - x), 0), reduction)


def multi_margin_loss(input: TensorLike, target: TensorLike, p: int = 1, margin: float = 1.0,
                      weight: TensorLike | None = None, *, reduction: str = "mean") -> Tensor:
    """The hinge of several classes: ``sum over c != label of relu(margin - input[label] + input[c])**p / C``
    (Crammer and Singer, 2001).

    Args:
        input: scores, (N, C) or (C,). target: class labels, (N,) or ().
        p: 1 or 2. margin: how far the label's score shall be above the others.
        weight: (C,), a factor for the label's class.

    Raises:
        ShapeError: shapes that do not fit. BoundsError: a label outside of 0 .. C - 1.

    >>> from graphjit.nn import functional as F
    >>> F.multi_margin_loss([[0.5, 0.0]], [0]).item()
    0.25
    """
    x, labels = as_tensor(input), as_tensor(target)
    if p not in (1, 2):
        raise ArgumentError(f"multi_margin_loss takes p = 1 or 2, not {p!r}")
    if x.ndim not in (1, 2) or not is_float(x.dtype):
        raise (ShapeError if is_float(x.dtype) else DTypeError)(
            f"multi_margin_loss takes floating scores (N, C) or (C,), not {x._type}")
    if labels.shape != x.shape[:-1]:
        raise ShapeError("multi_margin_loss: labels must have the shape of the input without its class axis",
                         detail=(f"input: {x._type}", f"target: {labels._type}"))
    classes = x.shape[-1]
    place = arange(classes) == below("label", labels, classes).expand_dims(-1)
    own = where(place, x, 0).sum(axis=-1, keepdims=True)
    lost = relu(margin - own + x)
    losses = where(place, 0, lost if p == 1 else lost * lost)
    if weight is not None:
        w = as_tensor(weight).astype(x.dtype)
        if w.shape != (classes,):
            raise ShapeError(f"weights of shape {w.shape} for {int(classes)} classes")
        losses = losses * where(place, w, 0).sum(axis=-1, keepdims=True)
    return reduced(losses.sum(axis=-1) / classes, reduction)


def cosine_embedding_loss(input1: TensorLike, input2: TensorLike, target: TensorLike, *, margin: float = 0.0,
                          reduction: str = "mean") -> Tensor:
    """``1 - cos`` where the target is 1, ``relu(cos - margin)`` where it is -1, cos that of the angle between
    two vectors.

    Args:
        input1, input2: (N, D) or (D,), of one shape. target: labels -1 and 1, (N,) or ().

    >>> from graphjit.nn import functional as F
    >>> F.cosine_embedding_loss([1.0, 0.0], [0.0, 2.0], 1).item()
    1.0
    """
    a, b = promoted(input1, input2)
    y = as_tensor(target)
    if a.ndim not in (1, 2) or a.shape != b.shape or y.shape != a.shape[:-1] or not is_float(a.dtype):
        raise ShapeError("cosine_embedding_loss takes two floating (N, D) and labels (N,), or (D,) and ()",
                         detail=(f"input 1: {a._type}", f"input 2: {b._type}", f"target: {y._type}"))
    squares = ((a * a).sum(axis=-1) + LEAST_SQUARE) * ((b * b).sum(axis=-1) + LEAST_SQUARE)
    cosine = (a * b).sum(axis=-1) / sqrt(squares)
    return reduced(where(y == 1, 1 - cosine, 0) + where(y == -1, relu(cosine - margin), 0), reduction)
