"""``BatchNorm1d`` and ``LayerNorm``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphjit.errors import ShapeError
from graphjit.nn import functional as F
from graphjit.nn import init
from graphjit.nn.layers import sizes
from graphjit.nn.module import Module
from graphjit.nn.parameter import Parameter
from graphjit.tape import grad_mode
from graphjit.tensor import Tensor, TensorLike, as_tensor
from graphjit.types import FLOAT32, check_dtype


class BatchNorm1d(Module):
    """Each channel scaled to mean 0 and variance 1 over the batch (Ioffe and Szegedy, 2015), then
    ``* weight + bias``.

    In training the batch's own statistics count, and the running ones move towards them; in evaluation the
    running ones count.

    Args:
        num_features: channels C of an input (N, C) or (N, C, L).
        eps: added to the variance.
        momentum: share of the batch in the running statistics; None for the plain average of all batches.
        affine: whether there are a weight and a bias.
        track_running_stats: whether there are running statistics; without, the batch's own count always.
        dtype: of parameters and statistics, float32 when not given.

    Attributes:
        weight, bias: (C,), start at 1 and 0. running_mean, running_var (unbiased): (C,), start at 0 and 1.
        num_batches_tracked: int64, how many batches went into them.
    """

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
                 affine: bool = True, track_running_stats: bool = True, *, dtype: Any = None) -> None:
        super().__init__()
        kind = FLOAT32 if dtype is None else check_dtype(dtype)
        self.num_features = sizes("num_features", num_features)
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.weight = Parameter(np.ones(num_features, kind)) if affine else None
        self.bias = Parameter(np.zeros(num_features, kind)) if affine else None
        tracked = track_running_stats
        self.register_buffer("running_mean", np.zeros(num_features, kind) if tracked else None)
        self.register_buffer("running_var", np.ones(num_features, kind) if tracked else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if tracked else None)

    def reset_running_stats(self) -> None:
        """Forget what was seen so far."""
        for buffer, value in ((self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)):
            if buffer is not None:
                buffer.assign(value)

    def reset_parameters(self) -> None:
        """Back to the start: statistics forgotten, weight 1, bias 0."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def forward(self, x: TensorLike) -> Tensor:
        x = as_tensor(x)
        if x.ndim not in (2, 3) or x.shape[1] != self.num_features:
            raise ShapeError(f"BatchNorm1d({self.num_features}) takes (N, {self.num_features}) or "
                             f"(N, {self.num_features}, L), not {x._type}")
        share: Any = self.momentum
        if self.training and self.num_batches_tracked is not None:
            with grad_mode(False):
                self.num_batches_tracked.assign(self.num_batches_tracked + 1)
                if share is None:
                    share = 1.0 / self.num_batches_tracked
        training = self.training or self.running_mean is None
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training,
                            0.0 if share is None else share, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"track_running_stats={self.track_running_stats}")


class LayerNorm(Module):
    """The last axes of each sample scaled to mean 0 and variance 1 (Ba, Kiros and Hinton, 2016), then
    ``* weight + bias``.

    Args:
        normalized_shape: lengths of these axes; an integer for the last one alone.
        eps: added to the variance.
        elementwise_affine: whether there are a weight (and, if ``bias``, a bias).
        dtype: of the parameters, float32 when not given.

    Attributes:
        weight, bias: of shape ``normalized_shape``, start at 1 and 0; or None.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, normalized_shape: int | Sequence[int], eps: float = 1e-5,
                 elementwise_affine: bool = True, bias: bool = True, *, dtype: Any = None) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        kind = FLOAT32 if dtype is None else check_dtype(dtype)
        self.normalized_shape = tuple(sizes("normalized_shape", n) for n in shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.weight = Parameter(np.ones(shape, kind)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(shape, kind)) if elementwise_affine and bias else None

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, x: TensorLike) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
