"""What is measured beside the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphjit.convert import as_tensor
from graphjit.errors import ShapeError
from graphjit.tensor import Tensor, TensorLike
from graphjit.types import FLOAT32, is_float, is_integer

Metric = Callable[[Tensor, Tensor], Tensor]  # outputs, targets -> scalar, a mean over the batch
Metrics = Mapping[str, Metric]


def accuracy(output: TensorLike, target: TensorLike) -> Tensor:
    """The share of samples that are classified rightly.

    Args:
        output: scores (N, C, ...), of which the largest along axis 1 counts; or one score (N, ...) for each sample,
            whose sign counts.
        target: class numbers (N, ...); for one score, positive or not (1 against 0 or -1).

    Returns:
        float32 scalar.

    Raises:
        ShapeError: other shapes.

    >>> from graphjit.training import accuracy
    >>> accuracy([[0.1, 0.9], [0.8, 0.2]], [1, 1]).item(), accuracy([0.3, -2.0], [1, -1]).item()
    (0.5, 1.0)
    """
    output, target = as_tensor(output), as_tensor(target)
    if output.ndim == target.ndim + 1 and output.shape[:1] + output.shape[2:] == target.shape:
        right = output.argmax(axis=1) == target
    elif output.shape == target.shape:
        right = (output > 0) == (target > 0)
    else:
        raise ShapeError(f"accuracy takes outputs (N, C, ...) or (N, ...) and targets (N, ...), not "
                         f"{output._type} and {target._type}")
    share: Tensor = right.astype(FLOAT32).mean()
    return share


def fitting(output: Tensor, target: Tensor) -> Metrics:
    """The metrics where none are given: accuracy, if the targets are class numbers."""
    classes = isinstance(output, Tensor) and isinstance(target, Tensor) and is_integer(target.dtype) and (
        is_float(output.dtype) and output.ndim == target.ndim + 1)
    return {"accuracy": accuracy} if classes else {}
