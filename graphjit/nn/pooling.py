"""Pooling as modules; the functions of the same names say shapes and meaning."""

from __future__ import annotations

from typing import Any

from graphjit.nn import functional as F
from graphjit.nn.module import Module
from graphjit.tensor import Tensor, TensorLike


class _MaxPool(Module):
    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
                 ceil_mode: bool = False) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
                f"dilation={self.dilation}, ceil_mode={self.ceil_mode}")


class MaxPool1d(_MaxPool):
    """The largest element of each window of (N, C, L): see ``functional.max_pool1d``.

    Args:
        kernel_size: length of a window.
        stride: step from window to window; that length when not given.
        padding: elements on both sides that are never picked.
        dilation: step between the elements of a window.
        ceil_mode: count a last window that runs over the end.

    >>> import graphjit as gj
    >>> gj.nn.MaxPool1d(2)([[[1.0, 3.0, 2.0, 5.0]]]).tolist()
    [[[3.0, 5.0]]]
    """

    def forward(self, x: TensorLike) -> Tensor:
        return F.max_pool1d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


class MaxPool2d(_MaxPool):
    """The largest element of each window of (N, C, H, W): see ``functional.max_pool2d``.

    Args:
        kernel_size, stride, padding, dilation: as those of ``MaxPool1d``, one int or two.
        ceil_mode: count last windows that run over the end.

    >>> import graphjit as gj
    >>> gj.nn.MaxPool2d(2)(gj.ones((2, 3, 8, 6))).shape
    (2, 3, 4, 3)
    """

    def forward(self, x: TensorLike) -> Tensor:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


class _AvgPool(Module):
    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The mean of each window of (N, C, L): see ``functional.avg_pool1d``.

    Args:
        kernel_size: length of a window.
        stride: step from window to window; that length when not given.
        padding: zeros on both sides.
        ceil_mode: count a last window that runs over the end.
        count_include_pad: whether the padding counts in the mean.

    >>> import graphjit as gj
    >>> gj.nn.AvgPool1d(2)([[[1.0, 3.0, 2.0, 5.0]]]).tolist()
    [[[2.0, 3.5]]]
    """

    def forward(self, x: TensorLike) -> Tensor:
        return F.avg_pool1d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode,
                            self.count_include_pad)


class AvgPool2d(_AvgPool):
    """The mean of each window of (N, C, H, W): see ``functional.avg_pool2d``.

    Args:
        kernel_size, stride, padding: as those of ``AvgPool1d``, one int or two.
        ceil_mode, count_include_pad: as those of ``AvgPool1d``.

    >>> import graphjit as gj
    >>> gj.nn.AvgPool2d(2)(gj.ones((2, 3, 8, 6))).shape
    (2, 3, 4, 3)
    """

    def forward(self, x: TensorLike) -> Tensor:
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode,
                            self.count_include_pad)


class _AdaptiveAvgPool(Module):
    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The means of ``output_size`` parts of (N, C, L): see ``functional.adaptive_avg_pool1d``.

    >>> import graphjit as gj
    >>> gj.nn.AdaptiveAvgPool1d(1)([[[1.0, 3.0, 2.0, 5.0]]]).tolist()
    [[[2.75]]]
    """

    def forward(self, x: TensorLike) -> Tensor:
        return F.adaptive_avg_pool1d(x, self.output_size)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The means of parts of (N, C, H, W), ``output_size`` an int or two: see ``functional.adaptive_avg_pool2d``.

    >>> import graphjit as gj
    >>> gj.nn.AdaptiveAvgPool2d((2, None))(gj.ones((2, 3, 8, 6))).shape
    (2, 3, 2, 6)
    """

    def forward(self, x: TensorLike) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)
