"""``BatchNorm1d/2d``, ``LayerNorm``, ``GroupNorm``, ``RMSNorm``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from graphjit.convert import as_tensor
from graphjit.errors import ArgumentError, ShapeError
from graphjit.nn import functional as F
from graphjit.nn import init
from graphjit.nn.layers import sizes
from graphjit.nn.module import Module
from graphjit.nn.parameter import Parameter
from graphjit.tape import grad_mode
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import FLOAT32, check_dtype


class _BatchNorm(Module):
    """Batch normalization of inputs of any of the ranks in ``_shapes``."""

    _shapes: ClassVar[dict[int, str]]  # number of dimensions -> what the axes are, ``C`` the channels
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
        if x.ndim not in self._shapes or x.shape[1] != self.num_features:
            taken = " or ".join(self._shapes.values()).replace("C", str(self.num_features))
            raise ShapeError(f"{type(self).__name__}({self.num_features}) takes {taken}, not {x._type}")
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


class BatchNorm1d(_BatchNorm):
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

    >>> import graphjit as gj
    >>> gj.nn.BatchNorm1d(2)([[0.0, 5.0], [2.0, 5.0]]).numpy().round(2).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """

    _shapes: ClassVar[dict[int, str]] = {2: "(N, C)", 3: "(N, C, L)"}


class BatchNorm2d(_BatchNorm):
    """``BatchNorm1d`` for images (N, C, H, W): the statistics of a channel are over N, H and W.

    >>> import graphjit as gj
    >>> gj.nn.BatchNorm2d(3)(gj.ones((4, 3, 5, 5))).shape
    (4, 3, 5, 5)
    """

    _shapes: ClassVar[dict[int, str]] = {4: "(N, C, H, W)"}


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


class GroupNorm(Module):
    """Each group of channels of each sample scaled to mean 0 and variance 1 (Wu and He, 2018), then
    ``* weight + bias`` by channel.

    Args:
        num_groups: into how many groups the channels are parted.
        num_channels: channels C of an input (N, C, ...); ``num_groups`` divides it.
        eps: added to the variance.
        affine: whether there are a weight and a bias.
        dtype: of the parameters, float32 when not given.

    Attributes:
        weight, bias: (C,), start at 1 and 0; or None.

    >>> import graphjit as gj
    >>> gj.nn.GroupNorm(2, 6)(gj.ones((4, 6, 5))).shape
    (4, 6, 5)
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, *,
                 dtype: Any = None) -> None:
        super().__init__()
        kind = FLOAT32 if dtype is None else check_dtype(dtype)
        if num_groups < 1 or num_channels % num_groups:
            raise ArgumentError(f"GroupNorm: {num_channels} channels do not part into {num_groups} groups")
        self.num_groups = num_groups
        self.num_channels = sizes("num_channels", num_channels)
        self.eps = eps
        self.affine = affine
        self.weight = Parameter(np.ones(num_channels, kind)) if affine else None
        self.bias = Parameter(np.zeros(num_channels, kind)) if affine else None

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        if self.weight is not None and self.bias is not None:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def forward(self, x: TensorLike) -> Tensor:
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class RMSNorm(Module):
    """The last axes of each sample divided by the root of their mean square (Zhang and Sennrich, 2019), then
    ``* weight``.

    Args:
        normalized_shape: lengths of these axes; an integer for the last one alone.
        eps: added to the mean square; the spacing of 1 in the input's dtype when None.
        elementwise_affine: whether there is a weight.
        dtype: of the weight, float32 when not given.

    Attributes:
        weight: of shape ``normalized_shape``, starts at 1; or None.

    >>> import graphjit as gj
    >>> gj.nn.RMSNorm(2)([[3.0, -3.0]]).tolist()
    [[1.0, -1.0]]
    """

    weight: Parameter | None

    def __init__(self, normalized_shape: int | Sequence[int], eps: float | None = None,
                 elementwise_affine: bool = True, *, dtype: Any = None) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape = tuple(sizes("normalized_shape", n) for n in shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        kind = FLOAT32 if dtype is None else check_dtype(dtype)
        self.weight = Parameter(np.ones(shape, kind)) if elementwise_affine else None

    def reset_parameters(self) -> None:
        """Weight 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, x: TensorLike) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
