"""Normalization: batch, layer, group, root mean square."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphjit.composed import composed
from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, ShapeError
from graphjit.ops.rules import need_float
from graphjit.ops.transcendental import rsqrt
from graphjit.tape import grad_mode
from graphjit.tensor import Tensor, TensorLike


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
        out, mean, var = _by_batch(t, axes, channels, weight, bias, eps)
        with grad_mode(False):
            if running_mean is not None:
                running_mean.assign(_moved(running_mean, mean, momentum))
            if running_var is not None:
                running_var.assign(_moved(running_var, var * (count / (count - 1)), momentum))
        return out
    if running_mean is None or running_var is None:
        raise ArgumentError("batch_norm in evaluation needs running_mean and running_var",
                            hint="Pass training=True to use the statistics of the batch.")
    return _by_channel(t, running_mean, running_var, channels, weight, bias, eps)


@composed
def _by_batch(t: Tensor, axes: tuple[int, ...], channels: tuple[int, ...], weight: TensorLike | None,
              bias: TensorLike | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and the batch's mean and variance."""
    mean = t.mean(axis=axes, keepdims=True)
    centred = t - mean
    var = (centred * centred).mean(axis=axes, keepdims=True)
    return _affine(centred, var, channels, weight, bias, eps), mean.detach(), var.detach()


@composed
def _by_channel(t: Tensor, mean: TensorLike, var: TensorLike, channels: tuple[int, ...], weight: TensorLike | None,
                bias: TensorLike | None, eps: float) -> Tensor:
    centred = t - as_tensor(mean).reshape(channels)
    return _affine(centred, as_tensor(var).reshape(channels), channels, weight, bias, eps)


def _affine(centred: Tensor, var: Tensor, channels: tuple[int, ...], weight: TensorLike | None,
            bias: TensorLike | None, eps: float) -> Tensor:
    scale = rsqrt(var + eps)
    if weight is not None:
        scale = scale * as_tensor(weight).reshape(channels)
    out = centred * scale
    return out if bias is None else out + as_tensor(bias).reshape(channels)


@composed
def _moved(running: Tensor, batch: Tensor, momentum: TensorLike) -> Tensor:
    share = as_tensor(momentum, running.dtype).astype(running.dtype)
    return running * (1 - share) + batch.reshape(running.shape).astype(running.dtype) * share


@composed
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
    out = _scaled(t, _last_axes("layer_norm", t, normalized_shape), eps)
    if weight is not None:
        out = out * weight
    return out if bias is None else out + bias


@composed
def group_norm(x: TensorLike, num_groups: int, weight: TensorLike | None = None,
               bias: TensorLike | None = None, eps: float = 1e-5) -> Tensor:
    """Scale each group of channels of each sample to mean 0, variance 1, then ``* weight + bias`` by channel
    (Wu and He, 2018).

    Args:
        x: (N, C, ...), floating.
        num_groups: into how many groups the channels are parted; divides C.
        weight, bias: (C,) or None.
        eps: added to the variance.

    Raises:
        ShapeError: channels that do not part evenly, or a weight that does not fit.
    """
    t = as_tensor(x)
    if t.ndim < 2 or num_groups < 1 or t.shape[1] % num_groups:
        raise ShapeError(f"group_norm takes an input (N, C, ...) whose channels part into {num_groups} groups, "
                         f"not {t._type}")
    for name, of in (("weight", weight), ("bias", bias)):
        if of is not None and as_tensor(of).shape != (t.shape[1],):
            raise ShapeError(f"group_norm of {int(t.shape[1])} channels: {name} is {as_tensor(of)._type}")
    parts = t.reshape((t.shape[0], num_groups, t.shape[1] // num_groups, *t.shape[2:]))
    out = _scaled(parts, tuple(range(2, parts.ndim)), eps).reshape(t.shape)
    channels = (t.shape[1], *(1,) * (t.ndim - 2))
    if weight is not None:
        out = out * as_tensor(weight).reshape(channels)
    return out if bias is None else out + as_tensor(bias).reshape(channels)


@composed
def rms_norm(x: TensorLike, normalized_shape: int | Sequence[int], weight: TensorLike | None = None,
             eps: float | None = None) -> Tensor:
    """Divide each sample by the root of the mean square over its last axes, then ``* weight`` (Zhang and
    Sennrich, 2019).

    Args:
        x: (..., *normalized_shape), floating.
        normalized_shape: lengths of the axes; an integer for the last one alone.
        weight: of that shape, or None.
        eps: added to the mean square; the spacing of 1 in x's dtype when None.

    Raises:
        ShapeError: x does not end in ``normalized_shape``. DTypeError: it is not floating.
    """
    t = as_tensor(x)
    axes = _last_axes("rms_norm", t, normalized_shape)
    need_float("rms_norm", t._type)
    small = float(np.finfo(t.dtype).eps) if eps is None else eps
    out = t * rsqrt((t * t).mean(axis=axes, keepdims=True) + small)
    return out if weight is None else out * weight


def _last_axes(name: str, t: Tensor, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    """The axes of a shape that t ends in."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or t.shape[-len(shape):] != shape:
        raise ShapeError(f"{name} over {shape} of an input {t._type}",
                         hint="The input's shape must end in normalized_shape.")
    return tuple(range(-len(shape), 0))


def _scaled(t: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    """To mean 0 and variance 1 over the axes."""
    centred = t - t.mean(axis=axes, keepdims=True)
    return centred * rsqrt((centred * centred).mean(axis=axes, keepdims=True) + eps)
