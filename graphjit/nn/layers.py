"""``Linear``, ``Bilinear``, ``Embedding``, ``Dropout``, ``Flatten``, ``Identity``."""

from __future__ import annotations

import math
from typing import Any

from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError
from graphjit.nn import functional as F
from graphjit.nn import init
from graphjit.nn.functional.layer import probability
from graphjit.nn.module import Module
from graphjit.nn.parameter import Parameter
from graphjit.ops.random import Generator
from graphjit.tensor import Tensor, TensorLike


class Linear(Module):
    """``x @ weight.T + bias``.

    Args:
        in_features, out_features: lengths of the last axis of the input and of the output.
        bias: whether something is added.
        dtype: of the parameters, float32 when not given.

    Attributes:
        weight: (out_features, in_features). bias: (out_features,) or None. Both start uniform in
            +-1/sqrt(in_features), as PyTorch's (He et al., 2015, with a = sqrt(5)).

    >>> import graphjit as gj
    >>> gj.nn.Linear(3, 2)(gj.ones((5, 3))).shape
    (5, 2)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, dtype: Any = None) -> None:
        super().__init__()
        self.in_features = sizes("in_features", in_features)
        self.out_features = sizes("out_features", out_features)
        self.weight = init.empty((out_features, in_features), dtype)
        self.bias = init.empty((out_features,), dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the starting values anew."""
        bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: TensorLike) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"


class Bilinear(Module):
    """``x1 @ weight[k] @ x2 + bias[k]`` for each output k.

    Args:
        in1_features, in2_features, out_features: lengths of the last axes of the two inputs and the output.
        bias: whether something is added.
        dtype: of the parameters, float32 when not given.

    Attributes:
        weight: (out_features, in1_features, in2_features). bias: (out_features,) or None. Both start uniform
            in +-1/sqrt(in1_features).

    >>> import graphjit as gj
    >>> gj.nn.Bilinear(3, 4, 2)(gj.ones((5, 3)), gj.ones((5, 4))).shape
    (5, 2)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in1_features: int, in2_features: int, out_features: int, bias: bool = True, *,
                 dtype: Any = None) -> None:
        super().__init__()
        self.in1_features = sizes("in1_features", in1_features)
        self.in2_features = sizes("in2_features", in2_features)
        self.out_features = sizes("out_features", out_features)
        self.weight = init.empty((out_features, in1_features, in2_features), dtype)
        self.bias = init.empty((out_features,), dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the starting values anew."""
        bound = 1 / math.sqrt(self.in1_features) if self.in1_features else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x1: TensorLike, x2: TensorLike) -> Tensor:
        return F.bilinear(x1, x2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
                f"out_features={self.out_features}, bias={self.bias is not None}")


class Embedding(Module):
    """A learned vector for each integer below ``num_embeddings``.

    Args:
        num_embeddings: how many there are.
        embedding_dim: length of each.
        padding_idx: an index whose vector is 0 and stays as it is.
        dtype: of the weight, float32 when not given.

    Attributes:
        weight: (num_embeddings, embedding_dim), from the standard normal distribution.

    >>> import graphjit as gj
    >>> gj.nn.Embedding(10, 4)([[1, 2, 3]]).shape
    (1, 3, 4)
    """

    weight: Parameter

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, *,
                 dtype: Any = None) -> None:
        super().__init__()
        self.num_embeddings = sizes("num_embeddings", num_embeddings)
        self.embedding_dim = sizes("embedding_dim", embedding_dim)
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ArgumentError(f"padding_idx {padding_idx} is not one of {num_embeddings} embeddings")
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = init.empty((num_embeddings, embedding_dim), dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the starting values anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            values = self.weight.data.copy()
            values[self.padding_idx] = 0
            self.weight.assign(values)

    def forward(self, ids: TensorLike) -> Tensor:
        return F.embedding(ids, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class Dropout(Module):
    """In training, each element is 0 with probability ``p``, the others grow by 1 / (1 - p).

    Args:
        p: probability of being dropped, 0 to 1.
        inplace: taken as PyTorch takes it; changes nothing, a layer never writes to its input.
        generator: where its random bits come from; the default generator when not given.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, generator: Generator | None = None) -> None:
        super().__init__()
        self.p = probability(p)
        self.generator = generator

    def forward(self, x: TensorLike) -> Tensor:
        return F.dropout(x, self.p, self.training, generator=self.generator)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Flatten(Module):
    """The axes from ``start_dim`` to ``end_dim`` as one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, x: TensorLike) -> Tensor:
        return as_tensor(x).flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """Gives its input back; arguments of the layer it stands for are accepted and ignored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: TensorLike) -> Tensor:
        return as_tensor(x)


def sizes(name: str, n: int) -> int:
    """The length of an axis.

    Raises:
        ArgumentError: not an integer, or below 0.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ArgumentError(f"{name} is a length, an integer from 0 up, not {n!r}")
    return n
