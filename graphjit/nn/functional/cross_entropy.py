"""Losses of class labels: cross entropy and the negative log likelihood."""

from __future__ import annotations

import math

from graphjit.composed import composed
from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.nn.functional.activation import log_softmax
from graphjit.nn.functional.bounds import below
from graphjit.nn.functional.loss import reduced
from graphjit.ops.creation import arange
from graphjit.ops.elementwise import where
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import INT64, is_float, is_integer


@composed
def cross_entropy(input: TensorLike, target: TensorLike, weight: TensorLike | None = None, *,
                  ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy between softmax(input) and the target: -sum(target * log_softmax(input)) over classes.

    Args:
        input: scores (logits), floating, (N, C), (N, C, d1, ...) or (C,).
        target: class labels, integers of the shape without C; or class probabilities, floating, of the
            input's shape.
        weight: (C,), a factor for each class.
        ignore_index: a label that counts as nothing.
        reduction: 'mean' divides by the (weighted) number of labels that count, or by the number of samples
            when the targets are probabilities.
        label_smoothing: this share of the target is spread evenly over all classes (Szegedy et al., 2016).

    Raises:
        ShapeError: shapes that do not fit. DTypeError: a target of neither kind.
        BoundsError: a label outside of 0 .. C - 1 that is not ``ignore_index``.

    >>> import graphjit as gj
    >>> import graphjit.nn.functional as F
    >>> round(F.cross_entropy(gj.zeros((2, 10)), gj.tensor([3, 7])).item(), 4)
    2.3026
    """
    input, target = as_tensor(input), as_tensor(target)
    axis = _class_axis("cross_entropy", input)
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError(f"label_smoothing is from 0 to 1, not {label_smoothing!r}")
    log_p = log_softmax(input, axis)
    if not is_float(target.dtype):
        return _label_loss("cross_entropy", log_p, target, weight, ignore_index, reduction, label_smoothing)
    if target.shape != input.shape:
        raise ShapeError("cross_entropy with class probabilities needs two operands of one shape",
                         detail=(f"input: {input._type}", f"target: {target._type}"),
                         hint="Class labels must be integers.")
    classes = input.shape[axis]
    q = target.astype(input.dtype)
    if label_smoothing:
        q = q * (1 - label_smoothing) + label_smoothing / classes
    if weight is not None:
        q = q * _per_class(weight, input, axis)
    samples = math.prod(int(n) for i, n in enumerate(input.shape) if i != axis)
    return reduced(-(q * log_p).sum(axis=axis), reduction, samples)


@composed
def nll_loss(input: TensorLike, target: TensorLike, weight: TensorLike | None = None, *,
             ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """The negative log likelihood of class labels: -input[label].

    Args:
        input: log probabilities, (N, C), (N, C, d1, ...) or (C,); the others as in ``cross_entropy``.
    """
    input = as_tensor(input)
    _class_axis("nll_loss", input)
    return _label_loss("nll_loss", input, as_tensor(target), weight, ignore_index, reduction, 0.0)


def _class_axis(name: str, input: Tensor) -> int:
    if not input.ndim or not is_float(input.dtype):
        raise (ShapeError if is_float(input.dtype) else DTypeError)(
            f"{name} takes floating scores (N, C, ...) or (C,), not {input._type}")
    return 0 if input.ndim == 1 else 1


def _per_class(weight: TensorLike, input: Tensor, axis: int) -> Tensor:
    w = as_tensor(weight).astype(input.dtype)
    if w.shape != (input.shape[axis],):
        raise ShapeError(f"weights of shape {w.shape} for {input.shape[axis]} classes")
    return w.reshape((*w.shape, *(1,) * (input.ndim - 1 - axis)))


def _label_loss(name: str, log_p: Tensor, target: Tensor, weight: TensorLike | None, ignore_index: int,
                reduction: str, smoothing: float) -> Tensor:
    axis = _class_axis(name, log_p)
    classes = log_p.shape[axis]
    if not is_integer(target.dtype):
        raise DTypeError(f"{name} takes integer class labels, not {target._type}")
    if target.shape != log_p.shape[:axis] + log_p.shape[axis + 1:]:
        raise ShapeError(f"{name}: labels must have the shape of the input without its class axis {axis}",
                         detail=(f"input: {log_p._type}", f"target: {target._type}"))
    target = target.astype(INT64)
    counted = target != ignore_index
    label = below("label", where(counted, target, 0), classes).expand_dims(axis)
    # a comparison with every class and a sum, not a gather: it stays in the row's own kernel
    place = arange(classes).reshape((classes, *(1,) * (log_p.ndim - 1 - axis)))
    weighted = log_p if weight is None else log_p * _per_class(weight, log_p, axis)
    losses = -where(place == label, weighted, 0).sum(axis=axis)
    if smoothing:
        losses = losses * (1 - smoothing) - weighted.sum(axis=axis) * (smoothing / classes)
    losses = where(counted, losses, 0)
    if reduction != "mean":
        return reduced(losses, reduction)
    if weight is None:
        count = counted.sum().astype(log_p.dtype)
    else:
        factor = where(place == label, _per_class(weight, log_p, axis), 0).sum(axis=axis)
        count = where(counted, factor, 0).sum()
    return losses.sum() / count
