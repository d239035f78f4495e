"""``MultiheadAttention`` and ``TransformerEncoderLayer``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphjit.convert import as_tensor, filled
from graphjit.errors import ArgumentError, ShapeError
from graphjit.nn import functional as F
from graphjit.nn import init
from graphjit.nn.functional.attention import additive, attended, attention_weights, causal_mask
from graphjit.nn.functional.layer import probability
from graphjit.nn.layers import Dropout, Linear, sizes
from graphjit.nn.module import Module
from graphjit.nn.normalization import LayerNorm
from graphjit.nn.parameter import Parameter
from graphjit.ops.join import concat
from graphjit.ops.random import Generator
from graphjit.tensor import Tensor, TensorLike

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu}


class MultiheadAttention(Module):
    """Attention of several heads side by side (Vaswani et al., 2017).

    Args:
        embed_dim: features E of queries and outputs, all heads together.
        num_heads: divides ``embed_dim``.
        dropout: probability of each attention weight to be dropped, in training.
        bias: whether the projections add something.
        add_bias_kv: a learned key and value that every query sees too.
        add_zero_attn: a key and value of zeros that every query sees too.
        kdim, vdim: features of keys and values, E when not given.
        batch_first: (N, L, E), not (L, N, E).
        generator: of dropout's random bits. dtype: of the parameters, float32 when not given.

    Attributes:
        in_proj_weight: (3 * E, E), the projections of query, key and value; or, where kdim or vdim differ,
            q_proj_weight (E, E), k_proj_weight (E, kdim), v_proj_weight (E, vdim). in_proj_bias: (3 * E,).
        bias_k, bias_v: (1, 1, E) or None. out_proj: ``Linear(E, E)``.

    >>> import graphjit as gj
    >>> x = gj.ones((5, 2, 8))
    >>> out, weights = gj.nn.MultiheadAttention(8, num_heads=2)(x, x, x)
    >>> out.shape, weights.shape
    ((5, 2, 8), (2, 5, 5))
    """

    in_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
                 add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
                 vdim: int | None = None, batch_first: bool = False, *, generator: Generator | None = None,
                 dtype: Any = None) -> None:
        super().__init__()
        self.embed_dim = sizes("embed_dim", embed_dim)
        self.num_heads = sizes("num_heads", num_heads)
        if not num_heads or embed_dim % num_heads or not embed_dim:
            raise ArgumentError(f"{num_heads} heads do not divide {embed_dim} features")
        self.kdim = embed_dim if kdim is None else sizes("kdim", kdim)
        self.vdim = embed_dim if vdim is None else sizes("vdim", vdim)
        self.dropout = probability(dropout)
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        self.generator = generator
        if self.kdim == self.vdim == embed_dim:
            self.in_proj_weight = init.empty((3 * embed_dim, embed_dim), dtype)
        else:
            self.in_proj_weight = None
            self.q_proj_weight = init.empty((embed_dim, embed_dim), dtype)
            self.k_proj_weight = init.empty((embed_dim, self.kdim), dtype)
            self.v_proj_weight = init.empty((embed_dim, self.vdim), dtype)
        self.in_proj_bias = init.empty((3 * embed_dim,), dtype) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, dtype=dtype)
        self.bias_k = init.empty((1, 1, embed_dim), dtype) if add_bias_kv else None
        self.bias_v = init.empty((1, 1, embed_dim), dtype) if add_bias_kv else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the starting values anew: Xavier's for the projections, biases 0."""
        for name, p in self.named_parameters(recurse=False):
            if name.endswith("weight"):
                init.xavier_uniform_(p)
        for b in (self.in_proj_bias, self.out_proj.bias):
            if b is not None:
                init.zeros_(b)
        for b in (self.bias_k, self.bias_v):
            if b is not None:
                init.xavier_normal_(b)

    def forward(self, query: TensorLike, key: TensorLike, value: TensorLike,
                key_padding_mask: TensorLike | None = None, need_weights: bool = True,
                attn_mask: TensorLike | None = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
        """Let each query gather from the values whose keys it matches.

        Args:
            query: (L, N, E). key: (S, N, kdim). value: (S, N, vdim); or without N, or as ``batch_first`` says.
            key_padding_mask: (N, S) or (S,): bool, True where a key is not to be seen; or floating, added to
                the scores.
            need_weights: whether the attention weights are given too.
            attn_mask: (L, S) or (N * num_heads, L, S), bool, True where a query may not see a key; or floating.
            average_attn_weights: the mean of the weights over the heads.
            is_causal: without ``attn_mask``, query i sees the keys 0, ..., i only.

        Returns:
            Outputs shaped as the query, and weights (N, L, S), (N, num_heads, L, S) if not averaged, or None.
            A query that may see nothing gets weights 0.
        """
        q, k, v = as_tensor(query), as_tensor(key), as_tensor(value)
        single = q.ndim == 2
        if q.ndim not in (2, 3) or k.ndim != q.ndim or v.ndim != q.ndim:
            raise ShapeError("MultiheadAttention takes query, key and value of 3 dimensions, or all of 2",
                             detail=(f"query: {q._type}", f"key: {k._type}", f"value: {v._type}"))
        alike = key is query and value is query
        if single:
            q, k, v = (t.expand_dims(0) for t in (q, k, v))
        elif not self.batch_first:
            q, k, v = (t.swapaxes(0, 1) for t in (q, k, v))
        if (q.shape[-1], k.shape[-1], v.shape[-1]) != (self.embed_dim, self.kdim, self.vdim) or (
                k.shape[:2] != v.shape[:2] or q.shape[0] != k.shape[0]):
            raise ShapeError(
                f"MultiheadAttention takes {self.embed_dim} features of queries, {self.kdim} of keys, {self.vdim} "
                "of values, and a value for each key", detail=(f"query: {q._type}", f"key: {k._type}",
                                                               f"value: {v._type}"))
        more_keys = self.add_zero_attn or self.bias_k is not None
        in_parts = is_causal and attn_mask is None and not need_weights and not more_keys  # nobody sees all weights
        mask = self._mask(q.shape[0], q.shape[1], k.shape[1], key_padding_mask, attn_mask, is_causal and not in_parts)
        q, k, v = self._projected(q, k, v, alike)
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (concat([t, b.broadcast_to((t.shape[0], 1, self.embed_dim))], axis=1)
                    for t, b in ((k, self.bias_k), (v, self.bias_v)))
        if self.add_zero_attn:
            k, v = (concat([t, filled((t.shape[0], 1, self.embed_dim), 0, t.dtype)], axis=1) for t in (k, v))
        if mask is not None and k.shape[1] != mask.shape[-1]:  # what was added is seen by all
            seen = filled((*mask.shape[:-1], k.shape[1] - mask.shape[-1]), 0, mask.dtype)
            mask = concat([mask, seen], axis=-1)
        weights: Tensor | None = None
        if in_parts:
            out = attended(self._heads(q), self._heads(k), self._heads(v), mask, is_causal=True,
                           dropout_p=self.dropout if self.training else 0.0, generator=self.generator)
        else:
            weights = attention_weights(self._heads(q), self._heads(k), mask)
            weights = F.dropout(weights, self.dropout, self.training, generator=self.generator)
            out = weights @ self._heads(v)
        out = self.out_proj(out.swapaxes(1, 2).reshape((q.shape[0], q.shape[1], self.embed_dim)))
        shown = weights if need_weights else None
        if shown is not None and average_attn_weights:
            shown = shown.mean(axis=1)
        if single:
            return out.squeeze(0), None if shown is None else shown.squeeze(0)
        return (out if self.batch_first else out.swapaxes(0, 1)), shown

    def _projected(self, q: Tensor, k: Tensor, v: Tensor, alike: bool) -> list[Tensor]:
        """Queries, keys and values of all heads."""
        bias = self.in_proj_bias
        if self.in_proj_weight is not None and alike:
            return F.linear(q, self.in_proj_weight, bias).split(3, axis=-1)
        weights = ([self.q_proj_weight, self.k_proj_weight, self.v_proj_weight] if self.in_proj_weight is None
                   else self.in_proj_weight.split(3))
        biases: list[Any] = [None] * 3 if bias is None else list(bias.split(3))
        return [F.linear(t, w, b) for t, w, b in zip((q, k, v), weights, biases, strict=True)]

    def _heads(self, t: Tensor) -> Tensor:
        """(N, L, E) as (N, heads, L, E / heads)."""
        n, length, width = t.shape
        return t.reshape((n, length, self.num_heads, width // self.num_heads)).swapaxes(1, 2)

    def _mask(self, n: int, queries: int, keys: int, padding: TensorLike | None, attn: TensorLike | None,
              is_causal: bool) -> Tensor | None:
        """What is to be added to the scores (N, heads, L, S), both masks together."""
        parts: list[Tensor] = []
        if attn is not None:
            given = as_tensor(attn)
            if given.shape == (n * self.num_heads, queries, keys):
                parts.append(additive(given, hides=True).reshape((n, self.num_heads, queries, keys)))
            elif given.shape == (queries, keys):
                parts.append(additive(given, hides=True))
            else:
                raise ShapeError(f"attn_mask is of shape {(int(queries), int(keys))} or "
                                 f"{(int(n * self.num_heads), int(queries), int(keys))}, not {given._type}")
        elif is_causal:
            parts.append(additive(causal_mask(queries, keys)))
        if padding is not None:
            given = as_tensor(padding)
            if given.shape not in ((n, keys), *(((keys,),) if n == 1 else ())):
                raise ShapeError(f"key_padding_mask is of shape {(int(n), int(keys))}, not {given._type}")
            parts.append(additive(given, hides=True).reshape((n, 1, 1, keys)))
        return None if not parts else parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, {self.num_heads}, dropout={self.dropout}, batch_first={self.batch_first}"


class TransformerEncoderLayer(Module):
    """Self-attention and a two-layer network on each position, both with a way around and a layer norm
    (Vaswani et al., 2017).

    Args:
        d_model: features E. nhead: heads of the attention. dim_feedforward: width of the network between.
        dropout: probability of being dropped, in training: attention weights and the outputs of either part.
        activation: 'relu', 'gelu' or a function on tensors.
        layer_norm_eps: of the norms.
        batch_first: (N, L, E), not (L, N, E).
        norm_first: norms before either part, not after the sum (Xiong et al., 2020).
        bias: whether linear layers and norms add something.
        generator: of dropout's random bits. dtype: of the parameters, float32 when not given.

    >>> import graphjit as gj
    >>> gj.nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=16)(gj.ones((5, 2, 8))).shape
    (5, 2, 8)
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: str | Callable[[Tensor], Tensor] = "relu", layer_norm_eps: float = 1e-5,
                 batch_first: bool = False, norm_first: bool = False, bias: bool = True, *,
                 generator: Generator | None = None, dtype: Any = None) -> None:
        super().__init__()
        if isinstance(activation, str) and activation not in ACTIVATIONS:
            raise ArgumentError(f"activation is 'relu', 'gelu' or a function, not {activation!r}")
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first,
                                            generator=generator, dtype=dtype)
        self.linear1 = Linear(d_model, dim_feedforward, bias, dtype=dtype)
        self.dropout = Dropout(dropout, generator=generator)
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype=dtype)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.dropout1 = Dropout(dropout, generator=generator)
        self.dropout2 = Dropout(dropout, generator=generator)
        self.norm_first = norm_first
        self.activation = ACTIVATIONS[activation] if isinstance(activation, str) else activation

    def forward(self, src: TensorLike, src_mask: TensorLike | None = None,
                src_key_padding_mask: TensorLike | None = None, is_causal: bool = False) -> Tensor:
        """(L, N, E), (L, E), or as ``batch_first`` says; masks as those of ``MultiheadAttention``."""
        def attend(x: Tensor) -> Tensor:
            out, _ = self.self_attn(x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal)
            return self.dropout1(out)  # type: ignore[no-any-return]  # a module's call

        def feed(x: Tensor) -> Tensor:
            return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))  # type: ignore[no-any-return]  # a module's call
        x = as_tensor(src)
        if self.norm_first:
            x = x + attend(self.norm1(x))
            return x + feed(self.norm2(x))
        x = self.norm1(x + attend(x))
        return self.norm2(x + feed(x))  # type: ignore[no-any-return]  # a module's call
