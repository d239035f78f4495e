"""Attention: ``scaled_dot_product_attention``, and its weights."""

from __future__ import annotations

import math

from graphjit.composed import composed
from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, DTypeError, ShapeError
from graphjit.nn.functional.layer import dropout
from graphjit.ops.creation import arange
from graphjit.ops.elementwise import where
from graphjit.ops.join import concat
from graphjit.ops.logic import isfinite
from graphjit.ops.movement import cut
from graphjit.ops.random import Generator
from graphjit.ops.statistics import softmax_of
from graphjit.ops.transcendental import exp_or_zero
from graphjit.promotion import promoted
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import BOOL, is_float

BLOCKS, ROWS = 8, 64  # causal attention goes by at most so many blocks of at least so many queries


def scaled_dot_product_attention(
        query: TensorLike, key: TensorLike, value: TensorLike, attn_mask: TensorLike | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, *,
        generator: Generator | None = None) -> Tensor:
    """``softmax(query @ key.T * scale + mask) @ value`` (Vaswani et al., 2017).

    Args:
        query: (..., L, E). key: (..., S, E). value: (..., S, Ev).
        attn_mask: broadcasts to (..., L, S): bool, True where a query sees a key; or floating, added to the
            scores. A query that sees no key gets 0.
        dropout_p: probability of each attention weight to be dropped (whatever the mode).
        is_causal: query i sees the keys 0, ..., i only. Of more than 64 queries most of the scores that do not count
            are not computed, which saves up to half of the time and of the memory.
        scale: 1 / sqrt(E) when not given.
        generator: of dropout's random bits; the default generator when not given.

    Returns:
        (..., L, Ev).

    Raises:
        ShapeError: shapes that do not fit. DTypeError: a mask of integers. ArgumentError: a mask and
            ``is_causal``.

    >>> import graphjit as gj
    >>> from graphjit.nn import functional as F
    >>> x = gj.ones((2, 3, 4))
    >>> F.scaled_dot_product_attention(x, x, x).shape
    (2, 3, 4)
    """
    q, k, v = promoted(query, key, value)
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError("attention takes query (..., L, E), key (..., S, E) and value (..., S, Ev)",
                         detail=(f"query: {q._type}", f"key: {k._type}", f"value: {v._type}"))
    if attn_mask is not None and is_causal:
        raise ArgumentError("attention takes either attn_mask or is_causal")
    return attended(q, k, v, None if attn_mask is None else as_tensor(attn_mask), scale, is_causal=is_causal,
                    dropout_p=dropout_p, generator=generator)


def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None, *,
             is_causal: bool = False, dropout_p: float = 0.0, generator: Generator | None = None) -> Tensor:
    """What queries gather from values, (..., L, Ev). Beside ``is_causal`` a mask is (..., 1, S).

    Causal attention goes by blocks of queries, each with the keys that its last one sees.
    """
    queries, keys = q.shape[-2], k.shape[-2]
    rows = max((-(-queries // BLOCKS) + 15) // 16 * 16, ROWS + 0 * queries)  # a length like that of the queries

    def gathered(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return dropout(attention_weights(q, k, mask, scale), dropout_p, generator=generator) @ v

    def rows_of(t: Tensor, first: int, count: int) -> Tensor:
        return cut(t, t.ndim - 2, first, count)

    def block(first: int) -> Tensor:
        count = rows if first + rows < queries else queries - first
        seen = first + count if first + count < keys else keys
        causal = causal_mask(count, seen, first)
        both = causal if mask is None else additive(causal) + cut(additive(mask), mask.ndim - 1, 0, seen)
        return gathered(rows_of(q, first, count), rows_of(k, 0, seen), rows_of(v, 0, seen), both)

    if not is_causal:
        return gathered(q, k, v, mask)
    if queries <= rows:
        causal = causal_mask(queries, keys)
        return gathered(q, k, v, causal if mask is None else additive(causal) + additive(mask))
    return concat([block(rows * i) for i in range(-(-queries // rows))], axis=-2)


@composed
def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    """softmax(q @ k.T * scale + mask), (..., L, S); rows in which nothing is seen are 0.

    Raises:
        DTypeError: a mask of integers.
    """
    # the scores are scaled, not the queries: it is done where the softmax reads them
    scores = (q @ k.mT) * (1 / math.sqrt(max(q.shape[-1], 1)) if scale is None else scale)
    if mask is None:
        return scores.softmax(-1)
    scores = masked_scores(scores, mask)
    top = scores.max(axis=-1, keepdims=True).detach()
    e = exp_or_zero(scores - where(isfinite(top), top, 0))
    total = e.sum(axis=-1, keepdims=True)
    return softmax_of(scores, e / where(total == 0, 1, total), -1)


def masked_scores(scores: Tensor, mask: Tensor) -> Tensor:
    """The scores where a bool mask holds, -inf elsewhere; or the sum with a floating one."""
    if mask.dtype == BOOL:
        return where(mask, scores, -math.inf)
    return scores + additive(mask).astype(scores.dtype)


def additive(mask: Tensor, hides: bool = False) -> Tensor:
    """A mask to be added to scores; bools become 0 and -inf, -inf where True if ``hides``.

    Raises:
        DTypeError: a mask of integers.
    """
    if mask.dtype == BOOL:
        return where(mask, -math.inf, 0.0) if hides else where(mask, 0.0, -math.inf)
    if not is_float(mask.dtype):
        raise DTypeError(f"a mask is of bools or floating, not {mask._type}", hint="Use mask.astype(bool).")
    return mask


def causal_mask(queries: int, keys: int, first: int = 0) -> Tensor:
    """bool (queries, keys): query i, counted from ``first``, sees the keys 0, ..., i."""
    return arange(queries).expand_dims(-1) + first >= arange(keys)
