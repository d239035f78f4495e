"""What layers compute."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphjit.errors import ArgumentError, ShapeError
from graphjit.nn.functional.bounds import below
from graphjit.ops import creation, random
from graphjit.ops.elementwise import rsqrt, where
from graphjit.ops.gather import TAKE
from graphjit.tape import grad_mode
from graphjit.tensor import Tensor, TensorLike, apply, as_tensor


def linear(x: TensorLike, weight: TensorLike, bias: TensorLike | None = None) -> Tensor:
    """``x @ weight.T + bias``.

    Args:
        x: (..., in). weight: (out, in). bias: (out,) or None.

    Returns:
        (..., out).

    Raises:
        ShapeError: lengths that do not fit.
    """
    t, w = as_tensor(x), as_tensor(weight)
    if not t.ndim or w.ndim != 2 or t.shape[-1] != w.shape[1]:
        raise ShapeError("linear takes an input (..., in) and a weight (out, in)",
                         detail=(f"input: {t._type}", f"weight: {w._type}"))
    out = t @ w.T
    return out if bias is None else out + bias


def embedding(ids: TensorLike, weight: TensorLike, padding_idx: int | None = None) -> Tensor:
    """Rows of ``weight`` picked by integers.

    Args:
        ids: integers, any shape. weight: (count, length).
        padding_idx: an index whose row gets no gradient.

    Returns:
        ids.shape + (length,).

    Raises:
        BoundsError: an id outside of 0 .. count - 1.
    """
    w = as_tensor(weight)
    if w.ndim != 2:
        raise ShapeError(f"embedding takes a weight (count, length), not {w._type}")
    places = below("id", as_tensor(ids), w.shape[0])
    rows = apply(TAKE, w, places, axis=0)
    if padding_idx is None:
        return rows
    padding = padding_idx % max(w.shape[0], 1)
    return where((places == padding).expand_dims(-1), rows.detach(), rows)


def probability(p: float) -> float:
    """The rate of a dropout.

    Raises:
        ArgumentError: not a number from 0 to 1.
    """
    if isinstance(p, bool) or not isinstance(p, (int, float, np.floating)) or not 0 <= p <= 1:
        raise ArgumentError(f"a probability is a number from 0 to 1, not {p!r}")
    return float(p)


def dropout(x: TensorLike, p: float = 0.5, training: bool = True, *,
            generator: random.Generator | None = None) -> Tensor:
    """Zero each element with probability ``p``, multiply the others by 1 / (1 - p) (Srivastava et al., 2014).

    Args:
        x: floating, any shape.
        p: 0 to 1. training: otherwise x is given back as it is.
        generator: where the random bits come from; the default generator when not given. Eager and compiled
            functions draw the same bits, and no call draws the same twice.
    """
    t, p = as_tensor(x), probability(p)
    if not training or p == 0:
        return t
    if p == 1:
        return t * 0
    kept = random.bernoulli(1 - p, t.shape, generator=generator)
    return where(kept, t * (1 / (1 - p)), 0)


def batch_norm(x: TensorLike, running_mean: Tensor | None, running_var: Tensor | None,
               weight: TensorLike | None = None, bias: TensorLike | None = None, training: bool = False,
               momentum: TensorLike = 0.1, eps: float = 1e-5) -> Tensor:
    """Scale each channel to mean 0 and variance 1, then ``* weight + bias`` (Ioffe and Szegedy, 2015).

    Args:
        x: (N, C, ...), floating.
        running_mean, running_var: (C,); read in evaluation; in training, if given, they are
            overwritten with ``(1 - momentum) * running + momentum * batch``, the variance unbiased.
        weight, bias: (C,) or None.
        training: whether the batch's own mean and (biased) variance count, not the running ones.
        momentum: share of this batch in the running statistics, a number or a scalar tensor.
        eps: added to the variance.

    Raises:
        ShapeError: no axis of channels, statistics that do not fit, or one value a channel in training.
    """
    t = as_tensor(x)
    if t.ndim < 2:
        raise ShapeError(f"batch_norm takes an input (N, C, ...), not {t._type}")
    channels = (1, t.shape[1], *(1,) * (t.ndim - 2))
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, of in given.items():
        if of is not None and as_tensor(of).shape != (t.shape[1],):
            raise ShapeError(f"batch_norm of {t.shape[1]} channels: {name} is {as_tensor(of)._type}")
    if training:
        axes = (0, *range(2, t.ndim))
        count = math.prod(t.shape[a] for a in axes)
        if count <= 1:
            raise ShapeError(f"batch_norm finds no variance in {count} values a channel of {t._type}",
                             hint="Use a larger batch (DataLoader(..., drop_last=True)) or model.eval().")
        mean = t.mean(axis=axes, keepdims=True)
        centred = t - mean
        var = (centred * centred).mean(axis=axes, keepdims=True)
        with grad_mode(False):
            if running_mean is not None:
                _move(running_mean, mean.detach().reshape(running_mean.shape), momentum)
            if running_var is not None:
                unbiased = var.detach() * (count / (count - 1))
                _move(running_var, unbiased.reshape(running_var.shape), momentum)
    else:
        if running_mean is None or running_var is None:
            raise ArgumentError("batch_norm in evaluation needs running_mean and running_var",
                                hint="Pass training=True to use the statistics of the batch.")
        centred = t - as_tensor(running_mean).reshape(channels)
        var = as_tensor(running_var).reshape(channels)
    scale = rsqrt(var + eps)
    if weight is not None:
        scale = scale * as_tensor(weight).reshape(channels)
    out = centred * scale
    return out if bias is None else out + as_tensor(bias).reshape(channels)


def _move(running: Tensor, batch: Tensor, momentum: TensorLike) -> None:
    share = as_tensor(momentum, running.dtype).astype(running.dtype)
    running.assign(running * (1 - share) + batch.astype(running.dtype) * share)


def layer_norm(x: TensorLike, normalized_shape: int | Sequence[int], weight: TensorLike | None = None,
               bias: TensorLike | None = None, eps: float = 1e-5) -> Tensor:
    """Scale the last axes of each sample to mean 0, variance 1, then ``* weight + bias`` (Ba et al., 2016).

    Args:
        x: (..., *normalized_shape), floating.
        normalized_shape: lengths of the axes; an integer for the last one alone.
        weight, bias: of that shape, or None.
        eps: added to the variance.

    Raises:
        ShapeError: x does not end in ``normalized_shape``.
    """
    t = as_tensor(x)
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or t.shape[-len(shape):] != shape:
        raise ShapeError(f"layer_norm over {shape} of an input {t._type}",
                         hint="The input's shape must end in normalized_shape.")
    axes = tuple(range(-len(shape), 0))
    centred = t - t.mean(axis=axes, keepdims=True)
    out = centred * rsqrt((centred * centred).mean(axis=axes, keepdims=True) + eps)
    if weight is not None:
        out = out * weight
    return out if bias is None else out + bias


def one_hot(x: TensorLike, num_classes: int = -1) -> Tensor:
    """A last axis that is 1 at the place of the label and 0 elsewhere, int64.

    Args:
        x: integer labels, any shape.
        num_classes: length of the new axis; -1 for the largest label + 1 (not in compiled functions, whose
            shapes cannot depend on data).

    Raises:
        BoundsError: a label outside of 0 .. num_classes - 1.
    """
    t = as_tensor(x)
    n = int(t.max().item()) + 1 if num_classes == -1 else num_classes
    return creation.one_hot(below("label", t, n), n, dtype=np.int64)
