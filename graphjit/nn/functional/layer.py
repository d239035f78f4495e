"""What layers compute."""

from __future__ import annotations

import numpy as np

from graphjit.apply import apply
from graphjit.composed import composed
from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, ShapeError
from graphjit.nn.functional.bounds import below
from graphjit.ops import creation, random
from graphjit.ops.elementwise import where
from graphjit.ops.gather import TAKE
from graphjit.tensor import Tensor, TensorLike


@composed
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


@composed
def bilinear(x1: TensorLike, x2: TensorLike, weight: TensorLike, bias: TensorLike | None = None) -> Tensor:
    """``out[..., k] = sum over i, j of x1[..., i] * weight[k, i, j] * x2[..., j]``, plus the bias.

    Args:
        x1: (..., in1). x2: (..., in2), its leading axes those of x1.
        weight: (out, in1, in2). bias: (out,) or None.

    Returns:
        (..., out).

    Raises:
        ShapeError: lengths that do not fit.
    """
    a, b, w = as_tensor(x1), as_tensor(x2), as_tensor(weight)
    if (not a.ndim or a.ndim != b.ndim or a.shape[:-1] != b.shape[:-1] or w.ndim != 3
            or (a.shape[-1], b.shape[-1]) != w.shape[1:]):
        raise ShapeError("bilinear takes inputs (..., in1) and (..., in2) and a weight (out, in1, in2)",
                         detail=(f"input 1: {a._type}", f"input 2: {b._type}", f"weight: {w._type}"))
    n, i, j = w.shape
    left = (a @ w.permute_dims(1, 0, 2).reshape((i, n * j))).reshape((*a.shape[:-1], n, j))
    out = (left * b.expand_dims(-2)).sum(axis=-1)
    return out if bias is None else out + bias


@composed
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
