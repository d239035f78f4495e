"""Losses that ask for a margin, as modules."""

from __future__ import annotations

from graphjit.nn import functional as F
from graphjit.nn.functional.loss import reduction_name
from graphjit.nn.module import Module
from graphjit.tensor import Tensor, TensorLike


class HingeLoss(Module):
    """The loss of a support vector machine, ``relu(margin - target * input)``, labels -1 and 1: see
    ``functional.hinge_loss``.

    >>> from graphjit import nn
    >>> nn.HingeLoss()([2.0, -0.5, 0.0], [1, -1, 1]).item()
    0.5
    """

    def __init__(self, *, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        self.margin = margin
        self.reduction = reduction_name(reduction)

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        return F.hinge_loss(input, target, margin=self.margin, reduction=self.reduction)


class HingeEmbeddingLoss(Module):
    """Distances where the label is 1, ``relu(margin - distance)`` where it is -1: see
    ``functional.hinge_embedding_loss``."""

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__()
        self.margin = margin
        self.reduction = reduction_name(reduction)

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        return F.hinge_embedding_loss(input, target, margin=self.margin, reduction=self.reduction)


class MultiMarginLoss(Module):
    """The hinge of several classes: see ``functional.multi_margin_loss``."""

    weight: Tensor | None

    def __init__(self, p: int = 1, margin: float = 1.0, weight: TensorLike | None = None, *,
                 reduction: str = "mean") -> None:
        super().__init__()
        self.p = p
        self.margin = margin
        self.register_buffer("weight", weight)
        self.reduction = reduction_name(reduction)

    def forward(self, input: TensorLike, target: TensorLike) -> Tensor:
        return F.multi_margin_loss(input, target, self.p, self.margin, self.weight, reduction=self.reduction)


class CosineEmbeddingLoss(Module):
    """Whether pairs of vectors point the same way: see ``functional.cosine_embedding_loss``."""

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean") -> None:
        super().__init__()
        self.margin = margin
        self.reduction = reduction_name(reduction)

    def forward(self, input1: TensorLike, input2: TensorLike, target: TensorLike) -> Tensor:
        return F.cosine_embedding_loss(input1, input2, target, margin=self.margin, reduction=self.reduction)
