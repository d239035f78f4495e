"""``Conv1d``, ``Conv2d`` and their transposes."""

from __future__ import annotations

import math
from typing import Any

from graphjit.errors import ArgumentError
from graphjit.nn import functional as F
from graphjit.nn import init
from graphjit.nn.layers import sizes
from graphjit.nn.module import Module
from graphjit.nn.parameter import Parameter
from graphjit.ops.windows import Ints, ints
from graphjit.tensor import Tensor, TensorLike


class _Convolution(Module):
    """What the convolutions share: sizes, and a weight and a bias that start as PyTorch's do."""

    weight: Parameter
    bias: Parameter | None

    def __init__(self, rank: int, in_channels: int, out_channels: int, kernel_size: Any, stride: Any,
                 padding: Any, dilation: Any, groups: int, bias: bool, transposed: bool, dtype: Any) -> None:
        super().__init__()
        name = type(self).__name__
        self.in_channels = sizes("in_channels", in_channels)
        self.out_channels = sizes("out_channels", out_channels)
        self.kernel_size = ints(kernel_size, rank, f"{name}: kernel_size")
        self.stride = ints(stride, rank, f"{name}: stride")
        self.padding: Ints | str = padding if padding in ("same", "valid") else ints(
            padding, rank, f"{name}: padding", 0)
        self.dilation = ints(dilation, rank, f"{name}: dilation")
        (self.groups,) = ints(groups, 1, f"{name}: groups")
        if in_channels % groups or out_channels % groups:
            raise ArgumentError(f"{name}: {groups} groups do not divide {in_channels} and {out_channels} channels")
        first, second = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        self.weight = init.empty((first, second // groups, *self.kernel_size), dtype)
        self.bias = init.empty((out_channels,), dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the starting values anew: uniform in +-1/sqrt(fan in)."""
        fan = math.prod(self.weight.shape[1:])
        bound = 1 / math.sqrt(fan) if fan else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        more = {"padding": (0,) * len(self.kernel_size), "dilation": (1,) * len(self.kernel_size), "groups": 1,
                "output_padding": (0,) * len(self.kernel_size)}
        shown = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        shown += [f"{k}={vars(self)[k]}" for k, plain in more.items() if vars(self).get(k, plain) != plain]
        return ", ".join(shown + ["bias=False"] * (self.bias is None))


class Conv1d(_Convolution):
    """Cross-correlation of (N, C, L) along its last axis: see ``functional.conv1d``.

    Args:
        in_channels, out_channels: C of the input and of the result.
        kernel_size: length K of a window.
        stride: step from window to window.
        padding: zeros on both sides, or 'same', or 'valid'.
        dilation: step between the elements of a window.
        groups: parts of the channels that do not see each other.
        bias: whether a number is added to each output channel.
        dtype: of the parameters, float32 when not given.

    Attributes:
        weight: (out_channels, in_channels / groups, K). bias: (out_channels,) or None.

    >>> import graphjit as gj
    >>> gj.nn.Conv1d(3, 8, kernel_size=5, padding=2)(gj.ones((2, 3, 20))).shape
    (2, 8, 20)
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
                 padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True, *,
                 dtype: Any = None) -> None:
        super().__init__(1, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
                         False, dtype)

    def forward(self, x: TensorLike) -> Tensor:
        return F.conv1d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv2d(_Convolution):
    """Cross-correlation of (N, C, H, W) along its last two axes: see ``functional.conv2d``.

    Args:
        in_channels, out_channels, groups, bias, dtype: as those of ``Conv1d``.
        kernel_size, stride, padding, dilation: one int for both axes, or two.

    Attributes:
        weight: (out_channels, in_channels / groups, KH, KW). bias: (out_channels,) or None.

    >>> import graphjit as gj
    >>> gj.nn.Conv2d(1, 6, 5, padding=2)(gj.ones((2, 1, 28, 28))).shape
    (2, 6, 28, 28)
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
                 padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True, *,
                 dtype: Any = None) -> None:
        super().__init__(2, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
                         False, dtype)

    def forward(self, x: TensorLike) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose1d(_Convolution):
    """The transpose of ``Conv1d``: see ``functional.conv_transpose1d``.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, dtype: as those of
            ``Conv1d``.
        output_padding: length to add at the end, below the stride.

    Attributes:
        weight: (in_channels, out_channels / groups, K). bias: (out_channels,) or None.

    >>> import graphjit as gj
    >>> gj.nn.ConvTranspose1d(8, 3, 4, stride=2, padding=1)(gj.ones((2, 8, 10))).shape
    (2, 3, 20)
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
                 padding: Any = 0, output_padding: Any = 0, groups: int = 1, bias: bool = True,
                 dilation: Any = 1, *, dtype: Any = None) -> None:
        super().__init__(1, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
                         True, dtype)
        self.output_padding = ints(output_padding, 1, "ConvTranspose1d: output_padding", 0)

    def forward(self, x: TensorLike) -> Tensor:
        return F.conv_transpose1d(x, self.weight, self.bias, self.stride, self.padding, self.output_padding,
                                  self.groups, self.dilation)


class ConvTranspose2d(_Convolution):
    """The transpose of ``Conv2d``: see ``functional.conv_transpose2d``.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, dtype: as those of
            ``Conv2d``.
        output_padding: lengths to add at the ends, below the stride; one int or two.

    Attributes:
        weight: (in_channels, out_channels / groups, KH, KW). bias: (out_channels,) or None.

    >>> import graphjit as gj
    >>> gj.nn.ConvTranspose2d(8, 3, 2, stride=2)(gj.ones((2, 8, 7, 7))).shape
    (2, 3, 14, 14)
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
                 padding: Any = 0, output_padding: Any = 0, groups: int = 1, bias: bool = True,
                 dilation: Any = 1, *, dtype: Any = None) -> None:
        super().__init__(2, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
                         True, dtype)
        self.output_padding = ints(output_padding, 2, "ConvTranspose2d: output_padding", 0)

    def forward(self, x: TensorLike) -> Tensor:
        return F.conv_transpose2d(x, self.weight, self.bias, self.stride, self.padding, self.output_padding,
                                  self.groups, self.dilation)
